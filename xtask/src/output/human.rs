//! What a person sees: live lines on a terminal, plain lines elsewhere.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::streams::{Terminal, tell};
use super::style::{only_colour, painted, plain, safe};
use super::{Event, Kind, State};
use crate::commands::Commands;
use crate::failure::{Evidence, Exit, Printed, advice, attached, paragraph};

/// Without a terminal, a wait is shown when it is this old, and then at most this often.
const WAIT_EVERY: Duration = Duration::from_secs(5);
/// Without a terminal, nothing is silent for longer than this.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Live lines are drawn this often a second at most.
const DRAWS_A_SECOND: u8 = 20;
/// Width of the name column; the longest name is `ingress-controller`.
const NAME_WIDTH: usize = 18;

pub(super) struct Human {
    live: Option<MultiProgress>,
    colour: bool,
    verbose: bool,
    /// What ends well has no line.
    brief: bool,
    /// What is under way, in the order in which it began.
    running: Vec<Running>,
    /// When the last line was written.
    spoke: Instant,
}

/// A step or gate that is under way.
struct Running {
    kind: Kind,
    name: String,
    bar: Option<ProgressBar>,
    began: Instant,
    deadline: Option<Instant>,
    /// What it is at, in its latest words.
    words: String,
    /// When it was last shown, or began; and the words.
    shown: (Instant, String),
}

impl Running {
    fn left(&self, now: Instant) -> String {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(now).as_secs_f64());
        left.map(|seconds| format!(" ({seconds:.0} s left)")).unwrap_or_default()
    }

    fn line(&self, now: Instant) -> String {
        let (label, seconds) = (label(self.kind, &self.name), (now - self.began).as_secs_f64());
        let line = format!("… {label} {seconds:>5.1} s  {}{}", self.words, self.left(now));
        line.trim_end().to_owned()
    }
}

impl Human {
    pub(super) fn new(live: bool, colour: bool, verbose: bool) -> Human {
        let live = live.then(|| {
            let terminal = Box::new(Terminal(console::Term::buffered_stderr()));
            MultiProgress::with_draw_target(ProgressDrawTarget::term_like_with_hz(terminal, DRAWS_A_SECOND))
        });
        Human { live, colour, verbose, brief: false, running: Vec::new(), spoke: Instant::now() }
    }

    pub(super) fn brief(&mut self) {
        self.brief = true;
    }

    pub(super) fn event(&mut self, event: &Event) {
        match (event.kind, event.state) {
            (Kind::Warning, _) => self.note(&format!("warning: {}: {}", event.name, event.detail)),
            (Kind::Progress, _) => self.progress(event),
            (Kind::Step | Kind::Gate, State::Start) => self.start(event, Instant::now()),
            (_, State::Wait) => self.wait(event, Instant::now()),
            (_, State::Done | State::Already | State::Failed) => self.end(event),
        }
    }

    fn start(&mut self, event: &Event, now: Instant) {
        let bar = self.live.as_ref().map(|live| {
            let bar = live.add(ProgressBar::new_spinner());
            bar.set_style(
                ProgressStyle::with_template("{spinner} {prefix} {elapsed:>5}  {wide_msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar.set_prefix(label(event.kind, &event.name));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        self.running.push(Running {
            kind: event.kind,
            name: event.name.clone(),
            bar,
            began: now,
            deadline: None,
            words: String::new(),
            shown: (now, String::new()),
        });
    }

    /// The newest of that name: a step and its gate may share it.
    fn find(&mut self, event: &Event) -> Option<&mut Running> {
        self.running.iter_mut().rev().find(|running| running.name == event.name)
    }

    fn wait(&mut self, event: &Event, now: Instant) {
        let Some(running) = self.find(event) else { return };
        running.words = safe(&event.detail).into_owned();
        running.deadline =
            event.left_seconds.and_then(|left| now.checked_add(Duration::try_from_secs_f64(left).ok()?));
        self.tick(now);
    }

    /// Shows what has lasted, with the time that is left by now.
    pub(super) fn tick(&mut self, now: Instant) {
        let is_silent = now.saturating_duration_since(self.spoke) >= HEARTBEAT;
        let mut lines = Vec::new();
        for running in &mut self.running {
            if let Some(bar) = &running.bar {
                bar.set_message(format!("{}{}", running.words, running.left(now)));
                continue;
            }
            let (at, words) = &running.shown;
            let is_due = *words != running.words && now.saturating_duration_since(*at) >= WAIT_EVERY;
            if is_due || is_silent {
                running.shown = (now, running.words.clone());
                lines.push(running.line(now));
            }
        }
        for line in lines {
            self.note(&line);
        }
    }

    fn progress(&mut self, event: &Event) {
        let Some(running) = self.find(event) else { return self.note(&event.detail) };
        running.words = safe(&event.detail).into_owned();
        match &running.bar {
            Some(bar) => bar.set_message(running.words.clone()),
            None => {
                running.shown = (Instant::now(), running.words.clone());
                self.note(&event.detail);
            }
        }
    }

    fn end(&mut self, event: &Event) {
        if let Some(at) = self.running.iter().rposition(|running| running.name == event.name)
            && let Some(bar) = self.running.remove(at).bar
        {
            bar.finish_and_clear();
        }
        // How a round has failed is told whole at its end.
        if self.brief && !self.verbose {
            return;
        }
        self.note(&ending(event));
    }

    pub(super) fn note(&mut self, text: &str) {
        let text = safe(text);
        let text = if self.colour { Cow::Owned(painted(&text)) } else { text };
        self.spoke = Instant::now();
        self.suspend(|| tell(&format!("{text}\n")));
    }

    pub(super) fn trace(&mut self, text: &str) {
        if self.verbose {
            self.note(text);
        }
    }

    /// Prints with the live lines out of the way.
    pub(super) fn suspend(&self, print: impl FnOnce()) {
        match &self.live {
            Some(live) => live.suspend(print),
            None => print(),
        }
    }

    pub(super) fn finish(&mut self) {
        for bar in self.running.drain(..).filter_map(|running| running.bar) {
            bar.finish_and_clear();
        }
    }
}

/// The line of a step or gate that has ended.
fn ending(event: &Event) -> String {
    let mark = match event.state {
        State::Failed => "✗",
        State::Already => "=",
        _ => "✓",
    };
    let is_skipped = event.detail.starts_with("skipped");
    let already = if event.state == State::Already && !is_skipped { "already: " } else { "" };
    let label = label(event.kind, &event.name);
    format!("{mark} {label} {:>5.1} s  {already}{}", event.seconds, event.detail)
}

/// A gate is drawn as what it is to a step: a door behind it.
fn label(kind: Kind, name: &str) -> String {
    let name = if kind == Kind::Gate { format!("└ {name}") } else { name.to_owned() };
    format!("{name:<width$}", width = NAME_WIDTH + 2)
}

/// A failure as a paragraph, its evidence, and what to try.
pub(crate) fn failure(error: &anyhow::Error, exit: Exit, commands: &Commands, colour: bool) -> String {
    let mut text = String::new();
    if let Some(Evidence(parts)) = attached(error) {
        for (heading, lines) in parts.iter().filter(|(_, lines)| !lines.is_empty()) {
            let _ = writeln!(text, "  {}", safe(heading));
            for line in lines {
                let _ = writeln!(text, "    {}", safe(line));
            }
        }
    } else if let Some(printed) = attached::<Printed>(error) {
        let _ = writeln!(text, "  {}", printed.heading());
        for line in &printed.lines {
            let _ = writeln!(text, "    {}", if colour { only_colour(line) } else { plain(line) });
        }
    }
    let word = if exit == Exit::Interrupted { "interrupted" } else { "error" };
    let _ = writeln!(text, "{word}: {}", safe(&paragraph(error)));
    if let Some(advice) = advice(error) {
        let _ = writeln!(text, "hint: {}", safe(&commands.write_out(&advice)));
    }
    if colour { painted(&text) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn human() -> Human {
        Human::new(false, false, false)
    }

    fn event(state: State, detail: &str, left_seconds: Option<f64>) -> Event {
        Event {
            kind: Kind::Gate,
            name: "rollout".to_owned(),
            state,
            detail: detail.to_owned(),
            at_seconds: 0.0,
            seconds: 0.0,
            left_seconds,
        }
    }

    /// What each tick would show, at so many seconds.
    fn shown(human: &mut Human, began: Instant, seconds: u64) -> Option<String> {
        let now = began + Duration::from_secs(seconds);
        human.tick(now);
        let running = human.running.first()?;
        (running.shown.0 == now).then(|| running.line(now))
    }

    #[test]
    fn a_steady_wait_is_shown_after_five_seconds_with_its_latest_words() {
        let (mut human, began) = (human(), Instant::now());
        human.start(&event(State::Start, "", None), began);
        human.wait(&event(State::Wait, "0 of 3 updated pods Ready", Some(600.0)), began);
        human.wait(&event(State::Wait, "2 of 3 updated pods Ready", Some(600.0)), began);
        assert_eq!(shown(&mut human, began, 4), None);
        let line = shown(&mut human, began, 5).expect("the wait");
        assert_eq!(line, "… └ rollout              5.0 s  2 of 3 updated pods Ready (595 s left)");
        human.spoke = began + Duration::from_secs(5);
        // The same words again are no news, until all has been silent for a while.
        assert_eq!(shown(&mut human, began, 19), None);
        let line = shown(&mut human, began, 20).expect("a heartbeat");
        assert!(line.ends_with("20.0 s  2 of 3 updated pods Ready (580 s left)"), "{line}");
    }

    #[test]
    fn lines_stand_below_each_other() {
        let (mut human, began) = (human(), Instant::now());
        let at = |kind, name: &str, state, detail: &str, seconds| Event {
            kind,
            name: name.to_owned(),
            seconds,
            ..event(state, detail, Some(300.0))
        };
        let waits = at(Kind::Gate, "rollout", State::Wait, "1 of 2 updated pods Ready", 0.0);
        human.start(&waits, began);
        human.wait(&waits, began);
        let running = human.running[0].line(began + Duration::from_millis(12_340));
        let ended = [
            at(Kind::Step, "weights", State::Already, "seeded, seed 1", 0.01),
            at(Kind::Step, "compile", State::Already, "skipped: docker compiles it", 0.0),
            at(Kind::Step, "image", State::Done, "simple-model-api:0a1b2c built", 61.04),
            at(Kind::Gate, "ingress-controller", State::Done, "its webhook accepts the Ingress", 2.26),
            at(Kind::Gate, "settled", State::Failed, "gate settled: 1 terminating (web-0)", 600.0),
        ];
        let lines: Vec<String> = ended.iter().map(ending).chain([running]).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    /// Whatever a pod, a log or a server wrote.
    #[test]
    fn a_failure_says_nothing_to_the_terminal_itself() {
        use crate::failure::Attach as _;
        let hostile = "\x1b[2J\x1b]0;owned\x07\u{9b}1A\u{202e}";
        let evidence = Evidence(vec![(format!("log of {hostile}"), vec![hostile.to_owned()])]);
        let error = anyhow::anyhow!("gate rollout: {hostile}").attach(evidence).hint(hostile);
        for colour in [false, true] {
            let text = failure(&error, Exit::GateDoomed, &Commands::default(), colour);
            let own = if colour { text.matches("\x1b[").count() } else { 0 };
            assert_eq!(text.matches('\x1b').count(), own, "{text:?}");
            assert!(!text.contains(['\x07', '\u{9b}', '\u{202e}']), "{text:?}");
            assert_eq!(text.matches(r"\u001b[2J\u001b]0;owned\u0007\u009b1A\u202e").count(), 4, "{text}");
        }
    }

    #[test]
    fn what_says_nothing_has_a_heartbeat_too() {
        let (mut human, began) = (human(), Instant::now());
        human.start(&event(State::Start, "", None), began);
        human.spoke = began;
        assert_eq!(shown(&mut human, began, 14), None);
        assert_eq!(shown(&mut human, began, 15).as_deref(), Some("… └ rollout             15.0 s"));
    }
}
