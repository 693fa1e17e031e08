//! A cluster whose program is built here is of the sources as they are now. To ask Cargo takes a while, in which nobody
//! waits.

use anyhow::Result;

use crate::clusters::Cluster;
use crate::pipeline::{Branch, step};
use crate::plan::Planned;

/// Its name.
const NAME: &str = "current";

/// What it would do; `commands` are the kind's own, none for a kind that is not built here.
pub fn plan(commands: Vec<String>) -> Option<Planned> {
    (!commands.is_empty()).then(|| Planned::step(NAME, commands))
}

/// Asks, and warns where it is not so.
///
/// # Errors
/// When the sources don't compile.
pub async fn run(branch: &mut Branch<'_>, cluster: &Cluster) -> Result<()> {
    if !cluster.kind.is_built_here() {
        return Ok(());
    }
    let cx = branch.cx;
    step(branch, NAME, async |step| cluster.kind.check_current(cx, step).await).await.map(drop)
}
