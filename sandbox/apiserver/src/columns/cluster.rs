//! Nodes, namespaces, configuration, events, leases and the rest.

use serde_json::{Value, json};

use super::{Columns, age, items, name, number, or_none, text};
use crate::time;

pub(crate) const OTHER: Columns =
    Columns { names: &[("Name", false), ("Age", false)], cells: |object| vec![name(object), age(object)] };

pub(crate) const NODE: Columns = Columns {
    names: &[
        ("Name", false),
        ("Status", false),
        ("Roles", false),
        ("Age", false),
        ("Version", false),
        ("Internal-IP", true),
        ("External-IP", true),
        ("OS-Image", true),
        ("Kernel-Version", true),
        ("Container-Runtime", true),
    ],
    cells: |node| {
        let ready = items(&node["status"]["conditions"]).iter().find(|c| c["type"] == "Ready");
        let mut status = match ready.map(|c| text(c, &["status"])) {
            Some("True") => "Ready".to_owned(),
            Some(_) => "NotReady".to_owned(),
            None => "Unknown".to_owned(),
        };
        if node["spec"]["unschedulable"] == true {
            status.push_str(",SchedulingDisabled");
        }
        let roles: Vec<&str> = node["metadata"]["labels"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(label, _)| label.strip_prefix("node-role.kubernetes.io/"))
            .collect();
        let address = |kind: &str| {
            let found = items(&node["status"]["addresses"]).iter().find(|address| address["type"] == *kind);
            or_none(found.map_or("", |address| text(address, &["address"])))
        };
        let info = |field: &str| {
            let value = text(node, &["status", "nodeInfo", field]);
            json!(if value.is_empty() { "<unknown>" } else { value })
        };
        vec![
            name(node),
            json!(status),
            or_none(&roles.join(",")),
            age(node),
            json!(text(node, &["status", "nodeInfo", "kubeletVersion"])),
            address("InternalIP"),
            address("ExternalIP"),
            info("osImage"),
            info("kernelVersion"),
            info("containerRuntimeVersion"),
        ]
    },
};

pub(crate) const NAMESPACE: Columns = Columns {
    names: &[("Name", false), ("Status", false), ("Age", false)],
    cells: |namespace| vec![name(namespace), json!(text(namespace, &["status", "phase"])), age(namespace)],
};

fn entries(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

pub(crate) const CONFIG_MAP: Columns = Columns {
    names: &[("Name", false), ("Data", false), ("Age", false)],
    cells: |map| vec![name(map), json!(entries(&map["data"]) + entries(&map["binaryData"])), age(map)],
};

pub(crate) const SECRET: Columns = Columns {
    names: &[("Name", false), ("Type", false), ("Data", false), ("Age", false)],
    cells: |secret| {
        vec![name(secret), json!(text(secret, &["type"])), json!(entries(&secret["data"])), age(secret)]
    },
};

pub(crate) const SERVICE_ACCOUNT: Columns = Columns {
    names: &[("Name", false), ("Secrets", false), ("Age", false)],
    cells: |account| vec![name(account), json!(items(&account["secrets"]).len()), age(account)],
};

pub(crate) const EVENT: Columns = Columns {
    names: &[
        ("Last Seen", false),
        ("Type", false),
        ("Reason", false),
        ("Object", false),
        ("Subobject", true),
        ("Source", true),
        ("Message", false),
        ("First Seen", true),
        ("Count", true),
        ("Name", true),
    ],
    cells: |event| {
        let times = |fields: &[&[&str]]| {
            let found = fields.iter().map(|path| text(event, path)).find(|at| !at.is_empty());
            json!(time::age(found.unwrap_or("")))
        };
        let object = &event["involvedObject"];
        let source = match (text(event, &["source", "component"]), text(event, &["source", "host"])) {
            ("", _) => text(event, &["reportingComponent"]).to_owned(),
            (component, "") => component.to_owned(),
            (component, host) => format!("{component}, {host}"),
        };
        let count = number(&event["series"]["count"]).max(number(&event["count"])).max(1);
        vec![
            times(&[&["series", "lastObservedTime"], &["lastTimestamp"], &["eventTime"]]),
            json!(text(event, &["type"])),
            json!(text(event, &["reason"])),
            json!(format!("{}/{}", text(object, &["kind"]).to_lowercase(), text(object, &["name"]))),
            json!(text(object, &["fieldPath"])),
            json!(source),
            json!(text(event, &["message"]).trim()),
            times(&[&["firstTimestamp"], &["eventTime"]]),
            json!(count),
            name(event),
        ]
    },
};

pub(crate) const LEASE: Columns = Columns {
    names: &[("Name", false), ("Holder", false), ("Age", false)],
    cells: |lease| vec![name(lease), json!(text(lease, &["spec", "holderIdentity"])), age(lease)],
};

pub(crate) const API_SERVICE: Columns = Columns {
    names: &[("Name", false), ("Service", false), ("Available", false), ("Age", false)],
    cells: |service| {
        let reference = &service["spec"]["service"];
        let backend = match text(reference, &["name"]) {
            "" => "Local".to_owned(),
            name => format!("{}/{name}", text(reference, &["namespace"])),
        };
        let available = items(&service["status"]["conditions"]).iter().find(|c| c["type"] == "Available");
        let available = match available.map(|c| (text(c, &["status"]), text(c, &["reason"]))) {
            Some(("True", _)) => "True".to_owned(),
            Some((status, reason)) => format!("{status} ({reason})"),
            None => "Unknown".to_owned(),
        };
        vec![name(service), json!(backend), json!(available), age(service)]
    },
};

pub(crate) const WEBHOOKS: Columns = Columns {
    names: &[("Name", false), ("Webhooks", false), ("Age", false)],
    cells: |configuration| {
        vec![name(configuration), json!(items(&configuration["webhooks"]).len()), age(configuration)]
    },
};
