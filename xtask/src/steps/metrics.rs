//! The metrics API, which the autoscaler reads, is on.

use anyhow::Result;

use crate::clusters::Cluster;
use crate::gates;
use crate::pipeline::{Branch, Done, step};
use crate::plan::Planned;

/// Its name.
const NAME: &str = "metrics";

/// What it would do; `commands` are the kind's own.
pub fn plan(commands: Vec<String>) -> Planned {
    Planned::step(NAME, commands).gate(&gates::metrics::GATE)
}

/// Switches the metrics API on and passes its gate.
///
/// # Errors
/// When it can't be switched on, or the gate fails.
pub async fn run(branch: &mut Branch<'_>, cluster: &Done<Cluster>) -> Result<Done<()>> {
    let cx = branch.cx;
    let on = step(branch, NAME, async |step| cluster.kind.enable_metrics(cx, step, cluster).await).await?;
    if !cluster.metrics {
        return Ok(on);
    }
    gates::metrics::wait(branch, &cluster.client).await
}
