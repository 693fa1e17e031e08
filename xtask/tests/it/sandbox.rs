//! The whole procedure on the embedded cluster, and a stock kubectl against it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::minikube::assert_order;
use crate::world::{Ran, World, eventually, explained_elsewhere, target};

fn pods(world: &World) -> Vec<(String, String)> {
    let format =
        r#"jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].imageID}{"\n"}{end}"#;
    let ran = world.kubectl(&["get", "pods", "-l", "app.kubernetes.io/name=simple-model-api", "-o", format]);
    ran.stdout
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(pod, id)| (pod.to_owned(), id.to_owned()))
        .collect()
}

/// What is below a folder, was changed since then, and may be changed by everybody.
fn writable_by_others(folder: &Path, since: SystemTime) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // What other tests make and remove meanwhile is theirs.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(about) = entry.metadata() else { continue };
        if about.is_dir() {
            found.extend(writable_by_others(&entry.path(), since));
        }
        let is_new = about.modified().is_ok_and(|modified| modified >= since);
        if is_new && !about.is_symlink() && about.permissions().mode() & 0o002 != 0 {
            found.push(entry.path());
        }
    }
    found
}

fn curl(args: &[&str]) -> Ran {
    let output = std::process::Command::new("curl")
        .args(["-sS", "--max-time", "30"])
        .args(args)
        .output()
        .expect("curl");
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: Duration::ZERO,
    }
}

#[test]
fn from_nothing_to_a_prediction_and_back() {
    let world = World::sandbox();
    let began = SystemTime::now();

    let up = world.run_ok(&["up", "--output", "json"]).summary();
    assert_order(&up);
    let (entry, host) = (up["entry"].as_str().expect("entry"), up["host"].as_str().expect("host"));
    assert_eq!(host, "simple-model-api.local");
    let header = format!("Host: {host}");

    let health = curl(&["-H", &header, &format!("{entry}/health")]);
    assert_eq!(health.stdout, r#"{"success":true,"status":"healthy","model":"ResNet-50","version":"1.0.0"}"#);
    let picture = format!("file=@{}", world.root.join("app/assets/sample.jpg").display());
    let answer = curl(&["-H", &header, "-F", &picture, &format!("{entry}/predict")]);
    let answer: serde_json::Value = serde_json::from_str(&answer.stdout).expect(&answer.stdout);
    let ranks: Vec<_> =
        answer["predictions"].as_array().expect("predictions").iter().map(|p| p["rank"].clone()).collect();
    assert_eq!(ranks, [1, 2, 3, 4, 5]);

    // Again: everything is so already.
    let again = world.run_ok(&["up", "--output", "json"]);
    for step in again.summary()["steps"].as_array().expect("steps") {
        // The smoke test looks each time.
        assert_eq!(step["state"], if step["name"] == "smoke" { "done" } else { "already" }, "{step}");
    }

    let status = world.run_ok(&["status", "--output", "json"]).summary();
    assert_eq!(status["ready"], true, "{status}");
    assert_eq!(status["entry"], entry);
    world.run_ok(&["smoke"]);
    let logs = world.run_ok(&["logs", "--tail", "1"]).stdout;
    assert!(logs.lines().count() >= 3, "{logs}");

    world.run_ok(&["load", "--get", "/health", "--requests", "5"]);
    assert_eq!(writable_by_others(&target().join("xtask"), began), Vec::<PathBuf>::new());

    // Nothing changed, and it restarts all the same; it says that the image was current.
    let before = pods(&world);
    assert_eq!(before.len(), 3, "{before:?}");
    let redeploy = world.run_ok(&["redeploy", "--output", "json"]).summary();
    let state = |name: &str| {
        let steps = redeploy["steps"].as_array().expect("steps");
        steps.iter().find(|step| step["name"] == name).unwrap_or_else(|| panic!("no {name}"))["state"].clone()
    };
    assert_eq!((state("image"), state("restart")), ("already".into(), "done".into()));
    let after = pods(&world);
    assert!(after.iter().all(|(pod, _)| !before.iter().any(|(old, _)| old == pod)), "{before:?} {after:?}");

    let down = world.run_ok(&["down", "--output", "json"]).summary();
    eventually("no process is left", Duration::from_secs(5), || world.processes().is_empty());
    assert_eq!(world.run(&["kubeconfig"]).code, 10);
    explained_elsewhere(Path::new(down["run"].as_str().expect("a run")), 0, &["✓ down: done in "]);
}

#[test]
fn a_stock_kubectl_works() {
    let world = World::sandbox();
    world.run_ok(&["up"]);
    let ok = |args: &[&str]| {
        let ran = world.kubectl(args);
        assert_eq!(ran.code, 0, "kubectl {args:?}\n{}\n{}", ran.stdout, ran.stderr);
        ran.stdout
    };
    let deployment = "deployment/simple-model-api-deployment";
    assert!(ok(&["get", "pods", "-o", "wide"]).contains("1/1     Running"));
    assert!(
        ok(&["get", "nodes,deploy,rs,svc,ep,endpointslices,ingress,hpa,pdb,cm,events,lease", "-A"])
            .contains("simple-model-api")
    );
    assert!(ok(&["describe", deployment]).contains("StrategyType:"));
    assert!(ok(&["describe", "pods"]).contains("Startup:"));
    assert!(ok(&["describe", "hpa"]).contains("ScalingActive"));
    assert!(!ok(&["logs", deployment, "--tail=5"]).is_empty());
    assert!(ok(&["top", "pods"]).contains("simple-model-api"));
    assert!(ok(&["top", "nodes"]).contains("CPU"));
    let manifests = world.root.join("kubernetes/10-configmap.yaml").display().to_string();
    ok(&["apply", "--server-side", "--force-conflicts", "-f", &manifests]);
    assert!(ok(&["apply", "-f", &manifests]).contains("configmap/simple-model-api-config"));
    ok(&["rollout", "status", deployment, "--timeout=60s"]);
    ok(&["wait", "--for=condition=Available", deployment, "--timeout=60s"]);
    // The autoscaler would take the fourth replica back.
    ok(&["delete", "hpa", "simple-model-api-hpa"]);
    ok(&["scale", deployment, "--replicas=4"]);
    ok(&["wait", "--for=jsonpath={.status.readyReplicas}=4", deployment, "--timeout=60s"]);
    ok(&["rollout", "restart", deployment]);
    ok(&["rollout", "status", deployment, "--timeout=120s"]);
    let one = ok(&["get", "pods", "-l", "app.kubernetes.io/name=simple-model-api", "-o", "name"]);
    let one = one.lines().next().expect("a pod");
    ok(&["delete", one, "--wait=false"]);
    ok(&["rollout", "status", deployment, "--timeout=120s"]);
    port_forward(&world);
}

fn port_forward(world: &World) {
    use std::io::{BufRead as _, BufReader};
    let kubeconfig = world.run_ok(&["kubeconfig"]).stdout;
    let mut child = std::process::Command::new("kubectl")
        .args([
            "--kubeconfig",
            kubeconfig.trim(),
            "port-forward",
            "service/simple-model-api-service",
            ":8000",
        ])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("kubectl");
    let mut line = String::new();
    // Kept open: kubectl prints a second line, and would die of a closed pipe.
    let mut stdout = BufReader::new(child.stdout.take().expect("stdout"));
    stdout.read_line(&mut line).expect("kubectl's first line");
    let port = line
        .split("127.0.0.1:")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .unwrap_or_else(|| panic!("{line}"));
    let health = curl(&[&format!("http://127.0.0.1:{port}/health")]);
    let _ = child.kill();
    let _ = child.wait();
    assert!(health.stdout.contains("healthy"), "{} {}", health.stdout, health.stderr);
}

#[test]
fn a_deleted_or_damaged_folder_is_no_riddle_to_up_and_down() {
    let world = World::sandbox();
    world.run_ok(&["up"]);
    // While it runs, it says again what it is.
    for file in ["sandbox.json", "kubeconfig", "lock"] {
        std::fs::write(world.home().join(file), "nonsense").expect("writing");
        world.run_ok(&["up"]);
        world.run_ok(&["smoke"]);
    }
    std::fs::remove_dir_all(world.home()).expect("deleting");
    eventually("nothing outlives its folder", Duration::from_secs(15), || world.processes().is_empty());
    world.run_ok(&["down"]);

    std::fs::create_dir_all(world.home().join("lock")).expect("making a folder");
    std::fs::write(world.home().join("sandbox.json"), "{").expect("writing");
    world.run_ok(&["up"]);
    world.run_ok(&["down"]);
    assert_eq!(world.processes(), Vec::<String>::new());

    let inside = world.home().join("sandbox.json/mine");
    std::fs::create_dir_all(&inside).expect("making a folder");
    for command in ["up", "down"] {
        let ran = world.run(&[command]);
        assert_eq!(ran.code, 20, "{command}: {}", ran.stderr);
        assert!(ran.stderr.contains("sandbox.json is a folder"), "{command}: {}", ran.stderr);
    }
    assert!(inside.exists());
}

#[test]
fn what_a_kill_leaves_behind_is_cleared() {
    let world = World::sandbox();
    let up = world.run_ok(&["up", "--output", "json"]).summary();
    assert_eq!(up["ok"], true);
    let info: serde_json::Value = serde_json::from_str(
        &std::fs::read_to_string(world.home().join("sandbox.json")).expect("sandbox.json"),
    )
    .expect("JSON");
    let pid = info["pid"].to_string();
    assert!(std::process::Command::new("kill").args(["-9", &pid]).status().expect("kill").success());
    eventually("no pod outlives the killed sandbox", Duration::from_secs(10), || {
        world.processes().is_empty()
    });
    let again = world.run_ok(&["up"]);
    assert!(again.stderr.contains("after cleaning up after a killed one"), "{}", again.stderr);
}
