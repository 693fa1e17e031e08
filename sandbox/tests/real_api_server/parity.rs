//! The sandbox's answers beside the real ones: `requests.yaml` is asked of both, in order.

use std::sync::Arc;

use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::servers::Server;

pub(crate) const NAME: &str = "the_sandbox_answers_as_the_real_one";

/// One request of `requests.yaml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// Method and path; NS stands for the namespace.
    ask: String,
    /// How the body is to be taken; JSON without this.
    #[serde(default, rename = "as")]
    kind: Kind,
    /// The form that the answer is wanted in.
    #[serde(default)]
    accept: Form,
    /// An object, or text that is sent as it is.
    #[serde(default)]
    body: Value,
}

#[derive(Default, Deserialize)]
enum Kind {
    #[default]
    #[serde(skip)]
    Object,
    #[serde(rename = "merge")]
    Merge,
    #[serde(rename = "strategic")]
    Strategic,
    #[serde(rename = "json")]
    Json,
    #[serde(rename = "apply")]
    Apply,
    #[serde(rename = "application/x-none")]
    Unknown,
}

impl Kind {
    fn media_type(&self) -> &'static str {
        match self {
            Kind::Object => "application/json",
            Kind::Merge => "application/merge-patch+json",
            Kind::Strategic => "application/strategic-merge-patch+json",
            Kind::Json => "application/json-patch+json",
            Kind::Apply => "application/apply-patch+yaml",
            Kind::Unknown => "application/x-none",
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Form {
    #[default]
    #[serde(skip)]
    Object,
    Table,
    Metadata,
    MetadataList,
}

impl Form {
    fn accept(&self) -> &'static str {
        match self {
            Form::Object => "application/json",
            Form::Table => "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            Form::Metadata => "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json",
            Form::MetadataList => {
                "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"
            }
        }
    }
}

/// Fields whose values each server chooses, and those that one of them has no part for.
const CHOSEN: &[(&str, &str)] = &[
    ("uid", "random"),
    ("resourceVersion", "counted over all objects"),
    ("creationTimestamp", "when"),
    ("deletionTimestamp", "when"),
    ("time", "when"),
    ("clusterIP", "from another range, and at random"),
    ("clusterIPs", "from another range, and at random"),
    ("nodePort", "at random"),
    ("continue", "opaque to clients"),
    ("description", "of a table's column: prose"),
    ("serviceAccount", "the real one runs without that admission plug-in"),
    ("serviceAccountName", "the real one runs without that admission plug-in"),
    ("taints", "of a new node: the sandbox has no controller that would take them off"),
];

/// What is left out of messages: from the first text up to the second (to the end where that is empty).
const UNSAID: &[(&str, &str, &str)] = &[
    (" in scheme ", "", "a place in the Go source"),
    ("\n@@", "", "a difference of Go structs"),
    ("continue key is not valid: ", "", "the words of Go's JSON parser"),
    ("error converting YAML to JSON: yaml: ", "", "the words of Go's YAML parser"),
    ("Invalid value: \"{\\\"apiVersion", "\": ", "a whole object, in Go's order of fields"),
    ("Invalid value: \"map[", "\": ", "where the sandbox shows the object, the real one shows the patch"),
    ("in record (", ")", "an uid or a resourceVersion"),
    ("UID in object meta: ", "", "an uid"),
];

/// What `transitions.yaml` applies to one object after another, by the object's kind.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Transition {
    /// A deployment of pods of these specs.
    Pod(Vec<Step>),
    Deployment(Vec<Step>),
    Service(Vec<Step>),
    HorizontalPodAutoscaler(Vec<Step>),
    Ingress(Vec<Step>),
    NetworkPolicy(Vec<Step>),
    PodDisruptionBudget(Vec<Step>),
    Lease(Vec<Step>),
    ConfigMap(Vec<Step>),
}

/// One configuration: what it says of the object, and who applies it.
#[derive(Deserialize)]
struct Step {
    #[serde(default = "one")]
    by: String,
    #[serde(default)]
    force: bool,
    #[serde(flatten)]
    part: serde_json::Map<String, Value>,
}

fn one() -> String {
    "one".to_owned()
}

impl Transition {
    fn requests(self, number: usize) -> Vec<Request> {
        let (group_version, kind, steps) = match self {
            Transition::Pod(steps) => {
                ("apps/v1", "Deployment", steps.into_iter().map(Step::of_pods).collect())
            }
            Transition::Deployment(steps) => ("apps/v1", "Deployment", steps),
            Transition::Service(steps) => ("v1", "Service", steps),
            Transition::HorizontalPodAutoscaler(steps) => {
                ("autoscaling/v2", "HorizontalPodAutoscaler", steps)
            }
            Transition::Ingress(steps) => ("networking.k8s.io/v1", "Ingress", steps),
            Transition::NetworkPolicy(steps) => ("networking.k8s.io/v1", "NetworkPolicy", steps),
            Transition::PodDisruptionBudget(steps) => ("policy/v1", "PodDisruptionBudget", steps),
            Transition::Lease(steps) => ("coordination.k8s.io/v1", "Lease", steps),
            Transition::ConfigMap(steps) => ("v1", "ConfigMap", steps),
        };
        let root = if group_version == "v1" { "api" } else { "apis" };
        let plural = match kind {
            "NetworkPolicy" => "networkpolicies".to_owned(),
            "Ingress" => "ingresses".to_owned(),
            kind => format!("{}s", kind.to_lowercase()),
        };
        let path = format!("/{root}/{group_version}/namespaces/NS/{plural}/transition-{number}");
        let request = |step: Step| {
            let name = format!("transition-{number}");
            let mut body = json!({"apiVersion": group_version, "kind": kind, "metadata": {"name": name}});
            body.as_object_mut().expect("an object").extend(step.part);
            let force = if step.force { "&force=true" } else { "" };
            let ask = format!("PATCH {path}?fieldManager={}{force}", step.by);
            Request { ask, kind: Kind::Apply, accept: Form::Object, body }
        };
        steps.into_iter().map(request).collect()
    }
}

impl Step {
    /// The step of a deployment whose pods have this spec.
    fn of_pods(mut self) -> Step {
        let spec = self.part.remove("spec").unwrap_or_default();
        let labels = json!({"app": "t"});
        let template = json!({"metadata": {"labels": labels}, "spec": spec});
        let spec = json!({"selector": {"matchLabels": labels}, "template": template});
        self.part.insert("spec".to_owned(), spec);
        self
    }
}

/// Asks both the same, in order, and compares what does not depend on when and where.
pub(crate) async fn the_sandbox_answers_as_the_real_one(sandbox: Arc<Server>, real: Arc<Server>) {
    for server in [&sandbox, &real] {
        server.namespace("parity").await;
    }
    let requests: Vec<Request> =
        serde_yaml::from_str(include_str!("requests.yaml")).expect("the list of requests");
    // By way of JSON, where the one field of an object names a variant.
    let transitions: Value =
        serde_yaml::from_str(include_str!("transitions.yaml")).expect("the list of transitions");
    let transitions: Vec<Transition> = serde_json::from_value(transitions).expect("transitions");
    let transitions = transitions.into_iter().enumerate().flat_map(|(number, one)| one.requests(number));
    let requests: Vec<Request> = requests.into_iter().chain(transitions).collect();
    let mut different = Vec::new();
    for request in &requests {
        let (own, theirs) = (answer(&sandbox, request).await, answer(&real, request).await);
        if own != theirs {
            let mut lines = Vec::new();
            if own.0 != theirs.0 {
                lines.push(format!("    code: sandbox {}, real {}", own.0, theirs.0));
            }
            compare("", &own.1, &theirs.1, &mut lines);
            different.push(format!("{} {}\n{}", request.ask, request.body, lines.join("\n")));
        }
    }
    println!("{} of {} answers differ", different.len(), requests.len());
    assert!(different.is_empty(), "{}", different.join("\n"));
}

async fn answer(server: &Server, request: &Request) -> (u16, Value) {
    let (method, path) = request.ask.split_once(' ').expect("a method and a path");
    let body = match &request.body {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        object => object.to_string(),
    };
    let headers = [
        (ACCEPT, request.accept.accept()),
        (CONTENT_TYPE, request.kind.media_type()),
        (USER_AGENT, "parity/1"),
    ];
    let (path, body) = (path.replace("NS", "parity"), body.replace("NS", "parity"));
    let (code, answer) = server.ask(method, &path, &headers, body).await.expect("an answer");
    (code, alike(answer))
}

/// The answer without what may differ.
fn alike(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.retain(|name, _| {
                !matches!(name.as_str(), "serviceAccount" | "serviceAccountName" | "taints")
            });
            for (name, field) in fields.iter_mut() {
                let chosen = CHOSEN.iter().any(|(chosen, _)| chosen == name);
                let headless = name.starts_with("clusterIP") && field.to_string().contains("None");
                let taken = field.take();
                *field = match name.as_str() {
                    _ if chosen && !taken.is_null() && !headless => Value::from("chosen"),
                    "cells" => alike(without_ages(taken)),
                    _ => alike(taken),
                };
            }
        }
        Value::Array(items) => {
            for item in items {
                *item = alike(item.take());
            }
        }
        // The lines of a watch.
        Value::String(text) if text.starts_with("{\"type\"") || text.starts_with("{\"object\"") => {
            let lines = text.lines().map(|line| alike(serde_json::from_str(line).unwrap_or_default()));
            return lines.collect();
        }
        Value::String(text) => unsay(text),
        _ => {}
    }
    value
}

/// The cells of a table's row, those that say how old something is made the same.
fn without_ages(mut cells: Value) -> Value {
    for cell in cells.as_array_mut().into_iter().flatten() {
        let age = cell.as_str().and_then(|text| text.strip_suffix('s'));
        if age.is_some_and(|seconds| seconds.parse::<u32>().is_ok()) {
            *cell = Value::from("age");
        }
    }
    cells
}

fn unsay(text: &mut String) {
    for (from, to, _) in UNSAID {
        let Some(start) = text.find(from) else { continue };
        let length = if to.is_empty() { Some(text.len() - start) } else { text[start..].find(to) };
        if let Some(length) = length {
            text.replace_range(start..start + length, "");
        }
    }
    // The name that generateName made.
    if let Some(made) = text.strip_prefix("made-")
        && made.len() == 5
    {
        "made-chosen".clone_into(text);
    }
}

fn compare(path: &str, own: &Value, theirs: &Value, lines: &mut Vec<String>) {
    match (own, theirs) {
        (Value::Object(own), Value::Object(theirs)) => {
            let names: std::collections::BTreeSet<&String> = own.keys().chain(theirs.keys()).collect();
            for name in names {
                let of = |fields: &serde_json::Map<String, Value>| fields.get(name).cloned();
                match (of(own), of(theirs)) {
                    (Some(own), Some(theirs)) => compare(&format!("{path}.{name}"), &own, &theirs, lines),
                    (own, theirs) => lines.push(format!(
                        "    {path}.{name}: sandbox {}, real {}",
                        shown(own.as_ref()),
                        shown(theirs.as_ref())
                    )),
                }
            }
        }
        (Value::Array(own), Value::Array(theirs)) if own.len() == theirs.len() => {
            for (n, (own, theirs)) in own.iter().zip(theirs).enumerate() {
                compare(&format!("{path}[{n}]"), own, theirs, lines);
            }
        }
        (own, theirs) if own != theirs => {
            lines.push(format!("    {path}: sandbox {}, real {}", shown(Some(own)), shown(Some(theirs))));
        }
        _ => {}
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), Value::to_string)
}
