//! What must be so before the first request: every gate of `up`, and a canary that proves that requests can be told
//! apart in the access log.

use std::time::Duration;

use anyhow::Result;
use xtask_load::client::{Client, Target};

use crate::failure::Evidence;
use crate::gates::{self, Gate, Site, Standing, Verdict};
use crate::manifests::Manifests;
use crate::pipeline::{Branch, Done};
use crate::witness::Witness;

/// The gate before the load itself.
pub(super) const ATTRIBUTION: Gate = Gate {
    name: "attribution",
    opens_when: "a canary request appears in the access log under its id",
    deadline: Duration::from_secs(30),
    standing: None,
};
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// A line that is not in the log by then is looked for with a new canary.
const LINE_DEADLINE: Duration = Duration::from_secs(2);

/// Passes every gate, all at the same time but the route, which is last: a proxy goes on for a while with the pods that
/// it knew, and by then those are gone that `settled` has waited for.
///
/// # Errors
/// The gate that fails.
pub(super) async fn gates(branch: &mut Branch<'_>, site: &Site<'_>) -> Result<()> {
    let waits = before_route(site.manifests, site.cluster.nginx, site.cluster.metrics)
        .map(|(_, ask)| async move |branch: &mut Branch<'_>| (ask.wait)(branch, site).await);
    branch.all(waits).await?;
    route(branch, site).await
}

/// All gates but the last.
pub(super) fn before_route(
    manifests: &Manifests,
    nginx: bool,
    metrics: bool,
) -> impl Iterator<Item = (&'static Gate, Standing)> {
    gates::standing(manifests, nginx, metrics).filter(|(gate, _)| gate.name != gates::route::GATE.name)
}

/// Passes the gate of the route, also when the pods have been changed since.
///
/// # Errors
/// When it fails.
pub(super) async fn route(branch: &mut Branch<'_>, site: &Site<'_>) -> Result<()> {
    let Site { cluster, manifests, namespace } = *site;
    gates::route::wait(branch, &cluster.entry, manifests, &cluster.client, namespace).await.map(drop)
}

/// Sends one request by the real entry and waits until the access log shows its id.
///
/// # Errors
/// As [`gates::wait`].
pub(super) async fn canary(branch: &mut Branch<'_>, witness: &Witness, target: &Target) -> Result<Done<()>> {
    let further = format!(
        "each line of the access log must end in $req_id, as ingress-nginx's own format does; {}",
        branch.cx.commands.kubectl("-n ingress-nginx logs deploy/ingress-nginx-controller --tail 5")
    );
    let verdicts = gates::poll(Duration::from_millis(100), async || Ok(look(witness, target).await));
    gates::wait(branch, &ATTRIBUTION, further, verdicts, async || Evidence::default()).await
}

/// One canary.
pub(super) async fn look(witness: &Witness, target: &Target) -> Verdict {
    let id = uuid::Uuid::new_v4().simple().to_string();
    let seen = witness.expect(&id);
    let answer = match tokio::time::timeout(ANSWER_DEADLINE, Client::default().ask(target, &id)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => return Verdict::Closed(format!("the canary got no answer: {why}")),
        Err(_) => return Verdict::Closed("the canary got no answer in time".to_owned()),
    };
    match tokio::time::timeout(LINE_DEADLINE, seen).await {
        Ok(Ok(pod)) => Verdict::Open((), format!("the canary {id} is in the access log of {pod}")),
        _ => Verdict::Closed(format!(
            "the canary {id} was answered ({}), but no controller's access log shows it yet",
            answer.status
        )),
    }
}
