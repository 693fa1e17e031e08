//! `cargo xtask dev`: each save is built, applied and verified, while the pods of the last good one go on serving.

use std::time::Instant;

use anyhow::Result;

use crate::clusters::{self, Choice, Kind};
use crate::cx::Cx;
use crate::failure::{Cancelled, is_echo};
use crate::manifests::{self, Manifests};
use crate::options::{Deploy, Format};
use crate::output::{Cycle, Ending, Keys};
use crate::pipeline::Branch;
use crate::plan::Planned;
use crate::steps;
use crate::steps::apply::Known;
use crate::steps::restart::Restart;
use crate::summary::Summary;
use crate::up::{self, Up, say_where, verify};

mod changes;
mod watch;

use changes::{Change, Changes, Sources};

/// Ends it.
const QUIT: u8 = b'q';

/// Brings everything up, then does for each save what it needs, one at a time, until it is told to stop.
///
/// # Errors
/// When nothing can be watched, when no cluster runs after the first attempt, or it has gone; what a save leads to is
/// shown, and is none.
pub async fn run(cx: &Cx, deploy: Deploy) -> Result<Summary> {
    let choice = clusters::choose(cx).await?;
    cx.output.note(&format!("{}: {}", choice.kind.name(), choice.why));
    let mut changes = Changes::begin(cx)?;
    cx.output.brief();
    let mut keys = cx.output.keys();
    let how = if keys.are_taken() { "q or Ctrl-C" } else { "Ctrl-C" };
    cx.output.note(&format!(
        "watching app/, kubernetes/ and Cargo's files; {how} ends it, and leaves the cluster as it is"
    ));

    let mut deployed = Deployed { choice: &choice, deploy, known: Known::default(), last: None };
    let mut change = Change { paths: Vec::new(), since: Instant::now() };
    let mut number = 0;
    loop {
        number += 1;
        let round = cx.within(change.since);
        let sources = changes.seen().clone();
        let (result, next) = {
            let mut work = std::pin::pin!(guarded(&round, deployed.follow(&round, &sources)));
            tokio::select! {
                biased;
                result = &mut work => (result, None),
                next = coming(cx, &mut changes, &mut keys) => {
                    round.stop_failed();
                    (work.await, Some(next?))
                }
            }
        };
        let result = round.verdict(result);
        if cx.is_stopped() {
            return Err(Cancelled.into());
        }
        if result.is_err() && cx.has_gone().await {
            return Err(Cancelled.into());
        }
        // What keeps the cluster from running is no file's fault, and no save's to cure.
        let is_first = deployed.last.is_none() && next.is_none();
        if is_first && result.is_err() && cx.unless_stopped(choice.kind.find(cx)).await?.is_none() {
            return result.map(|()| Summary::new());
        }
        report(&round, number, &change, &result, next.as_ref());
        choice.kind.watch_over(cx);
        let next = match next {
            Some(next) => next,
            None => cx.unless_stopped(coming(cx, &mut changes, &mut keys)).await?,
        };
        match next {
            Next::Save(save) => change = save,
            Next::Quit => return Ok([("cycles".to_owned(), number.into())].into_iter().collect()),
        }
    }
}

/// What happens while nothing or a cycle is under way.
enum Next {
    Save(Change),
    Quit,
}

/// Waits for it; nothing is lost when the wait is given up.
///
/// # Errors
/// When a new folder can't be watched.
async fn coming(cx: &Cx, changes: &mut Changes<'_>, keys: &mut Keys<'_>) -> Result<Next> {
    let reader_leaves = async {
        match cx.shared.output {
            Format::Json => cx.output.reader_leaves().await,
            Format::Human => std::future::pending().await,
        }
    };
    tokio::select! {
        save = changes.next() => save.map(Next::Save),
        () = keys.pressed(QUIT) => Ok(Next::Quit),
        () = reader_leaves => Ok(Next::Quit),
    }
}

/// Does `work`, unless the cluster goes under it.
async fn guarded<T>(round: &Cx, work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        done = &mut work => done,
        () = round.watch_over() => work.await,
    }
}

fn report(round: &Cx, number: usize, change: &Change, result: &Result<()>, next: Option<&Next>) {
    let ending = match (result, next) {
        (Ok(()), _) => Ending::Serves,
        (Err(error), Some(Next::Quit)) if is_echo(error) => return,
        (Err(error), Some(Next::Save(_))) if is_echo(error) => Ending::Cancelled,
        (Err(error), _) => Ending::Failed(error),
    };
    let (changed, seconds) = (&change.paths, round.began.elapsed().as_secs_f64());
    let spans = round.spans().clone();
    round.output.cycle(&Cycle { number, changed, spans: &spans, seconds, ending });
}

/// What is deployed, as far as is known.
struct Deployed<'c> {
    choice: &'c Choice,
    deploy: Deploy,
    known: Known,
    /// What was up last, and what it was made of.
    last: Option<(Up, Sources)>,
}

impl Deployed<'_> {
    /// Deploys what has changed since the last time; the first time, everything.
    async fn follow(&mut self, cx: &Cx, sources: &Sources) -> Result<()> {
        let branch = &mut Branch::first(cx);
        let Some((up, made_of)) = &mut self.last else {
            self.known = Known::default();
            let up = up::bring_up(branch, self.choice, self.deploy, &self.known).await?;
            say_where(cx, &up.cluster, &up.checked.manifests);
            self.last = Some((up, sources.clone()));
            return Ok(());
        };
        self.choice.kind.watch_over(cx);
        let manifests = manifests::read(&cx.root.join("kubernetes"), &cx.shared.namespace)?;
        if made_of.image != sources.image {
            up.image = steps::image::run(branch, &up.cluster, &up.weights, None).await?;
            made_of.image.clone_from(&sources.image);
        }
        let (cluster, image) = (&up.cluster, &up.image);
        let applied = steps::apply::run(branch, cluster, &manifests, image, &self.known, None).await?;
        steps::restart::run(branch, cluster, &manifests, image, &applied, Restart::IfNeeded).await?;
        let prune = async |branch: &mut Branch<'_>| {
            if made_of.manifests != sources.manifests {
                steps::prune::run(branch, cluster, &manifests, self.deploy.prune).await?;
            }
            Ok(())
        };
        branch.both(prune, async |branch| verify(branch, cluster, &manifests).await).await?;
        made_of.manifests.clone_from(&sources.manifests);
        Ok(())
    }
}

/// What [`run`] would do: what `up` does, then this for each save.
///
/// # Errors
/// When the cluster's own tool can't be asked.
pub async fn plan(cx: &Cx, kind: &Kind, manifests: &Manifests, deploy: Deploy) -> Result<Vec<Planned>> {
    let mut plan = up::plan(cx, kind, manifests, deploy).await?;
    let does = vec![
        "a save in app/ or of Cargo's files: image, apply what that changes, rollout, route, smoke"
            .to_owned(),
        "a save in kubernetes/: apply what has changed, rollout, route, smoke, prune; nothing is compiled"
            .to_owned(),
        "a newer save: cancel what is under way".to_owned(),
    ];
    plan.push(Planned::gates(does, Vec::new()));
    Ok(plan)
}
