//! Load on the embedded cluster: right after `up`, through a disturbance, and what is said of what failed.

use std::path::Path;

use crate::world::{World, explained_elsewhere};

#[test]
fn right_after_up_every_request_is_answered_and_a_killed_pod_is_named() {
    let world = World::sandbox();
    let up = world.run_ok(&["up", "--output", "json"]).summary();
    recorded(&world, &up);

    let ran = world.run_ok(&["load"]);
    for part in ["50 ok + 0 http", "Success rate   100.00 %", "from due"] {
        assert!(ran.stdout.contains(part), "{}", ran.stdout);
    }
    assert!(ran.stderr.contains("Progress: 50/50 (100%) — 50 ok, 0 err"), "{}", ran.stderr);

    let load = world.run_ok(&["load", "--output", "json", "--rate", "10", "--duration", "2"]);
    let summary = load.summary();
    assert_eq!(
        (summary["scheduled"].clone(), summary["buckets"]["ok"].clone()),
        (20.into(), 20.into()),
        "{summary}"
    );
    assert_eq!(
        (summary["entry"].clone(), summary["failures"].clone()),
        (up["entry"].clone(), serde_json::json!([]))
    );
    assert!(summary["latency_ms"]["p99"].as_f64().is_some_and(|p99| p99 > 0.0), "{summary}");
    let slowest = &summary["slow"]["answers"][0];
    assert!(slowest["parts_ms"]["queue"].is_number() && slowest["parts_ms"]["app"].is_number(), "{slowest}");
    let gates: Vec<_> = load.events().into_iter().filter(|event| event["event"] == "gate").collect();
    assert!(
        gates.iter().any(|gate| gate["name"] == "attribution" && gate["state"] == "already"),
        "{gates:?}"
    );

    // The same twice, each a run of its own.
    let junit = world.scratch().join("twice.xml");
    let twice = ["load", "--get", "/health", "-n", "20", "--repeat", "2", "--output", "json", "--threshold"];
    let repeated =
        world.run_ok(&[&twice[..], &["failed<=0", "--junit", &junit.display().to_string()]].concat());
    let repeated = repeated.summary();
    let junit = std::fs::read_to_string(junit).expect("the JUnit file");
    for n in 1..=2 {
        let case = format!("<testcase name=\"run {n}: failed&lt;=0\" classname=\"xtask.threshold\"");
        assert!(junit.contains(&case), "{junit}");
    }
    assert_eq!((&repeated["scheduled"], &repeated["verdict"]), (&40.into(), &"passed".into()), "{repeated}");
    let runs = repeated["repeat"]["runs"].as_array().expect("runs");
    let reports =
        runs.iter().map(|run| Path::new(run["run"].as_str().expect("a folder")).join("report.html"));
    assert!(runs.len() == 2 && reports.into_iter().all(|report| report.is_file()), "{repeated}");
    assert_eq!(repeated["repeat"]["rows"][0]["name"], "p50", "{repeated}");
    let page = std::fs::read_to_string(repeated["report"].as_str().expect("a page")).expect("the page");
    let part = Path::new(runs[1]["run"].as_str().expect("a folder")).file_name().expect("a name");
    let link = format!("href=\"../{}/report.html\"", part.display());
    assert!(page.contains("How far the runs are apart") && page.contains(&link), "{page}");
    let whole = repeated["run"].as_str().expect("a run");
    explained_elsewhere(Path::new(whole), 0, &["✓ load: all 2 runs passed", "2 runs          median", "p99"]);

    // Another request, held against that run.
    let base = summary["run"].as_str().expect("a run");
    let request = ["--path", "/info", "--method", "get", "--header", "X-Team: one", "--baseline", base];
    let conditions =
        ["--threshold", "failed<=baseline", "--threshold", "p99<=baseline*1000", "--output", "json"];
    let summary = world.run_ok(&[&["load", "-n", "20"], &request[..], &conditions].concat()).summary();
    let met = |threshold: &serde_json::Value| threshold["met"] == true;
    assert!(summary["thresholds"].as_array().expect("thresholds").iter().all(met), "{summary}");
    let differs = &summary["comparison"]["differs"];
    assert_eq!(differs[0], "the runs differ in their request: POST /predict; GET /info", "{summary}");

    // Whatever is under way at a pod that is killed is lost; it is named, with the pod, from the records alone.
    let killed = world.run(&["load", "--output", "json", "--during", "pod-kill", "-n", "100"]);
    let summary = killed.summary();
    let buckets = summary["buckets"].as_object().expect("buckets");
    assert_eq!(buckets.values().filter_map(serde_json::Value::as_u64).sum::<u64>(), 100, "{summary}");
    let failures = summary["failures"].as_array().expect("failures");
    assert_eq!(killed.code, if failures.is_empty() { 0 } else { 40 }, "{summary}");
    let mark = summary["marks"][0]["what"].as_str().expect("a mark");
    for failure in failures {
        let pod = failure["pod"].as_str().expect("a pod");
        assert!(mark.contains(pod), "{mark}: {failure}");
        assert!(
            ["forced-deletion", "shutdown-race"].contains(&failure["mechanism"].as_str().expect("one")),
            "{failure}"
        );
    }
    // By its name: the newest may be another test's.
    let run = summary["run"].as_str().expect("a run");
    let explained = world.run_ok(&["explain", run, "--output", "json"]).summary();
    assert_eq!(explained["failures"], summary["failures"]);
    // In the middle of it the pods were there, and their endpoints.
    let at = world.run_ok(&["explain", run, "--at", "0.1", "--output", "json"]).summary()["at"].clone();
    assert!(at["under_way"][0].as_str().is_some_and(|step| step.starts_with("step load")), "{at}");
    assert!(at["endpoints"].as_array().is_some_and(|all| all.len() >= 3), "{at}");
    assert_eq!(world.run(&["explain", run, "--at", "1h"]).code, 2);
}

/// A run that went well is told in two lines; what was true in its middle can be asked, and its report is there.
fn recorded(world: &World, up: &serde_json::Value) {
    let run = up["run"].as_str().expect("a run");
    let text = world.run_ok(&["explain", run]).stdout;
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with("✓ up: done in ") && lines[1].starts_with("critical path: "), "{text}");
    assert_eq!(up["gaps"], serde_json::json!([]), "{up}");
    // When the first of its pods was Ready, the rollout was under way.
    let rollout = up["steps"].as_array().expect("steps").iter().find(|step| step["name"] == "rollout");
    let rollout = rollout.expect("a rollout");
    let seconds = |field: &str| rollout[field].as_f64().expect("seconds");
    let almost = format!("{:.2}", seconds("start_seconds") + seconds("seconds") * 0.9);
    let text = world.run_ok(&["explain", run, "--at", &almost]).stdout;
    for part in [
        "under way  gate rollout, for ",
        "open gates cluster",
        "steps done preflight",
        "simple-model-api-deployment-",
    ] {
        assert!(text.contains(part), "`{part}` is missing:\n{text}");
    }
    let report = std::fs::read_to_string(up["report"].as_str().expect("a report")).expect("the report");
    for part in
        ["✓ up: done in ", "Steps and gates", "Kubernetes", "SEEDED", "Image digest", "class=\"ready\""]
    {
        assert!(report.contains(part), "`{part}` is missing");
    }
}

#[test]
fn nonsense_is_a_matter_of_usage() {
    let world = World::sandbox();
    for args in [
        &["load", "--threshold", "p98<1ms"][..],
        &["load", "--threshold", "p99"],
        &["load", "--rate", "0"],
        &["load", "--requests", "0"],
        &["load", "--ramp-up", "5"],
        &["load", "--duration", "0"],
        &["load", "--rate", "0.1", "--duration", "1"],
        &["explain", "no-such-run"],
    ] {
        let ran = world.run(args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.stderr);
    }
    // Without a cluster there is nothing to load.
    assert_eq!(world.run(&["load"]).code, 10);
}
