//! Writing a pod's status into the API, and at its end taking the pod out of it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use sandbox_contract::PORTS_ANNOTATION;
use serde_json::json;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::handle::PodHandle;
use super::status::{is_written_by_the_node, pod_status};
use crate::context::Context;

/// Before a write that failed is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// Writes one pod's status, one write at a time.
pub(super) struct StatusWriter {
    pod: Arc<PodHandle>,
    api: Api<Pod>,
    shutdown: CancellationToken,
    /// What the API has, as far as we wrote it.
    written: Mutex<Option<PodStatus>>,
}

impl StatusWriter {
    pub(super) fn new(cx: &Context, pod: &Arc<PodHandle>) -> StatusWriter {
        let api = Api::namespaced(cx.client.clone(), &pod.namespace);
        StatusWriter { pod: pod.clone(), api, shutdown: cx.shutdown.clone(), written: Mutex::new(None) }
    }

    /// Writes the status if it has changed; tries until the API has it, the pod is gone, or the agent shuts down.
    pub(super) async fn write(&self) {
        let mut written = self.written.lock().await;
        loop {
            let object = self.pod.pod();
            let facts = self.pod.lock_facts().clone();
            let before = merged(object.status.as_ref(), written.as_ref());
            let status = pod_status(&object, &facts, before.as_ref());
            if written.as_ref() == Some(&status) || self.pod.gone.is_cancelled() {
                return;
            }
            // The uid makes it a conflict if another pod has taken the name.
            let patch = json!({ "metadata": { "uid": self.pod.uid }, "status": status });
            match self.api.patch_status(&self.pod.name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => {
                    *written = Some(status);
                    return;
                }
                Err(kube::Error::Api(answer)) if answer.code == 404 => return,
                Err(error) => tracing::debug!(pod = self.pod.name, "writing the status: {error}"),
            }
            if self.shutdown.is_cancelled() {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Conditions by others as the API shows them, the node's as it wrote them last.
fn merged(shown: Option<&PodStatus>, written: Option<&PodStatus>) -> Option<PodStatus> {
    let (Some(shown), Some(written)) = (shown, written) else { return written.or(shown).cloned() };
    let others =
        shown.conditions.iter().flatten().filter(|condition| !is_written_by_the_node(&condition.type_));
    let own =
        written.conditions.iter().flatten().filter(|condition| is_written_by_the_node(&condition.type_));
    Some(PodStatus { conditions: Some(own.chain(others).cloned().collect()), ..written.clone() })
}

/// Writes whatever changes, until `closing`.
pub(super) async fn keep_writing(writer: Arc<StatusWriter>, closing: CancellationToken) {
    let mut object = writer.pod.object.subscribe();
    loop {
        object.mark_unchanged();
        writer.write().await;
        tokio::select! {
            biased;
            () = closing.cancelled() => return,
            () = writer.pod.changed.notified() => {}
            // A readiness gate may have been opened, the generation raised.
            _ = object.changed() => {}
        }
    }
}

/// Says in the pod's annotations where its ports really are. Where each pod has its own address there is nothing to
/// say; elsewhere who sends requests to the pod's address must look here for the port.
pub(super) async fn publish_ports(cx: &Context, pod: &PodHandle) {
    let remapped = pod.address().map(|address| &address.remapped).filter(|ports| !ports.is_empty());
    let Some(remapped) = remapped.and_then(|ports| serde_json::to_string(ports).ok()) else { return };
    let api: Api<Pod> = Api::namespaced(cx.client.clone(), &pod.namespace);
    let patch = json!({ "metadata": { "uid": pod.uid, "annotations": { PORTS_ANNOTATION: remapped } } });
    if let Err(error) = api.patch(&pod.name, &PatchParams::default(), &Patch::Merge(patch)).await {
        tracing::warn!(pod = pod.name, "publishing the pod's ports: {error}");
    }
}

/// Deletes the pod's object, now that nothing of it runs.
pub(super) async fn delete(cx: &Context, pod: &PodHandle) {
    let api: Api<Pod> = Api::namespaced(cx.client.clone(), &pod.namespace);
    let preconditions = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(preconditions),
        ..DeleteParams::default()
    };
    while !pod.gone.is_cancelled() && !cx.shutdown.is_cancelled() {
        match api.delete(&pod.name, &params).await {
            Ok(_) => return,
            // Gone, or the name is another pod's by now.
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => return,
            Err(error) => tracing::debug!(pod = pod.name, "deleting the pod: {error}"),
        }
        tokio::time::sleep(RETRY).await;
    }
}
