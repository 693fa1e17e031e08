//! The minikube path, against stand-ins that log how they are called and put a sandbox behind their context.

use crate::world::World;

/// `step` must not start before `gate` has opened.
const ORDER: [(&str, &str); 12] = [
    ("preflight", "cluster"),
    ("cluster", "ingress"),
    ("cluster", "metrics"),
    ("cluster", "image"),
    ("weights", "image"),
    ("ingress-lease", "apply"),
    ("ingress-controller", "apply"),
    ("image-id", "apply"),
    ("apply", "restart"),
    ("rollout", "route"),
    ("rollout", "smoke"),
    ("metrics", "autoscaler"),
];

#[test]
fn up_runs_the_exact_commands_in_order_and_no_step_before_its_gate() {
    let mut world = World::minikube();
    world.set("DOCKER_HOST", "tcp://somewhere-else:1");
    world.set("KUBECONFIG", "/nonexistent/ambient");
    let up = world.run_ok(&["up", "--output", "json"]);
    let profile = &world.profile;

    // The branches run side by side, so each chain of commands is held to its own order.
    let calls = world.calls();
    let lines: Vec<&str> = calls.iter().map(|(call, _)| call.as_str()).collect();
    let summary = up.summary();
    let tag = summary["image"].as_str().expect("the image in the summary");
    let chain = |wanted: &[String]| {
        let mut rest = lines.iter();
        for want in wanted {
            assert!(rest.any(|line| line == want), "missing or out of order: {want}\nin {lines:#?}");
        }
    };
    let minikube = |args: &str| format!("minikube --profile {profile} {args}");
    let start = minikube("start --container-runtime=docker --wait=all --interactive=false --output=json");
    let inspect = format!("docker image inspect --format {{{{.Id}}}} {tag}");
    let before = [
        "docker version --format {{.Server.Version}}".to_owned(),
        minikube("profile list --output=json"),
        start,
        minikube("ip"),
    ];
    let after = |more: &[String]| [&before[..], more].concat();
    chain(&after(&[minikube("addons enable ingress")]));
    chain(&after(&[minikube("addons enable metrics-server")]));
    let build =
        lines.iter().find(|line| line.starts_with(&format!("docker build --tag {tag} "))).expect("a build");
    chain(&after(&[minikube("docker-env --output=json"), inspect.clone(), (*build).to_owned(), inspect]));
    for once in ["start", "addons enable ingress", "addons enable metrics-server"] {
        assert_eq!(
            lines.iter().filter(|line| line.contains(&format!("{profile} {once}"))).count(),
            1,
            "{once}"
        );
    }

    // docker-env reaches docker's own children of the image step alone; the ambient settings reach nobody.
    for (call, env) in &calls {
        assert!(!env.contains("somewhere-else") && !env.contains("/nonexistent"), "{call}: {env}");
        let wants_engine = call.starts_with("docker build") || call.starts_with("docker image");
        assert_eq!(env.contains("DOCKER_HOST=tcp://stand-in:2376"), wants_engine, "{call}: {env}");
        assert_eq!(env.contains("BUILDX_BUILDER=default"), wants_engine, "{call}: {env}");
        assert_eq!(env.contains("KUBECONFIG="), call.starts_with("minikube"), "{call}: {env}");
    }

    assert_order(&summary);
    assert_eq!(summary["context"], profile.as_str());

    let again = world.run_ok(&["up", "--output", "json"]);
    for step in again.summary()["steps"].as_array().expect("steps") {
        assert_eq!(step["state"], "already", "{step}");
    }

    let down = world.run_ok(&["down"]);
    assert!(down.stderr.contains("objects removed"), "{}", down.stderr);
    let left = world.kubectl(&[
        "get",
        "deploy,svc,ingress,hpa",
        "-l",
        "app.kubernetes.io/name=simple-model-api",
        "-o",
        "name",
    ]);
    assert_eq!(left.stdout, "", "{}", left.stderr);
    world.run_ok(&["down", "--delete"]);
    assert_eq!(world.calls().last().map(|(call, _)| call.clone()), Some(minikube("delete")));
}

/// Starts and ends as the summary tells them.
pub(crate) fn assert_order(summary: &serde_json::Value) {
    let spans = summary["steps"].as_array().expect("steps");
    // A step and its gate may share a name: the step's start, the gate's end.
    let at = |name: &str, last: bool| {
        let mut found = spans.iter().filter(|span| span["name"] == name);
        let span = if last { found.next_back() } else { found.next() };
        let span = span.unwrap_or_else(|| panic!("{name} did not run: {summary}"));
        let start = span["start_seconds"].as_f64().expect("start");
        (start, start + span["seconds"].as_f64().expect("seconds"))
    };
    for (gate, step) in ORDER {
        let (opened, started) = (at(gate, true).1, at(step, step == "metrics").0);
        // Both are rounded to a millisecond.
        assert!(opened <= started + 0.002, "{step} started at {started}, before {gate} opened at {opened}");
    }
}

#[test]
fn a_profile_with_another_runtime_is_refused_with_the_fix() {
    let mut world = World::minikube();
    world.run_ok(&["up"]);
    world.set("STAND_IN_RUNTIME", "containerd");
    let ran = world.run(&["up"]);
    assert_eq!(ran.code, 10, "{}", ran.stderr);
    assert!(ran.stderr.contains("runs containerd; building inside the node needs docker"), "{}", ran.stderr);
    assert!(ran.stderr.contains("minikube delete --profile"), "{}", ran.stderr);
}

#[test]
fn a_failed_start_is_a_failed_step_with_minikubes_words() {
    let mut world = World::minikube();
    world.set("STAND_IN_FAIL_START", "GUEST_PROVISION");
    let ran = world.run(&["up"]);
    assert_eq!(ran.code, 20, "{}", ran.stderr);
    assert!(ran.stderr.contains("GUEST_PROVISION") && ran.stderr.contains("hint:"), "{}", ran.stderr);
    assert!(!world.calls().iter().any(|(call, _)| call.contains("addons")), "nothing after the failed start");
}

#[test]
fn an_image_that_the_node_never_got_is_noticed() {
    let mut world = World::minikube();
    world.set("STAND_IN_LOSE_IMAGE", "1");
    let ran = world.run(&["up"]);
    assert_eq!(ran.code, 20, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("the build succeeded, but minikube's docker daemon has no image"),
        "{}",
        ran.stderr
    );
}
