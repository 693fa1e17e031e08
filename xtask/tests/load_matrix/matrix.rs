//! Faults whose mechanism is known, put into the embedded cluster, against what the explainer says of each request that
//! failed: the confusion matrix, printed with `--nocapture`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::world::{World, eventually};

const APP: &str = "app.kubernetes.io/name=simple-model-api";

/// Injected mechanism → said mechanism → how many requests.
#[derive(Default)]
struct Matrix(BTreeMap<&'static str, BTreeMap<String, u64>>);

impl Matrix {
    /// Loads, does `inject` once a tenth of the load is done, and takes every failure as one of `mechanism`.
    #[track_caller]
    fn load(&mut self, world: &World, mechanism: &'static str, args: &[&str], inject: impl FnOnce()) {
        let mut child = world
            .command(&[&["load", "--output", "json"], args].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starting the tool");
        let mut inject = Some(inject);
        let mut summary = Value::Null;
        let lines = BufReader::new(child.stdout.take().expect("stdout")).lines().map_while(Result::ok);
        for line in lines {
            let event: Value = serde_json::from_str(&line).expect("an event");
            if event["event"] == "progress"
                && let Some(inject) = inject.take()
            {
                inject();
            }
            summary = event;
        }
        child.wait().expect("waiting for the tool");
        let failures = summary["failures"].as_array().unwrap_or_else(|| panic!("{mechanism}: {summary}"));
        assert!(!failures.is_empty(), "{mechanism}: nothing failed");
        let row = self.0.entry(mechanism).or_default();
        for failure in failures {
            let said = failure["mechanism"].as_str().expect("a verdict").to_owned();
            if said == "unexplained" {
                assert_ne!(failure["missing"], json!([]), "{failure}");
            } else {
                assert_ne!(failure["evidence"], json!([]), "{failure}");
            }
            *row.entry(said).or_default() += 1;
        }
    }

    #[allow(clippy::print_stdout)] // what it is for
    fn publish(&self) -> f64 {
        let (mut right, mut all) = (0, 0);
        println!("{:<20} {:>6}  said", "injected", "failed");
        for (injected, said) in &self.0 {
            let sum: u64 = said.values().sum();
            right += said.get(*injected).copied().unwrap_or(0);
            all += sum;
            let said: Vec<_> = said.iter().map(|(said, count)| format!("{said} {count}")).collect();
            println!("{injected:<20} {sum:>6}  {}", said.join(", "));
        }
        let share = right as f64 / f64::from(u32::try_from(all).expect("not so many")).max(1.0);
        println!("{right} of {all} right, {:.1} %", share * 100.0);
        share
    }
}

fn replace(file: &Path, changes: &[(&str, &str)]) {
    let mut text = std::fs::read_to_string(file).expect("reading a manifest");
    for (from, to) in changes {
        assert!(text.contains(from), "{from} in {}", file.display());
        text = text.replace(from, to);
    }
    std::fs::write(file, text).expect("writing it");
}

/// A cluster with small queues and quick probes, so that each fault shows soon.
fn up() -> World {
    let mut world = World::sandbox();
    world.set("XTASK_SANDBOX_FAULTS", "true");
    let manifests = world.own_workspace().join("kubernetes");
    replace(&manifests.join("10-configmap.yaml"), &[("QUEUE_SIZE: \"32\"", "QUEUE_SIZE: \"8\"")]);
    replace(&manifests.join("40-hpa.yaml"), &[("maxReplicas: 10", "maxReplicas: 3")]);
    let readiness = "periodSeconds: 2\n            timeoutSeconds: 2\n            failureThreshold: 3";
    let quick = "periodSeconds: 1\n            timeoutSeconds: 5\n            failureThreshold: 1";
    replace(&manifests.join("30-deployment.yaml"), &[(readiness, quick), ("seconds: 5\n", "seconds: 1\n")]);
    world.run_ok(&["up"]);
    world
}

fn tell(world: &World, what: &str) {
    world.run_ok(&["sandbox", "fault", "--home", &world.home().display().to_string(), what]);
}

fn pod(world: &World) -> String {
    let ran = world.kubectl(&["get", "pods", "-l", APP, "-o", "jsonpath={.items[0].metadata.name}"]);
    ran.stdout
}

#[test]
fn what_is_injected_is_what_is_said() {
    let world = up();
    let mut matrix = Matrix::default();
    let entry = || {
        let ran = world.run_ok(&["status", "--output", "json"]);
        ran.summary()["entry"].as_str().expect("an entry").trim_start_matches("http://").to_owned()
    };
    let predictions = ["--requests", "40", "--concurrency", "12"];
    let looks = ["--get", "/health", "--rate", "30", "--duration", "6"];

    matrix.load(&world, "request-refused", &["--get", "/nothing-here", "-n", "20"], || {});
    matrix.load(&world, "back-pressure", &["-n", "60", "-c", "60"], || {});
    matrix.load(&world, "client-timeout", &["-n", "12", "-c", "3", "--request-timeout", "50ms"], || {});
    let slow_proxy = || {
        world.kubectl(&[
            "annotate",
            "--overwrite",
            "ingress/simple-model-api-ingress",
            "nginx.ingress.kubernetes.io/proxy-read-timeout=1",
        ]);
    };
    matrix.load(&world, "upstream-timeout", &["-n", "40", "-c", "18"], slow_proxy);
    world.run_ok(&["up"]);

    matrix.load(&world, "no-endpoint", &looks, || {
        tell(&world, &json!({"fault": "fail-probes", "namespace": "default", "seconds": 5}).to_string());
    });
    eventually("the pods are Ready again", std::time::Duration::from_secs(20), || {
        world.run(&["load", "-n", "1", "--get", "/health"]).code == 0
    });
    matrix.load(&world, "route-not-synced", &looks, || {
        world.kubectl(&["delete", "ingress", "simple-model-api-ingress"]);
    });
    world.run_ok(&["up"]);
    matrix.load(&world, "never-reached-proxy", &looks, || {
        tell(&world, &json!({"fault": "proxy", "answer": "refuse"}).to_string());
        let address = entry();
        eventually("nobody listens", std::time::Duration::from_secs(5), || {
            std::net::TcpStream::connect(&address).is_err()
        });
        // Long enough for some to meet it; the access log is looked at when it is over.
        std::thread::park_timeout(std::time::Duration::from_millis(500));
        tell(&world, "clear");
    });
    matrix.load(&world, "crash", &predictions, || {
        tell(&world, &json!({"fault": "kill", "namespace": "default", "pod": pod(&world)}).to_string());
    });
    matrix.load(&world, "forced-deletion", &[&predictions[..], &["--during", "pod-kill"]].concat(), || {});
    matrix.load(&world, "grace-too-short", &["-n", "80", "-c", "8", "--without", "grace"], || {});

    assert!(matrix.publish() >= 0.95);
}
