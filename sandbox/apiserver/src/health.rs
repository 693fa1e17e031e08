//! `/healthz`, `/livez`, `/readyz`.

use axum::body::Body;
use http::{HeaderValue, Response, header};

use crate::request::Query;

/// The answer to a health path, `None` for any other.
pub(crate) fn answer(path: &str, query: &Query) -> Option<Response<Body>> {
    let name = ["healthz", "livez", "readyz"].into_iter().find(|name| {
        path.strip_prefix('/')
            .and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })?;
    let text = if query.has("verbose") {
        format!("[+]ping ok\n[+]log ok\n[+]etcd ok\n{name} check passed\n")
    } else {
        "ok".to_owned()
    };
    let mut response = Response::new(Body::from(text));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Some(response)
}
