//! Deployments, replica sets, autoscalers, disruption budgets.

use serde_json::{Value, json};

use super::{Columns, age, containers, items, name, number, selector, text};

pub(crate) const DEPLOYMENT: Columns = Columns {
    names: &[
        ("Name", false),
        ("Ready", false),
        ("Up-to-date", false),
        ("Available", false),
        ("Age", false),
        ("Containers", true),
        ("Images", true),
        ("Selector", true),
    ],
    cells: |d| {
        let [names, images] = containers(&d["spec"]["template"]["spec"]);
        vec![
            name(d),
            json!(format!("{}/{}", number(&d["status"]["readyReplicas"]), number(&d["spec"]["replicas"]))),
            json!(number(&d["status"]["updatedReplicas"])),
            json!(number(&d["status"]["availableReplicas"])),
            age(d),
            names,
            images,
            selector(&d["spec"]["selector"]),
        ]
    },
};

pub(crate) const REPLICA_SET: Columns = Columns {
    names: &[
        ("Name", false),
        ("Desired", false),
        ("Current", false),
        ("Ready", false),
        ("Age", false),
        ("Containers", true),
        ("Images", true),
        ("Selector", true),
    ],
    cells: |rs| {
        let [names, images] = containers(&rs["spec"]["template"]["spec"]);
        vec![
            name(rs),
            json!(number(&rs["spec"]["replicas"])),
            json!(number(&rs["status"]["replicas"])),
            json!(number(&rs["status"]["readyReplicas"])),
            age(rs),
            names,
            images,
            selector(&rs["spec"]["selector"]),
        ]
    },
};

pub(crate) const AUTOSCALER: Columns = Columns {
    names: &[
        ("Name", false),
        ("Reference", false),
        ("Targets", false),
        ("MinPods", false),
        ("MaxPods", false),
        ("Replicas", false),
        ("Age", false),
    ],
    cells: |hpa| {
        let target = &hpa["spec"]["scaleTargetRef"];
        vec![
            name(hpa),
            json!(format!("{}/{}", text(target, &["kind"]), text(target, &["name"]))),
            json!(targets(hpa)),
            json!(hpa["spec"]["minReplicas"].as_i64().map_or("<unset>".to_owned(), |n| n.to_string())),
            json!(number(&hpa["spec"]["maxReplicas"])),
            json!(number(&hpa["status"]["currentReplicas"])),
            age(hpa),
        ]
    },
};

/// `cpu: 3%/70%, memory: 12%/80%`; two metrics at most, then how many more.
fn targets(hpa: &Value) -> String {
    let metrics = items(&hpa["spec"]["metrics"]);
    let shown: Vec<String> = metrics
        .iter()
        .take(2)
        .map(|metric| {
            let resource = text(metric, &["resource", "name"]);
            let current = items(&hpa["status"]["currentMetrics"])
                .iter()
                .find(|current| text(current, &["resource", "name"]) == resource)
                .map(|current| &current["resource"]["current"]);
            let target = &metric["resource"]["target"];
            if let Some(percent) = target["averageUtilization"].as_i64() {
                let now = current.and_then(|current| current["averageUtilization"].as_i64());
                let now = now.map_or("<unknown>".to_owned(), |now| format!("{now}%"));
                format!("{resource}: {now}/{percent}%")
            } else {
                let now = current.map_or("", |current| text(current, &["averageValue"]));
                let now = if now.is_empty() { "<unknown>" } else { now };
                format!("{resource}: {now}/{}", text(target, &["averageValue"]))
            }
        })
        .collect();
    match metrics.len() {
        0 => "<none>".to_owned(),
        count if count > 2 => format!("{} + {} more...", shown.join(", "), count - 2),
        _ => shown.join(", "),
    }
}

pub(crate) const DISRUPTION_BUDGET: Columns = Columns {
    names: &[
        ("Name", false),
        ("Min Available", false),
        ("Max Unavailable", false),
        ("Allowed Disruptions", false),
        ("Age", false),
    ],
    cells: |pdb| {
        let show = |value: &Value| match value {
            Value::Null => json!("N/A"),
            Value::String(text) => json!(text),
            other => json!(other.to_string()),
        };
        vec![
            name(pdb),
            show(&pdb["spec"]["minAvailable"]),
            show(&pdb["spec"]["maxUnavailable"]),
            json!(number(&pdb["status"]["disruptionsAllowed"])),
            age(pdb),
        ]
    },
};
