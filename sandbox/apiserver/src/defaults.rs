//! Defaults that clients rely on. Source: the defaulting functions of Kubernetes 1.34 (`pkg/apis/*/v1/defaults.go`).

use serde_json::{Value, json};

use crate::kind::Kind;
use crate::meta::meta;
use crate::presence;
use crate::schema::VOLUME_SOURCES;

/// Fills in what was left out.
pub(crate) fn apply(kind: &Kind, object: &mut Value) {
    (kind.does.defaults)(object);
}

/// Fills in what admission and storage add, which belongs to no writer.
pub(crate) fn admit(kind: &Kind, object: &mut Value) {
    (kind.does.admit)(object);
}

/// Keeps what the server gave out and an update may leave out.
pub(crate) fn carry_over(kind: &Kind, old: &Value, new: &mut Value) {
    (kind.does.carry_over)(old, new);
}

/// Takes away what only the former type of an object had; its writer goes on owning it, in Kubernetes too.
pub(crate) fn drop_dependent(kind: &Kind, old: &Value, new: &mut Value) {
    (kind.does.drop_dependent)(old, new);
}

fn set(object: &mut Value, field: &str, value: Value) {
    if !object.is_object() {
        *object = json!({});
    }
    if let Some(fields) = object.as_object_mut() {
        let slot = fields.entry(field).or_insert(Value::Null);
        if slot.is_null() {
            *slot = value;
        }
    }
}

pub(crate) fn carry_over_service(old: &Value, new: &mut Value) {
    if new["spec"]["type"] == old["spec"]["type"] {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if new["spec"].get(field).is_none_or(Value::is_null)
                && let Some(value) = old["spec"].get(field)
            {
                new["spec"][field] = value.clone();
            }
        }
    }
}

pub(crate) fn drop_dependent_service(old: &Value, new: &mut Value) {
    if has_node_ports(&old["spec"]) && !has_node_ports(&new["spec"]) {
        each_in(&mut new["spec"], "ports", |port| remove(port, "nodePort"));
        remove(&mut new["spec"], "externalTrafficPolicy");
        remove(&mut new["spec"], "allocateLoadBalancerNodePorts");
    }
}

fn remove(object: &mut Value, field: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(field);
    }
}

fn each(list: &mut Value, change: impl Fn(&mut Value)) {
    list.as_array_mut().into_iter().flatten().for_each(change);
}

/// Visits a list only where there is one, so that looking does not create it.
fn each_in(object: &mut Value, field: &str, change: impl Fn(&mut Value)) {
    if let Some(list) = object.get_mut(field) {
        each(list, change);
    }
}

pub(crate) fn namespace(object: &mut Value) {
    let name = meta(object, "name").to_owned();
    object["metadata"]["labels"]["kubernetes.io/metadata.name"] = json!(name);
    set(&mut object["status"], "phase", json!("Active"));
}

pub(crate) fn admit_namespace(object: &mut Value) {
    set(&mut object["spec"], "finalizers", json!(["kubernetes"]));
}

pub(crate) fn secret(object: &mut Value) {
    set(object, "type", json!("Opaque"));
}

pub(crate) fn node(object: &mut Value) {
    set(object, "spec", json!({}));
    set(object, "status", presence::node_status());
}

pub(crate) fn endpoints(object: &mut Value) {
    each_in(object, "subsets", |subset| {
        each_in(subset, "ports", |port| set(port, "protocol", json!("TCP")));
    });
}

pub(crate) fn endpoint_slice(object: &mut Value) {
    each_in(object, "ports", |port| {
        set(port, "name", json!(""));
        set(port, "protocol", json!("TCP"));
    });
}

pub(crate) fn role_binding(object: &mut Value) {
    if object["roleRef"]["apiGroup"].as_str().unwrap_or("").is_empty() {
        object["roleRef"]["apiGroup"] = json!("rbac.authorization.k8s.io");
    }
}

pub(crate) fn disruption_budget(object: &mut Value) {
    for field in ["currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"] {
        set(&mut object["status"], field, json!(0));
    }
}

pub(crate) fn ingress(object: &mut Value) {
    set(object, "status", json!({"loadBalancer": {}}));
}

pub(crate) fn api_service(object: &mut Value) {
    if object["spec"]["service"].is_object() {
        set(&mut object["spec"]["service"], "port", json!(443));
    }
}

pub(crate) fn pod(object: &mut Value) {
    let spec = &mut object["spec"];
    pod_spec(spec);
    for list in ["initContainers", "containers"] {
        each_in(spec, list, requests);
    }
    set(spec, "enableServiceLinks", json!(true));
    // What is negative ends at once, as far as that goes.
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        spec["terminationGracePeriodSeconds"] = json!(1);
    }
    let class = quality_of_service(spec);
    set(&mut object["status"], "phase", json!("Pending"));
    set(&mut object["status"], "qosClass", json!(class));
}

/// What a container may use, it also asks for. Only in pods: a template stays as it was written.
fn requests(container: &mut Value) {
    if let Some(Value::Object(limits)) = container["resources"].get("limits").cloned() {
        for (resource, quantity) in limits {
            set(&mut container["resources"]["requests"], &resource, quantity);
        }
    }
}

pub(crate) fn admit_pod(object: &mut Value) {
    let spec = &mut object["spec"];
    set(spec, "serviceAccountName", json!("default"));
    let account = spec["serviceAccountName"].clone();
    set(spec, "serviceAccount", account);
    set(spec, "preemptionPolicy", json!("PreemptLowerPriority"));
    set(spec, "priority", json!(0));
    if spec.get("tolerations").is_none() {
        spec["tolerations"] = json!(["not-ready", "unreachable"].map(|taint| json!({
            "key": format!("node.kubernetes.io/{taint}"), "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": 300})));
    }
}

fn quality_of_service(spec: &Value) -> &'static str {
    let containers = || spec["containers"].as_array().into_iter().flatten();
    let get = |c: &Value, what: &str, which: &str| c["resources"][what][which].as_str().map(str::to_owned);
    let any = containers().any(|c| {
        ["limits", "requests"].iter().any(|what| ["cpu", "memory"].iter().any(|r| get(c, what, r).is_some()))
    });
    let guaranteed = containers().all(|c| {
        ["cpu", "memory"]
            .iter()
            .all(|r| get(c, "limits", r).is_some() && get(c, "limits", r) == get(c, "requests", r))
    });
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn pod_spec(spec: &mut Value) {
    set(spec, "restartPolicy", json!("Always"));
    set(spec, "terminationGracePeriodSeconds", json!(30));
    set(spec, "dnsPolicy", json!("ClusterFirst"));
    set(spec, "schedulerName", json!("default-scheduler"));
    set(spec, "securityContext", json!({}));
    for list in ["initContainers", "containers"] {
        each_in(spec, list, container);
    }
    each_in(spec, "volumes", |volume| {
        if VOLUME_SOURCES.iter().all(|source| volume[source].is_null()) {
            set(volume, "emptyDir", json!({}));
        }
        for source in ["configMap", "secret"] {
            if volume.get(source).is_some_and(Value::is_object) {
                set(&mut volume[source], "defaultMode", json!(420));
            }
        }
        for source in ["projected", "downwardAPI"] {
            if volume.get(source).is_some_and(Value::is_object) {
                set(&mut volume[source], "defaultMode", json!(420));
            }
        }
        if let Some(downward) = volume.get_mut("downwardAPI") {
            each_in(downward, "items", |item| {
                if item.get("fieldRef").is_some_and(Value::is_object) {
                    set(&mut item["fieldRef"], "apiVersion", json!("v1"));
                }
            });
        }
        if volume.get("hostPath").is_some_and(Value::is_object) {
            set(&mut volume["hostPath"], "type", json!(""));
        }
    });
}

fn container(container: &mut Value) {
    let image = container["image"].as_str().unwrap_or("").to_owned();
    let tag = image.rsplit('/').next().unwrap_or("");
    let latest = !tag.contains('@') && (!tag.contains(':') || tag.ends_with(":latest"));
    set(container, "imagePullPolicy", json!(if latest { "Always" } else { "IfNotPresent" }));
    set(container, "terminationMessagePath", json!("/dev/termination-log"));
    set(container, "terminationMessagePolicy", json!("File"));
    set(container, "resources", json!({}));
    each_in(container, "ports", |port| set(port, "protocol", json!("TCP")));
    each_in(container, "env", |variable| {
        if variable["valueFrom"].get("fieldRef").is_some_and(Value::is_object) {
            set(&mut variable["valueFrom"]["fieldRef"], "apiVersion", json!("v1"));
        }
        if variable["valueFrom"].get("resourceFieldRef").is_some_and(Value::is_object) {
            set(&mut variable["valueFrom"]["resourceFieldRef"], "divisor", json!("0"));
        }
    });
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        if let Some(probe) = container.get_mut(probe).filter(|probe| probe.is_object()) {
            set(probe, "timeoutSeconds", json!(1));
            set(probe, "periodSeconds", json!(10));
            set(probe, "successThreshold", json!(1));
            set(probe, "failureThreshold", json!(3));
            handler(probe);
            if let Some(grpc) = probe.get_mut("grpc").filter(|grpc| grpc.is_object()) {
                set(grpc, "service", json!(""));
            }
        }
    }
    if let Some(lifecycle) = container.get_mut("lifecycle").filter(|lifecycle| lifecycle.is_object()) {
        for hook in ["preStop", "postStart"] {
            if let Some(hook) = lifecycle.get_mut(hook) {
                handler(hook);
            }
        }
    }
}

fn handler(handler: &mut Value) {
    if let Some(get) = handler.get_mut("httpGet").filter(|get| get.is_object()) {
        set(get, "path", json!("/"));
        set(get, "scheme", json!("HTTP"));
    }
}

pub(crate) fn deployment(object: &mut Value) {
    let spec = &mut object["spec"];
    set(spec, "replicas", json!(1));
    set(spec, "revisionHistoryLimit", json!(10));
    set(spec, "progressDeadlineSeconds", json!(600));
    set(spec, "strategy", json!({}));
    set(&mut spec["strategy"], "type", json!("RollingUpdate"));
    if spec["strategy"]["type"] == "RollingUpdate" {
        set(&mut spec["strategy"], "rollingUpdate", json!({}));
        set(&mut spec["strategy"]["rollingUpdate"], "maxUnavailable", json!("25%"));
        set(&mut spec["strategy"]["rollingUpdate"], "maxSurge", json!("25%"));
    }
    pod_spec(&mut spec["template"]["spec"]);
    set(object, "status", json!({}));
}

pub(crate) fn replica_set(object: &mut Value) {
    set(&mut object["spec"], "replicas", json!(1));
    pod_spec(&mut object["spec"]["template"]["spec"]);
    set(object, "status", json!({"replicas": 0}));
}

pub(crate) fn service(object: &mut Value) {
    let spec = &mut object["spec"];
    set(spec, "type", json!("ClusterIP"));
    set(spec, "sessionAffinity", json!("None"));
    if spec["sessionAffinity"] == "ClientIP" {
        set(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 10_800}}));
    } else {
        remove(spec, "sessionAffinityConfig");
    }
    if spec["type"] != "ExternalName" {
        set(spec, "internalTrafficPolicy", json!("Cluster"));
    }
    each_in(spec, "ports", |port| {
        set(port, "protocol", json!("TCP"));
        let number = port["port"].clone();
        if port["targetPort"] == 0 {
            remove(port, "targetPort");
        }
        set(port, "targetPort", number);
    });
    if has_node_ports(spec) {
        set(spec, "externalTrafficPolicy", json!("Cluster"));
    }
    if spec["type"] == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", json!(true));
    }
    set(object, "status", json!({"loadBalancer": {}}));
}

fn has_node_ports(spec: &Value) -> bool {
    ["NodePort", "LoadBalancer"].contains(&spec["type"].as_str().unwrap_or(""))
}

/// Gives out addresses and ports.
pub(crate) fn admit_service(object: &mut Value) {
    let uid = meta(object, "uid").to_owned();
    let spec = &mut object["spec"];
    if spec["type"] != "ExternalName" {
        // Without a selector, nobody knows yet which families the endpoints of a headless service will have.
        let open = spec["clusterIP"] == "None" && spec["selector"].is_null();
        set(spec, "ipFamilies", if open { json!(["IPv4", "IPv6"]) } else { json!(["IPv4"]) });
        set(spec, "ipFamilyPolicy", json!(if open { "RequireDualStack" } else { "SingleStack" }));
        if spec["clusterIP"].as_str().unwrap_or("").is_empty() {
            spec["clusterIP"] = json!(made_up_address(&uid));
        }
        let address = spec["clusterIP"].clone();
        set(spec, "clusterIPs", json!([address]));
    }
    if has_node_ports(spec) {
        each_in(spec, "ports", |port| {
            let number = 30_000 + hash(&format!("{uid}{}", port["port"])) % 2768;
            set(port, "nodePort", json!(number));
        });
    }
}

/// An address in 10.96.0.0/12, as kubeadm's default service range; nothing listens there.
fn made_up_address(uid: &str) -> String {
    let hash = hash(uid);
    format!("10.{}.{}.{}", 96 + hash % 16, (hash >> 8) % 256, 1 + (hash >> 16) % 254)
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

pub(crate) fn autoscaler(object: &mut Value) {
    let spec = &mut object["spec"];
    set(spec, "minReplicas", json!(1));
    if spec["metrics"].as_array().is_none_or(Vec::is_empty) {
        spec["metrics"] = json!([{"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
    }
    if spec.get("behavior").is_some_and(Value::is_object) {
        let up = json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100,
            "periodSeconds": 15}]);
        let down = json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]);
        let behavior = &mut spec["behavior"];
        for (direction, policies) in [("scaleUp", up), ("scaleDown", down)] {
            set(behavior, direction, json!({}));
            set(&mut behavior[direction], "selectPolicy", json!("Max"));
            set(&mut behavior[direction], "policies", policies);
        }
        set(&mut behavior["scaleUp"], "stabilizationWindowSeconds", json!(0));
    }
    set(object, "status", json!({"currentMetrics": null, "desiredReplicas": 0}));
}

pub(crate) fn network_policy(object: &mut Value) {
    let egress = object["spec"].get("egress").is_some_and(Value::is_array);
    let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    set(&mut object["spec"], "policyTypes", types);
    for direction in ["ingress", "egress"] {
        each_in(&mut object["spec"], direction, |rule| {
            each_in(rule, "ports", |port| set(port, "protocol", json!("TCP")));
        });
    }
}

pub(crate) fn webhooks(object: &mut Value) {
    each_in(object, "webhooks", |webhook| {
        set(webhook, "failurePolicy", json!("Fail"));
        set(webhook, "matchPolicy", json!("Equivalent"));
        set(webhook, "namespaceSelector", json!({}));
        set(webhook, "objectSelector", json!({}));
        set(webhook, "timeoutSeconds", json!(10));
        if webhook["clientConfig"].get("service").is_some_and(Value::is_object) {
            set(&mut webhook["clientConfig"]["service"], "port", json!(443));
        }
        each_in(webhook, "rules", |rule| set(rule, "scope", json!("*")));
    });
}
