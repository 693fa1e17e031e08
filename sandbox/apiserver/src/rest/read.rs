//! get and list.

use axum::body::Body;
use http::Response;
use serde_json::json;

use super::{Call, render};
use crate::request::View;
use crate::status::{ApiError, json_response};
use crate::store::Object;
use crate::views;

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

pub(crate) fn list(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let selector = call.query.selector()?;
    let namespace = (!call.namespace.is_empty()).then_some(call.namespace);
    let (mut objects, version) = call.api.store.list(call.kind.stored(), namespace);
    objects.retain(|object| selector.matches(object));
    let metadata = json!({"resourceVersion": version.to_string()});
    let list = match call.view {
        View::Table => render::table(call.kind, &objects, version),
        View::Metadata => json!({
            "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
            "items": objects.iter().map(|object| render::one(call.kind, object, View::Metadata)).collect::<Vec<_>>(),
        }),
        View::Object => json!({
            "kind": format!("{}List", call.kind.kind), "apiVersion": call.kind.api_version(), "metadata": metadata,
            "items": objects.iter().map(|object| views::show(call.kind, object)).collect::<Vec<_>>(),
        }),
    };
    Ok(json_response(200, &list))
}
