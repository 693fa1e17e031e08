//! The request's body to one file: multipart field `file`, or the picture itself.

use axum::body::Body;
use axum::extract::{FromRequest as _, Multipart, Request};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};

use crate::error::ApiError;
use crate::preprocess::MEDIA_TYPES;

/// Largest file accepted.
pub const MAX_FILE_BYTES: usize = 10 * 1024 * 1024;
/// Largest body accepted: the file and what multipart puts around it.
const MAX_BODY_BYTES: usize = MAX_FILE_BYTES + 64 * 1024;
/// How much of a body that was refused is still taken in, so that the client reads our answer and not a reset.
const MAX_DISCARDED_BYTES: usize = 4 * MAX_BODY_BYTES;

/// What the client sent.
pub struct Upload {
    /// The whole file, 1 to [`MAX_FILE_BYTES`] bytes.
    pub bytes: Bytes,
    /// As the multipart field gave it.
    pub filename: Option<String>,
}

/// Reads the body. Whatever is wrong with it, as much of it is taken in as is needed for the client to see the answer.
pub async fn read(request: Request) -> Result<Upload, ApiError> {
    let declared = media_type(request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()));
    let multipart = declared.as_deref() == Some("multipart/form-data");
    if !multipart && let Err(error) = accepted_type(declared.as_deref()) {
        discard(request).await;
        return Err(error);
    }
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > MAX_BODY_BYTES) {
        discard(request).await;
        return Err(ApiError::FileTooLarge);
    }
    let upload = if multipart { from_multipart(request).await? } else { from_raw(request).await? };
    if upload.bytes.is_empty() { Err(ApiError::EmptyFile) } else { Ok(upload) }
}

/// Takes in and drops the body of a request that is refused. A client that asked first (`Expect: 100-continue`) has not
/// sent it and won't.
pub(crate) async fn discard(request: Request) {
    if request.headers().contains_key(EXPECT) {
        return;
    }
    let mut body = request.into_body().into_data_stream();
    let mut taken = 0;
    while let Some(Ok(chunk)) = body.next().await {
        taken += chunk.len();
        if taken > MAX_DISCARDED_BYTES {
            return;
        }
    }
}

async fn from_raw(request: Request) -> Result<Upload, ApiError> {
    let stream = request.into_body().into_data_stream();
    let bytes =
        collect(stream, |error| ApiError::InvalidBody(format!("the body broke off: {error}"))).await?;
    Ok(Upload { bytes, filename: None })
}

async fn from_multipart(request: Request) -> Result<Upload, ApiError> {
    // The body is counted in `collect`; axum's own limit would be hit without a chance to answer well.
    let (parts, body) = request.into_parts();
    let body = Body::new(http_body_util::Limited::new(body, MAX_DISCARDED_BYTES));
    let mut multipart = Multipart::from_request(Request::from_parts(parts, body), &())
        .await
        .map_err(|error| ApiError::InvalidBody(error.body_text()))?;
    let invalid = |error: axum::extract::multipart::MultipartError| {
        if error.status() == http::StatusCode::PAYLOAD_TOO_LARGE {
            ApiError::FileTooLarge
        } else {
            ApiError::InvalidBody(error.body_text())
        }
    };
    let mut upload = None;
    while let Some(field) = multipart.next_field().await.map_err(invalid)? {
        if field.name() != Some("file") || upload.is_some() {
            continue;
        }
        let filename = field.file_name().map(ToOwned::to_owned);
        let acceptable = accepted_type(media_type(field.content_type()).as_deref().or(Some(ANY)));
        let bytes = collect(field, invalid).await?;
        acceptable?;
        upload = Some(Upload { bytes, filename });
    }
    upload.ok_or_else(|| ApiError::InvalidBody("the form has no field named file".into()))
}

/// All of `stream`; past the limit it is read on and dropped.
async fn collect<S, E>(mut stream: S, error: impl Fn(E) -> ApiError) -> Result<Bytes, ApiError>
where
    S: futures::Stream<Item = Result<Bytes, E>> + Unpin,
{
    let (mut bytes, mut length) = (BytesMut::new(), 0);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(&error)?;
        length += chunk.len();
        if length <= MAX_FILE_BYTES {
            bytes.extend_from_slice(&chunk);
        } else if length > MAX_DISCARDED_BYTES {
            break;
        }
    }
    if length > MAX_FILE_BYTES { Err(ApiError::FileTooLarge) } else { Ok(bytes.freeze()) }
}

/// The type that says nothing: the file's first bytes decide.
const ANY: &str = "application/octet-stream";

/// Whether what the client calls the file can be one of the formats. The bytes have the last word.
fn accepted_type(declared: Option<&str>) -> Result<(), ApiError> {
    let formats = || MEDIA_TYPES.join(", ");
    match declared {
        Some(ANY | "image/jpg" | "image/x-ms-bmp" | "image/*") => Ok(()),
        Some(media_type) if MEDIA_TYPES.contains(&media_type) => Ok(()),
        Some(media_type) => {
            Err(ApiError::UnsupportedMediaType(format!("{media_type} is not accepted: {}", formats())))
        }
        None => Err(ApiError::UnsupportedMediaType(format!(
            "the request has no Content-Type: multipart/form-data with a field named file, or {}",
            formats()
        ))),
    }
}

/// Without parameters, in lower case.
fn media_type(header: Option<&str>) -> Option<String> {
    let essence = header?.split(';').next()?.trim();
    (!essence.is_empty()).then(|| essence.to_ascii_lowercase())
}
