//! An answer's body that counts as under way until it was sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Frame, SizeHint};

use crate::connection::UnderWay;

/// A body, and the request that it answers.
#[derive(Debug)]
pub struct Held<B> {
    body: B,
    /// None: it holds nothing.
    _under_way: Option<UnderWay>,
}

impl<B> Held<B> {
    /// `body`, until whose end the request is under way.
    pub fn new(body: B, under_way: Option<UnderWay>) -> Held<B> {
        Held { body, _under_way: under_way }
    }
}

impl<B: Body + Unpin> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
