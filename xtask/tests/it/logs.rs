//! `logs`: of every container, as lines and as objects, and followed through what happens to them.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::{Ran, World};

/// `logs -f` under way.
struct Followed<'w> {
    world: &'w World,
    child: Child,
    lines: Receiver<String>,
    /// What it says of its own doing.
    trace: PathBuf,
}

impl Followed<'_> {
    fn start<'w>(world: &'w World, args: &[&str]) -> Followed<'w> {
        let trace = world.scratch().join(format!("follow{}.log", args.len()));
        let mut child = world
            .command(&[&["logs", "-f", "--verbose"], args].concat())
            .stdout(Stdio::piped())
            .stderr(File::create(&trace).expect("making a file for stderr"))
            .spawn()
            .expect("starting the tool");
        let stdout = BufReader::new(child.stdout.take().expect("stdout"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
        });
        Followed { world, child, lines, trace }
    }

    /// The first line that is meant, within 30 s.
    fn line(&self, what: &str, is_meant: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|error| {
                let trace = std::fs::read_to_string(&self.trace).unwrap_or_default();
                let cluster = self.world.kubectl(&["get", "pods,events", "-o", "wide"]).stdout;
                panic!("{what}: {error}\n{trace}\n{cluster}")
            });
            if is_meant(&line) {
                return line;
            }
        }
    }
}

impl Drop for Followed<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pods(world: &World) -> Vec<String> {
    let app = "app.kubernetes.io/name=simple-model-api";
    let ran = world.kubectl(&["get", "pods", "-l", app, "-o", "jsonpath={.items[*].metadata.name}"]);
    ran.stdout.split_whitespace().map(str::to_owned).collect()
}

/// Kills the process of a pod's container, as the kernel does for want of memory.
fn kill(world: &World, pod: &str) {
    let hostname = format!("HOSTNAME={pod}");
    let all = world.processes();
    let line = all.iter().find(|line| line.contains("/images/") && line.contains(&hostname));
    let pid = line.and_then(|line| line.split_whitespace().next()).expect("the pod's process");
    assert_eq!(Ran::of(Command::new("kill").args(["-9", pid])).code, 0);
}

#[test]
fn following_goes_on_through_a_restart_and_to_a_new_pod_and_ends_with_its_reader() {
    let world = World::sandbox();
    world.run_ok(&["up"]);
    let unknown = world.run(&["logs", "-f", "nobody"]);
    assert_eq!(unknown.code, 2, "{}", unknown.stderr);
    assert!(unknown.stderr.contains("the app has no pod `nobody`"), "{}", unknown.stderr);

    let [restarted, deleted, ..] = &pods(&world)[..] else { panic!("two pods") };
    let all = Followed::start(&world, &[]);
    let one = Followed::start(&world, &[deleted, "--output", "json"]);
    let starts = |pod: &str| {
        let prefix = format!("{pod}/");
        move |line: &str| line.starts_with(&prefix) && line.contains("listening")
    };
    all.line("the pod's start", starts(restarted));
    one.line("the other pod's start", |line| line.contains("listening"));
    kill(&world, restarted);
    all.line("its start after the restart", starts(restarted));
    let previous = world.run_ok(&["logs", restarted, "--previous"]);
    assert!(previous.stdout.lines().any(starts(restarted)), "{}", previous.stdout);

    let before = pods(&world);
    assert_eq!(world.kubectl(&["delete", "pod", deleted]).code, 0);
    let is_new = |line: &str| {
        line.contains("listening") && !before.iter().any(|pod| line.starts_with(&format!("{pod}/")))
    };
    all.line("the start of the pod in its place", is_new);
    // A single pod that is gone has no more to say.
    let summary = one.line("the end", |line| line.contains("\"summary\""));
    let summary: Value = serde_json::from_str(&summary).expect("JSON");
    assert_eq!(summary["exit_code"], 0, "{summary}");

    // Nothing is written any more that could tell that nobody reads it.
    let mut head = Command::new("head").args(["-n", "1"]).stdin(Stdio::piped()).spawn().expect("head");
    let mut quiet = world.command(&["logs", "-f", "--tail", "1", "--since", "1h", restarted]);
    let quiet = quiet.stdout(head.stdin.take().expect("stdin")).stderr(Stdio::null()).status();
    assert_eq!(quiet.expect("running the tool").code(), Some(141));
    assert!(head.wait().expect("waiting for head").success());
}

#[test]
fn the_logs_of_every_container_are_prefixed_and_are_objects() {
    let mut world = World::sandbox();
    let root = world.own_workspace();
    let file = root.join("kubernetes/30-deployment.yaml");
    let text = std::fs::read_to_string(&file).expect("reading");
    let second = "      containers:\n        - name: proxy\n          image: simple-model-api\n          \
                  imagePullPolicy: Never\n          env: [{name: PORT, value: \"9002\"}]\n          \
                  resources: {requests: {cpu: 50m, memory: 512Mi}}\n          securityContext:\n            \
                  allowPrivilegeEscalation: false\n            capabilities: {drop: [ALL]}\n";
    std::fs::write(&file, text.replacen("      containers:\n", second, 1)).expect("writing");
    world.run_ok(&["up"]);
    let human = world.run_ok(&["logs"]).stdout;
    for container in ["proxy", "simple-model-api"] {
        let prefix = format!("/{container} ");
        assert!(human.lines().any(|line| line.contains(&prefix)), "{container}: {human}");
    }
    let pod = human.split('/').next().expect("a pod").to_owned();
    let ran = world.run_ok(&["logs", &pod, "--tail", "1", "--since", "1h", "--output", "json"]);
    let lines: Vec<Value> = ran.events().into_iter().filter(|event| event["event"] == "log").collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines.iter().all(|line| line["pod"] == pod.as_str() && line["time"].is_string()), "{lines:?}");
    let previous = world.run_ok(&["logs", &pod, "--previous"]);
    assert!(previous.stderr.contains("no log: previous terminated container"), "{}", previous.stderr);
    let unknown = world.run(&["logs", "nobody"]);
    assert_eq!(unknown.code, 2, "{}", unknown.stderr);
    assert!(unknown.stderr.contains(&pod), "{}", unknown.stderr);
}
