//! The programs that a run calls.

use std::time::Duration;

use anyhow::Result;
use xshell::cmd;

use super::Finding;
use crate::clusters::{Choice, Kind};
use crate::cx::Cx;
use crate::proc::{self, Command};

/// A program that does not say its version in this time is not working.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The oldest compiler that builds the workspace.
const RUST: &str = env!("CARGO_PKG_RUST_VERSION");

pub(super) async fn look(cx: &Cx, choice: &Choice) -> Result<Vec<Finding>> {
    let sh = proc::shell()?;
    let compiler = std::env::var("CC").ok().filter(|cc| !cc.is_empty()).unwrap_or_else(|| "cc".to_owned());
    let (rustc, cargo, cc, docker, minikube, kubectl) = futures::join!(
        first_line(cx, cmd!(sh, "rustc --version").into()),
        first_line(cx, cmd!(sh, "cargo --version").into()),
        first_line(cx, cmd!(sh, "{compiler} --version").into()),
        first_line(cx, cmd!(sh, "docker --version").into()),
        first_line(cx, cmd!(sh, "minikube version --short").into()),
        first_line(cx, cmd!(sh, "kubectl version --client").into()),
    );
    let mut findings = vec![
        rust(rustc),
        cargo.map_or_else(
            |why| Finding::fatal("cargo", why, "install Rust: https://rustup.rs"),
            |version| Finding::ok("cargo", version),
        ),
        cc.map_or_else(
            |why| Finding::fatal("cc", format!("no C compiler: {why}"), install_compiler()),
            |version| Finding::ok("cc", version),
        ),
    ];
    // What minikube needs and lacks is among the cluster's own problems.
    let needs_engine = matches!(choice.kind, Kind::Minikube(_));
    for (name, version) in [("docker", docker), ("minikube", minikube)] {
        match version {
            Ok(version) => findings.push(Finding::ok(name, version)),
            Err(_) if needs_engine => {}
            Err(why) => findings.push(Finding::ok(name, format!("{why}; the sandbox needs none"))),
        }
    }
    findings.push(kubectl.map_or_else(
        |why| {
            let fix = "optional: https://kubernetes.io/docs/tasks/tools, or `scripts/install-test-tools`";
            Finding::warning("kubectl", format!("{why}; used only by you and the tests"), fix)
        },
        |version| Finding::ok("kubectl", version),
    ));
    Ok(findings)
}

/// The first line of what a command prints, or why there is none.
async fn first_line(cx: &Cx, command: Command) -> Result<String, String> {
    let shown = command.to_string();
    let program = shown.split(' ').next().unwrap_or_default().to_owned();
    if which::which(&program).is_err() {
        return Err(format!("no `{program}` on PATH"));
    }
    match tokio::time::timeout(PATIENCE, proc::ask(cx, command)).await {
        Err(_) => Err(format!("`{shown}` did not answer within {} s", PATIENCE.as_secs())),
        Ok(Err(error)) => Err(crate::failure::paragraph(&error)),
        Ok(Ok(answer)) if answer.status.success() => {
            Ok(answer.stdout.lines().next().unwrap_or_default().trim().to_owned())
        }
        Ok(Ok(answer)) => {
            let printed = answer.stderr.lines().next().unwrap_or("nothing").trim().to_owned();
            Err(format!("`{shown}` fails: {printed}"))
        }
    }
}

fn rust(version: Result<String, String>) -> Finding {
    let fix = "`rustup update stable`; rustup itself: https://rustup.rs";
    match version {
        Err(why) => Finding::fatal("rustc", why, fix),
        Ok(text) if number(&text).is_some_and(|found| found < number(RUST).unwrap_or_default()) => {
            Finding::fatal("rustc", format!("{text}; this workspace needs {RUST}"), fix)
        }
        Ok(text) => Finding::ok("rustc", text),
    }
}

/// Major and minor of the first word that has both.
fn number(text: &str) -> Option<(u32, u32)> {
    text.split([' ', '-']).find_map(|word| {
        let mut parts = word.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

fn install_compiler() -> &'static str {
    if cfg!(target_os = "macos") {
        "`xcode-select --install`"
    } else {
        "`sudo apt-get install gcc`, or your distribution's package"
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn an_old_compiler_is_refused_and_an_odd_one_is_not() {
        let level = |text: &str| rust(Ok(text.to_owned())).level;
        assert_eq!(level("rustc 1.60.0 (7737e0b5c 2022-04-04)"), Level::Fatal);
        assert_eq!(level("rustc 1.200.0-nightly (0 2030-01-01)"), Level::Ok);
        assert_eq!(level("rustc of my own"), Level::Ok);
        assert_eq!(rust(Err("no `rustc` on PATH".to_owned())).level, Level::Fatal);
    }
}
