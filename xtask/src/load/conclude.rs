//! What a load came to: its books, its thresholds, and why what failed did; in the box, the report, the JSON summary
//! and the exit code.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};
use xtask_load::run::Finished;
use xtask_load::tally::{Book, Latency};

use super::threshold::{Figures, Threshold};
use super::{Scene, Telling};
use crate::compare::{Comparison, Sample};
use crate::cx::Cx;
use crate::explain::{self, Explained};
use crate::failure::{Attach as _, Cancelled, Exit};
use crate::options::Format;
use crate::record::case::Case;
use crate::record::meta::{End, Meta, Verdict};
use crate::report::text;
use crate::share::Share;
use crate::summary::Summary;

/// Senders that were free and let a request wait longer than this are no instrument.
const MOST_LAG_MS: f64 = 100.0;
/// The same as a share of the median latency: what is slow itself is not blurred by a slow start.
const MOST_LAG_SHARE: f64 = 0.1;
/// Above this share of its time the generator measures itself.
const MOST_OWN_CPU: f64 = 0.9;

/// What was measured.
pub(super) struct Measured<'m> {
    /// Every request.
    pub(super) book: &'m Book,
    /// How the sending ended.
    pub(super) finished: &'m Finished,
    /// The limit of open files that it was held to.
    pub(super) open_files: u64,
    /// What was not seen meanwhile, or not written down.
    pub(super) gaps: Vec<String>,
}

impl Scene<'_> {
    /// Says what the run came to, everywhere, and ends with its verdict.
    ///
    /// # Errors
    /// When a threshold is not met, the run is invalid, or it was stopped.
    pub(super) fn conclude(&self, mut meta: Meta, measured: Measured<'_>) -> Result<Summary> {
        let (dir, book) = (self.dir, measured.book);
        let mut end = end(measured);
        end.files = crate::record::sizes(dir);
        meta.end = Some(end.clone());
        let failures = book.tally().failures.clone();
        let mut explained = explain::explain(Case::of(meta, dir, &failures, None));
        let figures = Figures { unexplained: Some(explained.unexplained() as u64), ..Figures::of(&end) };
        let baseline = self.baseline.map(|sample| Figures::of(sample.end()));
        let judge = |threshold: &Threshold| threshold.judge(&figures, baseline.as_ref());
        end.thresholds = self.args.threshold.iter().map(judge).collect();
        let comparison = self.baseline.and_then(|baseline| {
            let compared = Sample::of(dir, &explained.meta).map(|run| baseline.compare(&run));
            compared.map_err(|why| end.gaps.push(format!("a comparison with the baseline: {why:#}"))).ok()
        });
        end.thresholds.extend(comparison.iter().flat_map(Comparison::judged));
        explained.meta.end = Some(end.clone());
        end.gaps.extend(explained.meta.write(dir).err().map(|error| format!("{error:#}")));
        let errors = book.tally().errors.clone();
        self.tell(&end, &errors, &explained, comparison.as_ref())
    }

    fn tell(
        &self,
        end: &End,
        errors: &BTreeMap<String, u64>,
        explained: &Explained,
        comparison: Option<&Comparison>,
    ) -> Result<Summary> {
        let Scene { cx, cluster, manifests, .. } = *self;
        let meta = &explained.meta;
        let is_whole = self.telling == Telling::Whole;
        if !is_whole {
            cx.output.note(&brief(end, &cx.short(self.dir).to_string()));
        } else if cx.shared.output == Format::Human {
            cx.output.data(&text::summary(meta, end, errors));
            if let Some(comparison) = comparison {
                cx.output.data(comparison.text().trim_end());
            }
            let causes = explain::causes(&explained.failures, &explained.slow);
            if !causes.is_empty() {
                cx.output.data(causes.trim_end());
            }
            if explained.slow.count > 0 {
                cx.output.note("`cargo xtask explain --slow` shows what the causes of slow answers rest on");
            }
        }
        if let Some(without) = meta.without.as_ref().filter(|_| is_whole) {
            cx.output.note(&worth(cx, without, end, explained));
        }
        for differs in comparison.iter().flat_map(|comparison| comparison.differs()) {
            cx.output.note(&format!("warning: {differs}"));
        }
        for gap in end.gaps.iter().chain(&explained.missing) {
            cx.output.note(&format!("warning: missing: {gap}"));
        }
        let mut summary = cluster.summary(manifests);
        // That of a run of its own is drawn when all of it is over.
        if !is_whole {
            let page = crate::report::write(self.dir, None).context("drawing the report");
            if let Err(error) = &page {
                cx.output.note(&format!("warning: there is no report: {error:#}"));
            }
            summary.insert("report".into(), json!(page.ok()));
        }
        summary.extend(explained.json());
        summary.extend(self.left.clone());
        let fields = [
            ("scheduled", json!(end.scheduled)),
            ("buckets", json!(end.buckets)),
            ("latency_ms", percentiles(end.latency_ms)),
            ("sent_latency_ms", percentiles(end.sent_latency_ms)),
            ("success_rate", json!(end.success_rate())),
            ("throughput", json!(end.throughput())),
            ("errors", json!(errors)),
            ("seconds", json!(end.seconds)),
            (
                "generator",
                json!({"lag_ms": end.lag_ms, "own_cpu": end.own_cpu, "valid": end.invalid.is_none()}),
            ),
            ("plan", json!(meta.plan)),
            ("without", json!(meta.without)),
            ("marks", json!(meta.marks)),
            ("interrupted", json!(end.interrupted)),
            ("gaps", json!(end.gaps)),
            ("run", json!(self.dir)),
            ("comparison", json!(comparison.map(Comparison::json))),
        ];
        summary.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));

        match end.verdict() {
            Verdict::Passed => Ok(summary),
            Verdict::Failed(why) => Err(anyhow!("not met: {why}"))
                .attach(summary)
                .hint(
                    "`cargo xtask explain` shows again why each request failed, from the records of this \
                       run",
                )
                .exit(Exit::Threshold),
            Verdict::Invalid(why) => Err(anyhow!("this run is invalid: {why}"))
                .attach(summary)
                .hint(
                    "lower --rate or --concurrency, raise the limit of open files (`ulimit -n`), or run the \
                     generator on \
                     a machine with cores to spare",
                )
                .exit(Exit::InvalidRun),
            // Why it was stopped is said by whoever stopped it.
            Verdict::Interrupted => Err(Cancelled).attach(summary),
        }
    }
}

/// What a protection was worth by one run without it.
fn worth(cx: &Cx, without: &str, end: &End, explained: &Explained) -> String {
    let share = Share::of(&[(end.buckets.failed(), end.scheduled)]);
    let late = explained.slow.answers.iter().filter(|slow| slow.parts.lost_tries > 0.0).count();
    let late = if late > 0 {
        format!(", and {late} more were answered only after a lost try")
    } else {
        String::new()
    };
    let prove = cx.commands.xtask(&format!("prove --protection {without}"));
    format!("without {without} {}{late}; `{prove}` measures the same with it", share.requests("failed"))
}

/// How one of several runs ended.
fn brief(end: &End, dir: &str) -> String {
    let latency = end
        .latency_ms
        .map_or_else(String::new, |Latency { p50, p99, .. }| format!("; p50 {p50:.1} ms, p99 {p99:.1} ms"));
    format!("{}{latency}; {dir}", end.headline())
}

fn end(Measured { book, finished, open_files, gaps }: Measured<'_>) -> End {
    let tally = book.tally();
    let mut end = End {
        scheduled: finished.scheduled,
        buckets: tally.buckets,
        latency_ms: tally.from_due(),
        sent_latency_ms: tally.from_sent(),
        lag_ms: tally.lag(),
        seconds: finished.took.as_secs_f64(),
        own_cpu: finished.own_cpu,
        gaps,
        thresholds: Vec::new(),
        invalid: None,
        interrupted: finished.stopped,
        files: BTreeMap::new(),
    };
    end.invalid = match tally.own_limit {
        0 => behind(&end),
        requests => Some(format!(
            "the generator ran out of open files or ports: {requests} requests could not be sent (limit of \
             open files: \
             {open_files})"
        )),
    };
    end
}

/// What thresholds see before the failures are explained.
pub(super) fn figures(book: &Book, finished: &Finished) -> Figures {
    let tally = book.tally();
    Figures {
        buckets: tally.buckets,
        due: tally.from_due(),
        sent: tally.from_sent(),
        throughput: tally.buckets.ok as f64 / finished.took.as_secs_f64().max(1e-9),
        unexplained: None,
    }
}

/// Why the generator's own lateness is in the figures; none if it is not.
fn behind(end: &End) -> Option<String> {
    let lag = end.lag_ms.p99;
    let median = end.sent_latency_ms.map_or(0.0, |latency| latency.p50);
    if lag > MOST_LAG_MS && lag > median * MOST_LAG_SHARE {
        return Some(format!(
            "the generator sent requests up to {lag:.0} ms (p99) later than it should have; its own delay \
             is in the \
             figures"
        ));
    }
    if end.own_cpu > MOST_OWN_CPU {
        return Some(format!(
            "the generator was busy {:.0} % of the time: the figures measure it, not the server",
            end.own_cpu * 100.0
        ));
    }
    None
}

/// Percentiles in JSON; each is null where nothing was measured.
fn percentiles(latency: Option<Latency>) -> Value {
    let mut all = json!(latency.unwrap_or_default());
    if let (None, Some(fields)) = (latency, all.as_object_mut()) {
        fields.values_mut().for_each(|value| *value = Value::Null);
    }
    all
}
