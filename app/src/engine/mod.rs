//! What runs the graph. rten is always there; others plug in beside it.

mod rten;

use std::num::NonZeroUsize;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Result, bail};

/// Loaded weights, ready to run on one picture at a time.
pub(crate) trait Engine: Send {
    /// As `/info` says it.
    fn name(&self) -> &'static str;
    /// `tensor`: [1, 3, 224, 224] in row-major order. Answers one logit per class.
    fn run(&mut self, tensor: Vec<f32>) -> Result<Vec<f32>>;
}

/// Which engine to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// ONNX Runtime where its library is at hand, else rten.
    Auto,
    /// Pure Rust, built in.
    Rten,
    /// Loaded from its shared library.
    OnnxRuntime,
}

impl FromStr for EngineKind {
    type Err = ();

    fn from_str(text: &str) -> Result<EngineKind, ()> {
        match text {
            "auto" => Ok(EngineKind::Auto),
            "rten" => Ok(EngineKind::Rten),
            "onnxruntime" => Ok(EngineKind::OnnxRuntime),
            _ => Err(()),
        }
    }
}

/// Loads the graph in `path`.
pub(crate) fn open(kind: EngineKind, path: &Path, threads: NonZeroUsize) -> Result<Box<dyn Engine>> {
    match kind {
        EngineKind::Auto | EngineKind::Rten => Ok(Box::new(rten::Rten::open(path, threads)?)),
        EngineKind::OnnxRuntime => {
            bail!("this build has no ONNX Runtime\nhint: MODEL_ENGINE=auto or rten")
        }
    }
}
