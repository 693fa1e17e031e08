//! A request for a resource: what its parts say, and how it is answered.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, Response};
use serde_json::Value;

use crate::kind::Kind;
use crate::request::{Query, View, WriteOptions};
use crate::state::Api;
use crate::status::{ApiError, json_response};
use crate::store::Object;
use crate::{protobuf, render, yaml};

/// A request for a resource, read so far that verbs can work on it.
pub(crate) struct Call<'a> {
    pub(crate) api: &'a Arc<Api>,
    pub(crate) kind: &'static Kind,
    pub(crate) namespace: &'a str,
    pub(crate) name: Option<&'a str>,
    pub(crate) subresource: Option<&'a str>,
    pub(crate) query: &'a Query,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) view: View,
    pub(crate) method: &'a Method,
}

impl Call<'_> {
    /// The stored object, or the 404 that names it.
    pub(crate) fn stored(&self, name: &str) -> Result<Object, ApiError> {
        self.api
            .store
            .get(self.kind.stored(), self.namespace, name)
            .ok_or_else(|| ApiError::not_found(self.kind, name))
    }

    pub(crate) fn write_options(&self) -> Result<WriteOptions, ApiError> {
        WriteOptions::from(self.query, self.method, self.headers)
    }

    /// The media type of the body, without parameters.
    pub(crate) fn content_type(&self) -> &str {
        let header = self.headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        header.unwrap_or("").split(';').next().unwrap_or("").trim()
    }

    /// A body that need not be of the path's kind.
    pub(crate) fn read_any(&self, body: &[u8]) -> Result<Value, ApiError> {
        parse(self.content_type(), body).map_err(ApiError::bad_request)
    }

    /// An object that the body holds, in whatever form its media type says.
    pub(crate) fn read(&self, body: &[u8]) -> Result<Value, ApiError> {
        parse(self.content_type(), body).map_err(|why| {
            let kind = self.kind.kind;
            let shown = summary(body);
            ApiError::bad_request(format!(
                "the object provided is unrecognized (must be of type {kind}): {why} ({shown})"
            ))
        })
    }

    /// The object as the client wants to see it, with warnings as headers.
    pub(crate) fn respond(&self, code: u16, object: &Value, warnings: &[String]) -> Response<Body> {
        let mut response = json_response(code, &render::one(self.kind, object, self.view));
        add_warnings(&mut response, warnings);
        response
    }
}

/// `Warning` headers (RFC 7234, code 299), which kubectl prints; shortened, and then left out, where they are too long
/// for headers.
pub(crate) fn add_warnings(response: &mut Response<Body>, warnings: &[String]) {
    const ALL_CHARS: usize = 4096;
    const ONE_CHARS: usize = 256;
    let shorten = warnings.iter().map(|warning| warning.chars().count()).sum::<usize>() > ALL_CHARS;
    let mut left = ALL_CHARS;
    for warning in warnings {
        let most = if shorten { ONE_CHARS.min(left) } else { left };
        let text: String = warning.chars().take(most).collect();
        left -= text.chars().count();
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(http::header::WARNING, value);
        }
        if left == 0 {
            break;
        }
    }
}

/// A body as JSON: JSON itself, YAML (which server-side apply is sent in), or protobuf; else what is wrong with it, in
/// Kubernetes' words where those are not the Go parser's.
pub(crate) fn parse(content_type: &str, body: &[u8]) -> Result<Value, String> {
    if protobuf::is_protobuf(body) {
        return protobuf::to_json(body);
    }
    if content_type.contains("yaml") {
        return yaml::to_json(body).map_err(|why| format!("error converting YAML to JSON: yaml: {why}"));
    }
    serde_json::from_slice(body).map_err(|error| {
        let why = if error.is_eof() { "unexpected end of JSON input".to_owned() } else { error.to_string() };
        format!("couldn't get version/kind; json parse error: {why}")
    })
}

/// The beginning of a body, as errors show it: objects as they are, anything else in hexadecimal.
fn summary(body: &[u8]) -> String {
    const LIMIT: usize = 30;
    let head = &body[..body.len().min(LIMIT)];
    let shown = match head.first() {
        None => return "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(head).into_owned(),
        Some(_) => head.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if body.len() > LIMIT { format!("{shown} ...") } else { shown }
}
