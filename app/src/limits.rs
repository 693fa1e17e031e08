//! What a client may send. Facts that refusals, `/info` and the OpenAPI document tell.

/// Largest file accepted: 10 MB.
pub const MAX_FILE_BYTES: usize = 10 * 1024 * 1024;
/// Longest side of a picture accepted.
pub const MAX_SIDE_PX: u32 = 8192;
/// Most pixels of a picture accepted.
pub const MAX_PIXELS: u64 = 25_000_000;
/// The formats accepted, as media types.
pub const MEDIA_TYPES: [&str; 5] = ["image/jpeg", "image/png", "image/bmp", "image/tiff", "image/webp"];
/// The same in words.
pub(crate) const FORMATS: &str = "JPEG, PNG, BMP, TIFF or WEBP";
/// Most predictions of one picture.
pub(crate) const MAX_TOP_K: usize = 10;
