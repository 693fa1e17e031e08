//! What an image is made of: its tag is a hash of that, so that unchanged inputs need no build.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::Digests;
use crate::repository::REPOSITORY;

/// Where the app's sources are, in the workspace.
pub(super) const APP: &str = "app";
/// Files that decide how the app is compiled, where they are there.
const SETTINGS: [&str; 4] = [".cargo/config.toml", ".cargo/config", "rust-toolchain.toml", "rust-toolchain"];
/// Folders of the app that do not end up in the image.
const NOT_IN_IMAGE: [&str; 4] = ["tests", "benches", "fuzz", "target"];

/// How much of its hash the tag has.
const TAG_DIGITS: usize = 12;

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
    pub(super) compiled: Option<PathBuf>,
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
    /// Of the workspace as it is now, with a model; `weights` is that model's checksum. What was edited since it was
    /// `compiled` is to be compiled again.
    ///
    /// # Errors
    /// When an input can't be read.
    pub fn of(root: &Path, model_dir: &Path, weights: &str, compiled: Option<&Compiled>) -> Result<Recipe> {
        let sources = hash_of_sources(root)?;
        let compiled = compiled.filter(|compiled| compiled.sources == hex(sources.clone()));
        let mut tag = hex(sources.chain_update(weights));
        tag.truncate(TAG_DIGITS);
        let compiled = compiled.map(|compiled| compiled.binary.clone());
        Ok(Recipe { tag, model_dir: model_dir.to_owned(), compiled })
    }

    /// `repository:tag`.
    pub fn reference(&self) -> String {
        format!("{REPOSITORY}:{}", self.tag)
    }
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

/// Whether a file's name is that of an editor's or Finder's droppings, which are no inputs. 4913 is how Vim finds out
/// whether it may write to a folder.
#[must_use]
pub fn is_scratch(name: &str) -> bool {
    let is_hidden = name.starts_with('.') && name != ".dockerignore";
    is_hidden || name.ends_with('~') || (name.starts_with('#') && name.ends_with('#')) || name == "4913"
}

/// The files below a folder that are inputs, in order.
pub(super) fn sources(dir: &Path, found: &mut Inputs) -> Result<()> {
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
