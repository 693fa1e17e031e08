//! What can be done to objects: one function a verb, chosen here by path and method.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod list;
pub(crate) mod pods;
pub(crate) mod prepare;
pub(crate) mod read;
pub(crate) mod render;
pub(crate) mod scale;
pub(crate) mod update;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::kinds::{self, Kind, Storage};
use crate::request::{Query, Target, View, WriteOptions, is_watch};
use crate::server::{self, Api};
use crate::status::{ApiError, json_response};
use crate::{discovery, health, metrics, openapi, protobuf, watch, yaml};
use list::ListOptions;

/// As Kubernetes limits a request body.
const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
/// As Kubernetes limits a request that is none for a stream (`--request-timeout`).
const REQUEST_TIME: Duration = Duration::from_secs(60);
/// For what a client still sends after it was refused.
const DISCARD: Duration = Duration::from_secs(5);
/// What is longer is read, checked and merged on a thread of its own.
const SHORT_BODY_BYTES: usize = 16 * 1024;

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

/// Answers a request.
pub(crate) async fn handle(api: &Arc<Api>, mut request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(request.uri().query().unwrap_or(""));
    let path = request.uri().path().trim_end_matches('/').to_owned();
    let Some(target) = Target::parse(&path) else { return other(api, &path, &query, request.headers()) };
    let Some(kind) = target.kind() else {
        return if kinds::has_group(&target.group) {
            Err(ApiError::no_such_path())
        } else {
            Ok(nothing_there())
        };
    };
    if kind.group == metrics::GROUP && !metrics::available(&api.store) {
        return Err(ApiError::no_such_path());
    }
    // A name, or a new object, needs its namespace; only lists and watches span all of them.
    let spans_all = target.name.is_none() && matches!(*request.method(), Method::GET | Method::DELETE);
    if kind.namespaced && target.namespace.is_empty() && !spans_all
        || !kind.namespaced && !target.namespace.is_empty()
    {
        return Err(ApiError::no_such_path());
    }
    if let Some(subresource) = &target.subresource
        && !kind.has(subresource)
    {
        return Err(ApiError::no_such_path());
    }
    if target.subresource.as_deref() == Some("portforward") {
        return crate::portforward::answer(api, &target, &query, &mut request).await;
    }
    let (parts, body) = request.into_parts();
    if is_watch(&parts.method, &target, &query) {
        let mut selector = query.selector(kind)?;
        ListOptions::check(&query)?;
        if let Some(name) = &target.name {
            selector = selector.named(name);
        }
        if kind.storage == Storage::Computed {
            return Err(ApiError::method_not_allowed());
        }
        let view = View::from(&parts.headers, &query);
        return watch::watch(api, kind, &target.namespace, selector, &query, view);
    }
    let answering = async {
        let body = read_body(&parts.headers, body).await?;
        let is_list = target.name.is_none() && parts.method == Method::GET;
        // A few operations may copy much.
        let content_type = parts.headers.get(http::header::CONTENT_TYPE);
        let is_json_patch =
            content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json-patch"));
        let takes_long = body.len() > SHORT_BODY_BYTES || is_list || is_json_patch;
        let api = Arc::clone(api);
        let answering = async move {
            let call = Call {
                api: &api,
                kind,
                namespace: &target.namespace,
                name: target.name.as_deref(),
                subresource: target.subresource.as_deref(),
                query: &query,
                headers: &parts.headers,
                view: View::from(&parts.headers, &query),
                method: &parts.method,
            };
            call.dispatch(&parts.method, &body).await
        };
        if takes_long { aside(answering).await } else { answering.await }
    };
    tokio::time::timeout(REQUEST_TIME, answering).await.unwrap_or_else(|_| {
        let why = "Timeout: request did not complete within requested timeout - context deadline exceeded";
        Err(ApiError::new(504, "Timeout", why))
    })
}

/// Answers on a thread where that holds up nobody else; as many at a time as there are cores.
async fn aside<T: Send + 'static>(
    answering: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    static CORES: LazyLock<Semaphore> =
        LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));
    let _core = CORES.acquire().await.map_err(ApiError::internal)?;
    let runtime = Handle::current();
    let answered = tokio::task::spawn_blocking(move || runtime.block_on(answering)).await;
    answered.unwrap_or_else(|panicked| Err(ApiError::internal(panicked)))
}

async fn read_body(headers: &HeaderMap, mut body: Body) -> Result<Bytes, ApiError> {
    let mut limited = Limited::new(&mut body, MAX_BODY_BYTES);
    let declared = hyper::body::Body::size_hint(&limited).lower();
    let why = match declared > MAX_BODY_BYTES as u64 {
        true => None,
        false => match (&mut limited).collect().await {
            Ok(read) => return Ok(read.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => None,
            Err(error) => Some(error),
        },
    };
    if let Some(why) = why {
        return Err(ApiError::bad_request(format!("reading the request body: {why}")));
    }
    // Who waits for leave to send it has not sent it.
    if !headers.contains_key(http::header::EXPECT) {
        discard(body);
    }
    let why = format!("Request entity too large: limit is {MAX_BODY_BYTES}");
    Err(ApiError::new(413, "RequestEntityTooLarge", why))
}

/// Reads for a short while what the client still sends: the answer would be lost to the reset that closing the connection
/// makes then.
pub(crate) fn discard<B>(mut body: B)
where
    B: hyper::body::Body + Unpin + Send + 'static,
    B::Data: Send,
{
    if !body.is_end_stream() {
        tokio::spawn(tokio::time::timeout(
            DISCARD,
            async move { while let Some(Ok(_)) = body.frame().await {} },
        ));
    }
}

impl Call<'_> {
    async fn dispatch(&self, method: &Method, body: &Bytes) -> Result<Response<Body>, ApiError> {
        match self.kind.storage {
            Storage::Computed if self.kind.group == metrics::GROUP => {
                return if method == Method::GET {
                    metrics::answer(self)
                } else {
                    Err(ApiError::method_not_allowed())
                };
            }
            Storage::Computed => {
                return if method == Method::POST {
                    review(self, body)
                } else {
                    Err(ApiError::method_not_allowed())
                };
            }
            Storage::Own | Storage::ViewOf(..) => {}
        }
        match (self.name, self.subresource, method) {
            (Some(name), Some("scale"), _) => scale::answer(self, name, method, body).await,
            (Some(name), Some("log"), &Method::GET) => pods::log(self, name).await,
            (Some(name), Some("eviction"), &Method::POST) => pods::evict(self, name, body),
            (Some(name), Some("binding"), &Method::POST) => pods::bind(self, name, body).await,
            (_, Some(subresource @ ("exec" | "attach" | "ephemeralcontainers")), _) => Err(ApiError::new(
                501,
                "NotImplemented",
                format!("the sandbox does not offer {subresource}: its containers are plain processes"),
            )),
            (Some(name), _, &Method::GET) => read::get(self, name),
            (None, None, &Method::GET) => list::list(self),
            (None, None, &Method::POST) => create::create(self, body).await,
            (Some(name), _, &Method::PUT) => update::put(self, name, body).await,
            (Some(name), _, &Method::PATCH) => update::patch(self, name, body).await,
            (Some(name), None, &Method::DELETE) => delete::delete(self, name, body),
            (None, None, &Method::DELETE) => delete::delete_collection(self, body),
            _ => Err(ApiError::method_not_allowed()),
        }
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

/// Every access review says yes: whoever has the token may do everything.
fn review(call: &Call<'_>, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let Value::Object(mut object) = call.read(body)? else {
        return Err(ApiError::bad_request("the object provided is unrecognized: it is not a JSON object"));
    };
    object.insert("apiVersion".to_owned(), call.kind.api_version().into());
    object.insert("kind".to_owned(), call.kind.kind.into());
    object.insert("status".to_owned(), serde_json::json!({"allowed": true}));
    Ok(json_response(201, &Value::Object(object)))
}

fn other(api: &Arc<Api>, path: &str, query: &Query, headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
    if let Some(response) = health::answer(path, query) {
        return Ok(response);
    }
    if path == "/version" {
        return Ok(json_response(200, &server::version()));
    }
    if let Some(response) = openapi::answer(api, path, headers) {
        return Ok(response);
    }
    if let Some(response) = discovery::answer(api, path, headers) {
        return Ok(response);
    }
    match path.trim_start_matches('/').split('/').collect::<Vec<_>>().as_slice() {
        ["api", _] => Err(ApiError::no_such_path()),
        ["apis", group, _] if kinds::has_group(group) => Err(ApiError::no_such_path()),
        _ => Ok(nothing_there()),
    }
}

/// The answer where not even a group of the API is.
fn nothing_there() -> Response<Body> {
    let mut response = Response::new(Body::from("404 page not found\n"));
    *response.status_mut() = http::StatusCode::NOT_FOUND;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    response
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
