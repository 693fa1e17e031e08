//! The minikube path, against stand-ins that log how they are called and put a sandbox behind their context.

use std::time::Duration;

use crate::world::{World, eventually};

/// `step` must not start before `gate` has opened.
const ORDER: [(&str, &str); 11] = [
    ("preflight", "cluster"),
    ("cluster", "ingress"),
    ("cluster", "metrics"),
    ("cluster", "image"),
    ("weights", "image"),
    ("compile", "image"),
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
    chain(&after(&[
        minikube("docker-env --shell=none --output=json"),
        inspect.clone(),
        (*build).to_owned(),
        inspect,
    ]));
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
        assert_eq!(env.contains("DOCKER_HOST=tcp://192.168.49.2:2376"), wants_engine, "{call}: {env}");
        assert_eq!(env.contains("BUILDX_BUILDER=default"), wants_engine, "{call}: {env}");
        assert_eq!(env.contains("KUBECONFIG="), call.starts_with("minikube"), "{call}: {env}");
    }

    assert_order(&summary);
    assert_eq!(summary["context"], profile.as_str());

    finds_all_done(&world);

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
    // The app is compiled while the cluster starts, and all is applied but for the Ingress while its controller does.
    assert!(at("compile", false).0 < at("cluster", false).1, "compiled only when the cluster ran: {summary}");
    for gate in ["ingress-lease", "ingress-controller"] {
        let (opened, applied) = (at(gate, true).1, at("apply", true).1);
        assert!(opened <= applied + 0.002, "the Ingress was applied at {applied}, before {gate} at {opened}");
    }
}

/// Another `up` has nothing to do.
#[track_caller]
fn finds_all_done(world: &World) {
    let again = world.run_ok(&["up", "--output", "json"]);
    for step in again.summary()["steps"].as_array().expect("steps") {
        // The smoke test looks each time.
        assert_eq!(step["state"], if step["name"] == "smoke" { "done" } else { "already" }, "{step}");
    }
}

/// Into a node without a docker daemon the image goes as an archive.
fn by_archive(runtime: &str) {
    let mut world = World::minikube();
    world.set("STAND_IN_RUNTIME", runtime);
    world.minikube_itself(&["start"]);
    world.set("STAND_IN_LOSE_IMAGE", "1");
    let ran = world.run(&["up"]);
    assert_eq!(ran.code, 20, "{}", ran.stderr);
    let lost = format!(
        "`minikube image load` succeeded, but the node, which runs {runtime}, has no image simple-model-api:"
    );
    assert!(ran.stderr.contains(&lost), "{}", ran.stderr);

    world.set("STAND_IN_LOSE_IMAGE", "");
    let before = world.calls().len();
    let up = world.run_ok(&["up", "--output", "json"]);
    let calls: Vec<_> = world.calls().split_off(before).into_iter().map(|(call, _)| call).collect();
    let minikube = |args: &str| format!("minikube --profile {} {args}", world.profile);
    let load = minikube(&format!("image load {}", world.folder().join("image.tar").display()));
    let image: Vec<_> =
        calls.iter().filter(|call| call.contains(" image ") || call.contains("docker")).collect();
    let list = minikube("image ls --format=json");
    assert_eq!(
        image,
        [&"docker version --format {{.Server.Version}}".to_owned(), &list, &load, &list, &list]
    );
    // Said to a profile that is there, a container runtime would change it.
    assert!(!calls.iter().any(|call| call.contains(" start ")), "{calls:?}");

    let tag = up.summary()["image"].as_str().expect("the image in the summary").to_owned();
    let ids = [
        "get",
        "pods",
        "-l",
        "app.kubernetes.io/name=simple-model-api",
        "-o",
        "jsonpath={.items[*].status.containerStatuses[0].imageID}",
    ];
    let ids = world.kubectl(&ids).stdout;
    let images = std::fs::read_to_string(world.minikube_home().join("images")).expect("the node's images");
    let (config, _) = images
        .lines()
        .find_map(|line| line.split_once(' ').filter(|(_, name)| *name == tag))
        .expect("the image");
    assert!(
        ids.split_whitespace().count() >= 3 && ids.split_whitespace().all(|id| id.ends_with(config)),
        "{ids}"
    );

    finds_all_done(&world);
    let plan = world.run_ok(&["up", "--dry-run"]).stdout;
    assert!(plan.contains(&format!("{load}\n")) && !plan.contains("docker build"), "{plan}");
}

#[test]
fn a_profile_on_containerd_is_used() {
    by_archive("containerd");
}

#[test]
fn a_profile_on_cri_o_is_used() {
    by_archive("crio");
}

#[test]
fn a_profile_with_an_unknown_runtime_is_refused_with_the_fix() {
    let mut world = World::minikube();
    world.set("STAND_IN_RUNTIME", "kata");
    world.minikube_itself(&["start"]);
    let ran = world.run(&["up"]);
    assert_eq!(ran.code, 10, "{}", ran.stderr);
    assert!(ran.stderr.contains("runs kata; supported are docker, containerd and cri-o"), "{}", ran.stderr);
    assert!(ran.stderr.contains("hint: use another profile with --profile"), "{}", ran.stderr);
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

/// One answer of the stand-in, changed for one test.
fn with_answer(world: &mut World, name: &str, out: &str, err: &str, code: u8) {
    let from = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-ins");
    let to = world.scratch().join("stand-ins");
    let copied =
        std::process::Command::new("cp").args(["-R".as_ref(), from.as_os_str(), to.as_os_str()]).status();
    assert!(copied.expect("running cp").success());
    let answer = |kind: &str| to.join("answers").join(format!("{name}.{kind}"));
    std::fs::write(answer("out"), out).expect("writing");
    std::fs::write(answer("err"), err).expect("writing");
    std::fs::write(answer("code"), format!("{code}\n")).expect("writing");
    let path = std::env::var("PATH").unwrap_or_default();
    world.set("PATH", format!("{}:{path}", to.display()));
}

#[test]
fn an_answer_that_is_no_data_is_quoted() {
    let mut world = World::minikube();
    let lines = include_str!("../stand-ins/answers/running/docker-env_output-json.out");
    with_answer(
        &mut world,
        "running/docker-env_shell-none_output-json",
        lines,
        "! a warning of its own\n",
        0,
    );
    let ran = world.run(&["up"]);
    assert_eq!(ran.code, 20, "{}", ran.stderr);
    let quoted = format!(
        "minikube --profile {} docker-env --shell=none --output=json` printed no DOCKER_HOST as JSON: on \
         stdout \
         `export DOCKER_TLS_VERIFY=\"1\" export DOCKER_HOST",
        world.profile
    );
    assert!(ran.stderr.contains(&quoted), "{}", ran.stderr);
    assert!(ran.stderr.contains("on stderr `a warning of its own`"), "{}", ran.stderr);
}

#[test]
fn what_minikube_refuses_is_quoted() {
    let mut world = World::minikube();
    // As of a profile that is stopped between the look at it and the build.
    let said = include_str!("../stand-ins/answers/stopped/docker-env_shell-none_output-json.out");
    with_answer(&mut world, "running/docker-env_shell-none_output-json", said, "", 83);
    let ran = world.run(&["up"]);
    assert_eq!(ran.code, 20, "{}", ran.stderr);
    assert!(ran.stderr.contains("exited with code 83: false exit code 83"), "{}", ran.stderr);

    let said = include_str!("../stand-ins/answers/stopped/ip.out");
    with_answer(&mut world, "running/update-context", said, "", 83);
    let ran = world.run(&["smoke"]);
    assert_eq!(ran.code, 20, "{}", ran.stderr);
    let said = format!("The control-plane node {} host is not running: state=Stopped", world.profile);
    assert!(ran.stderr.contains(&said), "{}", ran.stderr);
}

#[test]
fn traefik_in_the_place_of_ingress_nginx_is_told_before_anything_is_changed() {
    let world = World::minikube();
    world.minikube_itself(&["start"]);
    world.minikube_itself(&["addons", "enable", "traefik"]);
    let before = world.calls().len();
    let ran = world.run(&["up"]);
    assert_eq!(ran.code, 10, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("has the addon traefik enabled and ingress-nginx (addon ingress) disabled"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("only ingress-nginx is supported"), "{}", ran.stderr);
    let fix = format!("hint: `minikube --profile {} addons disable traefik`", world.profile);
    assert!(ran.stderr.contains(&fix), "{}", ran.stderr);
    let calls: Vec<_> = world.calls().split_off(before).into_iter().map(|(call, _)| call).collect();
    assert!(
        calls.iter().all(|call| call.contains("version") || call.ends_with("profile list --output=json")),
        "{calls:?}"
    );
}

#[test]
fn addons_are_switched_on_one_at_a_time_the_quick_one_first_and_hold_up_nothing_else() {
    let mut world = World::minikube();
    let hold = world.scratch().join("hold");
    std::fs::create_dir(&hold).expect("making the folder");
    let fifo = hold.join("ingress");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("running mkfifo").success());
    world.set("STAND_IN_HOLD", hold.display());
    let out = world.scratch().join("up.jsonl");
    let mut up = world.start(&["up", "--output", "json"], &out);

    // minikube still verifies the ingress addon, whose objects are there: nothing waits for that but the end.
    let is_done = |name: &str| {
        std::fs::read_to_string(&out).unwrap_or_default().lines().any(|line| {
            let event: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
            event["name"] == name && (event["state"] == "done" || event["state"] == "already")
        })
    };
    eventually("route, smoke and the metrics gate pass", Duration::from_secs(300), || {
        ["route", "smoke", "metrics", "image-id"].iter().all(|name| is_done(name))
    });
    assert!(!is_done("ingress"), "it is held");
    let enabled: Vec<_> = world
        .calls()
        .into_iter()
        .filter_map(|(call, _)| call.split_once("addons enable ").map(|(_, addon)| addon.to_owned()))
        .collect();
    assert_eq!(enabled, ["metrics-server", "ingress"]);
    std::fs::write(&fifo, "go on\n").expect("writing to the FIFO");
    assert_eq!(up.code(), Some(0), "{}", std::fs::read_to_string(&out).unwrap_or_default());
    let addons = std::fs::read_to_string(world.minikube_home().join("addons")).expect("the profile");
    assert_eq!(addons, "default-storageclass\ningress\nmetrics-server\nstorage-provisioner\n");
}
