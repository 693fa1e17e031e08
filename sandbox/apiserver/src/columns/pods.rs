//! Pods.

use serde_json::{Value, json};

use super::{Columns, age, items, name, number, or_none, text};
use crate::time;

pub(crate) const POD: Columns = Columns {
    names: &[
        ("Name", false),
        ("Ready", false),
        ("Status", false),
        ("Restarts", false),
        ("Age", false),
        ("IP", true),
        ("Node", true),
        ("Nominated Node", true),
        ("Readiness Gates", true),
    ],
    cells: |pod| {
        let containers = Containers::of(pod);
        vec![
            name(pod),
            json!(format!("{}/{}", containers.ready, containers.total)),
            json!(containers.reason),
            json!(containers.restarts()),
            age(pod),
            or_none(text(pod, &["status", "podIP"])),
            or_none(text(pod, &["spec", "nodeName"])),
            or_none(text(pod, &["status", "nominatedNodeName"])),
            or_none(&readiness_gates(pod)),
        ]
    },
};

/// The condition of the row of a pod that has ended.
pub(crate) fn completed(pod: &Value) -> Option<Value> {
    let phase = text(pod, &["status", "phase"]);
    let message = match phase {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": phase, "message": message}))
}

/// What the containers of a pod come to.
struct Containers<'p> {
    ready: usize,
    total: usize,
    /// The one word of the STATUS column.
    reason: String,
    restart_count: i64,
    /// When the last container that was restarted had ended; empty where none was.
    last_end: &'p str,
}

impl<'p> Containers<'p> {
    fn of(pod: &'p Value) -> Containers<'p> {
        let (spec, status) = (&pod["spec"], &pod["status"]);
        let gated = items(&status["conditions"])
            .iter()
            .any(|condition| condition["type"] == "PodScheduled" && condition["reason"] == "SchedulingGated");
        let reason = match text(status, &["reason"]) {
            _ if gated => "SchedulingGated",
            "" => text(status, &["phase"]),
            reason => reason,
        };
        let sidecars = items(&spec["initContainers"]).iter().filter(|container| is_sidecar(container));
        let mut found = Containers {
            ready: 0,
            total: items(&spec["containers"]).len() + sidecars.count(),
            reason: reason.to_owned(),
            restart_count: 0,
            last_end: "",
        };
        let initializing = found.look_at_init(pod);
        if !initializing || condition(status, "Initialized") {
            found.look_at_main(pod);
        }
        if pod["metadata"].get("deletionTimestamp").is_some() {
            if text(status, &["reason"]) == "NodeLost" {
                found.reason = "Unknown".to_owned();
            } else if !["Succeeded", "Failed"].contains(&text(status, &["phase"])) {
                found.reason = "Terminating".to_owned();
            }
        }
        found
    }

    /// Those that run before the others, and the sidecars that go on beside them. Is one of them still waited for?
    fn look_at_init(&mut self, pod: &'p Value) -> bool {
        let init = items(&pod["spec"]["initContainers"]);
        for (index, status) in items(&pod["status"]["initContainerStatuses"]).iter().enumerate() {
            self.count_restarts(status);
            let state = &status["state"];
            let sidecar =
                init.iter().any(|container| container["name"] == status["name"] && is_sidecar(container));
            let terminated = state.get("terminated");
            if terminated.is_some_and(|terminated| number(&terminated["exitCode"]) == 0) {
                continue;
            }
            if sidecar && status["started"] == true {
                self.ready += usize::from(status["ready"] == true);
                continue;
            }
            self.reason = match (terminated, text(state, &["waiting", "reason"])) {
                (Some(terminated), _) => ended(terminated, "Init:"),
                (None, "" | "PodInitializing") => format!("Init:{index}/{}", init.len()),
                (None, waiting) => format!("Init:{waiting}"),
            };
            return true;
        }
        false
    }

    fn look_at_main(&mut self, pod: &'p Value) {
        let status = &pod["status"];
        // Of the init containers only the sidecars can restart from now on.
        (self.restart_count, self.last_end) = (0, "");
        for sidecar in items(&pod["spec"]["initContainers"]).iter().filter(|container| is_sidecar(container))
        {
            let statuses = items(&status["initContainerStatuses"]).iter();
            statuses
                .filter(|status| status["name"] == sidecar["name"])
                .for_each(|status| self.count_restarts(status));
        }
        let (mut running, mut error) = (false, None);
        for container in items(&status["containerStatuses"]).iter().rev() {
            self.count_restarts(container);
            let state = &container["state"];
            let waiting = text(state, &["waiting", "reason"]);
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if let Some(terminated) = state.get("terminated") {
                self.reason = ended(terminated, "");
                if number(&terminated["exitCode"]) != 0 {
                    error = Some(self.reason.clone());
                }
            } else if container["ready"] == true && state.get("running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" {
            self.reason = match (running, error) {
                (true, _) if condition(status, "Ready") => "Running".to_owned(),
                (_, Some(error)) => error,
                (true, None) => "NotReady".to_owned(),
                (false, None) => return,
            };
        }
    }

    fn count_restarts(&mut self, status: &'p Value) {
        self.restart_count += number(&status["restartCount"]);
        self.last_end = self.last_end.max(text(status, &["lastState", "terminated", "finishedAt"]));
    }

    /// `3 (5m ago)`.
    fn restarts(&self) -> String {
        match (self.restart_count, self.last_end) {
            (count @ 1.., at) if !at.is_empty() => format!("{count} ({} ago)", time::age(at)),
            (count, _) => count.to_string(),
        }
    }
}

/// An init container that goes on running beside the others.
fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn condition(status: &Value, name: &str) -> bool {
    items(&status["conditions"])
        .iter()
        .any(|condition| condition["type"] == name && condition["status"] == "True")
}

/// `1/2`: how many of the conditions that a pod asks for are true.
fn readiness_gates(pod: &Value) -> String {
    let gates = items(&pod["spec"]["readinessGates"]);
    let open = gates.iter().filter(|gate| condition(&pod["status"], text(gate, &["conditionType"]))).count();
    if gates.is_empty() { String::new() } else { format!("{open}/{}", gates.len()) }
}

fn ended(terminated: &Value, prefix: &str) -> String {
    match (text(terminated, &["reason"]), number(&terminated["signal"])) {
        ("", 0) => format!("{prefix}ExitCode:{}", number(&terminated["exitCode"])),
        ("", signal) => format!("{prefix}Signal:{signal}"),
        (reason, _) => format!("{prefix}{reason}"),
    }
}

/// A hundred years, in seconds.
const LONGEST_GRACE: i64 = 100 * 365 * 24 * 60 * 60;

/// A pod gets its grace unless it never ran or has ended.
pub(crate) fn grace(pod: &Value, asked: Option<i64>) -> i64 {
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if ended || pod["spec"]["nodeName"].as_str().unwrap_or("").is_empty() {
        return 0;
    }
    let grace = asked.or(pod["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30);
    // Kubernetes takes a negative one for a second; a far one would be no time that can be written.
    if grace < 0 { 1 } else { grace.min(LONGEST_GRACE) }
}
