//! One pod: from its binding to this node until its object is gone.

pub(crate) mod handle;
pub(crate) mod log;
mod orders;
pub(crate) mod status;
pub(crate) mod stop;
mod write;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use sandbox_events::Severity;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::container;
use crate::context::{Context, KUBELET};
use handle::{PodHandle, Slot, is_sidecar, slots};
use stop::{FLOOR, StopOrder, after, grace};

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
        if let Some(address) = pod.address() {
            cx.faults.ended(ports(&pod.pod()).into_iter().map(|port| address.dial(port))).await;
        }
        pod.update_facts(|facts| facts.terminal = true);
        closing.cancel();
        // Should the task have panicked, the status is written here all the same.
        let _ = writing.await;
        if !cx.shutdown.is_cancelled() {
            writer.write().await;
        }
    }
    pod.ordered().await;
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

async fn run_containers(cx: &Arc<Context>, pod: &Arc<PodHandle>) {
    tokio::select! {
        biased;
        () = pod.ordered() => return,
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
        () = pod.ordered() => {}
        () = started => {}
    }
}

/// The pod's folder and address, tried until there.
async fn set_up(cx: &Context, pod: &PodHandle) {
    while let Err(error) = try_set_up(cx, pod) {
        let message = format!("Failed to create pod sandbox: {error:#}");
        cx.events.record(KUBELET, pod.reference(None), Severity::Warning, "FailedCreatePodSandBox", message);
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
    let address = cx.addresses.allocate(&ports(&object))?;
    let ip = address.ip;
    // Set once: this is the only caller, and it stops at the first success.
    let _ = pod.address.set(address);
    pod.update_facts(|facts| facts.ip = Some(ip));
    Ok(())
}

/// The ports of its containers.
fn ports(pod: &Pod) -> Vec<u16> {
    let slots = slots(pod);
    let ports = slots.iter().flat_map(|(_, container)| container.ports.iter().flatten());
    let mut ports: Vec<u16> = ports.filter_map(|port| u16::try_from(port.container_port).ok()).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}
