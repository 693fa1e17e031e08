//! A stored object, and its text while anybody is being sent it.

use std::ops::Deref;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;

use crate::size;

/// An object as stored; shared, never changed.
#[derive(Debug, Clone)]
pub(crate) struct Object(Arc<Stored>);

#[derive(Debug)]
struct Stored {
    value: Value,
    memory_bytes: usize,
    text: Mutex<Weak<Vec<u8>>>,
}

impl Object {
    pub(crate) fn new(value: Value) -> Object {
        let memory_bytes = size::in_memory(&value);
        Object(Arc::new(Stored { value, memory_bytes, text: Mutex::default() }))
    }

    /// How much memory it holds, about.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.0.memory_bytes
    }

    /// The very same, not one that is equal.
    pub(crate) fn is(&self, other: &Object) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Its JSON. A thousand watches that are sent it at a time have one copy.
    pub(crate) fn text(&self) -> Bytes {
        struct Shared(Arc<Vec<u8>>);
        impl AsRef<[u8]> for Shared {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        let mut kept = self.0.text.lock();
        let text = kept.upgrade().unwrap_or_else(|| {
            let text = Arc::new(self.0.value.to_string().into_bytes());
            *kept = Arc::downgrade(&text);
            text
        });
        Bytes::from_owner(Shared(text))
    }
}

impl Deref for Object {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0.value
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Object) -> bool {
        **self == **other
    }
}
