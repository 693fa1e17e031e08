//! ResNet-50 image classification over HTTP.
//!
//! A request's way: `server` (accepts; `connections` holds the places) → `observe` (ids, log line, metrics) →
//! [`router`] → `predict` (body, parameters) → `inference` (bounded queue) → `app_pictures` (picture to tensor) and
//! `engine` (tensor to logits). `lifecycle` knows whether the model is loaded and whether the process is draining.

mod config;
mod connections;
mod disposition;
mod drain;
mod engine;
mod error;
mod health;
mod host;
mod inference;
mod labels;
mod lifecycle;
pub mod limits;
pub mod log;
mod metrics;
mod model;
mod observe;
mod openapi;
mod predict;
mod server;
pub mod upload;
mod watched;

use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

pub use config::Config;
pub use engine::{EngineKind, Library};
pub use error::ApiError;
pub use model::Model;

use connections::Connections;
use inference::Inference;
use lifecycle::Lifecycle;
use metrics::Metrics;

/// The architecture, as every answer names it.
pub const MODEL_NAME: &str = "ResNet-50";
/// The version of the wire contract, as `/health` gives it.
pub const API_VERSION: &str = "1.0.0";

/// What the handlers share.
pub struct App {
    config: Config,
    connections: Arc<Connections>,
    lifecycle: Lifecycle,
    metrics: Metrics,
}

impl App {
    /// Not ready yet: every prediction is refused until [`App::install`].
    pub fn new(config: Config) -> Arc<App> {
        let limit = server::connection_limit(config.max_connections.get());
        Arc::new(App {
            connections: Connections::new(limit, &config),
            config,
            lifecycle: Lifecycle::default(),
            metrics: Metrics::default(),
        })
    }

    /// Puts a loaded and warm model to work; `/health` says healthy from now on.
    pub fn install(&self, model: Model) {
        if model.is_seeded() {
            tracing::warn!(weights = %model.manifest.weights, "{}", model::SEEDED_WARNING);
        }
        self.lifecycle.ready(Inference::new(model, &self.config));
    }
}

/// All routes, with what every request passes through.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        // `upload` counts the bytes; axum's own limit would answer in its own words.
        .route("/predict", post(predict::predict).layer(DefaultBodyLimit::disable()))
        .route("/health", get(health::health))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/info", get(health::info))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(openapi::openapi))
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(axum::middleware::from_fn(host::unambiguous))
        .layer(axum::middleware::from_fn_with_state(app.clone(), observe::observe))
        .with_state(app)
}

/// Serves until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// An address that can't be bound, or a model that can't be loaded.
pub fn run(config: Config) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        // The runtime moves bytes; what computes has threads of its own. Two, so that one can't hold up /health.
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the async runtime")?
        .block_on(server::serve(App::new(config)))
}
