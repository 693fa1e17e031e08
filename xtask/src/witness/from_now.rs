//! A watch of what is to come. A namespace keeps its events for an hour, thousands of them where there is much to do; a
//! run that needs none of the earlier ones does not have them listed.

use futures::stream::{BoxStream, Stream, StreamExt as _};
use kube::Api;
use kube::ResourceExt as _;
use kube::api::{ListParams, WatchParams};
use kube::core::{DynamicObject, Status, WatchEvent};
use kube::runtime::watcher::{Error, Event, Result};

/// The version is no longer known.
const GONE: u16 = 410;

/// The changes from now on, behind the end of a list with nothing in it. A watch that breaks goes on where it was; an
/// error is for the caller to tell, and to wait after.
pub(super) fn changes(api: Api<DynamicObject>) -> impl Stream<Item = Result<Event<DynamicObject>>> + Send {
    let changes = Changes { api, version: None, has_begun: false, watch: None };
    futures::stream::unfold(changes, |mut changes| async move {
        let next = changes.next().await;
        Some((next, changes))
    })
}

struct Changes {
    api: Api<DynamicObject>,
    /// Up to which everything was heard.
    version: Option<String>,
    has_begun: bool,
    watch: Option<BoxStream<'static, kube::Result<WatchEvent<DynamicObject>>>>,
}

impl Changes {
    async fn next(&mut self) -> Result<Event<DynamicObject>> {
        loop {
            let Some(version) = &self.version else {
                // A list of one says at which version all of them are.
                let list = self.api.list(&ListParams::default().limit(1)).await;
                self.version = list.map_err(Error::InitialListFailed)?.metadata.resource_version;
                if !std::mem::replace(&mut self.has_begun, true) {
                    return Ok(Event::InitDone);
                }
                continue;
            };
            let Some(watch) = &mut self.watch else {
                match self.api.watch(&WatchParams::default(), version).await {
                    Ok(watch) => self.watch = Some(watch.boxed()),
                    Err(error) => {
                        if let kube::Error::Api(status) = &error {
                            self.forget_if_gone(status);
                        }
                        return Err(Error::WatchStartFailed(error));
                    }
                }
                continue;
            };
            match watch.next().await {
                Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                    self.version = object.resource_version().or(self.version.take());
                    return Ok(Event::Apply(object));
                }
                Some(Ok(WatchEvent::Deleted(object))) => {
                    self.version = object.resource_version().or(self.version.take());
                    return Ok(Event::Delete(object));
                }
                Some(Ok(WatchEvent::Bookmark(bookmark))) => {
                    self.version = Some(bookmark.metadata.resource_version);
                }
                Some(Ok(WatchEvent::Error(status))) => {
                    self.watch = None;
                    self.forget_if_gone(&status);
                    return Err(Error::WatchError(status));
                }
                Some(Err(error)) => {
                    self.watch = None;
                    return Err(Error::WatchFailed(error));
                }
                None => self.watch = None,
            }
        }
    }

    fn forget_if_gone(&mut self, status: &Status) {
        if status.code == GONE {
            self.version = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{Request, Response};
    use k8s_openapi::api::core::v1;
    use kube::client::{Body, Client};
    use kube::core::ApiResource;
    use parking_lot::Mutex;
    use serde_json::{Value, json};

    use super::*;

    fn event(name: &str, version: &str) -> Value {
        json!({"metadata": {"name": name, "resourceVersion": version}})
    }

    /// Events are cut off, forgotten and refused: each later one is heard of, and none that was there before.
    #[tokio::test]
    async fn a_watch_from_now_on_goes_on_where_it_was() {
        let list =
            |version: &str| json!({"metadata": {"resourceVersion": version}, "items": [event("old", "3")]});
        let gone = json!({"code": 410, "status": "Failure", "reason": "Expired", "message": "too old"});
        let answers = [
            ("limit=1", 200, list("5")),
            ("resourceVersion=5", 200, json!({"type": "ADDED", "object": event("a", "6")})),
            ("resourceVersion=6", 200, json!({"type": "ERROR", "object": gone})),
            ("limit=1", 200, list("9")),
            ("resourceVersion=9", 410, gone),
            ("limit=1", 200, list("10")),
            ("resourceVersion=10", 200, json!({"type": "DELETED", "object": event("a", "11")})),
        ];
        let left = Arc::new(Mutex::new(answers.into_iter()));
        let asked = Arc::clone(&left);
        let service = tower::service_fn(move |request: Request<Body>| {
            let next = asked.lock().next();
            async move {
                let (query, code, body) = next.ok_or("asked too often")?;
                let asked = request.uri().query().unwrap_or_default().to_owned();
                assert!(asked.split('&').any(|pair| pair == query), "{query} in {asked}");
                let body = Body::from(format!("{body}\n").into_bytes());
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(
                    Response::builder().status(code).body(body).expect("an answer"),
                )
            }
        });
        let client = Client::new(service, "default");
        let api = Api::default_namespaced_with(client, &ApiResource::erase::<v1::Event>(&()));
        let heard = changes(api).take(5).map(|change| match change {
            Ok(Event::InitDone) => "listed".to_owned(),
            Ok(Event::Apply(object)) => format!("told {}", object.name_any()),
            Ok(Event::Delete(object)) => format!("dropped {}", object.name_any()),
            Ok(other) => format!("{other:?}"),
            Err(error) => crate::failure::reason(&error),
        });
        let heard: Vec<_> = heard.collect().await;
        assert_eq!(heard, ["listed", "told a", "too old: Expired", "too old", "dropped a"]);
        assert_eq!(left.lock().len(), 0);
    }
}
