//! What every step is given: where things are, what was asked for, where to report, and when to stop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use futures::future::BoxFuture;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;

use crate::commands::Commands;
use crate::failure::{Attach as _, Cancelled, Exit, attached};
use crate::options::Shared;
use crate::output::{Output, Span, State};
use crate::owned::Watched;
use crate::record;
use crate::summary::Summary;

/// One run of one command.
pub struct Cx {
    /// The workspace's folder.
    pub root: PathBuf,
    /// Cargo's target folder.
    pub target: PathBuf,
    /// What the user asked for.
    pub shared: Shared,
    /// Command lines for the same cluster, to be shown.
    pub commands: Commands,
    /// Where to report.
    pub output: Arc<Output>,
    /// When the run began.
    pub began: Instant,
    /// This run's folder, where it keeps one.
    pub run_dir: Option<PathBuf>,
    /// No gate stays closed for longer, whatever its own deadline; tests have less than for ever.
    pub(crate) patience: Duration,
    /// Ends what this process leaves behind if it is killed.
    pub leash: Arc<leash::Leash>,
    stop: Stop,
    liveness: SetOnce<Liveness>,
    watched: SetOnce<Watched>,
    /// Why the cluster has gone.
    gone: Mutex<Option<anyhow::Error>>,
    spans: Mutex<Vec<Span>>,
}

/// Says why the cluster that a run depends on has gone for good; nothing while it is there, or may come back.
pub type Liveness = Box<dyn for<'c> Fn(&'c Cx) -> BoxFuture<'c, Option<anyhow::Error>> + Send + Sync>;

/// How often to ask for it.
const LIVENESS_EVERY: Duration = Duration::from_millis(500);

/// How many runs keep their records: so many load runs, and so many others.
const RUNS_KEPT: usize = 100;

/// Why a run is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Reason {
    None = 0,
    Failed = 1,
    Interrupted = 2,
    Timeout = 3,
    Gone = 4,
}

struct Stop {
    token: CancellationToken,
    reason: AtomicU8,
}

impl Stop {
    fn new(token: CancellationToken) -> Stop {
        Stop { token, reason: AtomicU8::new(Reason::None as u8) }
    }
}

impl Cx {
    /// For the workspace at `root`, which is built in `target`.
    pub fn new(root: PathBuf, target: PathBuf, shared: Shared, output: Output, leash: leash::Leash) -> Cx {
        Cx {
            root,
            target,
            commands: Commands::new(&shared),
            shared,
            output: Arc::new(output),
            began: Instant::now(),
            run_dir: None,
            patience: Duration::MAX,
            leash: Arc::new(leash),
            stop: Stop::new(CancellationToken::new()),
            liveness: SetOnce::new(),
            watched: SetOnce::new(),
            gone: Mutex::new(None),
            spans: Mutex::new(Vec::new()),
        }
    }

    /// A run within this one, that began at `began`: its steps and its end are its own, it reports to the same place,
    /// and what stops this run stops it.
    #[must_use]
    pub fn within(&self, began: Instant) -> Cx {
        Cx {
            root: self.root.clone(),
            target: self.target.clone(),
            shared: self.shared.clone(),
            commands: self.commands.clone(),
            output: Arc::clone(&self.output),
            began,
            run_dir: self.run_dir.clone(),
            patience: self.patience,
            leash: Arc::clone(&self.leash),
            stop: Stop::new(self.stop.token.child_token()),
            liveness: SetOnce::new(),
            watched: SetOnce::new(),
            gone: Mutex::new(None),
            spans: Mutex::new(Vec::new()),
        }
    }

    /// Where this tool keeps what it makes: `target/xtask`.
    pub fn home(&self) -> PathBuf {
        self.target.join("xtask")
    }

    /// Gives the run a folder of its own, and points `latest` at it.
    ///
    /// # Errors
    /// When the target folder can't be written; exit code 10.
    pub fn open_run_dir(&mut self, command: &str) -> Result<()> {
        let runs = self.home().join("runs");
        let id = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
        let id = format!("{id}-{command}-{}", std::process::id());
        let dir = runs.join(&id);
        let open = || -> Result<()> {
            std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
            self.output.log_to(&dir.join(record::run::EVENTS))?;
            // Linked under another name first, so that `latest` is there at every moment.
            let fresh = runs.join(format!(".latest-{}", std::process::id()));
            let _ = std::fs::remove_file(&fresh);
            std::os::unix::fs::symlink(&id, &fresh)
                .with_context(|| format!("linking {}", fresh.display()))?;
            std::fs::rename(&fresh, runs.join("latest")).context("pointing `latest` at the run's folder")?;
            forget_old_runs(&runs);
            Ok(())
        };
        open()
            .context("keeping the run's records")
            .hint("the target folder must be writable; set CARGO_TARGET_DIR to use another")
            .exit(Exit::Preflight)?;
        self.run_dir = Some(dir);
        Ok(())
    }

    /// Ends when the run is told to stop.
    pub async fn stopped(&self) {
        self.stop.token.cancelled().await;
    }

    /// Whether the run was told to stop.
    pub fn is_stopped(&self) -> bool {
        self.stop.token.is_cancelled()
    }

    /// Runs `work` until it ends or the run is told to stop, whichever is first.
    ///
    /// # Errors
    /// [`Cancelled`](crate::failure::Cancelled) when the run is told to stop; the work's own.
    pub async fn unless_stopped<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.stop.token.run_until_cancelled(work).await.unwrap_or_else(|| Err(Cancelled.into()))
    }

    /// A failure somewhere: what else is under way shall end.
    pub fn stop_failed(&self) {
        self.stop(Reason::Failed);
    }

    /// Ctrl-C.
    pub fn stop_interrupted(&self) {
        self.stop(Reason::Interrupted);
    }

    /// The time for the whole command is over.
    pub fn stop_timeout(&self) {
        self.stop(Reason::Timeout);
    }

    /// From here on the run depends on a cluster.
    pub fn depend_on(&self, liveness: Liveness) {
        // A second cluster in one run is the same one, found again.
        let _ = self.liveness.set(liveness);
    }

    /// From here on there is a cluster to watch, for who records the run.
    pub fn shows(&self, watched: Watched) {
        let _ = self.watched.set(watched);
    }

    /// What there is to watch, once there is.
    pub async fn watched(&self) -> &Watched {
        self.watched.wait().await
    }

    /// Watches over the cluster, once there is one; tells the run to stop when it has gone, and ends.
    pub async fn watch_over(&self) {
        self.liveness.wait().await;
        while !self.has_gone().await {
            tokio::time::sleep(LIVENESS_EVERY).await;
        }
    }

    /// Whether the cluster has gone; the run is told to stop then.
    pub async fn has_gone(&self) -> bool {
        let Some(liveness) = self.liveness.get() else { return false };
        if let Some(why) = liveness(self).await {
            self.gone.lock().get_or_insert(why);
            self.stop(Reason::Gone);
            return true;
        }
        // Who found out meanwhile has stopped the run, and with it what was asked here.
        self.stop.reason.load(Ordering::SeqCst) == Reason::Gone as u8
    }

    fn stop(&self, reason: Reason) {
        // The first reason is the cause.
        let _ = self.stop.reason.compare_exchange(
            Reason::None as u8,
            reason as u8,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        self.stop.token.cancel();
    }

    /// What the run comes to: a stop from outside replaces the echo that the steps return for it.
    ///
    /// # Errors
    /// The cause of the end.
    pub fn verdict<T>(&self, result: Result<T>) -> Result<T> {
        let error = match result {
            Err(error) if crate::failure::is_echo(&error) => error,
            other => return other,
        };
        // What a command has to tell is told, whyever it ends.
        let told = attached::<Summary>(&error).cloned().unwrap_or_default();
        match self.stop.reason.load(Ordering::SeqCst) {
            r if r == Reason::Interrupted as u8 => {
                Err(anyhow!("stopped by a signal; what is running keeps running"))
                    .attach(told)
                    .hint("run the same command again to continue from here")
                    .exit(Exit::Interrupted)
            }
            r if r == Reason::Timeout as u8 => {
                let limit = self.shared.timeout.map(|limit| format!("{}s", limit.as_secs()));
                let running = self.unfinished().join(", ");
                let waiting = if running.is_empty() { "" } else { " while waiting for " };
                Err(anyhow!("--timeout {} expired{waiting}{running}", limit.unwrap_or_default()))
                    .attach(told)
                    .hint(format!(
                        "raise --timeout; `{}` shows which gate stays closed",
                        self.commands.xtask("status")
                    ))
                    .exit(Exit::GateTimeout)
            }
            r if r == Reason::Gone as u8 => Err(self.gone.lock().take().unwrap_or(error)),
            _ => Err(error),
        }
    }

    fn unfinished(&self) -> Vec<String> {
        self.spans()
            .iter()
            .filter(|span| matches!(span.state, State::Start | State::Failed))
            .map(|span| span.name.clone())
            .collect()
    }

    /// The steps and gates so far.
    pub fn spans(&self) -> MutexGuard<'_, Vec<Span>> {
        self.spans.lock()
    }

    /// A path as a person in the workspace would write it.
    pub fn short<'p>(&self, path: &'p Path) -> std::path::Display<'p> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

/// Removes all but the newest runs; a folder that can't be removed is no reason to fail. Load runs are counted for
/// themselves: what was measured is not pushed out by however many other runs. So are those of `test`, under which
/// others run.
fn forget_old_runs(runs: &Path) {
    let entries = std::fs::read_dir(runs).into_iter().flatten().flatten();
    let mut dirs: Vec<_> =
        entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink()).collect();
    // Their names begin with the time.
    dirs.sort_unstable();
    let mut counts = [0; 3];
    for dir in dirs.iter().rev() {
        let is_test = dir.file_name().is_some_and(|name| name.to_string_lossy().contains("-test-"));
        let count = &mut counts[if record::is_load(dir) { 0 } else { 1 + usize::from(is_test) }];
        *count += 1;
        if *count > RUNS_KEPT {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_run_is_not_pushed_out_by_others() {
        let runs = tempfile::tempdir().expect("a folder");
        let make = |name: String| {
            let dir = runs.path().join(name);
            std::fs::create_dir(&dir).expect("making a run's folder");
            dir
        };
        let load = make("20260101-000000-load-1".to_owned());
        std::fs::write(load.join(record::meta::FILE), "{}").expect("writing");
        let ups: Vec<_> = (0..=RUNS_KEPT).map(|n| make(format!("20260102-000000-up-{n:04}"))).collect();
        forget_old_runs(runs.path());
        assert!(load.exists(), "the only load run is gone");
        let left: Vec<_> = ups.iter().filter(|dir| dir.exists()).collect();
        assert_eq!((left.len(), ups[0].exists()), (RUNS_KEPT, false));
    }
}
