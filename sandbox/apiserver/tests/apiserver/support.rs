//! A server on a real socket, with a node that is made up here.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use sandbox_apiserver::{ApiServer, Tls};
use sandbox_contract::{Kubelet, LogError, LogRequest, PodUsage, Sample, Usage};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

pub(crate) const TOKEN: &str = "a-token-for-tests";

pub(crate) struct Server {
    pub(crate) api: ApiServer,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) shutdown: CancellationToken,
    pub(crate) serving: Option<tokio::task::JoinHandle<anyhow::Result<()>>>,
    dir: tempfile::TempDir,
}

impl Server {
    pub(crate) async fn start() -> Result<Server> {
        let api = ApiServer::new(TOKEN.to_owned());
        let pod = pod_server().await?;
        api.set_kubelet(Arc::new(FakeKubelet { pod }));
        let (tls, ca) = Tls::generate()?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let shutdown = CancellationToken::new();
        let serving = Some(tokio::spawn(api.clone().serve(listener, tls, shutdown.clone())));
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("ca.pem"), &ca)?;
        let kubeconfig = dir.path().join("kubeconfig");
        let mut file = std::fs::File::create(&kubeconfig)?;
        write!(
            file,
            "apiVersion: v1\nkind: Config\ncurrent-context: sandbox\n\
             clusters: [{{name: sandbox, cluster: {{server: 'https://127.0.0.1:{port}', \
             certificate-authority: ca.pem}}}}]\n\
             users: [{{name: sandbox, user: {{token: {TOKEN}}}}}]\n\
             contexts: [{{name: sandbox, context: {{cluster: sandbox, user: sandbox, namespace: \
             default}}}}]\n"
        )?;
        Ok(Server { api, kubeconfig, shutdown, serving, dir })
    }

    /// A client over the socket.
    pub(crate) async fn client(&self) -> Result<kube::Client> {
        let kubeconfig = kube::config::Kubeconfig::read_from(&self.kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a manifest for kubectl to read.
    pub(crate) fn manifest(&self, name: &str, value: &Value) -> Result<String> {
        let path = self.path(name);
        std::fs::write(&path, value.to_string())?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// kubectl, or `None` where there is none; says so.
    #[allow(clippy::print_stderr, reason = "whoever runs the tests must see what was not tested")]
    pub(crate) fn kubectl(&self) -> Option<tokio::process::Command> {
        let found =
            std::env::split_paths(&std::env::var_os("PATH")?).any(|dir| dir.join("kubectl").is_file());
        if !found {
            eprintln!("NOT TESTED: no kubectl on PATH");
            return None;
        }
        let mut command = tokio::process::Command::new("kubectl");
        command.env("HOME", self.dir.path()).env("KUBECONFIG", &self.kubeconfig).kill_on_drop(true);
        Some(command)
    }

    /// Runs kubectl with arguments as typed; returns what it printed, and fails when it fails.
    pub(crate) async fn run(&self, line: &str) -> Result<String> {
        let (code, text) = self.try_run(line).await?;
        if code == 0 { Ok(text) } else { Err(format!("kubectl {line}: exit {code}\n{text}").into()) }
    }

    pub(crate) async fn try_run(&self, line: &str) -> Result<(i32, String)> {
        let mut command = self.kubectl().ok_or("no kubectl")?;
        let output =
            tokio::time::timeout(Duration::from_secs(60), command.args(line.split_whitespace()).output());
        let output = output.await.map_err(|_| format!("kubectl {line} took too long"))??;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned()))
    }
}

/// What runs in every pod: answers one HTTP request, or echoes.
async fn pod_server() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    let bytes = &buffer[..count];
                    let http = bytes.starts_with(b"GET ");
                    let answer: &[u8] = if http {
                        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello"
                    } else {
                        bytes
                    };
                    if stream.write_all(answer).await.is_err() || http {
                        return;
                    }
                }
            });
        }
    });
    Ok(port)
}

struct FakeKubelet {
    pod: u16,
}

impl Kubelet for FakeKubelet {
    fn logs(
        &self,
        request: LogRequest,
    ) -> BoxFuture<'static, std::result::Result<BoxStream<'static, std::io::Result<Bytes>>, LogError>> {
        Box::pin(async move {
            if request.previous {
                let container = request.container.unwrap_or_default();
                return Err(LogError::BadRequest(format!(
                    "previous terminated container \"{container}\" in pod \"{}\" not found",
                    request.pod
                )));
            }
            let lines = ["first\n", "second\n", "third\n"];
            let keep =
                request.tail_lines.and_then(|count| usize::try_from(count).ok()).unwrap_or(lines.len());
            let lines = lines[lines.len() - keep.min(lines.len())..]
                .iter()
                .map(|line| Ok(Bytes::from_static(line.as_bytes())));
            let stream = futures::stream::iter(lines.collect::<Vec<_>>());
            Ok(if request.follow { stream.chain(futures::stream::pending()).boxed() } else { stream.boxed() })
        })
    }

    fn connect(
        &self,
        _namespace: &str,
        _pod: &str,
        port: u16,
    ) -> BoxFuture<'static, std::io::Result<TcpStream>> {
        let pod = if port == 8000 { self.pod } else { 1 };
        Box::pin(TcpStream::connect(("127.0.0.1", pod)))
    }

    fn usage(&self) -> Usage {
        let sample = Sample {
            cpu_nanocores: 250_000_000,
            memory_bytes: 64 * 1024 * 1024,
            at: jiff::Timestamp::now(),
            window: Duration::from_secs(15),
        };
        let pods = vec![PodUsage {
            namespace: "default".to_owned(),
            pod: "web-1".to_owned(),
            containers: vec![("web".to_owned(), sample)],
        }];
        Usage { node: sample, pods }
    }
}

pub(crate) fn template() -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{
            "name": "web", "image": "web:1", "ports": [{"containerPort": 8000}],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
            "readinessProbe": {"httpGet": {"path": "/health", "port": 8000}}}]},
    })
}

pub(crate) fn deployment(replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template()},
    })
}

/// A running pod on node `n1`, with the status a node agent would have written.
pub(crate) async fn running_pod(client: &kube::Client) -> Result {
    use kube::api::{Api, Patch, PatchParams, PostParams};
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(client.clone());
    let node = json!({"metadata": {"name": "n1"}, "status": {
        "capacity": {"cpu": "2", "memory": "4Gi"}, "allocatable": {"cpu": "2", "memory": "4Gi"},
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}});
    nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::default_namespaced(client.clone());
    let mut pod = template();
    pod["metadata"]["name"] = json!("web-1");
    pod["spec"]["nodeName"] = json!("n1");
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    let status = json!({"status": {
        "phase": "Running", "podIP": "127.1.0.1", "startTime": "2026-01-01T00:00:00Z",
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "ContainersReady", "status": "True"}],
        "containerStatuses": [{
            "name": "web", "image": "web:1", "imageID": "sha256:1", "ready": true, "restartCount": 2,
            "started": true,
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled",
            "finishedAt": "2026-01-01T00:00:00Z"}}}]}});
    pods.patch_status("web-1", &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}
