//! `cargo xtask kubeconfig`: a file for kubectl, with one context in it.

use anyhow::Result;

use crate::clusters;
use crate::cx::Cx;
use crate::summary::Summary;

/// Prints the path.
///
/// # Errors
/// When no cluster runs; exit code 10.
pub async fn run(cx: &Cx) -> Result<Summary> {
    let cluster = clusters::choose(cx).await?.kind.expect(cx).await?;
    let path = cluster.kubeconfig.display().to_string();
    if cx.shared.output == crate::options::Format::Human {
        cx.output.data(&path);
    }
    Ok([("kubeconfig".to_owned(), path.into()), ("context".to_owned(), cluster.context.into())]
        .into_iter()
        .collect())
}
