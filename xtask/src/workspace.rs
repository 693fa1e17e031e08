//! The Cargo workspace that this tool works on: its folder, and where it builds.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::failure::{Attach as _, Exit};
use crate::proc;

/// The nearest folder above the current one that holds a Cargo workspace.
///
/// # Errors
/// Outside of one; exit code 10.
pub fn root() -> Result<PathBuf> {
    let here = std::env::current_dir().context("finding the current folder")?;
    for dir in here.ancestors() {
        let manifest = dir.join("Cargo.toml");
        if std::fs::read_to_string(&manifest).is_ok_and(|text| text.contains("[workspace]")) {
            return Ok(dir.to_owned());
        }
    }
    let lost = || -> Result<PathBuf> { bail!("no Cargo workspace at or above {}", here.display()) };
    lost().hint("run this inside a clone of the repository").exit(Exit::Preflight)
}

/// Where Cargo builds, by its own word: a variable, any of its configuration files, or its default may decide.
///
/// # Errors
/// When Cargo can't say; exit code 10.
pub fn target(root: &Path) -> Result<PathBuf> {
    #[derive(serde::Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let sh = proc::shell()?;
    let cargo = proc::cargo();
    let command = xshell::cmd!(sh, "{cargo} metadata --no-deps --offline --format-version=1");
    let command = proc::Command::from(command).current_dir(root);
    let ask = || -> Result<Metadata> {
        serde_json::from_str(&proc::output(command)?).context("reading what `cargo metadata` printed")
    };
    let metadata = ask()
        .context("asking Cargo for its target folder")
        .hint("`cargo metadata --no-deps` in this folder says what is wrong")
        .exit(Exit::Preflight)?;
    Ok(metadata.target_directory)
}
