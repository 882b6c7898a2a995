//! The body of an answer: the function runs on while its client takes it.

use super::{front::Counted, request::Guest};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll},
};
use wasmtime_wasi_http::{Error, WasiBody};

/// Why an answer is not whole.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Broken(Error);

/// What a client gets after the head. Its function runs on as long as it does, and is polled by whoever sends it.
pub struct Answer {
    content: Content,
    /// Its connection is not idle before it is over.
    _counted: Option<Counted>,
}

enum Content {
    /// Ours.
    Fixed(Option<Bytes>),
    /// The function's.
    Guest(Running),
}

/// The function's own body, and the function as long as it runs.
struct Running {
    body: WasiBody,
    guest: Option<Guest>,
    /// All that the client wants has been sent.
    complete: bool,
}

impl Answer {
    pub(super) fn fixed(bytes: Bytes) -> Self {
        Self { content: Content::Fixed(Some(bytes)), _counted: None }
    }

    /// What a function sends; `empty` if its client takes no body.
    pub(super) fn of(guest: Option<Guest>, body: WasiBody, empty: bool) -> Self {
        let complete = empty || body.is_end_stream();
        Self { content: Content::Guest(Running { body, guest, complete }), _counted: None }
    }

    pub(super) fn keeping(self, counted: Counted) -> Self {
        Self { _counted: Some(counted), ..self }
    }
}

impl Running {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(guest) = &mut self.guest
            && let Poll::Ready(sound) = guest.poll(cx)
        {
            self.guest = None;
            if !sound {
                // What was sent is not all of it, and the client has to notice.
                return Poll::Ready(Some(Err(Error::HttpResponseIncomplete)));
            }
        }
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.complete |= matches!(frame, Poll::Ready(None)) || self.body.is_end_stream();
        frame
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut self.content {
            Content::Fixed(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Guest(running) => running.poll(cx).map(|frame| frame.map(|frame| frame.map_err(Broken))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Fixed(bytes) => bytes.is_none(),
            Content::Guest(running) => running.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Fixed(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Content::Guest(running) => running.body.size_hint(),
        }
    }
}

/// A client that has its answer does not wait for what the function does afterwards; of one that is gone before, the function ends
/// where it is.
impl Drop for Running {
    fn drop(&mut self) {
        if let Some(guest) = self.guest.take()
            && self.complete
        {
            guest.go_on();
        }
    }
}
