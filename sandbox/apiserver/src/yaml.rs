//! YAML bodies, as Kubernetes' own reader takes them: YAML 1.1's booleans and octals, the last of a repeated key. How
//! deep it nests, and what its aliases make of it, has limits.

use serde_json::Value;
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};

/// As deep as JSON may nest here.
const MAX_DEPTH: usize = 128;
/// Parts of a document, aliases expanded: more than the longest body can hold without them.
const MAX_NODES: usize = 2_000_000;

/// What reading [`MAX_DEPTH`] levels takes of a stack, and more: 20 kB a level where nothing is optimised.
const STACK_BYTES: usize = 16 << 20;

/// A document as JSON; else what is wrong with it. It is read on a thread of its own, since that of a server's task has
/// a stack of two mebibytes.
pub(crate) fn to_json(body: &[u8]) -> Result<Value, String> {
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, || read(body));
        let reader = reader.map_err(|error| format!("no thread to read it: {error}"))?;
        reader.join().unwrap_or_else(|_| Err("it can't be read".to_owned()))
    })
}

fn read(body: &[u8]) -> Result<Value, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_NODES },
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        legacy_octal_numbers: true,
        non_finite_float_policy: NonFiniteFloatPolicy::Reject,
        with_snippet: false,
    };
    serde_saphyr::from_slice_with_options(body, options).map_err(|error| error.to_string())
}
