//! Whether the process lives and takes predictions, and what is running in it.

use std::sync::Arc;

use app_pictures::{MAX_PIXELS, MAX_SIDE_PX, MEDIA_TYPES, Preset};
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{ApiError, ErrorBody};
use crate::limits::MAX_FILE_BYTES;
use crate::model::SEEDED_WARNING;
use crate::{API_VERSION, App, MODEL_NAME};

/// Clients compare this body byte for byte: fields and their order stay.
#[derive(Serialize, ToSchema)]
pub(crate) struct HealthResponse {
    success: bool,
    #[schema(example = "healthy")]
    status: &'static str,
    model: &'static str,
    version: &'static str,
}

/// Whether predictions are taken: the model is loaded and warm, and the process is not ending.
#[utoipa::path(get, path = "/health", responses(
    (status = 200, body = HealthResponse),
    (status = 503, body = ErrorBody, description = "MODEL_NOT_LOADED: loading, or draining"),
))]
pub(crate) async fn health(State(app): State<Arc<App>>) -> Result<Json<HealthResponse>, ApiError> {
    app.lifecycle.health()?;
    Ok(Json(HealthResponse { success: true, status: "healthy", model: MODEL_NAME, version: API_VERSION }))
}

/// The same, under the name that readiness probes look for.
#[utoipa::path(get, path = "/health/ready", responses(
    (status = 200, body = HealthResponse),
    (status = 503, body = ErrorBody, description = "MODEL_NOT_LOADED: loading, or draining"),
))]
pub(crate) async fn ready(app: State<Arc<App>>) -> Result<Json<HealthResponse>, ApiError> {
    health(app).await
}

#[derive(Serialize, ToSchema)]
pub(crate) struct LiveResponse {
    success: bool,
    #[schema(example = "alive")]
    status: &'static str,
}

/// Whether the process answers at all, from its first moment to its last.
#[utoipa::path(get, path = "/health/live", responses((status = 200, body = LiveResponse)))]
pub(crate) async fn live() -> Json<LiveResponse> {
    Json(LiveResponse { success: true, status: "alive" })
}

#[derive(Serialize, ToSchema)]
pub(crate) struct InfoResponse {
    success: bool,
    model: &'static str,
    version: &'static str,
    classes: usize,
    /// Present when the predictions mean nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
    engine: EngineInfo,
    weights: WeightsInfo,
    preprocessing: Preset,
    limits: LimitsInfo,
    media_types: [&'static str; 5],
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct EngineInfo {
    #[schema(example = "rten")]
    name: &'static str,
    threads: usize,
}

#[derive(Serialize, ToSchema)]
struct WeightsInfo {
    name: String,
    source: String,
    license: Option<String>,
    /// Of model.onnx.
    sha256: String,
    /// The seed of weights that were drawn and not trained.
    seeded: Option<u64>,
}

#[derive(Serialize, ToSchema)]
struct LimitsInfo {
    max_file_bytes: usize,
    max_side_px: u32,
    max_pixels: u64,
    queue_size: usize,
    request_timeout_seconds: f64,
}

/// What is running: engine, weights and where they came from, preprocessing, limits.
#[utoipa::path(get, path = "/info", responses(
    (status = 200, body = InfoResponse),
    (status = 503, body = ErrorBody, description = "MODEL_NOT_LOADED: loading, or draining"),
))]
pub(crate) async fn info(State(app): State<Arc<App>>) -> Result<Json<InfoResponse>, ApiError> {
    let inference = app.lifecycle.health()?;
    let manifest = inference.manifest.clone();
    Ok(Json(InfoResponse {
        success: true,
        model: MODEL_NAME,
        version: API_VERSION,
        classes: crate::labels::COUNT,
        warning: manifest.seeded.map(|_| SEEDED_WARNING),
        engine: EngineInfo { name: inference.engine_name, threads: inference.threads },
        weights: WeightsInfo {
            name: manifest.weights,
            source: manifest.source,
            license: manifest.license,
            sha256: manifest.sha256,
            seeded: manifest.seeded,
        },
        preprocessing: manifest.preset,
        limits: LimitsInfo {
            max_file_bytes: MAX_FILE_BYTES,
            max_side_px: MAX_SIDE_PX,
            max_pixels: MAX_PIXELS,
            queue_size: app.config.queue_size.get(),
            request_timeout_seconds: app.config.request_timeout.as_secs_f64(),
        },
        media_types: MEDIA_TYPES,
        pod: app.config.pod.clone(),
    }))
}
