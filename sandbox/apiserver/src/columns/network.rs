//! Services, endpoints, ingresses, network policies.

use serde_json::{Value, json};

use super::{Columns, age, items, name, or_none, selector, text};

pub(crate) const SERVICE: Columns = Columns {
    names: &[
        ("Name", false),
        ("Type", false),
        ("Cluster-IP", false),
        ("External-IP", false),
        ("Port(s)", false),
        ("Age", false),
        ("Selector", true),
    ],
    cells: |service| {
        let spec = &service["spec"];
        let addresses = load_balancer(service);
        let external = match text(spec, &["type"]) {
            "ExternalName" => text(spec, &["externalName"]).to_owned(),
            "LoadBalancer" if addresses.is_empty() => "<pending>".to_owned(),
            _ if addresses.is_empty() => "<none>".to_owned(),
            _ => addresses,
        };
        let ports: Vec<String> = items(&spec["ports"])
            .iter()
            .map(|port| match port["nodePort"].as_i64() {
                Some(node) => format!("{}:{node}/{}", port["port"], text(port, &["protocol"])),
                None => format!("{}/{}", port["port"], text(port, &["protocol"])),
            })
            .collect();
        vec![
            name(service),
            json!(text(spec, &["type"])),
            or_none(text(spec, &["clusterIP"])),
            json!(external),
            or_none(&ports.join(",")),
            age(service),
            selector(&spec["selector"]),
        ]
    },
};

fn load_balancer(object: &Value) -> String {
    items(&object["status"]["loadBalancer"]["ingress"])
        .iter()
        .map(|entry| match text(entry, &["ip"]) {
            "" => text(entry, &["hostname"]),
            ip => ip,
        })
        .collect::<Vec<_>>()
        .join(",")
}

pub(crate) const ENDPOINTS: Columns = Columns {
    names: &[("Name", false), ("Endpoints", false), ("Age", false)],
    cells: |endpoints| {
        let mut all = Vec::new();
        for subset in items(&endpoints["subsets"]) {
            for port in items(&subset["ports"]) {
                for address in items(&subset["addresses"]) {
                    all.push(format!("{}:{}", text(address, &["ip"]), port["port"]));
                }
            }
        }
        vec![name(endpoints), or_none(&first_few(&all)), age(endpoints)]
    },
};

fn first_few(all: &[String]) -> String {
    match all.len() {
        0..=3 => all.join(","),
        count => format!("{} + {} more...", all[..3].join(","), count - 3),
    }
}

pub(crate) const ENDPOINT_SLICE: Columns = Columns {
    names: &[("Name", false), ("AddressType", false), ("Ports", false), ("Endpoints", false), ("Age", false)],
    cells: |slice| {
        let ports: Vec<String> = items(&slice["ports"]).iter().map(|port| port["port"].to_string()).collect();
        let addresses: Vec<String> = items(&slice["endpoints"])
            .iter()
            .flat_map(|endpoint| items(&endpoint["addresses"]))
            .filter_map(|address| address.as_str().map(str::to_owned))
            .collect();
        let shown =
            |list: &[String]| json!(if list.is_empty() { "<unset>".to_owned() } else { first_few(list) });
        vec![name(slice), json!(text(slice, &["addressType"])), shown(&ports), shown(&addresses), age(slice)]
    },
};

pub(crate) const INGRESS: Columns = Columns {
    names: &[
        ("Name", false),
        ("Class", false),
        ("Hosts", false),
        ("Address", false),
        ("Ports", false),
        ("Age", false),
    ],
    cells: |ingress| {
        let spec = &ingress["spec"];
        let hosts: Vec<String> = items(&spec["rules"])
            .iter()
            .map(|rule| match text(rule, &["host"]) {
                "" => "*".to_owned(),
                host => host.to_owned(),
            })
            .collect();
        let hosts = if hosts.is_empty() { "*".to_owned() } else { first_few(&hosts) };
        vec![
            name(ingress),
            or_none(text(spec, &["ingressClassName"])),
            json!(hosts),
            json!(load_balancer(ingress)),
            json!(if items(&spec["tls"]).is_empty() { "80" } else { "80, 443" }),
            age(ingress),
        ]
    },
};

pub(crate) const INGRESS_CLASS: Columns = Columns {
    names: &[("Name", false), ("Controller", false), ("Parameters", false), ("Age", false)],
    cells: |class| {
        let parameters = &class["spec"]["parameters"];
        let shown = match (text(parameters, &["kind"]), text(parameters, &["name"])) {
            ("", _) => String::new(),
            (kind, name) => format!("{kind}/{name}"),
        };
        vec![name(class), json!(text(class, &["spec", "controller"])), or_none(&shown), age(class)]
    },
};

pub(crate) const NETWORK_POLICY: Columns = Columns {
    names: &[("Name", false), ("Pod-Selector", false), ("Age", false)],
    cells: |policy| vec![name(policy), selector(&policy["spec"]["podSelector"]), age(policy)],
};
