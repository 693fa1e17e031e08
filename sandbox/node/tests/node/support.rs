//! A cluster of one API server and one node, and how to watch it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::api::{Api, PostParams};
use kube::runtime::{WatchStreamExt as _, wait::await_condition, watcher};
use sandbox_apiserver::ApiServer;
use sandbox_contract::LogRequest;
use sandbox_node::{ImageLayout, ImageStore, NodeAgent, NodeConfig, Tuning};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Longer than anything here takes, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Cluster {
    pub(crate) client: kube::Client,
    pub(crate) agent: NodeAgent,
    pub(crate) images: ImageStore,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) shutdown: CancellationToken,
    _end: DropGuard,
}

pub(crate) fn tuning() -> Tuning {
    Tuning {
        crash_backoff: Duration::from_millis(300),
        crash_backoff_max: Duration::from_millis(600),
        sample_period: Duration::from_millis(100),
        create_retry: Duration::from_millis(50),
        pod_addresses: true,
    }
}

pub(crate) fn fixture_image() -> ImageLayout {
    ImageLayout {
        files: vec![(env!("CARGO_BIN_EXE_node-fixture").into(), "bin/fixture".to_owned())],
        entrypoint: vec!["{root}/bin/fixture".to_owned()],
        env: BTreeMap::from([("FROM_IMAGE".to_owned(), "{root}/model".to_owned())]),
    }
}

/// A cluster whose node has the image `fixture:1`, and the builtin image `builtin/fixture:v1`.
pub(crate) async fn cluster() -> Cluster {
    cluster_with(tuning()).await
}

pub(crate) async fn cluster_with(tuning: Tuning) -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let images = ImageStore::open(dir.path().join("images")).unwrap();
    images.import("fixture:1", &fixture_image()).unwrap();
    let client = ApiServer::new("token".to_owned()).client();
    let shutdown = CancellationToken::new();
    let fixture = env!("CARGO_BIN_EXE_node-fixture");
    let config = NodeConfig {
        node_name: "node".to_owned(),
        dir: dir.path().join("node"),
        images: images.clone(),
        builtin: BTreeMap::from([("builtin/fixture:v1".to_owned(), vec![fixture.into()])]),
        kubeconfig: dir.path().join("kubeconfig"),
        memory_bytes: 8 << 30,
        cpus: 2,
        leash: leash::Leash::start(&[fixture.into(), "leash".into()]).unwrap(),
    };
    let agent = NodeAgent::start_with(client.clone(), config, tuning, shutdown.clone()).await.unwrap();
    Cluster { client, agent, images, dir, _end: shutdown.clone().drop_guard(), shutdown }
}

/// A pod bound to the node, with one container `app` of the fixture; `container` and `spec` are merged over it.
pub(crate) fn pod(name: &str, container: Value, spec: Value) -> Pod {
    let mut pod = json!({
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "nodeName": "node",
            "terminationGracePeriodSeconds": 20,
            "containers": [{
                "name": "app",
                "image": "fixture:1",
                "imagePullPolicy": "IfNotPresent",
                "ports": [{ "name": "http", "containerPort": 8000 }],
            }],
        },
    });
    merge(&mut pod["spec"], spec);
    merge(&mut pod["spec"]["containers"][0], container);
    serde_json::from_value(pod).unwrap()
}

pub(crate) fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// A shell script as the container's command; its dollars are none of Kubernetes' business.
pub(crate) fn shell(script: &str) -> Value {
    let script = script.replace('$', "$$");
    json!({ "command": ["sh", "-c", script], "ports": null })
}

impl Cluster {
    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) async fn create(&self, pod: &Pod) {
        self.pods().create(&PostParams::default(), pod).await.unwrap();
    }

    /// Creates the pod and waits for it to be Ready.
    pub(crate) async fn ready(&self, pod: &Pod) -> Pod {
        self.create(pod).await;
        self.until(pod.metadata.name.as_deref().unwrap(), "Ready", is_ready).await
    }

    pub(crate) async fn until(&self, name: &str, what: &str, condition: fn(&Pod) -> bool) -> Pod {
        let met = await_condition(self.pods(), name, |pod: Option<&Pod>| pod.is_some_and(condition));
        match tokio::time::timeout(PATIENCE, met).await {
            Ok(pod) => pod.unwrap().unwrap(),
            Err(_) => {
                panic!("pod {name} did not become {what}: {:#?}", self.pods().get(name).await.unwrap().status)
            }
        }
    }

    pub(crate) async fn until_gone(&self, name: &str) {
        let gone = await_condition(self.pods(), name, |pod: Option<&Pod>| pod.is_none());
        tokio::time::timeout(PATIENCE, gone).await.expect("the pod is still there").unwrap();
    }

    /// Waits for an event about the pod.
    pub(crate) async fn event(&self, pod: &str, reason: &str, text: &str, count: i32) -> Event {
        let api: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let mut events = watcher(api, watcher::Config::default()).applied_objects().boxed();
        let found = async {
            while let Some(event) = events.try_next().await.unwrap() {
                if event.involved_object.name.as_deref() == Some(pod)
                    && event.reason.as_deref() == Some(reason)
                    && event.message.as_deref().is_some_and(|message| message.contains(text))
                    && event.count >= Some(count)
                {
                    return event;
                }
            }
            panic!("the watch ended");
        };
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(event) => event,
            Err(_) => {
                panic!("no event {reason} {text:?} about {pod}; there are {:#?}", self.events(pod).await)
            }
        }
    }

    /// `reason: message` of every event about the pod so far.
    pub(crate) async fn events(&self, pod: &str) -> Vec<String> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let events = api.list(&Default::default()).await.unwrap().items.into_iter();
        let events = events.filter(|event| event.involved_object.name.as_deref() == Some(pod));
        events
            .map(|event| {
                format!("{}: {}", event.reason.unwrap_or_default(), event.message.unwrap_or_default())
            })
            .collect()
    }

    /// `GET path` at port 8000 of the pod: the answer's body.
    pub(crate) async fn get(&self, pod: &str, path: &str) -> String {
        let mut stream = self.agent.connect("default", pod, 8000).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        // A process that was asked to exit may reset the connection.
        let _ = stream.read_to_string(&mut answer).await;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
    }

    pub(crate) async fn logs(&self, request: LogRequest) -> Result<String, String> {
        let pieces = self.agent.logs(request).await.map_err(|error| error.to_string())?;
        let pieces = tokio::time::timeout(PATIENCE, pieces.try_collect::<Vec<_>>()).await.unwrap().unwrap();
        Ok(String::from_utf8(pieces.concat()).unwrap())
    }
}

pub(crate) fn log_of(pod: &str) -> LogRequest {
    LogRequest { namespace: "default".to_owned(), pod: pod.to_owned(), ..LogRequest::default() }
}

pub(crate) fn app(pod: &Pod) -> ContainerStatus {
    pod.status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref()?.first().cloned())
        .unwrap_or_default()
}

pub(crate) fn condition(pod: &Pod, name: &str) -> Option<(String, Option<String>)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == name)?;
    Some((found.status.clone(), found.reason.clone()))
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|(status, _)| status == "True")
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub(crate) fn waiting(pod: &Pod) -> String {
    app(pod).state.and_then(|state| state.waiting?.reason).unwrap_or_default()
}

/// Whether a process lives; a zombie does not.
pub(crate) fn alive(pid: i32) -> bool {
    let state =
        std::process::Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap();
    let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

pub(crate) async fn until_dead(pids: &[i32]) {
    let deadline = Instant::now() + PATIENCE;
    while pids.iter().any(|&pid| alive(pid)) {
        assert!(Instant::now() < deadline, "still alive: {pids:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
