//! Each fault that the sandbox can be told to have: the pipeline gets through it, or fails at the right gate, with the
//! right exit code and the cause in its words.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Ran, World, eventually, explained_elsewhere};

/// A cluster that is up, and may be told to have faults.
fn up() -> World {
    let mut world = World::sandbox();
    world.set("SANDBOX_FAULTS", "true");
    world.run_ok(&["up"]);
    world
}

fn ask(world: &World, what: &str) -> Ran {
    Ran::of(&mut world.sandbox_itself("fault", &[what]))
}

fn tell(world: &World, what: &str) -> String {
    let ran = ask(world, what);
    assert_eq!(ran.code, 0, "{what}: {}", ran.stderr);
    ran.stdout
}

fn fault(world: &World, fault: &Value) {
    tell(world, &fault.to_string());
}

fn clear(world: &World) {
    tell(world, "clear");
}

fn pods(world: &World) -> Vec<String> {
    let app = "app.kubernetes.io/name=simple-model-api";
    let ran = world.kubectl(&["get", "pods", "-l", app, "-o", "jsonpath={.items[*].metadata.name}"]);
    ran.stdout.split_whitespace().map(str::to_owned).collect()
}

/// The events of a step or gate in a state.
fn events(ran: &Ran, name: &str, state: &str) -> Vec<Value> {
    let wanted = |event: &Value| event["name"] == name && event["state"] == state;
    ran.events().into_iter().filter(wanted).collect()
}

/// All that was said while a gate waited.
fn waits(ran: &Ran, gate: &str) -> String {
    let details: Vec<_> = events(ran, gate, "wait")
        .iter()
        .map(|event| event["detail"].as_str().unwrap_or_default().to_owned())
        .collect();
    details.join("\n")
}

fn seconds(ran: &Ran, name: &str, state: &str) -> f64 {
    let events = events(ran, name, state);
    let event = events.last().unwrap_or_else(|| panic!("no {state} of {name}:\n{}", ran.stdout));
    event["at_seconds"].as_f64().expect("a time")
}

/// Ran out of the time that was given, in the middle of `gate`, which said `why` meanwhile.
#[track_caller]
fn held_up(ran: &Ran, gate: &str, why: &str) {
    assert_eq!(ran.code, 31, "{}\n{}", ran.stdout, ran.stderr);
    let error = ran.summary()["error"].as_str().unwrap_or_default().to_owned();
    assert!(error.contains(gate), "{error}");
    let waits = waits(ran, gate);
    assert!(waits.contains(why), "`{why}` was not said at {gate}:\n{waits}");
    explained(ran, &[" expired while waiting for ", &format!("gate {gate}: "), why]);
}

/// What `explain` says of a run that failed, from its folder alone, and that its report says so too.
#[track_caller]
fn explained(ran: &Ran, words: &[&str]) {
    let summary = ran.summary();
    explained_elsewhere(Path::new(summary["run"].as_str().expect("a run")), 0, words);
    let report = std::fs::read_to_string(summary["report"].as_str().expect("a page")).expect("a report");
    assert!(report.contains("What went wrong"), "{report}");
}

#[test]
fn without_permission_there_are_no_faults() {
    let world = World::sandbox();
    world.run_ok(&["up"]);
    let ran = ask(&world, "list");
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("was started without --faults"), "{}", ran.stderr);
}

#[test]
fn an_api_server_that_stumbles_is_got_through() {
    let world = up();
    let nonsense = ask(&world, r#"{"fault":"earthquake"}"#);
    assert!(nonsense.stderr.contains("this is no fault"), "{}", nonsense.stderr);

    // Lists and watches of pods are refused three times.
    for verb in ["list", "watch"] {
        fault(
            &world,
            &json!({"fault": "api", "resources": ["pods"], "verbs": [verb], "effect": {"answer": 503},
                "times": 3}),
        );
    }
    world.run_ok(&["redeploy"]);

    // A watch whose version is forgotten, and answers that take a third of a second.
    fault(
        &world,
        &json!({"fault": "api", "resources": ["deployments"], "verbs": ["watch"], "effect": {"answer": 410},
            "times": 1}),
    );
    fault(
        &world,
        &json!({"fault": "api", "verbs": ["get", "list"], "effect": {"delay_ms": 300}, "seconds": 5}),
    );
    world.run_ok(&["redeploy"]);

    // Watches that hear nothing for three seconds, and then all of it.
    fault(
        &world,
        &json!({"fault": "api", "resources": ["pods"], "verbs": ["watch"], "effect": "hold", "seconds": 3}),
    );
    world.run_ok(&["redeploy"]);

    // Watches that are cut again and again while a rollout is waited for.
    let mut child = world
        .command(&["redeploy", "--output", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starting the tool");
    let lines = BufReader::new(child.stdout.take().expect("stdout")).lines().map_while(Result::ok);
    let mut cuts = 0;
    for line in lines.filter(|line| line.contains(r#""name":"rollout""#)) {
        if !line.contains(r#""state":"done""#) {
            fault(&world, &json!({"fault": "cut-watches"}));
            cuts += 1;
        }
    }
    assert!(child.wait().expect("waiting for the tool").success());
    assert!(cuts > 0, "nothing was waited for");
}

#[test]
fn an_api_server_that_stays_sick_is_named_as_the_cause() {
    let world = up();
    fault(
        &world,
        &json!({"fault": "api", "resources": ["pods"], "verbs": ["list"], "effect": {"answer": 503}}),
    );
    let ran = world.run(&["redeploy", "--output", "json", "--timeout", "8s"]);
    held_up(&ran, "rollout", "the API server does not answer for pods");
    clear(&world);

    // A step says what it could not do.
    fault(
        &world,
        &json!({"fault": "api", "resources": ["configmaps"], "verbs": ["patch"], "effect": {"answer": 500}}),
    );
    let ran = world.run(&["redeploy", "--output", "json"]);
    assert_eq!(ran.code, 20, "{}", ran.stdout);
    let error = ran.summary()["error"].as_str().unwrap_or_default().to_owned();
    assert!(
        error.contains("configmap/simple-model-api-config") && error.contains("a fault on purpose"),
        "{error}"
    );
    explained(&ran, &["✗ step apply failed: ", "a fault on purpose"]);
    clear(&world);

    // Silence is waited for, and ends with the time that was given.
    fault(&world, &json!({"fault": "api", "resources": ["/readyz"], "effect": "hang"}));
    let ran = world.run(&["up", "--output", "json", "--timeout", "4s"]);
    assert_eq!(ran.code, 31, "{}", ran.stdout);
    assert!(ran.took < Duration::from_secs(7), "{:?}", ran.took);
    explained(&ran, &["--timeout 4s expired while waiting for cluster"]);
    clear(&world);
    world.run_ok(&["up"]);
}

/// A metrics server that takes its time holds up the autoscaler and nothing else, and the table says so.
#[test]
fn route_and_smoke_do_not_wait_for_metrics() {
    let world = up();
    let slow = Duration::from_secs(4);
    fault(
        &world,
        &json!({"fault": "api", "resources": ["apiservices"], "verbs": ["list"],
            "effect": {"delay_ms": slow.as_millis()}}),
    );
    let ran = world.run_ok(&["up", "--output", "json"]);
    let metrics = seconds(&ran, "metrics", "already");
    assert!(metrics > slow.as_secs_f64(), "metrics were not held up:\n{}", ran.stdout);
    for beside in ["route", "smoke", "settled"] {
        let state = if beside == "smoke" { "done" } else { "already" };
        assert!(seconds(&ran, beside, state) < metrics, "{beside} waited for metrics:\n{}", ran.stdout);
    }
    let waited_for = |name: &str| {
        let steps = ran.summary()["steps"].as_array().expect("steps").clone();
        steps.into_iter().find(|step| step["name"] == name).expect(name)["waited_for"].clone()
    };
    for (name, wanted) in [
        ("route", json!(["rollout"])),
        ("smoke", json!(["rollout"])),
        ("settled", json!(["rollout"])),
        ("autoscaler", json!(["rollout", "metrics"])),
        ("apply", json!(["image-id", "ingress-lease", "ingress-controller"])),
    ] {
        assert_eq!(waited_for(name), wanted, "{name}");
    }
    let path = ran.summary()["critical_path"].clone();
    assert_eq!(path, json!(["preflight", "cluster", "cluster", "metrics", "metrics", "autoscaler"]));
}

/// Nobody waits for a cluster whose process has ended, whatever is under way.
#[test]
fn a_cluster_that_has_gone_ends_a_gate_at_once() {
    let world = up();
    fault(
        &world,
        &json!({"fault": "api", "resources": ["pods"], "verbs": ["list"], "effect": {"answer": 503}}),
    );
    let mut child = world
        .command(&["redeploy", "--output", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starting the tool");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains(r#""name":"rollout","state":"start""#)), "no gate began");
    let info = std::fs::read_to_string(world.home().join("sandbox.json")).expect("sandbox.json");
    let info: Value = serde_json::from_str(&info).expect("JSON");
    let killed = std::process::Command::new("kill").args(["-9", &info["pid"].to_string()]).status();
    assert!(killed.expect("kill").success());
    let died = std::time::Instant::now();
    let summary = lines.last().expect("a summary");
    let code = child.wait().expect("waiting for the tool").code();
    // Two seconds, and some for a busy machine.
    assert!(died.elapsed() < Duration::from_secs(4), "{:?}", died.elapsed());
    assert_eq!(code, Some(30), "{summary}");
    assert!(summary.contains("the cluster has gone: the process of the sandbox"), "{summary}");
    assert!(summary.contains("starts it again"), "{summary}");
    let summary: Value = serde_json::from_str(&summary).expect("JSON");
    let gone = ["✗ redeploy failed: the cluster has gone: the process of the sandbox", "starts it again"];
    explained_elsewhere(Path::new(summary["run"].as_str().expect("a run")), 0, &gone);
}

#[test]
fn a_lease_that_is_not_renewed_keeps_its_gate_closed() {
    let world = up();
    fault(
        &world,
        &json!({"fault": "api", "resources": ["leases"], "verbs": ["create", "update"],
            "namespace": "ingress-nginx", "effect": {"answer": 503}}),
    );
    // It holds until its duration is over.
    eventually("the lease runs out", Duration::from_secs(20), || {
        let status = world.run_ok(&["status", "--output", "json"]).summary();
        let gates = status["gates"].as_array().expect("gates").clone();
        gates.iter().any(|gate| gate["name"] == "ingress-lease" && gate["state"] == "closed")
    });
    let ran = world.run(&["up", "--output", "json", "--timeout", "5s"]);
    held_up(&ran, "ingress-lease", "renewed");
    clear(&world);
    world.run_ok(&["up"]);
}

#[test]
fn a_broken_proxy_keeps_the_route_closed_and_is_told_apart() {
    let world = up();
    for (answer, why) in [
        ("bad-gateway", "502"),
        ("close", "the connection broke"),
        ("refuse", "nothing listens at the entry"),
    ] {
        fault(&world, &json!({"fault": "proxy", "answer": answer}));
        let entry = world.run_ok(&["status", "--output", "json"]).summary()["entry"]
            .as_str()
            .expect("entry")
            .to_owned();
        let address = entry.trim_start_matches("http://").to_owned();
        eventually("the fault has reached the proxy", Duration::from_secs(5), || !is_healthy(&address));
        let ran = world.run(&["up", "--output", "json", "--timeout", "6s"]);
        held_up(&ran, "route", why);
    }
    clear(&world);
    world.run_ok(&["up"]);
}

/// Whether the app answers 200 by the entry.
fn is_healthy(address: &str) -> bool {
    use std::io::{Read as _, Write as _};
    let ask = || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(
            b"GET /health HTTP/1.1\r\nHost: simple-model-api.local\r\nConnection: close\r\n\r\n",
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

#[test]
fn a_killed_pod_is_waited_for() {
    let world = up();
    let pod = pods(&world).pop().expect("a pod");
    let restarts = || {
        let format = "jsonpath={.status.containerStatuses[0].restartCount}";
        world.kubectl(&["get", "pod", &pod, "-o", format]).stdout
    };
    assert_eq!(restarts(), "0");
    fault(&world, &json!({"fault": "kill", "namespace": "default", "pod": pod}));
    eventually("the node sees it end", Duration::from_secs(5), || restarts() == "1");
    let ran = world.run_ok(&["up", "--output", "json"]);
    assert!(!events(&ran, "rollout", "done").is_empty() || !events(&ran, "rollout", "already").is_empty());
    let ran = ask(&world, &json!({"fault": "kill", "namespace": "default", "pod": "nobody"}).to_string());
    assert!(ran.stderr.contains("no container of pod default/nobody runs here"), "{}", ran.stderr);
}

#[test]
fn a_doomed_rollout_is_called_so_within_five_seconds() {
    let world = up();
    for (answer, reason) in
        [("never", "ErrImageNeverPull"), ("not-found", "not found (the sandbox has no registry")]
    {
        fault(&world, &json!({"fault": "refuse-image", "image": "simple-model-api", "answer": answer}));
        let ran = world.run(&["redeploy", "--output", "json"]);
        assert_eq!(ran.code, 30, "{}\n{}", ran.stdout, ran.stderr);
        let summary = ran.summary();
        let error = summary["error"].as_str().unwrap_or_default();
        assert!(error.starts_with("gate rollout: ") && error.contains(reason), "{error}");
        let evidence = summary["evidence"].to_string();
        assert!(
            evidence.contains("conditions of deployment/") && evidence.contains("last warnings"),
            "{evidence}"
        );
        // The new pods come, and the sign with them, within a moment of the restart.
        let took = seconds(&ran, "rollout", "failed") - seconds(&ran, "rollout", "start");
        assert!(took < 5.0, "{answer}: {took:.1} s");
        explained(&ran, &["✗ gate rollout failed: ", reason, "last warnings", "critical path: "]);
        clear(&world);
        world.run_ok(&["redeploy"]);
    }

    // A policy of the cluster's: the API server makes no pod.
    let rules =
        json!([{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]);
    let webhook = json!({"name": "policy.test", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": refusing("no pods on a Friday")}, "rules": rules});
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "policy"},
        "kind": "ValidatingWebhookConfiguration", "webhooks": [webhook]});
    let file = world.scratch().join("policy.json");
    std::fs::write(&file, policy.to_string()).expect("writing");
    let ran = world.kubectl(&["apply", "-f", &file.display().to_string()]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let ran = world.run(&["redeploy", "--output", "json"]);
    assert_eq!(ran.code, 30, "{}\n{}", ran.stdout, ran.stderr);
    let why = "✗ gate rollout failed: the API refuses to make a pod: ";
    explained(&ran, &[why, "\"policy.test\" denied the request: no pods on a Friday", "raise the quota"]);
}

/// The address of a webhook that refuses whatever it is asked, and says why.
fn refusing(why: &str) -> String {
    let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": {"allowed": false, "status": {"message": why}}})
    .to_string();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its number");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = BufReader::new(stream.try_clone().expect("the same connection"));
            let (mut line, mut length) = (String::new(), 0);
            while request.read_line(&mut line).is_ok_and(|read| read > 2) {
                let (name, value) = line.trim().split_once(": ").unwrap_or_default();
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.parse().expect("a length");
                }
                line.clear();
            }
            std::io::copy(&mut request.take(length), &mut std::io::sink()).expect("the review");
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
            let _ = write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
        }
    });
    format!("http://{address}/")
}

#[test]
fn a_slow_start_is_no_failure() {
    let world = up();
    fault(&world, &json!({"fault": "fail-probes", "namespace": "default", "seconds": 20}));
    let ran = world.run_ok(&["redeploy", "--output", "json"]);
    assert!(ran.took > Duration::from_secs(18), "{:?}", ran.took);
    assert!(waits(&ran, "rollout").contains("startup probe"), "{}", waits(&ran, "rollout"));
    let run = ran.summary()["run"].as_str().expect("a run").to_owned();
    explained_elsewhere(Path::new(&run), 0, &["✓ redeploy: done in ", "critical path: ", "gate rollout "]);
    let alarms =
        ran.events().into_iter().filter(|event| event["event"] == "warning" && event["name"] == "rollout");
    assert_eq!(alarms.collect::<Vec<_>>(), [Value::Null; 0], "a slow start is no bad sign");
}

#[test]
fn pods_that_are_gone_make_answers_slow_where_a_node_drops_what_comes_for_them() {
    let mut world = World::sandbox();
    world.set("SANDBOX_FAULTS", "true");
    let manifests = world.own_workspace().join("kubernetes");
    let edit = |name: &str, from: &str, to: &str| {
        let text = std::fs::read_to_string(manifests.join(name)).expect("reading the manifest");
        assert!(text.contains(from), "{name} has no {from}");
        std::fs::write(manifests.join(name), text.replace(from, to)).expect("writing it");
    };
    // The proxy tries for a second before it asks another pod; the pause that is put back at the end is short.
    edit("70-ingress.yaml", "proxy-connect-timeout: \"5\"", "proxy-connect-timeout: \"1\"");
    edit("30-deployment.yaml", "seconds: 5", "seconds: 1");
    world.run_ok(&["up"]);
    fault(&world, &json!({"fault": "black-hole"}));

    let load = ["load", "--get", "/health", "--rate", "20", "--duration", "20", "--without", "pre-stop"];
    let ran = world.run(&[&load[..], &["--output", "json"]].concat());
    // Where three tries in a row met pods that were gone, the request failed.
    assert!([0, 40, 41].contains(&ran.code), "{}\n{}", ran.stdout, ran.stderr);
    let summary = ran.summary();
    let groups = summary["slow"]["groups"].as_array().expect("groups");
    let lost = groups.iter().find(|group| group["mechanism"] == "shutdown-race").expect("lost tries");
    assert!(lost["parts_ms"]["lost_tries"].as_f64().is_some_and(|ms| ms >= 1000.0), "{lost}");
    assert!(lost["fix"].as_str().is_some_and(|fix| fix.contains("`pre-stop` prevents it")), "{lost}");
    let in_groups: u64 = groups.iter().filter_map(|group| group["count"].as_u64()).sum();
    assert_eq!(Some(in_groups), summary["slow"]["count"].as_u64(), "{summary}");

    let run = summary["run"].as_str().expect("a run");
    let text = world.run_ok(&["explain", run, "--slow", "900ms"]).stdout;
    for part in ["ms lost tries", "shutdown race: the pod closed", "told to stop at ", ": gone from "] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
