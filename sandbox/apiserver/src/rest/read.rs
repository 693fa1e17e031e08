//! get.

use axum::body::Body;
use http::Response;

use crate::call::Call;
use crate::status::ApiError;

pub(crate) fn get(call: &Call<'_>, name: &str) -> Result<Response<Body>, ApiError> {
    Ok(call.respond(200, &*call.stored(name)?, &[]))
}
