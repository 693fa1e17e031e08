//! `cargo xtask weights`: fetch trained ones, or generate seeded ones.

use anyhow::{Result, anyhow};
use xtask_weights::WeightSet;

use crate::cli;
use crate::cx::Cx;
use crate::failure::{Attach as _, Exit};
use crate::pipeline::{Branch, Outcome, step};
use crate::plan::Planned;
use crate::steps::weights as weights_step;
use crate::summary::Summary;

/// Makes the weights be there.
///
/// # Errors
/// An unknown set (exit code 2), no network, a wrong size or checksum.
pub async fn run(branch: &mut Branch<'_>, command: cli::Weights) -> Result<Summary> {
    let cx = branch.cx;
    let dir = weights_step::dir(cx);
    let done = step(branch, weights_step::NAME, async |step| {
        let manifest = match command {
            cli::Weights::Generate { seed } => weights_step::generate(cx, step, seed, &dir).await?,
            cli::Weights::Fetch { set, force } => {
                let set = named(set.as_deref())?;
                if !force && dir.exists() {
                    let manifest = weights_step::verify(&dir).await?;
                    if manifest.weights == set.name {
                        let how = weights_step::describe(&manifest);
                        return Ok(Outcome::Already(manifest, how));
                    }
                }
                weights_step::fetch_set(cx, step, set, &dir).await.hint(
                    "without a network, `cargo xtask weights generate` makes seeded weights of the \
                           same shape",
                )?
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

/// What [`run`] would do.
///
/// # Errors
/// An unknown set; exit code 2.
pub fn plan(cx: &Cx, command: &cli::Weights) -> Result<Vec<Planned>> {
    let dir = cx.short(&weights_step::dir(cx)).to_string();
    let does = match command {
        cli::Weights::Generate { seed } => vec![format!("generate seeded weights (seed {seed}) in {dir}")],
        cli::Weights::Fetch { set, force } => {
            let set = named(set.as_deref())?;
            let fetch = format!("{} into {dir}", weights_step::fetch_plan(set));
            let verify = format!("if {dir} holds {} and verifies: nothing", set.name);
            if *force { vec![fetch] } else { vec![verify, format!("else {fetch}")] }
        }
    };
    Ok(vec![Planned::step(weights_step::NAME, does)])
}

/// The set of that name, or the one that is taken without a name.
fn named(set: Option<&str>) -> Result<&'static WeightSet> {
    let Some(name) = set else { return Ok(xtask_weights::default_set()) };
    xtask_weights::SETS.iter().find(|set| set.name == name).ok_or_else(|| {
        let known: Vec<_> = xtask_weights::SETS.iter().map(|set| set.name).collect();
        anyhow!("there is no set of weights `{name}`")
            .hint(format!("known sets: {}", known.join(", ")))
            .exit(Exit::Usage)
    })
}
