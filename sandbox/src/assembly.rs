//! A cluster's parts, put together and taken apart again: API server, controllers and node agent.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use leash::Leash;
use sandbox_apiserver::{ApiServer, Tls};
use sandbox_node::{ImageStore, NodeAgent, NodeConfig, Tuning};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::error::{Doing as _, Error, Result};

/// The one node.
pub const NODE_NAME: &str = "sandbox";
/// From the start until the node is Ready.
const READY: Duration = Duration::from_secs(20);
/// What pods get to end in; the leash ends those that take longer.
const PODS_END: Duration = Duration::from_secs(6);
/// What the rest gets.
const PARTS_END: Duration = Duration::from_secs(3);

/// What a cluster is made of.
pub(crate) struct Plan {
    /// Name of the context in its kubeconfig.
    pub(crate) context: String,
    /// Logs and folders of its pods.
    pub(crate) node_dir: PathBuf,
    /// Where the kubeconfig will be.
    pub(crate) kubeconfig: PathBuf,
    pub(crate) images: ImageStore,
    /// Images that are programs on this machine, and their command lines.
    pub(crate) builtin: BTreeMap<String, Vec<OsString>>,
    pub(crate) memory_bytes: u64,
    pub(crate) cpus: u32,
    pub(crate) tuning: Tuning,
    pub(crate) leash: Leash,
    pub(crate) faults: bool,
}

/// How a running cluster is reached.
pub(crate) struct Access {
    /// `https://127.0.0.1:PORT`.
    pub(crate) api: String,
    pub(crate) token: String,
    /// With the token in it.
    pub(crate) kubeconfig: String,
    /// In this process, past every fault.
    pub(crate) client: Client,
}

/// The parts, running.
pub(crate) struct Parts {
    tasks: JoinSet<(&'static str, anyhow::Result<()>)>,
    node: NodeAgent,
    stop: Stop,
}

/// In the order in which they are stopped.
#[derive(Default)]
struct Stop {
    controllers: CancellationToken,
    node: CancellationToken,
    api: CancellationToken,
}

/// Starts the parts; [`ready`] waits for them.
pub(crate) async fn start(plan: Plan) -> Result<(Access, Parts)> {
    let token = random_token()?;
    let (tls, ca) = Tls::generate().doing("making a certificate for the API server")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.doing("listening for the API server")?;
    let api = format!("https://{}", listener.local_addr().doing("looking up the API server's address")?);
    let server = ApiServer::new(token.clone());
    let client = server.client();
    if plan.faults {
        server.allow_faults();
    }

    let stop = Stop::default();
    let mut tasks = JoinSet::new();
    let serving = server.clone().serve(listener, tls, stop.api.clone());
    tasks.spawn(async move { ("the API server", serving.await) });
    let controlling = sandbox_controllers::run(client.clone(), stop.controllers.clone());
    tasks.spawn(async move { ("the controllers", controlling.await) });

    let config = NodeConfig {
        node_name: NODE_NAME.into(),
        dir: plan.node_dir,
        images: plan.images,
        builtin: plan.builtin,
        kubeconfig: plan.kubeconfig,
        memory_bytes: plan.memory_bytes,
        cpus: plan.cpus,
        leash: plan.leash,
    };
    let node = NodeAgent::start_with(client.clone(), config, plan.tuning, stop.node.clone()).await;
    let node = node.doing("starting the node agent")?;
    server.set_kubelet(Arc::new(node.clone()));
    let kubeconfig = kubeconfig(&plan.context, &api, &ca, &token)?;
    Ok((Access { api, token, kubeconfig, client }, Parts { tasks, node, stop }))
}

/// Waits until the API server says that it is ready, and the node is.
pub(crate) async fn ready(client: &Client) -> Result<()> {
    let asking = async {
        let request = http::Request::get("/readyz").body(Vec::new()).doing("asking for /readyz")?;
        client.request_text(request).await.doing("waiting for the API server")?;
        let is_ready = |node: Option<&Node>| {
            let conditions = node.and_then(|node| node.status.as_ref()?.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
        };
        let nodes: Api<Node> = Api::all(client.clone());
        let node = kube::runtime::wait::await_condition(nodes, NODE_NAME, is_ready).await;
        node.doing("waiting for the node").map(drop)
    };
    timeout(READY, asking).await.unwrap_or(Err(Error::NotReady { within: READY }))
}

impl Parts {
    /// Ends when a part does that should run for ever; says why it does not.
    pub(crate) async fn failed(&mut self) -> Error {
        let broken = |part, source: anyhow::Error| Error::Part { part, source: source.into() };
        let ended: Option<Result<(&'static str, anyhow::Result<()>), JoinError>> =
            self.tasks.join_next().await;
        match ended {
            Some(Ok((part, Err(error)))) => broken(part, error),
            Some(Ok((part, Ok(())))) => broken(part, anyhow::anyhow!("it ended by itself")),
            Some(Err(panic)) => broken("a part of the sandbox", panic.into()),
            None => broken("the sandbox", anyhow::anyhow!("every part of it has ended")),
        }
    }

    /// Ends them: first nobody may replace the pods that end, then these end, and who looks at them is last.
    pub(crate) async fn end(mut self) {
        self.stop.controllers.cancel();
        self.stop.node.cancel();
        if timeout(PODS_END, self.node.stopped()).await.is_err() {
            tracing::warn!("pods still run after {PODS_END:?}; the leash ends them");
        }
        self.stop.api.cancel();
        let rest = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(PARTS_END, rest).await.is_err() {
            tracing::warn!("not all parts ended within {PARTS_END:?}");
        }
    }
}

fn kubeconfig(name: &str, api: &str, ca_pem: &str, token: &str) -> Result<String> {
    let ca = k8s_openapi::ByteString(ca_pem.as_bytes().to_vec());
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": api, "certificate-authority-data": ca}}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
    });
    serde_yaml::to_string(&kubeconfig).doing("writing the kubeconfig")
}

/// 256 random bits in hexadecimal.
fn random_token() -> Result<String> {
    let mut bytes = [0; 32];
    let provider = rustls::crypto::ring::default_provider();
    let filled = provider.secure_random.fill(&mut bytes);
    filled.map_err(|_| "the system has no randomness").doing("making a token")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
