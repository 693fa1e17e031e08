//! Cargo as a child: how a program of this workspace is built, what Cargo says while it compiles, and where it put the
//! program: by its own word, never by a guess.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use serde::Deserialize;
use xshell::cmd;

use crate::cx::Cx;
use crate::failure::{Attach as _, Printed};
use crate::pipeline::Running;
use crate::proc::excerpt::Excerpt;
use crate::proc::{self, Command, Heard};

/// What makes Cargo say where it put the program.
pub const MESSAGES: &str = "--message-format=json-render-diagnostics";

/// The packages of every build, whichever program it makes: what two of them depend on has the same features each time,
/// and is compiled once.
const TOGETHER: [&str; 3] = ["xtask", "sandbox", "simple-model-api"];

/// The command that builds one program of the workspace.
///
/// # Errors
/// When there is no current folder.
pub fn build_command(profile: &str, program: &str) -> Result<Command> {
    let (sh, cargo) = (proc::shell()?, proc::cargo());
    let packages = TOGETHER.iter().flat_map(|package| ["--package", package]);
    Ok(cmd!(sh, "{cargo} build --profile {profile} --locked {packages...} --bin {program} {MESSAGES}").into())
}

/// Runs a build command that has [`MESSAGES`]; the live line shows how far it is. Returns the program that it made.
///
/// # Errors
/// When the build fails, or Cargo names no such program.
pub async fn build(cx: &Cx, step: &Running<'_>, command: Command, program: &str) -> Result<PathBuf> {
    let messages = proc::run_with(cx, step, command.current_dir(&cx.root), hear);
    executable(&messages.await.hint("the compiler's output is above")?, program)
}

/// [`build`] for commands without steps: nothing is said while it goes well.
///
/// # Errors
/// As [`build`].
pub async fn build_quietly(cx: &Cx, command: Command, program: &str) -> Result<PathBuf> {
    let shown = command.to_string();
    let answer = proc::ask(cx, command.current_dir(&cx.root)).await?;
    if !answer.status.success() {
        let lines = Excerpt::of(&answer.stderr).lines(None);
        let failed = Err(anyhow!("`{shown}` {}", proc::ending(answer.status)));
        return failed.attach(Printed { by: shown, lines, log: None });
    }
    executable(&answer.stdout, program)
}

/// What a line of a build is to a person.
#[must_use]
pub fn hear(line: &str) -> Heard {
    let line = line.trim();
    let is_message = line.starts_with('{');
    // The bar says it better.
    let is_in_bar = line.starts_with("Compiling ") || line.starts_with("Checking ");
    let live = progress(line).or_else(|| (!is_message && !is_in_bar).then(|| line.to_owned()));
    Heard { live, quote: !is_message }
}

/// Cargo's bar, `Building [==>  ] 12/34: serde, tokio`, in words.
fn progress(line: &str) -> Option<String> {
    let (_, rest) = line.strip_prefix("Building [")?.split_once("] ")?;
    let (count, crates) = rest.split_once(": ").unwrap_or((rest, ""));
    let (done, all) = count.split_once('/')?;
    let crates = if crates.is_empty() { String::new() } else { format!(": {crates}") };
    Some(format!("compiling, {done} of {all} crates done{crates}"))
}

/// The program, from Cargo's messages: one JSON object a line.
fn executable(messages: &str, program: &str) -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        reason: String,
        target: Option<Target>,
        executable: Option<PathBuf>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
    }
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    messages
        .filter(|message| message.reason == "compiler-artifact")
        .filter(|message| message.target.as_ref().is_some_and(|target| target.name == program))
        .filter_map(|message| message.executable)
        .next_back()
        .ok_or_else(|| anyhow!("the build succeeded, but Cargo names no executable of {program}"))
        .hint(
            "a `build.rustc-wrapper` or an alias may keep Cargo's messages back; see `cargo config get \
               build`",
        )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_binary_is_the_one_that_cargo_names() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"rten"},"executable":null,"fresh":true}
{"reason":"build-script-executed","package_id":"ort","out_dir":"/out"}
a wrapper's own words
{"reason":"compiler-artifact","target":{"name":"simple_model_api"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"simple-model-api"},"executable":"/else/x86_64/release/simple-model-api"}
{"reason":"build-finished","success":true}"#;
        let binary = executable(messages, "simple-model-api").expect("a program");
        assert_eq!(binary, Path::new("/else/x86_64/release/simple-model-api"));
        let error = executable(r#"{"reason":"build-finished","success":true}"#, "simple-model-api");
        assert!(error.expect_err("none").to_string().contains("names no executable of simple-model-api"));
    }

    #[test]
    fn a_live_line_says_how_far_the_build_is() {
        let live = |line: &str| hear(line).live;
        assert_eq!(
            live("    Building [=============>           ] 256/456: rand_chacha, ring(build)            ")
                .as_deref(),
            Some("compiling, 256 of 456 crates done: rand_chacha, ring(build)")
        );
        assert_eq!(live("    Building [=> ] 0/3").as_deref(), Some("compiling, 0 of 3 crates done"));
        assert_eq!(live("   Compiling digest v0.10.7"), None);
        assert_eq!(live(r#"{"reason":"build-finished","success":true}"#), None);
        let blocked = "    Blocking waiting for file lock on build directory";
        assert_eq!(live(blocked).as_deref(), Some(blocked.trim()));
    }
}
