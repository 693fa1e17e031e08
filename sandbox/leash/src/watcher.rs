//! The watcher process: remembers what is held, and ends it when its pipe closes.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::start_time;

/// How long a group may take to end after SIGTERM.
const GRACE: Duration = Duration::from_millis(800);
const POLL: Duration = Duration::from_millis(20);

/// The watcher's main: reads `+pgid start-time` and `-pgid` lines from stdin until its end, then ends every process
/// group still held. Blocks.
///
/// # Errors
/// If stdin can't be read; the groups have been ended then too.
pub fn watch_stdin() -> Result<()> {
    let mut held = BTreeMap::new();
    let read = remember(std::io::stdin().lock(), &mut held);
    end(&held);
    read.context("reading the leash's pipe")
}

fn remember(lines: impl BufRead, held: &mut BTreeMap<i32, String>) -> std::io::Result<()> {
    for line in lines.lines() {
        let line = line?;
        if let Some(rest) = line.strip_prefix('+') {
            let (pgid, start) = rest.split_once(' ').unwrap_or((rest, ""));
            // Groups 0 and 1 would be our own and everyone's.
            if let Some(pgid) = pgid.parse().ok().filter(|pgid| *pgid > 1) {
                held.insert(pgid, start.to_owned());
            }
        } else if let Some(Ok(pgid)) = line.strip_prefix('-').map(str::parse) {
            held.remove(&pgid);
        }
    }
    Ok(())
}

fn end(held: &BTreeMap<i32, String>) {
    signal(held, Signal::TERM);
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline && held.iter().any(|(&pgid, start)| is_same_process(pgid, start)) {
        std::thread::sleep(POLL);
    }
    signal(held, Signal::KILL);
}

fn signal(held: &BTreeMap<i32, String>, signal: Signal) {
    for (&pgid, start) in held {
        if let Some(pid) = Pid::from_raw(pgid).filter(|_| is_same_process(pgid, start)) {
            // Fails when the group has just ended, which is what is wanted.
            let _ = kill_process_group(pid, signal);
        }
    }
}

/// Whether the group exists and is the one that was held. While any member lives the kernel does not give the group's
/// number to a new process, so a leader that is gone leaves the number with the group; a leader that is there must
/// have the start time it had then.
fn is_same_process(pgid: i32, start: &str) -> bool {
    Pid::from_raw(pgid).is_some_and(|pid| test_kill_process_group(pid).is_ok())
        && start_time(pgid).is_none_or(|now| now == start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_what_is_held_and_not_released() {
        let mut held = BTreeMap::new();
        remember(&b"+10 a\n+11 b c\n-10\n+0 x\n+1 x\n+nonsense\n-12\n\n"[..], &mut held).unwrap();
        assert_eq!(held, BTreeMap::from([(11, "b c".to_owned())]));
    }

    #[test]
    fn a_pid_with_another_start_time_is_another_process() {
        use std::os::unix::process::CommandExt as _;
        let mut child = std::process::Command::new("sleep").arg("100").process_group(0).spawn().unwrap();
        let pgid = i32::try_from(child.id()).unwrap();
        let start = start_time(pgid).unwrap();
        assert!(is_same_process(pgid, &start));
        end(&BTreeMap::from([(pgid, "1".to_owned())]));
        assert!(child.try_wait().unwrap().is_none(), "a process that reused the pid was ended");
        end(&BTreeMap::from([(pgid, start)]));
        assert!(!child.wait().unwrap().success());
    }
}
