//! The request's body to one file: multipart field `file`, or the picture itself.

use app_pictures::{FORMATS, MEDIA_TYPES, is_picture};
use axum::body::Body;
use axum::extract::{FromRequest as _, Multipart, Request};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::HeaderMap;
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};

use crate::disposition::Disposition;
use crate::error::ApiError;
use crate::limits::MAX_FILE_BYTES;

/// Largest body accepted: the file and what multipart puts around it.
const MAX_BODY_BYTES: usize = MAX_FILE_BYTES + 64 * 1024;
/// How much of a body that was refused is still taken in, so that the client reads our answer and not a reset.
const MAX_DISCARDED_BYTES: usize = 4 * MAX_BODY_BYTES;

/// What the client sent.
pub struct Upload {
    /// The whole file, 1 to [`MAX_FILE_BYTES`] bytes.
    pub bytes: Bytes,
    /// As the multipart field gave it, by `filename*` where there is one.
    pub filename: Option<String>,
}

/// Reads the body: a form, or whatever else is declared, the picture itself. What kind of picture it is, its first
/// bytes say: clients declare much that is not so.
///
/// # Errors
/// What is wrong with the body; as much of it is taken in as is needed for the client to see the answer.
pub async fn read(request: Request) -> Result<Upload, ApiError> {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > MAX_BODY_BYTES) {
        discard(request).await;
        return Err(ApiError::FileTooLarge { max_bytes: MAX_FILE_BYTES });
    }
    let declared = media_type(request.headers());
    if declared.as_deref() == Some("multipart/form-data") {
        let upload = from_multipart(request).await?;
        return match upload.bytes.is_empty() {
            true => Err(ApiError::EmptyFile),
            false if is_picture(&upload.bytes) => Ok(upload),
            false => Err(ApiError::UnsupportedMediaType(format!("the file is not a {FORMATS} picture"))),
        };
    }
    let bytes = from_raw(request).await?;
    if is_picture(&bytes) {
        return Ok(Upload { bytes, filename: None });
    }
    match declared.as_deref() {
        Some(declared) if could_be_a_picture(declared) && bytes.is_empty() => Err(ApiError::EmptyFile),
        Some(declared) if could_be_a_picture(declared) => {
            Err(ApiError::UnsupportedMediaType(format!("the body is not a {FORMATS} picture")))
        }
        Some(declared) => {
            Err(ApiError::UnsupportedMediaType(format!("{declared} is not accepted: {}", accepted())))
        }
        None => {
            Err(ApiError::UnsupportedMediaType(format!("the request has no Content-Type: {}", accepted())))
        }
    }
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

async fn from_raw(request: Request) -> Result<Bytes, ApiError> {
    let stream = request.into_body().into_data_stream();
    collect(stream, |error| ApiError::InvalidBody(format!("the body broke off: {error}"))).await
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
            ApiError::FileTooLarge { max_bytes: MAX_FILE_BYTES }
        } else {
            ApiError::InvalidBody(error.body_text())
        }
    };
    let mut upload = None;
    while let Some(field) = multipart.next_field().await.map_err(invalid)? {
        let header = field.headers().get(CONTENT_DISPOSITION);
        let disposition = header.map(|value| Disposition::parse(value.as_bytes())).unwrap_or_default();
        if disposition.name.as_deref() == Some("file") && upload.is_none() {
            let bytes = collect(field, invalid).await?;
            upload = Some(Upload { bytes, filename: disposition.filename });
        }
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
    if length > MAX_FILE_BYTES {
        return Err(ApiError::FileTooLarge { max_bytes: MAX_FILE_BYTES });
    }
    Ok(bytes.freeze())
}

/// Whether a body declared so may hold a picture: its bytes were in no known format, and the answer says which of both
/// is wrong.
fn could_be_a_picture(declared: &str) -> bool {
    declared.starts_with("image/")
        || matches!(declared, "application/octet-stream" | "binary/octet-stream" | "*/*")
}

fn accepted() -> String {
    format!("send multipart/form-data with a field named file, or one of {}", MEDIA_TYPES.join(", "))
}

/// What the client calls the body, without parameters, in lower case.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let essence = headers.get(CONTENT_TYPE)?.to_str().ok()?.split(';').next()?.trim();
    (!essence.is_empty()).then(|| essence.to_ascii_lowercase())
}
