//! The request body on its way to a pod: read whole first, as nginx does, so that it can be sent again; streamed where
//! it is large or buffering is off.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use tokio::time::Sleep;

use crate::route::Settings;

/// A body that is longer is streamed after this much of it: nginx would put the rest on disk.
const BUFFER_BYTES: u64 = 16 << 20;
/// When all bodies together have so much in memory, further ones are streamed.
const ALL_BUFFERS_BYTES: u64 = 256 << 20;

/// Why a body could not be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Longer than the limit.
    TooLarge,
    /// The client stopped in the middle of it.
    Client,
    /// The client sent nothing more for too long.
    Slow,
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
            2 => Some(Unreadable::Client),
            _ => Some(Unreadable::Slow),
        }
    }

    /// Since something was read last.
    pub(crate) fn idle(&self) -> Duration {
        self.last.lock().elapsed()
    }

    fn read(&self, bytes: usize) -> u64 {
        let bytes = bytes as u64;
        *self.last.lock() = Instant::now();
        self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    fn fail(&self, reason: Unreadable) -> Unreadable {
        let number = match reason {
            Unreadable::TooLarge => 1,
            Unreadable::Client => 2,
            Unreadable::Slow => 3,
        };
        self.failure.store(number, Ordering::Relaxed);
        reason
    }
}

/// A client's body as it comes: counted, limited, and given up on when nothing comes any more.
pub(crate) struct Source {
    body: Incoming,
    limit_bytes: Option<u64>,
    /// Longest silence.
    timeout: Duration,
    /// While nothing comes: when that is too long.
    silence: Option<Pin<Box<Sleep>>>,
    progress: Arc<Progress>,
}

impl Source {
    pub(crate) fn new(body: Incoming, settings: &Settings, progress: Arc<Progress>) -> Source {
        let (limit_bytes, timeout) = (settings.body_limit_bytes, settings.body_timeout);
        Source { body, limit_bytes, timeout, silence: None, progress }
    }

    fn is_end(&self) -> bool {
        self.body.is_end_stream()
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Unreadable>>> {
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                let timeout = self.timeout;
                let silence = self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
                ready!(silence.as_mut().poll(cx));
                return Poll::Ready(Some(Err(self.progress.fail(Unreadable::Slow))));
            };
            self.silence = None;
            return Poll::Ready(match frame {
                None => None,
                Some(Err(_)) => Some(Err(self.progress.fail(Unreadable::Client))),
                Some(Ok(frame)) => {
                    let Ok(chunk) = frame.into_data() else { continue };
                    let bytes = self.progress.read(chunk.len());
                    match self.limit_bytes.is_some_and(|limit| bytes > limit) {
                        true => Some(Err(self.progress.fail(Unreadable::TooLarge))),
                        false => Some(Ok(chunk)),
                    }
                }
            });
        }
    }
}

/// Bytes of bodies that are kept in memory, of all requests.
static KEPT: AtomicU64 = AtomicU64::new(0);

/// The beginning of a body, or all of it.
#[derive(Default)]
pub(crate) struct Kept {
    chunks: VecDeque<Bytes>,
    bytes: u64,
}

impl Kept {
    /// False when no more should be kept.
    fn has_room(&self) -> bool {
        self.bytes < BUFFER_BYTES && KEPT.load(Ordering::Relaxed) < ALL_BUFFERS_BYTES
    }

    fn push(&mut self, chunk: Bytes) {
        self.bytes += chunk.len() as u64;
        KEPT.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        self.chunks.push_back(chunk);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        KEPT.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A body that can be sent to a pod.
pub(crate) enum Payload {
    /// All of it, and how much was sent: chunks, and bytes.
    Whole { body: Arc<Kept>, sent: usize, left_bytes: u64 },
    /// Its beginning, how many chunks of that were sent, and the rest as it comes.
    Stream { head: Kept, sent: usize, rest: Source },
}

impl Payload {
    /// Reads the body whole, or its beginning when it is long, when too much is kept already, or when `buffer` is off.
    pub(crate) async fn read(mut source: Source, buffer: bool) -> Result<Payload, (Unreadable, Incoming)> {
        if source.limit_bytes.is_some_and(|limit| source.body.size_hint().lower() > limit) {
            return Err((Unreadable::TooLarge, source.body));
        }
        let mut kept = Kept::default();
        while !source.is_end() {
            if !buffer || !kept.has_room() {
                return Ok(Payload::Stream { head: kept, sent: 0, rest: source });
            }
            match poll_fn(|cx| source.poll_chunk(cx)).await {
                None => break,
                Some(Err(reason)) => return Err((reason, source.body)),
                Some(Ok(chunk)) => kept.push(chunk),
            }
        }
        let left_bytes = kept.bytes;
        Ok(Payload::Whole { body: Arc::new(kept), sent: 0, left_bytes })
    }

    /// A copy to send, if this can be sent more than once.
    pub(crate) fn again(&self) -> Option<Payload> {
        match self {
            Payload::Whole { body, .. } => {
                Some(Payload::Whole { body: Arc::clone(body), sent: 0, left_bytes: body.bytes })
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
            Payload::Whole { body, sent, left_bytes } => Poll::Ready(body.chunks.get(*sent).map(|chunk| {
                *sent += 1;
                *left_bytes -= chunk.len() as u64;
                Ok(Frame::data(chunk.clone()))
            })),
            Payload::Stream { head, sent, rest } => {
                if let Some(chunk) = head.chunks.get(*sent) {
                    *sent += 1;
                    return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
                }
                // Sent, and not to be sent again.
                std::mem::take(head);
                *sent = 0;
                let chunk = ready!(rest.poll_chunk(cx));
                Poll::Ready(chunk.map(|chunk| match chunk {
                    Ok(chunk) => Ok(Frame::data(chunk)),
                    Err(reason) => Err(std::io::Error::other(format!("the client's body: {reason:?}"))),
                }))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Payload::Whole { body, sent, .. } => *sent >= body.chunks.len(),
            Payload::Stream { head, sent, rest } => *sent >= head.chunks.len() && rest.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Payload::Whole { left_bytes, .. } => SizeHint::with_exact(*left_bytes),
            Payload::Stream { head, sent, rest } => {
                let head: u64 = head.chunks.iter().skip(*sent).map(|chunk| chunk.len() as u64).sum();
                let rest = rest.body.size_hint().exact();
                rest.map_or_else(SizeHint::default, |rest| SizeHint::with_exact(head + rest))
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
