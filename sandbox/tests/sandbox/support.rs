//! A sandbox in a folder of its own, its daemon a process as in real life.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use sandbox::images::ImageLayout;
use sandbox::{Home, Info, State};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_sandbox");
const WEB: &str = env!("CARGO_BIN_EXE_sandbox-fixture");
pub(crate) const CONTEXT: &str = "sandbox-test";
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Sandbox {
    pub(crate) home: Home,
    dir: tempfile::TempDir,
    pub(crate) daemon: Child,
}

/// Polls until there is something, as a user would look again.
pub(crate) async fn soon<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn start_daemon(home: &Home, port: u16) -> Child {
    home.create().unwrap();
    start_logging(home, port, &home.log())
}

/// A daemon that logs elsewhere.
pub(crate) fn start_logging(home: &Home, port: u16, log: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
    Command::new(PROGRAM)
        .args(["serve", "--context", CONTEXT, "--ingress-port", &port.to_string(), "--home"])
        .arg(home.dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Sandbox {
    /// Starts one and waits until it is ready.
    pub(crate) async fn start() -> Sandbox {
        Sandbox::started(|home| start_daemon(home, 0)).await
    }

    /// The same, in a way of the caller's.
    pub(crate) async fn started(start: impl FnOnce(&Home) -> Child) -> Sandbox {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("home"));
        let daemon = start(&home);
        let sandbox = Sandbox { home, dir, daemon };
        sandbox.running().await;
        sandbox
    }

    pub(crate) async fn running(&self) -> Info {
        soon("the sandbox is running", || async {
            match sandbox::state(&self.home).unwrap() {
                State::Running(info) => Some(info),
                _ => None,
            }
        })
        .await
    }

    pub(crate) async fn client(&self) -> kube::Client {
        let config = Kubeconfig::read_from(self.home.kubeconfig()).unwrap();
        let options = KubeConfigOptions { context: Some(CONTEXT.into()), ..KubeConfigOptions::default() };
        let config = kube::Config::from_custom_kubeconfig(config, &options).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }

    /// Puts the fixture's web server into the image store.
    pub(crate) fn import_web(&self) {
        self.home.images().unwrap().import("web:1", &web_layout()).unwrap();
    }

    pub(crate) fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(self.home.kubeconfig()).args(args).env("HOME", self.dir.path());
        command
    }

    /// Runs kubectl, which must succeed, and gives back what it printed.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> String {
        let output = self.kubectl_output(args, None).await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "kubectl {args:?}: {}\n{out}{err}", output.status);
        out.into_owned()
    }

    pub(crate) async fn kubectl_output(&self, args: &[&str], input: Option<&str>) -> Output {
        let mut command = self.kubectl_command(args);
        let input = input.map(str::to_string);
        tokio::task::spawn_blocking(move || {
            command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap_or_else(|error| {
                panic!("this test needs kubectl (https://kubernetes.io/docs/tasks/tools/): {error}")
            });
            if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
                std::io::Write::write_all(&mut stdin, input.as_bytes()).unwrap();
            }
            child.wait_with_output().unwrap()
        })
        .await
        .unwrap()
    }

    pub(crate) async fn apply(&self, objects: &[Value]) {
        let manifest = manifest(objects);
        let output = self.kubectl_output(&["apply", "--server-side", "-f", "-"], Some(&manifest)).await;
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "apply {manifest}: {err}\n{}", self.log());
    }

    /// Enables the ingress and waits until it admits Ingresses.
    pub(crate) async fn ingress(&self) -> Info {
        let info = self.running().await;
        sandbox::addons::enable_ingress(&self.client().await, &info.entry).await.unwrap();
        let rollout = [
            "-n",
            "ingress-nginx",
            "rollout",
            "status",
            "deployment/ingress-nginx-controller",
            "--timeout=30s",
        ];
        self.kubectl(&rollout).await;
        info
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.home.log()).unwrap_or_default()
    }

    /// The children of the daemon that were started with this word.
    pub(crate) fn processes_of(&self, word: &str) -> Vec<i32> {
        let parent = self.daemon.id().to_string();
        let output = Command::new("ps").args(["-axww", "-o", "pid=,ppid=,command="]).output().unwrap();
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let pid = words.next()?.parse().ok()?;
                (words.next()? == parent && words.any(|one| one == word)).then_some(pid)
            })
            .collect()
    }

    /// The processes that belong to this sandbox, by its folder's name in their command line or environment.
    pub(crate) fn processes(&self) -> Vec<String> {
        let flags = if cfg!(target_os = "linux") { "axeww" } else { "-axEww" };
        let output = Command::new("ps").args([flags, "-o", "pid=,command="]).output().unwrap();
        let marker = self.home.dir().to_string_lossy().into_owned();
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter(|line| line.contains(&marker) && line.contains(PROGRAM) | line.contains("/root/web"))
            .map(|line| line.chars().take(120).collect())
            .collect()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- sandbox.log\n{}", self.log());
        }
        let pid = rustix::process::Pid::from_child(&self.daemon);
        if matches!(self.daemon.try_wait(), Ok(None)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.daemon.wait();
    }
}

fn web_layout() -> ImageLayout {
    ImageLayout {
        files: vec![(PathBuf::from(WEB), "web".into())],
        entrypoint: vec!["{root}/web".into()],
        ..ImageLayout::default()
    }
}

/// Likewise, into a cluster in this process.
pub(crate) fn import_web_into(cluster: &sandbox::Cluster) {
    cluster.import("web:1", &web_layout()).unwrap();
}

/// Creates an object of any kind.
pub(crate) async fn create(client: &kube::Client, object: Value) {
    let object: kube::core::DynamicObject = serde_json::from_value(object).unwrap();
    let types = object.types.clone().unwrap();
    let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
    let kind = kube::core::GroupVersionKind::gvk(group, version, &types.kind);
    let resource = kube::core::ApiResource::from_gvk(&kind);
    let api: kube::Api<kube::core::DynamicObject> =
        kube::Api::default_namespaced_with(client.clone(), &resource);
    api.create(&kube::api::PostParams::default(), &object).await.unwrap();
}

/// Whether a process runs; one that has ended and was not waited for yet does not.
pub(crate) fn alive(pid: i32) -> bool {
    let state = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap();
    let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

/// A Deployment, Service and Ingress of the fixture's web server for host `web.local`.
pub(crate) fn web(version: &str, replicas: u32, marker: &str) -> [Value; 3] {
    let labels = json!({"app": "web"});
    let probe = |period: u32| json!({"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": period});
    let objects = json!([
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
            "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": labels}, "spec": {
                "terminationGracePeriodSeconds": 5,
                "containers": [{
                    "name": "web", "image": "web:1", "imagePullPolicy": "Never",
                    "env": [
                        {"name": "VERSION", "value": version},
                        {"name": "MARKER", "value": marker},
                        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    ],
                    "ports": [{"name": "http", "containerPort": 8000}],
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                    "readinessProbe": probe(1),
                    "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
                }],
            }},
        }},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"}, "spec": {
            "selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}},
        {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "web", "namespace": "default"}, "spec": {
            "ingressClassName": "nginx",
            "rules": [{"host": "web.local", "http": {"paths": [{"path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": "web", "port": {"name": "http"}}}}]}}]}},
    ]);
    serde_json::from_value(objects).unwrap()
}

/// Objects as kubectl reads them.
pub(crate) fn manifest(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("{object}\n")).collect()
}

/// One request by a connection of its own: status and body, or what went wrong.
pub(crate) async fn ask(entry: &str, method: &str, host: &str, id: &str) -> Result<(u16, String), String> {
    let address = entry.trim_start_matches("http://");
    let body = if method == "POST" { "content-length: 4\r\n\r\nbody" } else { "\r\n" };
    let request =
        format!("{method} /x HTTP/1.1\r\nhost: {host}\r\nx-request-id: {id}\r\nconnection: close\r\n{body}");
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = exchange.await.map_err(|error| format!("{id}: {error}"))?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_string());
    status.zip(body).ok_or_else(|| format!("{id}: no answer: {answer:?}"))
}
