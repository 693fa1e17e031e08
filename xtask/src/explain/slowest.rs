//! The slowest answers of a run in groups of one cause, for a person and in JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::mechanism::Mechanism;
use super::tail::{Parts, Slow, slow};
use super::{MOST_IN_JSON, Verdict, details, pods};
use crate::record::case::Case;

/// The slowest answers of a run, and why each was slow.
#[derive(Clone, Debug, Default)]
pub struct Slowest {
    /// The slowest first; of very many, the slowest alone.
    pub answers: Vec<Slow>,
    /// How many there are in all.
    pub count: usize,
    /// Of so many answers.
    pub of: usize,
    /// They took this many milliseconds or more.
    pub over_ms: f64,
    /// Half of all answers took less, in milliseconds.
    pub median_ms: f64,
}

/// Slow answers of one cause.
pub struct Group<'s> {
    /// The cause.
    pub mechanism: Mechanism,
    /// The slowest first.
    pub answers: Vec<&'s Slow>,
}

impl Group<'_> {
    /// From the fastest to the slowest of them: `5001 to 5070 ms`.
    pub fn range(&self) -> String {
        let ms = |slow: Option<&&Slow>| round(slow.map_or(0.0, |slow| slow.ms()));
        let (least, most) = (ms(self.answers.last()), ms(self.answers.first()));
        if least == most { format!("{most} ms") } else { format!("{least} to {most} ms") }
    }

    /// The part of its time that decides, in the middle: `5000 ms lost tries`.
    pub fn most(&self) -> String {
        let Some(first) = self.answers.first() else { return String::new() };
        let parts = self.parts();
        format!("{} ms {}", round(parts.ms(first.most)), first.most.title())
    }

    /// The middle of each part of their time.
    pub fn parts(&self) -> Parts {
        Parts::median(&self.answers)
    }

    /// Their verdicts.
    pub fn verdicts(&self) -> Vec<&Verdict> {
        self.answers.iter().map(|slow| &slow.verdict).collect()
    }
}

/// To whole milliseconds where that is exact enough.
fn round(ms: f64) -> String {
    if ms >= 10.0 { format!("{ms:.0}") } else { format!("{ms:.1}") }
}

impl Slowest {
    /// Of a case.
    pub(super) fn of(case: &Case) -> Slowest {
        let ms = |us: u64| us as f64 / 1e3;
        let tail = &case.tail;
        Slowest {
            answers: tail.records.iter().map(|record| slow(case, record)).collect(),
            count: tail.count,
            of: tail.of,
            over_ms: ms(tail.over_us),
            median_ms: ms(tail.median_us),
        }
    }

    /// By cause, the largest group first.
    pub fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: BTreeMap<Mechanism, Vec<&Slow>> = BTreeMap::new();
        for slow in &self.answers {
            groups.entry(slow.verdict.mechanism).or_default().push(slow);
        }
        let mut groups: Vec<_> =
            groups.into_iter().map(|(mechanism, answers)| Group { mechanism, answers }).collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.answers.len()));
        groups
    }

    /// How many there are, and of what; nothing where no answer was as slow.
    pub fn headline(&self) -> String {
        let Slowest { count, of, over_ms, median_ms, .. } = self;
        if *count == 0 {
            return String::new();
        }
        let (over, median) = (round(*over_ms), round(*median_ms));
        format!("slow: {count} of {of} answers took {over} ms or more; half took less than {median} ms")
    }

    /// Answers that were not looked at, in words.
    pub fn more(&self) -> Option<String> {
        let more = self.count - self.answers.len();
        (more > 0).then(|| format!("{more} more, none of them slower, were not looked at"))
    }

    /// A line for each cause.
    pub fn table(&self) -> String {
        let groups = self.groups();
        let rows: Vec<[String; 4]> = groups
            .iter()
            .map(|group| {
                let count = format!("{} ×", group.answers.len());
                [count, group.range(), group.most(), group.mechanism.title().to_owned()]
            })
            .collect();
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or_default()
        };
        let [count, range, most] = [0, 1, 2].map(width);
        let mut text = self.headline();
        for row in &rows {
            let _ = write!(text, "\n  {:>count$} {:<range$}  {:<most$}  {}", row[0], row[1], row[2], row[3]);
        }
        text.extend(self.more().map(|more| format!("\n  {more}")));
        text
    }

    /// Each cause with the evidence of its slowest answer.
    pub fn text(&self) -> String {
        let mut text = self.headline() + "\n";
        text.extend(self.more().map(|more| more + "\n"));
        self.groups().iter().fold(text, |text, group| text + "\n" + &group_text(group))
    }

    /// As it is in the JSON summaries of `explain` and `load`.
    pub fn json(&self) -> Value {
        let groups = self.groups().into_iter().map(|group| {
            let ms = |slow: Option<&&Slow>| slow.map(|slow| slow.ms());
            json!({
                "mechanism": group.mechanism.name(),
                "why": group.mechanism.title(),
                "count": group.answers.len(),
                "least_ms": ms(group.answers.last()),
                "most_ms": ms(group.answers.first()),
                "parts_ms": group.parts(),
                "pods": pods(&group.verdicts()),
                "fix": group.answers.first().map(|slow| &slow.verdict.fix),
            })
        });
        json!({
            "over_ms": self.over_ms,
            "median_ms": self.median_ms,
            "count": self.count,
            "of": self.of,
            "groups": groups.collect::<Value>(),
            "answers": self.answers.iter().take(MOST_IN_JSON).map(Slow::json).collect::<Value>(),
        })
    }
}

/// One cause, with the evidence of its slowest answer.
pub(super) fn group_text(group: &Group<'_>) -> String {
    let (count, range, title) = (group.answers.len(), group.range(), group.mechanism.title());
    let middle = if count > 1 { " (the middle of each)" } else { "" };
    let time = format!("{}{middle}", group.parts().line());
    format!("{count} × {range}: {title}\n") + &details(&group.verdicts(), Some(("time", time)))
}
