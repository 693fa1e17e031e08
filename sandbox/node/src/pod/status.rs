//! A pod's status, from what its containers do. Pure functions, worded as the kubelet words them.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::address::HOST_IP;

/// What is known of a pod, beside its spec.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) ip: Option<Ipv4Addr>,
    pub(crate) started_at: Option<Timestamp>,
    /// In the order of the spec.
    pub(crate) init: Vec<ContainerStatus>,
    pub(crate) containers: Vec<ContainerStatus>,
    /// It will not run again: deleted, or done for good.
    pub(crate) terminal: bool,
}

/// The status to write; `before` is the one in the API, whose transition times stay where nothing changed, and whose
/// conditions by others are kept.
pub(crate) fn pod_status(pod: &Pod, facts: &Facts, before: Option<&PodStatus>) -> PodStatus {
    let phase = phase(pod, facts);
    let ip = facts.ip.map(|ip| ip.to_string());
    PodStatus {
        conditions: Some(conditions(pod, facts, phase, before)),
        phase: Some(phase.to_owned()),
        observed_generation: pod.metadata.generation,
        host_ip: Some(HOST_IP.to_string()),
        host_ips: Some(vec![HostIP { ip: HOST_IP.to_string() }]),
        pod_ips: ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: ip,
        start_time: facts.started_at.map(Time),
        init_container_statuses: (!facts.init.is_empty()).then(|| facts.init.clone()),
        container_statuses: Some(facts.containers.clone()),
        qos_class: Some(qos_class(pod).to_owned()),
        ..PodStatus::default()
    }
}

fn state(status: &ContainerStatus) -> ContainerState {
    status.state.clone().unwrap_or_default()
}

fn restart_policy(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always")
}

fn exited_zero(status: &ContainerStatus) -> bool {
    state(status).terminated.is_some_and(|terminated| terminated.exit_code == 0)
}

/// Whether init container number `index` has done what the next ones wait for.
fn init_done(pod: &Pod, index: usize, status: &ContainerStatus) -> bool {
    let containers = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_ref());
    let sidecar = containers
        .and_then(|containers| containers.get(index))
        .is_some_and(|container| container.restart_policy.as_deref() == Some("Always"));
    if sidecar { status.started == Some(true) } else { exited_zero(status) }
}

fn incomplete_init(pod: &Pod, facts: &Facts) -> Vec<String> {
    let incomplete = facts.init.iter().enumerate().filter(|(index, status)| !init_done(pod, *index, status));
    incomplete.map(|(_, status)| status.name.clone()).collect()
}

fn phase(pod: &Pod, facts: &Facts) -> &'static str {
    let policy = restart_policy(pod);
    let failed_init = facts.init.iter().any(|status| {
        state(status).terminated.is_some_and(|terminated| terminated.exit_code != 0)
            && (facts.terminal || policy == "Never")
    });
    if failed_init {
        return "Failed";
    }
    if !incomplete_init(pod, facts).is_empty() && !facts.terminal {
        return "Pending";
    }
    let mut running = 0;
    let mut waiting = 0;
    let mut succeeded = 0;
    let mut stopped = 0;
    for status in &facts.containers {
        let state = state(status);
        if state.running.is_some() {
            running += 1;
        } else if let Some(terminated) = state.terminated {
            stopped += 1;
            succeeded += usize::from(terminated.exit_code == 0);
        } else if status.last_state.as_ref().is_some_and(|last| last.terminated.is_some()) {
            stopped += 1;
        } else {
            waiting += 1;
        }
    }
    if facts.terminal && running == 0 {
        return if succeeded == facts.containers.len() { "Succeeded" } else { "Failed" };
    }
    if waiting > 0 {
        "Pending"
    } else if running > 0 || policy == "Always" {
        "Running"
    } else if succeeded == stopped {
        "Succeeded"
    } else if policy == "Never" {
        "Failed"
    } else {
        "Running"
    }
}

fn conditions(pod: &Pod, facts: &Facts, phase: &str, before: Option<&PodStatus>) -> Vec<PodCondition> {
    let finished = matches!(phase, "Succeeded" | "Failed");
    let completed = (finished && phase == "Succeeded").then(|| ("PodCompleted", String::new()));
    let terminated = finished.then(|| ("PodFailed", String::new()));

    let incomplete = incomplete_init(pod, facts);
    let initialized = if incomplete.is_empty() || phase == "Succeeded" {
        Ok(())
    } else {
        let names = incomplete.join(" ");
        Err(("ContainersNotInitialized", format!("containers with incomplete status: [{names}]")))
    };

    let unready: Vec<_> =
        facts.containers.iter().filter(|status| !status.ready).map(|s| s.name.as_str()).collect();
    let containers_ready = if let Some(reason) = completed.or(terminated) {
        Err(reason)
    } else if unready.is_empty() {
        Ok(())
    } else {
        Err(("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))))
    };

    let known =
        |name: &str| before.and_then(|status| status.conditions.iter().flatten().find(|c| c.type_ == name));
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_ref());
    let closed: Vec<_> = gates
        .into_iter()
        .flatten()
        .map(|gate| gate.condition_type.as_str())
        .filter(|name| known(name).is_none_or(|condition| condition.status != "True"))
        .collect();
    let ready = match &containers_ready {
        Ok(()) if !closed.is_empty() => Err((
            "ReadinessGatesNotReady",
            format!(
                "corresponding condition of pod readiness gate {:?} does not exist or is not \"True\".",
                closed[0]
            ),
        )),
        other => other.clone(),
    };
    let has_address = if facts.ip.is_some() { Ok(()) } else { Err(("", String::new())) };

    let own = [
        ("PodReadyToStartContainers", has_address),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Ok(())),
    ];
    let mut conditions = Vec::with_capacity(own.len());
    for (name, outcome) in own {
        let (status, reason, message) = match outcome {
            Ok(()) => ("True", None, None),
            Err((reason, message)) => {
                let some = |text: String| (!text.is_empty()).then_some(text);
                ("False", some(reason.to_owned()), some(message))
            }
        };
        let unchanged = known(name).filter(|condition| condition.status == status);
        let since = unchanged.and_then(|condition| condition.last_transition_time.clone());
        conditions.push(PodCondition {
            type_: name.to_owned(),
            status: status.to_owned(),
            reason,
            message,
            last_transition_time: Some(since.unwrap_or_else(|| Time(whole_seconds(Timestamp::now())))),
            observed_generation: pod.metadata.generation,
            ..PodCondition::default()
        });
    }
    let others = before.into_iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.extend(others.filter(|c| !is_written_by_the_node(&c.type_)).cloned());
    conditions
}

/// Whether the node agent writes this condition.
pub(super) fn is_written_by_the_node(name: &str) -> bool {
    matches!(name, "PodReadyToStartContainers" | "Initialized" | "Ready" | "ContainersReady" | "PodScheduled")
}

/// The API's times have whole seconds; those written must compare equal to what comes back.
pub(crate) fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// The quality of service class by the rules of Kubernetes.
fn qos_class(pod: &Pod) -> &'static str {
    let spec = pod.spec.as_ref();
    let containers =
        spec.into_iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
    let (mut any, mut guaranteed) = (false, true);
    for container in containers {
        let resources = container.resources.clone().unwrap_or_default();
        let limits = resources.limits.unwrap_or_default();
        let requests = resources.requests.unwrap_or_default();
        for name in ["cpu", "memory"] {
            let limit = limits.get(name).and_then(|amount| quantity::value(&amount.0));
            let request = requests.get(name).and_then(|amount| quantity::value(&amount.0));
            any |= limit.or(request).is_some_and(|number| number > 0.0);
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
