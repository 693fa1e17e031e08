//! What minikube says, and what of it helps a reader: CloudEvents of `--output=json`, or plain lines between
//! bullets, boxes and colours. When it fails it speaks on either stream, its `docker-env` on stdout alone.

use anyhow::anyhow;
use serde::Deserialize;

use crate::failure::{Attach as _, Evidence};
use crate::proc::Answer;

/// A first line longer than this is a command line with its arguments; its ends tell enough.
const HEADLINE_CHARS: usize = 200;
/// How many of the last lines of a failed inner command are evidence.
const INNER_LINES: usize = 12;
/// How many earlier messages are.
const EARLIER_LINES: usize = 8;

/// One line of `--output=json`; fields as minikube writes them, every value a string.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Data,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Data {
    message: String,
    currentstep: String,
    totalsteps: String,
    artifact: String,
    progress: String,
    name: String,
    exitcode: String,
    advice: String,
    url: String,
}

/// Why minikube gave up, in its own words.
#[derive(Debug, Default, PartialEq)]
struct Cause {
    /// Its name for this failure, such as `GUEST_START`.
    name: String,
    message: String,
    advice: String,
}

/// What one run of minikube has said so far.
#[derive(Debug, Default)]
pub(super) struct Heard {
    cause: Option<Cause>,
    messages: Vec<String>,
}

impl Heard {
    /// Takes a line as it comes; what the live line shows of it.
    pub(super) fn line(&mut self, line: &str) -> Option<String> {
        match serde_json::from_str::<Event>(line) {
            Ok(event) => self.event(event),
            Err(_) => self.text(line),
        }
    }

    fn event(&mut self, Event { kind, data }: Event) -> Option<String> {
        let step = || format!("{}/{}", data.currentstep, data.totalsteps);
        match kind.strip_prefix("io.k8s.sigs.minikube.")? {
            "step" => return Some(format!("{} {}", step(), data.message.trim())),
            "download" => return Some(format!("{} downloading {}", step(), data.artifact)),
            "download.progress" => {
                let percent = data.progress.parse().unwrap_or(0.0_f64) * 100.0;
                return Some(format!("{} downloading {} {percent:.0} %", step(), data.artifact));
            }
            // Errors are advice too; the cause is the one with an exit code.
            "error" if !data.exitcode.is_empty() => {
                let advice = [data.advice.trim(), data.url.trim()].join(" ").trim().to_owned();
                self.cause = Some(Cause { name: data.name, message: data.message, advice });
            }
            "error" | "warning" => self.remember(&data.message),
            // Of its own settings.
            _ => {}
        }
        None
    }

    fn text(&mut self, line: &str) -> Option<String> {
        let of_the_program = is_log(line);
        let line = plain_line(line)?;
        if let Some((name, message)) =
            line.strip_prefix("X Exiting due to ").and_then(|it| it.split_once(": "))
        {
            let (name, message) = (name.to_owned(), message.to_owned());
            self.cause = Some(Cause { name, message, advice: String::new() });
            return None;
        }
        self.remember(&line);
        (!of_the_program).then_some(line)
    }

    fn remember(&mut self, message: &str) {
        for line in message.lines().filter_map(plain_line).take(1) {
            let line = shortened(&line);
            if !self.messages.contains(&line) {
                self.messages.push(line);
            }
        }
    }

    /// The error that ended the run, explained: minikube's cause, its advice as the hint, and what it said before.
    pub(super) fn explain(self, error: anyhow::Error, otherwise: &str) -> anyhow::Error {
        let Heard { cause, mut messages } = self;
        let Some(cause) = cause.or_else(|| {
            let message = messages.pop()?;
            Some(Cause { message, ..Cause::default() })
        }) else {
            return error.hint(otherwise);
        };
        let inner = inner_error(&cause.message);
        let first = cause.message.lines().find_map(plain_line).unwrap_or_default();
        let mut text = shortened(first.trim_end_matches('.'));
        // The inner command's own error says more than that it failed.
        if let Some(telling) = telling(&inner).filter(|line| !text.contains(*line)) {
            text = format!("{text}: {telling}");
        }
        if !cause.name.is_empty() {
            text = format!("{}: {text}", cause.name);
        }
        let earlier = messages.split_off(messages.len().saturating_sub(EARLIER_LINES));
        let inner = inner[inner.len().saturating_sub(INNER_LINES)..].to_vec();
        let mut sections = vec![("earlier output of minikube".to_owned(), earlier)];
        sections.push(("last lines of what failed inside it".to_owned(), inner));
        sections.retain(|(_, lines)| !lines.is_empty());
        let hint = if cause.advice.is_empty() { otherwise } else { &cause.advice };
        error.context(text).attach(Evidence(sections)).hint(hint)
    }
}

/// A command that failed, or printed what can't be read: quoted whole, since minikube speaks on either stream.
pub(super) fn refusal(shown: &str, answer: &Answer) -> anyhow::Error {
    let mut heard = Heard::default();
    for line in answer.stdout.lines().chain(answer.stderr.lines()) {
        heard.line(line);
    }
    let said = heard.cause.map_or_else(
        || if heard.messages.is_empty() { "no message".to_owned() } else { heard.messages.join(" ") },
        |cause| format!("{}: {}", cause.name, cause.message),
    );
    anyhow!("`{shown}` {}: {said}", crate::proc::ending(answer.status))
}

/// An answer that is not what it should be, quoted.
pub(super) fn unreadable(shown: &str, answer: &Answer, what: &str) -> anyhow::Error {
    let quote = |stream: &str| {
        let lines: Vec<String> = stream.lines().filter_map(plain_line).collect();
        if lines.is_empty() { "nothing".to_owned() } else { format!("`{}`", shortened(&lines.join(" "))) }
    };
    let (stdout, stderr) = (quote(&answer.stdout), quote(&answer.stderr));
    anyhow!("`{shown}` printed no {what}: on stdout {stdout}, on stderr {stderr}")
}

/// What an inner command wrote to its own stderr, where a message quotes one.
fn inner_error(message: &str) -> Vec<String> {
    let Some((_, stderr)) = message.rsplit_once("\nstderr:\n") else { return Vec::new() };
    let mut lines: Vec<String> = stderr.lines().filter_map(plain_line).collect();
    lines.dedup();
    lines
}

/// The line that says why an inner command failed: kubeadm's finding, or what the container engine answered.
fn telling(lines: &[String]) -> Option<&str> {
    ["[ERROR ", "Error response from daemon", "error: "]
        .iter()
        .find_map(|sign| lines.iter().find(|line| line.contains(sign)))
        .map(String::as_str)
}

/// Whether it is a line of a Go program's log: `E1126 10:48:43.677550   10979 start.go:158] …`.
fn is_log(line: &str) -> bool {
    let line = line.as_bytes();
    line.len() > 5
        && b"IWEF".contains(&line[0])
        && line[1..5].iter().all(u8::is_ascii_digit)
        && line[5] == b' '
}

/// A line without colours, bullets and a log's time and place; none for an empty one and for the box that asks to file
/// an issue.
fn plain_line(line: &str) -> Option<String> {
    let line = anstream::adapter::strip_str(line).to_string();
    let mut line = line.trim();
    if is_log(line) {
        line = line.split_once("] ").map_or(line, |(_, said)| said);
    }
    let line = line.strip_prefix("* ").or_else(|| line.strip_prefix("! ")).unwrap_or(line).trim();
    let is_box = line.starts_with(['╭', '╰', '│']);
    (!line.is_empty() && line != "*" && !is_box).then(|| line.to_owned())
}

/// A long line without its middle.
fn shortened(line: &str) -> String {
    let chars: Vec<char> = line.chars().collect();
    if chars.len() <= HEADLINE_CHARS {
        return line.to_owned();
    }
    let (head, tail) = (&chars[..HEADLINE_CHARS / 2], &chars[chars.len() - HEADLINE_CHARS / 2..]);
    format!("{} … {}", String::from_iter(head).trim_end(), String::from_iter(tail).trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::Commands;
    use crate::failure::{Hint, attached, paragraph};

    const FAILED_START: &str = include_str!("../../../tests/stand-ins/answers/start-fails-guest-start.jsonl");
    const FAILED_HOST: &str =
        include_str!("../../../tests/stand-ins/answers/start-fails-guest-provision.jsonl");
    const STARTED: &str = include_str!("../../../tests/stand-ins/answers/start-ok.jsonl");

    /// Live lines, then the error as a person reads it.
    fn heard(said: &str) -> String {
        let mut heard = Heard::default();
        let live: Vec<String> = said.lines().filter_map(|line| heard.line(line)).collect();
        let error = heard.explain(anyhow!("`minikube start` exited with code 80"), "the other hint");
        let mut text = format!("{}\n\nerror: {}\n", live.join("\n"), paragraph(&error));
        for (heading, lines) in &attached::<Evidence>(&error).expect("evidence").0 {
            text += &format!("{heading}\n  {}\n", lines.join("\n  "));
        }
        text + &format!(
            "hint: {}",
            Commands::default().write_out(&attached::<Hint>(&error).expect("a hint").0)
        )
    }

    #[test]
    fn a_start_that_failed_in_kubeadm() {
        insta::assert_snapshot!(heard(FAILED_START));
    }

    #[test]
    fn a_start_that_failed_in_the_container_engine() {
        insta::assert_snapshot!(heard(FAILED_HOST));
    }

    #[test]
    fn the_live_line_is_minikubes_step_and_no_advice() {
        let mut heard = Heard::default();
        let live: Vec<String> = STARTED.lines().filter_map(|line| heard.line(line)).collect();
        insta::assert_snapshot!(live.join("\n"));
        let download = r#"{"specversion":"1.0","type":"io.k8s.sigs.minikube.download.progress","data":{"artifact":"kicbase.tar","currentstep":"5","progress":"0.416","totalsteps":"19"}}"#;
        assert_eq!(heard.line(download).as_deref(), Some("5/19 downloading kicbase.tar 42 %"));
    }

    #[test]
    fn advice_is_the_hint() {
        let event = r#"{"type":"io.k8s.sigs.minikube.error","data":{"advice":"Specify --kubernetes-version","exitcode":"14","message":"No Major.Minor.Patch elements found","name":"MK_KVERSION_USAGE","url":"https://minikube.sigs.k8s.io/x"}}"#;
        assert!(
            heard(event).ends_with(
                "error: MK_KVERSION_USAGE: No Major.Minor.Patch elements found: `minikube start` exited \
                 with code 80\n\
                 hint: Specify --kubernetes-version https://minikube.sigs.k8s.io/x"
            ),
            "{}",
            heard(event)
        );
    }

    #[test]
    fn a_refused_addon_has_no_box() {
        let said = concat!(
            include_str!("../../../tests/stand-ins/answers/paused/addons_enable_ingress.out"),
            include_str!("../../../tests/stand-ins/answers/paused/addons_enable_ingress.err"),
        );
        insta::assert_snapshot!(heard(said));
    }
}
