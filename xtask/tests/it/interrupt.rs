//! Ctrl-C and kill -9 in the middle.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::world::{World, eventually, explained_elsewhere};

/// A run of the tool that was sent a signal.
pub(crate) struct Stopped {
    pub(crate) code: Option<i32>,
    /// How long the end took.
    pub(crate) took: Duration,
    pub(crate) pid: u32,
}

/// Starts the command, and sends `signal` as soon as the step or gate `at` starts; nothing if it was over before.
pub(crate) fn stop_at(world: &World, args: &[&str], at: &str, signal: &str) -> Option<Stopped> {
    let mut child = world
        .command(&[args, &["--output", "json"]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starting the tool");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    let needle = format!(r#""name":"{at}","state":"start""#);
    let found = lines.by_ref().map_while(Result::ok).any(|line| line.contains(&needle));
    let began = Instant::now();
    let sent = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status();
    // What it still prints must not block it.
    let drain = std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    let status = child.wait().expect("waiting for the tool");
    let _ = drain.join();
    (found && sent.is_ok_and(|sent| sent.success())).then(|| Stopped {
        code: status.code(),
        took: began.elapsed(),
        pid: child.id(),
    })
}

#[test]
fn ctrl_c_during_each_step_leaves_nothing_behind_and_the_next_up_goes_on() {
    let world = World::sandbox();
    for at in
        ["preflight", "cluster", "ingress", "ingress-lease", "weights", "image", "apply", "rollout", "smoke"]
    {
        let Stopped { code, took, .. } =
            stop_at(&world, &["up"], at, "-INT").unwrap_or_else(|| panic!("{at} never started"));
        // The last step may be done by the time the signal arrives.
        let done_before = at == "smoke" && code == Some(0);
        assert!(code == Some(130) || done_before, "{at}: {code:?}");
        assert!(took < Duration::from_secs(3), "{at}: {took:?}");
        eventually("only the sandbox and its pods are left", Duration::from_secs(3), || {
            let left = world.processes();
            left.iter().all(|line| {
                line.contains("/sandbox serve ")
                    || line.contains("/sandbox leash")
                    || line.contains("/sandbox ingress ")
                    || line.contains("/images/")
            })
        });
    }
    world.run_ok(&["up"]);
}

/// As when the terminal is closed.
#[test]
fn a_hang_up_is_a_polite_end() {
    let world = World::sandbox();
    let stopped = stop_at(&world, &["up"], "rollout", "-HUP").expect("the rollout never started");
    let Stopped { code, took, pid } = stopped;
    assert_eq!(code, Some(130));
    assert!(took < Duration::from_secs(3), "{took:?}");
    explained_elsewhere(&world.run_of(pid), 0, &["✗ up: interrupted after ", "gate rollout (exit code 130"]);
}

#[test]
fn a_killed_up_leaves_nothing_behind_and_the_next_one_recovers() {
    let world = World::sandbox();
    for at in ["cluster", "image", "rollout"] {
        let killed = stop_at(&world, &["up"], at, "-KILL").unwrap_or_else(|| panic!("{at} never started"));
        assert_eq!(killed.code, None, "{at}");
        // Its records end there, and what they hold is told.
        let under_way = if at == "rollout" { "gate rollout" } else { at };
        let told = ["✗ up: killed, or still under way; its records end after ", under_way];
        explained_elsewhere(&world.run_of(killed.pid), 20, &told);
    }
    world.run_ok(&["up"]);
    world.run_ok(&["down"]);
    eventually("no process is left", Duration::from_secs(5), || world.processes().is_empty());
}

#[test]
fn the_time_limit_of_the_whole_command_is_a_gate_timeout() {
    let world = World::sandbox();
    let ran = world.run(&["up", "--timeout", "1s"]);
    assert_eq!(ran.code, 31, "{}", ran.stderr);
    assert!(ran.stderr.contains("--timeout 1s expired while waiting for "), "{}", ran.stderr);
    assert!(ran.took < Duration::from_secs(4), "{:?}", ran.took);
}
