//! How a load run ends that does not run to its end as planned: what was measured is told all the same.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::world::{Ran, World, target};

const HEALTH: [&str; 3] = ["load", "--get", "/health"];

#[test]
fn what_was_measured_is_told_however_the_run_ends() {
    let world = World::sandbox();
    world.run_ok(&["up"]);
    ctrl_c(&world);
    few_open_files(&world);
    a_folder_that_vanishes(&world);
    ctrl_c_behind_the_load(&world);
}

/// Runs it, and does something when it has said how far it is for the first time.
fn at_first_progress(world: &World, args: &[&str], act: impl FnOnce(u32)) -> (i32, String, String) {
    let mut command = world.command(args);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starting the tool");
    let mut stderr = BufReader::new(child.stderr.take().expect("stderr"));
    let (mut said, mut line) = (String::new(), String::new());
    while !line.contains("Progress: ") {
        line.clear();
        assert!(stderr.read_line(&mut line).expect("reading") > 0, "it ended before: {said}");
        said.push_str(&line);
    }
    act(child.id());
    let mut data = String::new();
    child.stdout.take().expect("stdout").read_to_string(&mut data).expect("reading");
    stderr.read_to_string(&mut said).expect("reading");
    (child.wait().expect("waiting for the tool").code().unwrap_or(-1), data, said)
}

/// The run's folder, by the line that names its report.
fn folder(world: &World, stderr: &str) -> PathBuf {
    let report = stderr.lines().find_map(|line| line.strip_prefix("report: "));
    let report = world.root.join(report.unwrap_or_else(|| panic!("no report is named: {stderr}")));
    report.parent().expect("a folder").to_owned()
}

fn ctrl_c(world: &World) {
    let args = [&HEALTH[..], &["--rate", "50", "--requests", "500"]].concat();
    let (code, stdout, stderr) = at_first_progress(world, &args, |pid| {
        let sent = Command::new("kill").args(["-INT", &pid.to_string()]).status();
        assert!(sent.is_ok_and(|sent| sent.success()));
    });
    assert_eq!(code, 130, "{stderr}");
    let headline = stdout.lines().find_map(|line| {
        let (_, rest) = line.split_once("✗ interrupted: ")?;
        rest.split_once(" requests succeeded").map(|(counts, _)| counts.to_owned())
    });
    let headline = headline.unwrap_or_else(|| panic!("no headline:\n{stdout}"));
    let (ok, due) = headline.split_once(" of ").expect("counts");
    let (ok, due): (u32, u32) = (ok.parse().expect("a number"), due.parse().expect("a number"));
    assert!(ok >= 50 && ok <= due && due < 500, "{headline}");
    for part in ["Success rate", "p99", &format!("{ok} ok + ")] {
        assert!(stdout.contains(part), "`{part}` is missing:\n{stdout}");
    }
    // The report and `explain` say the same.
    let run = folder(world, &stderr);
    let report = std::fs::read_to_string(run.join("report.html")).expect("the report");
    assert!(report.contains(&format!("interrupted: {headline} requests succeeded")));
    let explained = world.run_ok(&["explain", &run.display().to_string()]).stdout;
    assert!(explained.starts_with(&format!("✗ interrupted: {headline} requests succeeded")), "{explained}");
}

/// The tool under a limit of open files.
fn limited(world: &World, limit: &str, args: &[&str]) -> Ran {
    let tool = world.command(args);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("ulimit {limit} && exec \"$0\" \"$@\"")])
        .arg(tool.get_program())
        .args(tool.get_args());
    shell.current_dir(&world.root);
    for (name, value) in tool.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    Ran::of(&mut shell)
}

fn few_open_files(world: &World) {
    let many = [&HEALTH[..], &["--concurrency", "200", "--requests", "1000", "--output", "json"]].concat();
    let raised = limited(world, "-Sn 64", &many);
    let summary = raised.summary();
    assert_eq!(summary["buckets"]["ok"], 1000, "{summary}");
    // On a machine that is busy otherwise the generator may say that it was late.
    assert!([0, 41].contains(&raised.code), "{}", raised.stderr);

    let few = limited(world, "-n 64", &many);
    assert_eq!(few.code, 41, "{}", few.stderr);
    let summary = few.summary();
    assert_eq!(summary["verdict"], "invalid");
    let error = summary["error"].as_str().expect("an error");
    assert!(error.contains("the generator ran out of open files or ports: "), "{error}");
    assert!(error.ends_with("(limit of open files: 64)"), "{error}");
    assert!(summary["hint"].as_str().is_some_and(|hint| hint.contains("`ulimit -n`")), "{summary}");
    let causes: Vec<_> = summary["groups"].as_array().expect("groups").iter().collect();
    assert!(causes.iter().all(|group| group["mechanism"] == "generator-limit"), "{causes:?}");
}

/// As when the target folder is cleaned in the middle.
fn a_folder_that_vanishes(world: &World) {
    let args = [&HEALTH[..], &["--rate", "50", "--requests", "200"]].concat();
    let (code, stdout, stderr) = at_first_progress(world, &args, |pid| {
        let runs = std::fs::read_dir(target().join("xtask/runs")).expect("the runs").flatten();
        let mut folders = runs.map(|run| run.path()).filter(|run| !run.is_symlink());
        let own = folders.find(|run| run.to_string_lossy().ends_with(&format!("-load-{pid}")));
        std::fs::remove_dir_all(own.expect("the run's folder")).expect("removing it");
    });
    // The figures are whole; the generator may say that it was late.
    assert!([0, 41].contains(&code), "{stderr}");
    assert!(stdout.contains("200 ok + "), "{stdout}");
    for part in [
        "warning: the records of this run are lost: ",
        " was removed meanwhile",
        "warning: there is no report: ",
    ] {
        assert!(stderr.contains(part), "`{part}` is missing:\n{stderr}");
    }
}

/// While the pods that the disturbance replaced are still on their way out.
fn ctrl_c_behind_the_load(world: &World) {
    let args = [&HEALTH[..], &["-n", "50", "--during", "rollout", "--output", "json"]].concat();
    let mut command = world.command(&args);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starting the tool");
    let mut events = BufReader::new(child.stdout.take().expect("stdout")).lines().map_while(Result::ok);
    for awaited in [r#""name":"load","state":"start""#, r#""name":"settled","state":"start""#] {
        assert!(events.by_ref().any(|event| event.contains(awaited)), "never: {awaited}");
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.is_ok_and(|sent| sent.success()));
    let last = events.last().expect("a summary");
    assert_eq!(child.wait().expect("waiting for the tool").code(), Some(130), "{last}");
    let summary: serde_json::Value = serde_json::from_str(&last).expect("json");
    assert_eq!((&summary["scheduled"], &summary["interrupted"]), (&50.into(), &false.into()), "{summary}");
    assert!(summary["report"].as_str().is_some_and(|report| std::path::Path::new(report).exists()));
}
