//! The model folder: weights, and the manifest that travels with them.

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::Config;
use crate::engine::{self, Engine, EngineKind, Library};
use crate::labels;

/// Said wherever predictions are: the weights were drawn, not trained.
pub(crate) const SEEDED_WARNING: &str = "the weights are seeded, not trained: predictions mean nothing";

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

/// How a picture becomes the tensor that the weights were trained for; the names are torchvision's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Preset {
    /// Length of the short edge after resizing, in pixels (bilinear, antialiased).
    pub resize: u32,
    /// Edge of the centre crop, in pixels.
    pub crop: u32,
    /// Subtracted per channel (R, G, B) after scaling to 0..1.
    pub mean: [f32; 3],
    /// Divided by per channel.
    pub std: [f32; 3],
}

/// A model that has been loaded and has answered once.
pub struct Model {
    pub(crate) manifest: Manifest,
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) threads: usize,
}

impl Model {
    /// Loads the folder that `config` names, and warms it up: the first pass allocates what the later ones reuse.
    pub fn load(config: &Config) -> Result<Model> {
        let dir = &config.model_dir;
        let context = || {
            let dir = dir.display();
            format!(
                "load the model from {dir}\nhint: `cargo xtask weights fetch` makes such a folder, MODEL_DIR names it"
            )
        };
        Model::open(dir, config.engine, &config.onnxruntime_library, config.threads).with_context(context)
    }

    /// Loads the folder `dir` into an engine, and warms it up.
    pub fn open(dir: &Path, kind: EngineKind, library: &Library, threads: NonZeroUsize) -> Result<Model> {
        let path = dir.join("manifest.json");
        let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let manifest: Manifest =
            serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))?;
        let preset = &manifest.preset;
        ensure!(preset.crop == 224, "{}: crop {} is not the graph's 224", path.display(), preset.crop);
        ensure!(preset.resize >= preset.crop, "{}: resize is below crop", path.display());
        ensure!(preset.std.iter().all(|std| *std > 0.0), "{}: std must be above 0", path.display());

        let path = dir.join("model.onnx");
        let size = std::fs::metadata(&path).with_context(|| format!("read {}", path.display()))?.len();
        if size != manifest.size_bytes {
            bail!("{} is damaged: expected {} bytes, got {size}", path.display(), manifest.size_bytes);
        }
        let mut engine = engine::open(kind, &path, library, threads)?;
        let logits = engine.run(vec![0.0; 3 * 224 * 224]).context("warm up")?;
        ensure!(logits.len() == labels::COUNT, "expected {} classes, got {}", labels::COUNT, logits.len());
        give_back_freed_memory();
        Ok(Model { manifest, engine, threads: threads.get() })
    }

    /// The answer for one prepared picture: `tensor` is [3, 224, 224] in row-major order, the answer one logit per class.
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
