//! All that is printed goes through here. Steps and gates emit [`Event`]s; this module alone decides what a
//! person or a program sees of them: data on stdout, everything else on stderr.

mod cycle;
mod human;
mod keys;
mod streams;
mod style;
mod timing;

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::commands::Commands;
use crate::failure::{Evidence, Exit, Printed, advice, attached, exit_of, paragraph};
use crate::options::Format;
pub use cycle::{Cycle, Ending};
#[cfg(test)]
pub(crate) use human::failure;
pub use keys::Keys;
pub(crate) use style::plain;
pub use timing::{Span, critical_path, table};

/// Version of what `docs/json.md` describes; a field that is renamed, removed or means something else raises it.
const SCHEMA: u32 = 1;
/// Where no step took this many seconds, nobody asks where the time went.
const WORTH_A_TABLE: f64 = 1.0;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Work that changes something, or looks whether it has to.
    Step,
    /// A wait for a condition.
    Gate,
    /// How far long work has come.
    Progress,
    /// A bad sign that does not end the run.
    Warning,
}

/// Where a step or gate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It begins.
    Start,
    /// It waits, or goes on; the detail says for what.
    Wait,
    /// It is so now.
    Done,
    /// It was so before.
    Already,
    /// It is not so, and will not be.
    Failed,
}

/// One line of the event log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    /// What it is about.
    #[serde(rename = "event")]
    pub kind: Kind,
    /// Which step or gate.
    pub name: String,
    /// Where it stands.
    pub state: State,
    /// In one line, what or why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Seconds since the run began.
    pub at_seconds: f64,
    /// Seconds since this step or gate began.
    pub seconds: f64,
    /// Seconds until its deadline, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_seconds: Option<f64>,
}

/// Takes events to the terminal, to stdout and to the run's event log.
pub struct Output {
    format: Format,
    command: &'static str,
    commands: Commands,
    log: Mutex<Option<Log>>,
    human: Arc<Mutex<human::Human>>,
    keyboard: keys::Keyboard,
    delivery: streams::Delivery,
}

/// The run's event log.
struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// That it is not in its folder any more, where that is so.
    fn lost(&self) -> Option<String> {
        let is_removed = self.file.metadata().is_ok_and(|file| file.nlink() == 0);
        let folder = self.path.parent().unwrap_or(&self.path).display();
        is_removed.then(|| format!("the records of this run are lost: {folder} was removed meanwhile"))
    }
}

/// How often it is looked whether a wait has become old enough to be shown.
const TICK: Duration = Duration::from_millis(250);

/// Shows what lasts, without an event; ends with the output.
fn tick(human: &Arc<Mutex<human::Human>>) {
    let human = Arc::downgrade(human);
    // A thread of its own: what lasts may be what keeps the runtime busy. Without it, waits are shown by events alone.
    let _ = std::thread::Builder::new().name("output".to_owned()).spawn(move || {
        while let Some(human) = human.upgrade() {
            human.lock().tick(Instant::now());
            drop(human);
            std::thread::sleep(TICK);
        }
    });
}

impl Output {
    /// For stdout and stderr as this process has them.
    pub fn new(format: Format, verbose: bool) -> Output {
        let stderr = std::io::stderr();
        // A terminal that can't move its cursor is written to line by line.
        let live = format == Format::Human && stderr.is_terminal() && anstyle_query::term_supports_color();
        let human = human::Human::new(live, style::is_wanted(&stderr), verbose);
        let human = Arc::new(Mutex::new(human));
        if format == Format::Human {
            tick(&human);
        }
        Output {
            format,
            command: "",
            commands: Commands::default(),
            log: Mutex::new(None),
            human,
            keyboard: keys::Keyboard::default(),
            delivery: streams::Delivery::default(),
        }
    }

    /// The command whose run this reports, as its summary names it.
    #[must_use]
    pub fn named(self, command: &'static str) -> Output {
        Output { command, ..self }
    }

    /// How hints name the cluster of the run.
    #[must_use]
    pub fn hinting(self, commands: Commands) -> Output {
        Output { commands, ..self }
    }

    /// Whether colour is shown to the person.
    fn colour(&self) -> bool {
        style::is_wanted(&std::io::stderr())
    }

    /// From now on every event is also kept in `path`, one JSON object a line.
    ///
    /// # Errors
    /// When the file can't be made.
    pub fn log_to(&self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        *self.log.lock() = Some(Log { path: path.to_owned(), file });
        Ok(())
    }

    /// Takes one event.
    pub fn event(&self, event: &Event) {
        let line = serde_json::to_string(event).unwrap_or_default();
        self.json_line(&line);
        if self.format == Format::Human {
            self.human.lock().event(event);
        }
    }

    /// A line for a person that belongs to no step.
    pub fn note(&self, text: &str) {
        match self.format {
            Format::Human => self.human.lock().note(text),
            Format::Json => streams::tell(&format!("{}\n", style::safe(text))),
        }
    }

    /// A line that only `-v` shows: a command about to run, a line that it printed.
    pub fn trace(&self, text: &str) {
        if self.format == Format::Human {
            self.human.lock().trace(text);
        }
    }

    /// A command's data, the one thing for stdout: as it is to a file or a pipe, and fit for it to a terminal.
    pub fn data(&self, text: &str) {
        let text = if std::io::stdout().is_terminal() { style::safe(text) } else { text.into() };
        self.human.lock().suspend(|| self.delivery.give(&format!("{text}\n")));
    }

    /// Ends when whoever reads stdout leaves.
    pub async fn reader_leaves(&self) {
        self.delivery.reader_leaves().await;
    }

    /// Whether whoever read stdout has left.
    pub fn reader_has_left(&self) -> bool {
        self.delivery.reader_has_left()
    }

    /// How the process ends, whose work ended with `exit`: data that could not be written is a failure, and what only
    /// reads has come to nothing without a reader.
    pub fn delivered(&self, exit: Exit, only_reads: bool) -> Exit {
        match self.delivery.failure() {
            None if only_reads && self.reader_has_left() => Exit::ReaderLeft,
            Some(error) if exit == Exit::Done => report(&anyhow!("writing to stdout: {error}")),
            _ => exit,
        }
    }

    /// From now on a step that ends well has no line of its own, unless `-v` asks for all: what runs is one of many
    /// rounds.
    pub fn brief(&self) {
        self.human.lock().brief();
    }

    /// The end of a round.
    pub fn cycle(&self, cycle: &Cycle<'_>) {
        self.json_line(&cycle.json(&self.commands).to_string());
        if self.format == Format::Json {
            return;
        }
        let mut human = self.human.lock();
        human.finish();
        if let Ending::Failed(error) = cycle.ending {
            let text = human::failure(error, exit_of(error), &self.commands, self.colour());
            human.suspend(|| streams::tell(&text));
        }
        human.note(&cycle.line());
    }

    /// The terminal's keys, until what is returned is dropped.
    pub fn keys(&self) -> Keys<'_> {
        self.keyboard.take()
    }

    /// Puts the terminal back as it was, where nothing is dropped any more.
    pub fn give_back_keys(&self) {
        self.keyboard.give_back();
    }

    /// The JSON summary of a run that has come to `result`.
    pub fn summarized(
        &self,
        spans: &[Span],
        result: &Result<Map<String, Value>>,
        exit: Exit,
    ) -> Map<String, Value> {
        let mut summary = Map::new();
        summary.insert("event".into(), "summary".into());
        summary.insert("schema".into(), SCHEMA.into());
        summary.insert("version".into(), env!("CARGO_PKG_VERSION").into());
        summary.insert("command".into(), self.command.into());
        summary.insert("ok".into(), (exit == Exit::Done).into());
        summary.insert("exit_code".into(), (exit as u8).into());
        summary.insert("steps".into(), timing::steps(spans));
        summary.insert("critical_path".into(), json!(critical_path(spans)));
        match result {
            Ok(fields) => summary.extend(fields.clone()),
            Err(error) => {
                // What a command has to tell even when it ends badly.
                summary.extend(attached::<Map<String, Value>>(error).cloned().unwrap_or_default());
                tell_failure(&mut summary, error, &self.commands);
            }
        }
        summary
    }

    /// The last thing of a run: the timing table, the failure with its evidence, the JSON summary.
    pub fn summary(
        &self,
        summary: &Map<String, Value>,
        spans: &[Span],
        result: &Result<Map<String, Value>>,
        exit: Exit,
    ) {
        self.human.lock().finish();
        self.json_line(&json!(summary).to_string());
        if let Some(lost) = self.log.lock().as_ref().and_then(Log::lost) {
            self.note(&format!("warning: {lost}"));
        }
        if self.format == Format::Human {
            if spans.len() > 1 && spans.iter().any(|span| span.seconds() >= WORTH_A_TABLE) {
                streams::tell(&format!("\n{}", table(spans)));
            }
            if let Err(error) = result {
                streams::tell(&human::failure(error, exit, &self.commands, self.colour()));
            }
        }
    }

    /// Adds a line to the event log; says why it can't, once.
    fn keep(&self, line: &str) -> Option<String> {
        let mut log = self.log.lock();
        let Log { path, file } = log.as_mut()?;
        let error = writeln!(file, "{line}").err()?;
        let failure = format!("writing {}: {error}", path.display());
        *log = None;
        Some(failure)
    }

    fn json_line(&self, line: &str) {
        if let Some(failure) = self.keep(line) {
            self.note(&format!("warning: the rest of this run's events is not kept: {failure}"));
        }
        if self.format == Format::Json {
            self.data(line);
        }
    }
}

/// A failure as JSON has it: what, what to try, and what was seen around it.
fn tell_failure(fields: &mut Map<String, Value>, error: &anyhow::Error, commands: &Commands) {
    fields.insert("error".into(), paragraph(error).into());
    if let Some(advice) = advice(error) {
        fields.insert("hint".into(), commands.write_out(&advice).into());
    }
    if let Some(evidence) = attached::<Evidence>(error) {
        fields.insert("evidence".into(), json!(evidence));
    } else if let Some(printed) = attached::<Printed>(error) {
        let lines = printed.lines.iter().map(|line| plain(line)).collect();
        fields.insert("evidence".into(), json!(Evidence(vec![(printed.heading(), lines)])));
    }
}

/// The failure of a command that has no run, such as bad input before anything began.
pub fn report(error: &anyhow::Error) -> Exit {
    let exit = exit_of(error);
    streams::tell(&human::failure(error, exit, &Commands::default(), style::is_wanted(&std::io::stderr())));
    exit
}

/// Prints what the command line's parser has: help and version on stdout, a mistake on stderr; ends with `exit`.
pub fn usage(message: &clap::Error, exit: Exit) -> Exit {
    match message.print().and_then(|()| std::io::stdout().flush()) {
        Ok(()) => exit,
        Err(_) if message.use_stderr() => exit,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::ReaderLeft,
        Err(error) => report(&anyhow!("writing to stdout: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_log_that_can_not_be_written_is_told_of_once() {
        let output = Output::new(Format::Json, false);
        output.log_to(Path::new("/dev/full")).expect("opening it");
        let failure = output.keep("{}").expect("a failure");
        assert!(failure.starts_with("writing /dev/full: No space left on device"), "{failure}");
        assert_eq!(output.keep("{}"), None);
    }
}
