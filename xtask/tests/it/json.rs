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
    for command in ["up", "redeploy", "smoke", "load", "down", "logs", "status", "doctor", "kubeconfig"] {
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

#[test]
fn the_logs_of_every_container_are_prefixed_and_are_objects() {
    let mut world = World::sandbox();
    let root = world.own_workspace();
    let file = root.join("kubernetes/30-deployment.yaml");
    let text = std::fs::read_to_string(&file).expect("reading");
    let second = "      containers:\n        - name: proxy\n          image: simple-model-api\n          \
                  imagePullPolicy: Never\n          env: [{name: PORT, value: \"9002\"}]\n          \
                  resources: {requests: {cpu: 50m, memory: 512Mi}}\n          securityContext:\n            \
                  allowPrivilegeEscalation: false\n            capabilities: {drop: [ALL]}\n";
    std::fs::write(&file, text.replacen("      containers:\n", second, 1)).expect("writing");
    world.run_ok(&["up"]);
    let human = world.run_ok(&["logs"]).stdout;
    for container in ["proxy", "simple-model-api"] {
        let prefix = format!("/{container} ");
        assert!(human.lines().any(|line| line.contains(&prefix)), "{container}: {human}");
    }
    let pod = human.split('/').next().expect("a pod").to_owned();
    let ran = world.run_ok(&["logs", &pod, "--tail", "1", "--since", "1h", "--output", "json"]);
    let lines: Vec<Value> = ran.events().into_iter().filter(|event| event["event"] == "log").collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines.iter().all(|line| line["pod"] == pod.as_str() && line["time"].is_string()), "{lines:?}");
    let previous = world.run_ok(&["logs", &pod, "--previous"]);
    assert!(previous.stderr.contains("no log: previous terminated container"), "{}", previous.stderr);
    let unknown = world.run(&["logs", "nobody"]);
    assert_eq!(unknown.code, 2, "{}", unknown.stderr);
    assert!(unknown.stderr.contains(&pod), "{}", unknown.stderr);
}
