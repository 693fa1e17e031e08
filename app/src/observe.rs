//! What every request passes through: its ids, its log line, its metrics.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::App;
use crate::error::ErrorCode;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
const RESPONSE_TIME: HeaderName = HeaderName::from_static("x-response-time");
const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");
/// Longer ids are cut off, not echoed: they end up in logs.
const MAX_ID_BYTES: usize = 128;

pub(crate) async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let sent_id = id(request.headers(), &REQUEST_ID);
    // Probes carry no id; they come every second and would drown the rest.
    let probe = sent_id.is_none() && request.uri().path().starts_with("/health");
    let request_id = sent_id.unwrap_or_else(new_id);
    let correlation_id = id(request.headers(), &CORRELATION_ID).unwrap_or_else(|| request_id.clone());
    let method = request.method().to_string();
    let path = request.uri().path().to_owned();
    let endpoint = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();

    app.metrics.in_flight.inc();
    let mut record =
        Record { app: &app, method, path, endpoint, request_id, correlation_id, probe, start, status: None };
    let mut response = next.run(request).await;
    let error_code = response.extensions().get::<ErrorCode>().map(|code| code.0);
    record.status = Some((response.status().as_u16(), error_code));
    let duration_ms = record.duration_ms();

    let headers = response.headers_mut();
    let mut set = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(REQUEST_ID, &record.request_id);
    set(CORRELATION_ID, &record.correlation_id);
    set(RESPONSE_TIME, &format!("{duration_ms:.3}ms"));
    if let Some(pod) = &app.config.pod {
        set(SERVED_BY, pod);
    }
    response
}

/// A request on its way. Dropped when it has been answered, or when the client left before that; either way it is
/// counted and gets its line.
struct Record<'a> {
    app: &'a App,
    method: String,
    path: String,
    endpoint: String,
    request_id: String,
    correlation_id: String,
    probe: bool,
    start: Instant,
    /// None until there is an answer.
    status: Option<(u16, Option<&'static str>)>,
}

impl Record<'_> {
    fn duration_ms(&self) -> f64 {
        (self.start.elapsed().as_secs_f64() * 1e6).round() / 1e3
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let Record { app, method, path, request_id, correlation_id, .. } = &*self;
        // 499: nginx's number for a client that left.
        let (status, error_code) = self.status.unwrap_or((499, Some("CLIENT_CLOSED_REQUEST")));
        let (pod, duration_ms) = (&app.config.pod, self.duration_ms());
        app.metrics.in_flight.dec();
        app.metrics.answered(known_method(method), self.endpoint.clone(), status, self.start.elapsed());
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    request_id,
                    correlation_id,
                    method,
                    path,
                    status,
                    duration_ms,
                    error_code,
                    pod,
                    "request"
                )
            };
        }
        match status {
            _ if self.probe => line!(debug),
            500.. => line!(warn),
            _ => line!(info),
        }
    }
}

/// The id that the client sent, where it is one: short, visible ASCII.
fn id(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    let fits =
        !value.is_empty() && value.len() <= MAX_ID_BYTES && value.bytes().all(|b| b.is_ascii_graphic());
    fits.then(|| value.to_owned())
}

/// 32 hexadecimal digits, as nginx makes them. Unique, not secret.
fn new_id() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let random = RandomState::new();
    format!("{:016x}{:016x}", random.hash_one(count), random.hash_one(!count))
}

/// A client can make up any number of methods; labels must stay few.
fn known_method(method: &str) -> String {
    match method {
        "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" => method.to_owned(),
        _ => "other".to_owned(),
    }
}
