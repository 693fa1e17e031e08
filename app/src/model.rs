//! The model folder: weights, and the manifest that travels with them.

use std::fs::File;
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use app_pictures::Preset;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::config::Config;
use crate::engine::{self, Engine, EngineKind, Library};
use crate::labels;

/// Said wherever predictions are: the weights were drawn, not trained.
pub(crate) const SEEDED_WARNING: &str = "the weights are seeded, not trained: predictions mean nothing";

/// Small enough to be in the processor's cache still when it is hashed.
const READ_AT_A_TIME_BYTES: usize = 256 * 1024;

/// `manifest.json`, as far as the service needs it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) weights: String,
    pub(crate) source: String,
    pub(crate) license: Option<String>,
    pub(crate) sha256: String,
    size_bytes: u64,
    pub(crate) preset: Preset,
    pub(crate) seeded: Option<u64>,
}

/// A model that has been loaded and has answered once.
pub struct Model {
    pub(crate) manifest: Manifest,
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) threads: usize,
}

impl Model {
    /// Loads the folder that `config` names, and warms it up.
    ///
    /// # Errors
    /// The same as of [`Model::open`], with a hint where such a folder comes from.
    pub fn load(config: &Config) -> Result<Model> {
        let dir = &config.model_dir;
        let context = || {
            let dir = dir.display();
            format!(
                "loading the model from {dir}\nhint: `cargo xtask weights fetch` makes such a folder, \
                 MODEL_DIR names it"
            )
        };
        Model::open(dir, config.engine, &config.onnxruntime_library, config.threads).with_context(context)
    }

    /// Loads the folder `dir` into an engine, and warms it up.
    ///
    /// # Errors
    /// A file that is missing, damaged (its size and SHA-256 are not those of the manifest) or not ResNet-50's; an
    /// engine that is asked for and not here.
    pub fn open(dir: &Path, kind: EngineKind, library: &Library, threads: NonZeroUsize) -> Result<Model> {
        let path = dir.join("manifest.json");
        let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let manifest: Manifest =
            serde_json::from_slice(&text).with_context(|| format!("parsing {}", path.display()))?;
        let preset = &manifest.preset;
        ensure!(preset.crop == 224, "{}: crop {} is not the graph's 224", path.display(), preset.crop);
        ensure!(preset.resize >= preset.crop, "{}: resize is below crop", path.display());
        ensure!(preset.std.iter().all(|std| *std > 0.0), "{}: std must be above 0", path.display());

        let path = dir.join("model.onnx");
        let engine = std::thread::scope(|scope| {
            // Beside the loading, which leaves a processor to it where there are two. Nothing is ready before both are
            // done.
            let verified = scope.spawn(|| verify(&path, &manifest));
            let engine = engine::open(kind, &path, library, threads).and_then(warm_up);
            // First what is wrong with the file: the engine's words would be about something that follows from it.
            verified.join().map_err(|_| anyhow!("verifying {} failed", path.display()))??;
            engine
        })?;
        give_back_freed_memory();
        Ok(Model { manifest, engine, threads: threads.get() })
    }

    /// The answer for one prepared picture: `tensor` is [3, 224, 224] in row-major order, the answer one logit per
    /// class.
    ///
    /// # Errors
    /// A tensor of another length, or what the engine says.
    pub fn run(&mut self, tensor: Vec<f32>) -> Result<Vec<f32>> {
        self.engine.run(tensor)
    }

    /// Which engine runs it.
    pub fn engine_name(&self) -> &'static str {
        self.engine.name()
    }

    /// How pictures are prepared for it.
    pub fn preset(&self) -> &Preset {
        &self.manifest.preset
    }

    /// Whether the predictions mean nothing.
    pub fn is_seeded(&self) -> bool {
        self.manifest.seeded.is_some()
    }
}

/// Lets the engine answer once: the first pass allocates what the later ones reuse.
fn warm_up(mut engine: Box<dyn Engine>) -> Result<Box<dyn Engine>> {
    let logits = engine.run(vec![0.0; 3 * 224 * 224]).context("warming up")?;
    ensure!(logits.len() == labels::COUNT, "expected {} classes, got {}", labels::COUNT, logits.len());
    Ok(engine)
}

/// Checks that the file is the one that the manifest tells of.
fn verify(path: &Path, manifest: &Manifest) -> Result<()> {
    let reading = || format!("reading {}", path.display());
    let mut file = File::open(path).with_context(reading)?;
    let (expected, size) = (manifest.size_bytes, file.metadata().with_context(reading)?.len());
    ensure!(size == expected, "{} is damaged: expected {expected} bytes, got {size}", path.display());
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; READ_AT_A_TIME_BYTES];
    loop {
        match file.read(&mut buffer).with_context(reading)? {
            0 => break,
            length => hasher.update(&buffer[..length]),
        }
    }
    let (expected, sha256) = (&manifest.sha256, hex(&hasher.finalize()));
    ensure!(sha256 == *expected, "{} is damaged: expected sha256 {expected}, got {sha256}", path.display());
    Ok(())
}

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What loading has freed goes back to the system. glibc keeps it otherwise: with ONNX Runtime, which reads and then
/// repacks the weights, as much memory again as the model needs.
#[allow(unsafe_code, reason = "one call of the C library, which takes no pointer and keeps none")]
fn give_back_freed_memory() {
    // SAFETY: malloc_trim may be called at any time, by any thread.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
}
