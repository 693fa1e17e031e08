//! Download of a pinned file: size and digest checked before anything is put in place.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use sha2::{Digest as _, Sha256};

use crate::model_dir::{Manifest, install};
use crate::{Progress, WeightSet, convert, hex};

/// Long enough for a slow link, short enough that a laptop on a train goes on without.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Why [`fetch`] failed. [`FetchError::is_no_network`] tells what seeded weights can stand in for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No answer from the host: no network, no such name, refused, connect or TLS failed.
    #[error("cannot reach {url}: {reason}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// The innermost cause.
        reason: String,
    },
    /// The transfer began and then stood still or broke off.
    #[error("download of {url} broke off after {got_bytes} of {expected_bytes} bytes: {reason}")]
    Interrupted {
        /// What was asked for.
        url: String,
        /// How much came.
        got_bytes: u64,
        /// How much should have.
        expected_bytes: u64,
        /// Stalled, cut, or ended early.
        reason: String,
    },
    /// The host answered, but not with the file.
    #[error("{url} answered HTTP {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The answer's status code.
        status: u16,
    },
    /// The file came whole and is not the pinned one. Nothing of it was kept.
    #[error(
        "{url} is not the pinned file: expected {expected}, got {got}; something between here and there \
         changed it \
         (a proxy, a login page)"
    )]
    Mismatch {
        /// What was asked for.
        url: String,
        /// Pinned size or SHA-256.
        expected: String,
        /// What came.
        got: String,
    },
    /// The disk, or the file's contents.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl FetchError {
    /// Nothing was wrong with the file or this machine: the network did not bring it.
    pub fn is_no_network(&self) -> bool {
        matches!(self, FetchError::Unreachable { .. } | FetchError::Interrupted { .. })
    }
}

/// Downloads `set`, checks its size and SHA-256, converts it, and makes `dir` its model folder, replacing what was
/// there. Until all of that is done, `dir` stays as it was.
///
/// # Errors
/// If the server does not answer, sends something else than what is pinned, or the folder can't be written.
pub async fn fetch(set: &WeightSet, dir: &Path, progress: Progress<'_>) -> Result<Manifest, FetchError> {
    let safetensors = download(set, progress).await?;
    let (set, dir) = (set.clone(), dir.to_owned());
    let convert_and_install = move || -> anyhow::Result<Manifest> {
        let onnx =
            convert::to_onnx(&safetensors).with_context(|| format!("converting {} to ONNX", set.url))?;
        drop(safetensors);
        let manifest = Manifest {
            weights: set.name.into(),
            source: set.url.into_owned(),
            license: Some(set.license.into()),
            preset: set.preset,
            ..Manifest::describing(&onnx)
        };
        install(&dir, &onnx, &manifest)?;
        Ok(manifest)
    };
    Ok(tokio::task::spawn_blocking(convert_and_install).await.context("converting the weights")??)
}

/// The file's bytes, verified. 102 MB are held in memory, as the conversion after it needs them at once.
async fn download(set: &WeightSet, progress: Progress<'_>) -> Result<Vec<u8>, FetchError> {
    let url = || set.url.to_string();
    // An error means that another part of this process has set one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let unreachable =
        |error: reqwest::Error| FetchError::Unreachable { url: url(), reason: innermost(&error) };
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(set.stall_timeout)
        .build()
        .map_err(unreachable)?;
    let response = client.get(url()).send().await.map_err(unreachable)?;
    if !response.status().is_success() {
        return Err(FetchError::Status { url: url(), status: response.status().as_u16() });
    }

    let mismatch = |expected: String, got: String| FetchError::Mismatch { url: url(), expected, got };
    let bytes = |count: u64| format!("{count} bytes");
    if let Some(length) = response.content_length()
        && length != set.size_bytes
    {
        return Err(mismatch(bytes(set.size_bytes), bytes(length)));
    }
    let (mut hasher, mut body) = (Sha256::new(), Vec::with_capacity(set.size_bytes as usize));
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let got_bytes = body.len() as u64;
        let chunk = chunk.map_err(|error| FetchError::Interrupted {
            url: url(),
            got_bytes,
            expected_bytes: set.size_bytes,
            reason: innermost(&error),
        })?;
        hasher.update(&chunk);
        body.extend_from_slice(&chunk);
        if body.len() as u64 > set.size_bytes {
            return Err(mismatch(bytes(set.size_bytes), format!("more than {}", bytes(set.size_bytes))));
        }
        progress(body.len() as u64, set.size_bytes);
    }
    if body.len() as u64 != set.size_bytes {
        return Err(mismatch(bytes(set.size_bytes), bytes(body.len() as u64)));
    }
    let sha256 = hex(&hasher.finalize());
    if sha256 != set.sha256 {
        return Err(mismatch(format!("sha256 {}", set.sha256), format!("sha256 {sha256}")));
    }
    Ok(body)
}

/// reqwest's own words repeat the address; the last cause is what a person can act on.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if error.is_timeout() { format!("timed out ({cause})") } else { cause.to_string() }
}
