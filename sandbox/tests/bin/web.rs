//! A web server as a pod should be: it listens at `HOST`, port 8000 unless `PORT` says otherwise, answers each request
//! with `VERSION` and its pod's name, logs a line for each, and on SIGTERM finishes what it has begun. Until
//! `WARM_UP_MS` are over, `/ready` is 503.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::TaskTracker;

static DRAINING: AtomicBool = AtomicBool::new(false);

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.into())
}

fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let address = format!("{}:{}", variable("HOST", "127.0.0.1"), variable("PORT", "8000"));
    let listener = TcpListener::bind(&address).await.with_context(|| format!("listen on {address}"))?;
    let warm =
        Instant::now() + Duration::from_millis(variable("WARM_UP_MS", "0").parse().context("WARM_UP_MS")?);
    say(&format!("listening on {address}"));
    let connections = TaskTracker::new();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            accepted = listener.accept() => {
                let (stream, _) = accepted.context("accept")?;
                connections.spawn(connection(stream, warm));
            }
        }
    }
    DRAINING.store(true, Ordering::Relaxed);
    drop(listener);
    say("draining");
    connections.close();
    let _ = tokio::time::timeout(Duration::from_secs(1), connections.wait()).await;
    Ok(())
}

/// Answers the requests of a connection, which may have bodies.
async fn connection(mut stream: TcpStream, warm: Instant) {
    let mut read = Vec::new();
    while let Some(request) = request(&mut stream, &mut read).await {
        let first = request.lines().next().unwrap_or_default().to_string();
        let id = request.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap_or("-");
        let ready = !first.starts_with("GET /ready ") || Instant::now() >= warm;
        let status = if ready { "200 OK" } else { "503 Service Unavailable" };
        let body = format!("{} {}", variable("VERSION", "v1"), variable("POD_NAME", "-"));
        let end = DRAINING.load(Ordering::Relaxed) || request.lines().any(|line| line == "connection: close");
        let connection = if end { "connection: close\r\n" } else { "" };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{connection}\r\n{body}", body.len());
        if !first.starts_with("GET /ready ") {
            say(&format!("{first} {id}"));
        }
        if stream.write_all(answer.as_bytes()).await.is_err() || end {
            return;
        }
    }
}

async fn request(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<String> {
    loop {
        let text = String::from_utf8_lossy(read).into_owned();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase().replacen(
                &head.lines().next()?.to_ascii_lowercase(),
                head.lines().next()?,
                1,
            );
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let total = head.len() + 4 + length.map_or(Some(0), |n| n.parse().ok())?;
            if read.len() >= total {
                read.drain(..total);
                return Some(head);
            }
        }
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    }
}
