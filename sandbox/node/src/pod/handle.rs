//! A pod as the task that runs it and those that ask about it share it.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateWaiting, ContainerStatus, ObjectReference, Pod,
};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::status::{Facts, whole_seconds};
use super::stop::StopOrder;
use crate::address::PodAddress;
use crate::logs::RunLog;

/// The pods of this node, by uid.
#[derive(Clone, Default)]
pub(crate) struct Pods(Arc<Mutex<HashMap<String, Arc<PodHandle>>>>);

impl Pods {
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<PodHandle>>> {
        self.0.lock()
    }

    pub(crate) fn all(&self) -> Vec<Arc<PodHandle>> {
        self.lock().values().cloned().collect()
    }

    /// By name: of two with the same name, the one whose object is still there.
    pub(crate) fn named(&self, namespace: &str, name: &str) -> Option<Arc<PodHandle>> {
        let pods = self.lock();
        let mut found: Vec<_> =
            pods.values().filter(|pod| pod.namespace == namespace && pod.name == name).cloned().collect();
        found.sort_by_key(|pod| pod.gone.is_cancelled());
        found.into_iter().next()
    }
}

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
    pub(super) address: OnceLock<PodAddress>,
    facts: Mutex<Facts>,
    runs: Mutex<Runs>,
    pub(super) changed: Notify,
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
    /// When it began.
    pub(crate) since: Instant,
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

    pub(super) fn update_facts(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.lock_facts());
        self.changed.notify_one();
    }

    /// A look at what a container has on this machine, which may be changed.
    pub(crate) fn with_run<T>(&self, slot: Slot, look: impl FnOnce(&mut Run) -> T) -> Option<T> {
        let mut runs = self.runs.lock();
        let runs = if slot.init { &mut runs.init } else { &mut runs.containers };
        runs.get_mut(slot.index).map(look)
    }

    /// Waits until its containers are to end.
    pub(crate) async fn ordered(&self) {
        // An error would mean that the sender is gone, but the handle holds it.
        let _ = self.stop.subscribe().wait_for(Option::is_some).await;
    }

    /// The process groups of the containers that run.
    pub(crate) fn groups(&self) -> Vec<Group> {
        let runs = self.runs.lock();
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

    pub(super) fn lock_facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock()
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
