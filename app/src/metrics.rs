//! What Prometheus scrapes.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse;
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, VARY};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::App;
use crate::error::{ApiError, ErrorBody};

/// From a forward pass on many cores to one on a crowded one, in seconds.
const BUCKETS: [f64; 12] = [0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 3.5, 5.0];
/// Decode, resize and normalise, in seconds.
const PREPROCESS_BUCKETS: [f64; 8] = [0.001, 0.002, 0.004, 0.008, 0.016, 0.05, 0.2, 1.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    endpoint: String,
    status_code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Histogram,
    pub(crate) in_flight: Gauge,
    connections: Gauge,
    inference_seconds: Histogram,
    preprocess_seconds: Histogram,
    rejections: Family<ReasonLabel, Counter>,
    accepted: Gauge,
    queue_depth: Gauge,
    queue_size: Gauge,
    ready: Gauge,
    seeded: Gauge,
    uptime: Gauge<f64, AtomicU64>,
    start: std::time::Instant,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::default();
        let metrics = Metrics {
            requests: Family::default(),
            request_seconds: Histogram::new([0.001, 0.005].into_iter().chain(BUCKETS)),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            inference_seconds: Histogram::new(BUCKETS),
            preprocess_seconds: Histogram::new(PREPROCESS_BUCKETS),
            rejections: Family::default(),
            accepted: Gauge::default(),
            queue_depth: Gauge::default(),
            queue_size: Gauge::default(),
            ready: Gauge::default(),
            seeded: Gauge::default(),
            uptime: Gauge::default(),
            start: std::time::Instant::now(),
            registry: Registry::default(),
        };
        registry.register("http_requests", "Requests answered", metrics.requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "From the head of the request to the head of the answer",
            metrics.request_seconds.clone(),
        );
        registry.register("http_requests_in_flight", "Requests being answered", metrics.in_flight.clone());
        registry.register("http_connections_open", "Connections open", metrics.connections.clone());
        registry.register(
            "model_inference_duration_seconds",
            "Forward passes",
            metrics.inference_seconds.clone(),
        );
        registry.register(
            "model_preprocess_duration_seconds",
            "Decode, resize, crop, normalise",
            metrics.preprocess_seconds.clone(),
        );
        registry.register(
            "predictions_rejected",
            "Predictions not made, by cause",
            metrics.rejections.clone(),
        );
        registry.register(
            "predictions_accepted",
            "Predictions promised an answer and not answered yet",
            metrics.accepted.clone(),
        );
        registry.register(
            "inference_queue_depth",
            "Places taken, the running one too",
            metrics.queue_depth.clone(),
        );
        registry.register("inference_queue_size", "Places there are", metrics.queue_size.clone());
        registry.register("model_ready", "1 when predictions are taken", metrics.ready.clone());
        registry.register(
            "model_weights_seeded",
            "1 when the weights are not trained and predictions mean nothing",
            metrics.seeded.clone(),
        );
        registry.register("process_uptime_seconds", "Since the start", metrics.uptime.clone());
        Metrics { registry, ..metrics }
    }
}

impl Metrics {
    pub(crate) fn answered(&self, method: String, endpoint: String, status_code: u16, duration: Duration) {
        self.requests.get_or_create(&RequestLabels { method, endpoint, status_code }).inc();
        self.request_seconds.observe(duration.as_secs_f64());
    }

    pub(crate) fn inferred(&self, preprocess: Duration, forward: Duration) {
        self.preprocess_seconds.observe(preprocess.as_secs_f64());
        self.inference_seconds.observe(forward.as_secs_f64());
    }

    pub(crate) fn rejected(&self, error: &ApiError) {
        self.rejections.get_or_create(&ReasonLabel { reason: error.code() }).inc();
    }
}

/// The format of OpenMetrics.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Prometheus' own, older one, which everything reads.
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics in Prometheus' text format, or in that of OpenMetrics where the client prefers it.
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, content((String = "text/plain"), (String = "application/openmetrics-text"))),
    (status = 500, body = ErrorBody, description = "METRICS_FAILED"),
))]
pub(crate) async fn metrics(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let metrics = &app.metrics;
    let inference = app.lifecycle.health().ok();
    metrics.ready.set(inference.is_some().into());
    if let Some(inference) = inference {
        let (depth, size) = inference.queue();
        metrics.queue_depth.set(depth as i64);
        metrics.queue_size.set(size as i64);
        metrics.seeded.set(inference.manifest.seeded.is_some().into());
    }
    metrics.connections.set(app.connections.open() as i64);
    metrics.accepted.set(app.lifecycle.accepted() as i64);
    metrics.uptime.set(metrics.start.elapsed().as_secs_f64());
    let mut body = String::new();
    text::encode(&mut body, &metrics.registry).map_err(|error| {
        tracing::error!("encoding the metrics: {error}");
        ApiError::MetricsFailed
    })?;
    let (content_type, body) =
        if prefers_openmetrics(&headers) { (OPENMETRICS, body) } else { (CLASSIC, classic(&body)) };
    Ok(([(CONTENT_TYPE, content_type), (VARY, "Accept")], body))
}

/// Whether the client names OpenMetrics and likes nothing better. Whoever names neither format gets the older one.
fn prefers_openmetrics(headers: &HeaderMap) -> bool {
    let (mut openmetrics, mut classic) = (0.0_f32, 0.0_f32);
    let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for range in accept.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality: f32 =
            parts.find_map(|parameter| parameter.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
        match media_type.as_str() {
            "application/openmetrics-text" => openmetrics = quality.max(openmetrics),
            "text/plain" | "text/*" => classic = quality.max(classic),
            _ => {}
        }
    }
    openmetrics > 0.0 && openmetrics >= classic
}

/// OpenMetrics' text in Prometheus' older format: there a counter's family is named as its samples are, with `_total`,
/// and units and the end have no line.
fn classic(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len() + 64);
    let mut lines =
        openmetrics.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")).peekable();
    while let Some(line) = lines.next() {
        let line = match line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            // The type, which follows, says what the help is of.
            Some((name, help)) if lines.peek() == Some(&format!("# TYPE {name} counter").as_str()) => {
                format!("# HELP {name}_total {help}")
            }
            _ => match line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter")) {
                Some(name) => format!("# TYPE {name}_total counter"),
                None => line.to_owned(),
            },
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        // Prometheus' own, with and without the protobuf before it.
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            (None, false),
            (Some("*/*"), false),
            (Some("text/html,application/xhtml+xml,*/*;q=0.8"), false),
            (Some("text/plain"), false),
            (Some("text/plain;version=0.0.4;q=0.5,application/openmetrics-text;q=0.4"), false),
            (Some("application/openmetrics-text;q=0"), false),
            (Some("application/openmetrics-text"), true),
            (Some("Application/OpenMetrics-Text; version=1.0.0"), true),
            (Some("application/openmetrics-text; version=1.0.0, text/plain; q=0.9"), true),
            (Some(prometheus), true),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(accept.map(|accept| (ACCEPT, accept.parse().unwrap())));
            assert_eq!(prefers_openmetrics(&headers), expected, "{accept:?}");
        }
    }
}
