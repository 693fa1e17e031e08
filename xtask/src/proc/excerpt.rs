//! What a failure quotes of a child's output: all of it if it is short, else how it begins and how it ends. What
//! explains a failure is at the beginning as often as at the end.

use std::collections::VecDeque;

/// How many lines are quoted from the beginning, and how many from the end.
const FIRST: usize = 80;
const LAST: usize = 60;
/// Of a longer line only the beginning is quoted.
const LONGEST: usize = 2000;

/// Keeps the lines that may have to be quoted.
#[derive(Debug, Default)]
pub struct Excerpt {
    first: Vec<String>,
    last: VecDeque<String>,
    left_out: usize,
}

impl Excerpt {
    /// The excerpt of a text that is whole already.
    pub fn of(text: &str) -> Excerpt {
        let mut excerpt = Excerpt::default();
        text.lines().for_each(|line| excerpt.push(line));
        excerpt
    }

    /// Takes the next line.
    pub fn push(&mut self, line: &str) {
        let line = match line.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line.to_owned(),
        };
        if self.first.len() < FIRST {
            self.first.push(line);
            return;
        }
        if self.last.len() == LAST {
            self.last.pop_front();
            self.left_out += 1;
        }
        self.last.push_back(line);
    }

    /// The lines to be shown; `log` is where the whole is kept.
    pub fn lines(self, log: Option<&str>) -> Vec<String> {
        let gap = (self.left_out > 0).then(|| {
            let place = log.map(|log| format!("; all of them are in {log}")).unwrap_or_default();
            format!("… {} lines left out{place}", grouped(self.left_out))
        });
        self.first.into_iter().chain(gap).chain(self.last).collect()
    }
}

/// A number as people read it: `1,234`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(count: usize) -> Vec<String> {
        let lines: Vec<String> = (1..=count).map(|number| format!("line {number}")).collect();
        Excerpt::of(&lines.join("\n")).lines(Some("runs/1/image.log"))
    }

    #[test]
    fn a_short_output_is_quoted_whole() {
        let lines = of(FIRST + LAST);
        assert_eq!((lines.len(), lines[0].as_str()), (FIRST + LAST, "line 1"));
        assert_eq!(lines[FIRST + LAST - 1], format!("line {}", FIRST + LAST));
        assert!(!lines.iter().any(|line| line.contains("left out")));
    }

    #[test]
    fn a_long_output_is_quoted_from_both_ends_and_says_where_the_rest_is() {
        let lines = of(FIRST + LAST + 1234);
        assert_eq!(lines.len(), FIRST + 1 + LAST);
        assert_eq!(lines[FIRST - 1], format!("line {FIRST}"));
        assert_eq!(lines[FIRST], "… 1,234 lines left out; all of them are in runs/1/image.log");
        assert_eq!(lines[FIRST + 1], format!("line {}", FIRST + 1235));
    }

    #[test]
    fn an_endless_line_is_cut() {
        let lines = Excerpt::of(&"é".repeat(LONGEST + 5)).lines(None);
        assert_eq!(lines, [format!("{}…", "é".repeat(LONGEST))]);
    }
}
