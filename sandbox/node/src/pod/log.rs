//! Which run of which container a log request means; refusals in the words of Kubernetes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ContainerStatus;
use sandbox_contract::{LogError, LogRequest, LogStream};

use super::handle::{PodHandle, Slot, slots};
use crate::logs::{RunLog, read};

/// The log of a container of `pod`.
pub(crate) async fn of_pod(pod: &PodHandle, request: &LogRequest) -> Result<LogStream, LogError> {
    let log = find(pod, request)?;
    read(&log, request).await.map_err(|error| {
        LogError::BadRequest(format!("failed to open the log file {}: {error}", log.path().display()))
    })
}

fn find(pod: &PodHandle, request: &LogRequest) -> Result<Arc<RunLog>, LogError> {
    let object = pod.pod();
    let slots = slots(&object);
    let name = &request.pod;
    let (slot, container) = match &request.container {
        Some(wanted) => {
            let found = slots.iter().find(|(_, container)| container.name == *wanted);
            found.ok_or_else(|| {
                LogError::BadRequest(format!("container {wanted} is not valid for pod {name}"))
            })?
        }
        None => {
            let mut regular = slots.iter().filter(|(slot, _)| !slot.init);
            match (regular.next(), regular.next()) {
                (Some(only), None) => only,
                _ => return Err(choose(name, &slots)),
            }
        }
    };
    let (slot, container) = (*slot, &container.name);
    let status = pod.container(slot).unwrap_or_default();
    let missing = |what: String| {
        LogError::BadRequest(format!("{what} container {container:?} in pod {name:?} not found"))
    };
    let logs = pod.with_run(slot, |run| run.logs.clone()).unwrap_or_default();
    let is_running = status.state.as_ref().is_some_and(|state| state.running.is_some());
    let has_ended = status.state.as_ref().is_some_and(|state| state.terminated.is_some());
    if request.previous {
        let ended_before = status.last_state.as_ref().is_some_and(|last| last.terminated.is_some());
        // While it waits for its restart, the last run that ended is the newest log.
        let index =
            if is_running || has_ended { logs.len().checked_sub(2) } else { logs.len().checked_sub(1) };
        let log = index.filter(|_| ended_before).and_then(|index| logs.get(index));
        return log.cloned().ok_or_else(|| missing("previous terminated".to_owned()));
    }
    logs.back().cloned().ok_or_else(|| waiting(name, container, &status))
}

fn choose(pod: &str, slots: &[(Slot, k8s_openapi::api::core::v1::Container)]) -> LogError {
    let names = |init: bool| {
        let names =
            slots.iter().filter(|(slot, _)| slot.init == init).map(|(_, container)| container.name.as_str());
        names.collect::<Vec<_>>().join(" ")
    };
    let mut message =
        format!("a container name must be specified for pod {pod}, choose one of: [{}]", names(false));
    if slots.iter().any(|(slot, _)| slot.init) {
        message.push_str(&format!(" or one of the init containers: [{}]", names(true)));
    }
    LogError::BadRequest(message)
}

fn waiting(pod: &str, container: &str, status: &ContainerStatus) -> LogError {
    let reason = status.state.as_ref().and_then(|state| state.waiting.as_ref()?.reason.clone());
    let what = match reason.as_deref() {
        Some("ErrImagePull") => "image can't be pulled",
        Some("ImagePullBackOff") => "trying and failing to pull image",
        Some(reason) => reason,
        None => "ContainerCreating",
    };
    LogError::BadRequest(format!("container {container:?} in pod {pod:?} is waiting to start: {what}"))
}
