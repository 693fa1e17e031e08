//! What the last JSON object of a run carries beside the steps.

use serde_json::{Map, Value};

/// The fields of one command.
pub type Summary = Map<String, Value>;
