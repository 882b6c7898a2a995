//! A request's body on its way to a function: bounded in bytes and in time.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::{
    sync::oneshot,
    time::{Sleep, sleep},
};

use super::headers;

/// What a body has to come with in the mean, once it takes longer than it may stand still.
const BYTES_PER_SECOND: u64 = 1024;

/// Why a body did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum UploadError {
    #[error("the body is larger than may be")]
    TooLarge,
    #[error("the body comes too slowly")]
    TooSlow,
    #[error("the body is broken off, or no body")]
    Broken,
}

/// The body. Its other end learns once that it is over.
pub(super) struct Upload {
    body: Incoming,
    bounds: UploadBounds,
    received: u64,
    began: Instant,
    /// Only while it is waited for.
    waits: Option<Pin<Box<Sleep>>>,
    verdict: Option<oneshot::Sender<Option<UploadError>>>,
    untaken: Arc<Untaken>,
}

/// What it may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct UploadBounds {
    pub(super) bytes: u64,
    pub(super) stands_still: Duration,
}

/// The same as who waits for the answer sees it.
pub(super) struct Watched {
    /// `None`: it is whole, or nobody wants the rest.
    pub(super) verdict: oneshot::Receiver<Option<UploadError>>,
    pub(super) untaken: Arc<Untaken>,
}

/// Since when a part of it waits for its function, if one does.
#[derive(Default)]
pub(super) struct Untaken(Mutex<Option<Instant>>);

impl Untaken {
    /// Nobody panics while he has it.
    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready when the function has taken nothing of what there is for so long.
    pub(super) async fn stands_still(&self, longest: Duration) {
        loop {
            let since = *self.since();
            let left = since.map_or(longest, |since| longest.saturating_sub(since.elapsed()));
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }
}

impl Upload {
    pub(super) fn new(body: Incoming, bounds: UploadBounds) -> (Self, Watched) {
        let (verdict, end) = oneshot::channel();
        let untaken = Arc::new(Untaken::default());
        let watched = Watched { verdict: end, untaken: Arc::clone(&untaken) };
        let verdict = Some(verdict);
        (Self { body, bounds, received: 0, began: Instant::now(), waits: None, verdict, untaken }, watched)
    }

    fn fail(&mut self, error: UploadError) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        self.tell(Some(error));
        Poll::Ready(Some(Err(error)))
    }

    fn tell(&mut self, verdict: Option<UploadError>) {
        if let Some(sender) = self.verdict.take() {
            // Nobody may want to know any more.
            _ = sender.send(verdict);
        }
    }

    fn is_too_slow(&self) -> bool {
        let elapsed = self.began.elapsed();
        elapsed > self.bounds.stands_still && self.received < elapsed.as_secs().saturating_mul(BYTES_PER_SECOND)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.tell(None);
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        *self.untaken.since() = polled.is_ready().then(Instant::now);
        let Poll::Ready(frame) = polled else {
            let longest = self.bounds.stands_still;
            let waits = self.waits.get_or_insert_with(|| Box::pin(sleep(longest)));
            ready!(waits.as_mut().poll(cx));
            return self.fail(UploadError::TooSlow);
        };
        self.waits = None;
        let frame = match frame {
            None => {
                self.tell(None);
                return Poll::Ready(None);
            }
            Some(Err(_)) => return self.fail(UploadError::Broken),
            Some(Ok(frame)) => frame,
        };
        self.received = self.received.saturating_add(frame.data_ref().map_or(0, |data| data.len() as u64));
        if self.received > self.bounds.bytes {
            return self.fail(UploadError::TooLarge);
        }
        if self.is_too_slow() {
            return self.fail(UploadError::TooSlow);
        }
        if self.body.is_end_stream() {
            self.tell(None);
        }
        let frame = frame.into_trailers().map_or_else(
            |data| data,
            |mut trailers| {
                headers::for_trailers(&mut trailers);
                Frame::trailers(trailers)
            },
        );
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
