//! `POST /predict`: a picture to the classes it most likely shows.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;

use crate::error::{ApiError, ErrorBody};
use crate::inference::Output;
use crate::limits::MAX_TOP_K;
use crate::model::SEEDED_WARNING;
use crate::{App, MODEL_NAME, labels, upload};

const DEFAULT_TOP_K: usize = 5;

#[derive(Serialize, ToSchema)]
pub(crate) struct PredictResponse {
    success: bool,
    /// Best first.
    predictions: Vec<Prediction>,
    meta: Meta,
}

#[derive(Serialize, ToSchema)]
struct Prediction {
    /// From 1.
    rank: usize,
    /// 0 to 999.
    class_index: usize,
    /// Its ImageNet-1k name.
    class_name: &'static str,
    /// 0 to 1, to 6 decimals.
    confidence: f64,
}

#[derive(Serialize, ToSchema)]
struct Meta {
    model: &'static str,
    top_k: usize,
    /// As the form gave it; null for a raw body.
    filename: Option<String>,
    /// Present when the predictions mean nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
}

/// Classify a picture.
#[utoipa::path(
    post,
    path = "/predict",
    params((
        "top_k" = Option<usize>, Query, description = "How many predictions", minimum = 1, maximum = 10,
        example = 5
    )),
    request_body(content(
        (UploadForm = "multipart/form-data"),
        (PictureFile = "image/jpeg"),
        (PictureFile = "image/png"),
        (PictureFile = "image/bmp"),
        (PictureFile = "image/tiff"),
        (PictureFile = "image/webp"),
    )),
    responses(
        (status = 200, body = PredictResponse),
        (status = 400, body = ErrorBody, description = "EMPTY_FILE, INVALID_BODY, INVALID_PARAMETER"),
        (status = 408, body = ErrorBody, description = "REQUEST_TIMEOUT: the body did not come in time"),
        (status = 413, body = ErrorBody, description = "FILE_TOO_LARGE: over 10 MB"),
        (status = 415, body = ErrorBody, description = "UNSUPPORTED_MEDIA_TYPE"),
        (status = 422, body = ErrorBody, description = "PREPROCESSING_FAILED: broken, or too many pixels"),
        (status = 429, body = ErrorBody, description = "QUEUE_FULL; Retry-After says when to come back"),
        (status = 500, body = ErrorBody, description = "PREDICTION_FAILED"),
        (status = 503, body = ErrorBody, description = "MODEL_NOT_LOADED or DEADLINE_EXCEEDED; with \
                                                        Retry-After"),
    )
)]
pub(crate) async fn predict(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<(HeaderMap, Json<PredictResponse>), ApiError> {
    let limit = app.config.request_timeout;
    let deadline = Instant::now() + limit;
    let accepted = app.lifecycle.accept();
    let admitted = accepted.as_ref().map_err(Clone::clone).and_then(|accepted| {
        let upload = accepted.inference.upload()?;
        Ok((accepted, upload, top_k(&request)?))
    });
    let read = async {
        match admitted {
            Ok((accepted, _upload, top_k)) => Ok((accepted, top_k, upload::read(request).await?)),
            Err(error) => {
                upload::discard(request).await;
                Err(error)
            }
        }
    };
    let read = timeout_at(deadline, read).await.unwrap_or(Err(ApiError::RequestTimeout { limit }));
    let (accepted, top_k, upload) = read.inspect_err(|error| app.metrics.rejected(error))?;

    let answer = accepted.inference.run(upload.bytes);
    let output = timeout_at(deadline, answer).await.unwrap_or(Err(ApiError::DeadlineExceeded { limit }));
    let output = output.inspect_err(|error| app.metrics.rejected(error))?;
    app.metrics.inferred(output.preprocess, output.forward);
    let answer = PredictResponse {
        success: true,
        predictions: best(&output.logits, top_k),
        meta: Meta {
            model: MODEL_NAME,
            top_k,
            filename: upload.filename,
            warning: accepted.inference.manifest.seeded.map(|_| SEEDED_WARNING),
        },
    };
    Ok((server_timing(&output), Json(answer)))
}

/// Where the time went, as browsers' tools, the load generator and the benchmark read it.
fn server_timing(output: &Output) -> HeaderMap {
    let part = |name: &str, duration: Duration| format!("{name};dur={:.3}", duration.as_secs_f64() * 1e3);
    let throttled = output.throttled.filter(|time| !time.is_zero()).map(|time| part("throttled", time));
    let parts: Vec<String> = [part("preprocess", output.preprocess), part("queue", output.queue)]
        .into_iter()
        .chain(throttled)
        .chain([part("inference", output.forward)])
        .collect();
    let value = HeaderValue::from_str(&parts.join(", ")).ok();
    value.into_iter().map(|value| (HeaderName::from_static("server-timing"), value)).collect()
}

/// The picture itself.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "read by the derive alone")]
struct PictureFile(Vec<u8>);

/// What a browser's form or `curl -F` sends.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
struct UploadForm {
    /// JPEG, PNG, BMP, TIFF or WEBP, up to 10 MB.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

fn top_k(request: &Request) -> Result<usize, ApiError> {
    let query = request.uri().query().unwrap_or_default();
    let mut values = query.split('&').filter_map(|pair| match pair.split_once('=') {
        Some(("top_k", value)) => Some(value),
        None if pair == "top_k" => Some(""),
        _ => None,
    });
    let Some(value) = values.next() else {
        return Ok(DEFAULT_TOP_K);
    };
    match value.parse() {
        Ok(top_k) if (1..=MAX_TOP_K).contains(&top_k) && values.next().is_none() => Ok(top_k),
        _ => Err(ApiError::InvalidParameter(format!("top_k must be one number from 1 to {MAX_TOP_K}"))),
    }
}

/// The `count` classes with the highest softmax; of equals, the lower index first.
fn best(logits: &[f32], count: usize) -> Vec<Prediction> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| f64::from(logit - max).exp();
    let sum: f64 = logits.iter().map(|logit| weight(*logit)).sum();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    let ranked = order.into_iter().take(count).enumerate();
    ranked
        .map(|(index, class_index)| Prediction {
            rank: index + 1,
            class_index,
            class_name: labels::name(class_index),
            confidence: (weight(logits[class_index]) / sum * 1e6).round() / 1e6,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_ranked_and_rounded() {
        let predictions = best(&[0.0, 2.0, 1.0, 2.0], 3);
        let seen: Vec<_> = predictions.iter().map(|p| (p.rank, p.class_index, p.confidence)).collect();
        assert_eq!(seen, [(1, 1, 0.399_486), (2, 3, 0.399_486), (3, 2, 0.146_963)]);
    }
}
