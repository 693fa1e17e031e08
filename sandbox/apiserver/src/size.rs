//! How large and how deep a value is, and how large an object may be.

use std::io::{self, Write};

use serde_json::Value;

/// As deep as the parser takes a body. Deeper ones could be made by patches alone, and end the process: values are walked
/// by recursion.
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
