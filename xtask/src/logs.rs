//! `cargo xtask logs`: the app's logs from all pods and containers, each line prefixed by both.

mod follow;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Args;
use futures::AsyncBufReadExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;
use kube::api::LogParams;
use serde_json::json;

use crate::clusters;
use crate::cx::Cx;
use crate::failure::{Attach as _, Exit, reason};
use crate::kubernetes::Api;
use crate::options::{Format, duration};
use crate::owned::Owner;
use crate::summary::Summary;

/// What is to be shown.
#[derive(Args, Clone, Debug)]
pub struct LogsArgs {
    /// One pod, by its name; all of the app's pods without it.
    pub pod: Option<String>,
    /// Go on as new lines come, through restarts and for pods that come later.
    #[arg(short, long)]
    pub follow: bool,
    /// Lines from the end of each container's log; all without it.
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(i64).range(0..))]
    pub tail: Option<i64>,
    /// Only lines that are younger than this, such as 90s or 10m.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub since: Option<Duration>,
    /// The log of each container's previous run: what it wrote before it was restarted.
    #[arg(short, long, conflicts_with = "follow")]
    pub previous: bool,
}

/// One run of one container.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    pod: String,
    uid: String,
    container: String,
    /// How often the container was restarted before.
    restarts: i32,
}

/// Prints them; with `follow`, until Ctrl-C.
///
/// # Errors
/// When no cluster runs (exit code 10), no pod has that name, or the API refuses.
pub async fn run(cx: &Cx, args: &LogsArgs) -> Result<Summary> {
    let cluster = clusters::choose(cx).await?.kind.expect(cx).await?;
    let manifests = crate::manifests::read(&cx.root.join("kubernetes"), &cx.shared.namespace)?;
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &cx.shared.namespace);
    let name = manifests.deployment_name();
    cx.unless_stopped(async {
        let owner = Owner::of(&cluster.client, &cx.shared.namespace, name).await?;
        let logs = Logs { cx, args, api, owner, running: RefCell::default() };
        let pods = logs.pods(name).await?;
        if args.follow { logs.follow().await } else { logs.show(&pods).await }
    })
    .await?;
    Ok(Summary::new())
}

struct Logs<'l> {
    cx: &'l Cx,
    args: &'l LogsArgs,
    api: Api<Pod>,
    /// Other pods may have the app's labels: whose a pod is, its owner says.
    owner: Owner,
    /// What runs, as the watch last saw it.
    running: RefCell<BTreeSet<Run>>,
}

impl Logs<'_> {
    /// The pods that are meant, as they are now.
    async fn pods(&self, deployment: &str) -> Result<Vec<Pod>> {
        let namespace = &self.cx.shared.namespace;
        let mut pods = self.owner.pods().await?;
        if let Some(wanted) = &self.args.pod {
            let names: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
            pods.retain(|pod| pod.name_any() == *wanted);
            if pods.is_empty() {
                let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                return Err(anyhow!("the app has no pod `{wanted}` in namespace {namespace}"))
                    .hint(format!("its pods: {names}"))
                    .exit(Exit::Usage);
            }
        }
        if pods.is_empty() {
            self.cx.output.note(&format!("deployment/{deployment} has no pod in namespace {namespace}"));
        }
        Ok(pods)
    }

    /// Each container's log as it is now.
    async fn show(&self, pods: &[Pod]) -> Result<()> {
        for pod in pods {
            for Run { pod, container, .. } in begun(pod) {
                let params = LogParams { container: Some(container.clone()), ..self.params() };
                if let Err(why) = self.read(&pod, &container, &params, &mut None).await {
                    self.cx.output.note(&format!("{pod}/{container}: no log: {why}"));
                }
            }
        }
        Ok(())
    }

    fn params(&self) -> LogParams {
        LogParams {
            follow: self.args.follow,
            previous: self.args.previous,
            since_seconds: self
                .args
                .since
                .map(|since| i64::try_from(since.as_secs().max(1)).unwrap_or(i64::MAX)),
            tail_lines: self.args.tail,
            // They tell the lines apart that come twice after a break.
            timestamps: true,
            ..LogParams::default()
        }
    }

    /// Prints one log; `last` is the time of the last line that was printed.
    async fn read(
        &self,
        pod: &str,
        container: &str,
        params: &LogParams,
        last: &mut Option<Timestamp>,
    ) -> Result<(), String> {
        let seen = *last;
        let mut stream = self.api.log_stream(pod, params).await.map_err(|error| reason(&error))?;
        let mut line = Vec::new();
        loop {
            line.clear();
            if stream.read_until(b'\n', &mut line).await.map_err(|error| error.to_string())? == 0 {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&line);
            let (time, text) = timed(&text);
            if time.is_some() && time <= seen {
                continue;
            }
            *last = time.or(*last);
            self.print(pod, container, time, text);
        }
    }

    fn print(&self, pod: &str, container: &str, time: Option<Timestamp>, line: &str) {
        self.cx.output.data(&match self.cx.shared.output {
            Format::Human => format!("{pod}/{container} {line}"),
            Format::Json => {
                json!({"event": "log", "pod": pod, "container": container, "time": time, "line": line})
                    .to_string()
            }
        });
    }
}

/// The time that the kubelet has put before a line, and the line.
fn timed(line: &str) -> (Option<Timestamp>, &str) {
    let line = line.trim_end_matches(['\n', '\r']);
    match line.split_once(' ').map(|(time, rest)| (time.parse().ok(), rest)) {
        Some((Some(time), rest)) => (Some(time), rest),
        _ => line.parse().map_or((None, line), |time| (Some(time), "")),
    }
}

fn runs<'p>(pod: &'p Pod, is_meant: fn(&ContainerStatus) -> bool) -> impl Iterator<Item = Run> + 'p {
    let statuses = pod.status.iter().flat_map(|status| {
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    });
    let of = |status: &ContainerStatus| Run {
        pod: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        container: status.name.clone(),
        restarts: status.restart_count,
    };
    statuses.filter(move |status| is_meant(status)).map(of)
}

/// The containers that have begun at least once: those have a log.
fn begun(pod: &Pod) -> impl Iterator<Item = Run> + '_ {
    runs(pod, |status| {
        let ended_before = status.last_state.as_ref().is_some_and(|last| last.terminated.is_some());
        ended_before
            || status
                .state
                .as_ref()
                .is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    })
}

fn running(pod: &Pod) -> impl Iterator<Item = Run> + '_ {
    runs(pod, |status| status.state.as_ref().is_some_and(|state| state.running.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lines_time_is_told_from_its_text() {
        let time: Timestamp = "2026-03-01T12:00:00.123456789Z".parse().expect("a time");
        assert_eq!(timed("2026-03-01T12:00:00.123456789Z GET /health"), (Some(time), "GET /health"));
        assert_eq!(timed("2026-03-01T12:00:00.123456789Z "), (Some(time), ""));
        assert_eq!(timed("no time at all"), (None, "no time at all"));
    }
}
