//! `cargo xtask load`: every gate first, then the load, with a witness who sees what becomes of each request; then the
//! books, the thresholds, and why what failed did.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use xtask_load::client::Target;
use xtask_load::run::Plan;
use xtask_load::tally::Book;

use crate::clusters::{self, Cluster};
use crate::compare::Sample;
use crate::cx::Cx;
use crate::failure::Attach as _;
use crate::gates;
use crate::gates::rollout::Rollout;
use crate::manifests::Manifests;
use crate::owned::{Owner, Watched};
use crate::pipeline::Branch;
use crate::record::meta::Meta;
use crate::record::{RECORDS, find};
use crate::summary::Summary;
use crate::temporary::{self, App};
use crate::witness::{Bounds, Witness};

pub mod args;
mod conclude;
pub mod disturb;
pub mod experiment;
mod planned;
mod ready;
pub(crate) mod repeat;
pub mod request;
mod send;
pub mod threshold;

use args::LoadArgs;
use conclude::Measured;
use disturb::Prepared;
use experiment::Protection;
use send::Load;
use threshold::Figures;

pub use planned::plan;

/// Passes the gates, sends the load, and explains what failed; as often as is asked for.
///
/// # Errors
/// When a gate fails; a threshold fails (exit code 40); the generator could not keep up (41).
pub async fn run(branch: &mut Branch<'_>, args: &LoadArgs) -> Result<Summary> {
    let dir = branch.cx.run_dir.clone().context("the run has no folder")?;
    match args.repeat {
        1 => once(branch, args, &dir, Telling::Whole).await,
        _ => repeat::run(branch, args, &dir).await,
    }
}

/// How much is said of a run to a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Telling {
    /// All of it.
    Whole,
    /// How it ended, in a line: it is one of several.
    Brief,
}

/// One run from its gates to its report, kept in `dir`.
///
/// # Errors
/// As [`run`].
pub(crate) async fn once(
    branch: &mut Branch<'_>,
    args: &LoadArgs,
    dir: &Path,
    telling: Telling,
) -> Result<Summary> {
    let cx = branch.cx;
    let plan = args.plan()?;
    let baseline =
        args.baseline.as_deref().map(|run| Sample::read(&find(&cx.home().join("runs"), Some(run))?));
    let baseline = baseline.transpose().context("reading the baseline")?;
    let choice = clusters::choose(cx).await?;
    cx.output.note(&format!("{}: {}", choice.kind.name(), choice.why));
    let cluster = choice.kind.expect(cx).await?;
    let manifests = crate::manifests::read(&cx.root.join("kubernetes"), &cx.shared.namespace)?;
    cx.shows(cluster.watched(&manifests, &cx.shared.namespace));

    let without = args.without;
    if let Some(protection) = without {
        experiment::allow(cx, protection, &cluster)?;
    }
    let (gated, during, changes_app) = (args.is_gated(), args.disturbance(), args.changes_app());
    let app = App::of(cx, &cluster, &manifests);
    let left = if changes_app {
        temporary::unmarked(&app).await.map(|()| Summary::new())?
    } else {
        temporary::warn(cx, app).await
    };
    if gated {
        ready::gates(branch, &cluster, &manifests).await?;
    }
    let result = temporary::lasting(cx, app, async |changes| {
        if let Some(protection) = without.filter(|_| gated) {
            experiment::remove(branch, changes, protection, &cluster, &manifests).await?;
        }
        let prepared = match during {
            Some(what) => Some(Prepared::new(branch, changes, what, &manifests).await?),
            None => None,
        };
        if gated && changes_app {
            ready::route(branch, &cluster, &manifests).await?;
        }
        let scene = Scene {
            cx,
            args,
            dir,
            telling,
            plan: &plan,
            cluster: &cluster,
            manifests: &manifests,
            prepared: prepared.as_ref(),
            baseline: baseline.as_ref(),
            left: &left,
        };
        scene.measure(branch, gated).await
    })
    .await;
    if changes_app && !cx.is_stopped() {
        let target = Rollout::as_deployed(app.namespace, &manifests);
        return unless(gates::settled::wait(branch, app.client, &target).await.map(drop), result);
    }
    result
}

/// What a load came to, unless it came to nothing worse than what followed: what was measured is told with that.
fn unless(followed: Result<()>, result: Result<Summary>) -> Result<Summary> {
    let summary = result?;
    followed.map(|()| summary.clone()).attach(summary)
}

/// One load, with all that it takes.
struct Scene<'s> {
    cx: &'s Cx,
    args: &'s LoadArgs,
    /// Where it is kept.
    dir: &'s Path,
    telling: Telling,
    plan: &'s Plan,
    cluster: &'s Cluster,
    manifests: &'s Manifests,
    prepared: Option<&'s Prepared<'s>>,
    /// The run that this one is compared with.
    baseline: Option<&'s Sample>,
    /// What another run has left changed, as the summary tells it.
    left: &'s Summary,
}

impl Scene<'_> {
    /// What lies between the gates and the report.
    async fn measure(&self, branch: &mut Branch<'_>, gated: bool) -> Result<Summary> {
        let Scene { cx, dir, cluster, manifests, plan, .. } = *self;
        let target = self.args.request.target(cx, &cluster.entry, manifests.host()).await?;
        let owner = Owner::of(&cluster.client, &cx.shared.namespace, manifests.deployment_name()).await?;
        let watched =
            Watched { selector: owner.selector, ..cluster.watched(manifests, &cx.shared.namespace) };
        let witness = Witness::start(&watched, dir, Bounds::NONE).await?;
        let canary = Target::get(&cluster.entry, manifests.host(), "/health").await?;
        if !gated {
            experiment::restart_entry(cluster).await?;
        } else if cluster.nginx {
            ready::canary(branch, &witness, &canary).await?;
        }
        let mut meta = Meta {
            began: Timestamp::now(),
            entry: cluster.entry.clone(),
            host: manifests.host().to_owned(),
            request: target.line(),
            namespace: cx.shared.namespace.clone(),
            plan: plan.line(),
            without: self.args.without.map(Protection::name),
            marks: Vec::new(),
            end: None,
        };
        let book = Arc::new(Book::open(Some(&dir.join(RECORDS)))?);
        let open_files = xtask_load::files::allow(plan.concurrency);
        let baseline = self.baseline.map(|sample| Figures::of(sample.end()));
        let load = Load {
            cx,
            plan,
            book: &book,
            dir,
            prepared: self.prepared,
            baseline: baseline.as_ref(),
            args: self.args,
        };
        let finished = load.send(branch, target, &mut meta).await?;
        let settled = if finished.stopped { Ok(()) } else { self.settle(branch).await };
        let mut gaps = close(cx, witness, cluster.nginx.then_some(&canary), &book).await?;
        gaps.extend(
            finished.unwritten.as_ref().map(|error| format!("{RECORDS} could not be written: {error}")),
        );
        let measured = Measured { book: &book, finished: &finished, open_files, gaps };
        unless(settled, self.conclude(meta, measured))
    }

    /// What a disturbance or an experiment began is over before the witness leaves and the next run begins.
    async fn settle(&self, branch: &mut Branch<'_>) -> Result<()> {
        if self.prepared.is_none() && self.args.without.is_none() {
            return Ok(());
        }
        let Scene { cx, cluster, manifests, .. } = *self;
        let namespace = cx.shared.namespace.as_str();
        let rollout = Rollout::as_deployed(namespace, manifests);
        let controller = async |branch: &mut Branch<'_>| {
            if !cluster.nginx {
                return Ok(());
            }
            let ingress = &manifests.ingress;
            gates::ingress_controller::wait(branch, &cluster.client, ingress, namespace).await.map(drop)
        };
        let settled =
            async |branch: &mut Branch<'_>| gates::settled::wait(branch, &cluster.client, &rollout).await;
        branch.both(controller, settled).await.map(drop)
    }
}

/// Waits until the access log has caught up with the last request, where there is one that a `canary` can be looked for
/// in, and ends the witness.
async fn close(cx: &Cx, witness: Witness, canary: Option<&Target>, book: &Book) -> Result<Vec<String>> {
    let any_failed = book.tally().buckets.failed() > 0;
    let until = Instant::now() + Duration::from_secs(if canary.is_some() { 10 } else { 5 });
    let mut caught_up = false;
    while !caught_up && Instant::now() < until && !cx.is_stopped() {
        if let Some(canary) = canary {
            caught_up = matches!(ready::look(&witness, canary).await, gates::Verdict::Open(..));
        }
        if !any_failed {
            break;
        }
        // Endings of pods are told a moment after the connections broke.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let mut gaps = witness.finish()?;
    if any_failed && canary.is_some() && !caught_up {
        gaps.push("the last lines of the access log: it did not catch up after the last request".to_owned());
    }
    Ok(gaps)
}
