//! A request's body on its way to the function: bounded in bytes, and in what it lets one wait.

use super::{BODY_BYTES_PER_SECOND, failure::Failure, service::BodyBounds};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};
use tokio::{
    sync::oneshot,
    time::{Sleep, sleep_until},
};
use wasmtime_wasi_http::Error;

/// The body.
pub(super) struct Upload {
    body: Incoming,
    most_bytes: u64,
    grace: Duration,
    received: u64,
    /// While the function waited for it.
    waited: Duration,
    waits: Option<Wait>,
    waiting: Arc<AtomicBool>,
    verdict: Option<oneshot::Sender<Failure>>,
}

/// The function waits for the client.
struct Wait {
    since: Instant,
    over: Pin<Box<Sleep>>,
}

/// The same as who answers the request sees it.
pub(super) struct Watched {
    /// What is wrong with it, if anything is.
    pub(super) verdict: oneshot::Receiver<Failure>,
    waiting: Arc<AtomicBool>,
}

impl Watched {
    /// Whether the function waits for more of it.
    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.load(Relaxed)
    }
}

impl Upload {
    pub(super) fn new(body: Incoming, bounds: BodyBounds) -> (Self, Watched) {
        let (sender, verdict) = oneshot::channel();
        let waiting = Arc::new(AtomicBool::new(false));
        let watched = Watched { verdict, waiting: Arc::clone(&waiting) };
        let upload = Self {
            body,
            most_bytes: bounds.bytes,
            grace: bounds.grace,
            received: 0,
            waited: Duration::ZERO,
            waits: None,
            waiting,
            verdict: Some(sender),
        };
        (upload, watched)
    }

    fn fail(&mut self, failure: Failure, error: Error) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(verdict) = self.verdict.take() {
            // The answer may have begun; then this is between the function and its client.
            let _ = verdict.send(failure);
        }
        Poll::Ready(Some(Err(error)))
    }

    /// Ready when it has let the function wait for too long in all.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let allowed = self.grace + Duration::from_millis(self.received.saturating_mul(1000) / BODY_BYTES_PER_SECOND);
        let left = allowed.saturating_sub(self.waited);
        let wait = self.waits.get_or_insert_with(|| {
            let since = Instant::now();
            Wait { since, over: Box::pin(sleep_until((since + left).into())) }
        });
        self.waiting.store(true, Relaxed);
        wait.over.as_mut().poll(cx)
    }

    fn note_progress(&mut self) {
        if let Some(wait) = self.waits.take() {
            self.waited += wait.since.elapsed();
            self.waiting.store(false, Relaxed);
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            ready!(self.poll_patience(cx));
            return self.fail(Failure::BodyTooSlow, Error::ConnectionReadTimeout);
        };
        self.note_progress();
        let frame = match frame.transpose() {
            Ok(frame) => frame,
            Err(error) => return self.fail(Failure::BodyBroken, Error::Hyper(error)),
        };
        if let Some(frame) = &frame {
            let length = frame.data_ref().map_or(0, Bytes::len);
            self.received = self.received.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
            if self.received > self.most_bytes {
                let most_bytes = self.most_bytes;
                return self.fail(Failure::BodyTooLarge, Error::HttpRequestBodySize(Some(most_bytes)));
            }
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
