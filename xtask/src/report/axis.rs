//! Scales: where a value lies between the ends of a chart.

/// A scale with round numbers at its ends.
pub(super) struct Axis {
    pub(super) low: f64,
    pub(super) high: f64,
    is_log: bool,
    pub(super) ticks: Vec<f64>,
}

impl Axis {
    /// Time or a rate, from 0; about `count` ticks.
    pub(super) fn linear(high: f64, count: f64) -> Axis {
        let raw = (high / count).max(1e-9);
        let power = 10_f64.powf(raw.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|step| *step >= raw).unwrap_or(raw);
        let ticks = (0..).map(|n| f64::from(n) * step).take_while(|tick| *tick <= high * 1.0001).collect();
        Axis { low: 0.0, high, is_log: false, ticks }
    }

    /// Latencies, which differ by powers of ten.
    pub(super) fn log(low: f64, high: f64) -> Axis {
        let low = low.max(0.01);
        let steps = (-2..8).flat_map(|power| [1.0, 2.0, 5.0].map(|n| n * 10_f64.powi(power)));
        let steps: Vec<f64> = steps.collect();
        let low = steps.iter().rev().find(|step| **step <= low * 1.0001).copied().unwrap_or(0.01);
        let least = low * 2.0;
        let high = steps.iter().find(|step| **step >= high.max(least) * 0.9999).copied().unwrap_or(1e8);
        let within: Vec<f64> = steps.into_iter().filter(|step| (low..=high).contains(step)).collect();
        let is_decade = |step: &f64| (step.log10() - step.log10().round()).abs() < 1e-6;
        let ticks = if within.len() > 7 { within.into_iter().filter(is_decade).collect() } else { within };
        Axis { low, high, is_log: true, ticks }
    }

    /// So many values, at equal distances from one end to the other.
    pub(super) fn steps(&self, count: u32) -> impl Iterator<Item = f64> {
        let (low, ratio) = (self.low, self.high / self.low);
        (0..=count).map(move |n| low * ratio.powf(f64::from(n) / f64::from(count)))
    }

    /// Where a value lies, from 0 to 1.
    pub(super) fn share(&self, value: f64) -> f64 {
        let share = if self.is_log {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            value / self.high.max(1e-9)
        };
        share.clamp(0.0, 1.0)
    }
}
