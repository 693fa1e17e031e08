//! The load while it is sent: how far it is, and the disturbance in its middle.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use xtask_load::client::Target;
use xtask_load::run::{Finished, Plan};
use xtask_load::tally::Book;

use super::args::LoadArgs;
use super::conclude::figures;
use super::disturb::Prepared;
use super::threshold::Figures;
use crate::cx::Cx;
use crate::options::Format;
use crate::pipeline::{Branch, Done, Outcome, Running, step};
use crate::record::meta::{Mark, Meta};
use crate::report::text::{self, Progress};

/// The name of the step.
pub(super) const NAME: &str = "load";
/// The share of the load that is done when the disturbance comes.
const DISTURB_AT: f64 = 0.2;
/// The live line changes this often.
const LIVE_EVERY: Duration = Duration::from_millis(500);

/// The load and what happens around it.
pub(super) struct Load<'l> {
    pub(super) cx: &'l Cx,
    pub(super) args: &'l LoadArgs,
    pub(super) plan: &'l Plan,
    pub(super) book: &'l Arc<Book>,
    pub(super) dir: &'l Path,
    pub(super) prepared: Option<&'l Prepared<'l>>,
    pub(super) baseline: Option<&'l Figures>,
}

impl Load<'_> {
    /// Sends the load, says how far it is, and disturbs it where that is asked for.
    ///
    /// # Errors
    /// When the records can't be kept, or the disturbance fails.
    pub(super) async fn send(
        &self,
        branch: &mut Branch<'_>,
        target: Target,
        meta: &mut Meta,
    ) -> Result<Done<Finished>> {
        let Load { cx, plan, book, .. } = *self;
        step(branch, NAME, async |step| {
            meta.began = Timestamp::now();
            let began = Instant::now();
            meta.write(self.dir)?;
            let stop = CancellationToken::new();
            let sending = xtask_load::run::run(target, plan.clone(), Arc::clone(book), stop.clone(), began);
            let mut sending = std::pin::pin!(sending);
            let mut disturbing = std::pin::pin!(self.disturb(began));
            let mut disturbed = self.prepared.is_none();
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
                    () = tokio::time::sleep(Duration::from_millis(100)) => told.tell(cx, step, self),
                }
            };
            told.tell(cx, step, self);
            let buckets = book.tally().buckets;
            let how = format!(
                "{} of {} ok, {:.1} s, {}",
                buckets.ok,
                finished.scheduled,
                finished.took.as_secs_f64(),
                plan.line()
            );
            if finished.stopped {
                return Ok(Outcome::Bad(finished, format!("interrupted; {how}")));
            }
            if !disturbed {
                step.warn("the load ended before its disturbance: raise --requests or --duration");
            }
            let figures = figures(book, &finished);
            let known = self.args.threshold.iter().filter(|threshold| !threshold.needs_causes());
            let is_good = buckets.ok > 0
                && known.into_iter().all(|threshold| threshold.judge(&figures, self.baseline).met);
            Ok(if is_good { Outcome::Did(finished, how) } else { Outcome::Bad(finished, how) })
        })
        .await
    }

    /// Waits for its moment, and disturbs.
    async fn disturb(&self, began: Instant) -> Result<Mark> {
        let Some(prepared) = self.prepared else { return std::future::pending().await };
        let (total, end) = (self.plan.schedule.total(), self.plan.schedule.end());
        let is_time = || {
            let done = self.book.tally().buckets.sum() as f64;
            total.is_some_and(|total| done >= total as f64 * DISTURB_AT)
                || end.is_some_and(|end| began.elapsed() >= end.mul_f64(DISTURB_AT))
        };
        while !is_time() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        prepared.disturb().await
    }
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
    fn tell(&mut self, cx: &Cx, step: &Running<'_>, load: &Load<'_>) {
        let (total, elapsed) = (load.plan.schedule.total(), step.elapsed());
        let (buckets, latency) = {
            let tally = load.book.tally();
            (tally.buckets, tally.so_far())
        };
        let tenths = total.map_or(0, |total| buckets.sum() * 10 / total.max(1));
        let seconds = elapsed.as_secs() / 10;
        if tenths > self.tenths || seconds > self.seconds {
            step.progress(text::progress(buckets, total));
        } else if cx.shared.output == Format::Human && elapsed >= self.live + LIVE_EVERY {
            self.live = elapsed;
            let end = load.plan.schedule.end();
            step.at(Progress { buckets, total, elapsed, end, latency }.line());
        }
        (self.tenths, self.seconds) = (tenths, seconds);
    }
}
