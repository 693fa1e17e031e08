//! The records of a run, cut into slices of time: what a chart needs of a million requests.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::{Context as _, Result};
use xtask_load::record::{Outcome, Record};
use xtask_load::tally::error_code;

use super::axis::Axis;

/// Slices of a long run.
const MOST_SLICES: u64 = 240;
/// Slices of a short one.
const FEWEST_SLICES: u64 = 12;
/// A slice of a short run holds about this many requests.
const REQUESTS_A_SLICE: u64 = 4;
/// Requests that are drawn one by one; above, the slices alone are.
const MOST_DOTS: u64 = 2000;
/// Failed requests that are drawn one by one.
const MOST_FAILURES: usize = 1000;

/// Bars of the histogram.
const BINS: u32 = 48;
/// Pods that are told apart: who answered is the answer's own word.
const MOST_PODS: usize = 200;

/// The requests of a run over its time.
#[derive(Debug, Default)]
pub(super) struct Series {
    /// The run's length.
    pub(super) seconds: f64,
    /// Equal parts of it, by when requests were due.
    pub(super) slices: Vec<Slice>,
    /// Each request that was succeeded, where there are not too many.
    pub(super) dots: Vec<Dot>,
    /// The first requests that failed.
    pub(super) failures: Vec<Dot>,
    /// Failed requests that are not among them.
    pub(super) more_failures: u64,
    /// How many failed in which way, the most frequent first.
    pub(super) errors: Vec<(String, u64)>,
    /// How many of those that succeeded took how long.
    pub(super) histogram: Vec<Bin>,
    /// What each pod answered well.
    pub(super) pods: BTreeMap<String, Answered>,
}

/// Requests that took from so many milliseconds to so many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bin {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) count: u64,
}

/// What one pod answered well.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Answered {
    pub(super) count: usize,
    pub(super) latency: Option<SliceLatency>,
}

/// What was due in one slice of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Slice {
    pub(super) ok: u64,
    pub(super) failed: u64,
    /// Of the requests that succeeded, from when they were due.
    pub(super) latency: Option<SliceLatency>,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SliceLatency {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Dot {
    /// When it was due, in seconds.
    pub(super) at: f64,
    /// From then to its end.
    pub(super) ms: f64,
}

impl Series {
    /// Reads `records.jsonl`; lines that are no record are passed over.
    ///
    /// # Errors
    /// When it can't be read.
    pub(super) fn read(path: &Path, seconds: f64, scheduled: u64) -> Result<Series> {
        let file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
        let lines = BufReader::with_capacity(256 * 1024, file).lines();
        let records = lines.map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok());
        Ok(Series::of(records, seconds, scheduled))
    }

    fn of(records: impl Iterator<Item = Record>, seconds: f64, scheduled: u64) -> Series {
        let seconds = seconds.max(1e-3);
        let count = (scheduled / REQUESTS_A_SLICE).clamp(FEWEST_SLICES, MOST_SLICES) as usize;
        let mut series = Series { seconds, slices: vec![Slice::default(); count], ..Series::default() };
        let mut latencies: Vec<Vec<f32>> = vec![Vec::new(); count];
        let mut errors = BTreeMap::<String, u64>::new();
        let mut pods = BTreeMap::<String, Vec<f32>>::new();
        for record in records {
            let dot = Dot {
                at: record.due_us as f64 / 1e6,
                ms: record.end_us.saturating_sub(record.due_us) as f64 / 1e3,
            };
            let index = ((dot.at / seconds * count as f64) as usize).min(count - 1);
            let slice = &mut series.slices[index];
            if record.outcome == Outcome::Ok {
                slice.ok += 1;
                latencies[index].push(dot.ms as f32);
                if let Some(pod) = record.served_by
                    && (pods.len() < MOST_PODS || pods.contains_key(&pod))
                {
                    pods.entry(pod).or_default().push(dot.ms as f32);
                }
                if scheduled <= MOST_DOTS {
                    series.dots.push(dot);
                }
                continue;
            }
            slice.failed += 1;
            *errors.entry(error_code(&record)).or_default() += 1;
            if series.failures.len() < MOST_FAILURES {
                series.failures.push(dot);
            } else {
                series.more_failures += 1;
            }
        }
        series.histogram = histogram(latencies.iter().flatten().map(|ms| f64::from(*ms)));
        let answered = |ms: Vec<f32>| Answered { count: ms.len(), latency: SliceLatency::of(ms) };
        series.pods = pods.into_iter().map(|(pod, ms)| (pod, answered(ms))).collect();
        for (slice, latencies) in series.slices.iter_mut().zip(latencies) {
            slice.latency = SliceLatency::of(latencies);
        }
        series.errors = errors.into_iter().collect();
        series.errors.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        series
    }

    /// A slice's length in seconds.
    pub(super) fn slice_seconds(&self) -> f64 {
        self.seconds / self.slices.len().max(1) as f64
    }
}

fn histogram(ms: impl Iterator<Item = f64> + Clone) -> Vec<Bin> {
    let (low, high) = ms.clone().fold((f64::INFINITY, 0.0), |(low, high), ms| (ms.min(low), ms.max(high)));
    if high <= 0.0 {
        return Vec::new();
    }
    let scale = Axis::log(low, high);
    let edges: Vec<f64> = scale.steps(BINS).collect();
    let bin = |edges: &[f64]| Bin { from: edges[0], to: edges[1], count: 0 };
    let mut bins: Vec<Bin> = edges.windows(2).map(bin).collect();
    for ms in ms {
        let index = (scale.share(ms) * f64::from(BINS)) as usize;
        let last = bins.len() - 1;
        bins[index.min(last)].count += 1;
    }
    bins
}

impl SliceLatency {
    fn of(mut ms: Vec<f32>) -> Option<SliceLatency> {
        ms.sort_by(f32::total_cmp);
        let at = |share: f64| {
            let rank = (ms.len() as f64 * share).ceil() as usize;
            ms.get(rank.saturating_sub(1)).map(|ms| f64::from(*ms))
        };
        Some(SliceLatency { p50: at(0.5)?, p99: at(0.99)?, max: at(1.0)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: u64, outcome: Outcome) -> Record {
        Record {
            n,
            id: String::new(),
            outcome,
            due_us: n * 1000,
            sent_us: Some(n * 1000),
            end_us: n * 1000 + 10_000 + n % 100,
            status: None,
            served_by: None,
            server_timing: None,
            error: None,
        }
    }

    #[test]
    fn a_million_requests_are_as_many_slices_as_ten_thousand() {
        let records =
            (0..1_000_000).map(|n| record(n, if n % 10 == 0 { Outcome::Timeout } else { Outcome::Ok }));
        let series = Series::of(records, 1000.0, 1_000_000);
        assert_eq!(series.slices.len() as u64, MOST_SLICES);
        let sum = |of: fn(&Slice) -> u64| series.slices.iter().map(of).sum::<u64>();
        assert_eq!((sum(|slice| slice.ok), sum(|slice| slice.failed)), (900_000, 100_000));
        assert_eq!((series.dots.len(), series.failures.len()), (0, MOST_FAILURES));
        assert_eq!(series.more_failures, 100_000 - MOST_FAILURES as u64);
        assert_eq!(series.errors, [("timeout".to_owned(), 100_000)]);
    }

    #[test]
    fn each_slice_has_its_own_percentiles() {
        let slow = |n: u64| {
            let record = record(n, Outcome::Ok);
            Record { end_us: record.due_us + if n < 40 { 5_000 } else { 80_000 }, ..record }
        };
        let series = Series::of((0..80).map(slow), 0.08, 80);
        let p50: Vec<f64> = series.slices.iter().filter_map(|slice| Some(slice.latency?.p50)).collect();
        assert_eq!((p50[0], p50[p50.len() - 1]), (5.0, 80.0));
        assert_eq!(series.dots.len(), 80);
        let bars: Vec<_> = series.histogram.iter().filter(|bin| bin.count > 0).collect();
        assert_eq!(bars.iter().map(|bin| bin.count).collect::<Vec<_>>(), [40, 40]);
        assert!(bars[0].from <= 5.0 && 5.0 <= bars[0].to && bars[1].from <= 80.0 && 80.0 <= bars[1].to);
    }
}
