//! What runs the graph. rten is always there; others plug in beside it.

mod onnxruntime;
mod rten;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result};

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

/// Where ONNX Runtime's shared library comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Library {
    /// Looked for beside the binary and in the model's folder.
    Bundled,
    /// This file.
    At(PathBuf),
    /// Nowhere: this binary is static, and would crash in the library's first thread.
    Unloadable,
}

/// Loads the graph in `path`.
pub(crate) fn open(
    kind: EngineKind,
    path: &Path,
    library: &Library,
    threads: NonZeroUsize,
) -> Result<Box<dyn Engine>> {
    let with_rten = || -> Result<Box<dyn Engine>> { Ok(Box::new(rten::Rten::open(path, threads)?)) };
    let with_onnxruntime = || -> Result<Box<dyn Engine>> {
        Ok(Box::new(onnxruntime::OnnxRuntime::open(path, library, threads)?))
    };
    match kind {
        EngineKind::Rten => with_rten(),
        EngineKind::OnnxRuntime => with_onnxruntime().context(
            "MODEL_ENGINE=onnxruntime\nhint: MODEL_ENGINE=rten needs no library, auto takes what is there",
        ),
        EngineKind::Auto => with_onnxruntime().or_else(|reason| {
            tracing::info!(reason = format!("{reason:#}"), "no ONNX Runtime here, rten it is");
            with_rten()
        }),
    }
}
