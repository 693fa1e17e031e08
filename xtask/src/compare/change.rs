//! By how much one run's latencies differ from another's, and what of that may be chance.

use std::ops::RangeInclusive;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::share::wilson;

/// Requests that follow each other fare alike, so they are drawn again in stretches. For how long is not known, so they
/// are cut into more and into fewer, and the widest interval counts. Beside each how much wider Student's distribution
/// is for so many than the normal one.
const STRETCHES: [(usize, f64); 3] = [(40, 1.051), (20, 1.111), (10, 1.262)];
/// The most of them.
const FINEST: usize = STRETCHES[0].0;
/// Draws: enough for the ends of an interval of 99 %.
const DRAWS: usize = 1000;
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
        let length = us.len().div_ceil(FINEST).max(1);
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

    /// As many stretches as there are, so many of them `together`, drawn at random, in one histogram.
    fn draw(&self, together: usize, random: &mut ChaCha8Rng, into: &mut Vec<u32>) {
        into.clear();
        into.resize(self.buckets, 0);
        let groups: Vec<_> = self.stretches.chunks(together).collect();
        for _ in &groups {
            let any = (u64::from(random.next_u32()) * groups.len() as u64) >> 32;
            groups[any as usize].iter().for_each(|stretch| add(stretch, into));
        }
    }

    /// All of them in one histogram.
    fn whole(&self) -> Vec<u32> {
        let mut all = vec![0; self.buckets];
        self.stretches.iter().for_each(|stretch| add(stretch, &mut all));
        all
    }

    /// The buckets of quantiles, the least first, as they stand among those of all runs: logarithms of latencies.
    fn at(&self, histogram: &[u32], quantiles: &[f64]) -> Vec<f64> {
        let sum: u64 = histogram.iter().map(|count| u64::from(*count)).sum();
        let mut buckets = (self.first..).zip(histogram);
        let (mut bucket, mut seen) = (0, 0);
        let found = quantiles.iter().map(|quantile| {
            let rank = ((sum as f64 * quantile).ceil() as u64).max(1);
            while seen < rank
                && let Some((next, count)) = buckets.next()
            {
                (bucket, seen) = (next, seen + u64::from(*count));
            }
            bucket as f64
        });
        found.collect()
    }
}

/// How quantiles of `run`, the least first, differ from those of `base`; the same answer each time for the same runs.
pub(super) fn changes(base: &Latencies, run: &Latencies, quantiles: &[f64]) -> Vec<Change> {
    let before = base.at(&base.whole(), quantiles);
    let now = run.at(&run.whole(), quantiles);
    // As logarithms: how much, and how far to both sides it may be otherwise.
    let mut changes: Vec<[f64; 3]> =
        now.iter().zip(&before).map(|(now, before)| [now - before, 0.0, 0.0]).collect();
    for (stretches, wider) in STRETCHES {
        let drawn = drawn(base, run, quantiles, FINEST / stretches);
        for (mut drawn, [measured, below, above]) in drawn.into_iter().zip(&mut changes) {
            drawn.sort_by(f64::total_cmp);
            let end = |share: f64| drawn[((DRAWS - 1) as f64 * share).round() as usize];
            *below = below.max((*measured - end(TAIL)) * wider);
            *above = above.max((end(1.0 - TAIL) - *measured) * wider);
        }
    }
    let change = |[measured, below, above]: [f64; 3]| Change {
        measured: ratio(measured),
        interval: ratio(measured - below)..=ratio(measured + above),
    };
    changes.into_iter().map(change).collect()
}

/// How each quantile differs between runs that are drawn again, so many stretches of each together.
fn drawn(base: &Latencies, run: &Latencies, quantiles: &[f64], together: usize) -> Vec<Vec<f64>> {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let (mut of_base, mut of_run) = (Vec::new(), Vec::new());
    let mut drawn: Vec<Vec<f64>> = vec![Vec::with_capacity(DRAWS); quantiles.len()];
    for _ in 0..DRAWS {
        base.draw(together, &mut random, &mut of_base);
        run.draw(together, &mut random, &mut of_run);
        let both = run.at(&of_run, quantiles).into_iter().zip(base.at(&of_base, quantiles));
        for (changes, (now, before)) in drawn.iter_mut().zip(both) {
            changes.push(now - before);
        }
    }
    drawn
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
