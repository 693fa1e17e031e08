//! What goes wrong, as the client sees it: a status and `{"success":false,"error":{"code","message"}}`.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{CONNECTION, RETRY_AFTER};
use http::{HeaderValue, Method, StatusCode, Uri};
use serde::Serialize;
use utoipa::ToSchema;

/// What the contract calls a megabyte.
const BYTES_PER_MB: usize = 1024 * 1024;

/// Why a request was not answered with success. The names are the codes on the wire, in their spelling.
#[derive(Debug, Clone, PartialEq)]
pub enum ApiError {
    /// 400: a query parameter is out of range or not a number.
    InvalidParameter(String),
    /// 400: multipart that breaks its own format, or has no field `file`.
    InvalidBody(String),
    /// 400: a file of no bytes.
    EmptyFile,
    /// 400: more than one `Host`.
    AmbiguousHost {
        /// How many there are.
        hosts: usize,
    },
    /// 404
    NotFound(String),
    /// 405
    MethodNotAllowed(String),
    /// 408: the body did not come in time.
    RequestTimeout {
        /// The time it had.
        limit: Duration,
    },
    /// 413: the file is over the limit.
    FileTooLarge {
        /// The limit.
        max_bytes: usize,
    },
    /// 415: not one of the formats.
    UnsupportedMediaType(String),
    /// 422: a picture, but not one that can be prepared for the model.
    PreprocessingFailed(String),
    /// 429: all places are taken.
    QueueFull {
        /// How many there are.
        places: usize,
    },
    /// 500: our fault; the log has the cause.
    PredictionFailed,
    /// 500: our fault; the log has the cause.
    MetricsFailed,
    /// 503: accepted, and not done within the deadline.
    DeadlineExceeded {
        /// The time it had.
        limit: Duration,
    },
    /// 503: the model is loading.
    ModelNotLoaded,
    /// 503: the process is ending.
    Draining,
}

impl From<app_pictures::Error> for ApiError {
    fn from(error: app_pictures::Error) -> ApiError {
        match error {
            app_pictures::Error::Format(message) => ApiError::UnsupportedMediaType(message),
            app_pictures::Error::Picture(message) => ApiError::PreprocessingFailed(message),
        }
    }
}

/// The body of every error.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    success: bool,
    error: ErrorDetail,
}

#[derive(Serialize, ToSchema)]
struct ErrorDetail {
    /// Stable, for programs.
    #[schema(example = "MODEL_NOT_LOADED")]
    code: &'static str,
    /// For people.
    message: String,
}

impl ApiError {
    /// The status on the wire.
    pub fn status(&self) -> StatusCode {
        match self {
            ApiError::InvalidParameter(_)
            | ApiError::InvalidBody(_)
            | ApiError::EmptyFile
            | ApiError::AmbiguousHost { .. } => StatusCode::BAD_REQUEST,
            ApiError::NotFound(_) => StatusCode::NOT_FOUND,
            ApiError::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            ApiError::RequestTimeout { .. } => StatusCode::REQUEST_TIMEOUT,
            ApiError::FileTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            ApiError::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ApiError::PreprocessingFailed(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ApiError::QueueFull { .. } => StatusCode::TOO_MANY_REQUESTS,
            ApiError::PredictionFailed | ApiError::MetricsFailed => StatusCode::INTERNAL_SERVER_ERROR,
            ApiError::DeadlineExceeded { .. } | ApiError::ModelNotLoaded | ApiError::Draining => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// The code on the wire. Loading and draining share one: to a client they are the same, "not here, not now".
    pub fn code(&self) -> &'static str {
        match self {
            ApiError::InvalidParameter(_) => "INVALID_PARAMETER",
            ApiError::InvalidBody(_) => "INVALID_BODY",
            ApiError::EmptyFile => "EMPTY_FILE",
            ApiError::AmbiguousHost { .. } => "AMBIGUOUS_HOST",
            ApiError::NotFound(_) => "NOT_FOUND",
            ApiError::MethodNotAllowed(_) => "METHOD_NOT_ALLOWED",
            ApiError::RequestTimeout { .. } => "REQUEST_TIMEOUT",
            ApiError::FileTooLarge { .. } => "FILE_TOO_LARGE",
            ApiError::UnsupportedMediaType(_) => "UNSUPPORTED_MEDIA_TYPE",
            ApiError::PreprocessingFailed(_) => "PREPROCESSING_FAILED",
            ApiError::QueueFull { .. } => "QUEUE_FULL",
            ApiError::PredictionFailed => "PREDICTION_FAILED",
            ApiError::MetricsFailed => "METRICS_FAILED",
            ApiError::DeadlineExceeded { .. } => "DEADLINE_EXCEEDED",
            ApiError::ModelNotLoaded | ApiError::Draining => "MODEL_NOT_LOADED",
        }
    }

    fn message(self) -> String {
        match self {
            ApiError::InvalidParameter(message)
            | ApiError::InvalidBody(message)
            | ApiError::NotFound(message)
            | ApiError::MethodNotAllowed(message)
            | ApiError::UnsupportedMediaType(message)
            | ApiError::PreprocessingFailed(message) => message,
            ApiError::EmptyFile => "the file is empty".into(),
            ApiError::AmbiguousHost { hosts } => format!("the request has {hosts} Host headers, not one"),
            ApiError::RequestTimeout { limit } => {
                format!("the request's body did not arrive within {} s", limit.as_secs_f64())
            }
            ApiError::FileTooLarge { max_bytes } => {
                format!("the file is larger than {} MB", max_bytes / BYTES_PER_MB)
            }
            ApiError::QueueFull { places } => {
                format!("all {places} places in the queue are taken, try again shortly")
            }
            ApiError::PredictionFailed => "the prediction failed, the log has the cause".into(),
            ApiError::MetricsFailed => "the metrics could not be encoded, the log has the cause".into(),
            ApiError::DeadlineExceeded { limit } => {
                format!("the prediction was not done within {} s", limit.as_secs_f64())
            }
            ApiError::ModelNotLoaded => "the model is still loading".into(),
            ApiError::Draining => "the service is shutting down".into(),
        }
    }

    /// When to come back, where that helps.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            ApiError::QueueFull { .. }
            | ApiError::DeadlineExceeded { .. }
            | ApiError::ModelNotLoaded
            | ApiError::Draining => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code, retry_after) = (self.status(), self.code(), self.retry_after());
        let draining = self == ApiError::Draining;
        let body = ErrorBody { success: false, error: ErrorDetail { code, message: self.message() } };
        let mut response = (status, Json(body)).into_response();
        response.extensions_mut().insert(ErrorCode(code));
        if let Some(after) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs()));
        }
        if draining {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Rides on an error response, for the log line.
#[derive(Clone, Copy)]
pub(crate) struct ErrorCode(pub(crate) &'static str);

pub(crate) async fn not_found(uri: Uri) -> ApiError {
    ApiError::NotFound(format!("there is no {}", uri.path()))
}

pub(crate) async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::MethodNotAllowed(format!("{} does not take {method}", uri.path()))
}
