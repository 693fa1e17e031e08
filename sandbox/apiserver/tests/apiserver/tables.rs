//! What `kubectl get` prints of pods with init containers, and the selector that a scale names.

use serde_json::{Value, json};

use crate::raw::{JSON, MERGE, Raw};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// READY, STATUS and RESTARTS of a pod with an init container, a sidecar and one container, in this state.
async fn columns(server: &Raw, status: &Value) -> [String; 3] {
    let patch = json!({"status": status}).to_string();
    assert_eq!(server.ask(&format!("PATCH {PODS}/p/status"), MERGE, patch).await.code, 200);
    let table = server.table(&format!("{PODS}/p")).await;
    [1, 2, 3].map(|column| table["rows"][0]["cells"][column].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_sidecar_counts_among_the_containers() {
    let server = Raw::start();
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "initContainers": [{"name": "first", "image": "i"}, {"name": "side", "image": "i",
        "restartPolicy": "Always"}],
        "containers": [{"name": "main", "image": "i"}]}});
    assert_eq!(server.ask(&format!("POST {PODS}"), JSON, pod.to_string()).await.code, 201);
    let status = |name: &str, ready: bool, state: Value| {
        json!({"name": name, "image": "i", "imageID": "",
        "ready": ready, "started": ready, "restartCount": 1, "state": state})
    };
    let (runs, done) = (json!({"running": {}}), json!({"terminated": {"exitCode": 0}}));
    let first_runs =
        json!({"phase": "Pending", "initContainerStatuses": [status("first", false, runs.clone())]});
    assert_eq!(columns(&server, &first_runs).await, ["0/2", "Init:0/2", "1"]);
    let done_and = |ready| json!([status("first", true, done.clone()), status("side", ready, runs.clone())]);
    let side_starts = json!({"initContainerStatuses": done_and(false)});
    assert_eq!(columns(&server, &side_starts).await, ["0/2", "Init:1/2", "2"]);
    let all_run = json!({
        "phase": "Running", "conditions": [{"type": "Initialized", "status": "True"}],
        "initContainerStatuses": done_and(true), "containerStatuses": [status("main", true, runs.clone())],
    });
    assert_eq!(columns(&server, &all_run).await, ["2/2", "Running", "2"]);
}

#[tokio::test]
async fn a_scale_names_the_whole_selector() {
    let server = Raw::start();
    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "selector": {
            "matchLabels": {"tier": "x"},
            "matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}, {"key": "old",
            "operator": "DoesNotExist"}]},
        "template": {"metadata": {"labels": {"app": "web", "tier": "x"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let made = server.ask(&format!("POST {deployments}"), JSON, deployment.to_string()).await;
    assert_eq!(made.code, 201, "{}", made.message());
    let scale = server.get(&format!("{deployments}/d/scale")).await;
    assert_eq!(scale["status"]["selector"], "app in (web),!old,tier=x");
}
