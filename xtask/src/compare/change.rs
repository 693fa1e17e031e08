//! By how much one run's latencies differ from another's, and what of that may be chance.

use std::ops::RangeInclusive;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::share::wilson;

/// Requests that follow each other fare alike, so they are drawn again in stretches: about this many.
const STRETCHES: usize = 40;
/// Draws: enough for the ends of an interval of 99 %.
const DRAWS: usize = 2000;
/// Latencies that differ by less than this share count as equal.
const RESOLUTION: f64 = 0.002;
/// Of the interval, below and above.
const TAIL: f64 = 0.005;
/// The normal distribution's quantile for such a tail.
const TAIL_SIGMAS: f64 = 2.576;
/// A percentile says something where at least this many requests are beyond it.
const FEWEST_BEYOND: f64 = 20.0;

/// Latencies of a run in the order in which its requests were due, as one histogram a stretch.
#[derive(Debug)]
pub(super) struct Latencies {
    /// Buckets of a histogram, counted from the first, and how many requests are in them.
    stretches: Vec<Vec<(usize, u32)>>,
    first: usize,
    buckets: usize,
    count: usize,
}

/// A ratio less one: 0.1 is a tenth more.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Change {
    /// As it was measured.
    pub(super) measured: f64,
    /// Where it truly lies, with a confidence of 99 %.
    pub(super) interval: RangeInclusive<f64>,
}

impl Latencies {
    /// Of microseconds.
    pub(super) fn new(us: &[u64]) -> Latencies {
        let length = us.len().div_ceil(STRETCHES).max(1);
        let all: Vec<usize> =
            us.iter().map(|us| (((*us).max(1) as f64).ln() / RESOLUTION) as usize).collect();
        let (first, last) = all.iter().fold((usize::MAX, 0), |(low, high), at| (low.min(*at), high.max(*at)));
        let stretches: Vec<_> = all.chunks(length).map(|stretch| histogram(stretch, first)).collect();
        Latencies { stretches, first, buckets: (last + 1).saturating_sub(first), count: us.len() }
    }

    /// Whether a quantile of so many requests says something.
    pub(super) fn knows(&self, quantile: f64) -> bool {
        self.count as f64 * (1.0 - quantile) >= FEWEST_BEYOND
    }

    /// As many stretches as there are, drawn at random, in one histogram.
    fn draw(&self, random: &mut ChaCha8Rng, into: &mut Vec<u32>) {
        into.clear();
        into.resize(self.buckets, 0);
        for _ in &self.stretches {
            let any = (u64::from(random.next_u32()) * self.stretches.len() as u64) >> 32;
            add(&self.stretches[any as usize], into);
        }
    }

    /// The bucket of a quantile, as it stands among those of all runs: the logarithm of a latency.
    fn at(&self, histogram: &[u32], quantile: f64) -> f64 {
        let sum: u64 = histogram.iter().map(|count| u64::from(*count)).sum();
        let rank = ((sum as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        let found = histogram.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        });
        found.map_or(0.0, |bucket| (self.first + bucket) as f64)
    }
}

/// How the quantiles of `run` differ from those of `base`; the same answer each time for the same runs.
pub(super) fn changes(base: &Latencies, run: &Latencies, quantiles: &[f64]) -> Vec<Change> {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let (mut of_base, mut of_run) = (Vec::new(), Vec::new());
    let mut drawn: Vec<Vec<f64>> = vec![Vec::with_capacity(DRAWS); quantiles.len()];
    for _ in 0..DRAWS {
        base.draw(&mut random, &mut of_base);
        run.draw(&mut random, &mut of_run);
        for (changes, quantile) in drawn.iter_mut().zip(quantiles) {
            changes.push(run.at(&of_run, *quantile) - base.at(&of_base, *quantile));
        }
    }
    let whole = |latencies: &Latencies| {
        let mut all = vec![0; latencies.buckets];
        latencies.stretches.iter().for_each(|stretch| add(stretch, &mut all));
        all
    };
    let (of_base, of_run) = (whole(base), whole(run));
    drawn
        .into_iter()
        .zip(quantiles)
        .map(|(mut changes, quantile)| {
            changes.sort_by(f64::total_cmp);
            let last = changes.len() - 1;
            let end = |share: f64| ratio(changes[(last as f64 * share).round() as usize]);
            let measured = ratio(run.at(&of_run, *quantile) - base.at(&of_base, *quantile));
            Change { measured, interval: end(TAIL)..=end(1.0 - TAIL) }
        })
        .collect()
}

/// How the share of requests that failed differs, in percentage points: Newcombe's interval from two of Wilson's
/// (Statistics in Medicine 17, 1998, method 10).
pub(super) fn failures(base: (u64, u64), run: (u64, u64)) -> Change {
    let share = |(failed, of): (u64, u64)| failed as f64 / (of as f64).max(1.0);
    let (before, now) = (share(base), share(run));
    let interval = |(failed, of): (u64, u64)| wilson((failed as f64, of as f64), TAIL_SIGMAS);
    let ((base_low, base_high), (run_low, run_high)) = (interval(base), interval(run));
    let low = (now - run_low).hypot(base_high - before);
    let high = (run_high - now).hypot(before - base_low);
    let measured = now - before;
    Change { measured, interval: measured - low..=measured + high }
}

fn histogram(stretch: &[usize], first: usize) -> Vec<(usize, u32)> {
    let mut buckets: Vec<usize> = stretch.iter().map(|bucket| bucket - first).collect();
    buckets.sort_unstable();
    buckets.chunk_by(|a, b| a == b).map(|equal| (equal[0], equal.len() as u32)).collect()
}

fn add(stretch: &[(usize, u32)], into: &mut [u32]) {
    for (bucket, count) in stretch {
        into[*bucket] += count;
    }
}

fn ratio(buckets: f64) -> f64 {
    (buckets * RESOLUTION).exp() - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_change_is_measured_as_it_is() {
        let us: Vec<u64> = (0..1000).map(|n| 50_000 + n * 10).collect();
        let slower: Vec<u64> = us.iter().map(|us| us + us / 4).collect();
        let change = &changes(&Latencies::new(&us), &Latencies::new(&slower), &[0.5])[0];
        assert!((change.measured - 0.25).abs() < 0.005, "{change:?}");
        assert!(change.interval.contains(&0.25), "{change:?}");
        let nothing = Latencies::new(&[]);
        assert_eq!(changes(&nothing, &nothing, &[0.5])[0], Change { measured: 0.0, interval: 0.0..=0.0 });
    }

    #[test]
    fn a_percentile_needs_requests_beyond_it() {
        let latencies = Latencies::new(&[1000; 1000]);
        assert!(latencies.knows(0.9) && !latencies.knows(0.99) && !Latencies::new(&[1]).knows(0.5));
    }

    /// Against the examples (a), (c), (g) of the paper, whose intervals are of 95 %; those of 99 % hold them.
    #[test]
    fn more_failures_are_told_from_chance() {
        let change = failures((48, 80), (56, 70));
        assert!((change.measured - 0.2).abs() < 1e-9, "{change:?}");
        assert!(*change.interval.start() < 0.0524 && *change.interval.end() > 0.3339, "{change:?}");
        assert!(*failures((0, 1000), (1, 1000)).interval.start() <= 0.0);
        assert!(*failures((0, 1000), (20, 1000)).interval.start() > 0.0);
        assert!(failures((0, 0), (0, 0)).interval.contains(&0.0));
    }
}
