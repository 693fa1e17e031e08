//! Faults whose mechanism is known, put into the embedded cluster, against what the explainer says of each request that
//! failed: the confusion matrix, printed with `--nocapture`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::world::{World, eventually};

const APP: &str = "app.kubernetes.io/name=simple-model-api";
/// Loads in which a fault may meet no request.
const TRIES: usize = 5;

/// Injected mechanism → said mechanism → how many requests.
#[derive(Default)]
struct Matrix(BTreeMap<&'static str, BTreeMap<String, u64>>);

impl Matrix {
    /// Loads, does `inject` once a tenth of the load is done, and takes every failure as one of `mechanism`. Whether a
    /// fault meets a request is up to chance, so it is repeated until one does.
    #[track_caller]
    fn load(&mut self, world: &World, mechanism: &'static str, args: &[&str], inject: impl Fn()) {
        let failures = (0..TRIES).find_map(|n| {
            if n > 0 {
                // What an injection took away is put back.
                world.run_ok(&["up"]);
            }
            let summary = disturbed(world, args, &inject);
            let failures = summary["failures"].as_array().unwrap_or_else(|| panic!("{mechanism}: {summary}"));
            (!failures.is_empty()).then(|| failures.clone())
        });
        let failures = failures.unwrap_or_else(|| panic!("{mechanism}: nothing failed in {TRIES} loads"));
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

/// The summary of a load in which `inject` was done at the first sign of progress.
fn disturbed(world: &World, args: &[&str], inject: impl Fn()) -> Value {
    let mut child = world
        .command(&[&["load", "--output", "json"], args].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starting the tool");
    let mut inject = Some(inject);
    let mut last = Value::Null;
    for line in BufReader::new(child.stdout.take().expect("stdout")).lines().map_while(Result::ok) {
        last = serde_json::from_str(&line).expect("an event");
        if last["event"] == "progress"
            && let Some(inject) = inject.take()
        {
            inject();
        }
    }
    child.wait().expect("waiting for the tool");
    last
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
    world.set("SANDBOX_FAULTS", "true");
    let manifests = world.own_workspace().join("kubernetes");
    replace(&manifests.join("10-configmap.yaml"), &[("QUEUE_SIZE: \"32\"", "QUEUE_SIZE: \"16\"")]);
    replace(&manifests.join("40-hpa.yaml"), &[("maxReplicas: 10", "maxReplicas: 3")]);
    let readiness = "periodSeconds: 2\n            timeoutSeconds: 2\n            failureThreshold: 3";
    let quick = "periodSeconds: 1\n            timeoutSeconds: 5\n            failureThreshold: 1";
    replace(&manifests.join("30-deployment.yaml"), &[(readiness, quick), ("seconds: 5\n", "seconds: 1\n")]);
    world.run_ok(&["up"]);
    world
}

fn tell(world: &World, what: &str) {
    let told = world.sandbox_itself("fault", &[what]).output().expect("asking the sandbox");
    assert!(told.status.success(), "{what}: {}", String::from_utf8_lossy(&told.stderr));
}

fn pod(world: &World) -> String {
    let ran = world.kubectl(&["get", "pods", "-l", APP, "-o", "jsonpath={.items[0].metadata.name}"]);
    ran.stdout
}

fn annotate(world: &World, annotation: &str) {
    let name = "ingress/simple-model-api-ingress";
    let ran = world.kubectl(&["annotate", "--overwrite", name, annotation]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

/// Sends a signal to the process that is the pod.
fn signal(world: &World, pod: &str, signal: &str) {
    let named = format!(" POD_NAME={pod} ");
    let line = world.processes().into_iter().find(|line| line.contains(&named)).expect("the pod's process");
    let pid = line.split_whitespace().next().expect("a process id");
    let status = Command::new("kill").args(["-s", signal, pid]).status().expect("running kill");
    assert!(status.success(), "kill -s {signal} {pid}");
}

#[test]
fn what_is_injected_is_what_is_said() {
    let world = up();
    let mut matrix = Matrix::default();
    let entry = || {
        let ran = world.run_ok(&["status", "--output", "json"]);
        ran.summary()["entry"].as_str().expect("an entry").trim_start_matches("http://").to_owned()
    };
    // Fewer at a time than one pod's queue holds: none is refused for another reason than the injected one.
    let predictions = ["-n", "60", "-c", "8"];
    let with = |args: &[&'static str]| [&predictions[..], args].concat();
    let looks = ["--get", "/health", "--rate", "30", "--duration", "6"];

    matrix.load(&world, "request-refused", &["--get", "/nothing-here", "-n", "20"], || {});
    matrix.load(&world, "back-pressure", &["-n", "60", "-c", "60"], || {});
    matrix.load(&world, "client-timeout", &["-n", "12", "-c", "3", "--request-timeout", "15ms"], || {});
    annotate(&world, "nginx.ingress.kubernetes.io/proxy-body-size=1k");
    matrix.load(&world, "refused-by-proxy", &["-n", "12", "-c", "3"], || {});
    annotate(&world, "nginx.ingress.kubernetes.io/proxy-body-size=12m");
    annotate(&world, "nginx.ingress.kubernetes.io/proxy-read-timeout=1");
    let stopped = pod(&world);
    matrix.load(&world, "upstream-timeout", &predictions, || signal(&world, &stopped, "STOP"));
    signal(&world, &stopped, "CONT");
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
    // So many that an answer takes longer than the time that a kubelet leaves all the same; one queue holds them too.
    let long = ["-n", "120", "-c", "30"];
    let forced = [&long[..], &["--during", "pod-kill"]].concat();
    matrix.load(&world, "forced-deletion", &forced, || {});
    matrix.load(&world, "not-ready-yet", &with(&["--without", "readiness-probe"]), || {});
    matrix.load(&world, "shutdown-race", &with(&["--without", "pre-stop"]), || {});
    matrix.load(&world, "grace-too-short", &[&long[..], &["--without", "grace"]].concat(), || {});

    assert!(matrix.publish() >= 0.95);
}
