//! What a person sees: live lines on a terminal, plain lines elsewhere.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::style::{only_colour, painted, plain};
use super::{Event, Kind, State};
use crate::failure::{Evidence, Exit, Hint, Printed, attached, paragraph};

/// Without a terminal, a wait speaks when it is this old, and then at most this often.
const PLAIN_WAIT_EVERY: Duration = Duration::from_secs(5);
/// Width of the name column; the longest name is `ingress-controller`.
const NAME_WIDTH: usize = 18;

pub(super) struct Human {
    live: Option<MultiProgress>,
    colour: bool,
    verbose: bool,
    running: HashMap<String, Running>,
}

struct Running {
    bar: Option<ProgressBar>,
    last_wait: Instant,
}

impl Human {
    pub(super) fn new(live: bool, colour: bool, verbose: bool) -> Human {
        Human { live: live.then(MultiProgress::new), colour, verbose, running: HashMap::new() }
    }

    pub(super) fn event(&mut self, event: &Event) {
        match (event.kind, event.state) {
            (Kind::Warning, _) => self.note(&format!("warning: {}: {}", event.name, event.detail)),
            (Kind::Progress, _) => self.progress(event),
            (Kind::Step | Kind::Gate, State::Start) => self.start(event),
            (_, State::Wait) => self.wait(event),
            (_, State::Done | State::Already | State::Failed) => self.end(event),
        }
    }

    fn start(&mut self, event: &Event) {
        let bar = self.live.as_ref().map(|live| {
            let bar = live.add(ProgressBar::new_spinner());
            bar.set_style(
                ProgressStyle::with_template("{spinner} {prefix} {elapsed:>5}  {wide_msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar.set_prefix(label(event));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        self.running.insert(event.name.clone(), Running { bar, last_wait: Instant::now() });
    }

    fn wait(&mut self, event: &Event) {
        let left = event.left_seconds.map(|s| format!(" ({s:.0} s left)")).unwrap_or_default();
        let Some(running) = self.running.get_mut(&event.name) else { return };
        if let Some(bar) = &running.bar {
            bar.set_message(format!("{}{left}", event.detail));
        } else if running.last_wait.elapsed() >= PLAIN_WAIT_EVERY {
            running.last_wait = Instant::now();
            self.note(&format!("… {} {:>5.1} s  {}{left}", label(event), event.seconds, event.detail));
        }
    }

    fn progress(&self, event: &Event) {
        match self.running.get(&event.name).and_then(|running| running.bar.as_ref()) {
            Some(bar) => bar.set_message(event.detail.clone()),
            None => self.note(&event.detail),
        }
    }

    fn end(&mut self, event: &Event) {
        if let Some(bar) = self.running.remove(&event.name).and_then(|running| running.bar) {
            bar.finish_and_clear();
        }
        let mark = match event.state {
            State::Failed => "✗",
            State::Already => "=",
            _ => "✓",
        };
        let already = if event.state == State::Already && !event.detail.starts_with("skipped") {
            "already: "
        } else {
            ""
        };
        self.note(&format!("{mark} {} {:>5.1} s  {already}{}", label(event), event.seconds, event.detail));
    }

    pub(super) fn note(&self, text: &str) {
        let text = if self.colour { Cow::Owned(painted(text)) } else { Cow::Borrowed(text) };
        self.suspend(|| eprintln!("{text}"));
    }

    pub(super) fn trace(&self, text: &str) {
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
        for bar in self.running.drain().filter_map(|(_, running)| running.bar) {
            bar.finish_and_clear();
        }
    }
}

/// A gate is drawn as what it is to a step: a door behind it.
fn label(event: &Event) -> String {
    let name = if event.kind == Kind::Gate { format!("└ {}", event.name) } else { event.name.clone() };
    format!("{name:<width$}", width = NAME_WIDTH + 2)
}

/// A failure as a paragraph, its evidence, and what to try.
pub(super) fn failure(error: &anyhow::Error, exit: Exit, colour: bool) -> String {
    let mut text = String::new();
    if let Some(Evidence(parts)) = attached(error) {
        for (heading, lines) in parts.iter().filter(|(_, lines)| !lines.is_empty()) {
            let _ = writeln!(text, "  {heading}");
            for line in lines {
                let _ = writeln!(text, "    {line}");
            }
        }
    } else if let Some(printed) = attached::<Printed>(error) {
        let _ = writeln!(text, "  {}", printed.heading());
        for line in &printed.lines {
            let _ = writeln!(text, "    {}", if colour { only_colour(line) } else { plain(line) });
        }
    }
    let word = if exit == Exit::Interrupted { "interrupted" } else { "error" };
    let _ = writeln!(text, "{word}: {}", paragraph(error));
    if let Some(Hint(hint)) = attached(error) {
        let _ = writeln!(text, "hint: {hint}");
    }
    if colour { painted(&text) } else { text }
}
