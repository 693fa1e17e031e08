//! The first gate behind the ingress add-on: its leader lease is held by a pod that lives.
//!
//! ingress-nginx does not give its lease back when it ends, so after a stop the old holder stays written in it. A lease
//! counts when its holder is there and Ready, and it was renewed within its duration by the API server's clock.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::runtime::watcher;

use super::clock::Clock;
use super::kind::Kind;
use super::watch::{self, Feed, Objects};
use super::{Gate, Standing, Verdict, evidence, pod};
use crate::ingress_nginx::{CONTROLLER_PODS, DEPLOYMENT, LEASE, NAMESPACE};
use crate::kubernetes::{Api, is_ready};
use crate::pipeline::{Branch, Done};

/// The gate.
pub const GATE: Gate = Gate {
    name: "ingress-lease",
    opens_when: "the leader lease is held and renewed by a Ready controller pod",
    // From the addon's switching on: minikube itself waits six minutes for its images and pods.
    deadline: Duration::from_secs(420),
    standing: Some(Standing {
        look: |site| Box::pin(async { Ok(look(&site.cluster.client).await?.without_value()) }),
        wait: |branch, site| Box::pin(async move { wait(branch, &site.cluster.client).await.map(drop) }),
    }),
};
/// ingress-nginx's own duration, for a lease that does not say.
const DEFAULT_DURATION: Duration = Duration::from_secs(30);
/// Further ahead than this, a renewal was written by a clock that is not the API server's.
const CLOCKS_AGREE: Duration = Duration::from_secs(5);

/// What was seen of the lease and of the pods that may hold it.
#[derive(Default)]
pub struct Snapshot {
    pub(super) leases: Objects<Lease>,
    pub(super) pods: Objects<Pod>,
    /// The holder and its renewal as last seen.
    pub(super) last: Option<(String, Timestamp)>,
    /// When we saw the holder renew: proof of life that needs no agreement of clocks.
    pub(super) renewed: Option<Timestamp>,
}

impl Snapshot {
    /// Takes note of a renewal that happened before our eyes.
    pub(super) fn note(&mut self, clock: &Clock) {
        let now = self.leases.get(LEASE).and_then(held);
        match (&self.last, &now) {
            (Some(last), Some(now)) if now.1 > last.1 => self.renewed = Some(clock.now()),
            (_, None) => self.renewed = None,
            _ => {}
        }
        self.last = now;
    }
}

/// Waits until the lease is held; gives the holder's name.
///
/// # Errors
/// As [`super::wait`].
pub async fn wait(branch: &mut Branch<'_>, client: &Client) -> Result<Done<String>> {
    let cx = branch.cx;
    let further = cx.commands.kubectl(&format!("-n {NAMESPACE} get lease/{LEASE} -o yaml"));
    super::wait(branch, &GATE, further, verdicts(client), async || {
        let about = evidence::About {
            namespace: NAMESPACE,
            workload: Some((Kind::Deployment, DEPLOYMENT)),
            selector: Some(CONTROLLER_PODS),
            ..evidence::About::default()
        };
        evidence::collect(cx, client, about).await
    })
    .await
}

/// Verdicts on the lease as it changes.
pub(super) fn verdicts(client: &Client) -> impl futures::Stream<Item = Result<Verdict<String>>> + use<> {
    watch::verdicts(client, Snapshot::default(), feeds(client), |s, clock| {
        s.note(clock);
        judge(s, clock)
    })
}

/// One look.
///
/// # Errors
/// When the API server does not answer.
pub async fn look(client: &Client) -> Result<Verdict<String>> {
    watch::look(client, Snapshot::default(), feeds(client), |s, clock| judge(s, clock)).await
}

fn feeds(client: &Client) -> Vec<Feed<Snapshot>> {
    let pods = watcher::Config::default().labels(CONTROLLER_PODS);
    vec![
        Feed::watch_one(Api::namespaced(client.clone(), NAMESPACE), LEASE, |s: &mut Snapshot| &mut s.leases),
        Feed::watch(Api::namespaced(client.clone(), NAMESPACE), pods, |s: &mut Snapshot| &mut s.pods),
    ]
}

/// Who holds a lease, and since when; nothing where it is not held.
fn held(lease: &Lease) -> Option<(String, Timestamp)> {
    let spec = lease.spec.as_ref()?;
    // Older controllers add `_<uuid>` to the pod's name.
    let holder = spec.holder_identity.as_deref()?.trim().split('_').next().unwrap_or_default();
    let renewed = spec.renew_time.as_ref()?.0;
    (!holder.is_empty()).then(|| (holder.to_owned(), renewed))
}

/// Judges what was seen.
pub fn judge(s: &Snapshot, clock: &Clock) -> Verdict<String> {
    let Some(lease) = s.leases.get(LEASE) else {
        return Verdict::Closed(format!(
            "the lease {LEASE} does not exist: no controller has become leader{}",
            pods(s)
        ));
    };
    let Some((holder, renewed)) = held(lease) else {
        return Verdict::Closed(format!("nobody holds the lease{}", pods(s)));
    };
    let Some(pod) = s.pods.get(&holder) else {
        let line = format!("the lease is left over from {holder}, which no longer exists{}", pods(s));
        return Verdict::Closed(line);
    };
    if pod.metadata.deletion_timestamp.is_some() {
        return Verdict::Closed(format!("the lease is held by {holder}, which is being deleted{}", pods(s)));
    }
    if !is_ready(pod) {
        return Verdict::Closed(format!(
            "the lease is held by {holder}, which is not Ready: {}",
            pod::state(pod, &[], clock)
        ));
    }
    let lasts = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
    let lasts = lasts.and_then(|s| u64::try_from(s).ok()).map_or(DEFAULT_DURATION, Duration::from_secs);
    if s.renewed.is_some_and(|seen| !clock.passed(seen, lasts)) {
        return Verdict::Open(holder.clone(), format!("held by {holder}, which renews it"));
    }
    if !clock.is_known() {
        return Verdict::Closed(format!("held by {holder}; waiting to see it renewed"));
    }
    let ahead = Duration::try_from(renewed.duration_since(clock.now())).unwrap_or_default();
    if ahead > CLOCKS_AGREE {
        let ahead = ahead.as_secs();
        return Verdict::Closed(format!(
            "held by {holder}, renewed by a clock {ahead} s ahead of the API server's; waiting to see it \
             renewed"
        ));
    }
    if clock.passed(renewed, lasts) {
        let (age, lasts) = (clock.since(renewed).as_secs(), lasts.as_secs());
        return Verdict::Closed(format!("{holder} renewed the lease {age} s ago, and it lasts {lasts} s"));
    }
    let age = clock.since(renewed).as_secs();
    Verdict::Open(holder.clone(), format!("held by {holder}, renewed {age} s ago"))
}

/// What the controller's pods are at, as the end of a line.
fn pods(s: &Snapshot) -> String {
    let live = s.pods.values().find(|pod| pod.metadata.deletion_timestamp.is_none());
    match live {
        None => "; there is no controller pod".to_owned(),
        Some(pod) if is_ready(pod) => format!("; {} is Ready and will take it", pod::name(pod)),
        Some(pod) => format!("; {} is not Ready", pod::name(pod)),
    }
}
