//! How far runs of the same load are apart: it goes into the summary of `load --repeat`, and is read back from there.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use xtask_load::tally::{Buckets, Latency};

use super::meta::Judged;

/// The runs, and their figures side by side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Each run.
    pub runs: Vec<Part>,
    /// Each figure over all valid runs.
    pub rows: Vec<Row>,
}

/// One of the runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Its folder.
    pub run: PathBuf,
    /// `passed`, `failed`, `invalid`.
    pub verdict: String,
    /// Its requests.
    pub scheduled: u64,
    /// What became of them.
    pub buckets: Buckets,
    /// From when each was due; nothing where nothing was answered.
    pub latency_ms: Option<Latency>,
    /// How long it took.
    pub seconds: f64,
    /// Its conditions.
    #[serde(default)]
    pub thresholds: Vec<Judged>,
}

/// A figure over all runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// The middle of the runs.
    pub median: f64,
    /// The least of them.
    pub least: f64,
    /// The most of them.
    pub most: f64,
    /// How far apart the runs are, as a share of the median; nothing where that is none.
    pub spread: Option<f64>,
}

impl Row {
    /// Nothing where no run has the figure.
    pub fn of(name: &str, unit: &str, mut values: Vec<f64>) -> Option<Row> {
        values.sort_unstable_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        // Of an even number the mean of the two in the middle.
        let median = (values[middle] + values[(values.len() - 1) / 2]) / 2.0;
        let spread = (median > 0.0).then(|| (most - least) / median);
        Some(Row { name: name.to_owned(), unit: unit.to_owned(), median, least, most, spread })
    }

    /// Median, least, most and spread, each with its unit.
    pub fn cells(&self) -> [String; 4] {
        let [median, least, most] =
            [self.median, self.least, self.most].map(|value| format!("{value:.1} {}", self.unit));
        let spread = self.spread.map_or_else(|| "–".to_owned(), |share| format!("{:.1} %", share * 100.0));
        [median, least, most, spread]
    }
}

impl Spread {
    /// The figures, one a line.
    pub fn text(&self) -> String {
        let valid = self.runs.iter().filter(|run| run.verdict != "invalid").count();
        let title = if valid == 1 { "1 run".to_owned() } else { format!("{valid} runs") };
        let mut text = format!("{title:<10}{:>12}{:>12}{:>12}{:>10}\n", "median", "least", "most", "spread");
        for row in &self.rows {
            let [median, least, most, spread] = row.cells();
            let _ = writeln!(text, "{:<10}{median:>12}{least:>12}{most:>12}{spread:>10}", row.name);
        }
        text
    }

    /// `3 runs`, and how many of them did not pass.
    pub fn headline(&self) -> String {
        let all = self.runs.len();
        let passed = self.runs.iter().filter(|run| run.verdict == "passed").count();
        if passed == all {
            format!("all {all} runs passed")
        } else {
            format!("{passed} of {all} runs passed")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_median_and_how_far_the_runs_are_apart() {
        let p50 = Row::of("p50", "ms", vec![104.0, 100.0, 96.0]).expect("a row");
        assert_eq!(p50.spread, Some(0.08));
        let p99 = Row::of("p99", "ms", vec![1234.5, 200.0]).expect("a row");
        let failed = Row::of("failed", "%", vec![0.0, 0.0, 0.5]).expect("a row");
        assert_eq!(Row::of("max", "ms", Vec::new()), None);
        let part = |verdict: &str| Part {
            run: PathBuf::new(),
            verdict: verdict.to_owned(),
            scheduled: 20,
            buckets: Buckets::default(),
            latency_ms: None,
            seconds: 1.0,
            thresholds: Vec::new(),
        };
        let runs = ["passed", "invalid", "failed", "passed"].map(part).to_vec();
        let spread = Spread { runs, rows: vec![p50, p99, failed] };
        insta::assert_snapshot!(spread.text(), @r"
        3 runs          median       least        most    spread
        p50           100.0 ms     96.0 ms    104.0 ms     8.0 %
        p99           717.2 ms    200.0 ms   1234.5 ms   144.2 %
        failed           0.0 %       0.0 %       0.5 %         –
        ");
        assert_eq!(spread.headline(), "2 of 4 runs passed");
    }
}
