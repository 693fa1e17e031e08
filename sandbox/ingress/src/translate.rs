//! From API objects to the routing table.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressBackend, IngressClass, ServiceBackendPort};
use kube::ResourceExt as _;
use sandbox_proxy::route::{Backend, Location, PathKind, Settings, Table};

/// The annotation that named the class before `spec.ingressClassName` did.
const OLD_CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const ANNOTATIONS: &str = "nginx.ingress.kubernetes.io/";
/// What of ingress-nginx's annotations is honoured.
const HONOURED: [&str; 5] = [
    "proxy-body-size",
    "proxy-connect-timeout",
    "proxy-read-timeout",
    "proxy-send-timeout",
    "proxy-request-buffering",
];

/// The objects that routes are made of.
#[derive(Debug, Default, Clone)]
pub(crate) struct Objects {
    pub(crate) ingresses: Vec<Arc<Ingress>>,
    pub(crate) classes: Vec<Arc<IngressClass>>,
    pub(crate) services: Vec<Arc<Service>>,
    pub(crate) slices: Vec<Arc<EndpointSlice>>,
}

impl Objects {
    /// The Ingresses that a controller of this name serves, oldest first: of two that claim a path the older has it.
    pub(crate) fn served_by(&self, controller: &str) -> Vec<&Arc<Ingress>> {
        let mut served: Vec<_> =
            self.ingresses.iter().filter(|ingress| is_served(ingress, &self.classes, controller)).collect();
        served.sort_by_key(|i| (i.creation_timestamp().map(|t| t.0), i.namespace(), i.name_any()));
        served
    }
}

/// Whether the Ingress is of a class of this controller. One without any class is, too, as in minikube's addon, which
/// watches Ingresses without class and makes `nginx` the default class.
pub(crate) fn is_served(ingress: &Ingress, classes: &[Arc<IngressClass>], controller: &str) -> bool {
    if ingress.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let is_served_here = |class: &IngressClass| {
        class.spec.as_ref().and_then(|spec| spec.controller.as_deref()) == Some(controller)
    };
    match ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref()) {
        Some(name) => classes.iter().any(|class| class.name_any() == name && is_served_here(class)),
        None => ingress.annotations().get(OLD_CLASS_ANNOTATION).is_none_or(|class| class == "nginx"),
    }
}

/// Each path of an Ingress: host, path, kind, backend. A rule's host without a path for `/` falls back to the Ingress's
/// default backend, which without any rule serves every host.
pub(crate) fn paths(ingress: &Ingress) -> Vec<(String, String, PathKind, &IngressBackend)> {
    let Some(spec) = &ingress.spec else { return Vec::new() };
    let mut found = Vec::new();
    for rule in spec.rules.iter().flatten() {
        let host = rule.host.clone().unwrap_or_default();
        for path in rule.http.iter().flat_map(|http| &http.paths) {
            let kind = match path.path_type.as_str() {
                "Exact" => PathKind::Exact,
                "Prefix" => PathKind::Prefix,
                _ => PathKind::ImplementationSpecific,
            };
            let text = path.path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".into());
            found.push((host.clone(), text, kind, &path.backend));
        }
    }
    if let Some(backend) = &spec.default_backend {
        let mut hosts: Vec<String> =
            spec.rules.iter().flatten().map(|rule| rule.host.clone().unwrap_or_default()).collect();
        if hosts.is_empty() {
            hosts.push(String::new());
        }
        hosts.dedup();
        for host in hosts {
            if !found.iter().any(|(other, path, ..)| *other == host && path == "/") {
                found.push((host, "/".into(), PathKind::Prefix, backend));
            }
        }
    }
    found
}

/// Builds the table. `backends` is what the last one was built with: a backend that is still there is kept and gets
/// its endpoints of now; one that no route needs any more is removed.
pub(crate) fn table(
    objects: &Objects,
    controller: &str,
    backends: &mut HashMap<String, Arc<Backend>>,
) -> Table {
    let mut table = Table::default();
    let mut used = HashMap::new();
    for ingress in objects.served_by(controller) {
        let namespace = ingress.namespace().unwrap_or_default();
        let settings = Arc::new(settings(ingress));
        for (host, path, kind, target) in paths(ingress) {
            let Some(target) = &target.service else { continue };
            let port = target.port.clone().unwrap_or_default();
            let written =
                port.name.clone().or_else(|| port.number.map(|n| n.to_string())).unwrap_or_default();
            let name = format!("{namespace}-{}-{written}", target.name);
            let backend = used.entry(name.clone()).or_insert_with(|| {
                let endpoints = endpoints(objects, &namespace, &target.name, &port);
                let backend =
                    backends.remove(&name).unwrap_or_else(|| Backend::new(name.as_str(), Vec::new()));
                if backend.endpoints() != endpoints {
                    tracing::info!("upstream {name}: {endpoints:?}");
                    backend.set_endpoints(endpoints);
                }
                backend
            });
            let backend = Arc::clone(backend);
            table.add(&host, Location { path, kind, backend, settings: Arc::clone(&settings) });
        }
    }
    // A request under way may still hold one of these.
    backends.values().for_each(|gone| gone.set_endpoints(Vec::new()));
    *backends = used;
    table
}

/// The Ready endpoints of a Service port.
fn endpoints(
    objects: &Objects,
    namespace: &str,
    service: &str,
    port: &ServiceBackendPort,
) -> Vec<SocketAddr> {
    let is_it = |s: &&Arc<Service>| s.namespace().as_deref() == Some(namespace) && s.name_any() == service;
    let Some(found) = objects.services.iter().find(is_it) else { return Vec::new() };
    let ports = found.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let named = |p: &&k8s_openapi::api::core::v1::ServicePort| match &port.name {
        Some(name) => p.name.as_ref() == Some(name),
        None => Some(p.port) == port.number,
    };
    let Some(port) = ports.into_iter().find(named) else { return Vec::new() };
    let port_name = port.name.clone().unwrap_or_default();

    let mut found = Vec::new();
    let belongs = |slice: &&Arc<EndpointSlice>| {
        slice.namespace().as_deref() == Some(namespace)
            && slice.labels().get("kubernetes.io/service-name").is_some_and(|name| name == service)
    };
    for slice in objects.slices.iter().filter(belongs) {
        let ports: Vec<u16> = (slice.ports.iter().flatten())
            .filter(|p| p.name.clone().unwrap_or_default() == port_name)
            .filter_map(|p| p.port.and_then(|port| u16::try_from(port).ok()))
            .collect();
        for endpoint in &slice.endpoints {
            // Unknown counts as ready (EndpointConditions' own words).
            let ready = endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
            if !ready {
                continue;
            }
            let addresses = endpoint.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok());
            found.extend(addresses.flat_map(|ip| ports.iter().map(move |port| SocketAddr::new(ip, *port))));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// What is longer is as good as no limit, and no time that a clock could not count.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

fn settings(ingress: &Ingress) -> Settings {
    let mut settings = Settings::default();
    let text = |name: &str| ingress.annotations().get(&format!("{ANNOTATIONS}{name}")).map(String::as_str);
    let seconds = |name: &str| {
        let value = text(name)?.trim().parse::<u64>().ok().filter(|seconds| *seconds > 0);
        if value.is_none() {
            tracing::warn!("ingress {}: {name} is no number of seconds; ignored", ingress.name_any());
        }
        value.map(|seconds| Duration::from_secs(seconds).min(LONGEST))
    };
    if let Some(time) = seconds("proxy-connect-timeout") {
        settings.connect_timeout = time;
    }
    if let Some(time) = seconds("proxy-read-timeout") {
        settings.read_timeout = time;
    }
    if let Some(value) = text("proxy-body-size") {
        match size_bytes(value) {
            Some(0) => settings.body_limit_bytes = None,
            Some(bytes) => settings.body_limit_bytes = Some(bytes),
            None => {
                tracing::warn!(
                    "ingress {}: proxy-body-size {value:?} is no size; ignored",
                    ingress.name_any()
                );
            }
        }
    }
    settings.buffer_request = text("proxy-request-buffering") != Some("off");
    settings
}

/// A size as nginx writes it: bytes, or with `k`, `m`, `g`.
fn size_bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let (digits, unit) = match text.strip_suffix(['k', 'm', 'g']) {
        Some(digits) if text.ends_with('k') => (digits, 1 << 10),
        Some(digits) if text.ends_with('m') => (digits, 1 << 20),
        Some(digits) => (digits, 1 << 30),
        None => (text.as_str(), 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// The annotations that ingress-nginx knows and this controller does not act on.
pub(crate) fn ignored_annotations(ingress: &Ingress) -> Vec<String> {
    ingress
        .annotations()
        .keys()
        .filter(|key| key.strip_prefix(ANNOTATIONS).is_some_and(|name| !HONOURED.contains(&name)))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn objects() -> Objects {
        let backend = |name: &str| json!({"service": {"name": name, "port": {"name": "http"}}});
        let ingress = |name: &str, made: &str, class: &str, service: &str| {
            object(json!({
                "metadata": {"name": name, "namespace": "n", "creationTimestamp": made, "annotations": {
                    "nginx.ingress.kubernetes.io/proxy-body-size": "12m",
                    "nginx.ingress.kubernetes.io/proxy-read-timeout": "40"}},
                "spec": {"ingressClassName": class, "rules": [{"host": "app.local", "http": {"paths": [
                    {"path": "/", "pathType": "Prefix", "backend": backend(service)}]}}]}
            }))
        };
        Objects {
            ingresses: vec![
                ingress("younger", "2026-01-02T00:00:00Z", "nginx", "other"),
                ingress("older", "2026-01-01T00:00:00Z", "nginx", "web"),
                ingress("foreign", "2025-01-01T00:00:00Z", "traefik", "other"),
            ],
            classes: vec![
                object(
                    json!({"metadata": {"name": "nginx"}, "spec": {"controller": "k8s.io/ingress-nginx"}}),
                ),
                object(json!({"metadata": {"name": "traefik"}, "spec": {"controller": "traefik.io/x"}})),
            ],
            services: vec![object(json!({
                "metadata": {"name": "web", "namespace": "n"},
                "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8000}, {"name": "m",
                "port": 9}]}
            }))],
            slices: vec![object(json!({
                "metadata": {"name": "web-1", "namespace": "n",
                    "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": "IPv4",
                "ports": [{"name": "http", "port": 8000}, {"name": "m", "port": 9}],
                "endpoints": [
                    {"addresses": ["127.1.0.2"], "conditions": {"ready": true}},
                    {"addresses": ["127.1.0.3"], "conditions": {"ready": false}},
                    {"addresses": ["127.1.0.4"]}
                ]
            }))],
        }
    }

    #[test]
    fn the_oldest_ingress_of_our_class_has_the_path_and_only_ready_endpoints_count() {
        let mut backends = HashMap::new();
        let objects = objects();
        let first = table(&objects, "k8s.io/ingress-nginx", &mut backends);
        let location = first.find("app.local", "/x").unwrap();
        assert_eq!(location.backend.name, "n-web-http");
        let expected: Vec<SocketAddr> =
            ["127.1.0.2:8000", "127.1.0.4:8000"].map(|a| a.parse().unwrap()).into();
        assert_eq!(location.backend.endpoints(), expected);
        assert_eq!(location.settings.body_limit_bytes, Some(12 << 20));
        assert_eq!(location.settings.read_timeout, Duration::from_secs(40));

        let again = table(&objects, "k8s.io/ingress-nginx", &mut backends);
        assert!(Arc::ptr_eq(&location.backend, &again.find("app.local", "/").unwrap().backend));
        let emptied = table(&Objects::default(), "k8s.io/ingress-nginx", &mut backends);
        assert!(emptied.is_empty());
        assert_eq!(location.backend.pick(), None);
    }

    #[test]
    fn a_default_backend_takes_what_no_rule_does() {
        let target = |name: &str| json!({"service": {"name": name, "port": {"number": 80}}});
        let only: Arc<Ingress> =
            object(json!({"metadata": {"name": "i"}, "spec": {"defaultBackend": target("d")}}));
        let found: Vec<_> = paths(&only).into_iter().map(|(host, path, ..)| (host, path)).collect();
        assert_eq!(found, [(String::new(), "/".to_string())]);
        let both: Arc<Ingress> = object(json!({"metadata": {"name": "i"}, "spec": {
            "defaultBackend": target("d"), "rules": [{"host": "a", "http": {"paths": [
                {"path": "/x", "pathType": "Exact", "backend": target("x")}]}}]}}));
        let found: Vec<_> =
            paths(&both).into_iter().map(|(host, path, ..)| format!("{host}{path}")).collect();
        assert_eq!(found, ["a/x", "a/"]);
    }

    #[test]
    fn sizes_are_read_as_nginx_reads_them() {
        let read = ["0", "10", "8k", "1M", "2g", "x", "1mb", ""].map(size_bytes);
        assert_eq!(read, [Some(0), Some(10), Some(8 << 10), Some(1 << 20), Some(2 << 30), None, None, None]);
    }
}
