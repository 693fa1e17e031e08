//! The ingress controller's process: what a pod of the builtin image runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::config::Kubeconfig;
use kube::{Api, Client, ResourceExt as _};
use sandbox_contract::PORTS_ANNOTATION;
use sandbox_ingress::AccessLog;

use crate::client;
use crate::error::{Doing as _, Error, Result};

/// How long the node agent may take to say which ports the pod has.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads `--http-listen=ADDRESS` from `args`, and `KUBECONFIG`, `POD_NAME`, `POD_NAMESPACE` and `HOST` from the
/// environment; runs the controller until SIGTERM or SIGINT.
///
/// # Errors
/// If it is told nonsense, the API server can't be reached, or an address can't be bound.
pub async fn ingress_process(args: impl IntoIterator<Item = String>) -> Result<()> {
    crate::daemon::log_to_stderr();
    let (mut listen, mut faults) = (None, false);
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.strip_prefix("--http-listen") {
            None if arg == "--faults" => faults = true,
            Some("") => listen = args.next(),
            Some(value) if value.starts_with('=') => listen = value.get(1..).map(str::to_string),
            _ => return Err(told(format!("the ingress controller knows no argument {arg:?}"))),
        }
    }
    let listen =
        listen.ok_or_else(|| told("the ingress controller needs --http-listen=ADDRESS".to_owned()))?;
    let listen: SocketAddr = listen.parse().doing_with(|| format!("reading --http-listen={listen}"))?;
    let kubeconfig: PathBuf = std::env::var("KUBECONFIG").doing("reading the variable KUBECONFIG")?.into();
    let shutdown = crate::daemon::on_signals()?;
    let config =
        Kubeconfig::read_from(&kubeconfig).doing_with(|| format!("reading {}", kubeconfig.display()))?;
    let client = client::of_kubeconfig(config, None).await?;
    let from_env = sandbox_ingress::Options::from_env(listen).doing("reading the pod's variables")?;
    let mut options = sandbox_ingress::Options { faults, ..from_env };
    if std::env::var_os("PORT").is_some() {
        let ports = remapped_ports(&client, &options.pod_namespace, &options.pod_name).await?;
        for listen in [&mut options.pod_listen, &mut options.health_listen, &mut options.admission_listen] {
            listen.set_port(ports.get(&listen.port()).copied().unwrap_or(listen.port()));
        }
    }
    let log = AccessLog::new(std::io::stdout());
    sandbox_ingress::run(client, options, log, shutdown).await.doing("running the ingress controller")
}

/// What was told can't be meant.
fn told(why: String) -> Error {
    Error::Failed { doing: "reading the ingress controller's arguments".to_owned(), source: why.into() }
}

/// Container port to the port to listen on, where pods have no addresses of their own. The node agent sets `PORT` there
/// for the first port and writes all of them on the pod.
async fn remapped_ports(client: &Client, namespace: &str, name: &str) -> Result<BTreeMap<u16, u16>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let is_written =
        |pod: Option<&Pod>| pod.is_some_and(|pod| pod.annotations().contains_key(PORTS_ANNOTATION));
    let written = kube::runtime::wait::await_condition(pods, name, is_written);
    let pod = tokio::time::timeout(PATIENCE, written)
        .await
        .doing_with(|| format!("pod {name} does not say within {PATIENCE:?} which ports it has"))?
        .doing_with(|| format!("watching pod {name}"))?;
    let text =
        pod.as_ref().and_then(|pod| pod.annotations().get(PORTS_ANNOTATION)).map_or("{}", String::as_str);
    serde_json::from_str(text).doing_with(|| format!("reading annotation {PORTS_ANNOTATION}={text}"))
}
