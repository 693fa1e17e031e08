//! What probes and lifecycle hooks do: an HTTP request, a TCP connection, a command, a pause.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{
    ContainerPort, ExecAction, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use leash::Leash;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::process::{Launch, Process};
use crate::address::PodAddress;
use crate::faults::Faults;

/// How much of a command's output goes into an event, as in the kubelet.
const MAX_OUTPUT: u64 = 10 * 1024;

/// A thing to do to a container.
pub(crate) enum Action<'a> {
    Http(&'a HTTPGetAction),
    Tcp(&'a TCPSocketAction),
    Exec(&'a ExecAction),
    Sleep(Duration),
}

/// Where it is done.
pub(crate) struct Target<'a> {
    pub(crate) address: &'a PodAddress,
    pub(crate) ports: &'a [ContainerPort],
    /// The container's environment and folder, for commands.
    pub(crate) launch: &'a Launch,
    pub(crate) leash: &'a Leash,
    pub(crate) faults: &'a Faults,
    pub(crate) namespace: &'a str,
}

impl<'a> Action<'a> {
    pub(crate) fn of_probe(probe: &'a Probe) -> Option<Action<'a>> {
        let http = probe.http_get.as_ref().map(Action::Http);
        http.or_else(|| probe.tcp_socket.as_ref().map(Action::Tcp))
            .or_else(|| probe.exec.as_ref().map(Action::Exec))
    }

    pub(crate) fn of_hook(hook: &'a LifecycleHandler) -> Option<Action<'a>> {
        let sleep = hook.sleep.as_ref();
        let sleep =
            sleep.map(|sleep| Action::Sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))));
        let http = || hook.http_get.as_ref().map(Action::Http);
        sleep.or_else(http).or_else(|| hook.exec.as_ref().map(Action::Exec))
    }

    /// Does it. The error is worded as the kubelet words it in events.
    pub(crate) async fn run(&self, target: &Target<'_>, timeout: Duration) -> Result<(), String> {
        match self {
            Action::Http(action) => http_get(action, target, timeout).await,
            Action::Tcp(action) => {
                let address = socket(action.host.as_deref(), &action.port, target).await?;
                match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(error)) => Err(dial_error(address, &error)),
                    Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
                }
            }
            Action::Exec(action) => exec(action, target, timeout).await,
            Action::Sleep(pause) => {
                tokio::time::sleep(*pause).await;
                Ok(())
            }
        }
    }
}

/// The number of a port given by number or by the name of a container port.
fn port_number(port: &IntOrString, ports: &[ContainerPort]) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named =
                ports.iter().find(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port);
            named.or_else(|| name.parse().ok())
        }
    };
    let number = number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
    number.ok_or_else(|| match port {
        IntOrString::Int(number) => format!("invalid port number: {number}"),
        IntOrString::String(name) => format!("couldn't find port: {name:?}"),
    })
}

async fn socket(host: Option<&str>, port: &IntOrString, target: &Target<'_>) -> Result<SocketAddr, String> {
    let port = port_number(port, target.ports)?;
    match host {
        None | Some("") => Ok(target.address.dial(port)),
        Some(host) => match host.parse::<IpAddr>() {
            Ok(ip) => Ok((ip, port).into()),
            Err(_) => tokio::net::lookup_host((host, port))
                .await
                .ok()
                .and_then(|mut addresses| addresses.next())
                .ok_or_else(|| format!("dial tcp: lookup {host}: no such host")),
        },
    }
}

/// A fresh connection for each request: neither a pool nor a proxy may stand between the probe and the container.
async fn http_get(action: &HTTPGetAction, target: &Target<'_>, timeout: Duration) -> Result<(), String> {
    if action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) {
        return Err("HTTPS probes are not supported by this node".to_owned());
    }
    let address = socket(action.host.as_deref(), &action.port, target).await?;
    let path = action.path.as_deref().unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let path = format!("{slash}{path}");
    let url = format!("http://{address}{path}");
    let answer = async {
        let request = request(action, address, &path).map_err(|error| error.to_string())?;
        let stream = TcpStream::connect(address).await.map_err(|error| dial_error(address, &error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| describe(&error))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| describe(&error))?;
            let status = response.status();
            // Read to its end, so that the server sees an orderly close.
            let mut body = response.into_body();
            while let Some(Ok(_)) = body.frame().await {}
            drop(sender);
            Ok(status)
        };
        let connection = async { connection.await.map_err(|error| describe(&error)) };
        tokio::pin!(exchange, connection);
        tokio::select! {
            biased;
            status = &mut exchange => status,
            ended = &mut connection => match ended {
                // The answer may be there, although the connection has ended.
                Ok(()) => exchange.await,
                Err(error) => Err(error),
            },
        }
    };
    match tokio::time::timeout(timeout, answer).await {
        Ok(Ok(status)) if (200..400).contains(&status.as_u16()) => Ok(()),
        Ok(Ok(status)) => Err(format!("HTTP probe failed with statuscode: {}", status.as_u16())),
        Ok(Err(error)) => Err(format!("Get {url:?}: {error}")),
        Err(_) => Err(format!(
            "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

fn request(
    action: &HTTPGetAction,
    address: SocketAddr,
    path: &str,
) -> http::Result<http::Request<Empty<&'static [u8]>>> {
    let mut request = http::Request::get(path).body(Empty::new())?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::try_from(address.to_string())?);
    headers.insert(USER_AGENT, HeaderValue::from_static("kube-probe/1.34"));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    for header in action.http_headers.iter().flatten() {
        headers.insert(HeaderName::try_from(&header.name)?, HeaderValue::try_from(&header.value)?);
    }
    Ok(request)
}

fn describe(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "EOF".to_owned();
    }
    let cause = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    match cause.map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionReset) => "read: connection reset by peer".to_owned(),
        Some(io::ErrorKind::UnexpectedEof) => "EOF".to_owned(),
        _ => error.to_string(),
    }
}

fn dial_error(address: SocketAddr, error: &io::Error) -> String {
    let what = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        _ => error.to_string(),
    };
    format!("dial tcp {address}: connect: {what}")
}

async fn exec(action: &ExecAction, target: &Target<'_>, timeout: Duration) -> Result<(), String> {
    let argv: Vec<OsString> = action.command.iter().flatten().map(Into::into).collect();
    let line = action.command.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ");
    let launch = Launch { argv, ..target.launch.clone() };
    let mut process = Process::start(&launch, target.leash)
        .await
        .map_err(|error| format!("cannot run {line:?}: {error}"))?;
    let (stdout, stderr) = process.take_output();
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let run = async {
        let read = async {
            if let Some(stdout) = stdout {
                let _ = stdout.take(MAX_OUTPUT).read_to_end(&mut output).await;
            }
        };
        let read_errors = async {
            if let Some(stderr) = stderr {
                let _ = stderr.take(MAX_OUTPUT).read_to_end(&mut errors).await;
            }
        };
        // The end of the process ends its group, and thus the pipes.
        let (code, (), ()) = tokio::join!(process.wait(), read, read_errors);
        code
    };
    match tokio::time::timeout(timeout, run).await {
        Ok(0) => Ok(()),
        Ok(code) => {
            output.extend_from_slice(&errors);
            let output = String::from_utf8_lossy(&output);
            let output = output.trim_end();
            Err(if output.is_empty() {
                format!("command {line:?} exited with {code}")
            } else {
                output.to_owned()
            })
        }
        Err(_) => Err(format!("command timed out: {line:?} timed out after {}s", timeout.as_secs())),
    }
}
