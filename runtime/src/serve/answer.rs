//! An answer's body on its way to a client; with it goes what has to end when it ends.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use wasm_exec::http::{self, Broken, front::Counted};

use super::{
    cgi::{self, CgiBody},
    compress::Encoding,
    fleet::Lease,
    record::Record,
};

/// The body.
pub(super) struct Answer {
    source: Source,
    /// None: it is sent as it is.
    encoding: Option<Box<Encoding>>,
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
    /// A container of its own.
    Command(Box<CgiBody>),
}

/// Why it broke off.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("{0}")]
    Container(#[from] hyper::Error),
    #[error("{0}")]
    Within(#[from] Broken),
    #[error("{0}")]
    Command(#[from] cgi::Broken),
    #[error("it cannot be encoded: {0}")]
    Encoding(#[from] io::Error),
}

impl Answer {
    pub(super) fn fixed(text: impl Into<Bytes>, record: Record, counted: Counted) -> Self {
        let text = Some(text.into()).filter(|text| !text.is_empty());
        Self { source: Source::Fixed(text), encoding: None, record, _counted: counted }
    }

    pub(super) fn of_function(
        source: Source,
        encoding: Option<Box<Encoding>>,
        record: Record,
        counted: Counted,
    ) -> Self {
        let mut answer = Self { source, encoding, record, _counted: counted };
        answer.note_end();
        answer
    }

    fn note_end(&mut self) {
        if self.is_end_stream() {
            self.record.complete();
        }
    }
}

impl Source {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        match self {
            Self::Fixed(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Container { body, .. } => Pin::new(body).poll_frame(cx).map_err(AnswerError::from),
            Self::Within(body) => Pin::new(body).poll_frame(cx).map_err(AnswerError::from),
            Self::Command(body) => Pin::new(body).poll_frame(cx).map_err(AnswerError::from),
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Fixed(text) => text.is_none(),
            Self::Container { body, .. } => body.is_end_stream(),
            Self::Within(body) => body.is_end_stream(),
            Self::Command(body) => body.is_end_stream(),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Fixed(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Container { body, .. } => body.size_hint(),
            Self::Within(body) => body.size_hint(),
            Self::Command(body) => body.size_hint(),
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let Self { source, encoding, .. } = &mut *self;
        let frame = match encoding {
            Some(encoding) => encoding.poll(cx, |cx| source.poll(cx)),
            None => source.poll(cx),
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
        self.encoding.as_ref().map_or_else(|| self.source.is_over(), |encoding| encoding.is_over())
    }

    fn size_hint(&self) -> SizeHint {
        self.encoding.as_ref().map_or_else(|| self.source.size_hint(), |_| SizeHint::default())
    }
}
