//! The document at `/openapi.json`, from the handlers' own types.

use axum::Json;
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(title = "simple-model-api", description = "ResNet-50 image classification.", version = "1.0.0"),
    paths(
        crate::predict::predict,
        crate::health::health,
        crate::health::ready,
        crate::health::live,
        crate::health::info,
        crate::metrics::metrics,
    )
)]
struct Document;

pub(crate) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}
