//! Records a run while it goes: what was asked for and where, and of a command that deploys, what the cluster did
//! meanwhile. It runs beside the pipeline, which neither waits for it nor fails with it: what could not be seen or
//! written is a gap, and named at the end.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::ListParams;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::commands::quoted;
use crate::cx::Cx;
use crate::kubernetes::Api;
use crate::owned::Watched;
use crate::plan::Planned;
use crate::proc;
use crate::record::run::{Asked, Environment};
use crate::record::{earlier, sizes};
use crate::steps::weights;
use crate::witness::{Bounds, Witness};

/// What the record of a run without requests may take, together with its report and events well below 20 MB.
const BOUNDS: Bounds = Bounds { timeline: 8_000_000, logs: 8_000_000, earlier_events: false };
/// How often an API server that does not answer yet is asked again.
const TRY_EVERY: Duration = Duration::from_millis(250);
/// What is asked of others for the record alone may take this long.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is still being asked when the run has ended is waited for this long.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// Nodes that are described.
const MOST_NODES: u32 = 100;
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// What of a run is recorded beside its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// On which machine it took place, and of which commit.
    Machine,
    /// In which cluster, too.
    Environment,
    /// What the cluster did, too.
    Cluster,
}

/// What is done for the record, beside all else.
pub fn plan(cx: &Cx, scope: Scope) -> Planned {
    let asked = if scope == Scope::Machine { "" } else { ", versions and size of the cluster" };
    let mut does = vec![format!("for the report: git status{asked}")];
    match scope {
        Scope::Machine => {}
        Scope::Environment => does.push("GET /info by the entry, if the app is there".to_owned()),
        Scope::Cluster => does.push(format!(
            "watch the app's Deployment and pods, ReplicaSets, endpoints and events in {}, and the ingress \
             controller; follow their logs",
            cx.shared.namespace
        )),
    }
    Planned::beside(does)
}

/// A run that is being recorded.
pub struct Recorder {
    dir: PathBuf,
    asked: Asked,
    end: CancellationToken,
    work: JoinHandle<(Environment, Vec<String>)>,
}

impl Recorder {
    /// Begins, for a run that keeps a folder.
    pub fn begin(cx: &Arc<Cx>, command: &str, scope: Scope) -> Option<Recorder> {
        let dir = cx.run_dir.clone()?;
        let began = SignedDuration::try_from(cx.began.elapsed()).unwrap_or_default();
        let mut asked = Asked {
            command: command.to_owned(),
            line: command_line(std::env::args_os().skip(1), std::env::vars_os()),
            began: earlier(Timestamp::now(), began),
            environment: Environment {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                machine: this_machine(),
                namespace: cx.shared.namespace.clone(),
                ..Environment::default()
            },
            ..Asked::default()
        };
        asked.gaps.extend(asked.write(&dir).err().map(|error| format!("{error:#}")));
        let end = CancellationToken::new();
        let work = record(Arc::clone(cx), asked.environment.clone(), dir.clone(), scope, end.clone());
        Some(Recorder { dir, asked, end, work: tokio::spawn(work) })
    }

    /// Ends it; says what is not in the record.
    pub async fn end(self) -> Vec<String> {
        let Recorder { dir, mut asked, end, work } = self;
        end.cancel();
        match work.await {
            Ok((environment, gaps)) => {
                asked.environment = environment;
                asked.gaps.extend(gaps);
            }
            Err(error) => asked.gaps.push(format!("what the cluster did: {error}")),
        }
        asked.files = Some(sizes(&dir));
        let unwritten = asked.write(&dir).err().map(|error| format!("{error:#}"));
        // It may have failed so at the beginning too.
        let unwritten = unwritten.filter(|gap| !asked.gaps.contains(gap));
        asked.gaps.extend(unwritten);
        asked.gaps
    }
}

async fn record(
    cx: Arc<Cx>,
    mut environment: Environment,
    dir: PathBuf,
    scope: Scope,
    end: CancellationToken,
) -> (Environment, Vec<String>) {
    let (root, weights) = (cx.root.clone(), weights::dir(&cx).join(xtask_weights::MANIFEST_FILE));
    let checkout = tokio::task::spawn_blocking(move || checkout(&root));
    let mut gaps = Vec::new();
    let mut witness = None;
    if let Some(watched) = end.run_until_cancelled(cx.watched()).await {
        environment.cluster = Some(watched.cluster.clone());
        environment.kubernetes = end.run_until_cancelled(version(&watched.client)).await;
        if scope == Scope::Cluster {
            if environment.kubernetes.is_none() {
                gaps.push("what the cluster did: its API server did not answer".to_owned());
            } else {
                match Witness::begin(watched, &dir, BOUNDS) {
                    Ok((begun, _)) => witness = Some(begun),
                    Err(error) => gaps.push(format!("what the cluster did: {error:#}")),
                }
            }
        }
        let found = async {
            environment.nodes = within(nodes(&watched.client)).await;
            // What is deployed may be of another making than what lies here.
            if scope == Scope::Environment {
                environment.weights = within(deployed_weights(watched)).await;
            }
        };
        end.run_until_cancelled(found).await;
        end.cancelled().await;
    }
    if let Some(witness) = witness {
        match witness.finish() {
            Ok(unseen) => gaps.extend(unseen),
            Err(error) => gaps.push(format!("what the cluster did: {error:#}")),
        }
    }
    if scope == Scope::Cluster {
        environment.weights = std::fs::read(weights).ok().and_then(|text| {
            let manifest = serde_json::from_slice(&text).ok()?;
            Some(weights::describe(&manifest))
        });
    }
    if let Ok(Ok(Some((commit, is_clean)))) = tokio::time::timeout(LAST_WORDS, checkout).await {
        (environment.commit, environment.is_clean) = (Some(commit), Some(is_clean));
    }
    (environment, gaps)
}

async fn within<T>(question: impl Future<Output = Option<T>>) -> Option<T> {
    tokio::time::timeout(PATIENCE, question).await.ok().flatten()
}

/// The API server's version, as soon as it answers.
async fn version(client: &Client) -> String {
    loop {
        if let Ok(Ok(version)) = tokio::time::timeout(PATIENCE, client.apiserver_version()).await {
            return version.git_version;
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}

/// The nodes in one line: how many, how large, and what runs their containers.
async fn nodes(client: &Client) -> Option<String> {
    let nodes = Api::<Node>::all(client.clone());
    let list = nodes.list(&ListParams::default().limit(MOST_NODES)).await.ok()?;
    let more = list.metadata.remaining_item_count.unwrap_or_default();
    let statuses: Vec<_> = list.items.iter().filter_map(|node| node.status.as_ref()).collect();
    let sum = |resource: &str| -> f64 {
        let amounts = statuses.iter().filter_map(|status| status.capacity.as_ref()?.get(resource));
        amounts.filter_map(|amount| quantity::value(&amount.0)).sum()
    };
    let mut runtimes: Vec<_> = statuses
        .iter()
        .filter_map(|status| Some(status.node_info.as_ref()?.container_runtime_version.as_str()))
        .collect();
    runtimes.sort_unstable();
    runtimes.dedup();
    let count = list.items.len();
    let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
    Some(format!(
        "{count} node{}{more} with {} CPUs and {:.1} GiB, {}",
        if count == 1 { "" } else { "s" },
        sum("cpu"),
        sum("memory") / GIB,
        runtimes.join(", ")
    ))
}

/// What the app says of its weights.
async fn deployed_weights(watched: &Watched) -> Option<String> {
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().ok()?;
    let url = format!("{}/info", watched.entry.trim_end_matches('/'));
    let answer = client.get(url).header(http::header::HOST, &watched.host).send().await.ok()?;
    let info: Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
    let name = info.pointer("/weights/name")?.as_str()?;
    Some(match info.pointer("/weights/seeded").and_then(Value::as_u64) {
        Some(seed) => format!("SEEDED weights (seed {seed}): predictions mean nothing"),
        None => format!("weights {name}"),
    })
}

/// The commit that is checked out, and whether nothing differs from it.
fn checkout(root: &Path) -> Option<(String, bool)> {
    let shell = proc::shell().ok()?;
    // Without its optional locks it is in the way of no other git.
    let command = xshell::cmd!(shell, "git --no-optional-locks status --porcelain=v2 --branch");
    let status = proc::output(proc::Command::from(command).current_dir(root)).ok()?;
    let commit = status.lines().find_map(|line| line.strip_prefix("# branch.oid "))?;
    let is_clean = status.lines().all(|line| line.starts_with('#'));
    Some((commit.chars().take(12).collect(), is_clean))
}

fn this_machine() -> String {
    format!("{} {}, {} CPUs", std::env::consts::OS, std::env::consts::ARCH, machine::cpus())
}

/// The command line, ready to be pasted, with the variables that had a say in it. A header's value may be a secret.
fn command_line(
    args: impl Iterator<Item = OsString>,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> String {
    let mut words: Vec<String> = variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(name, value)| name.starts_with("XTASK_") && !value.is_empty())
        .map(|(name, value)| format!("{name}={}", quoted(&value)))
        .collect();
    words.sort_unstable();
    words.extend(["cargo".to_owned(), "xtask".to_owned()]);
    let mut is_header = false;
    for arg in args {
        let arg = arg.to_string_lossy();
        let arg = match arg.strip_prefix("--header=") {
            Some(header) => format!("--header={}", without_value(header)),
            None if is_header => without_value(&arg),
            None => arg.clone().into_owned(),
        };
        is_header = arg == "--header";
        words.push(quoted(&arg));
    }
    words.join(" ")
}

/// A header without its value.
fn without_value(header: &str) -> String {
    format!("{}: …", header.split(':').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_pasted_and_tells_no_secret() {
        let args = ["load", "-n", "5", "--threshold", "p99<800ms", "--header", "Authorization: Bearer x"];
        let args = args.iter().chain(&["--header=Cookie: y", "--get", "/health"]);
        let variables = [("XTASK_PROFILE", "my lab"), ("HOME", "/root"), ("XTASK_ENTRY", "")];
        let line = command_line(
            args.map(OsString::from),
            variables.into_iter().map(|(name, value)| (name.into(), value.into())),
        );
        assert_eq!(
            line,
            "XTASK_PROFILE='my lab' cargo xtask load -n 5 --threshold 'p99<800ms' \
             --header 'Authorization: …' '--header=Cookie: …' --get /health"
        );
    }
}
