//! An object's metadata.

use serde_json::Value;

/// A string field of the metadata, empty when absent.
pub(crate) fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}
