//! What the API server holds of one kind, kept current by a list and a watch.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::ResourceExt as _;
use kube::api::{ListParams, WatchEvent};
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::objects::{Object, Objects};

/// Pauses between attempts to list after a failure: short, because the API server is on this machine.
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_secs(2);
/// How many deleted objects are remembered, so that a late answer to a write does not bring one back.
const REMEMBERED_DELETIONS: usize = 4096;

/// The objects of one kind. Cheap to clone.
///
/// A controller hands the answers to its own writes to [`Cache::observe`], so that its next pass sees them whether or
/// not the watch has brought them yet: that is what keeps it from creating a pod twice.
pub(crate) struct Cache<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

struct Shared<K> {
    state: RwLock<State<K>>,
    listeners: Mutex<Vec<Arc<Notify>>>,
    listed: watch::Sender<bool>,
}

struct State<K> {
    /// By namespace and name.
    objects: BTreeMap<(String, String), Arc<K>>,
    deleted: HashSet<String>,
    deleted_order: VecDeque<String>,
}

impl<K: Object> Cache<K> {
    /// Starts to follow `api`.
    pub(crate) fn start(api: Objects<K>, tasks: &mut JoinSet<()>) -> Self {
        let cache = Self {
            shared: Arc::new(Shared {
                state: RwLock::new(State {
                    objects: BTreeMap::new(),
                    deleted: HashSet::new(),
                    deleted_order: VecDeque::new(),
                }),
                listeners: Mutex::default(),
                listed: watch::Sender::new(false),
            }),
        };
        tasks.spawn(cache.clone().follow(api));
        cache
    }

    /// Resolves once the first list is in.
    pub(crate) async fn synced(&self) {
        // The sender lives as long as `self`.
        let _ = self.shared.listed.subscribe().wait_for(|listed| *listed).await;
    }

    /// Wakes `listener` at every change from now on.
    pub(crate) fn wake(&self, listener: &Arc<Notify>) {
        self.shared.listeners.lock().push(Arc::clone(listener));
    }

    /// Every object, by namespace and name.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.read().objects.values().cloned().collect()
    }

    /// The objects of one namespace, by name.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let from = (namespace.to_owned(), String::new());
        let state = self.read();
        state
            .objects
            .range(from..)
            .take_while(|((own, _), _)| own == namespace)
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    /// One object.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.read().objects.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Takes the answer to a write, unless something newer is known.
    pub(crate) fn observe(&self, object: K) {
        let changed = {
            let mut state = self.write();
            let uid = object.meta().uid.as_deref().unwrap_or_default();
            if state.deleted.contains(uid) { false } else { state.put(object) }
        };
        if changed {
            self.notify();
        }
    }

    async fn follow(self, api: Objects<K>) {
        let mut retry = FIRST_RETRY;
        loop {
            match self.list_and_watch(&api, &mut retry).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::debug!(kind = %K::kind(&()), %error, "watch broke, listing again");
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(LAST_RETRY);
                }
            }
        }
    }

    /// Ends with `Ok` when the version watched from has expired.
    async fn list_and_watch(&self, api: &Objects<K>, retry: &mut Duration) -> kube::Result<()> {
        let (items, mut version) = api.list(&ListParams::default()).await?;
        self.replace(items, &version);
        *retry = FIRST_RETRY;
        loop {
            let mut events = pin!(api.watch(&version).await?);
            while let Some(event) = events.next().await {
                match event? {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                        version = object.resource_version().unwrap_or(version);
                        if self.write().put(object) {
                            self.notify();
                        }
                    }
                    WatchEvent::Deleted(object) => {
                        version = object.resource_version().unwrap_or(version);
                        self.write().remove(&object);
                        self.notify();
                    }
                    WatchEvent::Bookmark(bookmark) => version = bookmark.metadata.resource_version,
                    WatchEvent::Error(status) if status.code == 410 => return Ok(()),
                    WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
                }
            }
        }
    }

    /// Takes a full list, but keeps what was written after it was made: the watch will tell what became of that.
    fn replace(&self, items: Vec<K>, version: &str) {
        {
            let mut state = self.write();
            let listed: HashSet<String> = items.iter().filter_map(|item| item.meta().uid.clone()).collect();
            let gone: Vec<Arc<K>> = state
                .objects
                .values()
                .filter(|object| {
                    let known = object.meta().uid.as_ref().is_some_and(|uid| listed.contains(uid));
                    !known && !newer(object.meta().resource_version.as_deref(), Some(version))
                })
                .cloned()
                .collect();
            for object in gone {
                state.remove(&object);
            }
            for item in items {
                state.put(item);
            }
        }
        self.shared.listed.send_replace(true);
        self.notify();
    }

    fn notify(&self) {
        for listener in self.shared.listeners.lock().iter() {
            listener.notify_one();
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State<K>> {
        self.shared.state.read()
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<K>> {
        self.shared.state.write()
    }
}

impl<K: Object> State<K> {
    /// Stores `object` unless the one at hand is as new; true when it did.
    fn put(&mut self, object: K) -> bool {
        let key = (object.namespace().unwrap_or_default(), object.name_any());
        if let Some(known) = self.objects.get(&key)
            && !newer(object.meta().resource_version.as_deref(), known.meta().resource_version.as_deref())
        {
            return false;
        }
        self.objects.insert(key, Arc::new(object));
        true
    }

    fn remove(&mut self, object: &K) {
        let key = (object.namespace().unwrap_or_default(), object.name_any());
        let uid = object.uid().unwrap_or_default();
        // A successor of the same name, seen through a write, stays.
        if self.objects.get(&key).is_some_and(|known| known.meta().uid.as_deref().unwrap_or_default() == uid)
        {
            self.objects.remove(&key);
        }
        if self.deleted.insert(uid.clone()) {
            self.deleted_order.push_back(uid);
        }
        if self.deleted_order.len() > REMEMBERED_DELETIONS
            && let Some(oldest) = self.deleted_order.pop_front()
        {
            self.deleted.remove(&oldest);
        }
    }
}

/// Whether resource version `a` comes after `b`. Versions of one kind are ordered integers (KEP-5504).
fn newer(a: Option<&str>, b: Option<&str>) -> bool {
    let number = |version: Option<&str>| version.and_then(|version| version.parse::<u64>().ok());
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a > b,
        _ => a != b,
    }
}
