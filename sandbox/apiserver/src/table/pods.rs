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
        let statuses = items(&pod["status"]["containerStatuses"]);
        let ready = statuses
            .iter()
            .filter(|status| status["ready"] == true && status["state"].get("running").is_some());
        let total = items(&pod["spec"]["containers"]).len();
        vec![
            name(pod),
            json!(format!("{}/{total}", ready.count())),
            json!(reason(pod)),
            json!(restarts(pod)),
            age(pod),
            or_none(text(pod, &["status", "podIP"])),
            or_none(text(pod, &["spec", "nodeName"])),
            or_none(text(pod, &["status", "nominatedNodeName"])),
            json!("<none>"),
        ]
    },
};

/// The one word of the STATUS column.
fn reason(pod: &Value) -> String {
    let status = &pod["status"];
    let mut reason = match text(status, &["reason"]) {
        "" => text(status, &["phase"]).to_owned(),
        reason => reason.to_owned(),
    };
    if let Some(waiting) = init_reason(pod) {
        reason = waiting;
    } else {
        let mut running = false;
        for container in items(&status["containerStatuses"]).iter().rev() {
            let state = &container["state"];
            let waiting = text(state, &["waiting", "reason"]);
            if !waiting.is_empty() {
                reason = waiting.to_owned();
            } else if state.get("terminated").is_some() {
                reason = ended(&state["terminated"], "");
            } else if container["ready"] == true && state.get("running").is_some() {
                running = true;
            }
        }
        if reason == "Completed" && running {
            let ready =
                items(&status["conditions"]).iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
            reason = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }
    if pod["metadata"].get("deletionTimestamp").is_some() {
        let lost = text(status, &["reason"]) == "NodeLost";
        return if lost { "Unknown" } else { "Terminating" }.to_owned();
    }
    reason
}

/// `Init:0/1` and the like while init containers run.
fn init_reason(pod: &Value) -> Option<String> {
    let total = items(&pod["spec"]["initContainers"]).len();
    for (index, container) in items(&pod["status"]["initContainerStatuses"]).iter().enumerate() {
        let state = &container["state"];
        if let Some(terminated) = state.get("terminated") {
            if number(&terminated["exitCode"]) == 0 {
                continue;
            }
            return Some(ended(terminated, "Init:"));
        }
        let waiting = text(state, &["waiting", "reason"]);
        return Some(match waiting {
            "" | "PodInitializing" => format!("Init:{index}/{total}"),
            other => format!("Init:{other}"),
        });
    }
    None
}

fn ended(terminated: &Value, prefix: &str) -> String {
    match (text(terminated, &["reason"]), number(&terminated["signal"])) {
        ("", 0) => format!("{prefix}ExitCode:{}", number(&terminated["exitCode"])),
        ("", signal) => format!("{prefix}Signal:{signal}"),
        (reason, _) => format!("{prefix}{reason}"),
    }
}

/// `3 (5m ago)`.
fn restarts(pod: &Value) -> String {
    let statuses = items(&pod["status"]["containerStatuses"]);
    let count: i64 = statuses.iter().map(|status| number(&status["restartCount"])).sum();
    let last = statuses
        .iter()
        .map(|status| text(status, &["lastState", "terminated", "finishedAt"]))
        .max()
        .filter(|at| !at.is_empty());
    match last {
        Some(at) if count > 0 => format!("{count} ({} ago)", time::age(at)),
        _ => count.to_string(),
    }
}
