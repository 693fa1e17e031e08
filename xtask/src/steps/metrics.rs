//! The metrics API, which the autoscaler reads, is on.

use anyhow::Result;

use crate::clusters::Cluster;
use crate::cx::Cx;
use crate::gates;
use crate::pipeline::{Done, step};

/// Switches the metrics API on and passes its gate.
///
/// # Errors
/// When it can't be switched on, or the gate fails.
pub async fn run(cx: &Cx, cluster: &Done<Cluster>) -> Result<Done<()>> {
    let on =
        step(cx, "metrics", &[cluster.id], async |step| cluster.kind.enable_metrics(cx, step, cluster).await)
            .await?;
    gates::metrics::wait(cx, &cluster.client, &[on.id]).await
}
