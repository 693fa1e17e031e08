//! What a load came to: its books, its thresholds, and why what failed did; in the box, the report, the JSON summary
//! and the exit code.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};
use xtask_load::tally::Latency;

use super::send::Sent;
use super::threshold::{Figures, Threshold};
use super::{Run, Telling};
use crate::compare::{Comparison, Sample};
use crate::cx::Cx;
use crate::explain::{self, Explained};
use crate::failure::{Attach as _, Cancelled, Exit};
use crate::gates::Site;
use crate::options::Format;
use crate::record::RECORDS;
use crate::record::case::Case;
use crate::record::meta::{End, Verdict};
use crate::report::text;
use crate::share::Share;
use crate::summary::Summary;

/// Senders that were free and let a request wait longer than this are no instrument.
const MOST_LAG_MS: f64 = 100.0;
/// The same as a share of the median latency: what is slow itself is not blurred by a slow start.
const MOST_LAG_SHARE: f64 = 0.1;
/// Above this share of its time the generator measures itself.
const MOST_OWN_CPU: f64 = 0.9;

/// What a load came to.
pub(super) struct Concluded {
    pub(super) end: End,
    /// Requests without an answer, by what went wrong.
    errors: BTreeMap<String, u64>,
    explained: Explained,
    /// With the baseline, where there is one.
    comparison: Option<Comparison>,
}

/// Closes the books: explains what failed, judges the thresholds, and keeps it all in the run's folder. `gaps` is what
/// was not seen meanwhile.
pub(super) fn judge(run: &Run<'_>, sent: &Sent, gaps: Vec<String>) -> Concluded {
    let mut meta = sent.meta.clone();
    let mut end = end(sent, gaps);
    end.files = crate::record::sizes(run.dir);
    meta.end = Some(end.clone());
    let (failures, errors) = {
        let tally = sent.book.tally();
        (tally.failures.clone(), tally.errors.clone())
    };
    let mut explained = explain::explain(Case::of(meta, run.dir, &failures, None));
    let figures = Figures { unexplained: Some(explained.unexplained() as u64), ..Figures::of(&end) };
    let baseline = run.baseline.as_ref().map(|sample| Figures::of(sample.end()));
    let judge = |threshold: &Threshold| threshold.judge(&figures, baseline.as_ref());
    end.thresholds = run.args.threshold.iter().map(judge).collect();
    let comparison = run.baseline.as_ref().and_then(|baseline| {
        let compared = Sample::of(run.dir, &explained.meta).map(|run| baseline.compare(&run));
        compared.map_err(|why| end.gaps.push(format!("a comparison with the baseline: {why:#}"))).ok()
    });
    end.thresholds.extend(comparison.iter().flat_map(Comparison::judged));
    explained.meta.end = Some(end.clone());
    end.gaps.extend(explained.meta.write(run.dir).err().map(|error| format!("{error:#}")));
    Concluded { end, errors, explained, comparison }
}

/// Tells it to a person.
pub(super) fn tell(cx: &Cx, run: &Run<'_>, concluded: &Concluded) {
    let Concluded { end, errors, explained, comparison } = concluded;
    if run.telling == Telling::Brief {
        cx.output.note(&brief(end, &cx.short(run.dir).to_string()));
    } else if cx.shared.output == Format::Human {
        cx.output.data(&text::summary(&explained.meta, end, errors));
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
    if let Some(without) = explained.meta.without.as_ref().filter(|_| run.telling == Telling::Whole) {
        cx.output.note(&worth(cx, without, end, explained));
    }
    for differs in comparison.iter().flat_map(Comparison::differs) {
        cx.output.note(&format!("warning: {differs}"));
    }
    for gap in end.gaps.iter().chain(&explained.missing) {
        cx.output.note(&format!("warning: missing: {gap}"));
    }
}

/// The same in JSON. One of several runs has its report drawn here; that of a run of its own is drawn when all of it
/// is over.
pub(super) fn summary(cx: &Cx, run: &Run<'_>, site: &Site<'_>, concluded: &Concluded) -> Summary {
    let Concluded { end, errors, explained, comparison } = concluded;
    let mut summary = site.cluster.summary(site.manifests);
    if run.telling == Telling::Brief {
        let page = crate::report::write(run.dir, None).context("drawing the report");
        if let Err(error) = &page {
            cx.output.note(&format!("warning: there is no report: {error:#}"));
        }
        summary.insert("report".into(), json!(page.ok()));
    }
    summary.extend(explained.json());
    let generator = json!({"lag_ms": end.lag_ms, "own_cpu": end.own_cpu, "valid": end.invalid.is_none()});
    let fields = [
        ("scheduled", json!(end.scheduled)),
        ("buckets", json!(end.buckets)),
        ("latency_ms", percentiles(end.latency_ms)),
        ("sent_latency_ms", percentiles(end.sent_latency_ms)),
        ("success_rate", json!(end.success_rate())),
        ("throughput", json!(end.throughput())),
        ("errors", json!(errors)),
        ("seconds", json!(end.seconds)),
        ("generator", generator),
        ("plan", json!(explained.meta.plan)),
        ("without", json!(explained.meta.without)),
        ("marks", json!(explained.meta.marks)),
        ("interrupted", json!(end.interrupted)),
        ("gaps", json!(end.gaps)),
        ("run", json!(run.dir)),
        ("comparison", json!(comparison.as_ref().map(Comparison::json))),
    ];
    summary.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
    summary
}

/// What the command ends with.
///
/// # Errors
/// When a threshold is not met, the run is invalid, or it was stopped.
pub(super) fn verdict(end: &End, summary: Summary) -> Result<Summary> {
    match end.verdict() {
        Verdict::Passed => Ok(summary),
        Verdict::Failed(why) => Err(anyhow!("not met: {why}"))
            .attach(summary)
            .hint("`cargo xtask explain` shows again why each request failed, from the records of this run")
            .exit(Exit::Threshold),
        Verdict::Invalid(why) => Err(anyhow!("this run is invalid: {why}"))
            .attach(summary)
            .hint(
                "lower --rate or --concurrency, raise the limit of open files (`ulimit -n`), or run the \
                 generator on a machine with cores to spare",
            )
            .exit(Exit::InvalidRun),
        // Whoever stopped it reports why.
        Verdict::Interrupted => Err(Cancelled).attach(summary),
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

fn end(sent: &Sent, mut gaps: Vec<String>) -> End {
    let Sent { book, finished, open_files, .. } = sent;
    let unwritten = finished.unwritten.as_ref();
    gaps.extend(unwritten.map(|error| format!("{RECORDS} could not be written: {error}")));
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
             open files: {open_files})"
        )),
    };
    end
}

/// Why the generator's own lateness is in the figures; none if it is not.
fn behind(end: &End) -> Option<String> {
    let lag = end.lag_ms.p99;
    let median = end.sent_latency_ms.map_or(0.0, |latency| latency.p50);
    if lag > MOST_LAG_MS && lag > median * MOST_LAG_SHARE {
        return Some(format!(
            "the generator sent requests up to {lag:.0} ms (p99) later than it should have; its own delay \
             is in the figures"
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
