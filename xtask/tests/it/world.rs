//! A cluster of a test's own, and the tool run against it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Once};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A profile that no other test uses; what runs under it ends with the test.
pub(crate) struct World {
    pub(crate) profile: String,
    pub(crate) root: PathBuf,
    env: BTreeMap<String, String>,
    /// Variables of the test's own environment that the tool must not see.
    unset: Vec<String>,
    /// Cargo's target folder, as the tool finds it.
    target: PathBuf,
    scratch: tempfile::TempDir,
}

/// How a run of the tool ended.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

/// What `explain` says of a run from a copy of its folder alone, where there is no cluster.
#[track_caller]
pub(crate) fn explained_elsewhere(run: &Path, code: i32, words: &[&str]) {
    let elsewhere = World::sandbox();
    let copy = elsewhere.scratch().join("run");
    let copied = Command::new("cp").arg("-R").arg(run).arg(&copy).status();
    assert!(copied.expect("cp").success());
    let ran = elsewhere.run(&["explain", &copy.display().to_string()]);
    assert_eq!(ran.code, code, "{}", ran.stderr);
    for words in words {
        assert!(ran.stdout.contains(words), "`{words}` is not said:\n{}", ran.stdout);
    }
}

impl World {
    /// A sandbox, not started.
    pub(crate) fn sandbox() -> World {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let profile = format!("it-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let program = sandbox_program().display().to_string();
        let env = [
            ("XTASK_SANDBOX", &*program),
            ("XTASK_CLUSTER", "sandbox"),
            ("XTASK_PROFILE", &profile),
            ("XTASK_PORT", "0"),
            ("NO_COLOR", "1"),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let scratch = tempfile::tempdir().expect("a scratch folder");
        World { profile, root: workspace(), env, unset: Vec::new(), target: target(), scratch }
    }

    /// Stand-ins for minikube and docker on PATH, a sandbox behind them.
    pub(crate) fn minikube() -> World {
        let mut world = World::sandbox();
        world.with_stand_ins();
        world.set("XTASK_CLUSTER", "minikube");
        world
    }

    /// Puts stand-ins for minikube, docker, kind and k3d on PATH.
    pub(crate) fn with_stand_ins(&mut self) {
        let path = std::env::var("PATH").unwrap_or_default();
        self.set("PATH", format!("{}:{path}", stand_ins().display()));
        self.set("STAND_IN_LOG", self.scratch().join("calls.log").display());
        self.set("STAND_IN_HOME", self.stand_in_home().display());
    }

    /// Where the stand-ins keep their clusters.
    pub(crate) fn stand_in_home(&self) -> PathBuf {
        self.scratch().join("minikube")
    }

    pub(crate) fn set(&mut self, name: &str, value: impl std::fmt::Display) {
        self.env.insert(name.to_owned(), value.to_string());
    }

    pub(crate) fn unset(&mut self, name: &str) {
        self.env.remove(name);
        self.unset.push(name.to_owned());
    }

    /// A folder that goes with the test.
    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Where the sandbox keeps its state.
    pub(crate) fn home(&self) -> PathBuf {
        self.target.join("xtask/sandbox").join(&self.profile)
    }

    /// The folder that a process of the tool keeps its run in.
    pub(crate) fn run_of(&self, pid: u32) -> PathBuf {
        let runs = std::fs::read_dir(self.target.join("xtask/runs")).expect("listing the runs");
        let mut runs = runs.map(|entry| entry.expect("listing the runs").path());
        let ending = format!("-{pid}");
        runs.find(|run| run.to_string_lossy().ends_with(&ending)).expect("a run")
    }

    /// Replaces the workspace by a copy of its outside, whose manifests may be changed: the app is the real one.
    pub(crate) fn own_workspace(&mut self) -> PathBuf {
        let root = self.scratch().join("workspace");
        std::fs::create_dir_all(&root).expect("making the workspace");
        for name in ["Cargo.toml", "Cargo.lock"] {
            std::fs::copy(self.root.join(name), root.join(name)).expect("copying");
        }
        for name in ["app", "sandbox", "xtask"] {
            std::os::unix::fs::symlink(self.root.join(name), root.join(name)).expect("linking");
        }
        self.copy_manifests(&root);
        let target = self.target.display().to_string();
        self.set("CARGO_TARGET_DIR", target);
        self.root.clone_from(&root);
        root
    }

    /// Has the tool, the sandbox and its pods write on a disk of the test's own; what Cargo has built stays where it
    /// is.
    pub(crate) fn write_on(&mut self, disk: &Path) {
        weights_once();
        std::fs::create_dir(disk.join("xtask")).expect("making a folder");
        for built in ["debug", "release", "xtask/weights"] {
            std::os::unix::fs::symlink(target().join(built), disk.join(built)).expect("linking");
        }
        self.set("CARGO_TARGET_DIR", disk.display());
        disk.clone_into(&mut self.target);
    }

    /// Copies the shipped `kubernetes/` into a folder.
    pub(crate) fn copy_manifests(&self, into: &Path) {
        let to = into.join("kubernetes");
        std::fs::create_dir_all(&to).expect("making the folder");
        for entry in std::fs::read_dir(self.root.join("kubernetes")).expect("listing") {
            let entry = entry.expect("listing");
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copying");
        }
    }

    /// Applies an edit, written as git writes it, to the copy of `kubernetes/` in a folder.
    pub(crate) fn patch(&self, folder: &Path, patch: &Path) {
        let mut git = Command::new("git");
        // No repository around the folder shall say which files are its.
        git.arg("apply").arg(patch).current_dir(folder).env("GIT_CEILING_DIRECTORIES", self.scratch());
        let ran = Ran::of(&mut git);
        assert_eq!(ran.code, 0, "{}: {}", patch.display(), ran.stderr);
    }

    /// The tool's command line, ready to be started; under the umask that protects nothing, and where the tests
    /// themselves were started by `nohup`, not deaf to a hang-up as they are.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let hears = if xtask::run::is_hang_up_ignored() { "/usr/bin/env --default-signal=HUP" } else { "" };
        let script = format!(r#"umask 000; exec {hears} "$@""#);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_xtask")]);
        command.args(args).current_dir(&self.root).envs(&self.env).stdin(Stdio::null());
        for name in &self.unset {
            command.env_remove(name);
        }
        // What the developer's shell has set must not decide how a test goes.
        for name in ["KUBECONFIG", "DOCKER_HOST", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"] {
            if !self.env.contains_key(name) {
                command.env_remove(name);
            }
        }
        command
    }

    /// The sandbox's program, asked about this cluster.
    pub(crate) fn sandbox_itself(&self, command: &str, args: &[&str]) -> Command {
        let mut asked = Command::new(sandbox_program());
        asked.arg(command).arg("--home").arg(self.home()).args(args).envs(&self.env).stdin(Stdio::null());
        asked
    }

    /// The sandbox's program as another build has it.
    pub(crate) fn another_sandbox_program(&self) -> PathBuf {
        let copy = self.scratch().join("sandbox");
        std::fs::copy(sandbox_program(), &copy).expect("copying the program");
        copy
    }

    /// Starts the tool, its stdout in a file; ended with the test, if it has not ended itself.
    pub(crate) fn start(&self, args: &[&str], stdout: &Path) -> Started {
        weights_once();
        let stdout = std::fs::File::create(stdout).expect("making a file for stdout");
        let child = self.command(args).stdout(stdout).stderr(Stdio::null()).spawn();
        Started(child.expect("starting the tool"))
    }

    /// Runs the tool to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        if args.first().is_some_and(|first| *first == "up" || *first == "redeploy") {
            weights_once();
        }
        let began = Instant::now();
        let output = self.command(args).output().expect("running the tool");
        Ran::from(&output, began.elapsed())
    }

    /// Runs the tool to its end while nobody reads its stderr.
    pub(crate) fn run_unread(&self, args: &[&str]) -> Ran {
        let began = Instant::now();
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = self.command(args).stderr(writer).output().expect("running the tool");
        Ran::from(&output, began.elapsed())
    }

    /// Runs it and expects it to end well.
    pub(crate) fn run_ok(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{args:?}\n--- stdout\n{}\n--- stderr\n{}", ran.stdout, ran.stderr);
        ran
    }

    /// minikube, as its user would call it beside the tool.
    pub(crate) fn minikube_itself(&self, args: &[&str]) -> Ran {
        let began = Instant::now();
        let output = Command::new(stand_ins().join("minikube"))
            .args(["--profile", &self.profile])
            .args(args)
            .envs(&self.env)
            .env("KUBECONFIG", self.scratch().join("kubeconfig-of-the-user"))
            .stdin(Stdio::null())
            .output()
            .expect("running the stand-in for minikube");
        Ran::from(&output, began.elapsed())
    }

    /// Where the tool keeps what it has of a minikube profile.
    pub(crate) fn folder(&self) -> PathBuf {
        self.target.join("xtask/minikube").join(&self.profile)
    }

    /// Where the stand-in for minikube keeps the profile.
    pub(crate) fn minikube_home(&self) -> PathBuf {
        self.stand_in_home().join(&self.profile)
    }

    /// Each call of a stand-in, in order: the command line, and what of the environment matters.
    pub(crate) fn calls(&self) -> Vec<(String, String)> {
        let log = std::fs::read_to_string(self.scratch().join("calls.log")).unwrap_or_default();
        log.lines()
            .filter_map(|line| {
                let (call, env) = line.split_once(" |")?;
                let (_at, call) = call.split_once(' ')?;
                Some((call.to_owned(), env.trim().to_owned()))
            })
            .collect()
    }

    /// kubectl, pinned to this cluster.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Ran {
        let kubeconfig = self.run_ok(&["kubeconfig"]).stdout;
        let mut command = Command::new("kubectl");
        command.args(["--kubeconfig", kubeconfig.trim()]).args(args);
        Ran::of(command.env("HOME", self.scratch()))
    }

    /// Processes that carry this test's profile or scratch folder in their command line or environment.
    pub(crate) fn processes(&self) -> Vec<String> {
        let output = Command::new("ps").args(["axeww", "-o", "pid=,command="]).output().expect("running ps");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let scratch = self.scratch().display().to_string();
        // Another test's profile may begin with this one's name.
        let home = self.home().display().to_string();
        let profile = format!("XTASK_PROFILE={}", self.profile);
        let is_ours =
            |word: &str| word == profile || word.ends_with(&home) || word.contains(&format!("{home}/"));
        // The environment of every child names the profile; `ps` and this test's own process do not.
        text.lines()
            .filter(|line| line.contains(&scratch) || line.split_whitespace().any(is_ours))
            .filter(|line| !line.contains("ps axeww"))
            .map(str::to_owned)
            .collect()
    }
}

/// A run of the tool that is under way.
pub(crate) struct Started(std::process::Child);

impl Started {
    /// Waits for its end.
    pub(crate) fn code(&mut self) -> Option<i32> {
        self.0.wait().expect("waiting for the tool").code()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for World {
    #[allow(clippy::print_stderr)] // the only trace of a failed test
    fn drop(&mut self) {
        let _ = self.sandbox_itself("stop", &[]).output();
        if self.minikube_home().exists() {
            self.minikube_itself(&["delete"]);
        }
        if std::thread::panicking() {
            eprintln!("kept for a look: {}", self.home().display());
        } else {
            let _ = std::fs::remove_dir_all(self.home());
            let _ = std::fs::remove_dir_all(self.folder());
        }
    }
}

impl Ran {
    /// Runs a program to its end.
    pub(crate) fn of(command: &mut Command) -> Ran {
        let began = Instant::now();
        let output = command.stdin(Stdio::null()).output();
        let program = command.get_program().to_string_lossy();
        let missing = "must be on PATH; `cargo xtask test` installs it";
        Ran::from(&output.unwrap_or_else(|error| panic!("{program} {missing}: {error}")), began.elapsed())
    }

    fn from(output: &Output, took: Duration) -> Ran {
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took,
        }
    }

    /// The JSON objects of `--output json`.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// The last of them.
    pub(crate) fn summary(&self) -> Value {
        let last = self.events().pop().unwrap_or_else(|| panic!("no output; stderr: {}", self.stderr));
        assert_eq!(last["event"], "summary");
        last
    }
}

/// Waits for a condition of the outside world.
pub(crate) fn eventually(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + deadline;
    while !condition() {
        assert!(Instant::now() < until, "not within {deadline:?}: {what}");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// The sandbox as its sources are now. Cargo has built it for the tests of the workspace, and builds it here for those
/// of this package alone.
fn sandbox_program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let mut cargo = Command::new(env!("CARGO"));
        // All packages in this test's own profile, for the dependencies that are built already.
        let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
        cargo.args(["build", "--profile", profile, "--quiet", "--locked", "--workspace", "--bin", "sandbox"]);
        let names = std::env::vars().map(|(name, _)| name);
        for name in names.filter(|name| xtask::proc::is_of_a_package(name)) {
            cargo.env_remove(name);
        }
        let ran = Ran::of(cargo.current_dir(workspace()));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        Path::new(env!("CARGO_BIN_EXE_xtask")).with_file_name("sandbox")
    });
    &PROGRAM
}

fn stand_ins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-ins")
}

pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Cargo's target folder, as the tool finds it.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().join("target"), |dir| workspace().join(dir))
}

/// Seeded weights, so that no test depends on a network.
fn weights_once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if !target().join("xtask/weights").exists() {
            let status = Command::new(env!("CARGO_BIN_EXE_xtask"))
                .args(["weights", "generate"])
                .current_dir(workspace())
                .status()
                .expect("generating weights");
            assert!(status.success(), "generating weights");
        }
    });
}
