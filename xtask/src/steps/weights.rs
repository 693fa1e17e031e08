//! The model's weights: those that are there, else fetched, else (no network) seeded.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use xtask_weights::{FetchError, Manifest, WeightSet};

use crate::cx::Cx;
use crate::failure::{Attach as _, Exit};
use crate::pipeline::{Branch, Done, Outcome, Running, step};
use crate::plan::Planned;

/// The seed of the weights that `up` makes where it can fetch none.
pub const DEFAULT_SEED: u64 = 50;
/// The progress line changes at most this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Its name, and that of the command that does nothing else.
pub const NAME: &str = "weights";

/// What it would do.
pub fn plan(cx: &Cx) -> Planned {
    let verify = format!("verify {} if it is there", cx.short(&dir(cx)));
    let else_fetch = format!("else {}", fetch_plan(xtask_weights::default_set()));
    let else_make = format!("else, without a network, generate seeded weights (seed {DEFAULT_SEED})");
    Planned::step(NAME, vec![verify, else_fetch, else_make])
}

/// What fetching a set is.
pub fn fetch_plan(set: &WeightSet) -> String {
    format!("GET {}, sha256 {}", set.url, set.sha256)
}

/// Verified weights on this machine.
#[derive(Clone)]
pub struct Weights {
    /// The folder with `model.onnx` and `manifest.json`.
    pub dir: PathBuf,
    /// What they are.
    pub manifest: Manifest,
}

/// Where the weights lie.
pub fn dir(cx: &Cx) -> PathBuf {
    cx.home().join("weights")
}

/// Makes sure that there are weights.
///
/// # Errors
/// When weights are there but corrupt (exit code 10), or neither way of getting some works.
pub async fn run(branch: &mut Branch<'_>) -> Result<Done<Weights>> {
    let cx = branch.cx;
    let weights = step(branch, NAME, async |step| {
        let dir = dir(cx);
        if dir.exists() {
            let manifest = verify(&dir).await?;
            let how = describe(&manifest);
            return Ok(Outcome::Already(Weights { dir, manifest }, how));
        }
        let set = xtask_weights::default_set();
        let manifest = match fetch_set(cx, step, set, &dir).await {
            Ok(manifest) => manifest,
            Err(error) if error.downcast_ref::<FetchError>().is_some_and(FetchError::is_no_network) => {
                step.warn(format!(
                    "no weights could be fetched ({}); generating seeded ones",
                    crate::failure::paragraph(&error)
                ));
                generate(cx, step, DEFAULT_SEED, &dir).await?
            }
            Err(error) => return Err(error),
        };
        let how = describe(&manifest);
        Ok(Outcome::Did(Weights { dir, manifest }, how))
    })
    .await?;
    if let Some(seed) = weights.manifest.seeded {
        cx.output.note(&format!(
            "warning: these weights are SEEDED (seed {seed}), not trained: predictions mean nothing; \
             `cargo xtask weights fetch` gets trained ones"
        ));
    }
    Ok(weights)
}

/// Looks at the weights in a folder, off the runtime's threads: it reads 100 MB.
///
/// # Errors
/// When they are corrupt; exit code 10.
pub async fn verify(dir: &Path) -> Result<Manifest> {
    let owned = dir.to_owned();
    let checked = tokio::task::spawn_blocking(move || xtask_weights::verify(&owned))
        .await
        .context("verifying weights")?;
    checked
        .hint(
            "`cargo xtask weights fetch --force` replaces them, `cargo xtask weights generate` too, \
               without a network",
        )
        .exit(Exit::Preflight)
}

/// Downloads, verifies and converts a set.
///
/// # Errors
/// [`FetchError`], or the run was told to stop.
pub async fn fetch_set(cx: &Cx, step: &Running<'_>, set: &WeightSet, dir: &Path) -> Result<Manifest> {
    let mut progress = bar(step, format!("fetching {}", set.name));
    cx.unless_stopped(async { Ok(xtask_weights::fetch(set, dir, &mut progress).await?) }).await
}

/// Makes seeded weights, off the runtime's threads.
///
/// # Errors
/// When the folder can't be written.
pub async fn generate(cx: &Cx, step: &Running<'_>, seed: u64, dir: &Path) -> Result<Manifest> {
    step.at(format!("generating weights from seed {seed}"));
    let owned = dir.to_owned();
    let work = tokio::task::spawn_blocking(move || xtask_weights::generate(seed, &owned, &mut |_, _| {}));
    cx.unless_stopped(async { work.await.context("generating weights")? }).await
}

/// What the weights are, in one line.
pub fn describe(manifest: &Manifest) -> String {
    match manifest.seeded {
        Some(seed) => format!("SEEDED weights (seed {seed}): predictions mean nothing"),
        None => format!("weights {}", manifest.weights),
    }
}

fn bar<'s>(step: &'s Running<'_>, what: String) -> impl FnMut(u64, u64) + Send + 's {
    let mut last = None::<Instant>;
    move |done_bytes, total_bytes| {
        if last.is_some_and(|last| last.elapsed() < PROGRESS_EVERY) && done_bytes != total_bytes {
            return;
        }
        last = Some(Instant::now());
        let percent = (done_bytes * 100).checked_div(total_bytes).unwrap_or(0);
        let filled = usize::try_from(percent / 5).unwrap_or(0).min(20);
        step.at(format!(
            "{what} [{:█<filled$}{:·<rest$}] {percent:>3} % of {} MB",
            "",
            "",
            total_bytes / 1_000_000,
            rest = 20 - filled
        ));
    }
}
