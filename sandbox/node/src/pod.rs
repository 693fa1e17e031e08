//! One pod: from its binding to this node until its object is gone.

mod orders;
mod status;
mod write;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateWaiting, ContainerStatus, ObjectReference, Pod,
};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::address::PodAddress;
use crate::agent::Context;
use crate::container;
use crate::events::Severity;
use crate::logs::RunLog;
use status::Facts;

pub(crate) use orders::{FLOOR, StopOrder, after, grace};
pub(crate) use status::whole_seconds;
pub use write::PORTS_ANNOTATION;

/// A pod of this node, shared by the task that runs it and by who asks about it.
pub(crate) struct PodHandle {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// Logs, volumes and the home folder.
    pub(crate) dir: PathBuf,
    /// The newest object that the API has shown.
    pub(crate) object: watch::Sender<Arc<Pod>>,
    /// The object is no longer in the API.
    pub(crate) gone: CancellationToken,
    /// Set when its containers are to end.
    pub(crate) stop: watch::Sender<Option<StopOrder>>,
    address: OnceLock<PodAddress>,
    facts: Mutex<Facts>,
    runs: Mutex<Runs>,
    changed: Notify,
}

/// Names a container of a pod: by kind, and its place in the spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) init: bool,
    pub(crate) index: usize,
}

#[derive(Default)]
struct Runs {
    init: Vec<Run>,
    containers: Vec<Run>,
}

/// What a container has on this machine.
#[derive(Clone, Default)]
pub(crate) struct Run {
    /// Its process group, while it runs.
    pub(crate) group: Option<Group>,
    /// Its logs, the newest last: of the current or last run, and of the one before.
    pub(crate) logs: VecDeque<Arc<RunLog>>,
}

/// A container's process group.
#[derive(Clone)]
pub(crate) struct Group {
    pub(crate) pgid: i32,
    pub(crate) memory_limit_bytes: Option<u64>,
    /// Set by who kills it for the memory it uses.
    pub(crate) out_of_memory: Arc<AtomicBool>,
}

impl PodHandle {
    /// Of a pod as the API shows it; its folder will be under `dir`.
    pub(crate) fn new(dir: &Path, pod: Arc<Pod>) -> PodHandle {
        let namespace = pod.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let name = pod.metadata.name.clone().unwrap_or_default();
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let init = init_containers(&pod);
        let containers = pod.spec.as_ref().map_or(&[][..], |spec| &spec.containers);
        let reason = if init.is_empty() { "ContainerCreating" } else { "PodInitializing" };
        let started_at = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
        let facts = Facts {
            started_at: Some(started_at.unwrap_or_else(|| whole_seconds(Timestamp::now()))),
            init: init.iter().map(|container| not_yet(container, "PodInitializing")).collect(),
            containers: containers.iter().map(|container| not_yet(container, reason)).collect(),
            ..Facts::default()
        };
        let runs = Runs {
            init: vec![Run::default(); init.len()],
            containers: vec![Run::default(); containers.len()],
        };
        PodHandle {
            dir: dir.join("pods").join(format!("{namespace}_{name}_{uid}")),
            namespace,
            name,
            uid,
            object: watch::Sender::new(pod),
            gone: CancellationToken::new(),
            stop: watch::Sender::new(None),
            address: OnceLock::new(),
            facts: Mutex::new(facts),
            runs: Mutex::new(runs),
            changed: Notify::new(),
        }
    }

    pub(crate) fn pod(&self) -> Arc<Pod> {
        self.object.borrow().clone()
    }

    pub(crate) fn address(&self) -> Option<&PodAddress> {
        self.address.get()
    }

    /// The status of a container, as it is now.
    pub(crate) fn container(&self, slot: Slot) -> Option<ContainerStatus> {
        let facts = self.lock_facts();
        let statuses = if slot.init { &facts.init } else { &facts.containers };
        statuses.get(slot.index).cloned()
    }

    /// Changes the status of a container; the API hears of it at once.
    pub(crate) fn update(&self, slot: Slot, change: impl FnOnce(&mut ContainerStatus)) {
        self.update_facts(|facts| {
            let statuses = if slot.init { &mut facts.init } else { &mut facts.containers };
            if let Some(status) = statuses.get_mut(slot.index) {
                change(status);
            }
            facts.terminal |= self.stop.borrow().is_some();
        });
    }

    fn update_facts(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.lock_facts());
        self.changed.notify_one();
    }

    /// A look at what a container has on this machine, which may be changed.
    pub(crate) fn with_run<T>(&self, slot: Slot, look: impl FnOnce(&mut Run) -> T) -> Option<T> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let runs = if slot.init { &mut runs.init } else { &mut runs.containers };
        runs.get_mut(slot.index).map(look)
    }

    /// The process groups of the containers that run.
    pub(crate) fn groups(&self) -> Vec<Group> {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.init.iter().chain(&runs.containers).filter_map(|run| run.group.clone()).collect()
    }

    /// What events about this pod regard; with `container`, that container of it.
    pub(crate) fn reference(&self, container: Option<(Slot, &str)>) -> ObjectReference {
        let field = |(slot, name): (Slot, &str)| {
            let list = if slot.init { "initContainers" } else { "containers" };
            format!("spec.{list}{{{name}}}")
        };
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()),
            field_path: container.map(field),
            ..ObjectReference::default()
        }
    }

    fn lock_facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every container of the spec with its slot, init containers first.
pub(crate) fn slots(pod: &Pod) -> Vec<(Slot, Container)> {
    let containers = pod.spec.as_ref().map_or(&[][..], |spec| &spec.containers);
    let slots = |init: bool, containers: &[Container]| {
        let numbered = containers.iter().cloned().enumerate();
        numbered.map(|(index, container)| (Slot { init, index }, container)).collect::<Vec<_>>()
    };
    [slots(true, init_containers(pod)), slots(false, containers)].concat()
}

fn init_containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default()
}

/// An init container that goes on running beside the others.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn not_yet(container: &Container, reason: &str) -> ContainerStatus {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message: None };
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(ContainerState { waiting: Some(waiting), ..ContainerState::default() }),
        started: Some(false),
        ..ContainerStatus::default()
    }
}

/// Runs the pod to its end, and returns when its object is gone (or the agent shuts down).
pub(crate) async fn run(cx: Arc<Context>, pod: Arc<PodHandle>) {
    let orders = tokio::spawn(orders::issue(cx.clone(), pod.clone()));
    let phase = pod.pod().status.as_ref().and_then(|status| status.phase.clone());
    // What has ended for good before this agent saw it only waits to be deleted.
    if !matches!(phase.as_deref(), Some("Succeeded" | "Failed")) {
        let writer = Arc::new(write::StatusWriter::new(&cx, &pod));
        let closing = CancellationToken::new();
        let writing = tokio::spawn(write::keep_writing(writer.clone(), closing.clone()));
        run_containers(&cx, &pod).await;
        pod.update_facts(|facts| facts.terminal = true);
        closing.cancel();
        // Should the task have panicked, the status is written here all the same.
        let _ = writing.await;
        if !cx.shutdown.is_cancelled() {
            writer.write().await;
        }
    }
    ordered(&pod).await;
    if !cx.shutdown.is_cancelled() {
        if let Err(error) = tokio::fs::remove_dir_all(&pod.dir).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(pod = pod.name, "removing {}: {error}", pod.dir.display());
        }
        write::delete(&cx, &pod).await;
        tokio::select! {
            () = pod.gone.cancelled() => {}
            () = cx.shutdown.cancelled() => {}
        }
    }
    orders.abort();
}

/// Waits until the pod's containers are to end.
pub(crate) async fn ordered(pod: &PodHandle) {
    // An error would mean that the sender is gone, but the handle holds it.
    let _ = pod.stop.subscribe().wait_for(Option::is_some).await;
}

async fn run_containers(cx: &Arc<Context>, pod: &Arc<PodHandle>) {
    tokio::select! {
        biased;
        () = ordered(pod) => return,
        () = set_up(cx, pod) => {}
    }
    write::publish_ports(cx, pod).await;
    let object = pod.pod();
    let mut sidecars = JoinSet::new();
    let mut containers = JoinSet::new();
    for (slot, container) in slots(&object) {
        let sidecar = is_sidecar(&container);
        let life = container::supervise(cx.clone(), pod.clone(), slot, container);
        if !slot.init {
            containers.spawn(life);
        } else if sidecar {
            sidecars.spawn(life);
            until_started(pod, slot).await;
        } else if life.await != Some(0) {
            // Stopped, or failed with a restart policy of Never.
            break;
        }
    }
    while containers.join_next().await.is_some() {}
    if !sidecars.is_empty() {
        // They end after the others.
        let order = StopOrder { deadline: after(grace(&object)), hooks: true, floor: FLOOR };
        pod.stop.send_if_modified(|given| {
            let first = given.is_none();
            given.get_or_insert(order);
            first
        });
        while sidecars.join_next().await.is_some() {}
    }
}

async fn until_started(pod: &PodHandle, slot: Slot) {
    let started = async {
        while pod.container(slot).is_none_or(|status| status.started != Some(true)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = ordered(pod) => {}
        () = started => {}
    }
}

/// The pod's folder and address, tried until there.
async fn set_up(cx: &Context, pod: &PodHandle) {
    while let Err(error) = try_set_up(cx, pod) {
        let message = format!("Failed to create pod sandbox: {error:#}");
        cx.events.record(pod.reference(None), Severity::Warning, "FailedCreatePodSandBox", message);
        tokio::time::sleep(cx.tuning.create_retry).await;
    }
}

fn try_set_up(cx: &Context, pod: &PodHandle) -> Result<()> {
    let object = pod.pod();
    let volumes = object.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let empty = volumes.into_iter().flatten().filter(|volume| volume.empty_dir.is_some());
    let folders = empty.map(|volume| pod.dir.join("volumes").join(&volume.name));
    for folder in folders.chain([pod.dir.join("home")]) {
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let slots = slots(&object);
    let ports = slots.iter().flat_map(|(_, container)| container.ports.iter().flatten());
    let mut ports: Vec<u16> = ports.filter_map(|port| u16::try_from(port.container_port).ok()).collect();
    ports.sort_unstable();
    ports.dedup();
    let address = cx.addresses.allocate(&ports)?;
    let ip = address.ip;
    // Set once: this is the only caller, and it stops at the first success.
    let _ = pod.address.set(address);
    pod.update_facts(|facts| facts.ip = Some(ip));
    Ok(())
}
