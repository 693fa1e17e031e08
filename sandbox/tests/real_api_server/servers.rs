//! A real API server as envtest runs it (etcd and kube-apiserver from `KUBEBUILDER_ASSETS`), and the sandbox's, each on
//! ports of its own.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::PostParams;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use sandbox_apiserver::{ApiServer, Tls};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "real-api-server-test";
/// A loaded machine needs a while for both programs.
const START: Duration = Duration::from_secs(90);

/// An API server without controllers: the tests play them.
pub(crate) struct Server {
    /// Which of the two, for messages.
    pub(crate) name: &'static str,
    pub(crate) client: Client,
    /// `https://127.0.0.1:PORT`.
    pub(crate) url: String,
    http: reqwest::Client,
    running: Running,
}

enum Running {
    Real { etcd: Child, apiserver: Mutex<Child>, argv: Vec<String>, assets: PathBuf, dir: TempDir },
    Sandbox { server: ApiServer, tls: Mutex<CancellationToken>, port: u16, dir: TempDir },
}

/// The folder with the programs, or why there is none.
pub(crate) fn assets() -> Result<PathBuf, String> {
    let dir = std::env::var_os("KUBEBUILDER_ASSETS")
        .map(PathBuf::from)
        .ok_or("KUBEBUILDER_ASSETS is not set; it names a folder with etcd and kube-apiserver")?;
    for program in ["etcd", "kube-apiserver"] {
        if !dir.join(program).is_file() {
            return Err(format!("there is no {program} in KUBEBUILDER_ASSETS ({})", dir.display()));
        }
    }
    Ok(dir)
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    Ok(listener.local_addr().context("reading a port")?.port())
}

fn program(assets: &Path, name: &str, argv: &[String], dir: &Path) -> Result<Child> {
    let log = std::fs::File::options().create(true).append(true).open(dir.join(format!("{name}.log")))?;
    Command::new(assets.join(name))
        .args(argv)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {name}"))
}

impl Server {
    /// etcd and kube-apiserver, ready.
    pub(crate) async fn real(assets: PathBuf) -> Result<Server> {
        let dir = tempfile::tempdir().context("making a folder")?;
        let (client_port, peer_port, port) = (free_port()?, free_port()?, free_port()?);
        let etcd_url = format!("http://127.0.0.1:{client_port}");
        let key = rcgen::KeyPair::generate().context("making the key of service accounts")?;
        std::fs::write(dir.path().join("sa.key"), key.serialize_pem()).context("writing the key")?;
        std::fs::write(dir.path().join("sa.pub"), key.public_key_pem()).context("writing the public key")?;
        std::fs::write(dir.path().join("tokens.csv"), format!("{TOKEN},admin,admin,system:masters\n"))
            .context("writing the token")?;
        let etcd = [
            "--data-dir=etcd".to_owned(),
            format!("--listen-client-urls={etcd_url}"),
            format!("--advertise-client-urls={etcd_url}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer_port}"),
            "--unsafe-no-fsync".to_owned(),
        ];
        let etcd = program(&assets, "etcd", &etcd, dir.path())?;
        let argv = vec![
            format!("--etcd-servers={etcd_url}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            "--cert-dir=certs".to_owned(),
            "--service-account-issuer=https://127.0.0.1/".to_owned(),
            "--service-account-key-file=sa.pub".to_owned(),
            "--service-account-signing-key-file=sa.key".to_owned(),
            "--token-auth-file=tokens.csv".to_owned(),
            "--authorization-mode=AlwaysAllow".to_owned(),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            // As envtest does: no controller makes the accounts that it would demand.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ];
        let apiserver = Mutex::new(program(&assets, "kube-apiserver", &argv, dir.path())?);
        let url = format!("https://127.0.0.1:{port}");
        let client = client(dir.path(), &url).await?;
        let running = Running::Real { etcd, apiserver, argv, assets, dir };
        let server = Server { name: "real", client, url, http: http()?, running };
        server.until_ready().await?;
        Ok(server)
    }

    /// The sandbox's API server, over TLS too, and without its controllers.
    pub(crate) async fn sandbox() -> Result<Server> {
        let dir = tempfile::tempdir().context("making a folder")?;
        let server = ApiServer::new(TOKEN.to_owned());
        let port = free_port()?;
        let tls = Mutex::new(serve(&server, port).await?);
        let url = format!("https://127.0.0.1:{port}");
        let client = client(dir.path(), &url).await?;
        let running = Running::Sandbox { server, tls, port, dir };
        let server = Server { name: "sandbox", client, url, http: http()?, running };
        server.until_ready().await?;
        Ok(server)
    }

    async fn until_ready(&self) -> Result<()> {
        let until = Instant::now() + START;
        loop {
            let answer = self.http.get(format!("{}/readyz", self.url)).bearer_auth(TOKEN).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if let Some(words) = self.last_words() {
                bail!("the real API server ended: {words}");
            }
            if Instant::now() > until {
                bail!("the {} API server is not ready within {} s", self.name, START.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the API server wrote last, where it has ended by itself.
    fn last_words(&self) -> Option<String> {
        let Running::Real { apiserver, dir, .. } = &self.running else { return None };
        apiserver.lock().expect("the lock").try_wait().ok().flatten()?;
        let log = std::fs::read_to_string(dir.path().join("kube-apiserver.log")).unwrap_or_default();
        Some(log.lines().last().unwrap_or_default().to_owned())
    }

    /// Names this server and the token, for kubectl.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        let (Running::Real { dir, .. } | Running::Sandbox { dir, .. }) = &self.running;
        dir.path().join("kubeconfig")
    }

    /// Makes a namespace, with what a controller would put into it.
    pub(crate) async fn namespace(&self, name: &str) {
        let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).expect("an object");
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let made = namespaces.create(&PostParams::default(), &namespace).await;
        assert!(!matches!(&made, Err(kube::Error::Api(status)) if status.code != 409), "{made:?}");
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), name);
        let account = serde_json::from_value(json!({"metadata": {"name": "default"}})).expect("an object");
        let _ = accounts.create(&PostParams::default(), &account).await;
    }

    /// Ends the API server; what it stores stays.
    pub(crate) fn go_away(&self) {
        match &self.running {
            Running::Real { apiserver, .. } => {
                let mut child = apiserver.lock().expect("the lock");
                let _ = child.kill();
                let _ = child.wait();
            }
            Running::Sandbox { tls, .. } => tls.lock().expect("the lock").cancel(),
        }
    }

    /// Starts it again, at the same address.
    pub(crate) async fn come_back(&self) -> Result<()> {
        match &self.running {
            Running::Real { apiserver, argv, assets, dir, .. } => {
                let child = program(assets, "kube-apiserver", argv, dir.path())?;
                *apiserver.lock().expect("the lock") = child;
            }
            Running::Sandbox { server, tls, port, .. } => {
                let serving = serve(server, *port).await?;
                *tls.lock().expect("the lock") = serving;
            }
        }
        self.until_ready().await
    }

    /// One request with these headers, and the answer as it is.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(http::HeaderName, &str)],
        body: String,
    ) -> Result<(u16, serde_json::Value)> {
        let method = method.parse::<reqwest::Method>()?;
        let request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(TOKEN);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(name, *value));
        let answer = request
            .body(body)
            .send()
            .await
            .with_context(|| format!("asking the {} API server", self.name))?;
        let code = answer.status().as_u16();
        let text = answer.text().await?;
        Ok((code, serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text))))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.go_away();
        if let Running::Real { etcd, .. } = &mut self.running {
            let _ = etcd.kill();
            let _ = etcd.wait();
        }
    }
}

async fn serve(server: &ApiServer, port: u16) -> Result<CancellationToken> {
    let until = Instant::now() + Duration::from_secs(5);
    let listener = loop {
        match tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) => break listener,
            Err(error) if Instant::now() > until => return Err(error).context("listening"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let (tls, _) = Tls::generate()?;
    let stop = CancellationToken::new();
    tokio::spawn(server.clone().serve(listener, tls, stop.clone()));
    Ok(stop)
}

async fn client(dir: &Path, url: &str) -> Result<Client> {
    let kubeconfig = dir.join("kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        // Both make a certificate of their own at each start.
        "clusters": [{"name": "test", "cluster": {"server": url, "insecure-skip-tls-verify": true}}],
        "users": [{"name": "test", "user": {"token": TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    std::fs::write(&kubeconfig, config.to_string()).context("writing a kubeconfig")?;
    let config = Kubeconfig::read_from(&kubeconfig).context("reading it back")?;
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Client::try_from(config).context("making a client")
}

fn http() -> Result<reqwest::Client> {
    let client = reqwest::Client::builder().danger_accept_invalid_certs(true).no_proxy();
    client.build().context("making an HTTP client")
}
