//! The app's image: named by a hash of what it is built from, so that unchanged inputs need no build.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use xshell::cmd;

use crate::cargo;
use crate::clusters::Cluster;
use crate::cx::Cx;
use crate::gates;
use crate::image::Digests;
use crate::manifests::REPOSITORY;
use crate::pipeline::{Branch, Done, Running, step};
use crate::plan::Planned;
use crate::proc::{self, Command};
use crate::steps::weights::Weights;

/// The app's Cargo package and the binary that it makes.
pub const PACKAGE: &str = "simple-model-api";
/// Where the app's sources are, in the workspace.
const APP: &str = "app";
/// Files that decide how the app is compiled, where they are there.
const SETTINGS: [&str; 4] = [".cargo/config.toml", ".cargo/config", "rust-toolchain.toml", "rust-toolchain"];
/// Folders of the app that do not end up in the image.
const NOT_IN_IMAGE: [&str; 4] = ["tests", "benches", "fuzz", "target"];

/// How much of its hash the tag has.
const TAG_DIGITS: usize = 12;

/// Its name.
const NAME: &str = "image";

/// What it would do; `commands` are the kind's own.
pub fn plan(commands: Vec<String>) -> Planned {
    let tag =
        format!("{REPOSITORY}:TAG, a hash of app/, Cargo.lock and the weights; if it is there: nothing");
    Planned::step(NAME, [vec![tag], commands].concat()).gate(&gates::image::GATE)
}

/// An image in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRef {
    /// `repository:tag`.
    pub reference: String,
    /// What the cluster may know it by.
    pub digests: Digests,
}

/// What an image is made of.
pub struct Recipe {
    /// Hash of all inputs, 12 hex digits.
    pub tag: String,
    /// The folder with the model.
    pub model_dir: PathBuf,
    /// The app's binary, where it was compiled of these inputs before.
    compiled: Option<PathBuf>,
}

/// The app's binary, and what it was compiled of.
#[derive(Debug)]
pub struct Compiled {
    /// Hash of the image's inputs without the weights.
    pub sources: String,
    /// The binary.
    pub binary: PathBuf,
}

impl Recipe {
    /// `repository:tag`.
    pub fn reference(&self) -> String {
        format!("{REPOSITORY}:{}", self.tag)
    }
}

/// Gets the image into the cluster and passes its gate; `compiled` is the app's binary, where it was compiled before.
///
/// # Errors
/// When the build fails, or the cluster knows another image than the one just built.
pub async fn run(
    branch: &mut Branch<'_>,
    cluster: &Done<Cluster>,
    weights: &Done<Weights>,
    compiled: Option<&Compiled>,
) -> Result<Done<ImageRef>> {
    let cx = branch.cx;
    let image = step(branch, NAME, async |step| {
        let recipe = recipe(cx, weights, compiled)?;
        cluster.kind.build_image(cx, step, cluster, &recipe).await
    })
    .await?;
    gates::image::wait(branch, cluster, &image).await?;
    Ok(image)
}

/// What the image is built from, but for the weights.
#[derive(Debug, Default)]
pub struct Inputs {
    /// The files.
    pub files: Vec<PathBuf>,
    /// The folders that may hold more of them.
    pub folders: Vec<PathBuf>,
}

/// What the image is built from, but for the weights.
///
/// # Errors
/// When a folder can't be listed.
pub fn inputs(root: &Path) -> Result<Inputs> {
    let mut inputs = Inputs::default();
    inputs.files.extend([root.join("Cargo.toml"), root.join("Cargo.lock")]);
    let settings = SETTINGS.iter().map(|name| root.join(name));
    inputs.files.extend(settings.filter(|path| path.is_file()));
    sources(&root.join(APP), &mut inputs)?;
    Ok(inputs)
}

/// Hash of the image's inputs without the weights.
///
/// # Errors
/// When one can't be read.
pub fn sources_hash(root: &Path) -> Result<String> {
    Ok(hex(hash_of_sources(root)?))
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hash_of_sources(root: &Path) -> Result<Sha256> {
    let mut hash = Sha256::new();
    for path in inputs(root)?.files {
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        let content = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        // Lengths first, so that no two trees have the same bytes.
        hash.update(format!("{name}\0{}\0", content.len()));
        hash.update(content);
    }
    Ok(hash)
}

fn recipe(cx: &Cx, weights: &Weights, compiled: Option<&Compiled>) -> Result<Recipe> {
    let sources = hash_of_sources(&cx.root)?;
    // What was edited since then is compiled again.
    let compiled = compiled.filter(|compiled| compiled.sources == hex(sources.clone()));
    let mut tag = hex(sources.chain_update(&weights.manifest.sha256));
    tag.truncate(TAG_DIGITS);
    let compiled = compiled.map(|compiled| compiled.binary.clone());
    Ok(Recipe { tag, model_dir: weights.dir.clone(), compiled })
}

/// Whether a file's name is that of an editor's or Finder's droppings, which are no inputs. 4913 is how Vim finds out whether
/// it may write to a folder.
#[must_use]
pub fn is_scratch(name: &str) -> bool {
    let is_hidden = name.starts_with('.') && name != ".dockerignore";
    is_hidden || name.ends_with('~') || (name.starts_with('#') && name.ends_with('#')) || name == "4913"
}

fn sources(dir: &Path, found: &mut Inputs) -> Result<()> {
    found.folders.push(dir.to_owned());
    let listing = std::fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))?;
    let mut entries =
        listing.collect::<std::io::Result<Vec<_>>>().with_context(|| format!("listing {}", dir.display()))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if is_scratch(&name) {
            continue;
        }
        let path = entry.path();
        if !path.is_dir() {
            found.files.push(path);
        } else if !NOT_IN_IMAGE.contains(&&*name) {
            sources(&path, found)?;
        }
    }
    Ok(())
}

/// How the app's binary is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linkage {
    /// As usual on this machine, where it is also run.
    Host,
    /// With everything in it, for an image that holds nothing else: linked to this machine's glibc, it would not
    /// start where that is older.
    Static,
}

/// The command that compiles the app on this machine.
///
/// # Errors
/// When there is no current folder.
pub fn compile_command(linkage: Linkage) -> Result<Command> {
    match linkage {
        Linkage::Host => cargo::build_command("release", PACKAGE),
        Linkage::Static => {
            let (sh, cargo, messages) = (proc::shell()?, proc::cargo(), cargo::MESSAGES);
            // `rustc`, since its last arguments reach the binary alone.
            let build =
                cmd!(sh, "{cargo} rustc --release --locked --package {PACKAGE} --bin {PACKAGE} {messages}");
            Ok(build.args(["--", "-Ctarget-feature=+crt-static"]).into())
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
            Some(binary) => Ok(binary.clone()),
            None => compile(cx, step, linkage).await,
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

/// Lays out a folder that `docker build` takes: the binary compiled here where the node can run it, else the
/// sources for a build in stages; the model; the Dockerfile.
///
/// # Errors
/// When the compilation fails or the folder can't be written.
pub async fn stage(cx: &Cx, step: &Running<'_>, recipe: &Recipe, folder: &Path) -> Result<()> {
    let mut files: Vec<(PathBuf, PathBuf)> = Vec::new();
    let app = cx.root.join(APP);
    if HOST_IS_NODE {
        files.push((recipe.binary(cx, step, Linkage::Static).await?, PACKAGE.into()));
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
