//! What must be so before the first request: every gate of `up`, and a canary that proves that requests can be told
//! apart in the access log.

use std::time::Duration;

use anyhow::Result;
use xtask_load::client::{Client, Target};

use super::witness::Witness;
use crate::clusters::Cluster;
use crate::cx::Cx;
use crate::failure::Evidence;
use crate::gates::rollout::Rollout;
use crate::gates::{self, Gate, Verdict};
use crate::manifests::Manifests;
use crate::pipeline::{Done, SpanId, all3, both};

/// How long the canary may be looked for.
pub const DEADLINE: Duration = Duration::from_secs(30);
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// A line that is not in the log by then is looked for with a new canary.
const LINE_DEADLINE: Duration = Duration::from_secs(2);

/// Passes every gate, all at the same time.
///
/// # Errors
/// The gate that fails.
pub(super) async fn gates(cx: &Cx, cluster: &Cluster, manifests: &Manifests) -> Result<Vec<SpanId>> {
    let (client, namespace) = (&cluster.client, cx.shared.namespace.as_str());
    let rollout = Rollout::as_deployed(namespace, manifests);
    let autoscaler = async {
        match manifests.autoscaler_name() {
            Some(name) => {
                gates::autoscaler::wait(cx, client, namespace, name, &[]).await.map(|gate| Some(gate.id))
            }
            None => Ok(None),
        }
    };
    let ingress = both(
        gates::ingress_lease::wait(cx, client, &[]),
        gates::ingress_controller::wait(cx, client, &manifests.ingress, namespace, &[]),
    );
    let before = both(gates::cluster::wait(cx, client, namespace, &[]), ingress);
    let after = all3(
        both(gates::metrics::wait(cx, client, &[]), autoscaler),
        gates::rollout::wait(cx, client, &rollout, &[]),
        gates::route::wait(cx, &cluster.entry, manifests.host(), client, namespace, &[]),
    );
    let ((cluster, (lease, controller)), ((metrics, autoscaler), rollout, route)) =
        both(before, after).await?;
    let ids = [cluster.id, lease.id, controller.id, metrics.id, rollout.id, route.id];
    Ok(ids.into_iter().chain(autoscaler).collect())
}

/// Sends a request of our own by the real entry and waits until the access log shows its id.
///
/// # Errors
/// As [`gates::wait`].
pub(super) async fn canary(
    cx: &Cx,
    witness: &Witness,
    target: &Target,
    after: &[SpanId],
) -> Result<Done<()>> {
    let spec = Gate {
        name: "attribution",
        deadline: DEADLINE,
        after,
        look: format!(
            "each line of the access log must end in $req_id, as ingress-nginx's own format does; {}",
            cx.commands.kubectl("-n ingress-nginx logs deploy/ingress-nginx-controller --tail 5")
        ),
    };
    let verdicts = gates::poll(Duration::from_millis(100), async || Ok(look(witness, target).await));
    gates::wait(cx, spec, verdicts, async || Evidence::default()).await
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
