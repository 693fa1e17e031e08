//! The engine that always works: pure Rust, built in.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rten::{Model, ModelOptions, RunOptions, ThreadPool};
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;

use super::Engine;

pub(super) struct Rten {
    model: Model,
    threads: Arc<ThreadPool>,
}

impl Rten {
    pub(super) fn open(path: &Path, threads: NonZeroUsize) -> Result<Rten> {
        let model = ModelOptions::with_all_ops()
            .load_file(path)
            .with_context(|| format!("loading {} into rten", path.display()))?;
        // Its own pool would count the host's cores.
        Ok(Rten { model, threads: Arc::new(ThreadPool::with_num_threads(threads.get())) })
    }
}

impl Engine for Rten {
    fn name(&self) -> &'static str {
        "rten"
    }

    fn run(&mut self, tensor: Vec<f32>) -> Result<Vec<f32>> {
        let input = NdTensor::try_from_data([1, 3, 224, 224], tensor).context("shaping the input tensor")?;
        let mut options = RunOptions::default();
        options.thread_pool = Some(self.threads.clone());
        let output = self.model.run_one(input.into(), Some(options)).context("running the graph")?;
        let logits: NdTensor<f32, 2> = output.try_into().context("reading the logits")?;
        Ok(logits.to_vec())
    }
}
