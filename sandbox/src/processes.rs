//! What of a sandbox runs, by the processes' own words: for when its folder does not say. The seam between Linux and
//! macOS.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use sandbox_node::NODE_VARIABLE;

/// Processes of one sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Processes {
    /// Its daemon, by its arguments: `serve`, and the folder.
    pub(crate) daemons: Vec<i32>,
    /// What its pods have started, by a variable that they all inherit.
    pub(crate) pods: Vec<i32>,
}

impl Processes {
    /// Those that run now, without this one.
    pub(crate) fn of(home: &Path, node: &Path) -> Processes {
        let own = std::process::id();
        let mut found = Processes::default();
        for process in all().into_iter().filter(|process| process.pid.cast_unsigned() != own) {
            let is_pod = |variable: &String| {
                variable
                    .strip_prefix(NODE_VARIABLE)
                    .and_then(|rest| rest.strip_prefix('='))
                    .is_some_and(|dir| same(dir, node))
            };
            let serves =
                process.arguments.iter().skip_while(|word| *word != "serve").any(|word| same(word, home));
            if process.environment.iter().any(is_pod) {
                found.pods.push(process.pid);
            } else if serves {
                found.daemons.push(process.pid);
            }
        }
        found
    }
}

/// Whether a word leads to a folder: a process keeps what it was started with, and links may have led there.
fn same(word: &str, folder: &Path) -> bool {
    let word = Path::new(word);
    word == folder
        || matches!((word.canonicalize(), folder.canonicalize()), (Ok(word), Ok(folder)) if word == folder)
}

/// Signals processes that were just found.
///
/// # Errors
/// If one may not be signalled.
pub(crate) fn signal(pids: &[i32], signal: Signal) -> std::io::Result<()> {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
        match kill_process(pid, signal) {
            // It ended meanwhile.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

struct Process {
    pid: i32,
    arguments: Vec<String>,
    environment: Vec<String>,
}

/// All processes that this user may look at. One that has ended and was not waited for yet has neither arguments nor an
/// environment.
#[cfg(target_os = "linux")]
fn all() -> Vec<Process> {
    let words = |path: std::path::PathBuf| -> Vec<String> {
        let bytes = std::fs::read(path).unwrap_or_default();
        let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    };
    let folders = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    folders
        .filter_map(|folder| {
            let pid = folder.file_name().to_str()?.parse().ok()?;
            let (arguments, environment) =
                (words(folder.path().join("cmdline")), words(folder.path().join("environ")));
            Some(Process { pid, arguments, environment })
        })
        .collect()
}

/// All processes that this user may look at. `ps` shows arguments and environment in one line.
#[cfg(not(target_os = "linux"))]
fn all() -> Vec<Process> {
    let output = std::process::Command::new("ps").args(["-axEww", "-o", "pid=,command="]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let pid = words.next()?.parse().ok()?;
            let words: Vec<String> = words.map(str::to_owned).collect();
            Some(Process { pid, arguments: words.clone(), environment: words })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_daemon_is_known_by_its_arguments_and_a_pod_by_its_environment() {
        let dir = tempfile::tempdir().unwrap();
        let (home, node) = (dir.path(), dir.path().join("node"));
        let sleep = |words: &[&str], variable: Option<&Path>| {
            let mut command = Command::new("sh");
            command.args(["-c", "read line; true"]).args(words).stdin(Stdio::piped()).env_clear();
            command.envs(variable.map(|value| (NODE_VARIABLE, value))).spawn().unwrap()
        };
        let folder = home.to_str().unwrap();
        let mut others = [sleep(&["x", folder], None), sleep(&["serve", "/elsewhere"], Some(home))];
        let (mut daemon, mut pod) = (sleep(&["serve", "--home", folder], None), sleep(&[], Some(&node)));
        let id = |child: &std::process::Child| i32::try_from(child.id()).unwrap();
        let expected = Processes { daemons: vec![id(&daemon)], pods: vec![id(&pod)] };
        assert_eq!(Processes::of(home, &node), expected);
        signal(&[expected.daemons, expected.pods].concat(), Signal::KILL).unwrap();
        daemon.wait().unwrap();
        pod.wait().unwrap();
        assert_eq!(Processes::of(home, &node), Processes::default());
        for other in &mut others {
            other.kill().unwrap();
            other.wait().unwrap();
        }
    }
}
