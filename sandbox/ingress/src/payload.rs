//! The request body on its way to a pod: read whole first, as nginx does, so that it can be sent again; streamed where
//! it is large or buffering is off.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// A body that is longer is streamed after this much of it: nginx would put the rest on disk.
const BUFFER_BYTES: u64 = 16 << 20;

/// Why a body could not be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Longer than the limit.
    TooLarge,
    /// The client stopped in the middle of it.
    Client,
}

/// Seen by the proxy while a body is streamed by the connection's own task.
#[derive(Debug)]
pub(crate) struct Progress {
    bytes: AtomicU64,
    failure: AtomicU8,
    last: Mutex<Instant>,
}

impl Progress {
    pub(crate) fn new() -> Arc<Progress> {
        Arc::new(Progress {
            bytes: AtomicU64::new(0),
            failure: AtomicU8::new(0),
            last: Mutex::new(Instant::now()),
        })
    }

    /// Body bytes that came from the client so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn failure(&self) -> Option<Unreadable> {
        match self.failure.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Unreadable::TooLarge),
            _ => Some(Unreadable::Client),
        }
    }

    /// Since something was read last.
    pub(crate) fn idle(&self) -> Duration {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    fn read(&self, bytes: usize) -> u64 {
        let bytes = bytes as u64;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    fn fail(&self, reason: Unreadable) -> Unreadable {
        self.failure.store(if reason == Unreadable::TooLarge { 1 } else { 2 }, Ordering::Relaxed);
        reason
    }
}

/// A body that can be sent to a pod.
pub(crate) enum Payload {
    /// All of it.
    Whole { chunks: VecDeque<Bytes>, bytes: u64 },
    /// Its beginning, and the rest as it comes.
    Stream { head: VecDeque<Bytes>, rest: Incoming, limit_bytes: Option<u64>, progress: Arc<Progress> },
}

impl Payload {
    /// Reads the body whole, or its beginning when it is long or `buffer` is off.
    pub(crate) async fn read(
        mut body: Incoming,
        limit_bytes: Option<u64>,
        buffer: bool,
        progress: Arc<Progress>,
    ) -> Result<Payload, (Unreadable, Incoming)> {
        if limit_bytes.is_some_and(|limit| body.size_hint().lower() > limit) {
            return Err((Unreadable::TooLarge, body));
        }
        let mut chunks = VecDeque::new();
        let mut bytes = 0;
        while !body.is_end_stream() {
            if bytes >= BUFFER_BYTES || !buffer {
                return Ok(Payload::Stream { head: chunks, rest: body, limit_bytes, progress });
            }
            match body.frame().await {
                None => break,
                Some(Err(_)) => return Err((progress.fail(Unreadable::Client), body)),
                Some(Ok(frame)) => {
                    let Ok(chunk) = frame.into_data() else { continue };
                    bytes = progress.read(chunk.len());
                    if limit_bytes.is_some_and(|limit| bytes > limit) {
                        return Err((progress.fail(Unreadable::TooLarge), body));
                    }
                    chunks.push_back(chunk);
                }
            }
        }
        Ok(Payload::Whole { chunks, bytes })
    }

    /// A copy to send, if this can be sent more than once.
    pub(crate) fn again(&self) -> Option<Payload> {
        match self {
            Payload::Whole { chunks, bytes } => {
                Some(Payload::Whole { chunks: chunks.clone(), bytes: *bytes })
            }
            Payload::Stream { .. } => None,
        }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match self.get_mut() {
            Payload::Whole { chunks, bytes } => Poll::Ready(chunks.pop_front().map(|chunk| {
                *bytes -= chunk.len() as u64;
                Ok(Frame::data(chunk))
            })),
            Payload::Stream { head, rest, limit_bytes, progress } => {
                if let Some(chunk) = head.pop_front() {
                    return Poll::Ready(Some(Ok(Frame::data(chunk))));
                }
                loop {
                    let frame = match ready!(Pin::new(&mut *rest).poll_frame(cx)) {
                        None => return Poll::Ready(None),
                        Some(Ok(frame)) => frame,
                        Some(Err(e)) => {
                            progress.fail(Unreadable::Client);
                            return Poll::Ready(Some(Err(std::io::Error::other(e))));
                        }
                    };
                    let Ok(chunk) = frame.into_data() else { continue };
                    let bytes = progress.read(chunk.len());
                    if limit_bytes.is_some_and(|limit| bytes > limit) {
                        progress.fail(Unreadable::TooLarge);
                        return Poll::Ready(Some(Err(std::io::Error::other("request body over the limit"))));
                    }
                    return Poll::Ready(Some(Ok(Frame::data(chunk))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Payload::Whole { chunks, .. } => chunks.is_empty(),
            Payload::Stream { head, rest, .. } => head.is_empty() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Payload::Whole { bytes, .. } => SizeHint::with_exact(*bytes),
            Payload::Stream { head, rest, .. } => {
                let head: u64 = head.iter().map(|chunk| chunk.len() as u64).sum();
                rest.size_hint()
                    .exact()
                    .map_or_else(SizeHint::default, |rest| SizeHint::with_exact(head + rest))
            }
        }
    }
}

/// Reads what the client still sends, for a short while: an answer that comes before the whole body was read would
/// otherwise be lost to the reset that closing the connection makes.
pub(crate) fn discard(mut body: Incoming) {
    tokio::spawn(async move {
        let all = async { while let Some(Ok(_)) = body.frame().await {} };
        let _ = tokio::time::timeout(Duration::from_secs(5), all).await;
    });
}
