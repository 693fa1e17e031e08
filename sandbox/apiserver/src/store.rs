//! The store: every object in memory, one resourceVersion counter, and per kind a bounded log of changes for watches.

use std::collections::{BTreeMap, HashMap, VecDeque};

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::kind::{Kind, Storage};
use crate::kinds::KINDS;
use crate::meta::meta;

mod object;

pub(crate) use object::Object;

/// How many changes of one kind are kept, and how many bytes of memory they may hold; a watch from before the oldest
/// gets 410. A small patch of a large object is a large change.
const HISTORY: usize = 4096;
const HISTORY_BYTES: usize = 64 * 1024 * 1024;

/// One change of one object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    /// The resourceVersion it made.
    pub(crate) version: u64,
    /// The object before; `None` when it was created.
    pub(crate) before: Option<Object>,
    /// The object after; for a deletion its last state.
    pub(crate) after: Object,
    /// The object is gone.
    pub(crate) deleted: bool,
}

/// Why a write did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Nothing has this name.
    NotFound,
    /// Something has this name.
    Exists,
    /// The stored object is another version than the writer saw.
    Modified,
}

/// The log does not reach back this far; holds the oldest version it reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expired(pub(crate) u64);

type Key = (String, String);

#[derive(Default)]
struct Table {
    objects: BTreeMap<Key, Object>,
    log: VecDeque<Change>,
    /// What the objects in the log hold of memory.
    log_bytes: usize,
    /// Changes up to this version are forgotten.
    forgotten: u64,
}

struct Inner {
    version: u64,
    tables: HashMap<(&'static str, &'static str), Table>,
}

/// See the module.
pub(crate) struct Store {
    inner: Mutex<Inner>,
    changed: HashMap<(&'static str, &'static str), watch::Sender<u64>>,
    any: watch::Sender<u64>,
}

impl Store {
    pub(crate) fn new() -> Store {
        let keys = || KINDS.iter().filter(|k| k.storage == Storage::Own).map(|k| (k.group, k.plural));
        Store {
            inner: Mutex::new(Inner {
                version: 1,
                tables: keys().map(|key| (key, Table::default())).collect(),
            }),
            changed: keys().map(|key| (key, watch::Sender::new(1))).collect(),
            any: watch::Sender::new(1),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// The newest resourceVersion.
    pub(crate) fn version(&self) -> u64 {
        self.lock().version
    }

    pub(crate) fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Option<Object> {
        let inner = self.lock();
        let table = inner.tables.get(&(kind.group, kind.plural))?;
        table.objects.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// How many there are.
    pub(crate) fn count(&self, kind: &Kind) -> usize {
        self.lock().tables.get(&(kind.group, kind.plural)).map_or(0, |table| table.objects.len())
    }

    /// All objects (of one namespace), by namespace and name, and the version they were read at.
    pub(crate) fn list(&self, kind: &Kind, namespace: Option<&str>) -> (Vec<Object>, u64) {
        let inner = self.lock();
        let Some(table) = inner.tables.get(&(kind.group, kind.plural)) else {
            return (Vec::new(), inner.version);
        };
        let objects = match namespace {
            None => table.objects.values().cloned().collect(),
            Some(namespace) => table
                .objects
                .range((namespace.to_owned(), String::new())..)
                .take_while(|((ns, _), _)| ns == namespace)
                .map(|(_, object)| object.clone())
                .collect(),
        };
        (objects, inner.version)
    }

    /// The objects as they were at `version`, as long as the log reaches back to it.
    pub(crate) fn list_at(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        version: u64,
    ) -> Result<Vec<Object>, Expired> {
        let inner = self.lock();
        let Some(table) = inner.tables.get(&(kind.group, kind.plural)) else { return Ok(Vec::new()) };
        if version < table.forgotten || version > inner.version {
            return Err(Expired(table.forgotten));
        }
        let mut objects = table.objects.clone();
        for change in table.log.iter().rev().take_while(|change| change.version > version) {
            let key = key(&change.after);
            match &change.before {
                Some(before) => objects.insert(key, before.clone()),
                None => objects.remove(&key),
            };
        }
        objects.retain(|(own, _), _| namespace.is_none_or(|namespace| own == namespace));
        Ok(objects.into_values().collect())
    }

    /// The changes after `version`, oldest first, and at most so many.
    pub(crate) fn changes_after(
        &self,
        kind: &Kind,
        version: u64,
        most: usize,
    ) -> Result<Vec<Change>, Expired> {
        let inner = self.lock();
        let Some(table) = inner.tables.get(&(kind.group, kind.plural)) else { return Ok(Vec::new()) };
        if version < table.forgotten || version > inner.version {
            return Err(Expired(table.forgotten));
        }
        let start = table.log.partition_point(|change| change.version <= version);
        Ok(table.log.range(start..).take(most).cloned().collect())
    }

    /// Wakes whenever an object of the kind changes.
    pub(crate) fn subscribe(&self, kind: &Kind) -> watch::Receiver<u64> {
        self.changed.get(&(kind.group, kind.plural)).unwrap_or(&self.any).subscribe()
    }

    /// Wakes whenever anything changes.
    pub(crate) fn subscribe_any(&self) -> watch::Receiver<u64> {
        self.any.subscribe()
    }

    /// Stores a new object.
    pub(crate) fn create(&self, kind: &Kind, object: Value) -> Result<Object, Refused> {
        self.write(kind, object, None, false)
    }

    /// Replaces the object if its stored version is still `seen`.
    pub(crate) fn replace(&self, kind: &Kind, object: Value, seen: &Object) -> Result<Object, Refused> {
        self.write(kind, object, Some(seen), false)
    }

    /// Removes the object if its stored version is still `seen`; `last` is what watchers see.
    pub(crate) fn remove(&self, kind: &Kind, last: Value, seen: &Object) -> Result<Object, Refused> {
        self.write(kind, last, Some(seen), true)
    }

    fn write(
        &self,
        kind: &Kind,
        mut object: Value,
        seen: Option<&Object>,
        delete: bool,
    ) -> Result<Object, Refused> {
        let key = key(&object);
        let mut guard = self.lock();
        let inner = &mut *guard;
        let Some(table) = inner.tables.get_mut(&(kind.group, kind.plural)) else {
            return Err(Refused::NotFound);
        };
        let before = table.objects.get(&key).cloned();
        match (&before, seen) {
            (None, None) => {}
            (Some(_), None) => return Err(Refused::Exists),
            (None, Some(_)) => return Err(Refused::NotFound),
            (Some(stored), Some(seen)) if stored.is(seen) => {}
            (Some(_), Some(_)) => return Err(Refused::Modified),
        }
        inner.version += 1;
        let version = inner.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let after = Object::new(object);
        if delete {
            table.objects.remove(&key);
        } else {
            table.objects.insert(key, after.clone());
        }
        table.log_bytes += after.memory_bytes();
        table.log.push_back(Change { version, before, after: after.clone(), deleted: delete });
        while (table.log.len() > HISTORY || table.log_bytes > HISTORY_BYTES)
            && let Some(oldest) = table.log.pop_front()
        {
            table.log_bytes -= oldest.after.memory_bytes();
            table.forgotten = oldest.version;
        }
        // Sent under the lock, so that the versions watchers hear of never go backwards.
        if let Some(changed) = self.changed.get(&(kind.group, kind.plural)) {
            changed.send_replace(version);
        }
        self.any.send_replace(version);
        Ok(after)
    }
}

fn key(object: &Value) -> Key {
    (meta(object, "namespace").to_owned(), meta(object, "name").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_older_than_the_log_has_expired() {
        let store = Store::new();
        let kind = crate::kinds::stored("", "configmaps").expect("a kind");
        let start = store.version();
        let mut object = json!({"metadata": {"name": "x", "namespace": "default"}});
        let mut seen = store.create(kind, object.clone()).expect("created");
        for number in 0..HISTORY {
            object["data"] = json!({"n": number.to_string()});
            seen = store.replace(kind, object.clone(), &seen).expect("replaced");
        }
        let oldest = match store.changes_after(kind, start, usize::MAX) {
            Err(Expired(oldest)) => oldest,
            Ok(changes) => panic!("{} changes", changes.len()),
        };
        assert_eq!(store.changes_after(kind, oldest, usize::MAX).map(|changes| changes.len()), Ok(HISTORY));
        assert_eq!(store.replace(kind, object, &Object::new(json!({}))), Err(Refused::Modified));
    }

    #[test]
    fn large_changes_push_older_ones_out_of_the_log() {
        let store = Store::new();
        let kind = crate::kinds::stored("", "configmaps").expect("a kind");
        let mut object = json!({"metadata": {"name": "x", "namespace": "default"}});
        let mut seen = store.create(kind, object.clone()).expect("created");
        let start = store.version();
        // What is large as text, and what is large for its many small parts.
        let text = "x".repeat(1024 * 1024);
        let parts = json!(vec![json!({"name": "a", "value": "b"}); 2000]);
        for large in [json!(text), parts] {
            for number in 0..80 {
                object["data"] = json!({"n": number.to_string(), "large": large});
                seen = store.replace(kind, object.clone(), &seen).expect("replaced");
            }
            let Err(Expired(oldest)) = store.changes_after(kind, start, usize::MAX) else {
                panic!("all is kept")
            };
            let kept = store.changes_after(kind, oldest, usize::MAX).expect("the newest").len();
            assert!((1..=64).contains(&kept), "{kept} changes are kept");
        }
    }
}
