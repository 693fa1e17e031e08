//! When each request is due: the shape of the load.

use std::time::Duration;

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Each sender sends its next request when it has the answer to the last: a slow server slows the load down.
    Closed,
    /// Requests are due at moments of their own, whatever the server does.
    Open {
        /// Requests per second at the plateau.
        rate: f64,
        /// The rate climbs from nothing in this time.
        ramp_up: Duration,
        /// And falls to nothing in this time, after the plateau.
        ramp_down: Duration,
    },
}

/// What is to be sent, and when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// How requests follow each other.
    pub pace: Pace,
    /// No more than so many.
    pub requests: Option<u64>,
    /// Time at the plateau, or of the whole closed loop. Without it, the requests decide.
    pub duration: Option<Duration>,
}

/// When a request is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Due {
    /// As soon as there is a sender.
    Now,
    /// So long after the beginning.
    At(Duration),
    /// There is no such request.
    Never,
}

impl Schedule {
    /// When request `n`, from 0, is due.
    pub fn due(&self, n: u64) -> Due {
        if self.total().is_some_and(|total| n >= total) {
            return Due::Never;
        }
        match self.pace {
            Pace::Closed => Due::Now,
            Pace::Open { rate, ramp_up, ramp_down } => {
                let (up, hold, down) =
                    (ramp_up.as_secs_f64(), self.hold().as_secs_f64(), ramp_down.as_secs_f64());
                let n = n as f64;
                let climbed = rate * up / 2.0;
                let held = rate * hold;
                let seconds = if n < climbed {
                    (2.0 * up * n / rate).sqrt()
                } else if n < climbed + held {
                    up + (n - climbed) / rate
                } else {
                    let left = (1.0 - 2.0 * (n - climbed - held) / (rate * down)).max(0.0);
                    up + hold + down * (1.0 - left.sqrt())
                };
                Due::At(seconds_f64(seconds))
            }
        }
    }

    /// How many requests there are; none where only time ends the run.
    pub fn total(&self) -> Option<u64> {
        let by_time = match self.pace {
            Pace::Closed => None,
            Pace::Open { rate, ramp_up, ramp_down } => {
                let ramps = (ramp_up + ramp_down).as_secs_f64() / 2.0;
                // A hair more, so that 0.1 s at 50 a second are 5 and not 4.
                Some((rate * (self.hold().as_secs_f64() + ramps) + 1e-6).floor() as u64)
            }
        };
        match (by_time, self.requests) {
            (Some(by_time), Some(requests)) => Some(by_time.min(requests)),
            (total, None) | (None, total) => total,
        }
    }

    /// No request is sent later than this after the beginning.
    pub fn end(&self) -> Option<Duration> {
        match self.pace {
            Pace::Closed => self.duration,
            Pace::Open { ramp_up, ramp_down, .. } => {
                self.duration.map(|duration| ramp_up + duration + ramp_down)
            }
        }
    }

    /// Time at the plateau.
    fn hold(&self) -> Duration {
        match (self.duration, self.pace, self.requests) {
            (Some(duration), ..) => duration,
            (None, Pace::Open { rate, .. }, Some(requests)) => seconds_f64(requests as f64 / rate),
            _ => Duration::ZERO,
        }
    }
}

/// The longest there is where it would be longer.
fn seconds_f64(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(rate: f64, up: u64, hold: u64, down: u64) -> Schedule {
        let second = Duration::from_secs;
        let pace = Pace::Open { rate, ramp_up: second(up), ramp_down: second(down) };
        Schedule { pace, requests: None, duration: Some(second(hold)) }
    }

    fn at(schedule: &Schedule, n: u64) -> f64 {
        match schedule.due(n) {
            Due::At(due) => due.as_secs_f64(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_constant_rate_is_evenly_spaced_and_ends() {
        let schedule = open(50.0, 0, 2, 0);
        assert_eq!(schedule.total(), Some(100));
        assert_eq!(at(&schedule, 0), 0.0);
        assert!((at(&schedule, 50) - 1.0).abs() < 1e-6);
        assert_eq!(schedule.due(100), Due::Never);
    }

    #[test]
    fn ramps_climb_and_fall_without_a_jump() {
        let schedule = open(100.0, 10, 5, 10);
        assert_eq!(schedule.total(), Some(1500));
        let times: Vec<f64> = (0..1500).map(|n| at(&schedule, n)).collect();
        assert!(times.is_sorted());
        // A quarter of the ramp's requests in its first half.
        assert_eq!(times.iter().filter(|t| **t < 5.0).count(), 125);
        assert_eq!(times.iter().filter(|t| (10.0..15.0).contains(*t)).count(), 500);
        let mirrored: Vec<f64> = times.iter().rev().map(|t| 25.0 - t).collect();
        assert!((mirrored[700] - times[700]).abs() < 0.1);
    }

    #[test]
    fn a_number_of_requests_bounds_any_pace() {
        let closed = Schedule { pace: Pace::Closed, requests: Some(50), duration: None };
        assert_eq!((closed.due(49), closed.due(50), closed.total()), (Due::Now, Due::Never, Some(50)));
        let pace = Pace::Open { rate: 10.0, ramp_up: Duration::ZERO, ramp_down: Duration::ZERO };
        let open = Schedule { pace, requests: Some(7), duration: None };
        assert_eq!(open.total(), Some(7));
        assert!((at(&open, 6) - 0.6).abs() < 1e-9);
    }

    #[test]
    fn what_would_take_for_ever_is_never_due() {
        let pace = Pace::Open { rate: 1e-300, ramp_up: Duration::ZERO, ramp_down: Duration::ZERO };
        let schedule = Schedule { pace, requests: Some(u64::MAX), duration: None };
        assert_eq!((schedule.due(0), schedule.due(u64::MAX - 1)), (Due::Never, Due::Never));
    }
}
