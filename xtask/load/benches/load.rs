//! The generator against a trivial server, side by side with `oha` where that is on PATH: requests a second of both,
//! their ratio, and the memory that a million requests need.
//!
//! `cargo bench -p xtask-load --bench load [-- REQUESTS]`

#![allow(clippy::print_stdout)]

use std::convert::Infallible;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use xtask_load::client::Target;
use xtask_load::run::{self, Plan};
use xtask_load::schedule::{Pace, Schedule};
use xtask_load::tally::Book;

const CONCURRENCY: usize = 50;
const ROUNDS: usize = 9;

fn main() -> Result<()> {
    let requests = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(200_000);
    let address = serve()?;
    let url = format!("http://{address}/");
    let mut ratios = Vec::new();
    // In turns, so that both meet the same machine; the first of a round changes.
    for round in 1..=ROUNDS {
        let (own, theirs) = if round % 2 == 0 {
            let theirs = oha(&url, requests)?;
            (own(&url, requests)?, theirs)
        } else {
            (own(&url, requests)?, oha(&url, requests)?)
        };
        match theirs {
            Some(theirs) => {
                ratios.push(own / theirs);
                println!("round {round}: own {own:.0}/s, oha {theirs:.0}/s, ratio {:.2}", own / theirs);
            }
            None => println!("round {round}: own {own:.0}/s, oha is not on PATH"),
        }
    }
    ratios.sort_by(f64::total_cmp);
    if let (Some(least), Some(most)) = (ratios.first(), ratios.last()) {
        let median = ratios[ratios.len() / 2];
        println!("median ratio of {ROUNDS} rounds: {median:.2} ({least:.2} to {most:.2})");
    }
    let before = peak_rss_mib();
    let rate = own(&url, 1_000_000)?;
    println!("a million requests: {rate:.0}/s, peak memory {} MiB (before: {} MiB)", peak_rss_mib(), before);
    Ok(())
}

/// A server that says `ok`, on a thread of its own.
fn serve() -> Result<std::net::SocketAddr> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let answer = service_fn(|_| async {
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok"))))
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
                );
            }
        });
    });
    Ok(address)
}

/// With all that a real run does: ids, books, and a record of each request on disk.
fn own(url: &str, requests: u64) -> Result<f64> {
    let dir = tempfile::tempdir()?;
    let book = Arc::new(Book::open(Some(&dir.path().join("records.jsonl")))?);
    let schedule = Schedule { pace: Pace::Closed, requests: Some(requests), duration: None };
    let plan = Plan { schedule, concurrency: CONCURRENCY, request_timeout: Duration::from_secs(10) };
    let runtime = tokio::runtime::Runtime::new()?;
    let finished = runtime.block_on(async {
        let target = Target::get(url, "bench.local", "/").await?;
        run::run(target, plan, Arc::clone(&book), CancellationToken::new(), Instant::now()).await
    })?;
    let ok = book.tally().buckets.ok;
    ensure!(ok == requests, "{ok} of {requests} succeeded");
    Ok(ok as f64 / finished.took.as_secs_f64())
}

/// Requests per second by oha's own word; none where it is not installed.
fn oha(url: &str, requests: u64) -> Result<Option<f64>> {
    let Ok(oha) = which::which("oha") else { return Ok(None) };
    let output = Command::new(oha)
        .args([
            "--no-tui",
            "--output-format",
            "json",
            "-c",
            &CONCURRENCY.to_string(),
            "-n",
            &requests.to_string(),
            url,
        ])
        .stdin(Stdio::null())
        .output()
        .context("running oha")?;
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("reading oha's summary: {}", String::from_utf8_lossy(&output.stderr)))?;
    let codes = &summary["statusCodeDistribution"]["200"];
    ensure!(codes.as_u64() == Some(requests), "oha counts {codes} of {requests}");
    Ok(summary["summary"]["requestsPerSec"].as_f64())
}

/// The most memory that this process ever held, where the system says so.
fn peak_rss_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}
