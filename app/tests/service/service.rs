//! Starts the binary, and speaks HTTP to it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use reqwest::multipart::{Form, Part};
use reqwest::{Client, Response};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

pub(crate) use crate::model::model_dir;

/// Generous: a machine that builds at the same time is slow.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const HEALTHY: &str =
    r#"{"success":true,"status":"healthy","model":"ResNet-50","version":"1.0.0"}"#;
pub(crate) const SAMPLE: &[u8] = include_bytes!("../../assets/sample.jpg");

/// A running service; killed when dropped.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
    child: Child,
    log: watch::Receiver<Vec<String>>,
}

/// The binary with its environment emptied of what would steer it.
pub(crate) fn command(model_dir: &Path, env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simple-model-api"));
    command
        .env_clear()
        .envs([("HOST", "127.0.0.1"), ("PORT", "0"), ("LOG_FORMAT", "json")])
        .env("MODEL_DIR", model_dir)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Service {
    /// Started and healthy.
    pub(crate) async fn ready(env: &[(&str, &str)]) -> Service {
        let service = Service::start(&model_dir(), env).await;
        service.logged("ready").await;
        service
    }

    /// Started: it listens.
    pub(crate) async fn start(model_dir: &Path, env: &[(&str, &str)]) -> Service {
        Service::launch(command(model_dir, env)).await
    }

    /// The same, by a command of the caller's.
    pub(crate) async fn launch(mut command: Command) -> Service {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, mut log) = watch::channel(Vec::new());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                sender.send_modify(|log: &mut Vec<String>| log.push(line));
            }
        });
        let line = find(&mut log, "listening").await;
        Service { address: line["address"].as_str().unwrap().parse().unwrap(), client: client(), child, log }
    }

    /// Waits for the log line with this message.
    pub(crate) async fn logged(&self, message: &str) -> Value {
        find(&mut self.log.clone(), message).await
    }

    pub(crate) fn log(&self) -> Vec<Value> {
        self.log.borrow().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    pub(crate) async fn post_raw(&self, media_type: &str, body: impl Into<reqwest::Body>) -> Response {
        let request = self.client.post(self.url("/predict")).header("content-type", media_type);
        request.body(body).send().await.unwrap()
    }

    pub(crate) async fn post_form(&self, path: &str, form: Form) -> Response {
        self.client.post(self.url(path)).multipart(form).send().await.unwrap()
    }

    pub(crate) async fn predict_sample(&self) -> Response {
        self.post_form("/predict", form(SAMPLE, "sample.jpg", "image/jpeg")).await
    }

    /// Polls `/metrics` until `name` has `value`.
    pub(crate) async fn metric(&self, name: &str, value: &str) {
        let line = format!("{name} {value}");
        let reached = async {
            while !self.get("/metrics").await.text().await.unwrap().lines().any(|l| l == line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, reached).await.unwrap_or_else(|_| panic!("/metrics never said {line}"));
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().unwrap() as i32
    }

    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    pub(crate) async fn exited(&mut self) -> ExitStatus {
        timeout(DEADLINE, self.child.wait()).await.unwrap().unwrap()
    }
}

/// One that gives up only when a machine that builds at the same time would have answered too.
pub(crate) fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().timeout(DEADLINE).build().unwrap()
}

async fn find(log: &mut watch::Receiver<Vec<String>>, message: &str) -> Value {
    let parse = |log: &[String]| {
        let values = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        values.into_iter().find(|value| value["message"] == message)
    };
    let found = timeout(DEADLINE, log.wait_for(|log| parse(log).is_some())).await;
    let found = found.ok().and_then(|log| parse(&log.ok()?));
    found.unwrap_or_else(|| panic!("never logged {message:?}: {:#?}", log.borrow()))
}

pub(crate) fn form(bytes: &'static [u8], filename: &'static str, media_type: &str) -> Form {
    Form::new().part("file", Part::bytes(bytes).file_name(filename).mime_str(media_type).unwrap())
}

/// The code of an error answer, after its shape was checked.
pub(crate) async fn error_code(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["success"], false, "{body}");
    assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
    assert!(body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
    (status, body["error"]["code"].as_str().unwrap().to_owned())
}

/// Starts `count` predictions at once.
pub(crate) fn burst(service: &Arc<Service>, count: usize) -> tokio::task::JoinSet<Response> {
    (0..count)
        .map(|_| {
            let service = service.clone();
            async move { service.predict_sample().await }
        })
        .collect()
}
