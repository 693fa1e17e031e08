//! How large and how deep a value is, and how large an object may be.

use std::io::{self, Write};

use serde_json::Value;

/// As deep as the parser takes a body. Deeper ones could be made by patches alone, and end the process: values are
/// walked by recursion.
const MAX_DEPTH: usize = 128;

/// What etcd takes in one request, and so the largest object that Kubernetes stores.
pub(crate) const MAX_OBJECT_BYTES: usize = 3 * 1024 * 1024 / 2;

/// How many bytes the value has as JSON.
pub(crate) fn of(value: &Value) -> usize {
    let mut count = Count(0);
    // Neither a count nor a value can fail.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

/// How many bytes of memory the value holds, about: a map of two short fields has thirty times as many as its JSON.
pub(crate) fn in_memory(value: &Value) -> usize {
    /// Of one allocation, with what the allocator needs for itself.
    fn allocation(bytes: usize) -> usize {
        bytes + 16
    }
    /// Of a node of a `BTreeMap`, which has room for eleven fields and is half full.
    const NODE_BYTES: usize = 11 * (size_of::<String>() + size_of::<Value>()) + 16;
    const NODE_FIELDS: usize = 6;
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => allocation(text.capacity()),
        Value::Array(items) => {
            allocation(items.capacity() * size_of::<Value>()) + items.iter().map(in_memory).sum::<usize>()
        }
        Value::Object(fields) => {
            let below = fields.iter().map(|(name, value)| allocation(name.capacity()) + in_memory(value));
            fields.len().div_ceil(NODE_FIELDS) * allocation(NODE_BYTES) + below.sum::<usize>()
        }
    }
}

struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Would the value, placed at this depth, be too deep?
///
/// # Errors
/// Says so.
pub(crate) fn check_depth(value: &Value, at: usize) -> Result<(), String> {
    if at >= MAX_DEPTH {
        return Err(format!("it is nested more than {MAX_DEPTH} levels deep"));
    }
    match value {
        Value::Object(fields) => fields.values().try_for_each(|value| check_depth(value, at + 1)),
        Value::Array(items) => items.iter().try_for_each(|value| check_depth(value, at + 1)),
        _ => Ok(()),
    }
}
