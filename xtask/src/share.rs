//! A share of requests, and where it truly lies: what was measured may be chance.

use std::fmt;

/// The normal distribution's quantile for 95 %.
const SIGMAS_95: f64 = 1.96;

/// Wilson's interval of a share, `sigmas` wide (Journal of the American Statistical Association 22, 1927).
pub fn wilson((some, of): (f64, f64), sigmas: f64) -> (f64, f64) {
    let n = of.max(1.0);
    let (p, z2) = (some / n, sigmas * sigmas);
    let middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = sigmas / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

/// A share that was measured in one run or in several.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// So many requests.
    pub some: u64,
    /// Of so many.
    pub of: u64,
    /// Where it lies, with a confidence of 95 %.
    pub low: f64,
    /// The other end of that.
    pub high: f64,
}

impl Share {
    /// Of runs, each with how many of how many. Requests of one run share its luck: where runs differ by more than
    /// single requests would, the interval is as much wider (Kish's design effect).
    pub fn of(runs: &[(u64, u64)]) -> Share {
        let (some, of) = runs.iter().fold((0, 0), |(a, b), (some, of)| (a + some, b + of));
        let (k, n) = (runs.len() as f64, of as f64);
        let p = some as f64 / n.max(1.0);
        let mut effect = 1.0_f64;
        if runs.len() > 1 && some > 0 && some < of {
            let off = |(some, of): &(u64, u64)| (*some as f64 - *of as f64 * p).powi(2);
            let between = runs.iter().map(off).sum::<f64>() / (k - 1.0);
            effect = effect.max(between / (n / k * p * (1.0 - p)));
        }
        let (low, high) = wilson((some as f64 / effect, n / effect), SIGMAS_95);
        // What rounding leaves of nothing is nothing.
        let low = if some == 0 { 0.0 } else { low };
        Share { some, of, low, high }
    }

    /// As a number from 0 to 1.
    pub fn value(&self) -> f64 {
        self.some as f64 / (self.of as f64).max(1.0)
    }

    /// How wide the interval is.
    pub fn width(&self) -> f64 {
        self.high - self.low
    }

    /// In words: `1.0 % of requests fail in a rollout, 95 % CI 0.5–1.9`.
    pub fn requests(&self, does: &str) -> String {
        let text = self.to_string();
        match text.split_once(", 95") {
            Some((value, interval)) => format!("{value} of requests {does}, 95{interval}"),
            None => format!("{text} requests {does}"),
        }
    }

    /// Whether its interval and that of another have nothing in common.
    pub fn differs_from(&self, other: &Share) -> bool {
        self.low > other.high || other.low > self.high
    }
}

/// `1.0 %, 95 % CI 0.5–1.9`, or of none `0 of 12,000`.
impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.some {
            0 => write!(f, "0 of {}", thousands(self.of)),
            _ => {
                let [value, low, high] = [self.value(), self.low, self.high].map(percent);
                write!(f, "{value} %, 95 % CI {low}–{high}")
            }
        }
    }
}

/// As many digits as say something.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 0.095 { format!("{percent:.2}") } else { format!("{percent:.1}") }
}

/// `12,000`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let (head, tail) = digits.split_at(first);
    let groups = tail.as_bytes().chunks(3).map(|group| String::from_utf8_lossy(group).into_owned());
    let head = (!head.is_empty()).then(|| head.to_owned());
    head.into_iter().chain(groups).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_told_with_its_interval() {
        assert_eq!(Share::of(&[(0, 12_000)]).to_string(), "0 of 12,000");
        assert_eq!(Share::of(&[(10, 1000)]).to_string(), "1.0 %, 95 % CI 0.5–1.8");
        assert_eq!(Share::of(&[(10, 1000)]).requests("fail"), "1.0 % of requests fail, 95 % CI 0.5–1.8");
        assert_eq!(Share::of(&[(0, 10)]).requests("fail"), "0 of 10 requests fail");
        assert_eq!(Share::of(&[(1, 20_000)]).to_string(), "0.01 %, 95 % CI 0.00–0.03");
        assert_eq!(Share::of(&[(7, 7)]).to_string(), "100.0 %, 95 % CI 64.6–100.0");
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }

    /// Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    #[test]
    fn the_interval_is_wilsons() {
        for ((some, of), low, high) in [
            ((81, 263), 0.2553, 0.3662),
            ((15, 148), 0.0624, 0.1605),
            ((0, 20), 0.0, 0.1611),
            ((1, 29), 0.0061, 0.1718),
        ] {
            let share = Share::of(&[(some, of)]);
            assert!((share.low - low).abs() < 1e-4 && (share.high - high).abs() < 1e-4, "{share:?}");
        }
    }

    #[test]
    fn runs_that_differ_make_it_less_sure() {
        let alike = Share::of(&[(10, 1000), (11, 1000), (9, 1000)]);
        let apart = Share::of(&[(0, 1000), (30, 1000), (0, 1000)]);
        assert_eq!(alike, Share::of(&[(30, 3000)]));
        assert!((alike.value() - apart.value()).abs() < 1e-12 && apart.width() > 2.0 * alike.width());
        assert!(
            !apart.differs_from(&Share::of(&[(0, 1000)])) && alike.differs_from(&Share::of(&[(0, 3000)]))
        );
    }
}
