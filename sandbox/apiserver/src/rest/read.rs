//! get.

use axum::body::Body;
use http::Response;

use super::Call;
use crate::status::ApiError;
use crate::store::Object;

impl Call<'_> {
    /// The stored object, or the 404 that names it.
    pub(crate) fn stored(&self, name: &str) -> Result<Object, ApiError> {
        self.api
            .store
            .get(self.kind.stored(), self.namespace, name)
            .ok_or_else(|| ApiError::not_found(self.kind, name))
    }
}

pub(crate) fn get(call: &Call<'_>, name: &str) -> Result<Response<Body>, ApiError> {
    Ok(call.respond(200, &*call.stored(name)?, &[]))
}
