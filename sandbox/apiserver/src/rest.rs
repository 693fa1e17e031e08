//! What can be done to objects: one function a verb, chosen here by path and method.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod faults;
pub(crate) mod fresh;
pub(crate) mod list;
pub(crate) mod pods;
pub(crate) mod prepare;
pub(crate) mod read;
pub(crate) mod scale;
pub(crate) mod update;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use sandbox_connections::Freed;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::call::Call;
use crate::kind::Storage;
use crate::kinds;
use crate::request::{Query, Target, View, is_watch};
use crate::state::Api;
use crate::status::{ApiError, json_response};
use crate::{discovery, health, metrics, openapi, watch};
use list::ListOptions;

/// As Kubernetes limits a request body.
const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
/// As Kubernetes limits a request that is none for a stream (`--request-timeout`).
const REQUEST_TIME: Duration = Duration::from_secs(60);
/// For what a client still sends after it was refused.
const DISCARD: Duration = Duration::from_secs(5);
/// What is longer is read, checked and merged on a thread of its own.
const SHORT_BODY_BYTES: usize = 16 * 1024;
/// An object that holds more memory is changed and shown there too, however short the request is.
const SMALL_OBJECT_BYTES: usize = 256 * 1024;
/// A request with a longer body, or about a larger object, leaves much memory behind.
const LARGE_BODY_BYTES: usize = 256 * 1024;
const LARGE_OBJECT_BYTES: usize = 4 * 1024 * 1024;

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
        if parts.method == Method::GET && target.subresource.is_none() {
            fresh::not_older(api, &query).await?;
        }
        let object =
            target.name.as_ref().and_then(|name| api.store.get(kind.stored(), &target.namespace, name));
        let object_bytes = object.map_or(0, |object| object.memory_bytes());
        // A few operations may copy much.
        let content_type = parts.headers.get(http::header::CONTENT_TYPE);
        let is_json_patch =
            content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json-patch"));
        let takes_long =
            body.len() > SHORT_BODY_BYTES || object_bytes > SMALL_OBJECT_BYTES || is_list || is_json_patch;
        let frees_much =
            (body.len() > LARGE_BODY_BYTES || object_bytes > LARGE_OBJECT_BYTES).then(Freed::begin);
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
            dispatch(&call, &body).await
        };
        if takes_long { aside(answering, frees_much).await } else { answering.await }
    };
    tokio::time::timeout(REQUEST_TIME, answering).await.unwrap_or_else(|_| {
        let why = "Timeout: request did not complete within requested timeout - context deadline exceeded";
        Err(ApiError::new(504, "Timeout", why))
    })
}

/// Answers on a thread where that holds up nobody else; as many at a time as there are cores. What is `freed` by it is
/// given back to the system.
async fn aside<T: Send + 'static>(
    answering: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    freed: Option<Freed>,
) -> Result<T, ApiError> {
    static CORES: LazyLock<Semaphore> =
        LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));
    let _core = CORES.acquire().await.map_err(ApiError::internal)?;
    let runtime = Handle::current();
    let answered = tokio::task::spawn_blocking(move || {
        let answer = runtime.block_on(answering);
        drop(freed);
        answer
    });
    let answered = answered.await;
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

/// Reads for a short while what the client still sends: the answer would be lost to the reset that closing the
/// connection makes then.
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

async fn dispatch(call: &Call<'_>, body: &Bytes) -> Result<Response<Body>, ApiError> {
    let method = call.method;
    match call.kind.storage {
        Storage::Computed if call.kind.group == metrics::GROUP => {
            return if method == Method::GET {
                metrics::answer(call)
            } else {
                Err(ApiError::method_not_allowed())
            };
        }
        Storage::Computed => {
            return if method == Method::POST {
                review(call, body)
            } else {
                Err(ApiError::method_not_allowed())
            };
        }
        Storage::Own | Storage::ViewOf(..) => {}
    }
    match (call.name, call.subresource, method) {
        (Some(name), Some("scale"), _) => scale::answer(call, name, method, body).await,
        (Some(name), Some("log"), &Method::GET) => pods::log(call, name).await,
        (Some(name), Some("eviction"), &Method::POST) => pods::evict(call, name, body),
        (Some(name), Some("binding"), &Method::POST) => pods::bind(call, name, body).await,
        (_, Some(subresource @ ("exec" | "attach" | "ephemeralcontainers")), _) => Err(ApiError::new(
            501,
            "NotImplemented",
            format!("the sandbox does not offer {subresource}: its containers are plain processes"),
        )),
        (Some(name), _, &Method::GET) => read::get(call, name),
        (None, None, &Method::GET) => list::list(call),
        (None, None, &Method::POST) => create::create(call, body).await,
        (Some(name), _, &Method::PUT) => update::put(call, name, body).await,
        (Some(name), _, &Method::PATCH) => update::patch(call, name, body).await,
        (Some(name), None, &Method::DELETE) => delete::delete(call, name, body),
        (None, None, &Method::DELETE) => delete::delete_collection(call, body),
        _ => Err(ApiError::method_not_allowed()),
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
        return Ok(json_response(200, &health::version()));
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
