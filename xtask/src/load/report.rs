//! What a person reads of a run: the progress and the box at its end.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use xtask_load::run::Plan;
use xtask_load::tally::{Buckets, Latency};

use super::meta::End;

/// `Progress: 5/50 (10%) — 5 ok, 0 err`.
pub fn progress(buckets: Buckets, total: Option<u64>) -> String {
    let done = buckets.sum();
    let of = match total {
        Some(total) => format!("/{total} ({}%)", done * 100 / total.max(1)),
        None => String::new(),
    };
    format!("Progress: {done}{of} — {} ok, {} err", buckets.ok, buckets.failed())
}

/// The summary.
pub fn summary(plan: &Plan, request: &str, end: &End, errors: &BTreeMap<String, u64>) -> String {
    let Buckets { ok, http_error, socket_error, timeout, dropped, unsent } = end.buckets;
    let rate = ok as f64 / end.seconds.max(1e-9);
    let mut lines = vec![
        format!("{request}: {}", plan.line()),
        format!("{} scheduled, {:.2} s, {rate:.1} ok/s", end.scheduled, end.seconds),
        String::new(),
        format!("Successes      {ok}"),
        format!("Failures       {}", end.buckets.failed()),
        format!("Success rate   {:.2} %", ok as f64 * 100.0 / end.scheduled.max(1) as f64),
        format!(
            "Accounting     {ok} ok + {http_error} http + {socket_error} socket + {timeout} timeout + \
             {dropped} dropped + {unsent} unsent = {}",
            end.scheduled
        ),
    ];
    let mut errors: Vec<_> = errors.iter().collect();
    errors.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for (index, (code, count)) in errors.iter().take(10).enumerate() {
        lines.push(format!("{:<14} {count} × {code}", if index == 0 { "Errors" } else { "" }));
    }
    lines.push(String::new());
    lines.push(format!(
        "{:<14} {}",
        "Latency (ms)", "    min     p50     p90     p95     p99   p99.9     max"
    ));
    lines.push(format!("{:<14} {}", "  from due", row(&end.latency_ms)));
    lines.push(format!("{:<14} {}", "  from sent", row(&end.sent_latency_ms)));
    lines.push(format!(
        "Generator      lag p99 {:.1} ms, busy {:.0} % of the time",
        end.lag_ms.p99,
        end.own_cpu * 100.0
    ));
    boxed("load", &lines)
}

fn row(latency: &Latency) -> String {
    let Latency { min, p50, p90, p95, p99, p999, max, .. } = latency;
    [min, p50, p90, p95, p99, p999, max].map(|ms| format!("{ms:>7.1}")).join(" ")
}

/// Lines in a frame, under a title.
fn boxed(title: &str, lines: &[String]) -> String {
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0).max(title.len() + 2);
    let mut text = format!("┌─ {title} {}┐\n", "─".repeat(width - title.len() - 1));
    for line in lines {
        let _ = writeln!(text, "│ {line}{} │", " ".repeat(width - line.chars().count()));
    }
    let _ = write!(text, "└{}┘", "─".repeat(width + 2));
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use xtask_load::schedule::{Pace, Schedule};

    #[test]
    fn progress_reads_as_it_always_did() {
        let buckets = Buckets { ok: 5, ..Buckets::default() };
        assert_eq!(progress(buckets, Some(50)), "Progress: 5/50 (10%) — 5 ok, 0 err");
        let buckets = Buckets { ok: 40, http_error: 1, dropped: 2, ..Buckets::default() };
        assert_eq!(progress(buckets, None), "Progress: 43 — 40 ok, 3 err");
    }

    #[test]
    fn the_summary_reads_well() {
        let schedule = Schedule { pace: Pace::Closed, requests: Some(50), duration: None };
        let plan = Plan { schedule, concurrency: 10, request_timeout: Duration::from_secs(30) };
        let latency = Latency {
            min: 40.1,
            mean: 155.0,
            p50: 150.0,
            p90: 210.5,
            p95: 250.0,
            p99: 300.0,
            p999: 300.1,
            max: 300.1,
        };
        let end = End {
            scheduled: 50,
            buckets: Buckets { ok: 49, http_error: 1, ..Buckets::default() },
            latency_ms: latency,
            sent_latency_ms: latency,
            lag_ms: Latency { p99: 0.4, ..Latency::default() },
            seconds: 2.5,
            own_cpu: 0.04,
            gaps: Vec::new(),
        };
        let errors = [("502".to_owned(), 1)].into();
        insta::assert_snapshot!(summary(&plan, "POST /predict", &end, &errors), @r"
        ┌─ load ───────────────────────────────────────────────────────────────────────────┐
        │ POST /predict: 50 requests, 10 at a time                                         │
        │ 50 scheduled, 2.50 s, 19.6 ok/s                                                  │
        │                                                                                  │
        │ Successes      49                                                                │
        │ Failures       1                                                                 │
        │ Success rate   98.00 %                                                           │
        │ Accounting     49 ok + 1 http + 0 socket + 0 timeout + 0 dropped + 0 unsent = 50 │
        │ Errors         1 × 502                                                           │
        │                                                                                  │
        │ Latency (ms)       min     p50     p90     p95     p99   p99.9     max           │
        │   from due        40.1   150.0   210.5   250.0   300.0   300.1   300.1           │
        │   from sent       40.1   150.0   210.5   250.0   300.0   300.1   300.1           │
        │ Generator      lag p99 0.4 ms, busy 4 % of the time                              │
        └──────────────────────────────────────────────────────────────────────────────────┘
        ");
    }
}
