//! Errors as Kubernetes words them: a `Status` object with code, reason, message and causes.

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use crate::causes::Cause;
use crate::kind::Kind;

/// What a `Status` says of when to try again; the header says the same.
const RETRY_AFTER_SECONDS: &str = "retryAfterSeconds";

/// An answer other than success.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) code: u16,
    /// Empty where Kubernetes gives none.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) details: Option<Value>,
}

impl ApiError {
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { code, reason, message: message.into(), details: None }
    }

    pub(crate) fn on(mut self, kind: &Kind, name: &str) -> ApiError {
        self.details = Some(details(kind.plural, kind.group, name));
        self
    }

    pub(crate) fn not_found(kind: &Kind, name: &str) -> ApiError {
        ApiError::new(404, "NotFound", format!("{} \"{name}\" not found", kind.resource())).on(kind, name)
    }

    pub(crate) fn no_such_path() -> ApiError {
        let mut error = ApiError::new(404, "NotFound", "the server could not find the requested resource");
        error.details = Some(json!({}));
        error
    }

    pub(crate) fn method_not_allowed() -> ApiError {
        let message = "the server does not allow this method on the requested resource";
        let mut error = ApiError::new(405, "MethodNotAllowed", message);
        error.details = Some(json!({}));
        error
    }

    pub(crate) fn already_exists(kind: &Kind, name: &str) -> ApiError {
        ApiError::new(409, "AlreadyExists", format!("{} \"{name}\" already exists", kind.resource()))
            .on(kind, name)
    }

    pub(crate) fn conflict(kind: &Kind, name: &str, why: &str) -> ApiError {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.resource());
        ApiError::new(409, "Conflict", message).on(kind, name)
    }

    /// The write was based on an older version than the stored one.
    pub(crate) fn modified(kind: &Kind, name: &str) -> ApiError {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        ApiError::conflict(kind, name, why)
    }

    pub(crate) fn forbidden(kind: &Kind, name: &str, why: &str) -> ApiError {
        let message = format!("{} \"{name}\" is forbidden: {why}", kind.resource());
        ApiError::new(403, "Forbidden", message).on(kind, name)
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(400, "BadRequest", message)
    }

    /// The request, or what it makes, is larger than what is taken.
    pub(crate) fn too_large(why: &str) -> ApiError {
        ApiError::new(413, "RequestEntityTooLarge", format!("Request entity too large: {why}"))
    }

    pub(crate) fn internal(message: impl std::fmt::Display) -> ApiError {
        let mut error = ApiError::new(500, "InternalError", format!("Internal error occurred: {message}"));
        error.details = Some(json!({"causes": [{"message": message.to_string()}]}));
        error
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> ApiError {
        ApiError::new(503, "ServiceUnavailable", message)
    }

    pub(crate) fn expired(asked: u64, oldest: u64) -> ApiError {
        ApiError::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    /// The version that a client asks for is still to come.
    pub(crate) fn too_large_version(asked: u64, current: u64) -> ApiError {
        let why = "Too large resource version";
        let mut error = ApiError::new(504, "Timeout", format!("Timeout: {why}: {asked}, current: {current}"));
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": why});
        error.details = Some(json!({"causes": [cause], RETRY_AFTER_SECONDS: 1}));
        error
    }

    pub(crate) fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> ApiError {
        ApiError::invalid_as(kind.kind, kind.group, name, causes)
    }

    /// The query or the body asks for what its options do not have; `options` is `CreateOptions` or another of its kin.
    pub(crate) fn invalid_options(options: &str, causes: &[Cause]) -> ApiError {
        ApiError::invalid_as(options, "meta.k8s.io", "", causes)
    }

    /// The patch was fine, the object that it makes is not one: `object` is that object, `why` says what is wrong.
    pub(crate) fn invalid_patch(object: &str, why: &str) -> ApiError {
        ApiError::invalid_as("", "", "", &[Cause::invalid("patch", &json!(object), why)])
    }

    /// As [`ApiError::invalid`], for kinds that are not in the table.
    pub(crate) fn invalid_as(kind: &str, group: &str, name: &str, causes: &[Cause]) -> ApiError {
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut texts: Vec<String> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        let text = if texts.len() == 1 { texts.remove(0) } else { format!("[{}]", texts.join(", ")) };
        let mut error = ApiError::new(422, "Invalid", format!("{qualified} \"{name}\" is invalid: {text}"));
        let mut about = details(kind, group, name);
        about["causes"] = causes
            .iter()
            .map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field}))
            .collect();
        error.details = Some(about);
        error
    }

    /// The `Status` object.
    pub(crate) fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = json_response(self.code, &self.to_value());
        if let Some(seconds) = self.details.and_then(|details| details[RETRY_AFTER_SECONDS].as_u64()) {
            response.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

fn details(kind: &str, group: &str, name: &str) -> Value {
    let mut details = json!({});
    if !kind.is_empty() {
        details["kind"] = json!(kind);
    }
    if !name.is_empty() {
        details["name"] = json!(name);
    }
    if !group.is_empty() {
        details["group"] = json!(group);
    }
    details
}

/// A JSON answer.
pub(crate) fn json_response(code: u16, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() =
        http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
