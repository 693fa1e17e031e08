//! `cargo xtask test`: fetches what the tests call, runs them all, and ends with what did not run and why.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use clap::Args;
use serde_json::json;
use xshell::cmd;

use crate::cargo;
use crate::cx::Cx;
use crate::failure::{Attach as _, Exit, is_echo};
use crate::pipeline::{Branch, Outcome, Running, step};
use crate::plan::Planned;
use crate::proc::{self, Command, Heard};
use crate::summary::Summary;

/// What the tests call beside Cargo.
const TOOLS: [&str; 3] = ["kubectl", "curl", "ps"];
/// A real API server, for the tests that compare.
const ENVTEST: [&str; 2] = ["etcd", "kube-apiserver"];
/// Tests with a harness of their own, which nextest does not know.
const OWN_HARNESS: &str = "real_api_server";

/// Which tests.
#[derive(Args, Clone, Debug)]
pub struct TestArgs {
    /// Only tests whose name holds one of these.
    pub names: Vec<String>,
}

/// The name of its step.
const NAME: &str = "test";

/// Runs the tests.
///
/// # Errors
/// When a tool can't be had (exit code 10), or a test fails.
pub async fn run(branch: &mut Branch<'_>, args: &TestArgs) -> Result<Summary> {
    let cx = branch.cx;
    let tally = step(branch, NAME, async |step| {
        fetch(cx, step).await?;
        let mut tally = Tally::default();
        let mut failure = None;
        for command in commands(cx, args)? {
            let result = proc::run_with(cx, step, command, |line| tally.hear(line)).await;
            tally.begins_anew();
            match result {
                Err(error) if is_echo(&error) => return Err(error),
                Err(error) => failure = failure.or(Some(error)),
                Ok(_) => {}
            }
        }
        if let Some(error) = failure {
            let error = if tally.failed.is_empty() { error } else { error.context(tally.failures()) };
            return Err(error.attach(tally.summary()).hint(tally.not_run()));
        }
        if tally.passed == 0 {
            return Err(anyhow!("no test has a name like that")).exit(Exit::Usage);
        }
        let detail = format!("{} passed; {}", tally.passed, tally.not_run());
        Ok(Outcome::Did(tally, detail))
    })
    .await?;
    Ok(tally.summary())
}

/// The commands that it runs, for `--dry-run`.
///
/// # Errors
/// When there is no current folder.
pub fn plan(cx: &Cx, args: &TestArgs) -> Result<Vec<Planned>> {
    let fetched = "scripts/install-test-tools and scripts/install-onnxruntime, where something is missing";
    let commands = commands(cx, args)?;
    let does = [fetched.to_owned()].into_iter().chain(commands.iter().map(Command::to_string));
    Ok(vec![Planned::step(NAME, does.collect())])
}

/// Where tools are unpacked that could not be installed.
fn unpacked(cx: &Cx) -> PathBuf {
    cx.target.join("test-tools")
}

/// PATH with what was unpacked.
fn search_path(cx: &Cx) -> Option<std::ffi::OsString> {
    let own = unpacked(cx).join("usr/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    own.is_dir().then(|| std::env::join_paths([own].into_iter().chain(std::env::split_paths(&path))).ok())?
}

fn missing(cx: &Cx) -> Vec<&'static str> {
    let path = search_path(cx).or_else(|| std::env::var_os("PATH"));
    TOOLS.into_iter().filter(|tool| which::which_in(tool, path.as_ref(), &cx.root).is_err()).collect()
}

async fn fetch(cx: &Cx, step: &Running<'_>) -> Result<()> {
    let lacking = missing(cx).join(", ");
    if !lacking.is_empty() {
        step.at(format!("installing {lacking}"));
        let (sh, script, folder) = (proc::shell()?, cx.root.join("scripts/install-test-tools"), unpacked(cx));
        let installed = proc::run(cx, step, cmd!(sh, "{script} {folder}").into()).await;
        let still = missing(cx).join(", ");
        if !still.is_empty() {
            let error = installed.err().unwrap_or_else(|| anyhow!("{still}: still not on PATH"));
            return Err(error.context(format!("installing {lacking}")))
                .hint(format!("the tests call {still}: install it, and run again"))
                .exit(Exit::Preflight);
        }
    }
    step.at("looking for ONNX Runtime");
    let (sh, script) = (proc::shell()?, cx.root.join("scripts/install-onnxruntime"));
    // Where it can't be had, the tests of the second engine say that they did not run.
    match proc::run(cx, step, cmd!(sh, "{script}").into()).await {
        Err(error) if is_echo(&error) => Err(error),
        _ => Ok(()),
    }
}

/// nextest where it is there. It runs neither examples in the documentation nor tests with a harness of their own.
fn commands(cx: &Cx, args: &TestArgs) -> Result<Vec<Command>> {
    let (sh, cargo, names) = (proc::shell()?, proc::cargo(), &args.names);
    let filter: &[&str] = if names.is_empty() { &[] } else { &["--"] };
    // In the profile that the tool itself is in: what they share is compiled once.
    let build = ["--release", "--workspace", "--locked"];
    let has_nextest = which::which("cargo-nextest").is_ok();
    let commands = if has_nextest {
        vec![
            cmd!(sh, "{cargo} nextest run {build...} --no-fail-fast {names...}"),
            cmd!(sh, "{cargo} test {build...} --test {OWN_HARNESS} {filter...} {names...}"),
            cmd!(sh, "{cargo} test {build...} --no-fail-fast --doc {filter...} {names...}"),
        ]
    } else {
        vec![cmd!(sh, "{cargo} test {build...} --no-fail-fast {filter...} {names...}")]
    };
    let envtest = envtest();
    Ok(commands
        .into_iter()
        .map(|command| {
            // How this command was set is nothing to the tests.
            let command = Command::from(command).current_dir(&cx.root).without("XTASK_");
            let command = command.envs(search_path(cx).map(|path| ("PATH", path)));
            command.envs(envtest.as_ref().map(|folder| ("KUBEBUILDER_ASSETS", folder)))
        })
        .collect())
}

/// The folder with a real API server, where the machine has one and no variable names it.
fn envtest() -> Option<PathBuf> {
    if std::env::var_os("KUBEBUILDER_ASSETS").is_some() {
        return None;
    }
    let on_path = which::which(ENVTEST[1]).ok().and_then(|program| Some(program.parent()?.to_owned()));
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let data = data.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share")));
    // Where setup-envtest keeps them, one folder a version.
    let mut kept: Vec<PathBuf> = data
        .and_then(|data| std::fs::read_dir(data.join("kubebuilder-envtest/k8s")).ok())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    kept.sort_unstable();
    let usual = Path::new("/usr/local/kubebuilder/bin").to_owned();
    let has_all = |folder: &PathBuf| ENVTEST.iter().all(|program| folder.join(program).is_file());
    on_path.into_iter().chain([usual]).chain(kept.into_iter().rev()).find(has_all)
}

/// What the runners have said.
#[derive(Debug, Default)]
struct Tally {
    passed: u32,
    failed: Vec<String>,
    left_out: Vec<String>,
    /// Compiled: what comes now is the tests'.
    has_begun: bool,
    /// The part that quotes what failed.
    is_explaining: bool,
}

impl Tally {
    /// Takes a line, of libtest's or of nextest's.
    fn hear(&mut self, line: &str) -> Heard {
        let line = line.trim();
        if let Some((_, what)) = line.split_once("NOT TESTED") {
            let what = what.trim_start_matches(':').trim().to_owned();
            if !self.left_out.contains(&what) {
                self.left_out.push(what);
            }
            return Heard { live: None, quote: false };
        }
        if let Some((name, verdict)) = verdict(line) {
            self.has_begun = true;
            match verdict {
                "ok" => self.passed += 1,
                "FAILED" => self.fails(name),
                // nextest tells a failure twice.
                _ if verdict.starts_with("ignored") => self.left_out.push(format!("{name} is ignored")),
                _ => {}
            }
            let failed = if self.failed.is_empty() {
                String::new()
            } else {
                format!(", {} failed", self.failed.len())
            };
            let live = Some(format!("{} passed{failed}: {name}", self.passed));
            return Heard { live, quote: false };
        }
        self.has_begun |= line.starts_with("Running ") || line.starts_with("running ");
        if line == "failures:" || line.contains("──── ") {
            self.is_explaining = true;
        } else if line.starts_with("test result:") || line.starts_with("Summary [") {
            self.is_explaining = false;
        }
        if !self.has_begun {
            return cargo::hear(line);
        }
        Heard { live: None, quote: self.is_explaining || line.starts_with("error") }
    }

    fn fails(&mut self, name: &str) {
        if !self.failed.iter().any(|known| known == name) {
            self.failed.push(name.to_owned());
        }
    }

    /// The next command compiles first.
    fn begins_anew(&mut self) {
        (self.has_begun, self.is_explaining) = (false, false);
    }

    fn failures(&self) -> String {
        let tests = if self.failed.len() == 1 { "1 test" } else { &format!("{} tests", self.failed.len()) };
        format!("{tests} failed, {} passed: {}", self.passed, self.failed.join(", "))
    }

    fn not_run(&self) -> String {
        if self.left_out.is_empty() {
            "everything ran".to_owned()
        } else {
            format!("did not run: {}", self.left_out.join("; "))
        }
    }

    fn summary(&self) -> Summary {
        let fields = [
            ("passed", json!(self.passed)),
            ("failed", json!(self.failed)),
            ("not_run", json!(self.left_out)),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// A test's name and how it ended: `test NAME ... ok`, or `PASS [   0.004s] ( 1/10) PACKAGE NAME`.
fn verdict(line: &str) -> Option<(&str, &str)> {
    if let Some(rest) = line.strip_prefix("test ") {
        return rest.rsplit_once(" ... ").filter(|(name, _)| !name.is_empty());
    }
    let (word, rest) = line.split_once(" [")?;
    let verdict = match word.split_whitespace().next()? {
        "PASS" => "ok",
        "FAIL" | "SIGABRT" | "SIGSEGV" | "SIGKILL" | "TIMEOUT" | "ABORT" => "FAILED",
        _ => return None,
    };
    let (_, name) = rest.split_once(']')?;
    let name = name.trim_start();
    Some((
        name.split_once(") ").filter(|_| name.starts_with('(')).map_or(name, |(_, name)| name).trim(),
        verdict,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(lines: &str) -> (Tally, Vec<String>) {
        let mut tally = Tally::default();
        let quoted = lines.lines().filter(|line| tally.hear(line).quote).map(|line| line.trim().to_owned());
        let quoted = quoted.collect();
        (tally, quoted)
    }

    #[test]
    fn libtests_words_are_understood() {
        let (tally, quoted) = tally(
            "   Compiling xtask v0.1.0\nwarning: unused variable\n     Running unittests \
             src/lib.rs\n\nrunning 4 tests\n\
             test a::b ... ok\nNOT TESTED: no kubectl on PATH\ntest c ... FAILED\ntest d ... ignored, too \
             slow\n\
             noise of a test\ntest e - should panic ... ok\n\nfailures:\n\n---- c stdout ----\nleft: 1\n\n\
             test result: FAILED. 2 passed; 1 failed\nNOT TESTED: no kubectl on PATH\nerror: 1 target \
             failed:\n",
        );
        assert_eq!(tally.failures(), "1 test failed, 2 passed: c");
        assert_eq!(tally.not_run(), "did not run: no kubectl on PATH; d is ignored");
        let shown: Vec<&str> = quoted.iter().map(String::as_str).filter(|line| !line.is_empty()).collect();
        assert_eq!(
            shown,
            [
                "Compiling xtask v0.1.0",
                "warning: unused variable",
                "failures:",
                "---- c stdout ----",
                "left: 1",
                "error: 1 target failed:"
            ]
        );
    }

    #[test]
    fn nextests_words_are_understood() {
        let (tally, _) = tally(
            "        PASS [   0.004s] ( 1/3) xtask cargo::tests::a\n        FAIL [   0.010s] ( 2/3) \
             xtask::it logs::b\n\
             ──── STDERR:             xtask::it logs::b\n        PASS [   0.004s] xtask c\n\
             ────────────\n     Summary [   0.1s] 3 tests run: 2 passed, 1 failed, 0 skipped\n\
             \u{20}       FAIL [   0.010s] ( 2/3) xtask::it logs::b\n",
        );
        assert_eq!(tally.failures(), "1 test failed, 2 passed: xtask::it logs::b");
        assert_eq!(tally.not_run(), "everything ran");
    }
}
