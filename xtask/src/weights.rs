//! `cargo xtask weights`: fetch trained ones, or generate seeded ones.

use anyhow::{Result, anyhow};

use crate::cli;
use crate::failure::{Attach as _, Exit};
use crate::pipeline::{Branch, Outcome, step};
use crate::steps::weights as weights_step;
use crate::summary::Summary;

/// Makes the weights be there.
///
/// # Errors
/// An unknown set (exit code 2), no network, a wrong size or checksum.
pub async fn run(branch: &mut Branch<'_>, command: cli::Weights) -> Result<Summary> {
    let cx = branch.cx;
    let dir = weights_step::dir(cx);
    let done = step(branch, "weights", async |step| {
        let manifest = match command {
            cli::Weights::Generate { seed } => weights_step::generate(cx, step, seed, &dir).await?,
            cli::Weights::Fetch { set, force } => {
                let set = match &set {
                    None => xtask_weights::default_set(),
                    Some(name) => xtask_weights::SETS.iter().find(|set| set.name == name).ok_or_else(|| {
                        let known: Vec<_> = xtask_weights::SETS.iter().map(|set| set.name).collect();
                        anyhow!("there is no set of weights `{name}`")
                            .hint(format!("known sets: {}", known.join(", ")))
                            .exit(Exit::Usage)
                    })?,
                };
                if !force && dir.exists() {
                    let manifest = weights_step::verify(&dir).await?;
                    if manifest.weights == set.name {
                        let how = weights_step::describe(&manifest);
                        return Ok(Outcome::Already(manifest, how));
                    }
                }
                weights_step::fetch_set(cx, step, set, &dir)
                    .await
                    .hint("without a network, `cargo xtask weights generate` makes seeded weights of the same shape")?
            }
        };
        let how = weights_step::describe(&manifest);
        Ok(Outcome::Did(manifest, how))
    })
    .await?;
    let fields = [
        ("weights", done.weights.clone()),
        ("sha256", done.sha256.clone()),
        ("dir", dir.display().to_string()),
    ];
    Ok(fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect())
}
