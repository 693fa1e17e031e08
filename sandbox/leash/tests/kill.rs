//! Real processes: a program is killed, and what it had on a leash must be gone.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn parent(kind: &str) -> (Child, Vec<i32>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_leash-fixture"))
        .args(["parent", kind])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let pids: Vec<i32> =
        lines.take_while(|line| !line.is_empty()).map(|line| line.parse().unwrap()).collect();
    assert_eq!(pids.len(), 4, "two groups of two processes");
    (child, pids)
}

/// A zombie whose new parent has not reaped it yet is gone for our purposes.
fn alive(pid: i32) -> bool {
    let state = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap();
    let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

fn wait_until_gone(pids: &[i32]) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while pids.iter().any(|&pid| alive(pid)) {
        assert!(
            Instant::now() < deadline,
            "left behind: {:?}",
            pids.iter().filter(|&&p| alive(p)).collect::<Vec<_>>()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn kill_9_of_the_program_ends_its_groups() {
    let (mut program, pids) = parent("plain");
    assert!(pids.iter().all(|&pid| alive(pid)));
    program.kill().unwrap();
    program.wait().unwrap();
    wait_until_gone(&pids);
}

#[test]
fn groups_deaf_to_sigterm_are_killed() {
    let (mut program, pids) = parent("stubborn");
    program.kill().unwrap();
    program.wait().unwrap();
    wait_until_gone(&pids);
}

#[test]
fn an_orderly_end_of_the_program_ends_its_groups_too() {
    let (mut program, pids) = parent("plain");
    drop(program.stdin.take());
    program.wait().unwrap();
    wait_until_gone(&pids);
}

#[test]
fn released_groups_are_left_alone() {
    let (mut program, pids) = parent("released");
    let (mut other, others) = parent("plain");
    program.kill().unwrap();
    program.wait().unwrap();
    // The other program's watcher was told later and has by now done all it does.
    other.kill().unwrap();
    other.wait().unwrap();
    wait_until_gone(&others);
    assert!(pids.iter().all(|&pid| alive(pid)));
    for pid in pids {
        Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    }
}

#[test]
fn a_shell_watches_where_the_program_can_not() {
    use std::os::unix::process::CommandExt as _;
    let leash = leash::Leash::in_shell().unwrap();
    let spawn = |script: &str| Command::new("sh").args(["-c", script]).process_group(0).spawn().unwrap();
    let [mut polite, mut deaf, mut released] =
        ["sleep 1000", "trap '' TERM; while :; do sleep 1; done", "sleep 1000"].map(spawn);
    for child in [&polite, &deaf, &released] {
        leash.hold(i32::try_from(child.id()).unwrap());
    }
    leash.release(i32::try_from(released.id()).unwrap());
    drop(leash);
    assert!(!polite.wait().unwrap().success());
    assert!(!deaf.wait().unwrap().success());
    assert!(released.try_wait().unwrap().is_none(), "a group off the leash was ended");
    Command::new("kill").args(["-9", "--", &format!("-{}", released.id())]).status().unwrap();
    released.wait().unwrap();
}

#[test]
fn a_watcher_that_dies_is_replaced() {
    let watcher = [env!("CARGO_BIN_EXE_leash-fixture").into(), "watch".into()];
    let leash = leash::Leash::start(&watcher).unwrap();
    let spawn = || {
        use std::os::unix::process::CommandExt as _;
        Command::new("sleep").arg("1000").process_group(0).spawn().unwrap()
    };
    let mut first = spawn();
    leash.hold(i32::try_from(first.id()).unwrap());
    let me = std::process::id().to_string();
    let processes = Command::new("ps").args(["-A", "-o", "ppid=,pid=,args="]).output().unwrap();
    let listing = String::from_utf8_lossy(&processes.stdout).into_owned();
    // Other tests' watchers are children of their programs, not of this process.
    let pid = listing
        .lines()
        .filter(|line| line.trim_end().ends_with("leash-fixture watch"))
        .find_map(|line| line.trim_start().strip_prefix(&me)?.split_ascii_whitespace().next())
        .unwrap()
        .to_owned();
    Command::new("kill").args(["-9", &pid]).status().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while alive(pid.parse().unwrap()) {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut second = spawn();
    leash.hold(i32::try_from(second.id()).unwrap());
    drop(leash);
    assert!(!first.wait().unwrap().success());
    assert!(!second.wait().unwrap().success());
}
