//! The sandbox's program: built from this workspace when it is needed, and spoken to by its command line alone.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use xshell::cmd;

use crate::cargo;
use crate::cx::Cx;
use crate::image::archive::Contents;
use crate::pipeline::Running;
use crate::proc::{self, Command};

/// Its name.
const PROGRAM: &str = "sandbox";
/// A program that is built already: where tests and packagers keep theirs.
const GIVEN: &str = "XTASK_SANDBOX";
/// Compiled as this tool is, so that both share what they have in common.
const PROFILE: &str = if cfg!(debug_assertions) { "dev" } else { "release" };
/// The program's exit code for "there is none".
const NOT_FOUND: i32 = 4;
/// What says of a daemon how it is reached, in its folder.
pub(super) const INFO: &str = "sandbox.json";

/// The program's file.
#[derive(Clone, Debug)]
pub struct Program(PathBuf);

/// What a folder says of its sandbox: the answer of `sandbox status --output json`.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum State {
    /// None runs, and nothing is left of one.
    Absent,
    /// None runs; the last one was killed and left its state.
    Stale,
    /// It runs, but is not ready yet or no more.
    Starting,
    /// It runs and is ready.
    Running(Info),
}

/// A running sandbox; fields as its program writes them.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub struct Info {
    /// The daemon.
    pub pid: i32,
    /// The base URL of its ingress.
    pub entry: String,
    /// With the token, and one context.
    pub kubeconfig: PathBuf,
    /// Whether the daemon is of the same build as the program that was asked.
    pub current: bool,
}

impl Program {
    /// The program as its sources are now: the one that was given, else built by Cargo with the step's live line.
    ///
    /// # Errors
    /// When the build fails.
    pub async fn build(cx: &Cx, step: &Running<'_>) -> Result<Program> {
        match given() {
            Some(given) => Ok(given),
            None => {
                step.at("building the sandbox's program");
                let built = cargo::build(cx, step, build_command()?, PROGRAM).await;
                built.context("building the sandbox's program").map(Program)
            }
        }
    }

    /// A program that can be asked about a folder, for commands that start none: that of the daemon there, else as
    /// [`Program::build`] has it. None where the folder is not there: nobody has to be asked about that.
    ///
    /// # Errors
    /// When the build fails.
    pub async fn of(cx: &Cx, home: &Path) -> Result<Option<Program>> {
        if std::fs::symlink_metadata(home).is_err() {
            return Ok(None);
        }
        if let Some(program) = given().or_else(|| Program::of_running(home)) {
            return Ok(Some(program));
        }
        let built = cargo::build_quietly(cx, build_command()?, PROGRAM).await;
        built.context("building the sandbox's program").map(|built| Some(Program(built)))
    }

    /// The program of the daemon that a folder speaks of, or the one that was given; none where it speaks of none.
    pub fn of_running(home: &Path) -> Option<Program> {
        #[derive(Deserialize)]
        struct Daemon {
            program: PathBuf,
        }
        let written = std::fs::read(home.join(INFO)).ok()?;
        given().or_else(|| {
            let daemon = serde_json::from_slice::<Daemon>(&written).ok()?;
            daemon.program.is_file().then_some(Program(daemon.program))
        })
    }

    /// What a folder says of its sandbox.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub async fn state(&self, cx: &Cx, home: &Path) -> Result<State> {
        let line = self.ask(cx, "status", home, &["--output", "json"]).await?;
        let line = line.context("`sandbox status` says that there is none")?;
        serde_json::from_str(&line).with_context(|| format!("reading what `sandbox status` printed: {line}"))
    }

    /// Ends a sandbox and clears what is left of it.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop(&self, cx: &Cx, home: &Path) -> Result<()> {
        self.ask(cx, "stop", home, &[""; 0]).await.map(drop)
    }

    /// Switches an addon on; whether that changed anything.
    ///
    /// # Errors
    /// When the sandbox does not run, or refuses.
    pub async fn enable(&self, cx: &Cx, home: &Path, addon: &str) -> Result<bool> {
        let said = self.ask(cx, "enable", home, &[addon]).await?;
        Ok(said.context("the sandbox does not run any more")? == "enabled")
    }

    /// The id of an image, if the store has it.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn image(&self, cx: &Cx, home: &Path, reference: &str) -> Result<Option<String>> {
        self.ask(cx, "image", home, &[reference]).await
    }

    /// Puts an image into the store and returns its id.
    ///
    /// # Errors
    /// When a file can't be read or the store can't be written.
    pub async fn import(&self, cx: &Cx, home: &Path, image: &Contents) -> Result<String> {
        let id = self.ask(cx, "import", home, &import_args(image)).await?;
        id.context("`sandbox import` printed no id")
    }

    /// The command line of one of its commands.
    ///
    /// # Errors
    /// When there is no current folder.
    pub fn command(&self, name: &str, home: &Path, args: &[impl AsRef<OsStr>]) -> Result<Command> {
        let (sh, Program(program)) = (proc::shell()?, self);
        Ok(cmd!(sh, "{program} {name} --home {home} {args...}").into())
    }

    /// The one line that a command prints; none where it says that there is none.
    async fn ask(
        &self,
        cx: &Cx,
        name: &str,
        home: &Path,
        args: &[impl AsRef<OsStr>],
    ) -> Result<Option<String>> {
        let command = self.command(name, home, args)?;
        let shown = command.to_string();
        let answer = proc::ask(cx, command).await?;
        match answer.status.code() {
            Some(0) => Ok(Some(answer.stdout.trim().to_owned())),
            Some(NOT_FOUND) => Ok(None),
            _ => {
                let why = answer.stderr.trim();
                bail!("`{shown}` failed: {}", why.strip_prefix("error: ").unwrap_or(why))
            }
        }
    }
}

fn given() -> Option<Program> {
    std::env::var_os(GIVEN).filter(|given| !given.is_empty()).map(|given| Program(given.into()))
}

/// The program by its name alone, for plans: nothing is built for them.
pub fn unbuilt() -> Program {
    Program(PROGRAM.into())
}

/// The command that builds the program.
///
/// # Errors
/// When there is no current folder.
pub fn build_command() -> Result<Command> {
    cargo::build_command(PROFILE, PROGRAM)
}

/// The image as `sandbox import` takes it, whose pods see no root but the image's own folder.
fn import_args(image: &Contents) -> Vec<OsString> {
    let within = |path: &str| format!("{{root}}{path}");
    let mut args: Vec<OsString> = vec!["--tag".into(), image.reference.clone().into()];
    for entry in image.layers.iter().flatten() {
        let mut file = entry.from.clone().into_os_string();
        file.push(format!("={}", entry.to));
        args.extend(["--file".into(), file]);
    }
    for variable in &image.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        let value = if value.starts_with('/') { within(value) } else { value.to_owned() };
        args.extend(["--env".into(), format!("{name}={value}").into()]);
    }
    args.push("--".into());
    args.extend(image.entrypoint.iter().map(|word| within(word).into()));
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_imported_with_its_paths_below_its_own_folder() {
        let image =
            crate::image::contents("app:1", crate::image::ARCHITECTURE, Path::new("/t/app"), Path::new("/m"));
        let args = import_args(&image).join(OsStr::new(" "));
        let expected = "--tag app:1 --file /m/model.onnx=model/model.onnx --file \
                        /m/manifest.json=model/manifest.json \
            --file /t/app=simple-model-api --env MODEL_DIR={root}/model -- {root}/simple-model-api";
        assert_eq!(args, expected);
    }

    #[test]
    fn states_are_read_as_the_program_writes_them() {
        let read = |json: &str| serde_json::from_str::<State>(json).expect("a state");
        assert_eq!(read(r#"{"state":"stale"}"#), State::Stale);
        let running = r#"{"state":"running","pid":7,"entry":"http://127.0.0.1:1","kubeconfig":"k","current":true,"api":"a"}"#;
        let info = Info { pid: 7, entry: "http://127.0.0.1:1".into(), kubeconfig: "k".into(), current: true };
        assert_eq!(read(running), State::Running(info));
    }
}
