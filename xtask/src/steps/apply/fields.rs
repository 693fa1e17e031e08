//! The fields that an object may have, for a name that is not among them. The API server that refuses the name
//! describes its kinds, those of others too, in an OpenAPI document for each version of a group
//! (<https://kubernetes.io/docs/concepts/overview/kubernetes-api/#openapi-v3>).

use std::time::Duration;

use kube::Client;
use serde_json::Value;

use crate::manifests::Object;

/// An answer later than this helps nobody: the refusal itself is there.
const PATIENCE: Duration = Duration::from_secs(5);
const REFERENCE: &str = "#/components/schemas/";

/// What the API server says of an object's kind; nothing where it does not say.
pub(super) async fn document(client: &Client, object: &Object) -> Option<Value> {
    let root = if object.group().is_empty() { "api" } else { "apis" };
    let request =
        http::Request::get(format!("/openapi/v3/{root}/{}", object.api_version)).body(Vec::new()).ok()?;
    tokio::time::timeout(PATIENCE, client.request(request)).await.ok()?.ok()
}

/// The known field nearest to `name` in what `pointer` leads to.
pub(super) fn nearest<'d>(
    document: &'d Value,
    object: &Object,
    pointer: &str,
    name: &str,
) -> Option<&'d str> {
    let known = known(document, object, pointer)?;
    let distance = |field: &&str| strsim::damerau_levenshtein(&field.to_lowercase(), &name.to_lowercase());
    let near = known.min_by_key(distance)?;
    // What has hardly a letter in common was not meant.
    (distance(&near) <= (name.len() / 3).max(1)).then_some(near)
}

fn known<'d>(
    document: &'d Value,
    object: &Object,
    pointer: &str,
) -> Option<impl Iterator<Item = &'d str> + use<'d>> {
    let schemas = document.pointer("/components/schemas")?;
    let is_of_kind = |schema: &&Value| {
        let kinds = schema["x-kubernetes-group-version-kind"].as_array();
        let mut kinds = kinds.into_iter().flatten();
        kinds.any(|kind| kind["group"] == object.group() && kind["kind"] == object.kind)
    };
    let mut schema = schemas.as_object()?.values().find(is_of_kind)?;
    for step in pointer.split('/').filter(|step| !step.is_empty()) {
        let of_all = schema.get("items").or_else(|| schema.get("additionalProperties"));
        let inside = schema["properties"].get(step).or(of_all)?;
        // A reference stands alone, or beside what this field has of its own.
        let named = inside.get("$ref").or_else(|| inside.pointer("/allOf/0/$ref"));
        schema = match named {
            Some(name) => schemas.get(name.as_str()?.strip_prefix(REFERENCE)?)?,
            None => inside,
        };
    }
    Some(schema["properties"].as_object()?.keys().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gates::tests::Server;
    use crate::manifests::tests::Folder;

    #[tokio::test]
    async fn a_kinds_fields_are_known_at_any_depth() {
        let server = Server::start();
        let manifests = Folder::shipped().read();
        let known = async |kind: &str, pointer: &str| -> Option<Vec<String>> {
            let object = manifests.objects.iter().find(|object| object.kind == kind).expect("its manifest");
            let document = document(&server.direct, object).await.expect("its document");
            Some(known(&document, object, pointer)?.map(str::to_owned).collect())
        };
        let pod = known("Deployment", "/spec/template/spec").await.expect("a pod's fields");
        assert!(pod.iter().any(|field| field == "terminationGracePeriodSeconds"), "{pod:?}");
        let probe = known("Deployment", "/spec/template/spec/containers/0/livenessProbe").await;
        assert!(probe.is_some_and(|probe| probe.iter().any(|field| field == "periodSeconds")));
        assert!(known("Service", "").await.is_some_and(|fields| fields.iter().any(|field| field == "spec")));
        assert_eq!(known("Service", "/nothing/there").await, None);
        assert_eq!(known("Deployment", "/metadata/labels/a").await, None);
    }

    /// As an API server describes a kind that a CustomResourceDefinition has brought: all in one schema.
    #[test]
    fn the_kinds_of_others_have_neighbours_too() {
        let folder = Folder::shipped();
        let widget = "apiVersion: example.org/v1\nkind: Widget\nmetadata:\n  name: w\nspec:\n  parts: []\n";
        let manifests = folder.write("80-widget.yaml", widget).read();
        let object = manifests.objects.iter().find(|object| object.kind == "Widget").expect("its manifest");
        let part = json!({"type": "object", "properties": {"thickness": {"type": "integer"}}});
        let document = json!({"components": {"schemas": {"org.example.v1.Widget": {
            "x-kubernetes-group-version-kind": [{"group": "example.org", "version": "v1", "kind": "Widget"}],
            "properties": {"spec": {"type": "object", "properties": {
                "parts": {"type": "array", "items": part},
                "byName": {"type": "object", "additionalProperties": part},
            }}},
        }}}});
        let nearest = |pointer, name| nearest(&document, object, pointer, name);
        assert_eq!(nearest("/spec", "part"), Some("parts"));
        assert_eq!(nearest("/spec/parts/0", "thicknes"), Some("thickness"));
        assert_eq!(nearest("/spec/byName/lid", "tickness"), Some("thickness"));
        assert_eq!(nearest("/spec/parts/0", "colour"), None);
    }
}
