//! From the event that makes a rollout complete to each observer's knowledge of it: the gate, `kubectl rollout status`,
//! `kubectl wait` and a poll once a second, side by side on the same object. Against the sandbox's API server, and
//! against a real one where `KUBEBUILDER_ASSETS` names its programs.
//!
//! `cargo bench -p xtask --bench gate_latency [-- TRANSITIONS]`; the gate's own lines go to stderr.

#![allow(clippy::print_stdout)]

#[path = "../tests/real_api_server/play.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod play;
#[path = "../../sandbox/tests/real_api_server/servers.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod servers;

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use xtask::cx::Cx;
use xtask::gates::settled;
use xtask::output::Output;
use xtask::pipeline::Branch;

use crate::play::Play;
use crate::servers::Server;

const PODS: usize = 3;
/// Two hundred give a p99 that rests on two.
const TRANSITIONS: usize = 200;
const OBSERVERS: [&str; 4] = ["gate", "kubectl rollout status", "kubectl wait", "poll, 1 s"];

#[tokio::main]
async fn main() -> Result<()> {
    let transitions = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(TRANSITIONS);
    // Only a second provider could be in the way, and there is none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    measure(&Server::sandbox().await?, transitions).await?;
    match servers::assets() {
        Ok(assets) => measure(&Server::real(assets).await?, transitions).await,
        Err(why) => {
            println!("not measured against a real API server: {why}");
            Ok(())
        }
    }
}

async fn measure(server: &Server, transitions: usize) -> Result<()> {
    let play = Play::begin(server, "latency", "web", PODS).await;
    play.complete().await;
    let (mut writes, mut latencies) = (Vec::new(), <[Vec<Transit>; 4]>::default());
    for n in 0..transitions {
        available(&play, 0).await;
        // The golden ratio spreads the moments evenly over the poll's second, whatever their number.
        let pause = Duration::from_secs_f64(0.2 + (n as f64 * 0.618_034).fract());
        let (write, seen) = transition(server, &play, pause).await?;
        writes.push(write.answered - write.sent);
        for (all, at) in latencies.iter_mut().zip(seen) {
            all.push(Transit {
                from_sent: at.saturating_duration_since(write.sent),
                from_answered: at.saturating_duration_since(write.answered),
            });
        }
    }
    println!("{} API server, {transitions} transitions, in ms", server.name);
    println!("  {:<24} {:>21}   {:>21}", "", "from the write sent", "from its answer");
    println!("  {:<24} {}", "the write", percentiles(writes));
    for (name, all) in OBSERVERS.into_iter().zip(latencies) {
        let sent = percentiles(all.iter().map(|transit| transit.from_sent).collect());
        let answered = percentiles(all.iter().map(|transit| transit.from_answered).collect());
        println!("  {name:<24} {sent}   {answered}");
    }
    Ok(())
}

/// How long an observer took. The condition becomes true between the two moments: when the server has stored the write.
struct Transit {
    from_sent: Duration,
    from_answered: Duration,
}

/// When a write was sent, and when the server had answered it.
struct Write {
    sent: Instant,
    answered: Instant,
}

fn percentiles(mut all: Vec<Duration>) -> String {
    all.sort_unstable();
    let ms = |part: f64| all[((all.len() as f64 * part).ceil() as usize).max(1) - 1].as_secs_f64() * 1e3;
    format!("p50 {:>5.1}  p99 {:>5.1}", ms(0.5), ms(0.99))
}

/// One transition, and when each observer knew of it.
async fn transition(server: &Server, play: &Play<'_>, pause: Duration) -> Result<(Write, [Instant; 4])> {
    let (cx, target) = (cx()?, play.target());
    let deployments: Api<Deployment> = server.api(play.namespace);
    let status = kubectl(server, &["rollout", "status", "deployment/web"]).await?;
    let wait = kubectl(server, &["wait", "--for=condition=Available", "deployment/web"]).await?;
    let gate = async {
        settled::wait(&mut Branch::first(&cx), &server.client, &target).await?;
        Ok(Instant::now())
    };
    let poll = async {
        loop {
            let now = deployments.get(play.name).await?;
            if now.status.and_then(|status| status.available_replicas) == Some(PODS as i32) {
                return Ok(Instant::now());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let write = async {
        tokio::time::sleep(pause).await;
        let sent = Instant::now();
        available(play, PODS).await;
        Ok::<_, anyhow::Error>(Write { sent, answered: Instant::now() })
    };
    let (write, gate, status, wait, poll) = tokio::try_join!(write, gate, ended(status), ended(wait), poll)?;
    Ok((write, [gate, status, wait, poll]))
}

async fn available(play: &Play<'_>, pods: usize) {
    let status = json!({
        "observedGeneration": 1, "replicas": PODS, "updatedReplicas": PODS,
        "readyReplicas": pods, "availableReplicas": pods,
        "conditions": [{"type": "Available", "status": if pods == PODS { "True" } else { "False" }}],
    });
    play.server.status::<Deployment>(play.namespace, play.name, status).await;
}

/// kubectl, once its watch is open.
async fn kubectl(server: &Server, args: &[&str]) -> Result<Child> {
    let mut child = Command::new("kubectl")
        .args(["--kubeconfig".as_ref(), server.kubeconfig().as_os_str()])
        .args(["--namespace", "latency", "--v=6", "--timeout=60s"])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("starting kubectl")?;
    let mut lines = BufReader::new(child.stderr.take().context("kubectl's stderr")?).lines();
    while let Some(line) = lines.next_line().await? {
        if line.contains("watch=true") {
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(child);
        }
    }
    anyhow::bail!("kubectl {args:?} opened no watch")
}

async fn ended(mut child: Child) -> Result<Instant> {
    let status = child.wait().await.context("waiting for kubectl")?;
    ensure!(status.success(), "kubectl ended with {status}");
    Ok(Instant::now())
}

fn cx() -> Result<Cx> {
    let cli = xtask::cli::Cli::try_parse_from(["xtask", "status"])?;
    let leash = leash::Leash::start(&["cat".into()])?;
    let output = Output::new(cli.shared.output, false);
    let root = xtask::workspace::root()?;
    let target = xtask::workspace::target(&root)?;
    Ok(Cx::new(root, target, cli.shared, output, leash))
}
