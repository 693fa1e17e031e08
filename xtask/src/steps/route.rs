//! The way in: from the cluster's real entry, through the ingress, to a pod.

use anyhow::Result;

use crate::clusters::Cluster;
use crate::gates;
use crate::manifests::{HEALTH, Manifests};
use crate::pipeline::{Branch, Done};
use crate::plan::Planned;

/// What it would do.
pub fn plan(manifests: &Manifests) -> Planned {
    let does = format!("GET {HEALTH} by the entry, Host: {}", manifests.host());
    Planned::gates(vec![does], vec![&gates::route::GATE])
}

/// Passes the route's gate; nothing has to be done for it that `apply` did not do.
///
/// # Errors
/// When the gate fails.
pub async fn run(branch: &mut Branch<'_>, cluster: &Cluster, manifests: &Manifests) -> Result<Done<()>> {
    let namespace = &branch.cx.shared.namespace;
    gates::route::wait(branch, &cluster.entry, manifests, &cluster.client, namespace).await
}
