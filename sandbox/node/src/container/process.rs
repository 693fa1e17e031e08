//! A container's process, with the group that it leads.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use leash::Leash;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

const BUSY_RETRIES: usize = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// What to run, and in which surroundings.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) argv: Vec<OsString>,
    /// The whole environment: nothing is inherited.
    pub(crate) env: BTreeMap<String, OsString>,
    pub(crate) dir: PathBuf,
}

/// A process that leads a group of its own, on the leash. When it ends, or this is dropped, its whole group is killed:
/// in a container too nothing outlives the first process.
pub(crate) struct Process {
    child: Child,
    pgid: i32,
    leash: Leash,
    ended: bool,
}

impl Process {
    /// Starts `launch` with its output piped.
    pub(crate) async fn start(launch: &Launch, leash: &Leash) -> io::Result<Process> {
        // Another thread of this program may fork while the program file is being copied: its child then holds the file
        // open for writing until its own exec, a moment later.
        for _ in 0..BUSY_RETRIES {
            match Process::spawn(launch, leash) {
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {}
                spawned => return spawned,
            }
            tokio::time::sleep(BUSY_PAUSE).await;
        }
        Process::spawn(launch, leash)
    }

    fn spawn(launch: &Launch, leash: &Leash) -> io::Result<Process> {
        let (program, args) =
            launch.argv.split_first().ok_or_else(|| io::Error::other("no command specified"))?;
        let child = Command::new(program)
            .args(args)
            .env_clear()
            .envs(&launch.env)
            .current_dir(&launch.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let pgid =
            child.id().and_then(|id| i32::try_from(id).ok()).ok_or_else(|| io::Error::other("no pid"))?;
        leash.hold(pgid);
        Ok(Process { child, pgid, leash: leash.clone(), ended: false })
    }

    /// The process group, which is also the pid of its leader.
    pub(crate) fn pgid(&self) -> i32 {
        self.pgid
    }

    pub(crate) fn take_output(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.child.stdout.take(), self.child.stderr.take())
    }

    /// Waits for the process to end, then ends what is left of its group. The exit code is as container runtimes report
    /// it: 128 + signal for a process that a signal ended. Safe to cancel and call again.
    pub(crate) async fn wait(&mut self) -> i32 {
        let status = self.child.wait().await;
        self.finish();
        match status {
            Ok(status) => status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255),
            Err(error) => {
                tracing::warn!(pid = self.pgid, "waiting for a container's process: {error}");
                255
            }
        }
    }

    /// Signals the process alone, as a container runtime does.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pgid).filter(|_| !self.ended) {
            // Not waited for yet, so the pid is still its own; it may have ended, which is no error.
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills the whole group.
    pub(crate) fn kill(&self) {
        if !self.ended {
            kill_group(self.pgid);
        }
    }

    fn finish(&mut self) {
        if !self.ended {
            // While a member is left the number belongs to the group; with none left there is nothing to hit.
            kill_group(self.pgid);
            self.ended = true;
            self.leash.release(self.pgid);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.finish();
    }
}

/// SIGKILL to every process of the group.
pub(crate) fn kill_group(pgid: i32) {
    if let Some(pid) = Pid::from_raw(pgid) {
        // Nothing left to kill is what is wanted.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}
