//! The only place that spawns processes. Each child has a process group of its own, a log file in the run's
//! folder, and an environment without the settings that would point it at another cluster or engine.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::commands::quoted;
use crate::cx::Cx;
use crate::failure::{Attach as _, Cancelled, Printed};
use crate::output;
use crate::pipeline::Running;

pub mod excerpt;

use excerpt::Excerpt;

/// What a child is given to end on its own after it was told to stop.
const GRACE: Duration = Duration::from_secs(2);

/// How wide Cargo draws its bar: some names fit beside it.
const BAR_COLUMNS: &str = "140";

/// A command line by value; prints as its environment and quoted arguments, ready to be pasted into a shell.
pub struct Command {
    inner: std::process::Command,
}

impl From<xshell::Cmd<'_>> for Command {
    fn from(cmd: xshell::Cmd<'_>) -> Command {
        let mut inner = std::process::Command::from(cmd);
        for (name, _) in std::env::vars_os() {
            if is_scrubbed(&name) {
                inner.env_remove(name);
            }
        }
        Command { inner }
    }
}

/// Where command lines are built, by [`xshell::cmd!`].
///
/// # Errors
/// When the current folder is gone.
pub fn shell() -> Result<xshell::Shell> {
    xshell::Shell::new().context("looking at the current folder")
}

/// Settings that would silently point a child at another engine or cluster; and what Cargo tells of the tool's package.
fn is_scrubbed(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("DOCKER_")
        || name.starts_with("BUILDX_")
        || name == "KUBECONFIG"
        || name == "MINIKUBE_ACTIVE_DOCKERD"
        || is_of_a_package(&name)
}

/// Whether Cargo tells a program of its own package by this variable: build scripts of other packages would run again.
pub fn is_of_a_package(name: &str) -> bool {
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

impl Command {
    /// Sets one variable of its environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Command {
        self.inner.env(name, value);
        self
    }

    /// Keeps the variables from it whose names begin so.
    pub fn without(mut self, prefix: &str) -> Command {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with(prefix) {
                self.inner.env_remove(name);
            }
        }
        self
    }

    /// Where it runs.
    pub fn current_dir(mut self, dir: &Path) -> Command {
        self.inner.current_dir(dir);
        self
    }

    /// Sets many.
    pub fn envs(mut self, vars: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>) -> Command {
        self.inner.envs(vars);
        self
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.inner.get_envs() {
            if let Some(value) = value {
                write!(f, "{}={} ", name.to_string_lossy(), quoted(&value.to_string_lossy()))?;
            }
        }
        f.write_str(&quoted(&self.inner.get_program().to_string_lossy()))?;
        for arg in self.inner.get_args() {
            write!(f, " {}", quoted(&arg.to_string_lossy()))?;
        }
        Ok(())
    }
}

/// What a line of a child's output is to a person.
pub struct Heard {
    /// What the step's live line shows of it.
    pub live: Option<String>,
    /// Whether it may explain a failure, and is quoted then.
    pub quote: bool,
}

impl From<Option<String>> for Heard {
    fn from(live: Option<String>) -> Heard {
        Heard { live, quote: true }
    }
}

/// Runs a command to its end; its last line is the step's live line, all of it goes into `<step>.log` of the run.
/// Returns its standard output.
///
/// # Errors
/// When it can't be spawned, ends badly (quoting its output), or the run is told to stop.
pub async fn run(cx: &Cx, step: &Running<'_>, command: Command) -> Result<String> {
    run_with(cx, step, command, |line| Some(line.trim().to_owned())).await
}

/// [`run`], where `hear` says what each line, without its colours, is to a person.
///
/// # Errors
/// As [`run`].
pub async fn run_with<H: Into<Heard>>(
    cx: &Cx,
    step: &Running<'_>,
    command: Command,
    mut hear: impl FnMut(&str) -> H,
) -> Result<String> {
    let shown = command.to_string();
    cx.output.trace(&format!("$ {shown}"));
    if cx.is_stopped() {
        return Err(Cancelled.into());
    }
    let log_path = cx.run_dir.as_ref().map(|dir| dir.join(format!("{}.log", step.name())));
    let mut log = StepLog::open(step, log_path.as_deref()).await;
    log.write(step, &format!("$ {shown}")).await;
    // On a pipe Cargo would leave out its colours, which whoever prints them may drop, and its bar.
    let cargo = [
        ("CARGO_TERM_COLOR", "always"),
        ("CARGO_TERM_PROGRESS_WHEN", "always"),
        ("CARGO_TERM_PROGRESS_WIDTH", BAR_COLUMNS),
    ];
    let mut child = Child::spawn(cx, command.envs(cargo))?;
    let mut stdout = Lines::of(child.inner.stdout.take().context("the child has no stdout")?);
    let mut stderr = Lines::of(child.inner.stderr.take().context("the child has no stderr")?);
    let (mut out_open, mut err_open) = (true, true);
    let mut output = String::new();
    let mut excerpt = Excerpt::default();
    let mut shown_live = String::new();
    while out_open || err_open {
        let (line, is_stdout) = tokio::select! {
            () = cx.stopped() => {
                child.stop().await;
                return Err(anyhow::Error::from(Cancelled).context(format!("running `{shown}`")));
            }
            line = stdout.next(), if out_open => (line, true),
            line = stderr.next(), if err_open => (line, false),
        };
        let line = line.with_context(|| format!("reading what `{shown}` prints"))?;
        let Some(line) = line else {
            if is_stdout {
                out_open = false;
            } else {
                err_open = false;
            }
            continue;
        };
        let plain = output::plain(&line.text);
        let Heard { live, quote } = hear(&plain).into();
        if let Some(text) = live.filter(|text| *text != shown_live) {
            shown_live.clone_from(&text);
            step.at(text);
        }
        if line.is_overwritten {
            continue;
        }
        log.write(step, &plain).await;
        cx.output.trace(&format!("  {plain}"));
        if is_stdout {
            output.push_str(&line.text);
            output.push('\n');
        }
        if quote {
            excerpt.push(&line.text);
        }
    }
    let status = tokio::select! {
        status = child.inner.wait() => status.with_context(|| format!("waiting for `{shown}`"))?,
        () = cx.stopped() => {
            child.stop().await;
            return Err(anyhow::Error::from(Cancelled).context(format!("running `{shown}`")));
        }
    };
    child.ended();
    log.close(step).await;
    if status.success() {
        return Ok(output);
    }
    let log = log_path.map(|path| cx.short(&path).to_string());
    Err(anyhow!("`{shown}` {}", ending(status))).attach(Printed {
        by: shown,
        lines: excerpt.lines(log.as_deref()),
        log,
    })
}

/// What a step's children print, kept in the run's folder. Where it can't be kept, as on a full disk, the step goes on.
struct StepLog(Option<tokio::fs::File>);

impl StepLog {
    async fn open(step: &Running<'_>, path: Option<&Path>) -> StepLog {
        let Some(path) = path else { return StepLog(None) };
        let opened = tokio::fs::File::options().create(true).append(true).open(path).await;
        StepLog(opened.map_err(|error| StepLog::lost(step, &error)).ok())
    }

    async fn write(&mut self, step: &Running<'_>, line: &str) {
        let Some(file) = &mut self.0 else { return };
        if let Err(error) = file.write_all(format!("{line}\n").as_bytes()).await {
            StepLog::lost(step, &error);
            self.0 = None;
        }
    }

    async fn close(self, step: &Running<'_>) {
        let Some(mut file) = self.0 else { return };
        if let Err(error) = file.flush().await {
            StepLog::lost(step, &error);
        }
    }

    fn lost(step: &Running<'_>, error: &std::io::Error) {
        step.warn(format!("the rest of {}.log is not kept: {error}", step.name()));
    }
}

/// The lines of a stream; bytes that are not UTF-8 are replaced.
struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    /// The last line ended with a carriage return.
    overwritten: Option<String>,
}

struct Line {
    text: String,
    /// A terminal would show the next line in its place: how far something has come, and nothing to keep.
    is_overwritten: bool,
}

impl<R: tokio::io::AsyncRead + Unpin> Lines<R> {
    fn of(stream: R) -> Lines<R> {
        Lines { reader: BufReader::new(stream), line: Vec::new(), overwritten: None }
    }

    /// The next line; nothing is lost when the wait for it is given up.
    async fn next(&mut self) -> std::io::Result<Option<Line>> {
        loop {
            let bytes = self.reader.fill_buf().await?;
            let is_end = bytes.is_empty();
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let by_return = end.is_some_and(|end| bytes[end] == b'\r');
            self.line.extend_from_slice(&bytes[..end.unwrap_or(bytes.len())]);
            let used = end.map_or(bytes.len(), |end| end + 1);
            self.reader.consume(used);
            match end {
                None if !is_end => continue,
                None if self.line.is_empty() => return Ok(None),
                _ => {}
            }
            let mut text = String::from_utf8_lossy(&self.line).into_owned();
            self.line.clear();
            if by_return {
                self.overwritten = Some(text.clone());
            } else if let Some(before) = self.overwritten.take().filter(|_| text.is_empty()) {
                // A line that ends with both stays.
                text = before;
            }
            return Ok(Some(Line { text, is_overwritten: by_return }));
        }
    }
}

/// Cargo: itself it runs this tool and says by which path; without it, the one on PATH.
#[must_use]
pub fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// What a command prints that is over in a moment, before there is a run that could be stopped.
///
/// # Errors
/// When it can't be spawned, or ends badly (quoting what it printed).
pub fn output(command: Command) -> Result<String> {
    let shown = command.to_string();
    let mut command = command.inner;
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` {}: {}", ending(output.status), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command whose output is data, or only its success is of interest, outside any step.
/// Returns success and standard output; standard error is in the error.
///
/// # Errors
/// When it can't be spawned or the run is told to stop.
pub async fn ask(cx: &Cx, command: Command) -> Result<Answer> {
    let shown = command.to_string();
    cx.output.trace(&format!("$ {shown}"));
    let mut child = Child::spawn(cx, command)?;
    let (stdout, stderr) = (child.inner.stdout.take(), child.inner.stderr.take());
    let read = async {
        let (out, err, status) = futures::join!(read_all(stdout), read_all(stderr), child.inner.wait());
        Ok::<_, std::io::Error>(Answer { status: status?, stdout: out?, stderr: err? })
    };
    let answer = tokio::select! {
        answer = read => Some(answer),
        () = cx.stopped() => None,
    };
    match answer {
        Some(answer) => {
            child.ended();
            answer.with_context(|| format!("running `{shown}`"))
        }
        None => {
            child.stop().await;
            Err(Cancelled.into())
        }
    }
}

/// How a command that was asked ended.
pub struct Answer {
    /// Its exit status.
    pub status: ExitStatus,
    /// All it wrote to standard output.
    pub stdout: String,
    /// All it wrote to standard error.
    pub stderr: String,
}

async fn read_all(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Starts a process that outlives this one, its output in `log`.
///
/// # Errors
/// When it can't be spawned.
pub fn daemon(command: Command, log: &Path) -> Result<std::process::Child> {
    let shown = command.to_string();
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("opening {}", log.display()))?;
    let mut command = command.inner;
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(file.try_clone().context("sharing the log")?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("starting `{shown}`"))
}

pub(crate) fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "failed".to_owned(),
    }
}

/// A child and its process group, never left behind: dropped while it runs, the group is killed; and if this
/// process is killed itself, the leash does it.
struct Child<'cx> {
    cx: &'cx Cx,
    inner: tokio::process::Child,
    group: Option<Pid>,
}

impl<'cx> Child<'cx> {
    fn spawn(cx: &'cx Cx, command: Command) -> Result<Child<'cx>> {
        let shown = command.to_string();
        let program = command.inner.get_program().to_string_lossy().into_owned();
        let mut command = tokio::process::Command::from(command.inner);
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let spawned = command.spawn();
        let inner = match spawned {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let missing =
                    || -> Result<Child<'cx>> { bail!("running `{shown}`: there is no `{program}` on PATH") };
                return missing()
                    .hint(format!("install {program}, or choose another cluster with --cluster"));
            }
            Err(error) => return Err(error).with_context(|| format!("starting `{shown}`")),
        };
        let group = inner.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(group) = group {
            cx.leash.hold(group.as_raw_nonzero().get());
        }
        Ok(Child { cx, inner, group })
    }

    /// Tells it to stop, waits, then kills what is left of its group.
    async fn stop(&mut self) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::TERM);
            let _ = tokio::time::timeout(GRACE, self.inner.wait()).await;
        }
        self.kill();
    }

    /// It ended by itself. What it left running on purpose, such as a virtual machine that `minikube start`
    /// brought up, goes on.
    fn ended(&mut self) {
        if let Some(group) = self.group.take() {
            self.cx.leash.release(group.as_raw_nonzero().get());
        }
    }

    fn kill(&mut self) {
        if let Some(group) = self.group.take() {
            let _ = kill_process_group(group, Signal::KILL);
            self.cx.leash.release(group.as_raw_nonzero().get());
        }
    }
}

impl Drop for Child<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}
