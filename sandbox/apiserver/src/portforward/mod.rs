//! Port-forwarding to pods.
use std::sync::Arc;

use axum::body::Body;
use http::{Request, Response};

use crate::request::{Query, Target};
use crate::server::Api;
use crate::status::ApiError;

pub(crate) async fn answer(
    _api: &Arc<Api>,
    _target: &Target,
    _query: &Query,
    _request: &mut Request<Body>,
) -> Result<Response<Body>, ApiError> {
    Err(ApiError::method_not_allowed())
}
