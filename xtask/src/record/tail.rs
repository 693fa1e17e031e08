//! The slowest answers of a run, and what was under way beside them.

use std::cmp::Reverse;
use std::time::Duration;

use xtask_load::record::{Outcome, Record};

/// Slow answers that are looked at one by one.
const MOST: usize = 20_000;
/// An answer stands out that took so many times the median, and this long.
const TIMES_THE_MEDIAN: u64 = 10;
const STANDS_OUT_US: u64 = 500_000;
/// A request that was sent later than this after it was due was held up.
const HELD_UP_US: u64 = 5_000;

/// The slowest answers, from the moment at which each was due: whatever took longer than was asked for, or the worst
/// 1 % and all that stands out.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    /// The slowest first; no more than can be looked at.
    pub records: Vec<Record>,
    /// How many there are in all.
    pub count: usize,
    /// Of so many answers.
    pub of: usize,
    /// They took this long or longer.
    pub over_us: u64,
    /// Half of all answers took less.
    pub median_us: u64,
}

/// How long an answer took, from when it was due.
pub fn latency_us(record: &Record) -> u64 {
    record.end_us.saturating_sub(record.due_us)
}

/// All requests of a run, as far as one is held up by others or by what holds them up too.
#[derive(Clone, Debug, Default)]
pub struct Flights {
    /// When they were sent, in order of time.
    sent: Vec<u64>,
    /// When those were over, in order of time.
    ended: Vec<u64>,
    /// When one was sent that was held up, and for how long; in order of time.
    held_up: Vec<(u64, u64)>,
}

impl Flights {
    /// How many were under way when one was due.
    pub fn under_way(&self, due_us: u64) -> usize {
        let (sent, ended) =
            (self.sent.partition_point(|at| *at < due_us), self.ended.partition_point(|at| *at <= due_us));
        sent.saturating_sub(ended)
    }

    /// How many were held up that were sent between two moments, and for how long at most.
    pub fn held_up(&self, from_us: u64, to_us: u64) -> (usize, Duration) {
        let from = self.held_up.partition_point(|(at, _)| *at < from_us);
        let to = self.held_up.partition_point(|(at, _)| *at <= to_us);
        let these = self.held_up.get(from..to).unwrap_or_default();
        let longest = these.iter().map(|(_, late)| *late).max().unwrap_or(0);
        (these.len(), Duration::from_micros(longest))
    }
}

/// What is read of the records, one at a time.
#[derive(Default)]
pub(super) struct Reader {
    latencies: Vec<u64>,
    slowest: Vec<Record>,
    flights: Flights,
}

impl Reader {
    pub(super) fn take(&mut self, record: &Record) {
        if let Some(sent) = record.sent_us {
            self.flights.sent.push(sent);
            self.flights.ended.push(record.end_us);
            let late = sent.saturating_sub(record.due_us);
            if late > HELD_UP_US {
                self.flights.held_up.push((sent, late));
            }
        }
        if record.outcome == Outcome::Ok {
            self.latencies.push(latency_us(record));
            self.slowest.push(record.clone());
            // Now and then, so that no more are kept than can be looked at.
            if self.slowest.len() >= 2 * MOST {
                cut(&mut self.slowest);
            }
        }
    }

    /// The answers that took `over` or longer.
    pub(super) fn finish(mut self, over: Option<Duration>) -> (Tail, Flights) {
        let Flights { sent, ended, held_up } = &mut self.flights;
        sent.sort_unstable();
        ended.sort_unstable();
        held_up.sort_unstable();
        self.latencies.sort_unstable();
        let of = self.latencies.len();
        let Some(median_us) = self.latencies.get(of / 2).copied() else {
            return (Tail::default(), self.flights);
        };
        let worst = self.latencies[of - of.div_ceil(100)];
        let usual = worst.min(STANDS_OUT_US.max(TIMES_THE_MEDIAN.saturating_mul(median_us)));
        let over_us = over.map_or(usual, |over| u64::try_from(over.as_micros()).unwrap_or(u64::MAX));
        let count = of - self.latencies.partition_point(|us| *us < over_us);
        let mut records = self.slowest;
        cut(&mut records);
        records.truncate(count);
        (Tail { records, count, of, over_us, median_us }, self.flights)
    }
}

fn cut(slowest: &mut Vec<Record>) {
    slowest.sort_by_key(|record| (Reverse(latency_us(record)), record.n));
    slowest.truncate(MOST);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(latencies_ms: impl IntoIterator<Item = u64>, over: Option<Duration>) -> Tail {
        let mut reader = Reader::default();
        for (n, ms) in latencies_ms.into_iter().enumerate() {
            reader.take(&Record {
                n: n as u64,
                id: format!("{n:032x}"),
                outcome: Outcome::Ok,
                due_us: 1000 * n as u64,
                sent_us: Some(1000 * n as u64),
                end_us: 1000 * (n as u64 + ms),
                status: Some(200),
                served_by: None,
                server_timing: None,
                error: None,
            });
        }
        reader.finish(over).0
    }

    #[test]
    fn the_tail_is_the_worst_hundredth_and_whatever_stands_out() {
        let even = tail((0..1000).map(|n| 100 + n % 50), None);
        assert_eq!((even.count, even.over_us), (20, 149_000), "as many as are as slow as the tenth slowest");
        let stalled = tail((0..1000).map(|n| if n < 80 { 5000 } else { 2 }), None);
        assert_eq!((stalled.count, stalled.over_us, stalled.median_us), (80, 500_000, 2000));
        let slow = tail((0..1000).map(|n| if n < 80 { 5000 } else { 2000 }), None);
        assert_eq!((slow.count, slow.over_us), (80, 5_000_000), "slow as a rule is nothing that stands out");
        assert_eq!(tail(1..=50, None).count, 1);
        assert_eq!(tail([], None).count, 0);
    }

    #[test]
    fn a_threshold_takes_what_took_as_long_or_longer() {
        let asked = tail(1..=1000, Some(Duration::from_millis(900)));
        assert_eq!((asked.count, asked.records.len(), latency_us(&asked.records[0])), (101, 101, 1_000_000));
    }

    #[test]
    fn more_than_can_be_looked_at_are_counted_and_the_slowest_kept() {
        let many = tail(0..3 * MOST as u64, Some(Duration::ZERO));
        assert_eq!((many.count, many.records.len()), (3 * MOST, MOST));
        assert_eq!(latency_us(&many.records[MOST - 1]), 1000 * 2 * MOST as u64);
    }

    #[test]
    fn who_was_under_way_and_held_up_is_known_at_each_moment() {
        let flights =
            Flights { sent: vec![0, 10, 20], ended: vec![15, 30, 40], held_up: vec![(10, 6000), (20, 9000)] };
        assert_eq!([0, 5, 12, 20, 50].map(|at| flights.under_way(at)), [0, 1, 2, 1, 0]);
        assert_eq!(flights.held_up(5, 15), (1, Duration::from_millis(6)));
        assert_eq!(flights.held_up(21, 99), (0, Duration::ZERO));
    }
}
