//! A cluster for one test: an API server, the controllers, and a node agent that only pretends.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use sandbox_apiserver::ApiServer;
use sandbox_contract::{Kubelet, LogError, LogRequest, PodUsage, Sample, Usage};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) const NODE: &str = "node-1";
/// Far more than anything here takes; only a failing test waits this long.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) usage: Arc<FakeUsage>,
    _shutdown: DropGuard,
}

impl World {
    /// With one ready node that has room for ten pods of 1Gi.
    pub(crate) async fn start() -> Self {
        Self::start_with_node(json!({})).await
    }

    /// With a node of this spec.
    pub(crate) async fn start_with_node(spec: serde_json::Value) -> Self {
        let server = ApiServer::new("token".to_owned());
        let client = server.client();
        let usage = Arc::new(FakeUsage::default());
        server.set_kubelet(usage.clone());
        let shutdown = CancellationToken::new();
        tokio::spawn(sandbox_controllers::run(client.clone(), shutdown.clone()));
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(play_node(client.clone(), usage.clone())));
        let world = Self { client, usage, _shutdown: shutdown.drop_guard() };
        world.add_node(spec).await;
        world
    }

    async fn add_node(&self, spec: serde_json::Value) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}, "spec": spec,
            "status": {
                "allocatable": {"cpu": "8", "memory": "10Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }))
        .unwrap();
        nodes.create(&PostParams::default(), &node).await.unwrap();
        // The status of a new object comes by its own way.
        nodes.replace_status(NODE, &PostParams::default(), &with_version(&nodes, node).await).await.unwrap();
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) async fn create<K>(&self, object: serde_json::Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap()
    }

    pub(crate) async fn merge<K>(&self, name: &str, patch: serde_json::Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap()
    }

    /// Resolves with the objects once `condition` holds for all of them together. Driven by a watch.
    pub(crate) async fn until<K>(&self, what: &str, condition: impl Fn(&[K]) -> bool) -> Vec<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug
            + Send
            + 'static,
    {
        let mut last = Vec::new();
        let met = follow(self.api::<K>(), |objects: &[K]| {
            last = objects.to_vec();
            condition(objects)
        });
        if tokio::time::timeout(DEADLINE, met).await.is_err() {
            let last: Vec<String> =
                last.iter().map(|object| serde_json::to_string(object).unwrap()).collect();
            panic!("never saw {what}; last:\n{}", last.join("\n"));
        }
        last
    }

    pub(crate) async fn until_one<K>(&self, name: &str, what: &str, condition: impl Fn(&K) -> bool) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug
            + Send
            + 'static,
    {
        let named = |objects: &[K]| objects.iter().find(|object| object.name_any() == name).cloned();
        named(&self.until(what, |objects| named(objects).is_some_and(|object| condition(&object))).await)
            .unwrap()
    }

    /// Resolves once the Deployment says that all of `image` is out, and only that.
    pub(crate) async fn until_rolled_out(&self, name: &str, replicas: i32) -> Deployment {
        self.until_one(name, "a complete rollout", |deployment: &Deployment| {
            is_rolled_out(deployment, replicas)
        })
        .await
    }
}

pub(crate) fn is_rolled_out(deployment: &Deployment, replicas: i32) -> bool {
    let status = deployment.status.clone().unwrap_or_default();
    let all = |count: Option<i32>| count.unwrap_or_default() == replicas;
    status.observed_generation == deployment.metadata.generation
        && all(status.replicas)
        && all(status.updated_replicas)
        && all(status.available_replicas)
}

/// Calls `seen` with the state after each event, until it says that it has seen enough.
pub(crate) async fn follow<K>(api: Api<K>, mut seen: impl FnMut(&[K]) -> bool)
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
{
    let mut events = watcher(api, watcher::Config::default()).boxed();
    let mut objects: BTreeMap<String, K> = BTreeMap::new();
    let mut listing = true;
    while let Some(event) = events.try_next().await.unwrap() {
        match event {
            watcher::Event::Init => {
                objects.clear();
                listing = true;
            }
            watcher::Event::InitDone => listing = false,
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                objects.insert(object.name_any(), object);
            }
            watcher::Event::Delete(object) => {
                objects.remove(&object.name_any());
            }
        }
        if !listing && seen(&objects.values().cloned().collect::<Vec<K>>()) {
            return;
        }
    }
}

async fn with_version(api: &Api<Node>, mut node: Node) -> Node {
    node.metadata = api.get(NODE).await.unwrap().metadata;
    node
}

/// A Deployment of pods labelled `app: NAME`.
///
/// The node makes pods of image `good` ready at once, leaves those of `stuck` running and not ready, and those of
/// `hold` pending until the test itself writes their status.
pub(crate) fn deployment(name: &str, replicas: i32, image: &str) -> serde_json::Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{
                    "name": "app", "image": image,
                    "ports": [{"name": "http", "containerPort": 8000}],
                    "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                }]},
            },
        },
    })
}

/// A merge patch that changes the image.
pub(crate) fn image(image: &str) -> serde_json::Value {
    let containers = json!([{
        "name": "app", "image": image,
        "ports": [{"name": "http", "containerPort": 8000}],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
    }]);
    json!({"spec": {"template": {"spec": {"containers": containers}}}})
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

pub(crate) fn is_going(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// The status of a running pod, as an agent would write it.
pub(crate) fn status(ip: &str, ready: bool) -> serde_json::Value {
    let hour_ago = Timestamp::now() - SignedDuration::from_hours(1);
    let ready = if ready { "True" } else { "False" };
    json!({"status": {
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "startTime": hour_ago.to_string(),
        "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": hour_ago.to_string()}],
    }})
}

pub(crate) async fn write_status(client: &Client, pod: &Pod, status: serde_json::Value) {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap());
    // The pod may be gone by now.
    let _ = api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(status)).await;
}

async fn play_node(client: Client, usage: Arc<FakeUsage>) {
    let mut events = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()).boxed();
    let mut addresses = 0_u8;
    while let Some(event) = events.try_next().await.unwrap() {
        match event {
            watcher::Event::InitApply(pod) | watcher::Event::Apply(pod) => {
                let spec = pod.spec.clone().unwrap();
                let key = (pod.namespace().unwrap(), pod.name_any());
                if spec.node_name.is_none() {
                    continue;
                }
                if is_going(&pod) {
                    usage.pods.lock().unwrap().retain(|own| *own != key);
                    let held = pod.annotations().contains_key("test/linger");
                    if !held {
                        let api: Api<Pod> = Api::namespaced(client.clone(), &key.0);
                        let _ = api.delete(&key.1, &DeleteParams::default().grace_period(0)).await;
                    }
                    continue;
                }
                let image = spec.containers[0].image.clone().unwrap();
                let started = pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some());
                if started || image.starts_with("hold") {
                    continue;
                }
                // Once each: events of the same pod come before its status does.
                let known = usage.pods.lock().unwrap().contains(&key);
                if known {
                    continue;
                }
                usage.pods.lock().unwrap().push(key);
                addresses += 1;
                write_status(
                    &client,
                    &pod,
                    status(&format!("127.1.0.{addresses}"), !image.starts_with("stuck")),
                )
                .await;
            }
            _ => {}
        }
    }
}

/// What the pods seem to use: a load that they share evenly.
#[derive(Default)]
pub(crate) struct FakeUsage {
    pods: Mutex<Vec<(String, String)>>,
    /// CPU of all together in thousandths of a core, and memory of each in bytes.
    load: Mutex<Option<(u64, u64)>>,
}

impl FakeUsage {
    pub(crate) fn set(&self, cpu_milli: u64, memory_bytes_each: u64) {
        *self.load.lock().unwrap() = Some((cpu_milli, memory_bytes_each));
    }
}

impl Kubelet for FakeUsage {
    fn logs(
        &self,
        _: LogRequest,
    ) -> BoxFuture<'static, Result<BoxStream<'static, std::io::Result<Bytes>>, LogError>> {
        async { Err(LogError::NotFound("no logs".to_owned())) }.boxed()
    }

    fn connect(
        &self,
        _: &str,
        _: &str,
        _: u16,
    ) -> BoxFuture<'static, std::io::Result<tokio::net::TcpStream>> {
        async { Err(std::io::ErrorKind::ConnectionRefused.into()) }.boxed()
    }

    fn usage(&self) -> Usage {
        let load = *self.load.lock().unwrap();
        let window = if load.is_some() { Duration::from_secs(1) } else { Duration::ZERO };
        let sample = |(cpu_milli, memory_bytes): (u64, u64)| Sample {
            cpu_nanocores: cpu_milli * 1_000_000,
            memory_bytes,
            at: Timestamp::now(),
            window,
        };
        let usage = |(cpu_milli, memory_bytes): (u64, u64)| {
            let pods = self.pods.lock().unwrap();
            let each = (cpu_milli / pods.len().max(1) as u64, memory_bytes);
            let one = |(namespace, pod): &(String, String)| PodUsage {
                namespace: namespace.clone(),
                pod: pod.clone(),
                containers: vec![("app".to_owned(), sample(each))],
            };
            pods.iter().map(one).collect()
        };
        Usage { node: sample(load.unwrap_or_default()), pods: load.map(usage).unwrap_or_default() }
    }
}
