//! Every state that a minikube profile can be in: what `up`, `status` and `smoke` make of it.

use std::time::{Duration, Instant};

use crate::world::{Ran, World, eventually};

/// The command that starts the world's cluster.
fn up(world: &World) -> String {
    format!("`cargo xtask up --cluster minikube --profile {} --port 0`", world.profile)
}

/// `status` says of its one gate, while no cluster runs, that it is closed, why, and how to have one.
#[track_caller]
fn closed(world: &World, why: &str) {
    let summary = world.run_ok(&["status", "--output", "json"]).summary();
    let detail = format!("{why}; {} starts it", up(world));
    assert_eq!(summary["ready"], false);
    assert_eq!(
        summary["gates"],
        serde_json::json!([{"name": "cluster", "state": "closed", "detail": detail}])
    );
}

/// A command that needs a running cluster refuses for this reason, and says how to have one.
#[track_caller]
fn refuses(world: &World, ran: &Ran, why: &str) {
    assert_eq!(ran.code, 10, "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("error: {why}\n")), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("hint: start it with {}", up(world))), "{}", ran.stderr);
}

/// The tool's own calls of minikube that change something.
fn changes(world: &World) -> Vec<String> {
    let calls = world.calls().into_iter().map(|(call, _)| call);
    calls
        .filter(|call| ["start", "addons", "delete", "load"].iter().any(|word| call.contains(word)))
        .collect()
}

#[test]
fn a_missing_profile() {
    let world = World::minikube();
    let why = format!("there is no minikube profile `{}`", world.profile);
    closed(&world, &why);
    refuses(&world, &world.run(&["smoke"]), &why);
    assert_eq!(changes(&world), [""; 0]);
}

#[test]
fn a_paused_profile_is_resumed_by_up_alone() {
    let world = World::minikube();
    world.run_ok(&["up"]);
    assert_eq!(world.minikube_itself(&["pause"]).code, 0);
    let why = format!("the minikube profile `{}` is paused", world.profile);
    closed(&world, &why);
    refuses(&world, &world.run(&["smoke"]), &why);
    let up = world.run_ok(&["up"]);
    assert!(up.stderr.contains(&format!("profile {} started, entry", world.profile)), "{}", up.stderr);
    world.run_ok(&["smoke"]);
}

#[test]
fn a_stopped_profile_is_started_as_it_was_made() {
    let world = World::minikube();
    world.run_ok(&["up"]);
    assert_eq!(world.minikube_itself(&["stop"]).code, 0);
    let why = format!("the minikube profile `{}` is stopped", world.profile);
    closed(&world, &why);
    refuses(&world, &world.run(&["smoke"]), &why);
    let before = changes(&world).len();
    world.run_ok(&["up"]);
    // Said to a profile that is there, a container runtime would change it.
    let start =
        format!("minikube --profile {} start --wait=all --interactive=false --output=json", world.profile);
    assert_eq!(changes(&world)[before..], [start], "the addons are in the profile, and were started with it");
}

#[test]
fn an_addon_of_a_stopped_profile_is_on_once_its_objects_are_there() {
    let world = World::minikube();
    world.run_ok(&["up"]);
    world.minikube_itself(&["stop"]);
    // The profile's own word is not enough, and neither are the objects: two `addons enable` at once lose one so.
    let addons = world.minikube_home().join("addons");
    std::fs::write(&addons, "default-storageclass\ningress\nstorage-provisioner\n")
        .expect("writing the profile");
    let before = changes(&world).len();
    world.run_ok(&["up"]);
    let enable = format!("minikube --profile {} addons enable metrics-server", world.profile);
    assert_eq!(changes(&world)[before + 1..], [enable]);
    let addons = std::fs::read_to_string(&addons).expect("the profile");
    assert!(addons.contains("ingress\nmetrics-server\n"), "{addons}");
}

#[test]
fn a_start_that_fails_in_kubeadm_leaves_a_profile_that_is_incomplete() {
    let mut world = World::minikube();
    world.set("STAND_IN_FAIL_START", "GUEST_START");
    let ran = world.run(&["up"]);
    assert_eq!(ran.code, 20, "{}", ran.stderr);
    let cause = format!("starting the minikube profile {}: GUEST_START: failed to start node", world.profile);
    assert!(ran.stderr.contains(&cause), "{}", ran.stderr);
    assert!(ran.stderr.contains("[ERROR ImagePull]: failed to pull image"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("To pull new external images, you may need to configure a proxy"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains(&format!("hint: `minikube delete --profile {}`", world.profile)),
        "{}",
        ran.stderr
    );
    for noise in ["specversion", "\u{1b}", "╭", "please let us know"] {
        assert!(!ran.stderr.contains(noise), "{noise:?} in {}", ran.stderr);
    }
    let live: Vec<_> = ran.stderr.lines().filter(|line| line.contains("…")).collect();
    assert!(!live.iter().any(|line| line.contains("configure a proxy")), "advice is no live line: {live:?}");

    let parts = "its host is Running, its kubelet Stopped, its API server Stopped";
    let why = format!("the minikube profile `{}` is incomplete: {parts}", world.profile);
    closed(&world, &why);
    refuses(&world, &world.run(&["smoke"]), &why);
    world.set("STAND_IN_FAIL_START", "");
    world.run_ok(&["up"]);
}

#[test]
fn a_start_that_fails_in_the_container_engine_leaves_a_profile_without_a_node() {
    let mut world = World::minikube();
    world.set("STAND_IN_FAIL_START", "GUEST_PROVISION");
    let ran = world.run(&["up", "--output", "json"]);
    assert_eq!(ran.code, 20, "{}", ran.stderr);
    let summary = ran.summary();
    let error = summary["error"].as_str().expect("an error");
    assert!(error.contains("GUEST_PROVISION: error provisioning guest: Failed to start host"), "{error}");
    assert!(error.contains("docker: Error response from daemon: failed to create task"), "{error}");
    let why = format!("the minikube profile `{}` is incomplete: its node is gone", world.profile);
    closed(&world, &why);
    refuses(&world, &world.run(&["smoke"]), &why);
}

#[test]
fn an_api_server_that_is_dead_while_minikube_lists_the_profile_as_well_is_the_gates_to_tell() {
    let world = World::minikube();
    world.run_ok(&["up"]);
    let holder =
        std::fs::read_to_string(world.minikube_home().join("cluster/lock")).expect("who holds the lock");
    let pid = rustix::process::Pid::from_raw(holder.trim().parse().expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killing the API server");
    eventually("the API server is gone", Duration::from_secs(10), || {
        rustix::process::test_kill_process(pid).is_err()
    });

    let up = world.run(&["up", "--timeout", "8s", "--output", "json"]);
    assert_eq!(up.code, 31, "{}", up.stderr);
    let waits = up.events();
    let gate = waits.iter().rfind(|event| event["event"] == "gate").expect("a gate");
    assert_eq!(gate["name"], "cluster");
    let words = waits.iter().filter(|event| event["event"] == "gate" && event["state"] == "wait");
    let words: Vec<_> = words.filter_map(|event| event["detail"].as_str()).collect();
    assert!(
        words
            .iter()
            .any(|words| words.contains("the API server does not answer") && words.contains("refused")),
        "{words:?}"
    );

    let status = world.run_ok(&["status", "--output", "json"]).summary();
    assert_eq!(status["ready"], false);
    let smoke = world.run(&["smoke"]);
    assert_eq!(smoke.code, 20, "{}", smoke.stderr);
    assert!(smoke.stderr.contains("refused"), "{}", smoke.stderr);
}

/// A step in the middle of a command is stopped like everything else.
#[test]
fn a_profile_that_is_stopped_or_deleted_under_a_run_ends_it_at_once() {
    for (how, why) in [("stop", "is stopped"), ("delete", "there is no minikube profile")] {
        let mut world = World::minikube();
        let hold = world.scratch().join("hold");
        std::fs::create_dir(&hold).expect("making the folder");
        let fifo = hold.join("metrics-server");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("running mkfifo").success());
        world.set("STAND_IN_HOLD", hold.display());
        let out = world.scratch().join("up.jsonl");
        let mut up = world.start(&["up", "--output", "json"], &out);
        eventually("an addon is being enabled", Duration::from_secs(60), || {
            world.calls().iter().any(|(call, _)| call.contains("addons enable metrics-server"))
        });
        let ended = world.minikube_itself(&[how]);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let gone = Instant::now();
        let code = up.code();
        let said = std::fs::read_to_string(&out).expect("what it said");
        // Two seconds, and some for a busy machine.
        assert!(gone.elapsed() < Duration::from_secs(5), "{:?}\n{said}", gone.elapsed());
        assert_eq!(code, Some(30), "{said}");
        let last = said.lines().last().expect("a summary");
        assert!(last.contains("the cluster has gone: ") && last.contains(why), "{last}");
    }
}
