//! `--context`: a cluster that somebody else runs, from the image's delivery to the last gate.

use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::wait::Cluster;
use crate::world::Ran;

impl Cluster {
    fn kubectl_ok(&self, args: &[&str]) -> String {
        let ran = self.kubectl(args);
        assert_eq!(ran.code, 0, "kubectl {args:?}: {}", ran.stderr);
        ran.stdout
    }

    /// With an ingress controller, the metrics API, and the tools that nodes of kind and k3d are made by.
    fn start_with_tools() -> Cluster {
        let mut cluster = Cluster::start();
        cluster.world.with_stand_ins();
        let lab = cluster.world.stand_in_home().join("lab");
        std::fs::create_dir_all(&lab).expect("making a folder");
        symlink(cluster.world.home(), lab.join("cluster")).expect("linking");
        for addon in ["ingress", "metrics-server"] {
            let ran = Ran::of(&mut cluster.world.sandbox_itself("enable", &[addon]));
            assert_eq!(ran.code, 0, "{}", ran.stderr);
        }
        cluster
    }

    /// Runs a command on its context; what the tools that deliver were asked meanwhile.
    fn run(&self, args: &[&str]) -> (Ran, Vec<String>) {
        let before = self.world.calls().len();
        let ran = self
            .world
            .run_ok(&[args, &["--context", "lab", "--namespace", "shop", "--output", "json"]].concat());
        let asked = self.world.calls().split_off(before).into_iter().map(|(call, _)| call).collect();
        (ran, asked)
    }

    fn entry(&self) -> String {
        let text = std::fs::read(self.world.home().join("sandbox.json")).expect("the sandbox's own account");
        let info: Value = serde_json::from_slice(&text).expect("JSON");
        info["entry"].as_str().expect("an entry").to_owned()
    }
}

/// The archive that a tool was asked to load, of the only call there was.
#[track_caller]
fn loaded<'c>(asked: &'c [String], before: &str, after: &str) -> &'c str {
    let [call] = asked else { panic!("{asked:?}") };
    let archive = call.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    archive.unwrap_or_else(|| panic!("`{call}` is not `{before}ARCHIVE{after}`"))
}

#[test]
fn up_delivers_by_the_tool_that_made_the_nodes_and_passes_every_gate() {
    let cluster = Cluster::start_with_tools();
    let own = cluster.kubectl_ok(&["get", "nodes", "-o", "name"]).trim().to_owned();

    // As k3d names its nodes. The namespace is made, as it is asked for. The cluster publishes no address, so the entry
    // is a tunnel, which the route's gate goes through.
    let node = cluster.world.scratch().join("node.json");
    let k3d = r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "k3d-lab-server-0"},
        "spec": {"providerID": "k3s://k3d-lab-server-0", "unschedulable": true}}"#;
    std::fs::write(&node, k3d).expect("writing");
    cluster.kubectl_ok(&["create", "-f", &node.display().to_string()]);
    let (up, asked) = cluster.run(&["up", "--create-namespace"]);
    let archive = loaded(&asked, "k3d image import ", " --cluster lab");
    assert!(archive.contains("/xtask/context/lab-") && archive.ends_with("/image.tar"), "{archive}");
    assert!(up.stdout.contains("a tunnel to the ingress controller's pods"), "{}", up.stdout);
    let summary = up.summary();
    assert_eq!((&summary["context"], &summary["cluster"]), (&"lab".into(), &"context".into()));
    let steps = summary["steps"].as_array().expect("steps");
    for gate in ["cluster", "image-id", "rollout", "route", "settled", "autoscaler", "smoke"] {
        assert!(steps.iter().any(|step| step["name"] == gate), "{gate}: {summary}");
    }

    // As kind does. What is edited here needs no compiler: the image is only no longer on the nodes.
    cluster.kubectl_ok(&["delete", "node", "k3d-lab-server-0"]);
    let kind = r#"{"spec": {"providerID": "kind://docker/lab/lab-control-plane"}}"#;
    cluster.kubectl_ok(&["patch", &own, "--type=merge", "-p", kind]);
    let forget = r#"{"status": {"images": null}}"#;
    cluster.kubectl_ok(&["patch", &own, "--subresource=status", "--type=merge", "-p", forget]);
    let entry = cluster.entry();
    let (redeploy, asked) = cluster.run(&["redeploy", "--entry", &entry]);
    assert_eq!(loaded(&asked, "kind load image-archive ", " --name lab"), archive);
    assert!(!redeploy.stdout.contains("a tunnel to"), "{}", redeploy.stdout);

    // It is on the nodes now, by their own word.
    let (_, asked) = cluster.run(&["up", "--entry", &entry]);
    assert_eq!(asked, Vec::<String>::new());

    cluster.run(&["down"]);
    let left = "deployments,services,ingresses,hpa";
    let of_app = ["get", left, "-n", "shop", "-l", "app.kubernetes.io/name=simple-model-api", "-o", "name"];
    assert_eq!(cluster.kubectl_ok(&of_app), "");
    // It may hold what is others' by now.
    assert_eq!(cluster.kubectl_ok(&["get", "namespace", "shop", "-o", "name"]).trim(), "namespace/shop");
    assert_eq!(cluster.kubectl_ok(&["get", "nodes", "-o", "name"]).trim(), own);
}
