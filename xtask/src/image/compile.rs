//! The app's binary, compiled on this machine, and the folder that `docker build` takes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xshell::cmd;

use super::recipe::{APP, Inputs, Recipe, sources};
use crate::cargo;
use crate::cx::Cx;
use crate::pipeline::Running;
use crate::proc::{self, Command};

/// The app's Cargo package and the binary that it makes.
pub const PACKAGE: &str = "simple-model-api";

/// How the app's binary is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linkage {
    /// As usual on this machine, where it is also run.
    Host,
    /// With everything in it, for an image that holds nothing else: linked to this machine's glibc, it would not
    /// start where that is older.
    Static,
    /// Likewise, for the Rust target of another system or processor. The app has no C in it: Rust's own linker will do.
    Cross(&'static str),
}

/// The last arguments of `cargo rustc`, which reach the binary alone.
const STATIC: [&str; 2] = ["--", "-Ctarget-feature=+crt-static"];

/// The command that compiles the app on this machine.
///
/// # Errors
/// When there is no current folder.
pub fn compile_command(linkage: Linkage) -> Result<Command> {
    match linkage {
        Linkage::Host => cargo::build_command("release", PACKAGE),
        Linkage::Static => {
            let (sh, cargo, messages) = (proc::shell()?, proc::cargo(), cargo::MESSAGES);
            let build =
                cmd!(sh, "{cargo} rustc --release --locked --package {PACKAGE} --bin {PACKAGE} {messages}");
            Ok(build.args(STATIC).into())
        }
        Linkage::Cross(target) => {
            let (sh, cargo, messages) = (proc::shell()?, proc::cargo(), cargo::MESSAGES);
            let build = cmd!(sh, "{cargo} rustc --release --locked --package {PACKAGE} --bin {PACKAGE}");
            let linker = format!("target.{target}.linker=\"rust-lld\"");
            Ok(build.args(["--target", target, "--config", &linker, messages]).args(STATIC).into())
        }
    }
}

/// Compiles the app on this machine. Returns the binary that Cargo says it made.
///
/// # Errors
/// When the build fails.
pub async fn compile(cx: &Cx, step: &Running<'_>, linkage: Linkage) -> Result<PathBuf> {
    step.at("compiling the app");
    let build = cargo::build(cx, step, compile_command(linkage)?, PACKAGE);
    step.part("compile", build).await.context("compiling the app")
}

impl Recipe {
    /// The app's binary; compiled now, where it was not before.
    ///
    /// # Errors
    /// When the build fails.
    pub async fn binary(&self, cx: &Cx, step: &Running<'_>, linkage: Linkage) -> Result<PathBuf> {
        match &self.compiled {
            // What was compiled before is for this machine.
            Some(binary) if !matches!(linkage, Linkage::Cross(_)) => Ok(binary.clone()),
            _ => compile(cx, step, linkage).await,
        }
    }
}

/// Whether a binary compiled here runs in the node: same operating system, and a node of the host's architecture.
pub const HOST_IS_NODE: bool = cfg!(target_os = "linux");

/// The commands that [`stage`] runs, for `--dry-run`.
///
/// # Errors
/// When there is no current folder.
pub fn stage_plan() -> Result<Vec<String>> {
    Ok(if HOST_IS_NODE { vec![compile_command(Linkage::Static)?.to_string()] } else { Vec::new() })
}

/// Lays out a folder that `docker build` takes: the binary, where one was compiled here, else the sources for a build
/// in stages; the model; the Dockerfile.
///
/// # Errors
/// When the folder can't be written.
pub fn stage(
    cx: &Cx,
    step: &Running<'_>,
    recipe: &Recipe,
    binary: Option<PathBuf>,
    folder: &Path,
) -> Result<()> {
    let mut files: Vec<(PathBuf, PathBuf)> = Vec::new();
    let app = cx.root.join(APP);
    if let Some(binary) = binary {
        files.push((binary, PACKAGE.into()));
        files.push((app.join("Dockerfile.host"), "Dockerfile".into()));
    } else {
        files.push((app.join("Dockerfile"), "Dockerfile".into()));
        for name in ["Cargo.toml", "Cargo.lock"] {
            files.push((cx.root.join(name), name.into()));
        }
        let mut inputs = Inputs::default();
        for part in [APP, "sandbox", "xtask"] {
            sources(&cx.root.join(part), &mut inputs)?;
        }
        files.extend(inputs.files.into_iter().map(|path| {
            let inside = path.strip_prefix(&cx.root).unwrap_or(&path).to_owned();
            (path, inside)
        }));
    }
    for name in [xtask_weights::MODEL_FILE, xtask_weights::MANIFEST_FILE] {
        files.push((recipe.model_dir.join(name), Path::new("model").join(name)));
    }
    step.at("laying out the build's folder");
    let fresh = || -> Result<()> {
        if folder.exists() {
            std::fs::remove_dir_all(folder).with_context(|| format!("clearing {}", folder.display()))?;
        }
        for (from, inside) in &files {
            let to = folder.join(inside);
            if let Some(parent) = to.parent() {
                std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
            }
            std::fs::copy(from, &to)
                .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
        }
        Ok(())
    };
    tokio::task::block_in_place(fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_another_processor_cargo_is_asked_for_its_target_and_rusts_own_linker() {
        let target = "aarch64-unknown-linux-musl";
        let command = compile_command(Linkage::Cross(target)).expect("a command").to_string();
        for part in [
            " rustc --release --locked --package simple-model-api --bin simple-model-api --target ",
            "target.aarch64-unknown-linux-musl.linker=",
            "rust-lld",
            " -- -Ctarget-feature=+crt-static",
        ] {
            assert!(command.contains(part), "`{part}` is missing: {command}");
        }
    }
}
