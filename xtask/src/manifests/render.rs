//! What is set in the objects on their way to the cluster: namespace, the image's tag, and a hash of what pods read.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::ByteString;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::app::repository;
use super::{CLUSTER_WIDE, Object, REPOSITORY};

/// The annotation of the pod template by which a changed ConfigMap or Secret becomes a rollout.
pub(super) const CONFIG_HASH: &str = "xtask/config-hash";

/// The label by which an object is known as one of the app's, and the label of what no namespace holds, by which it is
/// known which namespace's it is.
pub(super) const PART_OF: &str = "xtask/part-of";
pub(super) const NAMESPACE: &str = "xtask/namespace";

/// Kinds whose controller replaces the pods when the template changes.
const ROLLED_OUT: [&str; 3] = ["Deployment", "StatefulSet", "DaemonSet"];

/// Kinds that pods read.
const INPUTS: [&str; 2] = ["ConfigMap", "Secret"];

/// Where the kinds of workload keep their pod template; a Pod is one itself.
const TEMPLATES: [&str; 3] = ["/spec/template", "/spec/jobTemplate/spec/template", "/template"];

/// A ConfigMap or Secret: kind and name.
pub type Input = (&'static str, String);

/// What ConfigMaps and Secrets hold.
pub type Contents = BTreeMap<Input, Value>;

/// The objects as they go to the cluster. `outside` is what the cluster holds of [`outside`].
pub(super) fn render(
    objects: &[Object],
    namespace: &str,
    reference: &str,
    outside: &Contents,
) -> Vec<Object> {
    let scaled = scaled(objects);
    let mut contents = outside.clone();
    contents.extend(objects.iter().filter_map(content));
    let mut rendered = objects.to_vec();
    for object in &mut rendered {
        let hash = hash(object, &contents);
        let leaves_replicas = scaled.contains(&(object.kind.clone(), object.name.clone()));
        let value = &mut object.value;
        set(value, &["metadata", "namespace"], namespace.into());
        set(value, &["metadata", "labels", PART_OF], REPOSITORY.into());
        if CLUSTER_WIDE.contains(&object.kind.as_str()) {
            set(value, &["metadata", "labels", NAMESPACE], namespace.into());
        }
        tag(value, reference);
        if let Some(hash) = hash {
            set(value, &["spec", "template", "metadata", "annotations", CONFIG_HASH], hash.into());
        }
        if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut).filter(|_| leaves_replicas) {
            spec.remove("replicas");
        }
        if object.kind == "Secret" && object.api_version == "v1" {
            encode(value);
        }
    }
    rendered
}

/// What a reader should know of what [`render`] does with the objects.
pub(super) fn warnings(objects: &[Object]) -> Vec<String> {
    let mut warnings = Vec::new();
    let scaled = scaled(objects);
    for object in objects {
        let has_replicas = object.value.pointer("/spec/replicas").is_some_and(|replicas| !replicas.is_null());
        if has_replicas && scaled.contains(&(object.kind.clone(), object.name.clone())) {
            warnings.push(format!(
                "{}: {} has an autoscaler, which owns `replicas`: the number here is ignored",
                object.place_of("/spec/replicas"),
                object.title()
            ));
        }
        for (pointer, image) in images(&object.value) {
            if image != REPOSITORY && repository(image) == REPOSITORY {
                warnings.push(format!(
                    "{}: the image `{image}` is not the one that is built here; `image: {REPOSITORY}` is",
                    object.place_of(&pointer)
                ));
            }
        }
    }
    warnings
}

/// What an autoscaler of the folder scales: kind and name.
fn scaled(objects: &[Object]) -> BTreeSet<(String, String)> {
    let targets = objects.iter().filter(|object| object.is("autoscaling", "HorizontalPodAutoscaler"));
    targets
        .filter_map(|hpa| {
            let target = hpa.value.pointer("/spec/scaleTargetRef")?;
            let field = |name: &str| target.get(name).and_then(Value::as_str).map(str::to_owned);
            Some((field("kind")?, field("name")?))
        })
        .collect()
}

/// Pointers to the pod specs of an object.
fn pod_specs(value: &Value) -> impl Iterator<Item = String> {
    let own = (value.get("kind").and_then(Value::as_str) == Some("Pod")).then_some("");
    own.into_iter()
        .chain(TEMPLATES)
        .map(|template| format!("{template}/spec"))
        .filter(|pointer| value.pointer(pointer).is_some_and(Value::is_object))
}

/// Pointers to all containers of an object: init containers and sidecars too.
fn containers(value: &Value) -> Vec<String> {
    let mut pointers = Vec::new();
    for spec in pod_specs(value) {
        for list in ["initContainers", "containers"] {
            let list = format!("{spec}/{list}");
            let count = value.pointer(&list).and_then(Value::as_array).map_or(0, Vec::len);
            pointers.extend((0..count).map(|index| format!("{list}/{index}")));
        }
    }
    pointers
}

fn images(value: &Value) -> Vec<(String, &str)> {
    let pointers = containers(value).into_iter().map(|container| format!("{container}/image"));
    pointers.filter_map(|pointer| Some((pointer.clone(), value.pointer(&pointer)?.as_str()?))).collect()
}

/// Sets the tag of the app's image, wherever a container has it.
fn tag(value: &mut Value, reference: &str) {
    for container in containers(value) {
        let Some(container) =
            value.pointer_mut(&container).filter(|container| container["image"] == REPOSITORY)
        else {
            continue;
        };
        container["image"] = reference.into();
        // By its digest, it is what a registry has; without one, it is on the node.
        if reference.contains('@') {
            container["imagePullPolicy"] = "IfNotPresent".into();
        }
    }
}

/// Sets a field, and the objects on the way to it; what stands in the way is the API's to refuse.
fn set(value: &mut Value, path: &[&str], to: Value) {
    let [name, inside @ ..] = path else {
        *value = to;
        return;
    };
    if value.is_null() {
        *value = json!({});
    }
    if let Some(fields) = value.as_object_mut() {
        set(fields.entry(*name).or_insert(Value::Null), inside, to);
    }
}

/// A Secret's words become its data here, as they would in the API: only what is applied as `data` is taken away again
/// when it leaves the manifest.
fn encode(secret: &mut Value) {
    let Some(fields) = secret.as_object_mut() else { return };
    let is_words =
        |value: &Value| value.as_object().is_some_and(|words| words.values().all(Value::is_string));
    // What is no word is the API's to refuse.
    let Some(Value::Object(words)) = fields.get("stringData").filter(|words| is_words(words)).cloned() else {
        return;
    };
    if fields.get("data").is_some_and(|data| !data.is_object() && !data.is_null()) {
        return;
    }
    fields.remove("stringData");
    for (name, word) in words {
        let bytes = ByteString(word.as_str().unwrap_or_default().as_bytes().to_vec());
        // Bytes always serialise, as base64.
        set(secret, &["data", &name], json!(bytes));
    }
}

/// The ConfigMap or Secret that an object is, and what it holds.
pub(super) fn content(object: &Object) -> Option<(Input, Value)> {
    let kind = INPUTS.into_iter().find(|kind| object.is("", kind))?;
    let mut value = object.value.clone();
    if kind == "Secret" {
        encode(&mut value);
    }
    Some(((kind, object.name.clone()), held(&value)))
}

/// What a ConfigMap or Secret of the cluster holds.
pub fn held(value: &Value) -> Value {
    let fields = ["data", "binaryData"].map(|field| value.get(field).cloned().unwrap_or_default());
    fields.to_vec().into()
}

/// The ConfigMaps and Secrets that the pods of a workload read whose controller replaces them when its template
/// changes.
pub(super) fn read_by(object: &Object) -> BTreeSet<Input> {
    if ROLLED_OUT.contains(&object.kind.as_str()) { inputs(&object.value) } else { BTreeSet::new() }
}

/// What the pods read that is not among the objects.
pub(super) fn outside(objects: &[Object]) -> BTreeSet<Input> {
    let inside: BTreeSet<Input> = objects.iter().filter_map(content).map(|(input, _)| input).collect();
    objects.iter().flat_map(read_by).filter(|input| !inside.contains(input)).collect()
}

/// A hash of what a workload's pods read; none where they read nothing that is known.
fn hash(object: &Object, contents: &Contents) -> Option<String> {
    let read: Vec<_> =
        read_by(object).into_iter().filter_map(|input| contents.get_key_value(&input)).collect();
    if read.is_empty() {
        return None;
    }
    let hash = Sha256::digest(json!(read).to_string());
    Some(hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

/// The ConfigMaps and Secrets that a workload's pods read: as environment or as files.
fn inputs(workload: &Value) -> BTreeSet<Input> {
    let mut inputs = BTreeSet::new();
    let mut note = |kind: &'static str, name: Option<&Value>| {
        inputs.extend(name.and_then(Value::as_str).map(|name| (kind, name.to_owned())));
    };
    let items = |value: &Value, pointer: &str| {
        value.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    for container in containers(workload) {
        for from in items(workload, &format!("{container}/envFrom")) {
            note("ConfigMap", from.pointer("/configMapRef/name"));
            note("Secret", from.pointer("/secretRef/name"));
        }
        for variable in items(workload, &format!("{container}/env")) {
            note("ConfigMap", variable.pointer("/valueFrom/configMapKeyRef/name"));
            note("Secret", variable.pointer("/valueFrom/secretKeyRef/name"));
        }
    }
    for spec in pod_specs(workload) {
        for volume in items(workload, &format!("{spec}/volumes")) {
            note("ConfigMap", volume.pointer("/configMap/name"));
            note("Secret", volume.pointer("/secret/secretName"));
            for source in items(&volume, "/projected/sources") {
                note("ConfigMap", source.pointer("/configMap/name"));
                note("Secret", source.pointer("/secret/name"));
            }
        }
    }
    inputs
}
