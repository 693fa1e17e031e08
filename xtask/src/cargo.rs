//! Cargo as a child: what it says while it compiles, and which program it has made.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use serde::Deserialize;

use crate::cx::Cx;
use crate::failure::Attach as _;
use crate::pipeline::Running;
use crate::proc::{self, Command, Heard};

/// Compiles with a command that asks for `--message-format=json-render-diagnostics`; the live line shows how far it is.
/// Returns the program of that name, where Cargo says that it is.
///
/// # Errors
/// When the build fails, or makes no such program.
pub async fn build(cx: &Cx, step: &Running<'_>, command: Command, program: &str) -> Result<PathBuf> {
    let messages = proc::run_with(cx, step, command, hear).await.hint("the compiler's output is above")?;
    executable(&messages, program)
        .ok_or_else(|| anyhow!("the build succeeded, but Cargo names no executable of {program}"))
        .hint("a `build.rustc-wrapper` or an alias may keep Cargo's messages back; see `cargo config get build`")
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

/// A program, from Cargo's messages: one JSON object a line.
fn executable(messages: &str, program: &str) -> Option<PathBuf> {
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
        let binary = executable(messages, "simple-model-api");
        assert_eq!(binary.as_deref(), Some(Path::new("/else/x86_64/release/simple-model-api")));
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#, "simple-model-api"), None);
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
