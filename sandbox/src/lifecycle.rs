//! Whether a sandbox runs, and how it is ended; seen from outside the daemon.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use kube::config::Kubeconfig;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::client;
use crate::error::{Doing as _, Result};
use crate::home::{Holder, Home};
use crate::processes::{self, Processes};

const POLL: Duration = Duration::from_millis(20);
/// How long what was killed may take to be gone.
const KILLED: Duration = Duration::from_secs(2);
/// How long the pods of a killed daemon may take to be ended by the leash.
const LEASH: Duration = Duration::from_secs(3);

/// How to reach a running sandbox; the content of `sandbox.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// The daemon.
    pub pid: i32,
    /// When it was started.
    pub started: jiff::Timestamp,
    /// The API server, `https://127.0.0.1:PORT`.
    pub api: String,
    /// Where the ingress takes requests, `http://127.0.0.1:PORT`. Nothing listens there before the ingress is enabled.
    pub entry: String,
    /// With the token, and the context that [`crate::Options::context`] names.
    pub kubeconfig: PathBuf,
    /// Name of that context.
    pub context: String,
    /// [`build_id`] of the daemon's program.
    pub build_id: String,
    /// The daemon's program, which can be asked about this folder.
    pub program: PathBuf,
}

impl Info {
    /// A client for it.
    ///
    /// # Errors
    /// If its kubeconfig can't be read.
    pub async fn client(&self) -> Result<kube::Client> {
        let file = &self.kubeconfig;
        let config = Kubeconfig::read_from(file).doing_with(|| format!("reading {}", file.display()))?;
        client::of_kubeconfig(config, Some(&self.context)).await
    }
}

/// What a folder says of its sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// None runs, and nothing is left of one.
    Absent,
    /// None runs; the last one was killed. [`stop`] or the next start clears what it left.
    Stale,
    /// It runs, but is not ready yet or no more.
    Starting,
    /// It runs and is ready.
    Running(Info),
}

fn info(home: &Home) -> Option<Info> {
    serde_json::from_slice(&std::fs::read(home.info()).ok()?).ok()
}

/// Looks.
///
/// # Errors
/// If the folder can't be read.
pub fn state(home: &Home) -> Result<State> {
    Ok(match home.holder()? {
        // Another pid: what a killed one left, and this one has not tidied up yet. One that is not readable is written
        // again by the daemon.
        Holder::Alive(pid) => match info(home).filter(|info| info.pid == pid) {
            Some(info) => State::Running(info),
            None => State::Starting,
        },
        Holder::Dead(_) | Holder::Unknown => State::Stale,
        Holder::Nobody if home.is_published() => State::Stale,
        // One whose folder was deleted is ending; what was left of its pods is not.
        Holder::Nobody => match home.processes() {
            Processes { daemons, .. } if !daemons.is_empty() => State::Starting,
            Processes { pods, .. } if !pods.is_empty() => State::Stale,
            _ => State::Absent,
        },
    })
}

/// Ends the sandbox and clears what it leaves, also where its folder was deleted or damaged: SIGTERM, and SIGKILL after
/// `deadline`. True once none runs; false if it lives on.
///
/// # Errors
/// If the folder can't be read or cleared, or the daemon may not be signalled.
pub async fn stop(home: &Home, deadline: Duration) -> Result<bool> {
    let before = info(home);
    let daemon = || home.processes().daemons;
    let held = || Ok(matches!(home.holder()?, Holder::Alive(_)));
    for (word, within) in [(Signal::TERM, deadline), (Signal::KILL, KILLED)] {
        if ended(word, within, daemon, held).await? {
            break;
        }
    }
    if held()? || !daemon().is_empty() {
        return Ok(false);
    }
    // Its pods are the leash's to end, unless that was killed too.
    let pods = || home.processes().pods;
    if !gone(pods, LEASH).await {
        for (word, within) in [(Signal::TERM, deadline), (Signal::KILL, KILLED)] {
            if ended(word, within, pods, || Ok(false)).await? {
                break;
            }
        }
    }
    if state(home)? == State::Stale {
        if let Some(entry) = before.as_ref().and_then(|info| info.entry.strip_prefix("http://")?.parse().ok())
        {
            free(entry, LEASH).await.doing("waiting for the port of the ingress")?;
        }
        home.withdraw()?;
        home.clear_node()?;
        home.forget_holder()?;
    }
    Ok(true)
}

/// Signals processes, each once, and waits until none is left and nothing is held. False if that takes too long.
async fn ended(
    signal: Signal,
    within: Duration,
    find: impl Fn() -> Vec<i32>,
    held: impl Fn() -> Result<bool>,
) -> Result<bool> {
    let patience = Instant::now() + within;
    let mut signalled = BTreeSet::new();
    loop {
        let found = find();
        let new: Vec<i32> = found.iter().copied().filter(|pid| signalled.insert(*pid)).collect();
        processes::signal(&new, signal).doing_with(|| format!("signalling the sandbox ({new:?})"))?;
        if found.is_empty() && !held()? {
            return Ok(true);
        }
        if Instant::now() > patience {
            return Ok(false);
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn gone(find: impl Fn() -> Vec<i32>, within: Duration) -> bool {
    let patience = Instant::now() + within;
    while !find().is_empty() {
        if Instant::now() > patience {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}

/// Waits until an address can be bound, at most `within`; the last error says why it can't.
pub(crate) async fn free(address: SocketAddr, within: Duration) -> std::io::Result<SocketAddr> {
    let patience = Instant::now() + within;
    loop {
        match TcpListener::bind(address).and_then(|listener| listener.local_addr()) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < patience => {
                tokio::time::sleep(POLL).await;
            }
            bound => return bound,
        }
    }
}

/// Tells builds of this program apart: a running sandbox of another build is older or newer than the tool that asks.
///
/// # Errors
/// If the program's own file can't be looked at.
pub fn build_id() -> Result<String> {
    let program = std::env::current_exe().doing("finding this program's own file")?;
    let about = std::fs::metadata(&program).doing_with(|| format!("looking at {}", program.display()))?;
    let changed = about.modified().doing("reading this program's age")?;
    let changed = changed.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    Ok(format!("{}-{:x}-{changed:x}", env!("CARGO_PKG_VERSION"), about.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(pid: i32) -> Info {
        Info {
            pid,
            started: jiff::Timestamp::UNIX_EPOCH,
            api: "https://127.0.0.1:1".into(),
            entry: "http://127.0.0.1:2".into(),
            kubeconfig: "k".into(),
            context: "c".into(),
            build_id: "b".into(),
            program: "p".into(),
        }
    }

    #[tokio::test]
    async fn the_lock_is_the_truth() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("home"));
        assert_eq!(state(&home).unwrap(), State::Absent);
        home.create().unwrap();
        let lock = crate::home::Lock::take(&home).await.unwrap();
        assert_eq!(state(&home).unwrap(), State::Starting);
        let error = crate::home::Lock::take(&home).await.err().unwrap().to_string();
        assert!(
            error.contains("already running") && error.contains(&std::process::id().to_string()),
            "{error}"
        );

        let pid = i32::try_from(std::process::id()).unwrap();
        let publish = |pid| home.write(&home.info(), &serde_json::to_vec(&info(pid)).unwrap()).unwrap();
        publish(pid);
        assert_eq!(state(&home).unwrap(), State::Running(info(pid)));
        publish(pid - 1);
        assert_eq!(state(&home).unwrap(), State::Starting, "what a killed one left");
        drop(lock); // as the kernel does when the daemon is killed
        assert_eq!(state(&home).unwrap(), State::Stale);
        assert!(stop(&home, Duration::ZERO).await.unwrap());
        assert_eq!(state(&home).unwrap(), State::Absent);

        crate::home::Lock::take(&home).await.unwrap().release();
        assert_eq!(state(&home).unwrap(), State::Absent, "an orderly end leaves nothing");
    }
}
