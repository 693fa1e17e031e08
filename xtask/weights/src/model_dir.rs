//! The folder that the app loads: `model.onnx` and the manifest that describes it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Preset, hex, sha256_hex};

/// File name of the graph with its weights.
pub const MODEL_FILE: &str = "model.onnx";
/// File name of the [`Manifest`].
pub const MANIFEST_FILE: &str = "manifest.json";

/// Small enough to be in the processor's cache still when it is hashed.
const READ_AT_A_TIME_BYTES: usize = 256 * 1024;

/// What `manifest.json` says of the `model.onnx` beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The architecture, as `/health` names it.
    pub name: String,
    /// The set of weights: a name from [`crate::SETS`], or `seeded-N`.
    pub weights: String,
    /// Where they came from: an address, or words.
    pub source: String,
    /// SPDX identifier, where the weights are someone's work.
    pub license: Option<String>,
    /// SHA-256 of `model.onnx`, lower-case hexadecimal.
    pub sha256: String,
    /// Length of `model.onnx`.
    pub size_bytes: u64,
    /// How pictures are prepared for these weights.
    pub preset: Preset,
    /// The seed of weights that were drawn and not trained: their predictions mean nothing.
    pub seeded: Option<u64>,
    /// The label set that class indices count in.
    pub labels: String,
}

impl Manifest {
    /// What can be read off the file itself; the caller fills in where the weights came from.
    pub(crate) fn describing(onnx: &[u8]) -> Manifest {
        Manifest {
            name: "ResNet-50".into(),
            weights: String::new(),
            source: String::new(),
            license: None,
            sha256: sha256_hex(onnx),
            size_bytes: onnx.len() as u64,
            preset: Preset::IMAGENET_V1,
            seeded: None,
            labels: "imagenet-1k".into(),
        }
    }
}

/// Checks that `dir` is a whole model folder: both files there, `model.onnx` of the size and SHA-256 in the manifest.
///
/// The error says what is wrong, on which file; its caller knows which command fixes it.
///
/// # Errors
/// If a file is missing, damaged, or not what the manifest says.
pub fn verify(dir: &Path) -> Result<Manifest> {
    let path = dir.join(MANIFEST_FILE);
    let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).with_context(|| format!("parsing {} as JSON", path.display()))?;
    let path = dir.join(MODEL_FILE);
    let (size, sha256) = size_and_sha256(&path).with_context(|| format!("reading {}", path.display()))?;
    let path = path.display();
    if size != manifest.size_bytes {
        bail!("{path} is damaged: expected {} bytes, got {size}", manifest.size_bytes);
    }
    if sha256 != manifest.sha256 {
        bail!("{path} is damaged: expected sha256 {}, got {sha256}", manifest.sha256);
    }
    Ok(manifest)
}

/// Of a file that is not wanted in memory: to make room for 100 MB takes as long as to read them.
fn size_and_sha256(path: &Path) -> std::io::Result<(u64, String)> {
    let mut file = fs::File::open(path)?;
    let (mut size, mut hash) = (0, Sha256::new());
    let mut buffer = vec![0; READ_AT_A_TIME_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((size, hex(&hash.finalize())));
        }
        size += read as u64;
        hash.update(&buffer[..read]);
    }
}

/// Writes both files, read-only, into a temporary folder beside `dir`, then swaps it in.
pub(crate) fn install(dir: &Path, onnx: &[u8], manifest: &Manifest) -> Result<()> {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| format!("creating folder {}", parent.display()))?;
    let staging = tempfile::Builder::new()
        .prefix(".model-")
        .tempdir_in(parent)
        .with_context(|| format!("creating a temporary folder in {}", parent.display()))?;
    let new = staging.path().join("new");
    let write = || -> Result<()> {
        fs::create_dir(&new)?;
        let mut text = serde_json::to_string_pretty(manifest)?;
        text.push('\n');
        for (name, contents) in [(MODEL_FILE, onnx), (MANIFEST_FILE, text.as_bytes())] {
            // Nobody writes to it again: an image store may hard-link it.
            let mut file =
                fs::OpenOptions::new().write(true).create_new(true).mode(0o444).open(new.join(name))?;
            file.write_all(contents)?;
            file.sync_all()?;
        }
        Ok(())
    };
    write().with_context(|| format!("writing the model to {}", new.display()))?;
    let swap = || -> std::io::Result<()> {
        match fs::rename(dir, staging.path().join("old")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => fs::rename(&new, dir),
        }
    };
    swap().with_context(|| format!("moving the model to {}", dir.display()))
}
