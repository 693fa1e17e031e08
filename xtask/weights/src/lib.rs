//! The model's weights: fetched and verified, or seeded; written as the ONNX file that the engines load.
//!
//! A model folder holds `model.onnx` (ResNet-50 v1.5, batch norm folded; input `input` of [1, 3, 224, 224], output
//! `logits` of [1, 1000]) and `manifest.json` (a [`Manifest`]). [`fetch`] and [`generate`] make one, atomically: the
//! folder is complete or it isn't there. [`verify`] says whether one is whole. Fetched and seeded weights take the same
//! path, safetensors to ONNX, so what is tested offline is what runs online.

mod convert;
mod fetch;
mod model_dir;
mod onnx;
mod protobuf;
mod resnet50;
mod seeded;
mod sets;

pub use fetch::{FetchError, fetch};
pub use model_dir::{MANIFEST_FILE, MODEL_FILE, Manifest, verify};
pub use seeded::{generate, seeded_safetensors};
pub use sets::{Preset, SETS, WeightSet, default_set};

/// Called with (bytes done, bytes in total) as work goes on; the last call has both equal.
pub type Progress<'a> = &'a mut (dyn FnMut(u64, u64) + Send);

/// Lower-case hexadecimal SHA-256 of `bytes`.
fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    hex(&sha2::Sha256::digest(bytes))
}

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
