//! The plan can't lie: what `--dry-run` names is what the run then does, in an order that the run keeps.

use std::path::Path;

use serde_json::Value;

use crate::world::World;

/// The steps and gates of a plan, in its order.
fn planned(world: &World, args: &[&str]) -> Vec<(String, String)> {
    let plan = world.run_ok(&[args, &["--dry-run", "--output", "json"]].concat()).summary()["plan"].clone();
    let mut names = Vec::new();
    for entry in plan.as_array().expect("a plan") {
        names.extend(entry["step"].as_str().map(|name| ("step".to_owned(), name.to_owned())));
        for gate in entry["gates"].as_array().expect("gates") {
            names.push(("gate".to_owned(), gate["name"].as_str().expect("a name").to_owned()));
        }
    }
    names
}

/// Runs a command as it was planned.
#[track_caller]
fn holds(world: &World, args: &[&str]) {
    let plan = planned(world, args);
    let ran = world.run(&[args, &["--output", "json"]].concat());
    let summary = ran.summary();
    // A load may lose requests, or be late on a machine that is busy otherwise: what it did is what counts here.
    assert!([0, 40, 41].contains(&ran.code), "{args:?}: {summary}");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let steps = summary["steps"].as_array().expect("steps").clone();
    let run: Vec<_> = steps.iter().map(|step| (text(&step["kind"]), text(&step["name"]))).collect();
    let sorted = |names: &[(String, String)]| {
        let mut names = names.to_vec();
        names.sort_unstable();
        names
    };
    assert_eq!(sorted(&plan), sorted(&run), "{args:?}");
    // What a step waited for comes before it in the plan too; of a name that is there twice, one of the two.
    for step in &steps {
        let last = plan.iter().rposition(|(_, name)| *name == text(&step["name"])).expect("it is planned");
        for before in step["waited_for"].as_array().into_iter().flatten() {
            let first = plan.iter().position(|(_, name)| *name == text(before)).expect("it is planned");
            assert!(first <= last, "{args:?}: {before} after {}: {plan:?}", step["name"]);
        }
    }
}

#[test]
fn each_command_does_what_its_plan_says() {
    let mut world = World::sandbox();
    let root = world.own_workspace();
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    world.patch(&root, &cases.join("json.patch"));
    holds(&world, &["up"]);
    std::fs::remove_file(root.join("kubernetes/15-extra.json")).expect("removing");
    let does = world.run_ok(&["up", "--prune", "--dry-run"]).stdout;
    assert!(does.contains("delete configmap/from-json"), "{does}");
    assert_eq!(world.kubectl(&["get", "configmap", "from-json"]).code, 0, "a plan changes nothing");
    holds(&world, &["up", "--prune"]);
    holds(&world, &["redeploy"]);
    holds(&world, &["smoke"]);
    let load = ["load", "--get", "/health", "--requests", "20"];
    holds(&world, &load);
    holds(&world, &[&load[..], &["--during", "pod-delete"]].concat());
    holds(&world, &[&load[..], &["--repeat", "2"]].concat());
    holds(&world, &[&load[..], &["--without", "grace"]].concat());
    for reads in ["status", "doctor", "kubeconfig"] {
        assert_eq!(planned(&world, &[reads]), [], "{reads}");
    }
    holds(&world, &["down"]);
    let minikube = World::minikube();
    assert_eq!(planned(&minikube, &["down"]).len(), 1, "no cluster, nothing to remove from it");
}

#[test]
fn a_plan_speaks_of_the_options_that_it_was_given() {
    let world = World::sandbox();
    for (args, words) in [
        (&["weights", "generate", "--seed", "7"][..], "generate seeded weights (seed 7)"),
        (&["weights", "fetch", "--force"], "GET https://"),
        (&["load", "--get", "/info"], "GET /info by the entry"),
        (&["load", "--during", "pod-kill"], "after a fifth of it: pod-kill"),
        (&["load", "--during", "scale-down"], "scale-up"),
        (&["load", "--without", "pre-stop"], "without pre-stop"),
        (&["load", "--without", "gates"], "wait for no gate"),
        (&["load", "--repeat", "2"], "thresholds: failed<=0"),
        (&["prove", "--protection", "grace"], "without grace, in a scale-down"),
        (&["down"], "end the sandbox"),
        (&["status"], "reads only"),
    ] {
        let plan = world.run_ok(&[args, &["--dry-run"]].concat()).stdout;
        assert!(plan.contains(words), "{args:?}: {plan}");
    }
    let unknown = world.run(&["weights", "fetch", "--set", "nothing", "--dry-run"]);
    assert_eq!(unknown.code, 2, "{}", unknown.stderr);
}
