//! What the witness keeps, and what it says it could not.

use std::fmt::Debug;

use http::{Request, Response};
use kube::api::{Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Client, Resource};
use sandbox_apiserver::ApiServer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::*;

const NO_LOG_LINE: &str = "unable to retrieve container logs for docker://0a1b";

/// An API server whose nodes have these logs, by pod; what is asked for is noted.
fn server(logs: &'static [(&str, &str)]) -> (Client, Arc<Mutex<BTreeSet<String>>>) {
    drop(rustls::crypto::ring::default_provider().install_default());
    let direct = ApiServer::new("token".into()).client();
    let asked = Arc::new(Mutex::new(BTreeSet::new()));
    let noted = Arc::clone(&asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        let (direct, noted) = (direct.clone(), Arc::clone(&noted));
        async move {
            let path = request.uri().path();
            let Some(pod) = path.strip_suffix("/log").and_then(|path| path.rsplit('/').next()) else {
                return direct.send(request).await;
            };
            let log = logs.iter().find(|(name, _)| *name == pod).map_or("", |(_, log)| log);
            noted.lock().insert(pod.to_owned());
            Ok(Response::new(Body::from(log.as_bytes().to_vec())))
        }
    });
    (Client::new(service, "default"), asked)
}

async fn create<K>(client: &Client, object: Value) -> K
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), "default");
    let object = serde_json::from_value(object).expect("an object");
    api.create(&PostParams::default(), &object).await.expect("creating it")
}

/// A pod whose container runs, of a ReplicaSet or of nobody.
async fn pod(client: &Client, name: &str, set: Option<&ReplicaSet>) {
    let owners: Vec<_> = set.map(|set| owner("ReplicaSet", &set.metadata)).into_iter().collect();
    let pod = json!({
        "metadata": {"name": name, "labels": {"app": "web"}, "ownerReferences": owners},
        "spec": {"containers": [{"name": "web", "image": "web"}]},
    });
    create::<Pod>(client, pod).await;
    state(client, name, json!({"running": {"startedAt": "2026-01-02T03:04:05Z"}})).await;
}

async fn state(client: &Client, pod: &str, state: Value) {
    let container = json!({"name": "web", "image": "web", "imageID": "", "ready": true,
        "restartCount": 0, "state": state});
    let status = json!({"status": {"phase": "Running", "containerStatuses": [container]}});
    let api: Api<Pod> = Api::namespaced(client.clone(), "default");
    api.patch_status(pod, &PatchParams::default(), &Patch::Merge(status)).await.expect("its status");
}

fn owner(kind: &str, of: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "name": of.name, "uid": of.uid, "controller": true})
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// The Deployment `web` and what has its labels.
fn watched(client: &Client) -> Watched {
    Watched {
        client: client.clone(),
        cluster: String::new(),
        namespace: "default".into(),
        deployment: "web".into(),
        selector: "app=web".into(),
        nginx: true,
        entry: String::new(),
        host: String::new(),
    }
}

#[tokio::test]
async fn a_record_that_is_full_or_was_never_begun_is_a_gap() {
    let (client, _) = server(&[]);
    let dir = tempfile::tempdir().expect("a folder");
    let bounds = Bounds { timeline: 2_000_000, logs: 0, earlier_events: false };
    let witness = Witness::start(&watched(&client), dir.path(), bounds).await.expect("a witness");
    let large = "x".repeat(500_000);
    for n in 0..5 {
        let event = json!({
            "metadata": {"name": format!("e{n}")}, "involvedObject": {}, "message": large,
            "reason": "Large",
        });
        create::<Event>(&client, event).await;
    }
    until("it is full", || !witness.shared.gaps.lock().is_empty()).await;
    witness.shared.unlisted.lock().insert("pods in default".into(), Some("forbidden".into()));
    let gaps = witness.finish().expect("an end");
    assert_eq!(
        gaps,
        [
            "the rest of timeline.jsonl: 2 MB are kept at most",
            "pods in default, which could not be listed: forbidden"
        ]
    );
    let kept = std::fs::metadata(dir.path().join(TIMELINE)).expect("the timeline").len();
    assert!((1_500_000..2_000_000).contains(&kept), "{kept}");
}

#[tokio::test]
async fn a_log_that_is_lost_is_a_gap_and_other_pods_logs_are_not_read() {
    let (client, asked) = server(&[
        ("web-full", "2026-01-02T03:04:06Z a line for which there is no room\n"),
        ("web-lost", NO_LOG_LINE),
        ("web-well", "2026-01-02T03:04:06Z a line of the app\n"),
        ("stranger", "2026-01-02T03:04:06Z a secret\n"),
    ]);
    let labels = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web",
        "image": "web"}]}});
    let spec = json!({"selector": {"matchLabels": {"app": "web"}}, "template": labels});
    let deployment: k8s_openapi::api::apps::v1::Deployment =
        create(&client, json!({"metadata": {"name": "web"}, "spec": spec})).await;
    let owners = [owner("Deployment", &deployment.metadata)];
    let set = json!({"metadata": {"name": "web-1", "labels": {"app": "web"}, "ownerReferences": owners},
        "spec": spec});
    let set: ReplicaSet = create(&client, set).await;
    // Only their labels are those of the app's pods.
    pod(&client, "stranger", None).await;
    for name in ["web-full", "web-lost", "web-well"] {
        pod(&client, name, Some(&set)).await;
    }

    let event = json!({"metadata": {"name": "old"}, "involvedObject": {}, "message": "told long before",
        "lastTimestamp": "2026-01-02T03:04:05Z"});
    create::<Event>(&client, event).await;

    let dir = tempfile::tempdir().expect("a folder");
    let no_file = dir.path().join(APP_LOGS).join("web-full.log");
    std::fs::create_dir_all(&no_file).expect("a folder in the place of the file");
    let witness = Witness::start(&watched(&client), dir.path(), Bounds::NONE).await.expect("a witness");
    // That of which nothing can be kept too: a line in it may be waited for.
    until("all three logs are followed", || asked.lock().len() == 3).await;
    state(&client, "web-lost", json!({"terminated": {"exitCode": 137}})).await;
    until("its end is seen", || witness.shared.gaps.lock().len() == 2).await;

    let file = |pod: &str| std::fs::read_to_string(dir.path().join(APP_LOGS).join(format!("{pod}.log")));
    assert_eq!(file("web-lost").expect("a log"), "", "what the kubelet says is no line of the app");
    assert!(file("web-well").expect("a log").starts_with("2026-01-02T03:04:06Z a line of the app\n"));
    assert!(file("stranger").is_err());
    assert_eq!(asked.lock().iter().collect::<Vec<_>>(), ["web-full", "web-lost", "web-well"]);
    // The Service sends requests to it too: what met them must be known.
    let timeline = std::fs::read_to_string(dir.path().join(TIMELINE)).expect("the timeline");
    assert!(timeline.contains(r#""name":"stranger""#), "{timeline}");
    assert!(!timeline.contains("managedFields") && !timeline.contains("told long before"), "{timeline}");
    let gaps = witness.finish().expect("an end");
    let unkept = format!(
        "log of web-full: it could not be kept in {}: Is a directory (os error 21)",
        no_file.display()
    );
    assert_eq!(gaps, [unkept, format!("log of web-lost: the kubelet: {NO_LOG_LINE}")]);
}
