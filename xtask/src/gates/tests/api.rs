//! An API server in this process, with a client between that can lose it, and the part of the controllers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser as _;
use futures::{Stream, StreamExt as _};
use http::{Request, Response};
use http_body_util::{BodyExt as _, BodyStream, Full, StreamBody};
use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use sandbox_apiserver::ApiServer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::objects::{ID, IMAGE, object, template};
use crate::clusters::sandbox::Sandbox;
use crate::clusters::{Cluster, Kind};
use crate::cx::Cx;
use crate::gates::Verdict;
use crate::gates::rollout::Rollout;
use crate::image::Digests;
use crate::output::Output;

type Bytes = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, BoxError>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A run to wait in.
pub(crate) fn cx() -> Cx {
    let cli = crate::cli::Cli::parse_from(["xtask", "status"]);
    let leash = leash::Leash::start(&["cat".into()]).unwrap();
    let output = Output::new(cli.shared.output, false);
    let root = crate::workspace::root().unwrap();
    let target = crate::workspace::target(&root).unwrap();
    Cx::new(root, target, cli.shared, output, leash)
}

/// The next verdict, within a time in which it must come.
pub(super) async fn next<T>(
    verdicts: &mut (impl Stream<Item = anyhow::Result<Verdict<T>>> + Unpin),
) -> Verdict<T> {
    let next = tokio::time::timeout(Duration::from_secs(10), verdicts.next()).await;
    next.expect("no verdict in time").expect("the stream ended").unwrap()
}

/// Verdicts until one passes.
pub(super) async fn until<T>(
    verdicts: &mut (impl Stream<Item = anyhow::Result<Verdict<T>>> + Unpin),
    pass: impl Fn(&str) -> bool,
) -> String {
    loop {
        let line = next(verdicts).await.to_string();
        if pass(&line) {
            return line;
        }
    }
}

/// An API server, two ways to it, and what may go wrong with the second.
pub(crate) struct Server {
    /// The way of the controllers, always there.
    pub(crate) direct: Client,
    /// The way of the gates.
    pub(crate) client: Client,
    faults: Arc<Faults>,
}

struct Faults {
    down: AtomicBool,
    /// Each change ends the watches under way.
    cut: watch::Sender<u64>,
    /// The next watch hears that its version is gone.
    gone: AtomicBool,
    /// How far the server's clock is ahead of this machine's, where it tells.
    ahead: Option<SignedDuration>,
    /// What the webhook says to the next dry runs: status code and message.
    webhook: Mutex<VecDeque<(u16, String)>>,
    /// What it warns about in the answer to each change.
    warning: Mutex<Option<&'static str>>,
    lists: Mutex<u32>,
}

impl Server {
    pub(crate) fn start() -> Server {
        Server::with_clock(Some(SignedDuration::ZERO))
    }

    pub(super) fn with_clock(ahead: Option<SignedDuration>) -> Server {
        // As the tool does before all else; the second time changes nothing.
        drop(rustls::crypto::ring::default_provider().install_default());
        let direct = ApiServer::new("token".into()).client();
        let faults = Arc::new(Faults {
            down: AtomicBool::new(false),
            cut: watch::Sender::new(0),
            gone: AtomicBool::new(false),
            ahead,
            webhook: Mutex::default(),
            warning: Mutex::default(),
            lists: Mutex::default(),
        });
        let (inner, shared) = (direct.clone(), faults.clone());
        let service = tower::service_fn(move |request| pass(inner.clone(), shared.clone(), request));
        Server { direct, client: Client::new(service, "default"), faults }
    }

    /// As a sandbox at whose entry nothing listens.
    pub(crate) fn cluster(&self, cx: &Cx) -> Cluster {
        Cluster {
            kind: Kind::Sandbox(Sandbox::new(cx)),
            context: "test".to_owned(),
            kubeconfig: "kubeconfig".into(),
            client: self.client.clone(),
            entry: "http://127.0.0.1:1".to_owned(),
            tunnel: None,
            nginx: true,
            metrics: true,
        }
    }

    /// As if its process had ended.
    pub(super) fn go_away(&self) {
        self.faults.down.store(true, Ordering::SeqCst);
        self.cut();
    }

    pub(super) fn come_back(&self) {
        self.faults.down.store(false, Ordering::SeqCst);
    }

    /// Ends the watches under way; the server is there.
    pub(super) fn cut(&self) {
        self.faults.cut.send_modify(|n| *n += 1);
    }

    /// The version from which the next watch wants to go on is forgotten.
    pub(super) fn forget(&self) {
        self.faults.gone.store(true, Ordering::SeqCst);
        self.cut();
    }

    pub(super) fn webhook_says(&self, code: u16, message: &str) {
        self.faults.webhook.lock().unwrap().push_back((code, message.to_owned()));
    }

    pub(crate) fn warns(&self, warning: &'static str) {
        *self.faults.warning.lock().unwrap() = Some(warning);
    }

    /// How many lists were asked for.
    pub(super) fn lists(&self) -> u32 {
        *self.faults.lists.lock().unwrap()
    }

    pub(crate) async fn create<K>(&self, namespace: &str, object: Value) -> K
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Serialize
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.direct.clone(), namespace);
        api.create(&PostParams::default(), &super::objects::object(object)).await.unwrap()
    }

    pub(super) async fn namespace(&self, name: &str) {
        let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.direct.clone());
        api.create(&PostParams::default(), &object(json!({"metadata": {"name": name}}))).await.unwrap();
    }

    /// Writes a status, as a controller does.
    pub(crate) async fn status<K>(&self, namespace: &str, name: &str, status: Value)
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.direct.clone(), namespace);
        let patch = Patch::Merge(json!({"status": status}));
        api.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }
}

async fn pass(
    direct: Client,
    faults: Arc<Faults>,
    request: Request<kube::client::Body>,
) -> Result<Response<Bytes>, BoxError> {
    if faults.down.load(Ordering::SeqCst) {
        return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into());
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    let is_watch = query.contains("watch=true");
    if query.contains("dryRun") {
        let says = faults.webhook.lock().unwrap().pop_front();
        if let Some((code, message)) = says {
            return Ok(answer(
                code,
                &json!({"kind": "Status", "status": "Failure", "code": code, "message": message,
                    "reason": "x"}),
            ));
        }
    }
    if is_watch && faults.gone.swap(false, Ordering::SeqCst) {
        let status = json!({"kind": "Status", "status": "Failure", "code": 410,
            "message": "too old resource version", "reason": "Expired"});
        return Ok(answer(200, &json!({"type": "ERROR", "object": status})));
    }
    if query.contains("limit=") {
        *faults.lists.lock().unwrap() += 1;
    }
    let warning = faults.warning.lock().unwrap().filter(|_| request.method() == http::Method::PATCH);
    let mut cut = faults.cut.subscribe();
    let (mut parts, body) = direct.send(request).await?.into_parts();
    if let Some(ahead) = faults.ahead {
        let now = jiff::Timestamp::now().checked_add(ahead)?;
        parts
            .headers
            .insert(http::header::DATE, now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string().parse()?);
    }
    if let Some(warning) = warning {
        parts.headers.insert(http::header::WARNING, format!("299 - \"{warning}\"").parse()?);
    }
    let body = body.map_err(BoxError::from);
    let body = if is_watch {
        let lines = BodyStream::new(body).take_until(async move { drop(cut.changed().await) });
        StreamBody::new(lines).boxed_unsync()
    } else {
        body.boxed_unsync()
    };
    Ok(Response::from_parts(parts, body))
}

fn answer(code: u16, body: &Value) -> Response<Bytes> {
    let body =
        Full::new(bytes::Bytes::from(format!("{body}\n"))).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
    response
}

/// A Deployment with its ReplicaSet and pods, whose controllers and kubelet the test plays.
pub(super) struct Play<'s> {
    server: &'s Server,
    namespace: &'static str,
    name: &'static str,
    pods: Vec<String>,
}

impl<'s> Play<'s> {
    /// The pods are made, and nothing runs.
    pub(super) async fn begin(
        server: &'s Server,
        namespace: &'static str,
        name: &'static str,
        replicas: usize,
    ) -> Play<'s> {
        let deployment: Deployment = server
            .create(
                namespace,
                json!({
                    "metadata": {"name": name},
                    "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                    "template": template(IMAGE)},
                }),
            )
            .await;
        let spec = serde_json::to_value(&deployment.spec.as_ref().unwrap().template).unwrap();
        let labels = json!({"app": "web", "pod-template-hash": "h"});
        let mut set_template = spec.clone();
        set_template["metadata"]["labels"] = labels.clone();
        let set_labels =
            json!({"app": "web", "pod-template-hash": "h", "app.kubernetes.io/component": "controller"});
        let owner = |kind: &str, name: &str, uid: Option<String>| {
            json!([{
                "apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true,
            }])
        };
        let set: ReplicaSet = server
            .create(
                namespace,
                json!({
                    "metadata": {
                        "name": format!("{name}-h"), "labels": set_labels,
                        "annotations": {"deployment.kubernetes.io/revision": "1"},
                        "ownerReferences": owner("Deployment", name, deployment.uid()),
                    },
                    "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
                    "template": set_template},
                }),
            )
            .await;
        let mut pods = Vec::new();
        for n in 0..replicas {
            let pod: Pod = server
                .create(
                    namespace,
                    json!({
                        "metadata": {
                            "name": format!("{name}-h-{n}"), "labels": {"app": "web",
                            "app.kubernetes.io/component": "controller"},
                            "ownerReferences": owner("ReplicaSet", &set.name_any(), set.uid()),
                        },
                        "spec": spec["spec"],
                    }),
                )
                .await;
            pods.push(pod.name_any());
        }
        let play = Play { server, namespace, name, pods };
        play.count(0).await;
        play
    }

    /// What is to be waited for.
    pub(super) fn target(&self) -> Rollout {
        Rollout {
            namespace: self.namespace.into(),
            deployment: self.name.into(),
            digests: Digests::new([ID]),
            image: IMAGE.into(),
            ..Rollout::default()
        }
    }

    /// The controllers count `available` pods.
    pub(super) async fn count(&self, available: usize) {
        let all = self.pods.len();
        let status = json!({
            "observedGeneration": 1, "replicas": all, "updatedReplicas": all, "readyReplicas": available,
            "availableReplicas": available,
        });
        let counts = json!({"replicas": all, "readyReplicas": available, "availableReplicas": available});
        let set = format!("{}-h", self.name);
        self.server.status::<ReplicaSet>(self.namespace, &set, counts).await;
        self.server.status::<Deployment>(self.namespace, self.name, status).await;
    }

    /// One pod becomes Ready.
    pub(super) async fn ready(&self, n: usize) {
        let now = jiff::Timestamp::now().to_string();
        let status = json!({
            "phase": "Running", "podIP": "127.0.0.7",
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": "web", "image": IMAGE, "imageID": ID, "ready": true, "started": true,
                "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            }],
        });
        self.server.status::<Pod>(self.namespace, &self.pods[n], status).await;
    }

    /// All become Ready and are counted.
    pub(super) async fn complete(&self) {
        for n in 0..self.pods.len() {
            self.ready(n).await;
        }
        self.count(self.pods.len()).await;
    }

    /// Every container waits for a reason.
    pub(super) async fn waiting(&self, reason: &str, message: &str) {
        for pod in &self.pods {
            let status = json!({
                "phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": "False"}],
                "containerStatuses": [{
                    "name": "web", "image": IMAGE, "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"waiting": {"reason": reason, "message": message}},
                }],
            });
            self.server.status::<Pod>(self.namespace, pod, status).await;
        }
    }
}
