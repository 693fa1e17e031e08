//! Whom a request is for: each proxy on its way must read the same from it.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::header::HOST;

use crate::error::ApiError;

/// Refuses a request with more than one `Host`: a proxy may have routed it by another one (RFC 9112, section 3.2).
pub(crate) async fn unambiguous(request: Request, next: Next) -> Result<Response, ApiError> {
    match request.headers().get_all(HOST).iter().count() {
        0 | 1 => Ok(next.run(request).await),
        hosts => Err(ApiError::AmbiguousHost { hosts }),
    }
}
