//! `wait`: any workload of any cluster that a kubeconfig names, judged from the outside.

use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::world::{Ran, World, eventually};

/// A cluster that somebody else runs, and that the tool knows by a kubeconfig alone.
pub(crate) struct Cluster {
    pub(crate) world: World,
    kubeconfig: String,
    daemon: Child,
}

impl Cluster {
    pub(crate) fn start() -> Cluster {
        let mut world = World::sandbox();
        let mut serve = world.sandbox_itself("serve", &["--context", "lab"]);
        let daemon = serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a sandbox");
        let file = world.home().join("kubeconfig");
        eventually("a kubeconfig", Duration::from_secs(60), || file.exists());
        let kubeconfig = file.display().to_string();
        // Two files, of which the first is not there: kubectl goes on to the second.
        world.set("KUBECONFIG", format!("{}:{kubeconfig}", world.scratch().join("none").display()));
        let cluster = Cluster { world, kubeconfig, daemon };
        eventually("an API", Duration::from_secs(60), || cluster.kubectl(&["get", "nodes"]).code == 0);
        cluster
    }

    pub(crate) fn kubectl(&self, args: &[&str]) -> Ran {
        let mut command = std::process::Command::new("kubectl");
        command.args(["--kubeconfig", &self.kubeconfig]).args(args).env("HOME", self.world.scratch());
        Ran::of(&mut command)
    }

    fn create(&self, name: &str, image: &str) {
        let ran = self.kubectl(&["create", "deployment", name, "--image", image]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }

    fn wait(&self, args: &[&str]) -> Ran {
        self.world.run(&[&["wait", "--context", "lab"], args].concat())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.world.sandbox_itself("stop", &[]).output();
        let _ = self.daemon.wait();
    }
}

fn workload<'s>(summary: &'s Value, name: &str) -> &'s Value {
    let all = summary["workloads"].as_array().expect("workloads");
    all.iter().find(|one| one["workload"] == name).unwrap_or_else(|| panic!("{summary}"))
}

#[test]
fn a_workload_of_a_named_context_is_judged_early_and_nothing_is_changed() {
    let cluster = Cluster::start();
    cluster.create("web", "nowhere:1");
    let before = cluster.kubectl(&["get", "deployments,replicasets,pods", "-o", "name"]).stdout;
    let ran = cluster.wait(&["deployment/web", "--output", "json"]);
    assert_eq!(ran.code, 30, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.took < Duration::from_secs(60), "{:?}", ran.took);
    let summary = ran.summary();
    assert_eq!((&summary["context"], &summary["cluster"]), (&"lab".into(), &"context".into()));
    let web = workload(&summary, "deployment/web");
    assert_eq!((&web["state"], &web["namespace"]), (&"failed".into(), &"default".into()));
    assert!(web["detail"].as_str().expect("why").contains("nowhere:1"), "{web}");
    let evidence = summary["evidence"].to_string();
    for wanted in ["conditions of deployment/web", "conditions of pod/web-", "last warnings", "nodes"] {
        assert!(evidence.contains(wanted), "{evidence}");
    }
    // What is to be pasted leads to the same cluster.
    assert!(evidence.contains("kubeconfig --context lab)"), "{evidence}");

    // Several: the one that can't become ready ends it, and the others are told of.
    cluster.create("idle", "nowhere:2");
    cluster.kubectl(&["scale", "deployment/idle", "--replicas=0"]);
    let ran = cluster.wait(&["deploy", "idle", "web", "--for", "settled", "--output", "json"]);
    assert_eq!(ran.code, 30, "{}", ran.stderr);
    assert_eq!(workload(&ran.summary(), "deployment/idle")["state"], "failed");

    // Out of time, with what was seen by then.
    cluster.kubectl(&["rollout", "pause", "deployment/idle"]);
    cluster.create("slow", "nowhere:3");
    let ran = cluster.wait(&["deployment/slow", "--timeout", "0", "--output", "json"]);
    assert!([30, 31].contains(&ran.code), "{}", ran.stderr);

    let after = cluster.kubectl(&["get", "deployments,replicasets,pods", "-o", "name"]).stdout;
    let of_web =
        |text: &str| text.lines().filter(|line| line.contains("/web")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(of_web(&before), of_web(&after));
}

#[test]
fn what_is_not_there_is_said_at_once_as_kubectl_says_it() {
    let cluster = Cluster::start();
    cluster.create("web", "nowhere:1");
    for (args, code, words) in [
        (
            &["deployment/wbe"][..],
            2,
            &["deployments.apps \"wbe\" not found in namespace default", "did you mean deployment/web?"][..],
        ),
        (&["statefulset/web"], 2, &["statefulsets.apps \"web\" not found"]),
        (&["deployment/web", "--namespace", "elsewhere"], 2, &["not found in namespace elsewhere"]),
        (&["deployment"], 2, &["no name was specified"]),
        (&["teapot/web"], 2, &["the server doesn't have a resource type \"teapot\""]),
        (&["pod/web"], 2, &["nothing is rolled out of `pod`"]),
        (&[], 2, &["KIND/NAME"]),
    ] {
        let ran = cluster.wait(args);
        assert_eq!(ran.code, code, "{args:?}: {}", ran.stderr);
        for word in words {
            assert!(ran.stderr.contains(word), "{args:?}: `{word}` is missing: {}", ran.stderr);
        }
        assert!(ran.took < Duration::from_secs(30), "{args:?}: {:?}", ran.took);
    }
    for (args, code, word) in [
        (&["wait", "deployment/web", "--context", "lba"][..], 2, "did you mean lab?"),
        (&["wait", "deployment/web", "--cluster", "context"], 2, "--cluster context needs --context NAME"),
        (&["status", "--cluster", "sandbox", "--context", "lab"], 2, "--context is a cluster of its own"),
        (&["wait", "deployment/web", "--context", "lab", "--kubeconfig", "/nowhere"], 10, "/nowhere"),
    ] {
        let ran = cluster.world.run(args);
        assert_eq!(ran.code, code, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(word), "{args:?}: {}", ran.stderr);
    }
    let plan = cluster.wait(&["deployment/web", "--dry-run"]);
    assert!(plan.stdout.contains("watch deployment/web, its pods and its events"), "{}", plan.stdout);
}

#[test]
fn what_a_context_lacks_is_named_before_anything_is_changed() {
    let cluster = Cluster::start();
    let run = |args: &[&str]| cluster.world.run(&[args, &["--context", "lab"]].concat());
    let before = cluster.kubectl(&["get", "all,configmaps,ingresses", "-A", "-o", "name"]).stdout;
    for command in ["up", "doctor"] {
        let ran = run(&[command, "--namespace", "shop"]);
        assert_eq!(ran.code, 10, "{command}: {}", ran.stderr);
        let told = format!("{}{}", ran.stdout, ran.stderr);
        for word in [
            "no way is known by which the nodes of context lab get the image",
            "--registry HOST[:PORT]/PATH",
            "there is no namespace shop",
            "create namespace shop",
        ] {
            assert!(told.contains(word), "{command}: `{word}` is missing:\n{told}");
        }
    }
    let refused = run(&["down", "--delete"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("it has not made the cluster of lab"), "{}", refused.stderr);
    let after = cluster.kubectl(&["get", "all,configmaps,ingresses", "-A", "-o", "name"]).stdout;
    assert_eq!(before, after);
    let plan = run(&["up", "--dry-run", "--registry", "127.0.0.1:5000/team"]).stdout;
    for line in
        ["connect to context lab", "push to 127.0.0.1:5000/team/simple-model-api", "expect namespace default"]
    {
        assert!(plan.contains(line), "`{line}` is missing:\n{plan}");
    }
    // Its kubeconfig, with nothing of the user's but this context, for its owner alone.
    let path = run(&["kubeconfig"]).stdout;
    let about = std::fs::metadata(path.trim()).expect("a kubeconfig");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&about.permissions()) & 0o777, 0o600);
}
