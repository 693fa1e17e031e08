//! Conditions that a run must meet, as `p99<800ms`, `failed<=0` or `unexplained==0`.

use std::fmt;
use std::str::FromStr;

use xtask_load::tally::{Buckets, Latency};

use crate::record::meta::{End, Judged};

/// One condition.
#[derive(Clone, Debug)]
pub struct Threshold {
    text: String,
    metric: Metric,
    op: Op,
    limit: Limit,
}

/// What it is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    Fixed(f64),
    /// So many times what the baseline came to.
    Baseline(f64),
}

/// What is compared.
#[derive(Clone, Copy, Debug)]
enum Metric {
    /// Milliseconds, from the moment the request was due.
    Due(fn(&Latency) -> f64),
    /// Milliseconds, from the moment it was sent.
    Sent(fn(&Latency) -> f64),
    /// Requests.
    Count(fn(&Figures) -> u64),
    /// Failures whose cause was not found: known only when all are explained.
    Unexplained,
    /// Percent of the scheduled requests.
    SuccessRate,
    /// Answers a second, successes only.
    Throughput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Less,
    AtMost,
    More,
    AtLeast,
    Equal,
    Unequal,
}

/// What a run came to, as thresholds see it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// How the requests ended.
    pub buckets: Buckets,
    /// From the moment each was due; nothing where none was answered.
    pub due: Option<Latency>,
    /// From the moment each was sent; nothing where none was answered.
    pub sent: Option<Latency>,
    /// Successes per second.
    pub throughput: f64,
    /// Failures whose cause was not found, once that is known.
    pub unexplained: Option<u64>,
}

impl Figures {
    /// Of a run that has ended.
    #[must_use]
    pub fn of(end: &End) -> Figures {
        Figures {
            buckets: end.buckets,
            due: end.latency_ms,
            sent: end.sent_latency_ms,
            throughput: end.throughput(),
            unexplained: None,
        }
    }
}

impl Threshold {
    /// What was measured, and whether that is within the limit.
    pub fn judge(&self, figures: &Figures, baseline: Option<&Figures>) -> Judged {
        let value = self.metric.of(figures);
        let limit = match self.limit {
            Limit::Fixed(limit) => Some(limit),
            Limit::Baseline(factor) => {
                baseline.and_then(|figures| self.metric.of(figures)).map(|was| was * factor)
            }
        };
        // Where there is nothing to measure, nothing is met.
        let met = value.zip(limit).is_some_and(|(value, limit)| self.op.holds(value, limit));
        Judged { threshold: self.text.clone(), value, unit: self.unit().to_owned(), met }
    }

    /// Whether it is about another run too.
    pub fn needs_baseline(&self) -> bool {
        matches!(self.limit, Limit::Baseline(_))
    }

    /// Whether it can be judged only when every failure is explained.
    pub fn needs_causes(&self) -> bool {
        matches!(self.metric, Metric::Unexplained)
    }

    /// The unit of what is measured.
    fn unit(&self) -> &'static str {
        match self.metric {
            Metric::Due(_) | Metric::Sent(_) => " ms",
            Metric::Count(_) | Metric::Unexplained => "",
            Metric::SuccessRate => " %",
            Metric::Throughput => "/s",
        }
    }
}

impl Op {
    fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Op::Less => value < limit,
            Op::AtMost => value <= limit,
            Op::More => value > limit,
            Op::AtLeast => value >= limit,
            Op::Equal => (value - limit).abs() < 1e-9,
            Op::Unequal => (value - limit).abs() >= 1e-9,
        }
    }
}

impl Metric {
    /// What it comes to; nothing where there is nothing to measure.
    fn of(self, figures: &Figures) -> Option<f64> {
        let sum = figures.buckets.sum();
        match self {
            Metric::Due(pick) => figures.due.as_ref().map(pick),
            Metric::Sent(pick) => figures.sent.as_ref().map(pick),
            Metric::Count(pick) => Some(pick(figures) as f64),
            Metric::Unexplained => figures.unexplained.map(|count| count as f64),
            Metric::SuccessRate => (sum > 0).then(|| figures.buckets.ok as f64 * 100.0 / sum as f64),
            Metric::Throughput => Some(figures.throughput),
        }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The names of what can be compared, for messages.
const METRICS: &str = "min, mean, p50, p90, p95, p99, p99.9, max (from the time it was due; `sent.p99` from \
                       when it was sent), \
     ok, failed, http_error, socket_error, timeout, dropped, unsent, unexplained, success_rate, throughput";

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Threshold, String> {
        let at = text.find(['<', '>', '=', '!']).ok_or_else(|| {
            format!("`{text}` has no comparison; write p99<800ms, failed<=0 or success_rate>=99.9%")
        })?;
        let (name, rest) = text.split_at(at);
        let ops = [
            ("<=", Op::AtMost),
            (">=", Op::AtLeast),
            ("==", Op::Equal),
            ("!=", Op::Unequal),
            ("<", Op::Less),
            (">", Op::More),
        ];
        let (sign, op) = ops
            .into_iter()
            .find(|(sign, _)| rest.starts_with(sign))
            .ok_or_else(|| format!("`{text}`: compare with <, <=, >, >=, == or !="))?;
        let metric = metric(name.trim())
            .ok_or_else(|| format!("`{text}`: unknown metric `{}`; known are {METRICS}", name.trim()))?;
        let limit = limit(rest[sign.len()..].trim(), metric).map_err(|why| format!("`{text}`: {why}"))?;
        Ok(Threshold { text: text.to_owned(), metric, op, limit })
    }
}

fn metric(name: &str) -> Option<Metric> {
    let count = |pick: fn(&Figures) -> u64| Some(Metric::Count(pick));
    match name {
        "ok" => count(|f| f.buckets.ok),
        "failed" => count(|f| f.buckets.failed()),
        "http_error" => count(|f| f.buckets.http_error),
        "socket_error" => count(|f| f.buckets.socket_error),
        "timeout" => count(|f| f.buckets.timeout),
        "dropped" => count(|f| f.buckets.dropped),
        "unsent" => count(|f| f.buckets.unsent),
        "unexplained" => Some(Metric::Unexplained),
        "success_rate" => Some(Metric::SuccessRate),
        "throughput" => Some(Metric::Throughput),
        _ => match name.strip_prefix("sent.") {
            Some(name) => percentile(name).map(Metric::Sent),
            None => percentile(name).map(Metric::Due),
        },
    }
}

fn percentile(name: &str) -> Option<fn(&Latency) -> f64> {
    Some(match name {
        "min" => |l| l.min,
        "mean" => |l| l.mean,
        "p50" => |l| l.p50,
        "p90" => |l| l.p90,
        "p95" => |l| l.p95,
        "p99" => |l| l.p99,
        "p99.9" => |l| l.p999,
        "max" => |l| l.max,
        _ => return None,
    })
}

/// What a metric is compared with: `800ms`, or `baseline*1.1`.
fn limit(text: &str, metric: Metric) -> Result<Limit, String> {
    let Some(rest) = text.strip_prefix("baseline") else { return fixed(text, metric).map(Limit::Fixed) };
    if matches!(metric, Metric::Unexplained) {
        return Err("a baseline does not say what is unexplained".to_owned());
    }
    let factor = match rest.trim_start() {
        "" => Some(1.0),
        rest => rest.strip_prefix('*').and_then(|factor| factor.trim().parse().ok()),
    };
    match factor {
        Some(factor) if f64::is_finite(factor) && factor >= 0.0 => Ok(Limit::Baseline(factor)),
        _ => Err(format!("`{text}`: write baseline or baseline*1.1")),
    }
}

fn fixed(text: &str, metric: Metric) -> Result<f64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%' || c == '/').trim_end();
    let unit = text[digits.len()..].trim();
    let number: f64 = digits.parse().map_err(|_| format!("`{text}` is not a number"))?;
    if !number.is_finite() || number < 0.0 {
        return Err(format!("`{text}` is not a limit that can be met"));
    }
    match (metric, unit) {
        (Metric::Due(_) | Metric::Sent(_), "us") => Ok(number / 1000.0),
        (Metric::Due(_) | Metric::Sent(_), "ms") => Ok(number),
        (Metric::Due(_) | Metric::Sent(_), "s") => Ok(number * 1000.0),
        (Metric::Due(_) | Metric::Sent(_), _) => Err("a latency needs its unit: us, ms or s".to_owned()),
        (Metric::SuccessRate, "" | "%")
        | (Metric::Throughput, "" | "/s")
        | (Metric::Count(_) | Metric::Unexplained, "") => Ok(number),
        (_, unit) => Err(format!("`{unit}` is not a unit of this metric")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let due = Latency { p99: 799.9, max: 2000.0, ..Latency::default() };
        let sent = Latency { p99: 20.0, max: 30.0, ..Latency::default() };
        let buckets = Buckets { ok: 999, http_error: 1, ..Buckets::default() };
        Figures { buckets, due: Some(due), sent: Some(sent), throughput: 50.0, unexplained: Some(0) }
    }

    #[test]
    fn conditions_are_met_or_not() {
        let met = |text: &str| text.parse::<Threshold>().expect(text).judge(&figures(), None).met;
        for text in [
            "p99<800ms",
            "p99 <= 0.8s",
            "sent.p99<25000us",
            "failed<=1",
            "unexplained==0",
            "success_rate>=99.9%",
            "http_error!=0",
            "throughput>49",
            "max==2s",
        ] {
            assert!(met(text), "{text}");
        }
        for text in ["p99<799ms", "failed<=0", "ok>=1000", "success_rate>99.9", "timeout>0"] {
            assert!(!met(text), "{text}");
        }
    }

    #[test]
    fn a_latency_without_answers_meets_nothing() {
        let threshold: Threshold = "p99<800ms".parse().unwrap();
        let judged = threshold.judge(&Figures::default(), None);
        assert_eq!((judged.met, judged.measured().as_str()), (false, "–"));
        assert_eq!(judged.to_string(), "p99<800ms (measured –)");
    }

    #[test]
    fn a_run_can_be_held_against_a_baseline() {
        let met = |text: &str, baseline: Option<&Figures>| {
            let threshold: Threshold = text.parse().expect(text);
            assert!(threshold.needs_baseline(), "{text}");
            threshold.judge(&figures(), baseline).met
        };
        let due = Latency { p99: 730.0, ..Latency::default() };
        let baseline = Figures { due: Some(due), ..figures() };
        assert!(met("p99<=baseline*1.1", Some(&baseline)) && met("failed<=baseline", Some(&baseline)));
        assert!(
            !met("p99<=baseline * 1.05", Some(&baseline)) && !met("throughput>baseline", Some(&baseline))
        );
        // Without one there is nothing that it could meet.
        assert!(!met("p99<=baseline*1.1", None));
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        for (text, why) in [
            ("p99", "has no comparison"),
            ("p98<1ms", "unknown metric `p98`"),
            ("p99<800", "needs its unit"),
            ("failed<=x", "not a number"),
            ("failed<=1ms", "not a unit"),
            ("failed=0", "compare with"),
            ("p99<-1ms", "can be met"),
            ("p99<baseline+1", "write baseline"),
            ("p99<baseline*x", "write baseline"),
            ("unexplained<=baseline", "does not say"),
            ("", "has no comparison"),
        ] {
            let error = text.parse::<Threshold>().expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
