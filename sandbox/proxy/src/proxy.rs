//! The reverse proxy: one request in, tries at pods as nginx would make them, one answer and one log line out.

use std::convert::Infallible;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body as _, Incoming};
use tokio::sync::watch;

use crate::access_log::{AccessLog, Attempt, Record};
use crate::answer::Answer;
use crate::payload::{Payload, Progress, Source, Unreadable, discard};
use crate::route::{Location, Settings, Table};
use crate::upstream::{Connection, Failure, Pool};

/// ingress-nginx's `proxy-next-upstream-tries`.
const TRIES: usize = 3;
/// nginx's own status for a client that left; never sent.
const CLIENT_LEFT: u16 = 499;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Headers of one connection, not of the request (RFC 9110, 7.6.1), and two that nginx does not pass on.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// What every connection of the proxy shares.
pub struct Proxy {
    routes: watch::Receiver<Option<Arc<Table>>>,
    pool: Arc<Pool>,
    log: AccessLog,
    /// Every request is answered 502, as a fault on purpose.
    pub bad_gateway: AtomicBool,
    /// What each request takes longer, as a fault on purpose.
    pub latency_ms: AtomicU32,
}

impl Proxy {
    /// A proxy that follows `routes`, of which None is as good as empty, and logs to `log`.
    pub fn new(routes: watch::Receiver<Option<Arc<Table>>>, log: AccessLog) -> Arc<Proxy> {
        let (bad_gateway, latency_ms) = (AtomicBool::new(false), AtomicU32::new(0));
        Arc::new(Proxy { routes, pool: Arc::default(), log, bad_gateway, latency_ms })
    }

    /// Closes upstream connections that were idle for too long.
    pub(crate) fn sweep(&self) {
        self.pool.sweep();
    }

    pub(crate) async fn handle(
        &self,
        remote: SocketAddr,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Infallible> {
        let (mut parts, body) = request.into_parts();
        let mut record = self.record(remote, &parts);
        if let Some(status) = refused_by_nginx(&parts) {
            return Ok(refuse(status, record, &parts, body));
        }
        let host = host(&parts).unwrap_or_default().to_string();
        let table = self.routes.borrow().clone();
        let Some(location) = table.as_ref().and_then(|table| table.find(&host, parts.uri.path())) else {
            record.upstream = "upstream-default-backend".into();
            return Ok(refuse(StatusCode::NOT_FOUND, record, &parts, body));
        };
        record.upstream.clone_from(&location.backend.name);
        if self.bad_gateway.load(Ordering::Relaxed) {
            return Ok(refuse(StatusCode::BAD_GATEWAY, record, &parts, body));
        }

        // A client that leaves in the middle of its body is logged as a bad request; once the body is read, as 499.
        let progress = Progress::new();
        let settings = &location.settings;
        record.status = StatusCode::BAD_REQUEST.as_u16();
        let head_bytes = record.request_bytes;
        let source = Source::new(body, settings, Arc::clone(&progress));
        let payload = Payload::read(source, settings.buffer_request).await;
        record.request_bytes = head_bytes + progress.bytes();
        record.status = CLIENT_LEFT;
        let payload = match payload {
            Ok(payload) => payload,
            Err((reason, body)) => return Ok(refuse(unreadable(reason), record, &parts, body)),
        };
        match self.latency_ms.load(Ordering::Relaxed) {
            0 => {}
            ms => tokio::time::sleep(Duration::from_millis(ms.into())).await,
        }
        forward_headers(&mut parts.headers, &host, remote, &record.request_id);
        let outcome = self.forward(location, parts, payload, &progress, &mut record).await;
        record.request_bytes = head_bytes + progress.bytes();
        Ok(match outcome {
            Ok((response, connection)) => self.answer(response, connection, record, settings),
            Err(status) => Answer::page(status, record),
        })
    }

    /// Logs a request of which only the beginning came, as nginx does.
    pub(crate) fn log_unfinished(&self, remote: SocketAddr, began: Instant) {
        drop(Record {
            log: self.log.clone(),
            remote: remote.ip(),
            request: String::new(),
            status: StatusCode::REQUEST_TIMEOUT.as_u16(),
            body_bytes: 0,
            referer: None,
            user_agent: None,
            request_bytes: 0,
            started: began,
            upstream: String::new(),
            attempts: Vec::new(),
            request_id: new_request_id(),
        });
    }

    fn record(&self, remote: SocketAddr, parts: &Parts) -> Record {
        let text = |name| parts.headers.get(name).map(|v: &HeaderValue| lossy(v));
        let target = parts.uri.path_and_query().map_or("*", |target| target.as_str());
        let request = format!("{} {target} {:?}", parts.method, parts.version);
        let fields: usize =
            parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        Record {
            log: self.log.clone(),
            remote: remote.ip(),
            status: CLIENT_LEFT,
            body_bytes: 0,
            referer: text(header::REFERER),
            user_agent: text(header::USER_AGENT),
            request_bytes: (request.len() + 2 + fields + 2) as u64,
            request,
            started: Instant::now(),
            upstream: "-".into(),
            attempts: Vec::new(),
            request_id: text(REQUEST_ID).filter(|id| !id.is_empty()).unwrap_or_else(new_request_id),
        }
    }

    /// Tries pods until one answers. A request that was written, wholly or in part, is written again only if its method
    /// says that this is harmless; a kept connection that turns out to be dead does not count as a try.
    async fn forward(
        &self,
        location: &Location,
        parts: Parts,
        payload: Payload,
        progress: &Progress,
        record: &mut Record,
    ) -> Result<(Response<Incoming>, Connection), StatusCode> {
        let uri: Uri = parts.uri.path_and_query().map_or_else(Uri::default, |target| target.clone().into());
        let repeatable =
            ![Method::POST, Method::PATCH].contains(&parts.method) && parts.method.as_str() != "LOCK";
        let mut payload = Some(payload);
        let mut tries = TRIES;
        let mut status = StatusCode::SERVICE_UNAVAILABLE;
        while tries > 0 {
            let Some(address) = location.backend.pick() else { return Err(status) };
            record.attempts.push(Attempt::start(address));
            tries -= 1;
            let copy = payload.as_ref().and_then(Payload::again);
            let Some(body) = payload.take() else { return Err(status) };
            payload = copy;
            let mut request = Request::new(body);
            *request.method_mut() = parts.method.clone();
            *request.uri_mut() = uri.clone();
            *request.headers_mut() = parts.headers.clone();

            let (failure, unsent, reused) =
                match self.attempt(address, request, &location.settings, progress).await {
                    Ok((response, connection)) => {
                        if let Some(attempt) = record.attempt() {
                            attempt.status = Some(response.status().as_u16());
                        }
                        return Ok((response, connection));
                    }
                    Err(failed) => failed,
                };
            if let Some(reason) = progress.failure() {
                return Err(unreadable(reason));
            }
            if let Some(request) = unsent {
                payload = Some(request.into_body());
            }
            status = match failure {
                Failure::ConnectTimeout | Failure::ReadTimeout => StatusCode::GATEWAY_TIMEOUT,
                Failure::Connect | Failure::Unsent | Failure::Dropped => StatusCode::BAD_GATEWAY,
            };
            if let Some(attempt) = record.attempt() {
                attempt.fail(status.as_u16());
            }
            let written = matches!(failure, Failure::Dropped | Failure::ReadTimeout);
            if written && !repeatable {
                break;
            }
            if reused && matches!(failure, Failure::Dropped) {
                tries += 1;
            }
        }
        Err(status)
    }

    /// One try at one pod.
    async fn attempt(
        &self,
        address: SocketAddr,
        mut request: Request<Payload>,
        settings: &Settings,
        progress: &Progress,
    ) -> Result<(Response<Incoming>, Connection), (Failure, Option<Request<Payload>>, bool)> {
        loop {
            let mut connection = match self.pool.connect(address, settings.connect_timeout).await {
                Ok(connection) => connection,
                Err(failure) => return Err((failure, Some(request), false)),
            };
            let reused = connection.reused;
            let sent = tokio::select! {
                biased;
                sent = connection.send(request) => sent,
                () = silence(settings.read_timeout, progress) => Err((Failure::ReadTimeout, None)),
            };
            match sent {
                Ok(response) => return Ok((response, connection)),
                // The pod closed a kept connection before we wrote to it: as if it had not been kept.
                Err((Failure::Unsent, Some(unsent))) if reused => request = unsent,
                Err((failure, unsent)) => return Err((failure, unsent, reused)),
            }
        }
    }

    fn answer(
        &self,
        response: Response<Incoming>,
        connection: Connection,
        mut record: Record,
        settings: &Settings,
    ) -> Response<Answer> {
        record.status = response.status().as_u16();
        let (mut parts, body) = response.into_parts();
        parts.version = Version::HTTP_11;
        remove_hop_by_hop(&mut parts.headers);
        let body = Answer::pod(body, record, connection, Arc::clone(&self.pool), settings.read_timeout);
        Response::from_parts(parts, body)
    }
}

/// Answers with a page although the body was not read.
fn refuse(status: StatusCode, record: Record, parts: &Parts, body: Incoming) -> Response<Answer> {
    let is_slow = status == StatusCode::REQUEST_TIMEOUT;
    // A client that waits for `100 Continue` has not sent it, and reading it would ask for it.
    if !is_slow && !parts.headers.contains_key(header::EXPECT) && !body.is_end_stream() {
        discard(body);
    }
    let mut answer = Answer::page(status, record);
    if is_slow {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

fn unreadable(reason: Unreadable) -> StatusCode {
    match reason {
        Unreadable::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Unreadable::Client => StatusCode::BAD_REQUEST,
        Unreadable::Slow => StatusCode::REQUEST_TIMEOUT,
    }
}

/// Ends when the pod has been silent for `limit`, not counting the time in which the client still sent its body.
async fn silence(limit: Duration, progress: &Progress) {
    let started = Instant::now();
    loop {
        let silent = started.elapsed().min(progress.idle());
        match limit.checked_sub(silent).filter(|left| !left.is_zero()) {
            Some(left) => tokio::time::sleep(left).await,
            None => return,
        }
    }
}

/// The status with which nginx refuses a request before it looks for a route: what two servers could understand in two
/// ways is passed on to none, and a tunnel is for no pod. (hyper has dealt with a length that is said twice.)
fn refused_by_nginx(parts: &Parts) -> Option<StatusCode> {
    if [Method::CONNECT, Method::TRACE].contains(&parts.method) {
        return Some(StatusCode::METHOD_NOT_ALLOWED);
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let named = hosts.next();
    let is_ambiguous = hosts.next().is_some()
        || named.is_some_and(|host| host.to_str().is_err() || host.as_bytes().contains(&b'/'))
        || host(parts).is_none() && parts.version != Version::HTTP_10;
    is_ambiguous.then_some(StatusCode::BAD_REQUEST)
}

fn host(parts: &Parts) -> Option<&str> {
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    authority.or_else(|| parts.headers.get(header::HOST)?.to_str().ok()).filter(|host| !host.is_empty())
}

/// What ingress-nginx sets for the pod. The client's own forwarding headers are not trusted: they are replaced.
fn forward_headers(headers: &mut HeaderMap, host: &str, remote: SocketAddr, request_id: &str) {
    remove_hop_by_hop(headers);
    headers.remove(header::CONTENT_LENGTH); // hyper writes it from the body's length
    headers.remove("proxy");
    if let Some(theirs) = headers.remove("x-forwarded-for") {
        headers.insert("x-original-forwarded-for", theirs);
    }
    let address = remote.ip().to_string();
    for (name, value) in [
        ("host", host),
        ("x-request-id", request_id),
        ("x-real-ip", &address),
        ("x-forwarded-for", &address),
        ("x-forwarded-host", host),
        ("x-forwarded-port", "80"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-scheme", "http"),
        ("x-scheme", "http"),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|name| name.trim().to_ascii_lowercase()))
        .collect();
    for name in named {
        headers.remove(name.as_str());
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

fn lossy(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// 32 hexadecimal digits, as nginx's `$request_id`. Unique, not secret.
fn new_request_id() -> String {
    let half = || {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_i128(jiff::Timestamp::now().as_nanosecond());
        hasher.finish()
    };
    format!("{:016x}{:016x}", half(), half())
}
