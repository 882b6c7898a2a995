//! An answer's body on its way to a client; with it goes what has to end when it ends.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use wasm_exec::http::front::Counted;

use super::{function::Lease, record::Record};

/// The body.
pub(super) struct Answer {
    source: Source,
    record: Record,
    /// The function works on it.
    _lease: Option<Lease>,
    /// The connection waits for it.
    _counted: Counted,
}

enum Source {
    /// Of ours; None when it is sent.
    Fixed(Option<Bytes>),
    Function(Incoming),
}

impl Answer {
    pub(super) fn fixed(text: impl Into<Bytes>, record: Record, counted: Counted) -> Self {
        let text = Some(text.into()).filter(|text| !text.is_empty());
        Self { source: Source::Fixed(text), record, _lease: None, _counted: counted }
    }

    pub(super) fn of_function(body: Incoming, record: Record, lease: Lease, counted: Counted) -> Self {
        let mut answer = Self { source: Source::Function(body), record, _lease: Some(lease), _counted: counted };
        answer.note_end();
        answer
    }

    fn note_end(&mut self) {
        if self.is_end_stream() {
            self.record.complete();
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = match &mut self.source {
            Source::Fixed(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Source::Function(body) => Pin::new(body).poll_frame(cx),
        };
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                self.record.sent(length);
                self.note_end();
            }
            Poll::Ready(None) => self.record.complete(),
            Poll::Ready(Some(Err(error))) => {
                let error = format!("the answer broke off: {error}");
                self.record.fail(error);
            }
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Fixed(text) => text.is_none(),
            Source::Function(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Fixed(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Source::Function(body) => body.size_hint(),
        }
    }
}
