//! The routing table: host and path to a backend, by the rules of the Ingress API.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

/// A Service port and the Ready endpoints behind it. It outlives the tables that refer to it, so that round robin goes
/// on where it was and a request that is retried sees the endpoints of now.
#[derive(Debug)]
pub struct Backend {
    /// `namespace-service-port`, as in the access log.
    pub name: String,
    endpoints: RwLock<Vec<SocketAddr>>,
    next: AtomicUsize,
}

impl Backend {
    /// A backend with these endpoints.
    pub fn new(name: impl Into<String>, endpoints: Vec<SocketAddr>) -> Arc<Backend> {
        Arc::new(Backend { name: name.into(), endpoints: RwLock::new(endpoints), next: AtomicUsize::new(0) })
    }

    /// Replaces the endpoints, from the next request on.
    pub fn set_endpoints(&self, endpoints: Vec<SocketAddr>) {
        *self.endpoints.write() = endpoints;
    }

    /// The next endpoint, round robin.
    pub fn pick(&self) -> Option<SocketAddr> {
        let endpoints = self.endpoints.read();
        let count = endpoints.len();
        if count == 0 {
            return None;
        }
        endpoints.get(self.next.fetch_add(1, Ordering::Relaxed) % count).copied()
    }

    /// The endpoints of now.
    pub fn endpoints(&self) -> Vec<SocketAddr> {
        self.endpoints.read().clone()
    }
}

/// What annotations set for an Ingress. The defaults are ingress-nginx's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Largest request body; None means no limit. `proxy-body-size`
    pub body_limit_bytes: Option<u64>,
    /// `proxy-connect-timeout`
    pub connect_timeout: Duration,
    /// Longest silence of the pod, before and inside its answer. `proxy-read-timeout`
    pub read_timeout: Duration,
    /// Longest silence of the client in its body; nginx's `client_body_timeout`.
    pub body_timeout: Duration,
    /// Whether the body is read whole before the pod is asked. `proxy-request-buffering`
    pub buffer_request: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            body_limit_bytes: Some(1 << 20),
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            buffer_request: true,
        }
    }
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// The whole path.
    Exact,
    /// Whole elements: `/a` matches `/a` and `/a/b`, not `/ab`.
    Prefix,
    /// As nginx's `location /a`: any path that starts so.
    ImplementationSpecific,
}

/// A path of a host.
#[derive(Debug, Clone)]
pub struct Location {
    /// The path as in the rule.
    pub path: String,
    /// How it is compared.
    pub kind: PathKind,
    /// Where matching requests go.
    pub backend: Arc<Backend>,
    /// How they are proxied.
    pub settings: Arc<Settings>,
}

impl Location {
    fn matches(&self, path: &str) -> bool {
        match self.kind {
            PathKind::Exact => path == self.path,
            PathKind::ImplementationSpecific => path.starts_with(&self.path),
            PathKind::Prefix => {
                let prefix = self.path.trim_end_matches('/');
                path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }
}

/// Every route. Hosts are kept in lower case.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// By host; `*.example.com` is kept as `.example.com`, a rule without host as the empty string.
    servers: HashMap<String, Vec<Location>>,
}

impl Table {
    /// Adds a path of a host: `""` for every host that no other rule names, `*.domain` for one label before a domain.
    /// False if the host has that path already; the first one stays.
    pub fn add(&mut self, host: &str, location: Location) -> bool {
        let locations = self.servers.entry(server_name(host)).or_default();
        if locations.iter().any(|l| l.kind == location.kind && l.path == location.path) {
            return false;
        }
        locations.push(location);
        // Exact paths win over prefixes, longer prefixes over shorter ones.
        locations.sort_by_key(|l| (l.kind != PathKind::Exact, std::cmp::Reverse(l.path.len())));
        true
    }

    /// The location for a request. A host that rules name is never served by the rules of another.
    pub fn find(&self, host: &str, path: &str) -> Option<&Location> {
        let name = without_port(host).trim_end_matches('.').to_ascii_lowercase();
        let wildcard = || name.find('.').and_then(|dot| self.servers.get(name.get(dot..)?));
        let server = Some(&name).filter(|name| !name.is_empty()).and_then(|name| self.servers.get(name));
        let server = server.or_else(wildcard).or_else(|| self.servers.get(""))?;
        server.iter().find(|location| location.matches(path))
    }

    /// Whether it has no route.
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }
}

fn server_name(host: &str) -> String {
    host.strip_prefix('*').unwrap_or(host).to_ascii_lowercase()
}

/// `example.com:8080` to `example.com`, `[::1]:80` to `[::1]`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rules: &[(&str, &str, PathKind)]) -> Table {
        let mut table = Table::default();
        for (host, path, kind) in rules {
            let backend = Backend::new(format!("{host}|{path}"), vec![]);
            let settings = Arc::default();
            assert!(table.add(host, Location { path: (*path).into(), kind: *kind, backend, settings }));
        }
        table
    }

    fn found<'t>(table: &'t Table, host: &str, path: &str) -> &'t str {
        table.find(host, path).map_or("none", |location| &location.backend.name)
    }

    #[test]
    fn exact_beats_longest_prefix_beats_shorter() {
        use PathKind::{Exact, ImplementationSpecific, Prefix};
        let t = table(&[
            ("a.io", "/", Prefix),
            ("a.io", "/x", Prefix),
            ("a.io", "/x/long", Prefix),
            ("a.io", "/x", Exact),
            ("a.io", "/y", ImplementationSpecific),
            ("a.io", "/z/", Prefix),
        ]);
        assert_eq!(t.find("a.io", "/x").unwrap().kind, Exact);
        assert_eq!(t.find("a.io", "/x/").unwrap().kind, Prefix);
        assert_eq!(found(&t, "a.io", "/x/longer"), "a.io|/x");
        assert_eq!(found(&t, "a.io", "/x/long/er"), "a.io|/x/long");
        assert_eq!(found(&t, "a.io", "/xx"), "a.io|/");
        assert_eq!(found(&t, "a.io", "/yy"), "a.io|/y");
        assert_eq!(found(&t, "a.io", "/z"), "a.io|/z/");
        assert_eq!(found(&t, "A.io:8080", "/"), "a.io|/");
        assert_eq!(found(&t, "b.io", "/"), "none");
    }

    #[test]
    fn a_named_host_is_not_served_by_wildcards_or_the_catch_all() {
        use PathKind::Prefix;
        let t = table(&[
            ("a.b.io", "/only", Prefix),
            ("*.b.io", "/", Prefix),
            ("", "/", Prefix),
            ("*.io", "/", Prefix),
        ]);
        assert_eq!(found(&t, "a.b.io", "/other"), "none");
        assert_eq!(found(&t, "c.b.io", "/"), "*.b.io|/");
        assert_eq!(found(&t, "d.c.b.io", "/"), "|/", "a wildcard is one label");
        assert_eq!(found(&t, "127.0.0.1:80", "/"), "|/");
        assert_eq!(found(&t, "", "/"), "|/");
        assert_eq!(found(&t, "[::1]:80", "/"), "|/");
    }

    #[test]
    fn round_robin_goes_on_over_changes() {
        let address = |n: u16| SocketAddr::from(([127, 0, 0, 1], n));
        let backend = Backend::new("b", vec![address(1), address(2)]);
        assert_eq!([backend.pick(), backend.pick(), backend.pick()], [1, 2, 1].map(|n| Some(address(n))));
        backend.set_endpoints(vec![]);
        assert_eq!(backend.pick(), None);
    }
}
