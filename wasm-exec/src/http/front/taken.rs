//! Whether a client takes its answer, as the answer sees it: it is asked for more when there is room for more. With HTTP/2 that is the
//! client's word alone, by windows of each stream and of all of them, and no socket has to be full.

use super::pace::Handed;
use bytes::Buf;
use hyper::body::{Body, Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// An answer's body.
pub(super) struct Taken<B> {
    body: B,
    handed: Handed,
}

impl<B> Taken<B> {
    /// The answer has begun: the client has something to take.
    pub(super) fn new(body: B, handed: Handed) -> Self {
        handed.waits_for_client();
        Self { body, handed }
    }
}

impl<D: Buf, B: Body<Data = D> + Unpin> Body for Taken<B> {
    type Data = D;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<D>, B::Error>>> {
        self.handed.waits_for_server();
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_ready() {
            self.handed.waits_for_client();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
