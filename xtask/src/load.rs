//! `cargo xtask load`: every gate first, then the load, with a witness who sees what becomes of each request; then the
//! books, the thresholds, and why what failed did.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use xtask_load::client::Target;
use xtask_load::run::Plan;
use xtask_load::tally::Book;

use crate::clusters;
use crate::compare::Sample;
use crate::cx::Cx;
use crate::failure::Attach as _;
use crate::gates::{self, Site};
use crate::owned::{Owner, Watched};
use crate::pipeline::Branch;
use crate::record::find;
use crate::summary::Summary;
use crate::temporary::{self, App, Changes};
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
use disturb::Prepared;
use request::Body;

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
    let baseline =
        args.baseline.as_deref().map(|run| Sample::read(&find(&cx.home().join("runs"), Some(run))?));
    let baseline = baseline.transpose().context("reading the baseline")?;
    let body = args.request.body(&cx.root)?;
    let run = Run { args, plan: args.plan()?, body, baseline, dir, telling };
    let choice = clusters::choose(cx).await?;
    cx.output.note(&format!("{}: {}", choice.kind.name(), choice.why));
    let cluster = choice.kind.expect(cx).await?;
    let manifests = crate::manifests::read(&cx.root.join("kubernetes"), &cx.shared.namespace)?;
    cx.shows(cluster.watched(&manifests, &cx.shared.namespace));

    if let Some(protection) = args.without {
        experiment::allow(cx, protection, &cluster)?;
    }
    let app = App::of(cx, &cluster, &manifests);
    let left = if args.changes_app() {
        temporary::unmarked(&app).await.map(|()| Summary::new())?
    } else {
        temporary::warn(cx, app).await
    };
    let site = Site { cluster: &cluster, manifests: &manifests, namespace: &cx.shared.namespace };
    if args.is_gated() {
        ready::gates(branch, &site).await?;
    }
    let result = temporary::lasting(cx, app, async |changes| {
        let prepared = prepare(branch, changes, args, &site).await?;
        measure(branch, &run, &site, prepared.as_ref(), &left).await
    })
    .await;
    if args.changes_app() && !cx.is_stopped() {
        let settled = gates::settled::wait(branch, app.client, &site.rollout()).await;
        return unless(settled.map(drop), result);
    }
    result
}

/// One run, as it is asked for.
struct Run<'r> {
    args: &'r LoadArgs,
    /// How much is sent, and when.
    plan: Plan,
    /// What each request carries.
    body: Body,
    /// The run that this one is compared with.
    baseline: Option<Sample>,
    /// Where it is kept.
    dir: &'r Path,
    telling: Telling,
}

/// Removes the protection and prepares the disturbance that are asked for; requests then reach the pods that are left.
async fn prepare<'a>(
    branch: &mut Branch<'_>,
    changes: &mut Changes<'a>,
    args: &LoadArgs,
    site: &Site<'a>,
) -> Result<Option<Prepared<'a>>> {
    if let Some(protection) = args.without.filter(|_| args.is_gated()) {
        experiment::remove(branch, changes, protection, site).await?;
    }
    let prepared = match args.disturbance() {
        Some(what) => Some(Prepared::new(branch, changes, what, site.manifests).await?),
        None => None,
    };
    if args.is_gated() && args.changes_app() {
        ready::route(branch, site).await?;
    }
    Ok(prepared)
}

/// What lies between the gates and the report. `left` is what another run has left changed.
async fn measure(
    branch: &mut Branch<'_>,
    run: &Run<'_>,
    site: &Site<'_>,
    prepared: Option<&Prepared<'_>>,
    left: &Summary,
) -> Result<Summary> {
    let (cx, Site { cluster, manifests, namespace }) = (branch.cx, *site);
    let target = run.args.request.target(run.body.clone(), &cluster.entry, manifests.host()).await?;
    let canary = Target::get(&cluster.entry, manifests.host(), "/health").await?;
    let canary = cluster.nginx.then_some(&canary);
    let owner = Owner::of(&cluster.client, namespace, manifests.deployment_name()).await?;
    let watched = Watched { selector: owner.selector, ..cluster.watched(manifests, namespace) };
    let witness = Witness::start(&watched, run.dir, Bounds::NONE).await?;
    if !run.args.is_gated() {
        experiment::restart_entry(cluster).await?;
    } else if let Some(canary) = canary {
        ready::canary(branch, &witness, canary).await?;
    }
    let sent = send::run(branch, run, site, target, prepared).await?;
    let is_disturbed = prepared.is_some() || run.args.without.is_some();
    let settled = if is_disturbed && !sent.finished.stopped { settle(branch, site).await } else { Ok(()) };
    let gaps = close(cx, witness, canary, &sent.book).await?;
    let concluded = conclude::judge(run, &sent, gaps);
    conclude::tell(cx, run, &concluded);
    let mut summary = conclude::summary(cx, run, site, &concluded);
    summary.extend(left.clone());
    unless(settled, conclude::verdict(&concluded.end, summary))
}

/// What a load came to, unless it came to nothing worse than what followed: what was measured is told with that.
fn unless(followed: Result<()>, result: Result<Summary>) -> Result<Summary> {
    let summary = result?;
    followed.map(|()| summary.clone()).attach(summary)
}

/// Waits until what a disturbance or an experiment began is over: the witness sees it, and the next run does not.
async fn settle(branch: &mut Branch<'_>, site: &Site<'_>) -> Result<()> {
    let Site { cluster, manifests, namespace } = *site;
    let controller = async |branch: &mut Branch<'_>| {
        if !cluster.nginx {
            return Ok(());
        }
        let ingress = &manifests.ingress;
        gates::ingress_controller::wait(branch, &cluster.client, ingress, namespace).await.map(drop)
    };
    let rollout = site.rollout();
    let pods = async |branch: &mut Branch<'_>| gates::settled::wait(branch, &cluster.client, &rollout).await;
    branch.both(controller, pods).await.map(drop)
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
