//! The witness: while a run goes on it keeps what the cluster does, so that what failed can be explained when the pod
//! it met is long gone. Everything goes to the run's folder as it comes:
//!
//! - `logs/ingress/POD.log`: the access log, each line behind the node's timestamp
//! - `logs/app/POD.log`: the app's log, likewise
//! - `timeline.jsonl`: the Deployment, ReplicaSets, pods, endpoints and events, one object a change

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use futures::future::BoxFuture;
use futures::{AsyncBufReadExt as _, FutureExt as _, StreamExt as _, TryStreamExt as _};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use kube::api::LogParams;
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::{WatchStreamExt as _, watcher};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::failure::reason;
use crate::ingress_nginx::{CONTROLLER_PODS, NAMESPACE as INGRESS_NAMESPACE};
use crate::kubernetes::{Api, untyped_event_time};
use crate::owned::{Owner, Watched};
use crate::record::{APP_LOGS, INGRESS_LOGS, Seen, TIMELINE, access, earlier};

mod from_now;

/// The first lists must be there by then.
const SYNC_DEADLINE: Duration = Duration::from_secs(10);
/// A log stream that ended while its container runs is taken up again after this.
const RESUME_AFTER: Duration = Duration::from_millis(200);
/// How a kubelet begins what it writes in place of a log that it can't read any more; no line of a container is without
/// its timestamp.
const NO_LOG: &str = "unable to retrieve container logs for ";
/// What was in the logs and among the events shortly before the run gives the first lines a context.
const SECONDS_BEFORE: i64 = 10;

/// How much is kept at most: bytes, and of the past.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Of the timeline.
    pub timeline: u64,
    /// Of all logs together.
    pub logs: u64,
    /// Whether events told shortly before are kept too; all that there are must be listed for that.
    pub earlier_events: bool,
}

impl Bounds {
    /// No bounds: a load needs each line that belongs to a request.
    pub const NONE: Bounds = Bounds { timeline: u64::MAX, logs: u64::MAX, earlier_events: true };
}

/// Bytes that may still be written.
struct Budget {
    whole: u64,
    left: AtomicU64,
}

impl Budget {
    fn of(bytes: u64) -> Budget {
        Budget { whole: bytes, left: AtomicU64::new(bytes) }
    }

    /// Takes so many off it; not where there are not as many left.
    fn take(&self, bytes: usize) -> bool {
        let less = |left: u64| left.checked_sub(bytes as u64);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// What it means that it is used up.
    fn used_up(&self, what: &str) -> String {
        format!("the rest of {what}: {} MB are kept at most", self.whole / 1_000_000)
    }
}

/// Watches while it lives.
pub struct Witness {
    shared: Arc<Shared>,
    watches: JoinSet<()>,
}

struct Shared {
    began: Instant,
    /// What happened before is not of this run.
    since: Timestamp,
    watched: Watched,
    dir: PathBuf,
    timeline: Mutex<File>,
    timeline_budget: Budget,
    log_budget: Budget,
    /// Runs of containers: each is followed once, and for as long as it is among those that run.
    followed: Mutex<BTreeSet<String>>,
    running: Mutex<BTreeMap<String, Vec<String>>>,
    followers: Mutex<JoinSet<()>>,
    /// Requests that someone waits to see in the access log.
    wanted: Mutex<HashMap<String, oneshot::Sender<String>>>,
    /// What was never listed so far, and why; nothing while there is no answer.
    unlisted: Mutex<BTreeMap<String, Option<String>>>,
    /// What the witness did not get to see.
    gaps: Mutex<Vec<String>>,
}

impl Witness {
    /// Watches the app and the ingress controller; back when everything was listed once.
    ///
    /// # Errors
    /// When the folder can't be written, or the API does not answer.
    pub async fn start(watched: &Watched, dir: &Path, bounds: Bounds) -> Result<Witness> {
        let (witness, listed) = Witness::begin(watched, dir, bounds)?;
        tokio::time::timeout(SYNC_DEADLINE, futures::future::try_join_all(listed))
            .await
            .map_err(|_| anyhow!("no answer from the API server within {} s", SYNC_DEADLINE.as_secs()))?
            .context("watching the cluster")?;
        Ok(witness)
    }

    /// Watches the app and the ingress controller from now on; each promise is kept when one kind was listed once.
    ///
    /// # Errors
    /// When the folder can't be written.
    pub fn begin(
        watched: &Watched,
        dir: &Path,
        bounds: Bounds,
    ) -> Result<(Witness, Vec<oneshot::Receiver<()>>)> {
        for role in [INGRESS_LOGS, APP_LOGS] {
            let folder = dir.join(role);
            std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let timeline = dir.join(TIMELINE);
        let shared = Arc::new(Shared {
            began: Instant::now(),
            since: earlier(Timestamp::now(), SignedDuration::from_secs(SECONDS_BEFORE)),
            watched: watched.clone(),
            dir: dir.to_owned(),
            timeline: Mutex::new(
                File::create(&timeline).with_context(|| format!("creating {}", timeline.display()))?,
            ),
            timeline_budget: Budget::of(bounds.timeline),
            log_budget: Budget::of(bounds.logs),
            followed: Mutex::default(),
            running: Mutex::default(),
            followers: Mutex::new(JoinSet::new()),
            wanted: Mutex::default(),
            unlisted: Mutex::default(),
            gaps: Mutex::default(),
        });
        let Watched { namespace, deployment, selector, nginx, .. } = watched;
        let (mut watches, mut listed) = (JoinSet::new(), Vec::new());
        let mut add = |kind, namespace, from, heard| {
            let (work, is_listed) = watch(&shared, kind, namespace, from, heard);
            watches.spawn(work);
            listed.push(is_listed);
        };
        let all = watcher::Config::default;
        let told = || bounds.earlier_events.then(all);
        let (pods, events) = (ApiResource::erase::<Pod>(&()), ApiResource::erase::<Event>(&()));
        // The Service sends requests to whatever has the labels: all of that is noted, and the app's own logs are
        // followed.
        add(pods.clone(), namespace, Some(all().labels(selector)), |shared, pod, is_first| {
            follow(shared, APP_LOGS, pod, is_first);
            true
        });
        let only = all().fields(&format!("metadata.name={deployment}"));
        add(ApiResource::erase::<Deployment>(&()), namespace, Some(only), |_, _, _| true);
        // A ReplicaSet's template is what its pods are, and each of them is noted.
        add(ApiResource::erase::<ReplicaSet>(&()), namespace, Some(all().labels(selector)), |_, set, _| {
            set.data.get_mut("spec").and_then(Value::as_object_mut).map(|spec| spec.remove("template"));
            true
        });
        add(ApiResource::erase::<EndpointSlice>(&()), namespace, Some(all()), |_, _, _| true);
        add(events.clone(), namespace, told(), is_news);
        if *nginx {
            let controllers = Some(all().labels(CONTROLLER_PODS));
            add(pods, INGRESS_NAMESPACE, controllers, |shared, pod, is_first| {
                follow(shared, INGRESS_LOGS, pod, is_first);
                true
            });
            add(events, INGRESS_NAMESPACE, told(), is_news);
        }
        Ok((Witness { shared, watches }, listed))
    }

    /// A promise that is kept when the access log shows the request `id`: the name of the controller's pod.
    pub fn expect(&self, id: &str) -> oneshot::Receiver<String> {
        let (seen, promise) = oneshot::channel();
        self.shared.wanted.lock().insert(id.to_owned(), seen);
        promise
    }

    /// Ends the watch; says what it did not get to see.
    ///
    /// # Errors
    /// When something could not be written.
    pub fn finish(mut self) -> Result<Vec<String>> {
        self.watches.abort_all();
        self.shared.followers.lock().abort_all();
        self.shared.timeline.lock().flush().context("writing the timeline")?;
        let unlisted = self.shared.unlisted.lock();
        // A run may be over before there can be an answer.
        let is_late = self.shared.began.elapsed() > SYNC_DEADLINE;
        let why = |why: &Option<String>| why.clone().or_else(|| is_late.then(|| "no answer".to_owned()));
        let never = unlisted.iter().filter_map(|(kind, reason)| {
            Some(format!("{kind}, which could not be listed: {}", why(reason)?))
        });
        Ok(self.shared.gaps.lock().iter().cloned().chain(never).collect())
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.shared.followers.lock().abort_all();
    }
}

impl Shared {
    fn note(&self, kind: &str, object: &DynamicObject, gone: bool) {
        let seen = Seen { at: Timestamp::now(), kind: kind.to_owned(), gone, object };
        let mut line = serde_json::to_vec(&seen).unwrap_or_default();
        line.push(b'\n');
        if !self.timeline_budget.take(line.len()) {
            return self.gap(self.timeline_budget.used_up(TIMELINE));
        }
        if let Err(error) = self.timeline.lock().write_all(&line) {
            self.gap(format!("the timeline could not be written: {error}"));
        }
    }

    fn gap(&self, what: String) {
        let mut gaps = self.gaps.lock();
        if gaps.len() < 100 && !gaps.contains(&what) {
            gaps.push(what);
        }
    }
}

/// Hears of an object, and whether it was there before the run; says whether it is to be noted, and takes away what is
/// not.
type Heard = fn(&Arc<Shared>, &mut DynamicObject, bool) -> bool;

/// What was told long before the run is most of the events, and none of its own.
fn is_news(shared: &Arc<Shared>, event: &mut DynamicObject, is_first: bool) -> bool {
    !is_first || untyped_event_time(event).is_none_or(|at| at >= shared.since)
}

/// Notes the changes of one kind, as they come: hardly anything that they say is read here, so they stay untyped. Where
/// nothing is `selected` they are those from now on.
fn watch(
    shared: &Arc<Shared>,
    resource: ApiResource,
    namespace: &str,
    selected: Option<watcher::Config>,
    heard: Heard,
) -> (BoxFuture<'static, ()>, oneshot::Receiver<()>) {
    let shared = Arc::clone(shared);
    let (listed, is_listed) = oneshot::channel();
    let name = format!("{} in {namespace}", resource.plural);
    let api =
        kube::Api::<DynamicObject>::namespaced_with(shared.watched.client.clone(), namespace, &resource);
    let ApiResource { kind, plural, .. } = resource;
    shared.unlisted.lock().insert(name.clone(), None);
    let work = async move {
        let mut listed = Some(listed);
        let mut known: HashMap<String, DynamicObject> = HashMap::new();
        let mut relisted = BTreeSet::new();
        // Who set which field is most of an object, and explains nothing.
        let bare = |object: &mut DynamicObject| object.metadata.managed_fields = None;
        let events = match selected {
            Some(selection) => watcher::watcher(api, selection).boxed(),
            None => from_now::changes(api).boxed(),
        };
        let mut events = pin!(events.default_backoff().modify(bare));
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => relisted.clear(),
                Ok(watcher::Event::InitApply(mut object)) => {
                    relisted.insert(object.name_any());
                    if heard(&shared, &mut object, listed.is_some()) {
                        shared.note(&kind, &object, false);
                    }
                    known.insert(object.name_any(), object);
                }
                Ok(watcher::Event::InitDone) => {
                    // What went while the watch was broken.
                    known.retain(|name, object| {
                        let is_there = relisted.contains(name);
                        if !is_there {
                            shared.note(&kind, object, true);
                        }
                        is_there
                    });
                    shared.unlisted.lock().remove(&name);
                    listed.take().map(|listed| listed.send(()));
                }
                Ok(watcher::Event::Apply(mut object)) => {
                    if heard(&shared, &mut object, false) {
                        shared.note(&kind, &object, false);
                    }
                    known.insert(object.name_any(), object);
                }
                Ok(watcher::Event::Delete(object)) => {
                    shared.note(&kind, &object, true);
                    shared.running.lock().remove(&object.uid().unwrap_or_default());
                    known.remove(&object.name_any());
                }
                // Nothing is lost of what begins later.
                Err(error) if listed.is_some() => {
                    shared.unlisted.lock().insert(name.clone(), Some(reason(&error)));
                }
                Err(error) => shared.gap(format!("watch of {plural}: {}", reason(&error))),
            }
        }
    };
    (work.boxed(), is_listed)
}

/// Follows the log of each container's run that is new.
fn follow(shared: &Arc<Shared>, role: &'static str, pod: &DynamicObject, is_first: bool) {
    let statuses = pod.data.pointer("/status/containerStatuses").cloned();
    let statuses = statuses.and_then(|list| serde_json::from_value::<Vec<ContainerStatus>>(list).ok());
    let uid = pod.uid().unwrap_or_default();
    let mut running = Vec::new();
    for status in statuses.unwrap_or_default() {
        let Some(state) = &status.state else { continue };
        let run = format!("{uid}/{}/{}", status.name, status.restart_count);
        if state.running.is_some() {
            running.push(run.clone());
        } else if state.terminated.is_none() {
            continue;
        }
        if shared.followed.lock().insert(run.clone()) {
            let follower = Follower {
                shared: Arc::clone(shared),
                api: Api::namespaced(shared.watched.client.clone(), &pod.namespace().unwrap_or_default()),
                file: shared.dir.join(role).join(format!("{}.log", pod.name_any())),
                is_access_log: role == INGRESS_LOGS,
                pod: pod.name_any(),
                metadata: pod.metadata.clone(),
                uid: uid.clone(),
                container: status.name.clone(),
                run,
            };
            shared.followers.lock().spawn(follower.work(is_first.then_some(SECONDS_BEFORE)));
        }
    }
    shared.running.lock().insert(uid, running);
}

/// Follows one run of one container.
struct Follower {
    shared: Arc<Shared>,
    api: Api<Pod>,
    file: PathBuf,
    is_access_log: bool,
    pod: String,
    metadata: ObjectMeta,
    uid: String,
    container: String,
    run: String,
}

impl Follower {
    async fn work(self, since: Option<i64>) {
        if !self.is_access_log && !self.is_of_app().await {
            return;
        }
        if let Err(error) = self.read(since).await {
            self.shared.gap(format!("log of {}: {error:#}", self.pod));
        }
    }

    /// Whether the pod is the app's; where that can't be found out, its labels decide.
    async fn is_of_app(&self) -> bool {
        let Watched { client, namespace, deployment, .. } = &self.shared.watched;
        match Owner::find(client, namespace, deployment).await {
            Ok(Some(owner)) => owner.owns(&self.metadata).await.unwrap_or(true),
            Ok(None) => false,
            Err(_) => true,
        }
    }

    async fn read(&self, mut since: Option<i64>) -> Result<()> {
        let file = File::options().create(true).append(true).open(&self.file);
        let mut file = file.map_err(|error| self.is_not_kept(&error)).ok();
        let mut was_read = false;
        loop {
            let params = LogParams {
                container: Some(self.container.clone()),
                follow: true,
                timestamps: true,
                since_seconds: since,
                ..LogParams::default()
            };
            let mut heard = Instant::now();
            let mut no_log = None;
            match self.api.log_stream(&self.pod, &params).await {
                Ok(stream) => {
                    was_read = true;
                    let mut lines = stream.lines();
                    // A stream that breaks is taken up again below.
                    while let Ok(Some(mut line)) = lines.try_next().await {
                        heard = Instant::now();
                        if line.starts_with(NO_LOG) {
                            no_log = Some(line);
                            continue;
                        }
                        if self.is_access_log {
                            self.tell(&line);
                        }
                        line.push('\n');
                        if file.is_some() && !self.shared.log_budget.take(line.len()) {
                            self.shared.gap(self.shared.log_budget.used_up("the logs"));
                            file = None;
                        }
                        // Whoever waits for a line hears of it all the same.
                        if let Some(Err(error)) = file.as_mut().map(|file| file.write_all(line.as_bytes())) {
                            self.is_not_kept(&error);
                            file = None;
                        }
                    }
                }
                // A log that was read to its end goes with its pod.
                Err(error) if !was_read && !self.is_running() => return Err(anyhow!("{}", reason(&error))),
                Err(_) => {}
            }
            if !self.is_running() {
                // What was not read before the container went will never be.
                return no_log.map_or(Ok(()), |why| Err(anyhow!("the kubelet: {why}")));
            }
            tokio::time::sleep(RESUME_AFTER).await;
            // Lines that come twice are told apart by their timestamps when they are read.
            since = Some(i64::try_from(heard.elapsed().as_secs()).unwrap_or(0) + 2);
        }
    }

    fn is_not_kept(&self, error: &std::io::Error) {
        let (pod, path) = (&self.pod, self.file.display());
        self.shared.gap(format!("log of {pod}: it could not be kept in {path}: {error}"));
    }

    fn is_running(&self) -> bool {
        self.shared.running.lock().get(&self.uid).is_some_and(|runs| runs.contains(&self.run))
    }

    /// Keeps the promise to whoever waits for this line.
    fn tell(&self, line: &str) {
        let mut wanted = self.shared.wanted.lock();
        if wanted.is_empty() {
            return;
        }
        if let Some(access) = access::parse(&self.pod, line)
            && let Some(seen) = wanted.remove(&access.id)
        {
            let _ = seen.send(self.pod.clone());
        }
    }
}

#[cfg(test)]
mod tests;
