//! `cargo xtask logs`: the app's logs from all pods and containers, each line prefixed by both.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Args;
use futures::AsyncBufReadExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::LogParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::clusters;
use crate::cx::Cx;
use crate::failure::{Attach as _, Exit};
use crate::gates::watch::reason;
use crate::options::{Format, duration};
use crate::owned::Owner;
use crate::summary::Summary;

/// A stream that breaks while its container runs is taken up again after this.
const RESUME_AFTER: Duration = Duration::from_millis(500);

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

/// One run of one container: pod, its uid, container, how often that was restarted before.
type Run = (String, String, String, i32);

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
        let logs = Logs { cx, args, api, owner, current: RefCell::default() };
        if args.follow { logs.follow().await } else { logs.show(name).await }
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
    /// The containers that run, as the watch last saw them.
    current: RefCell<BTreeSet<Run>>,
}

impl Logs<'_> {
    /// Each container's log as it is now.
    async fn show(&self, deployment: &str) -> Result<()> {
        let namespace = &self.cx.shared.namespace;
        let mut pods = self.owner.pods().await?;
        if let Some(wanted) = &self.args.pod {
            let names: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
            pods.retain(|pod| pod.name_any() == *wanted);
            if pods.is_empty() {
                return Err(anyhow!("the app has no pod `{wanted}` in namespace {namespace}"))
                    .hint(format!(
                        "its pods: {}",
                        if names.is_empty() { "none".into() } else { names.join(", ") }
                    ))
                    .exit(Exit::Usage);
            }
        }
        if pods.is_empty() {
            self.cx.output.note(&format!("deployment/{deployment} has no pod in namespace {namespace}"));
        }
        for pod in &pods {
            for (pod, _, container, _) in begun(pod) {
                let params = LogParams { container: Some(container.clone()), ..self.params() };
                let mut last = None;
                if let Err(why) = self.read(&pod, &container, &params, &mut last).await {
                    self.cx.output.note(&format!("{pod}/{container}: no log: {why}"));
                }
            }
        }
        Ok(())
    }

    /// Each container's log as it grows, a restarted container's and a new pod's too.
    async fn follow(&self) -> Result<()> {
        let config = watcher::Config::default().labels(&self.owner.selector);
        let mut events = watcher(self.api.clone(), config).default_backoff().boxed();
        let mut followers = FuturesUnordered::new();
        let mut followed = BTreeMap::new();
        let mut own = BTreeSet::new();
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                Some(()) = followers.next() => continue,
            };
            match event {
                Some(Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod))) => {
                    if self.args.pod.as_ref().is_some_and(|wanted| *wanted != pod.name_any()) {
                        continue;
                    }
                    let uid = pod.uid().unwrap_or_default();
                    if !own.contains(&uid) {
                        match self.owner.owns(&pod).await {
                            Ok(true) => {}
                            Ok(false) => continue,
                            // The watch, broken too, lists it anew.
                            Err(error) => {
                                self.cx.output.trace(&format!("{error:#}"));
                                continue;
                            }
                        }
                        own.insert(uid.clone());
                    }
                    {
                        let mut current = self.current.borrow_mut();
                        current.retain(|run| run.1 != uid);
                        current.extend(running(&pod));
                    }
                    for run in begun(&pod) {
                        let container = (run.1.clone(), run.2.clone());
                        let is_first = !followed.contains_key(&container);
                        if followed.insert(container, run.3) != Some(run.3) {
                            followers.push(self.follow_run(run, is_first));
                        }
                    }
                }
                Some(Ok(watcher::Event::Delete(pod))) => {
                    let uid = pod.uid().unwrap_or_default();
                    self.current.borrow_mut().retain(|run| run.1 != uid);
                }
                Some(Ok(watcher::Event::Init | watcher::Event::InitDone)) => {}
                // It lists anew by itself.
                Some(Err(error)) => self.cx.output.trace(&format!("watching pods: {}", reason(&error))),
                None => return Err(anyhow!("the watch of the app's pods ended")),
            }
        }
    }

    /// One run of a container, to its end. Of a later run all lines are new.
    async fn follow_run(&self, run: Run, is_first: bool) {
        let (pod, _, container, _) = &run;
        let whole = LogParams { follow: true, timestamps: true, ..LogParams::default() };
        let mut params = if is_first { self.params() } else { whole.clone() };
        params.container = Some(container.clone());
        let mut last = None;
        loop {
            let read = self.read(pod, container, &params, &mut last).await;
            if !self.current.borrow().contains(&run) {
                return;
            }
            if let Err(why) = read {
                self.cx.output.trace(&format!("{pod}/{container}: {why}"));
            }
            tokio::time::sleep(RESUME_AFTER).await;
            params = LogParams { container: Some(container.clone()), since_time: last, ..whole.clone() };
        }
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
    let of = |status: &ContainerStatus| {
        (pod.name_any(), pod.uid().unwrap_or_default(), status.name.clone(), status.restart_count)
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
