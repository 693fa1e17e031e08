//! What every request must hold that a client may send to the API server; the fuzzer and the server's tests both call
//! it.
//!
//! The requests are variations of an object that uses much of the schema: random bytes alone would hardly ever get
//! beyond the parser. A byte string decides each variation, so that a fuzzer can mutate it and a property test can
//! shrink it.

use arbitrary::{Result, Unstructured};
use http_body_util::BodyExt as _;
use sandbox_apiserver::ApiServer;
use serde_json::{Value, json};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const APPLY: &str = "application/apply-patch+yaml";
const PATCHES: [&str; 3] =
    ["application/merge-patch+json", "application/strategic-merge-patch+json", "application/json-patch+json"];

/// A server with nothing in it, and a thread to run it on.
struct Server {
    client: kube::Client,
    runtime: tokio::runtime::Runtime,
}

impl Server {
    fn new() -> Server {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let client = runtime.block_on(async { ApiServer::new(String::new()).client() });
        Server { client, runtime }
    }

    /// Status and body of the answer.
    fn ask(&self, method: &str, path: &str, content_type: &str, body: Vec<u8>) -> (u16, Value) {
        let shown = String::from_utf8_lossy(&body).into_owned();
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type)
            .body(kube::client::Body::from(body))
            .expect("a request");
        self.runtime.block_on(async {
            let answer = self.client.send(request).await.expect("an answer");
            let status = answer.status().as_u16();
            let body = answer.into_body().collect().await.expect("a body").to_bytes();
            let body: Value = serde_json::from_slice(&body).expect("JSON");
            // Kubernetes answers some of a client's mistakes with 500, and so does this server; a panic is its own.
            let is_panic = body["message"].as_str().is_some_and(|message| message.contains("panicked"));
            assert!(!is_panic, "{method} {path} {shown}: {status} {body}");
            (status, body)
        })
    }

    fn create(&self, path: &str, object: &Value) {
        let (status, answer) = self.ask("POST", path, "application/json", object.to_string().into_bytes());
        assert_eq!(status, 201, "{answer}");
    }
}

fn deployment() -> Value {
    let probe =
        json!({"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 2, "failureThreshold": 3});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"},
        "annotations": {"a": "b"},
            "finalizers": ["example.com/a"]},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                "terminationGracePeriodSeconds": 5,
                "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "c",
                "configMap": {"name": "c"}}],
                "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
                "containers": [
                    {"name": "web", "image": "web:1", "args": ["a", "b"],
                        "env": [{"name": "A", "value": "1"}, {"name": "B",
                        "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                        "ports": [{"name": "http", "containerPort": 8000}, {"containerPort": 9000,
                        "protocol": "UDP"}],
                        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                        "resources": {"requests": {"cpu": "250m", "memory": "1.5Gi"},
                        "limits": {"memory": "2Gi"}},
                        "readinessProbe": probe, "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}},
                    {"name": "side", "image": "side:1"},
                ],
            }},
        },
    })
}

/// A patch of one of three types does not harm the server, what it answers is what it keeps, and a merge made twice is
/// a merge made once.
pub(crate) fn patch(input: &[u8]) {
    let mut u = Unstructured::new(input);
    let Ok(content_type) = u.choose(&PATCHES) else { return };
    let operations = content_type.contains("json-patch");
    let patch = if operations { random_operations(&mut u) } else { vary(&mut u, &deployment()) };
    let Ok(patch) = patch else { return };
    let server = Server::new();
    server.create(DEPLOYMENTS, &deployment());
    let path = format!("{DEPLOYMENTS}/web");
    let send = || server.ask("PATCH", &path, content_type, patch.to_string().into_bytes());
    let (status, object) = send();
    if status != 200 {
        return;
    }
    assert_eq!(server.ask("GET", &path, "", Vec::new()), (200, object.clone()), "{patch}");
    if !operations {
        assert_eq!(send(), (200, object), "{content_type} {patch}");
    }
}

/// A configuration applied twice is one applied once; one that another manager takes over by force is the other's
/// alone; and who gives everything up leaves what the others have applied.
pub(crate) fn apply(input: &[u8]) {
    let mut u = Unstructured::new(input);
    let (Ok(a), Ok(b)) = (configuration(&mut u), configuration(&mut u)) else { return };
    let server = Server::new();
    let send = |object: &Value, manager: &str| {
        let path = format!("{DEPLOYMENTS}/web?fieldManager={manager}&force=true");
        server.ask("PATCH", &path, APPLY, object.to_string().into_bytes())
    };
    let (status, first) = send(&a, "a");
    if ![200, 201].contains(&status) {
        return;
    }
    assert_eq!(send(&a, "a"), (200, first), "{a}");
    let (status, second) = send(&b, "b");
    if status != 200 {
        return;
    }
    assert_eq!(send(&b, "b"), (200, second), "{a}\n{b}");
}

/// What is applied names its object.
fn configuration(u: &mut Unstructured<'_>) -> Result<Value> {
    let whole = deployment();
    let mut object = vary(u, &whole)?;
    for (place, field) in [("", "apiVersion"), ("", "kind"), ("/metadata", "name")] {
        if let Some(fields) = object.pointer_mut(place).and_then(Value::as_object_mut) {
            fields.insert(field.to_owned(), whole.pointer(place).expect("there")[field].clone());
        }
    }
    Ok(object)
}

/// A body in YAML does not harm the server; and JSON, which is YAML, means the same in both.
pub(crate) fn yaml(input: &[u8]) {
    let server = Server::new();
    let (status, answer) = server.ask("POST", CONFIG_MAPS, "application/yaml", input.to_vec());
    if serde_json::from_slice::<Value>(input).is_err() {
        return;
    }
    let other = Server::new();
    let (as_json, expected) = other.ask("POST", CONFIG_MAPS, "application/json", input.to_vec());
    assert_eq!(status, as_json, "{}\n{answer}\n{expected}", String::from_utf8_lossy(input));
    for part in ["data", "binaryData", "immutable"] {
        assert_eq!(answer[part], expected[part], "{}", String::from_utf8_lossy(input));
    }
}

/// A selector is refused or selects, and one of a term and its opposite selects every object.
pub(crate) fn selector(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let server = Server::new();
    let all =
        [json!({}), json!({"a": ""}), json!({"a": "b"}), json!({"a": "c", "d": "1"}), json!({"d": "2"})];
    for (index, labels) in all.iter().enumerate() {
        let metadata = json!({"name": format!("c{index}"), "labels": labels});
        server.create(CONFIG_MAPS, &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}));
    }
    let select = |selector: &str| -> Option<Vec<Value>> {
        let escaped = percent_encoding::utf8_percent_encode(selector, percent_encoding::NON_ALPHANUMERIC);
        let (status, list) =
            server.ask("GET", &format!("{CONFIG_MAPS}?labelSelector={escaped}"), "", Vec::new());
        assert!(status == 200 || status == 400, "{selector:?}: {list}");
        (status == 200).then(|| {
            list["items"]
                .as_array()
                .expect("items")
                .iter()
                .map(|item| item["metadata"]["name"].clone())
                .collect()
        })
    };
    let Some(selected) = select(text) else { return };
    // Said twice it means the same.
    if !text.trim().is_empty() {
        assert_eq!(select(&format!("{text},{text}")), Some(selected.clone()), "{text:?}");
    }
    // One term of a set, and its opposite.
    let Some((key, values)) = text.split_once(" in (").filter(|(key, _)| !key.contains([',', '('])) else {
        return;
    };
    if values.find(')') == Some(values.len() - 1) {
        let rest = select(&format!("{key} notin ({values}")).expect("it is as right as the other");
        assert_eq!(selected.len() + rest.len(), all.len(), "{text:?}: {selected:?} {rest:?}");
    }
}

/// The value with parts left out, replaced, or added, as the bytes decide: few or many.
fn vary(u: &mut Unstructured<'_>, value: &Value) -> Result<Value> {
    let odds = *u.choose(&[6, 30, 100, 300])?;
    vary_at(u, value, odds)
}

fn vary_at(u: &mut Unstructured<'_>, value: &Value, odds: u16) -> Result<Value> {
    if u.is_empty() || !u.ratio(1, odds)? {
        return Ok(match value {
            Value::Object(fields) => {
                let varied = fields.iter().map(|(name, value)| Ok((name.clone(), vary_at(u, value, odds)?)));
                Value::Object(varied.collect::<Result<_>>()?)
            }
            Value::Array(items) => {
                items.iter().map(|item| vary_at(u, item, odds)).collect::<Result<Vec<_>>>()?.into()
            }
            leaf => leaf.clone(),
        });
    }
    let mut varied = value.clone();
    match &mut varied {
        Value::Object(fields) if !fields.is_empty() => {
            let names: Vec<String> = fields.keys().cloned().collect();
            let name = u.choose(&names)?;
            match u.int_in_range(0..=4)? {
                0 => drop(fields.remove(name)),
                1 => fields.retain(|kept, _| kept == name),
                2 => fields[name] = Value::Null,
                3 => fields[name] = random(u, 3)?,
                _ => fields.extend([directive(u)?]),
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let index = u.choose_index(items.len())?;
            match u.int_in_range(0..=4)? {
                0 => drop(items.remove(index)),
                1 => items.push(items[index].clone()),
                2 => items.rotate_left(index),
                3 => items.push(random(u, 3)?),
                _ => items.push(vary_at(u, &items[index].clone(), 3)?),
            }
        }
        _ => varied = if u.arbitrary()? { text(u)?.into() } else { random(u, 2)? },
    }
    Ok(varied)
}

/// A field that says how to merge.
fn directive(u: &mut Unstructured<'_>) -> Result<(String, Value)> {
    let named = json!([{"name": text(u)?}, {"name": "web"}]);
    let all = [
        ("$patch", text(u)?.into()),
        ("$patch", "delete".into()),
        ("$patch", "replace".into()),
        ("$retainKeys", json!(["type", text(u)?])),
        ("$deleteFromPrimitiveList/finalizers", json!([text(u)?, "example.com/a"])),
        ("$setElementOrder/containers", named.clone()),
        ("$setElementOrder/env", named.clone()),
        ("$setElementOrder/finalizers", json!(["example.com/a", text(u)?])),
        (text(u)?, named),
    ];
    let (name, value) = u.choose(&all)?;
    Ok(((*name).to_owned(), value.clone()))
}

fn random_operations(u: &mut Unstructured<'_>) -> Result<Value> {
    let mut operations = Vec::new();
    for _ in 0..u.int_in_range(0..=6)? {
        let names = ["add", "remove", "replace", "move", "copy", "test", text(u)?];
        let (from, path) = (pointer(u)?, pointer(u)?);
        operations.push(json!({"op": u.choose(&names)?, "path": path, "from": from, "value": random(u, 3)?}));
    }
    Ok(operations.into())
}

/// A place in the object, or beside it.
fn pointer(u: &mut Unstructured<'_>) -> Result<String> {
    let (object, mut pointer) = (deployment(), String::new());
    let mut value = &object;
    while !u.ratio(1, 6)? {
        let (step, next) = match value {
            Value::Object(fields) if !fields.is_empty() => {
                let names: Vec<&String> = fields.keys().collect();
                let name = *u.choose(&names)?;
                (name.clone(), &fields[name])
            }
            Value::Array(items) if !items.is_empty() => {
                let index = u.choose_index(items.len())?;
                (index.to_string(), &items[index])
            }
            _ => break,
        };
        pointer = format!("{pointer}/{step}");
        value = next;
    }
    if u.ratio(1, 5)? {
        pointer = format!("{pointer}/{}", u.choose(&["-", "new", "~1", "~0", "~", "9", "-1", ""])?);
    }
    Ok(pointer)
}

fn random(u: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    Ok(match u.int_in_range(0..=if depth == 0 { 4 } else { 6 })? {
        0 => Value::Null,
        1 => u.arbitrary::<bool>()?.into(),
        2 => u.arbitrary::<i64>()?.into(),
        3 => u.int_in_range(-2..=70_000)?.into(),
        4 => text(u)?.into(),
        5 => (0..u.int_in_range(0..=3)?).map(|_| random(u, depth - 1)).collect::<Result<Vec<_>>>()?.into(),
        _ => {
            let fields =
                (0..u.int_in_range(0..=3)?).map(|_| Ok((text(u)?.to_owned(), random(u, depth - 1)?)));
            Value::Object(fields.collect::<Result<_>>()?)
        }
    })
}

const TEXTS: [&str; 26] = [
    "",
    "a",
    "web",
    "side",
    "app",
    "name",
    "http",
    "1",
    "25%",
    "500m",
    "1.5Gi",
    "1e3",
    "TCP",
    "UDP",
    "merge",
    "delete",
    "replace",
    "Recreate",
    "RollingUpdate",
    "example.com/a",
    "containers",
    "f:spec",
    "k:{\"name\":\"web\"}",
    ".",
    "é",
    "\u{1}",
];

fn text(u: &mut Unstructured<'_>) -> Result<&'static str> {
    u.choose(&TEXTS).copied()
}
