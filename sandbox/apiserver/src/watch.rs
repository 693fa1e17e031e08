//! Watches: a stream of changes from a resourceVersion on, woken by the store, never polling.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::kind::{Kind, Storage};
use crate::render;
use crate::request::{Query, View};
use crate::selectors::Selector;
use crate::state::Api;
use crate::status::ApiError;
use crate::store::{Change, Expired, Object};

/// Without `timeoutSeconds` a watch ends after this long, as a real server ends them now and then.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// A watch that asks for longer is ended after a day.
const MAX_SECONDS: i64 = 24 * 60 * 60;
/// How often a quiet watch hears of the newest version.
const BOOKMARK_EVERY: Duration = Duration::from_secs(15);
/// Changes that a watch takes out of the log at a time: what its client does not read stays there.
const CHANGES: usize = 64;
/// A line is sent in pieces of this size: a connection copies no more of it than it can send soon.
const PIECE_BYTES: usize = 16 * 1024;

struct Watch {
    api: Arc<Api>,
    /// As asked for; objects come from `kind.stored()`.
    kind: &'static Kind,
    namespace: String,
    selector: Selector,
    view: View,
    bookmarks: bool,
    position: u64,
    changed: tokio::sync::watch::Receiver<u64>,
    /// Events to come, and the rest of the line that is being sent.
    pending: VecDeque<Event>,
    line: VecDeque<Bytes>,
    deadline: Instant,
    next_bookmark: Instant,
    over: bool,
}

enum Event {
    Of(&'static str, Object),
    /// Bookmarks and errors.
    Line(Bytes),
}

/// Answers a watch request.
pub(crate) fn watch(
    api: &Arc<Api>,
    kind: &'static Kind,
    namespace: &str,
    selector: Selector,
    query: &Query,
    view: View,
) -> Result<Response<Body>, ApiError> {
    let asked = match query.get("resourceVersion") {
        None | Some("" | "0") => None,
        Some(text) => Some(text.parse::<u64>().map_err(|_| {
            // A real server has no better code and no reason for this either.
            let why = format!(
                "resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid \
                 syntax"
            );
            ApiError::new(500, "", why)
        })?),
    };
    let timeout = match query.number("timeoutSeconds")? {
        None | Some(0) => DEFAULT_TIMEOUT,
        Some(seconds) => Duration::from_secs(seconds.clamp(0, MAX_SECONDS).cast_unsigned()),
    };
    let initial = query.get("sendInitialEvents").map(|value| value == "true");
    let changed = api.store.subscribe(kind.stored());
    let mut watch = Watch {
        api: api.clone(),
        kind,
        namespace: namespace.to_owned(),
        selector,
        view,
        bookmarks: query.flag("allowWatchBookmarks"),
        position: asked.unwrap_or(0),
        changed,
        pending: VecDeque::new(),
        line: VecDeque::new(),
        deadline: Instant::now() + timeout,
        next_bookmark: Instant::now() + BOOKMARK_EVERY,
        over: false,
    };
    if initial.unwrap_or(asked.is_none()) {
        watch.start_with_current(initial == Some(true));
    } else if asked.is_none() {
        watch.position = api.store.version();
    }
    let closing = api.closing();
    let stream = futures::stream::unfold(watch, async |mut watch| {
        watch.next().await.map(|bytes| (Ok::<_, std::convert::Infallible>(bytes), watch))
    });
    let stream = futures::StreamExt::take_until(stream, closing.cancelled_owned());
    let mut response = Response::new(Body::from_stream(stream));
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    Ok(response)
}

impl Watch {
    /// The current objects as additions; with `mark`, then the bookmark that says they are complete.
    fn start_with_current(&mut self, mark: bool) {
        let namespace = (!self.namespace.is_empty()).then_some(self.namespace.as_str());
        let (objects, version) = self.api.store.list(self.kind.stored(), namespace);
        self.position = version;
        for object in objects {
            if self.selector.matches(&object) {
                self.pending.push_back(Event::Of("ADDED", object));
            }
        }
        if mark {
            self.push_bookmark(true);
        }
    }

    /// The next piece of a line, or `None` when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.line.pop_front() {
                return Some(piece);
            }
            if let Some(event) = self.pending.pop_front() {
                self.line = self.pieces(event);
                continue;
            }
            if self.over {
                return None;
            }
            self.changed.mark_unchanged();
            // Read before the changes, so that a bookmark never promises more than was looked at.
            let newest = self.api.store.version();
            match self.api.store.changes_after(self.kind.stored(), self.position, CHANGES) {
                Ok(changes) => {
                    for change in &changes {
                        self.push_change(change);
                        self.position = change.version;
                    }
                    if changes.len() == CHANGES {
                        continue;
                    }
                    self.position = self.position.max(newest);
                }
                Err(Expired(oldest)) => {
                    let status = ApiError::expired(self.position, oldest).to_value();
                    self.pending.push_back(Event::Line(line("ERROR", &status)));
                    self.over = true;
                }
            }
            if !self.pending.is_empty() {
                continue;
            }
            tokio::select! {
                changed = self.changed.changed() => self.over = changed.is_err(),
                () = tokio::time::sleep_until(self.next_bookmark) => {
                    self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    self.push_bookmark(false);
                }
                () = tokio::time::sleep_until(self.deadline) => {
                    self.push_bookmark(false);
                    self.over = true;
                }
            }
        }
    }

    fn push_change(&mut self, change: &Change) {
        let concerns = |object: &Object| {
            (self.namespace.is_empty() || object["metadata"]["namespace"] == *self.namespace)
                && self.selector.matches(object)
        };
        let before = change.before.as_ref().is_some_and(concerns);
        let after = !change.deleted && concerns(&change.after);
        let event = match (before, after) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return,
        };
        self.pending.push_back(Event::Of(event, change.after.clone()));
    }

    /// The event as a line, in pieces.
    fn pieces(&self, event: Event) -> VecDeque<Bytes> {
        let (event, object) = match event {
            Event::Line(line) => return VecDeque::from([line]),
            Event::Of(event, object) => (event, object),
        };
        // As it is stored, it is the same for all.
        let mut rest = match (self.view, self.kind.storage) {
            (View::Object, Storage::Own) => object.text(),
            _ => render::one(self.kind, &object, self.view).to_string().into(),
        };
        let head = format!("{{\"type\":\"{event}\",\"object\":");
        if head.len() + rest.len() < PIECE_BYTES {
            return VecDeque::from([[head.as_bytes(), &rest, b"}\n"].concat().into()]);
        }
        let mut pieces = VecDeque::from([head.into()]);
        while !rest.is_empty() {
            pieces.push_back(rest.split_to(rest.len().min(PIECE_BYTES)));
        }
        pieces.push_back(Bytes::from_static(b"}\n"));
        pieces
    }

    fn push_bookmark(&mut self, initial_end: bool) {
        if !self.bookmarks && !initial_end {
            return;
        }
        let mut object = json!({
            "kind": self.kind.kind, "apiVersion": self.kind.api_version(),
            "metadata": {"resourceVersion": self.position.to_string(), "creationTimestamp": null},
        });
        match self.view {
            View::Object => {}
            View::Table(_) => object = render::empty_table(self.kind, self.position),
            View::Metadata | View::MetadataList => {
                object["kind"] = json!("PartialObjectMetadata");
                object["apiVersion"] = json!("meta.k8s.io/v1");
            }
        }
        if initial_end {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        self.pending.push_back(Event::Line(line("BOOKMARK", &object)));
    }
}

fn line(event: &str, object: &Value) -> Bytes {
    let mut text = json!({"type": event, "object": object}).to_string();
    text.push('\n');
    Bytes::from(text)
}
