//! The way in: from the cluster's real entry, through the ingress, to a pod.

use anyhow::Result;

use crate::clusters::Cluster;
use crate::cx::Cx;
use crate::gates;
use crate::manifests::Manifests;
use crate::pipeline::{Done, SpanId};

/// Passes the route's gate; nothing has to be done for it that `apply` did not do.
///
/// # Errors
/// When the gate fails.
pub async fn run(cx: &Cx, cluster: &Cluster, manifests: &Manifests, after: &[SpanId]) -> Result<Done<()>> {
    gates::route::wait(cx, &cluster.entry, manifests.host(), &cluster.client, &cx.shared.namespace, after)
        .await
}
