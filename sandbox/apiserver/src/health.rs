//! What a server says of itself: `/healthz`, `/livez`, `/readyz`, `/version`.

use axum::body::Body;
use http::{HeaderValue, Response, header};
use serde_json::{Value, json};

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

/// `/version`.
pub(crate) fn version() -> Value {
    json!({
        "major": "1", "minor": "34", "gitVersion": "v1.34.0-sandbox", "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}
