//! What a person reads before anything runs: help, plan, refusals of bad arguments.

use crate::world::{World, target};

#[test]
fn help() {
    let world = World::sandbox();
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"it-\d+-\d+", "[profile]");
    settings.bind(|| insta::assert_snapshot!(world.run_ok(&["--help"]).stdout));
}

#[test]
fn plans() {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"it-\d+-\d+", "[profile]");
    // As the shell would have to be given it.
    let target = target().display().to_string().replace('.', r"\.");
    settings.add_filter(&format!("'?{target}"), "[target]");
    settings.add_filter(r"\S*/(debug|release)/xtask", "[xtask]");
    settings.add_filter(r"\S*/cargo (build|rustc)", "cargo $1");
    // The sandbox is built as this tool was.
    settings.add_filter("--profile dev", "--profile release");
    settings.bind(|| {
        let sandbox = World::sandbox();
        insta::assert_snapshot!("plan_sandbox", sandbox.run_ok(&["up", "--dry-run"]).stdout);
        assert!(!sandbox.home().exists(), "a plan changes nothing");
        let minikube = World::minikube();
        insta::assert_snapshot!("plan_minikube", minikube.run_ok(&["up", "--dry-run"]).stdout);
        insta::assert_snapshot!("plan_redeploy", minikube.run_ok(&["redeploy", "--dry-run"]).stdout);
        assert!(!minikube.calls().iter().any(|(call, _)| call.contains(" start")), "a plan changes nothing");
    });
}

#[test]
fn bad_arguments_are_usage_errors() {
    let world = World::sandbox();
    for (args, word) in [
        (&["fly"][..], "fly"),
        (&["up", "--timeout", "soon"], "`soon` is not a duration"),
        (&["load", "--request-timeout", "18446744073709551615"], "is longer than a year"),
        (&["load", "--rate", "1e-300", "--requests", "5"], "take longer than a year"),
        (&["up", "--timeout=-5s"], "`-5s` is negative"),
        (&["up", "--namespace", "No_Such"], "use lower-case letters"),
        (&["up", "--profile", "../elsewhere"], "use lower-case letters"),
        (&["up", "--port", "70000"], "70000"),
        (&["up", "--registry", "https://ghcr.io/team"], "names no registry"),
        (&["weights", "fetch", "--set", "nothing"], "there is no set of weights `nothing`"),
    ] {
        let ran = world.run(args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(word), "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn each_shared_option_has_a_variable_and_an_empty_one_is_unset() {
    let mut world = World::sandbox();
    let bad = [
        ("XTASK_CLUSTER", "moon"),
        ("XTASK_PROFILE", "No_Such"),
        ("XTASK_NAMESPACE", "No_Such"),
        ("XTASK_PORT", "70000"),
        ("XTASK_REGISTRY", "no-registry"),
        ("XTASK_TIMEOUT", "soon"),
        ("XTASK_OUTPUT", "xml"),
        ("XTASK_DRY_RUN", "perhaps"),
        ("XTASK_VERBOSE", "perhaps"),
    ];
    for (name, value) in bad {
        let mut world = World::sandbox();
        world.set(name, value);
        let ran = world.run(&["status"]);
        assert_eq!(ran.code, 2, "{name}={value}: {}", ran.stderr);
        assert!(ran.stderr.contains(value), "{name}={value}: {}", ran.stderr);
    }
    world.set("XTASK_DRY_RUN", "1");
    world.set("XTASK_NAMESPACE", "team");
    let plan = world.run_ok(&["up"]).stdout;
    assert!(plan.contains("create namespace team if it is missing"), "{plan}");

    let profile = world.profile.clone();
    for (name, _) in bad {
        world.set(name, "");
    }
    let options = ["--cluster", "sandbox", "--profile", &profile, "--port", "0"];
    let status = world.run_ok(&[&["status"], &options[..]].concat()).stdout;
    assert!(status.contains("is not running"), "{status}");
}

#[test]
fn bash_completes_the_alias_as_it_completes_the_tool() {
    let world = World::sandbox();
    let script = world.run_ok(&["completions", "bash"]).stdout;
    let ask = r#"
COMP_WORDS=(cargo xtask lo); COMP_CWORD=2; _cargo_xtask cargo lo xtask; echo "${COMPREPLY[@]}"
COMP_WORDS=(cargo xtask up --clu); COMP_CWORD=3; _cargo_xtask cargo --clu up; echo "${COMPREPLY[@]}"
"#;
    let ran = std::process::Command::new("bash").args(["--norc", "-c", &format!("{script}{ask}")]).output();
    let ran = ran.expect("bash");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert_eq!(said, "load logs\n--cluster\n", "{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn help_of_each_command() {
    let world = World::sandbox();
    let mut text = String::new();
    for command in [
        "up",
        "load",
        "explain",
        "compare",
        "prove",
        "down",
        "logs",
        "wait",
        "completions",
        "weights fetch",
        "weights generate",
    ] {
        let args: Vec<&str> = command.split(' ').chain(["-h"]).collect();
        let help = world.run_ok(&args).stdout;
        let own = help.split("\nShared options:").next().unwrap_or_default();
        text.push_str(&format!("$ cargo xtask {command} -h\n{own}\n"));
    }
    insta::assert_snapshot!(text);
}
