//! The answer's body on its way to the client, with the log record that is written when it ends.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::access_log::Record;
use crate::upstream::{Connection, Pool};

/// A response body of the proxy: a page of its own, or the pod's bytes as they come.
pub(crate) struct Answer {
    source: Source,
    record: Record,
}

enum Source {
    Page(Option<Bytes>),
    Pod(Box<PodBody>),
}

struct PodBody {
    body: Incoming,
    ended: bool,
    /// Longest silence between two reads, and when it is over.
    read_timeout: Duration,
    silence: Pin<Box<Sleep>>,
    connection: Option<Connection>,
    pool: Arc<Pool>,
}

impl Answer {
    /// A short HTML page that names the status.
    pub(crate) fn page(status: StatusCode, mut record: Record) -> Response<Answer> {
        let name = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or("Error"));
        let page = format!(
            "<html>\r\n<head><title>{name}</title></head>\r\n<body>\r\n<h1>{name}</h1>\r\n<p>sandbox \
             ingress</p>\r\n\
             </body>\r\n</html>\r\n"
        );
        record.status = status.as_u16();
        let mut response = Response::new(Answer { source: Source::Page(Some(page.into())), record });
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
        response
    }

    /// The pod's body. Its connection is kept once the body was read to its end.
    pub(crate) fn pod(
        body: Incoming,
        record: Record,
        connection: Connection,
        pool: Arc<Pool>,
        read_timeout: Duration,
    ) -> Answer {
        let silence = Box::pin(tokio::time::sleep(read_timeout));
        let connection = Some(connection);
        let body = PodBody { body, ended: false, read_timeout, silence, connection, pool };
        Answer { source: Source::Pod(Box::new(body)), record }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let this = self.get_mut();
        let pod = match &mut this.source {
            Source::Page(page) => {
                let page = page.take();
                this.record.body_bytes += page.as_ref().map_or(0, |page| page.len() as u64);
                return Poll::Ready(page.map(|page| Ok(Frame::data(page))));
            }
            Source::Pod(pod) => pod,
        };
        if let Poll::Ready(frame) = Pin::new(&mut pod.body).poll_frame(cx) {
            pod.silence.as_mut().reset(Instant::now() + pod.read_timeout);
            return Poll::Ready(match frame {
                None => {
                    pod.ended = true;
                    None
                }
                Some(Ok(frame)) => {
                    let bytes = frame.data_ref().map_or(0, |chunk| chunk.len() as u64);
                    this.record.body_bytes += bytes;
                    if let Some(attempt) = this.record.attempt() {
                        attempt.response_bytes += bytes;
                    }
                    Some(Ok(frame))
                }
                // The head is gone out already: all that is left is to close the client's connection early.
                Some(Err(error)) => Some(Err(std::io::Error::other(error))),
            });
        }
        ready!(pod.silence.as_mut().poll(cx));
        Poll::Ready(Some(Err(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            "the pod fell silent in its answer",
        ))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Page(page) => page.is_none(),
            Source::Pod(pod) => pod.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Page(page) => SizeHint::with_exact(page.as_ref().map_or(0, |page| page.len() as u64)),
            Source::Pod(pod) => pod.body.size_hint(),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Source::Pod(pod) = &mut self.source {
            if let Some(attempt) = self.record.attempt() {
                attempt.took = Some(attempt.started.elapsed());
            }
            if let Some(connection) = pod.connection.take()
                && (pod.ended || pod.body.is_end_stream())
            {
                pod.pool.keep(connection);
            }
        }
    }
}
