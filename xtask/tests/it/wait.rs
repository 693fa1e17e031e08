//! `wait`: any workload of any cluster that a kubeconfig names, judged from the outside.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use serde_json::{Value, json};

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

    /// Another kubeconfig, which leads to the same cluster in another way.
    fn kubeconfig_with(&self, name: &str, change: impl FnOnce(&mut Value)) -> String {
        let text = std::fs::read_to_string(&self.kubeconfig).expect("a kubeconfig");
        let mut config: Value = serde_yaml::from_str(&text).expect("YAML");
        change(&mut config);
        let path = self.world.scratch().join(name);
        std::fs::write(&path, config.to_string()).expect("writing");
        path.display().to_string()
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

/// An HTTP proxy, and word of each connection that it has made for somebody.
fn proxy() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (made, connected) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let made = made.clone();
            std::thread::spawn(move || connect(client, &made));
        }
    });
    (url, connected)
}

/// `CONNECT host:port HTTP/1.1`, and from then on each side gets what the other sends.
fn connect(mut client: TcpStream, made: &Sender<String>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    let head = String::from_utf8(head).ok()?;
    let to = head.strip_prefix("CONNECT ")?.split(' ').next()?;
    let mut server = TcpStream::connect(to).ok()?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
    made.send(to.to_owned()).ok()?;
    let (mut from, mut into) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut into);
        into.shutdown(Shutdown::Write)
    });
    std::io::copy(&mut server, &mut client).ok()?;
    client.shutdown(Shutdown::Write).ok()
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
    // Through the proxy that a kubeconfig names; one of the environment is not for what runs on this machine.
    let (proxy, connected) = proxy();
    let proxied = cluster.kubeconfig_with("proxied", |config| {
        config["clusters"][0]["cluster"]["proxy-url"] = proxy.into();
    });
    for (kubeconfig, is_proxied) in [(&proxied, true), (&cluster.kubeconfig, false)] {
        let args = ["wait", "deployment/wbe", "--context", "lab", "--kubeconfig", kubeconfig];
        let ran = Ran::of(cluster.world.command(&args).env("HTTPS_PROXY", "http://127.0.0.1:1"));
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert!(ran.stderr.contains("did you mean deployment/web?"), "{}", ran.stderr);
        assert_eq!(connected.try_iter().count() > 0, is_proxied, "{}", ran.stderr);
    }
    // A program that the credentials come from, and that is not there, or fails.
    let failing = "echo a-secret; echo log in first >&2; exit 7";
    for (command, args, words) in [
        ("no-such-plugin", json!([]), ["running `no-such-plugin`", "apt-get install plugin"]),
        ("sh", json!(["-c", failing]), ["running `sh`", "log in first"]),
    ] {
        let exec = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": command, "args": args,
            "interactiveMode": "Never", "installHint": "apt-get install plugin"});
        let kubeconfig =
            cluster.kubeconfig_with(command, |config| config["users"][0]["user"] = json!({"exec": exec}));
        let ran = cluster.wait(&["deployment/web", "--kubeconfig", &kubeconfig]);
        assert_eq!(ran.code, 10, "{}", ran.stderr);
        for word in words {
            assert!(ran.stderr.contains(word), "`{word}` is missing: {}", ran.stderr);
        }
        assert!(!ran.stderr.lines().any(|line| line == "a-secret"), "{}", ran.stderr);
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
    // Asked to, it makes the namespace; the rest is missing all the same.
    let asked = ["--namespace", "shop", "--create-namespace"];
    let plan = run(&[&["up", "--dry-run", "--registry", "127.0.0.1:5000/team"], &asked[..]].concat()).stdout;
    assert!(plan.contains("create namespace shop if it is missing"), "{plan}");
    let ran = run(&[&["up"], &asked[..]].concat());
    assert_eq!(ran.code, 10, "{}", ran.stderr);
    assert!(!ran.stderr.contains("namespace shop"), "{}", ran.stderr);
    // Its kubeconfig, with nothing of the user's but this context, for its owner alone.
    let path = run(&["kubeconfig"]).stdout;
    let about = std::fs::metadata(path.trim()).expect("a kubeconfig");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&about.permissions()) & 0o777, 0o600);
}
