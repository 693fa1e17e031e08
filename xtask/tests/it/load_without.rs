//! `--without`: the failures that a protection prevents come back, each with its cause, and the protection comes back
//! too.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::interrupt::stop_at;
use crate::world::{Ran, World, explained_elsewhere};

/// How many requests failed by which mechanism.
fn mechanisms(ran: &Ran) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for failure in ran.summary()["failures"].as_array().expect("failures") {
        let mechanism = failure["mechanism"].as_str().expect("one").to_owned();
        *counts.entry(mechanism).or_default() += 1;
    }
    counts
}

/// The app's container and its grace, as the cluster has them.
fn pod(world: &World) -> Value {
    let ran = world.kubectl(&["get", "deployment", "simple-model-api-deployment", "-o", "json"]);
    let spec: Value = serde_json::from_str(&ran.stdout).expect("json");
    let pod = &spec["spec"]["template"]["spec"];
    serde_json::json!([pod["containers"], pod["terminationGracePeriodSeconds"]])
}

#[test]
fn too_early_is_fifty_of_fifty_and_unprobed_pods_get_requests_too_soon() {
    let mut world = World::sandbox();
    // The experiment is the same with a shorter pause, and sooner over; with less than this the proxy of a busy machine
    // learns too late that the old pods go.
    let deployment = world.own_workspace().join("kubernetes/30-deployment.yaml");
    let text = std::fs::read_to_string(&deployment).expect("reading the manifest");
    std::fs::write(&deployment, text.replace("seconds: 5", "seconds: 3")).expect("writing it");
    world.run_ok(&["up"]);
    let before = pod(&world);

    let early = world.run(&["load", "--without", "gates", "--output", "json"]);
    // On a machine that is busy otherwise the generator may say that it was late; what failed, failed.
    assert!([40, 41].contains(&early.code), "{}", early.stderr);
    let summary = early.summary();
    assert_eq!((&summary["scheduled"], &summary["buckets"]["ok"]), (&50.into(), &0.into()), "{summary}");
    assert_eq!(mechanisms(&early), [("never-reached-proxy".to_owned(), 50)].into(), "{summary}");
    assert_eq!(world.run_ok(&["load", "--output", "json"]).summary()["buckets"]["ok"], 50);

    // Known well enough after one run of each kind.
    let prove = ["prove", "--protection", "gates", "--duration", "2", "--width", "50", "--output", "json"];
    let proof = world.run_ok(&prove).summary();
    let row = &proof["prove"]["rows"][0];
    assert_eq!(row["with"]["failed"], 0, "{proof}");
    assert!(row["without"]["failed"].as_u64().is_some_and(|failed| failed > 0), "{proof}");
    let sentence = row["sentence"].as_str().expect("a sentence");
    assert!(sentence.starts_with("without gates ") && sentence.ends_with("; with it 0 of 100"), "{sentence}");
    let page = std::fs::read_to_string(proof["page"].as_str().expect("a page")).expect("reading the page");
    assert!(page.contains(" of 1 difference is more than chance") && page.contains(sentence), "{page}");
    let run = proof["run"].as_str().expect("a run");
    let told = ["✓ prove: ", " of 1 difference is more than chance", sentence];
    explained_elsewhere(Path::new(run), 0, &told);

    let load = ["load", "--output", "json", "--get", "/health", "--rate", "50", "--duration", "6"];
    // Nobody reads what is written for a person; the protection is put back all the same.
    let unprobed = world.run_unread(&[&load[..], &["--without", "startup-probe"]].concat());
    assert!([40, 41].contains(&unprobed.code), "{}", unprobed.stderr);
    let found = mechanisms(&unprobed);
    let of = |mechanism: &str| found.get(mechanism).copied().unwrap_or(0);
    let early = of("not-ready-yet") + of("not-listening-yet");
    assert!(early > 0 && early == found.values().sum::<u64>(), "{found:?}");
    assert_eq!(pod(&world), before);

    for at in ["remove-protection", "load"] {
        let stopped = stop_at(&world, &["load", "--without", "grace", "--requests", "500"], at, "-INT");
        let stopped = stopped.unwrap_or_else(|| panic!("{at} never started"));
        assert_eq!(stopped.code, Some(130), "{at}");
        assert_eq!(pod(&world), before, "put back when stopped during {at}");
    }

    killed_in_the_middle(&world, &before);

    let protected = world.run(&[&load[..], &["--during", "rollout"]].concat());
    let summary = protected.summary();
    assert_eq!(summary["buckets"]["ok"], summary["scheduled"], "{:?}", mechanisms(&protected));
}

/// Nothing can put back what a killed run changed: it is marked, every look warns of it, and `up` puts it back.
fn killed_in_the_middle(world: &World, before: &Value) {
    let killed = stop_at(world, &["load", "--without", "pre-stop", "--requests", "500"], "load", "-KILL");
    assert_eq!(killed.expect("the load never started").code, None);
    assert_ne!(pod(world), *before, "the pods are without their preStop");

    let change = "deployment/simple-model-api-deployment is temporarily changed: without pre-stop, since ";
    let up = format!("`cargo xtask up --cluster sandbox --profile {} --port 0` puts it back", world.profile);
    for look in [&["status"][..], &["smoke"], &["load", "--get", "/health", "-n", "10"]] {
        let ran = world.run_ok(look);
        let warning = ran.stderr.lines().find(|line| line.starts_with("warning: "));
        let warning = warning.unwrap_or_else(|| panic!("{look:?}: {}", ran.stderr));
        assert!(warning.contains(change) && warning.ends_with(&up), "{look:?}: {warning}");
    }
    let summary = world.run_ok(&["status", "--output", "json"]).summary();
    assert_eq!(summary["temporary_change"]["what"], "without pre-stop");
    let doctor = world.run_ok(&["doctor"]).stdout;
    assert!(doctor.contains(&format!("! app          {change}")), "{doctor}");
    let another = world.run(&["load", "--without", "grace"]);
    assert_eq!(another.code, 10, "{}", another.stderr);
    assert!(another.stderr.contains("puts it back if that run was killed"), "{}", another.stderr);

    let up = world.run_ok(&["up"]).stderr;
    assert!(up.contains("was left changed, and is put back: without pre-stop"), "{up}");
    assert_eq!(pod(world), *before);
    let pace = ["-n", "ingress-nginx", "get", "configmap", "sandbox-faults", "-o", "jsonpath={.data}"];
    assert_eq!(world.kubectl(&pace).stdout.trim_matches(['{', '}']), "");
    assert!(!world.run_ok(&["status"]).stderr.contains("warning"));
}
