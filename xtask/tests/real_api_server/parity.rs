//! The sandbox's answers beside the real ones.

use std::sync::Arc;

use serde_json::Value;

use crate::servers::Server;

pub(crate) const NAME: &str = "the_sandbox_answers_as_the_real_one";

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// Method, path (NS stands for the namespace), content type, body.
type Request = (&'static str, &'static str, &'static str, &'static str);

const DEPLOYMENT: &str = r#"{"metadata":{"name":"web","labels":{"a":"b"}},"spec":{"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"name":"web","image":"web","ports":[{"containerPort":8000,"name":"http"}],"resources":{"requests":{"cpu":"150m","memory":"1Gi"}},"readinessProbe":{"httpGet":{"path":"/health","port":"http"}}}]}}}}"#;
const APPLIED: &str = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":5,"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"name":"web","image":"other"}]}}}}"#;
const POD: &str = r#"{"metadata":{"name":"p","labels":{"app":"web"}},"spec":{"containers":[{"name":"c","image":"web:1"}]}}"#;
const HPA: &str = r#"{"metadata":{"name":"web"},"spec":{"maxReplicas":10,"minReplicas":3,"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"web"},"metrics":[{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":70}}}]}}"#;
const INGRESS: &str = r#"{"metadata":{"name":"web"},"spec":{"ingressClassName":"nginx","rules":[{"host":"web.local","http":{"paths":[{"path":"/","pathType":"Prefix","backend":{"service":{"name":"web","port":{"name":"http"}}}}]}}]}}"#;
const SERVICE: &str = r#"{"metadata":{"name":"web"},"spec":{"selector":{"app":"web"},"ports":[{"name":"http","port":8000,"targetPort":"http"}]}}"#;
const LEASE: &str = r#"{"metadata":{"name":"l"},"spec":{"holderIdentity":"p","leaseDurationSeconds":30,"renewTime":"2026-01-01T00:00:00.123456Z"}}"#;

const REQUESTS: &[Request] = &[
    // What is not there.
    ("GET", "/apis/apps/v1/namespaces/NS/deployments/none", JSON, ""),
    ("GET", "/api/v1/namespaces/NS/pods/none/log", JSON, ""),
    ("GET", "/apis/apps/v1/namespaces/NS/teapots", JSON, ""),
    ("GET", "/apis/example.com/v1/teapots", JSON, ""),
    ("DELETE", "/api/v1/namespaces/NS/configmaps/none", JSON, ""),
    ("PATCH", "/api/v1/namespaces/NS/configmaps/none", MERGE, r#"{"data":{}}"#),
    ("POST", "/api/v1/namespaces/none/configmaps", JSON, r#"{"metadata":{"name":"x"}}"#),
    // What is refused.
    ("POST", "/api/v1/namespaces/NS/configmaps", JSON, r#"{"metadata":{}}"#),
    ("POST", "/api/v1/namespaces/NS/configmaps", JSON, r#"{"metadata":{"name":"Not_A_Name"}}"#),
    ("POST", "/api/v1/namespaces/NS/configmaps", JSON, r#"{"metadata":{"name":"x","namespace":"other"}}"#),
    ("POST", "/api/v1/namespaces/NS/configmaps", JSON, r#"{"metadata":{"name":"x","labels":{"a b":"c"}}}"#),
    ("POST", "/api/v1/namespaces/NS/configmaps", JSON, "{"),
    (
        "POST",
        "/api/v1/namespaces/NS/configmaps",
        JSON,
        r#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"x"}}"#,
    ),
    (
        "POST",
        "/api/v1/namespaces/NS/configmaps?fieldValidation=Strict",
        JSON,
        r#"{"metadata":{"name":"x"},"datta":{}}"#,
    ),
    ("POST", "/api/v1/namespaces/NS/configmaps?dryRun=Some", JSON, r#"{"metadata":{"name":"x"}}"#),
    ("POST", "/apis/apps/v1/namespaces/NS/deployments", JSON, r#"{"metadata":{"name":"x"},"spec":{}}"#),
    (
        "POST",
        "/apis/apps/v1/namespaces/NS/deployments",
        JSON,
        r#"{"metadata":{"name":"x"},"spec":{"replicas":"three"}}"#,
    ),
    (
        "POST",
        "/apis/apps/v1/namespaces/NS/deployments",
        JSON,
        r#"{"metadata":{"name":"x"},"spec":{"selector":{"matchLabels":{"app":"x"}},"template":{"metadata":{"labels":{"app":"y"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#,
    ),
    ("POST", "/api/v1/namespaces/NS/pods", JSON, r#"{"metadata":{"name":"x"},"spec":{"containers":[]}}"#),
    (
        "POST",
        "/api/v1/namespaces/NS/pods",
        JSON,
        r#"{"metadata":{"name":"x"},"spec":{"containers":[{"name":"c","image":"i","resources":{"requests":{"memory":"2Gi"},"limits":{"memory":"1Gi"}}}]}}"#,
    ),
    (
        "POST",
        "/api/v1/namespaces/NS/services",
        JSON,
        r#"{"metadata":{"name":"x"},"spec":{"ports":[{"port":0}]}}"#,
    ),
    (
        "POST",
        "/apis/networking.k8s.io/v1/namespaces/NS/ingresses",
        JSON,
        r#"{"metadata":{"name":"x"},"spec":{"rules":[{"host":"a","http":{"paths":[{"path":"x","pathType":"Prefix","backend":{"service":{"name":"s","port":{"number":1}}}}]}}]}}"#,
    ),
    (
        "POST",
        "/apis/autoscaling/v2/namespaces/NS/horizontalpodautoscalers",
        JSON,
        r#"{"metadata":{"name":"x"},"spec":{"maxReplicas":1,"minReplicas":3,"scaleTargetRef":{"kind":"Deployment","name":"x"}}}"#,
    ),
    // What is taken, with its defaults.
    (
        "POST",
        "/api/v1/namespaces/NS/configmaps?fieldValidation=Warn",
        JSON,
        r#"{"metadata":{"name":"c"},"data":{"a":"1"},"datta":{}}"#,
    ),
    ("POST", "/api/v1/namespaces/NS/configmaps", JSON, r#"{"metadata":{"name":"c"}}"#),
    ("POST", "/apis/apps/v1/namespaces/NS/deployments", JSON, DEPLOYMENT),
    ("POST", "/api/v1/namespaces/NS/pods", JSON, POD),
    ("POST", "/api/v1/namespaces/NS/services", JSON, SERVICE),
    ("POST", "/apis/networking.k8s.io/v1/namespaces/NS/ingresses", JSON, INGRESS),
    ("POST", "/apis/autoscaling/v2/namespaces/NS/horizontalpodautoscalers", JSON, HPA),
    ("POST", "/apis/coordination.k8s.io/v1/namespaces/NS/leases", JSON, LEASE),
    (
        "POST",
        "/apis/policy/v1/namespaces/NS/poddisruptionbudgets",
        JSON,
        r#"{"metadata":{"name":"b"},"spec":{"maxUnavailable":1,"selector":{"matchLabels":{"app":"web"}}}}"#,
    ),
    (
        "POST",
        "/api/v1/namespaces/NS/events",
        JSON,
        r#"{"metadata":{"name":"e"},"involvedObject":{"kind":"Pod","name":"p","namespace":"NS"},"type":"Warning","reason":"R","message":"m"}"#,
    ),
    (
        "POST",
        "/apis/apps/v1/namespaces/NS/deployments?dryRun=All",
        JSON,
        r#"{"metadata":{"name":"dry"},"spec":{"selector":{"matchLabels":{"app":"x"}},"template":{"metadata":{"labels":{"app":"x"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#,
    ),
    ("GET", "/apis/apps/v1/namespaces/NS/deployments/dry", JSON, ""),
    // What is changed.
    (
        "PUT",
        "/api/v1/namespaces/NS/configmaps/c",
        JSON,
        r#"{"metadata":{"name":"c","resourceVersion":"1"},"data":{"a":"2"}}"#,
    ),
    ("PUT", "/api/v1/namespaces/NS/configmaps/c", JSON, r#"{"metadata":{"name":"other"},"data":{"a":"2"}}"#),
    ("PATCH", "/api/v1/namespaces/NS/configmaps/c", MERGE, r#"{"data":{"a":null,"b":"2"}}"#),
    ("PATCH", "/api/v1/namespaces/NS/configmaps/c", "application/x-none", "{}"),
    (
        "PATCH",
        "/apis/apps/v1/namespaces/NS/deployments/web",
        STRATEGIC,
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"A","value":"1"}]}]}}}}"#,
    ),
    (
        "PATCH",
        "/apis/apps/v1/namespaces/NS/deployments/web",
        STRATEGIC,
        r#"{"spec":{"selector":{"matchLabels":{"app":"z"}}}}"#,
    ),
    ("PATCH", "/apis/apps/v1/namespaces/NS/deployments/web?fieldManager=xtask", APPLY, APPLIED),
    ("PATCH", "/apis/apps/v1/namespaces/NS/deployments/web?fieldManager=xtask&force=true", APPLY, APPLIED),
    ("PATCH", "/apis/apps/v1/namespaces/NS/deployments/web", APPLY, APPLIED),
    (
        "PATCH",
        "/apis/apps/v1/namespaces/NS/deployments/web/status",
        MERGE,
        r#"{"status":{"observedGeneration":3,"replicas":5},"spec":{"replicas":9}}"#,
    ),
    ("PATCH", "/apis/apps/v1/namespaces/NS/deployments/web", MERGE, r#"{"status":{"replicas":7}}"#),
    ("GET", "/apis/apps/v1/namespaces/NS/deployments/web/scale", JSON, ""),
    ("PATCH", "/apis/apps/v1/namespaces/NS/deployments/web/scale", MERGE, r#"{"spec":{"replicas":2}}"#),
    ("PATCH", "/apis/apps/v1/namespaces/NS/deployments/web/scale", MERGE, r#"{"spec":{"replicas":-1}}"#),
    (
        "PATCH",
        "/api/v1/namespaces/NS/pods/p",
        MERGE,
        r#"{"spec":{"containers":[{"name":"other","image":"x"}]}}"#,
    ),
    ("PATCH", "/api/v1/namespaces/NS/pods/p", STRATEGIC, r#"{"spec":{"nodeName":"n"}}"#),
    (
        "PATCH",
        "/api/v1/namespaces/NS/pods/p/status",
        STRATEGIC,
        r#"{"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#,
    ),
    (
        "PATCH",
        "/api/v1/namespaces/NS/pods/p/status",
        STRATEGIC,
        r#"{"status":{"conditions":[{"type":"PodScheduled","status":"True"}]}}"#,
    ),
    (
        "PATCH",
        "/apis/coordination.k8s.io/v1/namespaces/NS/leases/l",
        MERGE,
        r#"{"spec":{"renewTime":"2026-01-01T00:00:09Z"}}"#,
    ),
    // What is listed and watched.
    ("GET", "/api/v1/namespaces/NS/pods?labelSelector=app%3Dweb", JSON, ""),
    ("GET", "/api/v1/namespaces/NS/pods?labelSelector=%3D%3D", JSON, ""),
    ("GET", "/api/v1/namespaces/NS/pods?fieldSelector=spec.nodeName%3Dnone", JSON, ""),
    ("GET", "/api/v1/namespaces/NS/pods?fieldSelector=spec.color%3Dred", JSON, ""),
    ("GET", "/api/v1/namespaces/NS/pods?limit=x", JSON, ""),
    ("GET", "/api/v1/namespaces/NS/pods?watch=true&resourceVersion=x", JSON, ""),
    (
        "GET",
        "/api/v1/namespaces/NS/configmaps?watch=true&timeoutSeconds=1&resourceVersion=0&labelSelector=none",
        JSON,
        "",
    ),
    ("GET", "/api/v1/namespaces/NS/configmaps?watch=true&timeoutSeconds=1&sendInitialEvents=true", JSON, ""),
    // What is removed.
    (
        "POST",
        "/api/v1/namespaces/NS/pods/p/eviction",
        JSON,
        r#"{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"p"}}"#,
    ),
    ("DELETE", "/api/v1/namespaces/NS/configmaps/c", JSON, r#"{"preconditions":{"uid":"other"}}"#),
    ("DELETE", "/api/v1/namespaces/NS/configmaps/c", JSON, ""),
    ("DELETE", "/apis/apps/v1/namespaces/NS/deployments/web", JSON, r#"{"propagationPolicy":"Foreground"}"#),
    ("DELETE", "/apis/apps/v1/namespaces/NS/deployments/web", JSON, r#"{"propagationPolicy":"Sideways"}"#),
    ("DELETE", "/api/v1/namespaces/NS/services/web", JSON, ""),
];

/// Asks both the same, in order, and compares what does not depend on when and where.
pub(crate) async fn the_sandbox_answers_as_the_real_one(sandbox: Arc<Server>, real: Arc<Server>) {
    for server in [&sandbox, &real] {
        server.namespace("parity").await;
    }
    let mut different = Vec::new();
    for (method, path, content_type, body) in REQUESTS {
        let (path, body) = (path.replace("NS", "parity"), body.replace("NS", "parity"));
        let ask = async |server: &Server| {
            let (code, answer) =
                server.ask(method, &path, content_type, body.clone()).await.expect("an answer");
            (code, alike(answer))
        };
        let (ours, theirs) = (ask(&sandbox).await, ask(&real).await);
        if ours != theirs {
            let mut lines = Vec::new();
            if ours.0 != theirs.0 {
                lines.push(format!("    code: sandbox {}, real {}", ours.0, theirs.0));
            }
            compare("", &ours.1, &theirs.1, &mut lines);
            different.push(format!("{method} {path} {body}\n{}", lines.join("\n")));
        }
    }
    println!("{} of {} answers differ", different.len(), REQUESTS.len());
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// What both choose for themselves, made the same.
fn alike(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                let chosen = matches!(
                    name.as_str(),
                    "uid"
                        | "resourceVersion"
                        | "creationTimestamp"
                        | "deletionTimestamp"
                        | "time"
                        | "clusterIP"
                        | "clusterIPs"
                );
                *field = if chosen && !field.is_null() { Value::from("chosen") } else { alike(field.take()) };
            }
        }
        Value::Array(items) => {
            for item in items {
                *item = alike(item.take());
            }
        }
        // The lines of a watch.
        Value::String(text) if text.starts_with("{\"type\"") => {
            let lines = text.lines().map(|line| alike(serde_json::from_str(line).unwrap_or_default()));
            return lines.collect();
        }
        _ => {}
    }
    value
}

fn compare(path: &str, ours: &Value, theirs: &Value, lines: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let names: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
            for name in names {
                let of = |fields: &serde_json::Map<String, Value>| fields.get(name).cloned();
                match (of(ours), of(theirs)) {
                    (Some(ours), Some(theirs)) => compare(&format!("{path}.{name}"), &ours, &theirs, lines),
                    (ours, theirs) => lines.push(format!(
                        "    {path}.{name}: sandbox {}, real {}",
                        shown(ours.as_ref()),
                        shown(theirs.as_ref())
                    )),
                }
            }
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            for (n, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                compare(&format!("{path}[{n}]"), ours, theirs, lines);
            }
        }
        (ours, theirs) if ours != theirs => {
            lines.push(format!("    {path}: sandbox {}, real {}", shown(Some(ours)), shown(Some(theirs))));
        }
        _ => {}
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), Value::to_string)
}
