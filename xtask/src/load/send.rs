//! The load while it is sent: how far it is, and the disturbance in its middle.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use xtask_load::client::Target;
use xtask_load::run::Finished;
use xtask_load::schedule::Schedule;
use xtask_load::tally::Book;

use super::Run;
use super::disturb::Prepared;
use super::experiment::Protection;
use super::threshold::Figures;
use crate::cx::Cx;
use crate::gates::Site;
use crate::options::Format;
use crate::pipeline::{Branch, Done, Outcome, Running, step};
use crate::record::RECORDS;
use crate::record::meta::{Mark, Meta};
use crate::report::text::{self, Progress};

/// The name of the step.
pub(super) const NAME: &str = "load";
/// The share of the load that is done when the disturbance comes.
const DISTURB_AT: f64 = 0.2;
/// The live line changes this often.
const LIVE_EVERY: Duration = Duration::from_millis(500);

/// What was sent.
pub(super) struct Sent {
    pub(super) meta: Meta,
    /// Every request.
    pub(super) book: Arc<Book>,
    /// How the sending ended.
    pub(super) finished: Finished,
    /// The limit of open files that it was held to.
    pub(super) open_files: u64,
}

/// Sends the load, says how far it is, and disturbs it where that is asked for.
///
/// # Errors
/// When the records can't be kept, or the disturbance fails.
pub(super) async fn run(
    branch: &mut Branch<'_>,
    run: &Run<'_>,
    site: &Site<'_>,
    target: Target,
    prepared: Option<&Prepared<'_>>,
) -> Result<Done<Sent>> {
    let (cx, plan) = (branch.cx, &run.plan);
    let mut meta = Meta {
        began: Timestamp::now(),
        entry: site.cluster.entry.clone(),
        host: site.manifests.host().to_owned(),
        request: target.line(),
        namespace: site.namespace.to_owned(),
        plan: plan.line(),
        without: run.args.without.map(Protection::name),
        marks: Vec::new(),
        end: None,
    };
    let book = Arc::new(Book::open(Some(&run.dir.join(RECORDS)))?);
    let open_files = xtask_load::files::allow(plan.concurrency);
    step(branch, NAME, async |step| {
        meta.began = Timestamp::now();
        let began = Instant::now();
        meta.write(run.dir)?;
        let stop = CancellationToken::new();
        let sending = xtask_load::run::run(target, plan.clone(), Arc::clone(&book), stop.clone(), began);
        let mut sending = std::pin::pin!(sending);
        let mut disturbing = std::pin::pin!(disturb(prepared, &plan.schedule, &book, began));
        let mut disturbed = prepared.is_none();
        let mut told = Told::default();
        let finished = loop {
            tokio::select! {
                finished = &mut sending => break finished?,
                () = cx.stopped(), if !stop.is_cancelled() => stop.cancel(),
                mark = &mut disturbing, if !disturbed => {
                    disturbed = true;
                    let mark = mark?;
                    step.warn(mark.what.as_str());
                    meta.marks.push(mark);
                }
                () = tokio::time::sleep(Duration::from_millis(100)) => {
                    told.tell(cx, step, &plan.schedule, &book);
                }
            }
        };
        told.tell(cx, step, &plan.schedule, &book);
        let ok = book.tally().buckets.ok;
        let (scheduled, seconds) = (finished.scheduled, finished.took.as_secs_f64());
        let how = format!("{ok} of {scheduled} ok, {seconds:.1} s, {}", plan.line());
        let is_good = ok > 0 && meets_thresholds(run, &book, &finished);
        let stopped = finished.stopped;
        let sent = Sent { meta, book: Arc::clone(&book), finished, open_files };
        if stopped {
            return Ok(Outcome::Bad(sent, format!("interrupted; {how}")));
        }
        if !disturbed {
            step.warn("the load ended before its disturbance: raise --requests or --duration");
        }
        Ok(if is_good { Outcome::Did(sent, how) } else { Outcome::Bad(sent, how) })
    })
    .await
}

/// Whether the thresholds are met that need no cause of a failure.
fn meets_thresholds(run: &Run<'_>, book: &Book, finished: &Finished) -> bool {
    let baseline = run.baseline.as_ref().map(|sample| Figures::of(sample.end()));
    let figures = figures(book, finished);
    let mut known = run.args.threshold.iter().filter(|threshold| !threshold.needs_causes());
    known.all(|threshold| threshold.judge(&figures, baseline.as_ref()).met)
}

/// What thresholds see before the failures are explained.
fn figures(book: &Book, finished: &Finished) -> Figures {
    let tally = book.tally();
    Figures {
        buckets: tally.buckets,
        due: tally.from_due(),
        sent: tally.from_sent(),
        throughput: tally.buckets.ok as f64 / finished.took.as_secs_f64().max(1e-9),
        unexplained: None,
    }
}

/// Waits for its moment, and disturbs; never, where no disturbance is prepared.
async fn disturb(
    prepared: Option<&Prepared<'_>>,
    schedule: &Schedule,
    book: &Book,
    began: Instant,
) -> Result<Mark> {
    let Some(prepared) = prepared else { return std::future::pending().await };
    let (total, end) = (schedule.total(), schedule.end());
    let is_time = || {
        let done = book.tally().buckets.sum() as f64;
        total.is_some_and(|total| done >= total as f64 * DISTURB_AT)
            || end.is_some_and(|end| began.elapsed() >= end.mul_f64(DISTURB_AT))
    };
    while !is_time() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    prepared.disturb().await
}

/// What of the progress was told.
#[derive(Default)]
struct Told {
    tenths: u64,
    seconds: u64,
    live: Duration,
}

impl Told {
    /// A line at each tenth of the requests, or every ten seconds; between them, the live line.
    fn tell(&mut self, cx: &Cx, step: &Running<'_>, schedule: &Schedule, book: &Book) {
        let (total, elapsed) = (schedule.total(), step.elapsed());
        let (buckets, latency) = {
            let tally = book.tally();
            (tally.buckets, tally.so_far())
        };
        let tenths = total.map_or(0, |total| buckets.sum() * 10 / total.max(1));
        let seconds = elapsed.as_secs() / 10;
        if tenths > self.tenths || seconds > self.seconds {
            step.progress(text::progress(buckets, total));
        } else if cx.shared.output == Format::Human && elapsed >= self.live + LIVE_EVERY {
            self.live = elapsed;
            step.at(Progress { buckets, total, elapsed, end: schedule.end(), latency }.line());
        }
        (self.tenths, self.seconds) = (tenths, seconds);
    }
}
