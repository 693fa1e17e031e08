//! How a run ends other than well: the exit code, the hint and the evidence travel as layers of the error
//! itself, so that `?` carries them from the place that knows to the one place that prints.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;

use crate::commands::Advice;

/// The exit codes users script against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything that was asked for is so.
    Done = 0,
    /// The command line makes no sense.
    Usage = 2,
    /// Something is missing or wrong on this machine; nothing was changed.
    Preflight = 10,
    /// A step failed.
    Step = 20,
    /// A gate saw that its condition can't come true any more.
    GateDoomed = 30,
    /// A gate, or the whole command, ran out of time.
    GateTimeout = 31,
    /// A load threshold failed.
    Threshold = 40,
    /// The load run is invalid: the generator could not keep its schedule.
    InvalidRun = 41,
    /// Ctrl-C, a polite kill, or a terminal that was hung up.
    Interrupted = 130,
    /// Whoever read stdout has left, as in `| head`: what a shell shows of a program that ends by SIGPIPE.
    ReaderLeft = 141,
}

/// What to try next; printed as `hint: ...`.
#[derive(Debug)]
pub struct Hint(pub Advice);

/// What was seen around a failure, already worded for a reader: a heading and its lines.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Evidence(pub Vec<(String, Vec<String>)>);

/// What a child printed before it failed, in its own colours; shown where nobody has put [`Evidence`] in its place.
#[derive(Clone, Debug)]
pub struct Printed {
    /// The command or the program.
    pub by: String,
    /// What is worth quoting.
    pub lines: Vec<String>,
    /// The file that has all of it, where there is one.
    pub log: Option<String>,
}

impl Printed {
    /// The line above the quoted ones.
    pub fn heading(&self) -> String {
        let printed = if self.lines.is_empty() { "printed nothing" } else { "printed" };
        let log = self.log.as_ref().map(|log| format!("; log: {log}")).unwrap_or_default();
        format!("`{}` {printed}{log}", self.by)
    }
}

/// How what was stopped says so.
pub const STOPPED: &str = "stopped before it finished";

/// The run was told to stop while this was under way; it is the echo of a cause, never the cause.
#[derive(Debug)]
pub struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STOPPED)
    }
}

impl StdError for Cancelled {}

/// An error with a value attached, invisible in the printed chain.
#[derive(Debug)]
struct Layer {
    value: Box<dyn Any + Send + Sync>,
    inner: anyhow::Error,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl StdError for Layer {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.chain().nth(1)
    }
}

/// Attaches exit code, hint and evidence to an error or a result.
pub trait Attach: Sized {
    /// What these methods give back.
    type Out;
    /// Attaches `value`; [`attached`] finds it again.
    fn attach<T: Send + Sync + 'static>(self, value: T) -> Self::Out;
    /// Says what to try next.
    fn hint(self, advice: impl Into<Advice>) -> Self::Out {
        self.attach(Hint(advice.into()))
    }
    /// Says which exit code this failure means.
    fn exit(self, code: Exit) -> Self::Out {
        self.attach(code)
    }
}

impl Attach for anyhow::Error {
    type Out = anyhow::Error;
    fn attach<T: Send + Sync + 'static>(self, value: T) -> anyhow::Error {
        anyhow::Error::new(Layer { value: Box::new(value), inner: self })
    }
}

impl<V, E: Into<anyhow::Error>> Attach for Result<V, E> {
    type Out = anyhow::Result<V>;
    fn attach<T: Send + Sync + 'static>(self, value: T) -> anyhow::Result<V> {
        self.map_err(|error| error.into().attach(value))
    }
}

/// The outermost value of type `T` that was attached anywhere in the chain.
pub fn attached<T: 'static>(error: &anyhow::Error) -> Option<&T> {
    error.chain().find_map(|cause| {
        let layer = cause.downcast_ref::<Layer>()?;
        layer.value.downcast_ref::<T>().or_else(|| attached(&layer.inner))
    })
}

/// The exit code an error stands for; a step's failure unless something closer to the cause has another.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    attached::<Exit>(error).copied().unwrap_or(Exit::Step)
}

/// What to try: the error's own hint, else what helps against every error of its kind.
pub fn advice(error: &anyhow::Error) -> Option<Advice> {
    let own = attached::<Hint>(error).map(|hint| hint.0.clone());
    own.or_else(|| is_disk_full(error).then(|| DISK_FULL.into()))
}

/// The disk of the target folder is the one that this tool fills.
const DISK_FULL: &str = "free some space on that disk (`cargo clean` in workspaces that are not used), or \
                         set CARGO_TARGET_DIR to another one";

fn is_disk_full(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    error.chain().any(|cause| {
        let kind = cause.downcast_ref().map(std::io::Error::kind);
        matches!(kind, Some(StorageFull | QuotaExceeded))
            || cause.downcast_ref::<Layer>().is_some_and(|layer| is_disk_full(&layer.inner))
    })
}

/// Whether this error only echoes that the run was told to stop.
pub fn is_echo(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<Cancelled>() || cause.downcast_ref::<Layer>().is_some_and(|layer| is_echo(&layer.inner))
    })
}

/// The error as one paragraph: what we were doing, on what, why it failed.
pub fn paragraph(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        // A refusal by the API repeats itself in its source, and shows what it is made of.
        if let Some(kube::Error::Api(status)) = innermost(cause) {
            let separator = if text.is_empty() { "" } else { ": " };
            text.push_str(&format!("{separator}{}", status.message.trim_end()));
            break;
        }
        let cause = cause.to_string();
        // Libraries like to repeat their source in their own text.
        if text.ends_with(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(cause.trim_end());
    }
    text
}

/// The innermost cause, or the API server's own words.
pub fn reason(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    loop {
        if let Some(kube::Error::Api(status)) = cause.downcast_ref() {
            return status.message.clone();
        }
        match cause.source() {
            Some(source) => cause = source,
            None => return cause.to_string(),
        }
    }
}

/// What lies under the layers.
fn innermost<'e>(cause: &'e (dyn StdError + 'static)) -> Option<&'e kube::Error> {
    match cause.downcast_ref::<Layer>() {
        Some(layer) => innermost(layer.inner.chain().next()?),
        None => cause.downcast_ref(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn layers_are_found_and_not_printed() {
        let error = Err::<(), _>(anyhow::anyhow!("connection refused"))
            .context("GET /readyz")
            .hint("is it running?")
            .exit(Exit::Preflight)
            .context("starting the cluster")
            .unwrap_err();
        assert_eq!(paragraph(&error), "starting the cluster: GET /readyz: connection refused");
        assert_eq!(exit_of(&error), Exit::Preflight);
        assert_eq!(attached::<Hint>(&error).map(|hint| &hint.0), Some(&"is it running?".into()));
        assert!(!is_echo(&error));
    }

    #[test]
    fn a_full_disk_has_a_cure_wherever_it_is_met() {
        let full = || Err::<(), _>(std::io::Error::from(std::io::ErrorKind::StorageFull));
        let error = full().context("writing the model").exit(Exit::Step).unwrap_err();
        assert_eq!(advice(&error), Some(DISK_FULL.into()));
        let error = full().hint("its own").context("writing the model").unwrap_err();
        assert_eq!(advice(&error), Some("its own".into()));
        assert_eq!(advice(&anyhow::anyhow!("something else")), None);
    }

    #[test]
    fn an_echo_is_known_under_any_layers() {
        let error =
            Err::<(), _>(Cancelled).hint("try again").context("building").exit(Exit::Step).unwrap_err();
        assert!(is_echo(&error));
    }
}
