//! The bounded queue in front of the engine.
//!
//! A prediction takes a place or is refused at once. Then its picture is prepared, and then it waits for the engine in
//! the order of arrival. Whoever leaves while waiting leaves the queue too: the places are the futures themselves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;

use crate::config::Config;
use crate::engine::Engine;
use crate::error::ApiError;
use crate::model::{Manifest, Model};

/// Bodies being read at a time: up to 10 MB each, far below the pod's memory limit in all.
const MAX_UPLOADS: usize = 64;

pub(crate) struct Inference {
    pub(crate) manifest: Manifest,
    pub(crate) engine_name: &'static str,
    pub(crate) threads: usize,
    /// A tokio mutex: it hands the engine on in the order of arrival.
    engine: Arc<Mutex<Box<dyn Engine>>>,
    /// A place for each prediction accepted, `queue_size` in all.
    places: Semaphore,
    queue_size: usize,
    uploads: Semaphore,
    /// A decoded picture may be large; only as many at a time as there are CPUs to decode them.
    decoders: Arc<Semaphore>,
}

/// The answer of the model, and how long it took.
pub(crate) struct Output {
    /// One per class.
    pub(crate) logits: Vec<f32>,
    pub(crate) preprocess: Duration,
    /// Waiting for a CPU to decode on, and for the engine.
    pub(crate) queue: Duration,
    pub(crate) forward: Duration,
    /// Of the last: the time for which the container was denied the CPU by its limit, where the system says.
    pub(crate) throttled: Option<Duration>,
}

impl Inference {
    pub(crate) fn new(model: Model, config: &Config) -> Inference {
        let Model { manifest, engine, threads } = model;
        Inference {
            manifest,
            engine_name: engine.name(),
            threads,
            engine: Arc::new(Mutex::new(engine)),
            places: Semaphore::new(config.queue_size.get()),
            queue_size: config.queue_size.get(),
            uploads: Semaphore::new(MAX_UPLOADS),
            decoders: Arc::new(Semaphore::new(threads)),
        }
    }

    /// Picture (a whole file) to logits, or [`ApiError::QueueFull`] at once.
    pub(crate) async fn run(&self, picture: Bytes) -> Result<Output, ApiError> {
        let _place =
            self.places.try_acquire().map_err(|_| ApiError::QueueFull { places: self.queue_size })?;

        let accepted = Instant::now();
        let permit = self.decoders.clone().acquire_owned().await.map_err(|_| ApiError::Draining)?;
        let mut queue = accepted.elapsed();
        let preset = self.manifest.preset.clone();
        let prepare = move || {
            let start = Instant::now();
            let tensor = app_pictures::prepare(&picture, &preset);
            drop(permit);
            (tensor, start.elapsed())
        };
        let (tensor, preprocess) = spawn_blocking(prepare).await.map_err(failed)?;
        let tensor = tensor?;

        let prepared = Instant::now();
        let mut engine = self.engine.clone().lock_owned().await;
        queue += prepared.elapsed();
        let compute = move || {
            let (before, start) = (throttled(), Instant::now());
            let logits = engine.run(tensor);
            let forward = start.elapsed();
            let throttled = before.zip(throttled()).map(|(before, after)| after.saturating_sub(before));
            (logits, forward, throttled)
        };
        let (logits, forward, throttled) = spawn_blocking(compute).await.map_err(failed)?;
        Ok(Output { logits: logits.map_err(failed)?, preprocess, queue, forward, throttled })
    }

    /// Leave to read a body, or [`ApiError::QueueFull`] at once. A slow client holds no place in the queue meanwhile.
    pub(crate) fn upload(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        self.uploads.try_acquire().map_err(|_| ApiError::QueueFull { places: MAX_UPLOADS })
    }

    /// Predictions that have a place, and how many places there are.
    pub(crate) fn queue(&self) -> (usize, usize) {
        (self.queue_size - self.places.available_permits().min(self.queue_size), self.queue_size)
    }
}

/// How long this container was denied the CPU by its limit so far; nothing where the system does not say.
fn throttled() -> Option<Duration> {
    let stat = std::fs::read_to_string("/sys/fs/cgroup/cpu.stat").ok()?;
    let us = stat.lines().find_map(|line| line.strip_prefix("throttled_usec "))?;
    us.trim().parse().ok().map(Duration::from_micros)
}

fn failed(cause: impl Into<anyhow::Error>) -> ApiError {
    let cause = cause.into();
    tracing::error!("prediction failed: {cause:#}");
    ApiError::PredictionFailed
}
