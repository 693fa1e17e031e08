//! What a client may send. Facts that refusals, `/info` and the OpenAPI document tell.

/// Largest file accepted: 10 MB.
pub const MAX_FILE_BYTES: usize = 10 * 1024 * 1024;
/// Most predictions of one picture.
pub(crate) const MAX_TOP_K: usize = 10;
