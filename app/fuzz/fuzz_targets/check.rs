//! What every input must hold; the fuzzer and the tests, which replay the corpus, both call it.

use app_pictures::Preset;
use axum::body::Body;
use axum::extract::Request;
use futures::executor::block_on;
use futures::stream;
use simple_model_api::{limits, upload};

const PRESET: Preset =
    Preset { resize: 256, crop: 224, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
const RAW: [&str; 6] =
    ["image/jpeg", "image/png", "image/bmp", "image/tiff", "image/webp", "application/octet-stream"];
const MULTIPART: &str = "multipart/form-data; boundary=fuzz";

/// Sends the input through all that a client's bytes go through: the request's body, multipart or raw, to a file, to
/// pixels, to the tensor. Its first byte says how the rest is sent, its second in pieces of which size; false if it has
/// none.
pub(crate) fn body_to_tensor(input: &[u8]) -> bool {
    let [how, piece, rest @ ..] = input else { return false };
    let (media_type, body) = match usize::from(*how) % 8 {
        // The form is right, and what is in it is anything.
        6 => (
            MULTIPART,
            [b"--fuzz\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n", rest, b"\r\n--fuzz--\r\n"]
                .concat(),
        ),
        // All of the form is anything.
        7 => (MULTIPART, rest.to_vec()),
        raw => (RAW[raw], rest.to_vec()),
    };
    // A whole body in one piece, or in many small ones.
    let piece = if *piece == 0 { body.len().max(1) } else { usize::from(*piece) * 16 };
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> =
        body.chunks(piece).map(|piece| Ok(piece.to_vec())).collect();
    let request = Request::post("/predict")
        .header("content-type", media_type)
        .body(Body::from_stream(stream::iter(pieces)))
        .expect("a fixed head");
    if let Ok(upload) = block_on(upload::read(request)) {
        assert!((1..=limits::MAX_FILE_BYTES).contains(&upload.bytes.len()));
        if let Ok(tensor) = app_pictures::prepare(&upload.bytes, &PRESET) {
            assert_eq!(tensor.len(), 3 * 224 * 224);
            assert!(tensor.iter().all(|value| value.is_finite()));
        }
    }
    true
}
