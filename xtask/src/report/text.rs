//! What a person reads of a run: the progress and the box at its end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use xtask_load::tally::{Buckets, Latency};

use crate::record::meta::{End, Meta};

/// The box, frame and all: it fits the narrowest terminal that people use.
const WIDTH: usize = 60;
/// A line inside the frame.
const INSIDE: usize = WIDTH - 4;
/// The column of names; the latencies' seven columns of six are beside it.
const NAMES: usize = 14;
/// Errors that are listed.
const MOST_ERRORS: usize = 10;
/// Cells of the progress bar.
const BAR: u64 = 10;

/// `Progress: 5/50 (10%) — 5 ok, 0 err`.
pub fn progress(buckets: Buckets, total: Option<u64>) -> String {
    let done = buckets.sum();
    let of = match total {
        Some(total) => format!("/{total} ({}%)", done * 100 / total.max(1)),
        None => String::new(),
    };
    format!("Progress: {done}{of} — {} ok, {} err", buckets.ok, buckets.failed())
}

/// How far a load has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// How requests ended so far.
    pub buckets: Buckets,
    /// Requests in the schedule, where their number is known.
    pub total: Option<u64>,
    /// Time since the first request was due.
    pub elapsed: Duration,
    /// When the schedule ends, where it has an end in time.
    pub end: Option<Duration>,
    /// p50 and p99 in milliseconds, once there is an answer.
    pub latency: Option<(f64, f64)>,
}

impl Progress {
    /// The live line: a bar, what is left, requests a second, p50 and p99. What matters most comes first, for a narrow
    /// terminal cuts the rest off.
    pub fn line(&self) -> String {
        let Progress { buckets, total, elapsed, end, latency } = *self;
        let done = buckets.sum();
        let seconds = elapsed.as_secs_f64().max(1e-3);
        let rate = done as f64 / seconds;
        let by_time =
            end.map(|end| (seconds / end.as_secs_f64().max(1e-3), end.saturating_sub(elapsed).as_secs_f64()));
        let by_count = total
            .filter(|_| done > 0)
            .map(|total| (done as f64 / total.max(1) as f64, total.saturating_sub(done) as f64 / rate));
        let mut parts = Vec::new();
        if let Some((share, left)) = by_time.or(by_count) {
            let share = share.clamp(0.0, 1.0);
            let cells = (share * BAR as f64) as usize;
            let bar = "█".repeat(cells) + &"░".repeat(BAR as usize - cells);
            parts.push(format!("{bar} {:.0} %", share * 100.0));
            parts.push(format!("{left:.0} s left"));
        } else {
            parts.push(format!("{done} done"));
        }
        if buckets.failed() > 0 {
            parts.push(format!("{} failed", buckets.failed()));
        }
        parts.push(format!("{}/s", short(rate)));
        parts.extend(latency.map(|(p50, p99)| format!("p50 {} p99 {} ms", short(p50), short(p99))));
        parts.join(", ")
    }
}

/// The box at a run's end.
pub fn summary(meta: &Meta, end: &End, errors: &BTreeMap<String, u64>) -> String {
    let Buckets { ok, http_error, socket_error, timeout, dropped, unsent } = end.buckets;
    let seconds = end.seconds.max(1e-9);
    let mut lines = Lines::default();
    lines.text(&format!("{}: {}", meta.request, meta.plan));
    lines.text(&format!(
        "{} scheduled, {:.2} s, {:.1} ok/s",
        end.scheduled,
        end.seconds,
        ok as f64 / seconds
    ));
    lines.0.push(String::new());
    lines.field("Successes", &ok.to_string());
    lines.field("Failures", &end.buckets.failed().to_string());
    lines.field(
        "Success rate",
        &end.success_rate().map_or_else(|| "–".to_owned(), |rate| format!("{rate:.2} %")),
    );
    lines.field(
        "Accounting",
        &format!(
            "{ok} ok + {http_error} http + {socket_error} socket + {timeout} timeout + {dropped} dropped + \
             {unsent} unsent = {}",
            end.scheduled
        ),
    );
    let mut errors: Vec<_> = errors.iter().collect();
    errors.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for (index, (code, count)) in errors.iter().take(MOST_ERRORS).enumerate() {
        lines.field(if index == 0 { "Errors" } else { "" }, &format!("{count} × {code}"));
    }
    lines.0.push(String::new());
    let names = ["min", "p50", "p90", "p95", "p99", "p99.9", "max"].map(|name| format!("{name:>6}")).concat();
    lines.0.push(format!("{:<NAMES$}{names}", "Latency (ms)"));
    lines.0.push(format!("{:<NAMES$}{}", "  from due", row(end.latency_ms.as_ref())));
    lines.0.push(format!("{:<NAMES$}{}", "  from sent", row(end.sent_latency_ms.as_ref())));
    let (lag, busy) = (end.lag_ms.p99, end.own_cpu * 100.0);
    lines.field("Generator", &format!("lag p99 {lag:.1} ms, busy {busy:.0} % of the time"));
    lines.0.push(String::new());
    for (index, judged) in end.thresholds.iter().enumerate() {
        let name = if index == 0 { "Thresholds" } else { "" };
        lines.field(name, &format!("{} {}: {}", judged.mark(), judged.threshold, judged.measured()));
    }
    lines.text(&end.headline());
    lines.boxed(&format!("load {} {}", end.verdict().mark(), end.verdict().word()))
}

fn row(latency: Option<&Latency>) -> String {
    let Some(Latency { min, p50, p90, p95, p99, p999, max, .. }) = latency else {
        return format!("{:>6}", "–").repeat(7);
    };
    [min, p50, p90, p95, p99, p999, max].map(|ms| format!("{:>6}", short(*ms))).concat()
}

/// A number in at most five characters, as exact as that allows.
fn short(number: f64) -> String {
    match number {
        100_000.0.. => format!("{:.0}k", number / 1e3),
        100.0.. => format!("{number:.0}"),
        _ => format!("{number:.1}"),
    }
}

/// Lines that fit into the frame.
#[derive(Default)]
struct Lines(Vec<String>);

impl Lines {
    /// A line of its own, broken where it is too long.
    fn text(&mut self, text: &str) {
        self.0.extend(wrapped(text, INSIDE));
    }

    /// A name and what belongs to it.
    fn field(&mut self, name: &str, text: &str) {
        for (index, part) in wrapped(text, INSIDE - NAMES - 1).into_iter().enumerate() {
            let name = if index == 0 { name } else { "" };
            self.0.push(format!("{name:<NAMES$} {part}"));
        }
    }

    /// All of them in a frame, under a title.
    fn boxed(&self, title: &str) -> String {
        let mut text =
            format!("┌─ {title} {}┐\n", "─".repeat(WIDTH.saturating_sub(title.chars().count() + 5)));
        for line in &self.0 {
            let _ = writeln!(text, "│ {line}{} │", " ".repeat(INSIDE.saturating_sub(line.chars().count())));
        }
        let _ = write!(text, "└{}┘", "─".repeat(WIDTH - 2));
        text
    }
}

/// Words on lines of at most `width` characters; a longer word is cut.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split_whitespace() {
        let mut word = word.to_owned();
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        while let Some((end, _)) = word.char_indices().nth(width) {
            let rest = word.split_off(end);
            lines.push(std::mem::replace(&mut word, rest));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::meta::Judged;

    #[test]
    fn progress_reads_as_it_always_did() {
        let buckets = Buckets { ok: 5, ..Buckets::default() };
        assert_eq!(progress(buckets, Some(50)), "Progress: 5/50 (10%) — 5 ok, 0 err");
        let buckets = Buckets { ok: 40, http_error: 1, dropped: 2, ..Buckets::default() };
        assert_eq!(progress(buckets, None), "Progress: 43 — 40 ok, 3 err");
    }

    #[test]
    fn the_live_line_says_how_long_and_how_well() {
        let second = Duration::from_secs;
        let buckets = Buckets { ok: 27, ..Buckets::default() };
        let by_count = Progress {
            buckets,
            total: Some(50),
            elapsed: second(2),
            end: None,
            latency: Some((150.2, 1234.0)),
        };
        assert_eq!(by_count.line(), "█████░░░░░ 54 %, 2 s left, 13.5/s, p50 150 p99 1234 ms");
        let failing = Buckets { http_error: 3, ..buckets };
        let by_time = Progress { buckets: failing, end: Some(second(20)), ..by_count };
        assert_eq!(by_time.line(), "█░░░░░░░░░ 10 %, 18 s left, 3 failed, 15.0/s, p50 150 p99 1234 ms");
        let first = Progress { buckets: Buckets::default(), latency: None, ..by_count };
        assert_eq!(first.line(), "0 done, 0.0/s");
    }

    fn meta(request: &str) -> Meta {
        Meta {
            began: jiff::Timestamp::UNIX_EPOCH,
            entry: String::new(),
            host: String::new(),
            request: request.to_owned(),
            namespace: String::new(),
            plan: "50 requests, 10 at a time".to_owned(),
            without: None,
            marks: Vec::new(),
            end: None,
        }
    }

    fn end() -> End {
        let latency = Latency {
            min: 40.1,
            mean: 155.0,
            p50: 150.0,
            p90: 210.5,
            p95: 250.0,
            p99: 30_000.3,
            p999: 123_456.1,
            max: 123_456.1,
        };
        let judged = |threshold: &str, value, unit: &str, met| Judged {
            threshold: threshold.to_owned(),
            value,
            unit: unit.to_owned(),
            met,
        };
        End {
            scheduled: 50,
            buckets: Buckets { ok: 49, http_error: 1, ..Buckets::default() },
            latency_ms: Some(latency),
            sent_latency_ms: Some(latency),
            lag_ms: Latency { p99: 0.4, ..Latency::default() },
            seconds: 2.5,
            own_cpu: 0.04,
            gaps: Vec::new(),
            thresholds: vec![
                judged("failed<=0", Some(1.0), "", false),
                judged("success_rate>=95%", Some(98.0), " %", true),
            ],
            invalid: None,
            interrupted: false,
            files: BTreeMap::new(),
        }
    }

    #[test]
    fn the_box_fits_sixty_columns_and_says_the_verdict() {
        let errors = [("502".to_owned(), 1)].into();
        insta::assert_snapshot!(summary(&meta("POST /predict"), &end(), &errors), @r"
        ┌─ load ✗ failed ──────────────────────────────────────────┐
        │ POST /predict: 50 requests, 10 at a time                 │
        │ 50 scheduled, 2.50 s, 19.6 ok/s                          │
        │                                                          │
        │ Successes      49                                        │
        │ Failures       1                                         │
        │ Success rate   98.00 %                                   │
        │ Accounting     49 ok + 1 http + 0 socket + 0 timeout + 0 │
        │                dropped + 0 unsent = 50                   │
        │ Errors         1 × 502                                   │
        │                                                          │
        │ Latency (ms)     min   p50   p90   p95   p99 p99.9   max │
        │   from due      40.1   150   210   250 30000  123k  123k │
        │   from sent     40.1   150   210   250 30000  123k  123k │
        │ Generator      lag p99 0.4 ms, busy 4 % of the time      │
        │                                                          │
        │ Thresholds     ✗ failed<=0: 1                            │
        │                ✓ success_rate>=95%: 98 %                 │
        │ ✗ failed: failed<=0 (measured 1)                         │
        └──────────────────────────────────────────────────────────┘
        ");
    }

    #[test]
    fn nothing_that_succeeded_is_no_zero_and_no_success() {
        let mut end = end();
        (end.latency_ms, end.sent_latency_ms) = (None, None);
        end.buckets = Buckets { socket_error: 50, ..Buckets::default() };
        end.thresholds.truncate(1);
        end.thresholds[0] =
            Judged { threshold: "p99<800ms".into(), value: None, unit: " ms".into(), met: false };
        let long = format!("connection to {} refused", "x".repeat(90));
        let text = summary(&meta(&format!("GET /{}", "y".repeat(120))), &end, &[(long, 50)].into());
        assert!(text.lines().all(|line| line.chars().count() == WIDTH), "{text}");
        insta::assert_snapshot!(text, @r"
        ┌─ load ✗ failed ──────────────────────────────────────────┐
        │ GET                                                      │
        │ /yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy │
        │ yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy │
        │ yyyyyyyyy: 50 requests, 10 at a time                     │
        │ 50 scheduled, 2.50 s, 0.0 ok/s                           │
        │                                                          │
        │ Successes      0                                         │
        │ Failures       50                                        │
        │ Success rate   0.00 %                                    │
        │ Accounting     0 ok + 0 http + 50 socket + 0 timeout + 0 │
        │                dropped + 0 unsent = 50                   │
        │ Errors         50 × connection to                        │
        │                xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx │
        │                xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx │
        │                xxxxxxxx refused                          │
        │                                                          │
        │ Latency (ms)     min   p50   p90   p95   p99 p99.9   max │
        │   from due         –     –     –     –     –     –     – │
        │   from sent        –     –     –     –     –     –     – │
        │ Generator      lag p99 0.4 ms, busy 4 % of the time      │
        │                                                          │
        │ Thresholds     ✗ p99<800ms: –                            │
        │ ✗ failed: p99<800ms (measured –)                         │
        └──────────────────────────────────────────────────────────┘
        ");
    }
}
