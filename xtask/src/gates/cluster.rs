//! The gate behind the cluster's start: the API server is ready, a node takes pods, and the namespace's default
//! service account exists, without which no pod can be made.

use std::time::Duration;

use anyhow::Result;
use http_body_util::BodyExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};

use super::clock::Clock;
use super::watch::{self, Feed, Objects};
use super::{Gate, Standing, Verdict, evidence};
use crate::failure::reason;
use crate::kubernetes;
use crate::kubernetes::Api;
use crate::pipeline::{Branch, Done};

/// The gate.
pub const GATE: Gate = Gate {
    name: "cluster",
    opens_when: "`/readyz` is 200, a node is Ready, the namespace's service account exists",
    // A first start pulls the node's image.
    deadline: Duration::from_secs(360),
    standing: Some(Standing {
        look: |site| Box::pin(look(&site.cluster.client, site.namespace)),
        wait: |branch, site| {
            Box::pin(async move { wait(branch, &site.cluster.client, site.namespace).await.map(drop) })
        },
    }),
};
/// What a node's lease lasts where it does not say; the kubelet renews it every 10 s.
const NODE_LEASE: Duration = Duration::from_secs(40);
/// So many nodes are named one by one.
const NAMED: usize = 3;

/// What was seen of the cluster.
#[derive(Default)]
pub struct Snapshot {
    pub(super) namespace: String,
    pub(super) readyz: Readyz,
    pub(super) nodes: Objects<Node>,
    /// The credentials may not see them.
    pub(super) nodes_hidden: bool,
    pub(super) node_leases: Objects<Lease>,
    pub(super) service_accounts: Objects<ServiceAccount>,
}

/// The API server's word on itself.
#[derive(Clone, Debug, Default)]
pub(super) enum Readyz {
    /// It was not asked yet.
    #[default]
    Unknown,
    /// It answered 200.
    Ok,
    /// It did not; why.
    Not(String),
}

/// Waits until the cluster is ready for `namespace`, which exists.
///
/// # Errors
/// As [`super::wait`].
pub async fn wait(branch: &mut Branch<'_>, client: &Client, namespace: &str) -> Result<Done<()>> {
    let cx = branch.cx;
    let further = cx.commands.kubectl("get nodes,pods -A");
    super::wait(branch, &GATE, further, verdicts(client, namespace), async || {
        let about = evidence::About { namespace: "kube-system", ..evidence::About::default() };
        evidence::collect(cx, client, about).await
    })
    .await
}

/// Verdicts on the cluster as it changes.
pub(super) fn verdicts(
    client: &Client,
    namespace: &str,
) -> impl futures::Stream<Item = Result<Verdict>> + use<> {
    let snapshot = Snapshot { namespace: namespace.to_owned(), ..Snapshot::default() };
    watch::verdicts(client, snapshot, feeds(client, namespace), |s, clock| judge(s, clock))
}

/// One look.
///
/// # Errors
/// When the API server does not answer.
pub async fn look(client: &Client, namespace: &str) -> Result<Verdict> {
    let snapshot = Snapshot { namespace: namespace.to_owned(), ..Snapshot::default() };
    watch::look(client, snapshot, feeds(client, namespace), |s, clock| judge(s, clock)).await
}

fn feeds(client: &Client, namespace: &str) -> Vec<Feed<Snapshot>> {
    let asker = client.clone();
    let readyz = move || {
        let client = asker.clone();
        async move {
            let answer = readyz(&client).await;
            // It may well fall back in the minute after a start, so it is asked again, though less often.
            let pause = if matches!(answer, Readyz::Ok) { 1000 } else { 250 };
            (answer, Duration::from_millis(pause))
        }
    };
    vec![
        Feed::poll("/readyz", readyz, |s: &mut Snapshot, answer| s.readyz = answer),
        Feed::watch(Api::all(client.clone()), watcher::Config::default(), |s: &mut Snapshot| &mut s.nodes)
            .unless_forbidden(|s| s.nodes_hidden = true),
        Feed::watch(
            Api::namespaced(client.clone(), "kube-node-lease"),
            watcher::Config::default(),
            |s: &mut Snapshot| &mut s.node_leases,
        )
        .optional(),
        Feed::watch_one(Api::namespaced(client.clone(), namespace), "default", |s: &mut Snapshot| {
            &mut s.service_accounts
        }),
    ]
}

async fn readyz(client: &Client) -> Readyz {
    let ask = async {
        let request = http::Request::get("/readyz?verbose").body(kube::client::Body::empty())?;
        let answer = client.send(request).await?;
        let status = answer.status();
        let text = answer.into_body().collect().await?.to_bytes();
        anyhow::Ok((status, String::from_utf8_lossy(&text).into_owned()))
    };
    match tokio::time::timeout(Duration::from_secs(5), ask).await {
        Ok(Ok((status, _))) if status == http::StatusCode::OK => Readyz::Ok,
        Ok(Ok((status, text))) => Readyz::Not(failing_checks(status.as_u16(), &text)),
        Ok(Err(error)) => Readyz::Not(reason(error.as_ref())),
        Err(_) => Readyz::Not("no answer within 5 s".to_owned()),
    }
}

/// The checks that `/readyz?verbose` marks with `[-]`.
pub(super) fn failing_checks(status: u16, text: &str) -> String {
    let failing: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("[-]"))
        .map(|line| line.split_whitespace().next().unwrap_or(line))
        .collect();
    if failing.is_empty() {
        format!("HTTP {status}")
    } else {
        format!("HTTP {status}, not yet: {}", failing.join(", "))
    }
}

/// Judges what was seen.
pub fn judge(s: &Snapshot, clock: &Clock) -> Verdict {
    if let Readyz::Not(why) = &s.readyz {
        return Verdict::Closed(format!("the API server's /readyz: {why}"));
    }
    if matches!(s.readyz, Readyz::Unknown) {
        return Verdict::Closed("the API server's /readyz has not answered yet".to_owned());
    }
    let mut closed = Vec::new();
    let mut ready = Vec::new();
    for (name, node) in &s.nodes {
        match not_ready(name, node, s.node_leases.get(name), clock) {
            None => ready.push(node),
            Some(why) => closed.push(why),
        }
    }
    let node = (!ready.is_empty()).then(|| of_nodes(&ready, &closed));
    let hidden = || s.nodes_hidden.then(|| "its nodes may not be seen".to_owned());
    let Some(node) = node.or_else(hidden) else {
        let why = if closed.is_empty() { "no node has registered".to_owned() } else { few(&closed, "; ") };
        return Verdict::Closed(why);
    };
    if s.service_accounts.is_empty() {
        return Verdict::Closed(format!(
            "the service account `default` in namespace {} does not exist",
            s.namespace
        ));
    }
    Verdict::Open((), format!("API ready, {node}"))
}

/// Which nodes are Ready, and what is to be known of the others and of the cordoned: the app may do without them.
fn of_nodes(ready: &[&Node], not_ready: &[String]) -> String {
    let is_cordoned = |node: &&&Node| node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
    let cordoned: Vec<String> = ready.iter().filter(is_cordoned).map(|node| node.name_any()).collect();
    if let ([node], []) = (ready, not_ready) {
        let cordoned = if cordoned.is_empty() { "" } else { ", but cordoned" };
        return format!("node {} Ready{cordoned}", node.name_any());
    }
    let mut text = format!("{} of {} nodes Ready", ready.len(), ready.len() + not_ready.len());
    if !cordoned.is_empty() {
        text += &format!(", cordoned of them {}", few(&cordoned, ", "));
    }
    if !not_ready.is_empty() {
        text += &format!("; {}", few(not_ready, "; "));
    }
    text
}

/// The first few, and how many more there are.
fn few(all: &[String], between: &str) -> String {
    let named = all.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(between);
    match all.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}{between}{more} more"),
    }
}

/// Why a node takes no pods yet.
fn not_ready(name: &str, node: &Node, lease: Option<&Lease>, clock: &Clock) -> Option<String> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    match kubernetes::find(conditions, "Ready") {
        None => return Some(format!("node {name} has not reported Ready yet")),
        Some(ready) if !ready.is_true() => {
            return Some(format!("node {name} is not Ready ({})", ready.why()));
        }
        Some(_) => {}
    }
    // After a restart, the word from before the stop stands until the kubelet is back; its lease tells the two apart.
    let spec = lease?.spec.as_ref()?;
    let renewed = spec.renew_time.as_ref()?.0;
    let lasts = spec
        .lease_duration_seconds
        .and_then(|s| u64::try_from(s).ok())
        .map_or(NODE_LEASE, Duration::from_secs);
    if clock.is_known() && clock.passed(renewed, lasts) {
        let age = clock.since(renewed).as_secs();
        return Some(format!("node {name} is Ready, but its kubelet has not reported for {age} s"));
    }
    None
}
