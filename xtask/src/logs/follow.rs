//! `logs --follow`: each container's log as it grows, a restarted container's and a new pod's too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, anyhow};
use futures::stream::{FuturesUnordered, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::LogParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Logs, Run, begun, running};
use crate::failure::reason;
use crate::kubernetes::typed;

/// A stream that breaks while its container runs is taken up again after this.
const RESUME_AFTER: Duration = Duration::from_millis(500);

/// The logs that are followed, by pod uid and container: the last run, and where its reader learns of the next.
type Followed = BTreeMap<(String, String), (Option<i32>, UnboundedSender<Run>)>;

impl Logs<'_> {
    /// Until Ctrl-C; of a single pod, until that is deleted.
    ///
    /// # Errors
    /// When the watch ends.
    pub(super) async fn follow(&self) -> Result<()> {
        let config = watcher::Config::default().labels(&self.owner.selector);
        let mut events = watcher(self.api.clone().untyped(), config).default_backoff().boxed();
        let mut readers = FuturesUnordered::new();
        let mut followed = Followed::new();
        let mut pods = BTreeSet::new();
        let mut is_listed = false;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                Some(()) = readers.next() => continue,
            };
            let event = match event {
                Some(Ok(event)) => event,
                // The watch lists anew by itself.
                Some(Err(error)) => {
                    self.cx.output.trace(&format!("watching pods: {}", reason(&error)));
                    continue;
                }
                None => return Err(anyhow!("the watch of the app's pods ended")),
            };
            match event {
                watcher::Event::Init => pods.clear(),
                watcher::Event::InitDone => {
                    is_listed = true;
                    self.forget(&mut followed, |uid| !pods.contains(uid));
                }
                watcher::Event::Delete(pod) => {
                    let uid = pod.uid().unwrap_or_default();
                    pods.remove(&uid);
                    self.forget(&mut followed, |gone| gone == uid);
                }
                watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => {
                    let pod: Pod = match typed(pod) {
                        Ok(pod) => pod,
                        Err(error) => {
                            self.cx.output.trace(&format!("reading a pod: {error}"));
                            continue;
                        }
                    };
                    let uid = pod.uid().unwrap_or_default();
                    if !pods.contains(&uid) {
                        match self.is_meant(&pod).await {
                            Ok(true) => pods.insert(uid.clone()),
                            Ok(false) => continue,
                            // The watch, broken too, lists it anew.
                            Err(error) => {
                                self.cx.output.trace(&format!("{error:#}"));
                                continue;
                            }
                        };
                    }
                    {
                        let mut now = self.running.borrow_mut();
                        now.retain(|run| run.uid != uid);
                        now.extend(running(&pod));
                    }
                    for run in begun(&pod) {
                        let (last, reader) =
                            followed.entry((run.uid.clone(), run.container.clone())).or_insert_with(|| {
                                let (sender, runs) = unbounded_channel();
                                readers.push(self.read_runs(runs, is_listed));
                                (None, sender)
                            });
                        if last.replace(run.restarts) != Some(run.restarts) {
                            // The reader lives as long as its sender.
                            let _ = reader.send(run);
                        }
                    }
                }
            }
            if self.args.pod.is_some() && is_listed && pods.is_empty() {
                while readers.next().await.is_some() {}
                return Ok(());
            }
        }
    }

    async fn is_meant(&self, pod: &Pod) -> Result<bool> {
        let is_wanted = self.args.pod.as_ref().is_none_or(|wanted| *wanted == pod.name_any());
        Ok(is_wanted && self.owner.owns(&pod.metadata).await?)
    }

    /// Of pods that are gone, only what they have written already is still read.
    fn forget(&self, followed: &mut Followed, is_gone: impl Fn(&str) -> bool) {
        self.running.borrow_mut().retain(|run| !is_gone(&run.uid));
        followed.retain(|(uid, _), _| !is_gone(uid));
    }

    /// One container's runs, one after another. Of what began later, all lines are new.
    async fn read_runs(&self, mut runs: UnboundedReceiver<Run>, began_later: bool) {
        let whole = LogParams { follow: true, timestamps: true, ..LogParams::default() };
        let mut params = if began_later { whole.clone() } else { self.params() };
        let mut last = None;
        while let Some(run) = runs.recv().await {
            params.container = Some(run.container.clone());
            loop {
                if let Err(why) = self.read(&run.pod, &run.container, &params, &mut last).await {
                    self.cx.output.trace(&format!("{}/{}: {why}", run.pod, run.container));
                }
                params = LogParams { container: params.container, ..whole.clone() };
                if !self.running.borrow().contains(&run) {
                    break;
                }
                tokio::time::sleep(RESUME_AFTER).await;
                params.since_time = last;
            }
        }
    }
}
