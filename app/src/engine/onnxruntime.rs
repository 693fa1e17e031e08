//! ONNX Runtime, loaded from its shared library when the process starts.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::Tensor;
use parking_lot::Mutex;

use super::{Engine, Library};

pub(super) struct OnnxRuntime(Session);

impl OnnxRuntime {
    pub(super) fn open(path: &Path, library: &Library, threads: NonZeroUsize) -> Result<OnnxRuntime> {
        let library = match library {
            Library::At(library) => library.to_owned(),
            Library::Bundled => find(path.parent())?,
            Library::Unloadable => bail!("a static binary can't load ONNX Runtime's shared library"),
        };
        ensure!(library.is_file(), "there is no ONNX Runtime library {}", library.display());
        let environment = environment(&library)?;
        let session = session(&environment, path, threads)
            .with_context(|| format!("loading {} into ONNX Runtime", path.display()))?;
        Ok(OnnxRuntime(session))
    }
}

impl Engine for OnnxRuntime {
    fn name(&self) -> &'static str {
        "onnxruntime"
    }

    fn run(&mut self, tensor: Vec<f32>) -> Result<Vec<f32>> {
        let input = Tensor::from_array(([1, 3, 224, 224], tensor)).context("shaping the input tensor")?;
        let outputs = self.0.run(ort::inputs![input]).context("running the graph")?;
        let (_, logits) = outputs[0].try_extract_tensor::<f32>().context("reading the logits")?;
        Ok(logits.to_vec())
    }
}

/// The bundled library: beside the binary, or in the model's folder.
fn find(model_dir: Option<&Path>) -> Result<PathBuf> {
    let binary = std::env::current_exe().context("finding the folder of this binary")?;
    let folders: Vec<&Path> = [binary.parent(), model_dir].into_iter().flatten().collect();
    let found = folders.iter().find_map(|folder| {
        let mut names: Vec<PathBuf> =
            std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        names.retain(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_library));
        // Without a version first, then the newest.
        names.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
        names.into_iter().next()
    });
    found.ok_or_else(|| {
        let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        anyhow!("ORT_DYLIB_PATH is not set, and there is no libonnxruntime in {}", folders.join(" or "))
    })
}

/// `libonnxruntime.so`, `libonnxruntime.so.1.32.0`, `libonnxruntime.dylib`, `libonnxruntime.1.32.0.dylib`.
fn is_library(name: &str) -> bool {
    name.strip_prefix("libonnxruntime.").is_some_and(|rest| {
        if cfg!(target_os = "macos") {
            rest.ends_with("dylib")
        } else {
            rest == "so" || rest.starts_with("so.")
        }
    })
}

/// A process has one environment, whatever is opened in it.
fn environment(library: &Path) -> Result<Environment> {
    static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);
    let mut shared = ENVIRONMENT.lock();
    if let Some(environment) = &*shared {
        return Ok(environment.clone());
    }
    let context = || format!("loading ONNX Runtime from {}", library.display());
    let builder = ort::init_from(library).with_context(context)?;
    let environment = builder.with_telemetry(false).build().with_context(context)?;
    Ok(shared.insert(environment).clone())
}

fn session(environment: &Environment, path: &Path, threads: NonZeroUsize) -> ort::Result<Session> {
    Session::builder(environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads.get())?
        .with_inter_threads(1)?
        // Threads that wait would burn the quota that the next request needs.
        .with_intra_op_spinning(false)?
        .commit_from_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_known_by_its_name() {
        let names: &[&str] = if cfg!(target_os = "macos") {
            &["libonnxruntime.dylib", "libonnxruntime.1.32.0.dylib"]
        } else {
            &["libonnxruntime.so", "libonnxruntime.so.1", "libonnxruntime.so.1.32.0"]
        };
        assert!(names.iter().all(|name| is_library(name)));
        for other in [
            "libonnxruntime_providers_shared.so",
            "onnxruntime.so",
            "libonnxruntime.soap",
            "libonnxruntime.a",
        ] {
            assert!(!is_library(other), "{other}");
        }
    }
}
