//! `dev`: what each save leads to.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::world::{Ran, World, eventually, workspace};

/// Longer than anything here takes on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(180);

/// A workspace of the test's own, whose app a stand-in compiles in a moment.
struct Desk {
    world: World,
    root: PathBuf,
}

impl Desk {
    fn new() -> Desk {
        let mut world = World::sandbox();
        let root = world.own_workspace();
        std::fs::remove_file(root.join("app")).expect("removing the link");
        let copied = Ran::of(Command::new("cp").arg("-R").arg(workspace().join("app")).arg(&root));
        assert_eq!(copied.code, 0, "{}", copied.stderr);
        let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-ins/cargo-at-hand");
        world.set("REAL_CARGO", env!("CARGO"));
        world.set("REAL_ROOT", workspace().display());
        world.set("CARGO", stand_in.display());
        world.set("STAND_IN_LOG", world.scratch().join("calls.log").display());
        world.set("STAND_IN_HOME", world.scratch().join("elsewhere").display());
        let desk = Desk { world, root };
        let git = Ran::of(Command::new("git").args(["init", "--quiet"]).arg(&desk.root));
        assert_eq!(git.code, 0, "{}", git.stderr);
        desk.save(".gitignore", "*.local\n");
        desk.source("one");
        desk
    }

    /// Saves as editors do: beside, then in its place.
    fn save(&self, path: &str, text: &str) {
        let beside = self.root.join(format!("{path}~"));
        std::fs::write(&beside, text).expect("writing");
        std::fs::rename(beside, self.root.join(path)).expect("renaming");
    }

    fn source(&self, words: &str) {
        self.save("app/src/edited.rs", &format!("//!{words}\n"));
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root.join(path)).expect("reading")
    }

    fn compilations(&self) -> usize {
        std::fs::read_to_string(self.world.scratch().join("calls.log")).unwrap_or_default().lines().count()
    }

    /// Which pod answers by the entry, and of which source it is.
    fn answers(&self) -> String {
        let status = self.world.run_ok(&["status", "--output", "json"]).summary();
        let url = format!("{}/info", status["entry"].as_str().expect("an entry"));
        let host = format!("Host: {}", status["host"].as_str().expect("a host"));
        let ran = Ran::of(Command::new("curl").args(["-sS", "--max-time", "30", "-H", &host, &url]));
        let info: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.stdout));
        info["pod"].as_str().expect("a pod").to_owned()
    }
}

/// A run of `dev`, heard line by line.
struct Dev {
    child: Child,
    lines: Receiver<Value>,
}

impl Dev {
    fn start(desk: &Desk) -> Dev {
        let mut command = desk.world.command(&["dev", "--output", "json"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starting");
        let (tell, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("stdout"));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = tell.send(serde_json::from_str(&line).expect("an object on every line"));
            }
        });
        Dev { child, lines }
    }

    fn until(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what} never came"));
            if is_it(&line) {
                return line;
            }
        }
    }

    /// The next cycle's end, which is for these files.
    #[track_caller]
    fn cycle(&self, changed: &[&str], verdict: &str) -> Value {
        let cycle = self.until("the end of a cycle", |line| line["event"] == "cycle");
        assert_eq!(cycle["changed"], Value::from(changed), "{cycle}");
        assert_eq!(cycle["verdict"], verdict, "{cycle}");
        cycle
    }

    fn stop(&mut self, signal: &str) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
        let summary = self.until("the summary", |line| line["event"] == "summary");
        assert_eq!(summary["command"], "dev", "{summary}");
        self.child.wait().expect("waiting").code()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn steps(cycle: &Value) -> Vec<&str> {
    let steps = cycle["steps"].as_array().expect("steps");
    steps.iter().map(|step| step["name"].as_str().expect("a name")).collect()
}

fn step<'c>(cycle: &'c Value, name: &str) -> &'c Value {
    let steps = cycle["steps"].as_array().expect("steps");
    steps.iter().find(|step| step["name"] == name).unwrap_or_else(|| panic!("no {name}: {cycle}"))
}

const SOURCE: &str = "app/src/edited.rs";
const SETTINGS: &str = "kubernetes/10-configmap.yaml";
const DEPLOYMENT: &str = "kubernetes/30-deployment.yaml";

#[test]
fn each_save_does_what_it_needs_and_a_bad_one_takes_nothing_away() {
    let desk = Desk::new();
    let plan = desk.world.run_ok(&["dev", "--dry-run", "--output", "json"]).summary()["plan"].clone();
    let mut dev = Dev::start(&desk);
    let first = dev.cycle(&[], "serves");
    for planned in plan.as_array().expect("a plan").iter().filter_map(|planned| planned["step"].as_str()) {
        step(&first, planned);
    }
    assert!(desk.answers().ends_with(" of //!one"), "{}", desk.answers());

    // What is no change: scratch files, what git ignores, and a save of the same bytes. One that is comes behind them.
    for scratch in ["app/src/.edited.rs.swp", "app/src/4913", "app/src/edited.rs~", "app/src/x.local"] {
        std::fs::write(desk.root.join(scratch), "scratch").expect("writing");
    }
    std::os::unix::fs::symlink("me@here.1:2", desk.root.join("kubernetes/.#10-configmap.yaml"))
        .expect("linking");
    desk.source("one");
    let settings = desk.read(SETTINGS);
    let compiled = desk.compilations();
    desk.save(SETTINGS, &format!("{settings}  ADDED: \"1\"\n"));
    let cycle = dev.cycle(&[SETTINGS], "serves");
    assert_eq!(desk.compilations(), compiled, "a change of YAML compiles nothing");
    assert!(!steps(&cycle).contains(&"image"), "{cycle}");
    assert_eq!(step(&cycle, "rollout")["state"], "done", "the pods read it: {cycle}");

    desk.source("two");
    let cycle = dev.cycle(&[SOURCE], "serves");
    assert!(desk.answers().ends_with(" of //!two"), "{}", desk.answers());
    assert_eq!(step(&cycle, "apply")["detail"], "deployment/simple-model-api-deployment configured");
    assert!(step(&cycle, "image")["parts"]["compile"].is_number(), "{cycle}");

    desk.source("broken");
    let cycle = dev.cycle(&[SOURCE], "failed");
    let evidence = cycle["evidence"].to_string();
    assert!(evidence.contains("cannot find value `nowhere`") && evidence.contains("^^^^^^^"), "{cycle}");
    assert_eq!(cycle["exit_code"], 20, "{cycle}");

    // A newer save ends what is under way, and is the one that is followed.
    desk.source("endless");
    let is_endless = || desk.world.processes().iter().any(|line| line.contains("sleep 1000"));
    eventually("the endless build runs", PATIENCE, is_endless);
    desk.source("three");
    dev.cycle(&[SOURCE], "cancelled");
    assert!(!is_endless(), "the build outlived its cycle");
    dev.cycle(&[SOURCE], "serves");
    assert!(desk.answers().ends_with(" of //!three"), "{}", desk.answers());

    let deployment = desk.read(DEPLOYMENT);
    desk.save(DEPLOYMENT, &deployment.replace("name: simple-model-api-config", "name: no-such-config"));
    let cycle = dev.cycle(&[DEPLOYMENT], "failed");
    assert_eq!(cycle["exit_code"], 30, "{cycle}");
    assert!(cycle["error"].as_str().expect("an error").contains("no-such-config"), "{cycle}");
    assert!(desk.answers().ends_with(" of //!three"), "the old pods serve: {}", desk.answers());
    desk.save(DEPLOYMENT, &deployment);
    dev.cycle(&[DEPLOYMENT], "serves");

    desk.save(SETTINGS, "data: {\n");
    let cycle = dev.cycle(&[SETTINGS], "failed");
    assert!(cycle["error"].as_str().expect("an error").contains("kubernetes/10-configmap.yaml:"), "{cycle}");
    desk.save(SETTINGS, &settings);
    dev.cycle(&[SETTINGS], "serves");

    assert_eq!(dev.stop("-INT"), Some(130));
    assert!(desk.answers().ends_with(" of //!three"), "it leaves the cluster as it is: {}", desk.answers());
    ends_by_its_key(&desk);
}

/// On a terminal, which util-linux's `script` makes.
fn ends_by_its_key(desk: &Desk) {
    if !cfg!(target_os = "linux") {
        return;
    }
    let tool = desk.world.command(&["dev"]);
    let words: Vec<_> = tool.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let quoted: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
    let mut script = Command::new("script");
    script.args(["-qec", &format!("/bin/sh {}", quoted.join(" ")), "/dev/null"]).current_dir(&desk.root);
    script.envs(tool.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "xterm");
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("util-linux's script");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines().map_while(Result::ok);
    let mut text = String::new();
    let serves = lines.by_ref().any(|line| {
        text.push_str(&format!("{line}\n"));
        line.contains("start: serves after")
    });
    assert!(serves && text.contains("q or Ctrl-C ends it"), "{text}");
    child.stdin.as_mut().expect("stdin").write_all(b"q").expect("pressing q");
    lines.for_each(drop);
    assert_eq!(child.wait().expect("waiting").code(), Some(0), "{text}");
}

#[test]
fn without_a_cluster_and_with_no_way_to_one_it_ends_and_says_why() {
    let mut world = World::sandbox();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    world.set("XTASK_PORT", taken.local_addr().expect("its address").port());
    let ran = world.run(&["dev"]);
    assert_eq!(ran.code, 10, "{}", ran.stderr);
    assert!(ran.stderr.contains("is not free"), "{}", ran.stderr);
}
