//! An answer's body on its way to a client; with it goes what has to end when it ends.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use wasm_exec::http::{self, Broken, front::Counted};

use super::{fleet::Lease, record::Record};

/// The body.
pub(super) struct Answer {
    source: Source,
    record: Record,
    /// The connection waits for it.
    _counted: Counted,
}

/// Where it comes from.
pub(super) enum Source {
    /// Of ours; None when it is sent.
    Fixed(Option<Bytes>),
    /// A container that works on it.
    Container { body: Incoming, _lease: Lease },
    /// A function within this process.
    Within(http::Answer),
}

/// Why it broke off.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("{0}")]
    Container(#[from] hyper::Error),
    #[error("{0}")]
    Within(#[from] Broken),
}

impl Answer {
    pub(super) fn fixed(text: impl Into<Bytes>, record: Record, counted: Counted) -> Self {
        let text = Some(text.into()).filter(|text| !text.is_empty());
        Self { source: Source::Fixed(text), record, _counted: counted }
    }

    pub(super) fn of_function(source: Source, record: Record, counted: Counted) -> Self {
        let mut answer = Self { source, record, _counted: counted };
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
    type Error = AnswerError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let frame = match &mut self.source {
            Source::Fixed(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Source::Container { body, .. } => Pin::new(body).poll_frame(cx).map_err(AnswerError::from),
            Source::Within(body) => Pin::new(body).poll_frame(cx).map_err(AnswerError::from),
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
            Source::Container { body, .. } => body.is_end_stream(),
            Source::Within(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Fixed(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Source::Container { body, .. } => body.size_hint(),
            Source::Within(body) => body.size_hint(),
        }
    }
}
