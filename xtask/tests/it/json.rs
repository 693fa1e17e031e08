//! `--output json`: every line on stdout is an object, whatever the command and however it ends.

use serde_json::Value;

use crate::world::World;

fn summary(world: &World, args: &[&str], code: i32, command: &str) -> Value {
    let ran = world.run(args);
    assert_eq!(ran.code, code, "{args:?}: {}", ran.stderr);
    // Each line is parsed.
    let summary = ran.summary();
    assert_eq!(summary["command"], command, "{args:?}: {summary}");
    assert_eq!(summary["schema"], 1, "{args:?}: {summary}");
    assert_eq!(summary["version"], env!("CARGO_PKG_VERSION"), "{args:?}: {summary}");
    assert_eq!(summary["exit_code"], code, "{args:?}: {summary}");
    assert_eq!(summary["ok"], code == 0, "{args:?}: {summary}");
    assert_eq!(summary.get("error").is_some(), code != 0, "{args:?}: {summary}");
    summary
}

#[test]
fn every_command_ends_with_a_summary() {
    let mut world = World::sandbox();
    world.set("XTASK_OUTPUT", "json");
    for command in
        ["up", "redeploy", "dev", "smoke", "load", "down", "logs", "status", "doctor", "kubeconfig", "test"]
    {
        let plan = summary(&world, &[command, "--dry-run"], 0, command);
        assert!(plan["plan"].is_array(), "{plan}");
    }
    for command in ["redeploy", "smoke", "load", "logs", "kubeconfig"] {
        summary(&world, &[command], 10, command);
    }
    summary(&world, &["status"], 0, "status");
    summary(&world, &["down"], 0, "down");
    summary(&world, &["explain", "no-such-run"], 2, "explain");
    summary(&world, &["weights", "fetch", "--set", "nothing"], 2, "weights");
    summary(&world, &["--version"], 0, "version");
    assert!(
        summary(&world, &["up", "--help"], 0, "help")["help"].as_str().is_some_and(|help| !help.is_empty())
    );
}

#[test]
fn a_mistake_on_the_command_line_is_a_summary_too() {
    let world = World::sandbox();
    for args in [
        &["fly", "--output", "json"][..],
        &["up", "--port", "70000", "--output=json"],
        &["--output", "json"],
        &["load", "--threshold", "p99", "--output", "json"],
        &["logs", "--tail", "-1", "--output", "json"],
    ] {
        summary(&world, args, 2, "usage");
    }
    let outside = {
        let mut world = World::sandbox();
        world.root = world.scratch().to_owned();
        summary(&world, &["up", "--output", "json"], 10, "up")
    };
    assert!(outside["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{outside}");
}
