//! list: what its options allow, and the pages that `limit` asks for.

use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Response, header};
use serde_json::{Value, json};

use crate::call::Call;
use crate::causes::Cause;
use crate::meta::meta;
use crate::request::{Query, View};
use crate::status::ApiError;
use crate::store::{Expired, Object};
use crate::{render, table, views};

/// Kubernetes' `ListOptions`, as far as they matter here.
pub(crate) struct ListOptions {
    limit: usize,
    page: Option<Page>,
}

/// Where the next page begins: after this object, in the state at this version.
#[derive(Debug, Clone, PartialEq)]
struct Page {
    version: u64,
    after: (String, String),
}

impl Page {
    /// The token that `continue` brings back.
    fn token(&self) -> String {
        let text = json!([self.version, self.after.0, self.after.1]).to_string();
        let encoded = serde_json::to_value(k8s_openapi::ByteString(text.into_bytes())).unwrap_or_default();
        encoded.as_str().unwrap_or_default().to_owned()
    }

    fn read(token: &str) -> Option<Page> {
        let bytes: k8s_openapi::ByteString = serde_json::from_value(json!(token)).ok()?;
        let (version, namespace, name) = serde_json::from_slice(&bytes.0).ok()?;
        Some(Page { version, after: (namespace, name) })
    }
}

impl ListOptions {
    /// Refuses options of a list or watch that contradict each other.
    pub(crate) fn check(query: &Query) -> Result<(), ApiError> {
        let get = |key: &str| query.get(key).unwrap_or("");
        let (matching, field) = (get("resourceVersionMatch"), "resourceVersionMatch");
        let watches = query.flag("watch");
        let mut causes = Vec::new();
        let mut forbid = |field: &str, why: &str| causes.push(Cause::forbidden(field, why));
        if watches && query.has("sendInitialEvents") && matching != "NotOlderThan" {
            forbid(field, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        }
        if !watches && query.has("sendInitialEvents") {
            forbid("sendInitialEvents", "sendInitialEvents is forbidden for list");
        }
        if !matching.is_empty() {
            if watches && !query.has("sendInitialEvents") {
                forbid(
                    field,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                );
            }
            if !watches && get("resourceVersion").is_empty() {
                forbid(field, "resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if !get("continue").is_empty() {
                forbid(field, "resourceVersionMatch is forbidden with continue");
            }
            let supported: &[&str] = if watches { &["NotOlderThan"] } else { &["Exact", "NotOlderThan", ""] };
            if !supported.contains(&matching) {
                causes.push(Cause::not_supported(field, &json!(matching), supported));
            }
        }
        if causes.is_empty() { Ok(()) } else { Err(ApiError::invalid_options("ListOptions", &causes)) }
    }

    fn read(query: &Query) -> Result<ListOptions, ApiError> {
        let limit = query.number("limit")?.unwrap_or(0);
        query.number("timeoutSeconds")?;
        ListOptions::check(query)?;
        let version = query.get("resourceVersion").filter(|text| !text.is_empty());
        let exactly = query.get("resourceVersionMatch") == Some("Exact");
        let version = version.map(|text| {
            text.parse::<u64>().map_err(|_| {
                ApiError::bad_request(format!(
                    "invalid resource version: resourceVersion: Invalid value: \"{text}\": \
                     strconv.ParseUint: \
                     parsing \"{text}\": invalid syntax"
                ))
            })
        });
        let version = version.transpose()?.filter(|_| exactly);
        let page = match query.get("continue").filter(|token| !token.is_empty()) {
            Some(token) => Some(Page::read(token).ok_or_else(|| {
                ApiError::bad_request(
                    "invalid continue token: continue key is not valid: it is not of this server",
                )
            })?),
            None => version.map(|version| Page { version, after: Default::default() }),
        };
        Ok(ListOptions { limit: usize::try_from(limit).unwrap_or(0), page })
    }
}

pub(crate) fn list(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let options = ListOptions::read(call.query)?;
    let selector = call.query.selector(call.kind)?;
    let namespace = (!call.namespace.is_empty()).then_some(call.namespace);
    let kind = call.kind.stored();
    let (mut objects, version) = match &options.page {
        None => call.api.store.list(kind, namespace),
        Some(page) => {
            let objects = call.api.store.list_at(kind, namespace, page.version);
            let mut objects = objects.map_err(|Expired(_)| expired())?;
            objects.retain(|object| key(object) > page.after);
            (objects, page.version)
        }
    };
    objects.retain(|object| selector.matches(object));
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if options.limit > 0 && objects.len() > options.limit {
        // A real server only counts what is left where it need not look at each object.
        if selector.is_empty() {
            metadata["remainingItemCount"] = json!(objects.len() - options.limit);
        }
        objects.truncate(options.limit);
        let after = objects.last().map(key).unwrap_or_default();
        metadata["continue"] = json!(Page { version, after }.token());
    }
    respond(call, objects, metadata)
}

fn key(object: &Object) -> (String, String) {
    (meta(object, "namespace").to_owned(), meta(object, "name").to_owned())
}

fn expired() -> ApiError {
    let why = "The provided continue parameter is too old to display a consistent list result. You can \
               start a new \
               list without the continue parameter.";
    ApiError::new(410, "Expired", why)
}

/// The list as the client wants to see it. Its items leave out what the list says of them all: kind and version.
pub(crate) fn respond(
    call: &Call<'_>,
    objects: Vec<Object>,
    metadata: Value,
) -> Result<Response<Body>, ApiError> {
    let kind = call.kind;
    match call.view {
        View::Table(rows) => {
            let frame = render::table(kind, rows, &[], metadata);
            Ok(in_pieces(&frame, "rows", objects, move |object| table::row(kind, rows, object)))
        }
        View::Metadata => {
            let why = format!(
                "you requested PartialObjectMetadata, but the requested object is a list (*{}.{}List)",
                kind.package(),
                kind.kind
            );
            Err(ApiError::new(406, "NotAcceptable", why))
        }
        View::MetadataList => {
            let (list, version) = ("PartialObjectMetadataList", "meta.k8s.io/v1");
            let frame = json!({"kind": list, "apiVersion": version, "metadata": metadata, "items": []});
            Ok(in_pieces(&frame, "items", objects, views::metadata_only))
        }
        View::Object => {
            let (list, version) = (format!("{}List", kind.kind), kind.api_version());
            let frame = json!({"kind": list, "apiVersion": version, "metadata": metadata, "items": []});
            Ok(in_pieces(&frame, "items", objects, move |object| {
                let mut item = views::show(kind, object);
                if let Some(fields) = item.as_object_mut() {
                    fields.remove("kind");
                    fields.remove("apiVersion");
                }
                item
            }))
        }
    }
}

/// What is made of a list at a time.
const PIECE_BYTES: usize = 16 * 1024;

/// An answer whose items are made text one after another, as its client reads it: many clients that don't read are many
/// lists of references, and not of text. `frame` is the answer with its list empty.
fn in_pieces(
    frame: &Value,
    list: &str,
    objects: Vec<Object>,
    item: impl Fn(&Value) -> Value + Send + 'static,
) -> Response<Body> {
    let frame = frame.to_string();
    let (head, tail) = frame.split_once(&format!("\"{list}\":[]")).unwrap_or((&frame, ""));
    let head = format!("{head}\"{list}\":[");
    let items = objects.into_iter().enumerate().map(move |(index, object)| {
        let comma = if index == 0 { "" } else { "," };
        format!("{comma}{}", item(&object))
    });
    let mut texts = std::iter::once(head).chain(items).chain(std::iter::once(format!("]{tail}")));
    let pieces = std::iter::from_fn(move || {
        let mut piece = String::new();
        while piece.len() < PIECE_BYTES
            && let Some(text) = texts.next()
        {
            piece.push_str(&text);
        }
        (!piece.is_empty()).then(|| Ok::<_, Infallible>(Bytes::from(piece)))
    });
    let mut response = Response::new(Body::from_stream(futures::stream::iter(pieces)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn of_a_list_that_nobody_reads_nothing_is_made() {
        let objects: Vec<_> =
            (0..100).map(|n| Object::new(json!({"n": n, "text": "x".repeat(10_000)}))).collect();
        let frame = json!({"kind": "List", "items": [], "metadata": {"continue": "items"}});
        let made = Arc::new(AtomicUsize::new(0));
        let counted = made.clone();
        let answer = in_pieces(&frame, "items", objects.clone(), move |object| {
            counted.fetch_add(1, Ordering::Relaxed);
            object.clone()
        });
        let mut body = answer.into_body();
        let first = body.frame().await.expect("a frame").expect("no error").into_data().expect("data");
        assert!(first.len() < 2 * PIECE_BYTES && made.load(Ordering::Relaxed) <= 2, "{} bytes", first.len());
        let rest = body.collect().await.expect("the rest").to_bytes();
        let whole: Value = serde_json::from_slice(&[first, rest].concat()).expect("JSON");
        let items: Vec<&Value> = objects.iter().map(|object| &**object).collect();
        assert_eq!(whole, json!({"kind": "List", "items": items, "metadata": {"continue": "items"}}));

        let none = in_pieces(&frame, "items", Vec::new(), Value::clone).into_body();
        let none: Value =
            serde_json::from_slice(&none.collect().await.expect("a body").to_bytes()).expect("JSON");
        assert_eq!(none, frame);
    }
}
