//! Ends the process groups of a program that was killed before it could do so itself.
//!
//! A program that starts process groups of its own leaves them behind when it is killed with SIGKILL. A [`Leash`] is a
//! small watcher process that holds the reading end of a pipe and learns of each group as it is started and as it
//! ends. The kernel closes the writing end however the program dies; the watcher then ends what is still held:
//! SIGTERM, a short wait, SIGKILL.
//!
//! A child that leaves its group (`setsid`) leaves the leash too.

mod start_time;
mod watcher;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;

pub use start_time::start_time;
pub use watcher::watch_stdin;

/// The program's end of the leash. Cheap to clone; dropping the last clone is as good as dying: the watcher ends what
/// is still held, and then itself.
#[derive(Clone)]
pub struct Leash {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    argv: Vec<OsString>,
    watcher: ChildStdin,
    /// Process group → start time of its leader.
    held: BTreeMap<i32, String>,
}

/// A watcher for programs that can't be started again as one: [`watch_stdin`] in POSIX shell. It knows nothing of start
/// times, and so ends a group that has taken the number of one that ended in the very moment the program died.
const IN_SHELL: &str = include_str!("in_shell.sh");

impl Leash {
    /// [`Leash::start`] for a program that can't be its own watcher, such as a test: a shell is.
    ///
    /// # Errors
    /// If `sh` can't be started.
    pub fn in_shell() -> Result<Leash> {
        Leash::start(&["sh", "-c", IN_SHELL].map(OsString::from))
    }

    /// Starts the watcher: `argv` must be a program that calls [`watch_stdin`] and returns. It gets a process group of
    /// its own, so that what a terminal sends to the program's group (SIGINT, SIGHUP) does not reach it.
    ///
    /// # Errors
    /// If `argv` is empty or can't be started.
    pub fn start(argv: &[OsString]) -> Result<Leash> {
        let watcher = spawn(argv)?;
        let inner = Inner { argv: argv.to_vec(), watcher, held: BTreeMap::new() };
        Ok(Leash { inner: Arc::new(Mutex::new(inner)) })
    }

    /// Puts the process group `pgid` on the leash. Call it right after the spawn, before the leader is waited for: only
    /// until then is it certain whose pid it is. A watcher that has died meanwhile is replaced.
    pub fn hold(&self, pgid: i32) {
        let start = start_time(pgid).unwrap_or_default();
        let mut inner = self.inner.lock();
        let line = hold_line(pgid, &start);
        inner.held.insert(pgid, start);
        inner.send(&line);
    }

    /// Takes the process group `pgid` off the leash, once all of it has ended.
    pub fn release(&self, pgid: i32) {
        let mut inner = self.inner.lock();
        if inner.held.remove(&pgid).is_some() {
            inner.send(&format!("-{pgid}\n"));
        }
    }
}

impl Inner {
    fn send(&mut self, line: &str) {
        if self.watcher.write_all(line.as_bytes()).is_ok() {
            return;
        }
        if let Err(error) = self.replace_watcher() {
            tracing::warn!("process groups are not leashed: {error:#}");
        }
    }

    fn replace_watcher(&mut self) -> Result<()> {
        let mut watcher = spawn(&self.argv)?;
        let lines: String = self.held.iter().map(|(&pgid, start)| hold_line(pgid, start)).collect();
        watcher.write_all(lines.as_bytes()).context("writing to the new leash watcher")?;
        self.watcher = watcher;
        Ok(())
    }
}

fn hold_line(pgid: i32, start: &str) -> String {
    format!("+{pgid} {start}\n")
}

/// The pipe's writing end is close-on-exec (std makes every pipe so), thus no other child keeps it open.
fn spawn(argv: &[OsString]) -> Result<ChildStdin> {
    let Some((program, args)) = argv.split_first() else {
        bail!("the leash watcher's command line is empty")
    };
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting the leash watcher {}", program.display()))?;
    let stdin = child.stdin.take().context("the leash watcher has no stdin")?;
    // Waited for by a thread, so that a watcher that ends never stays a zombie.
    std::thread::Builder::new()
        .name("leash".into())
        .spawn(move || child.wait())
        .context("starting the thread that waits for the leash watcher")?;
    Ok(stdin)
}
