//! One request: an instance of its own, from the head of the request to the head of the answer.

use super::{
    answer::Answer,
    call::{Call, Head},
    failure::{Failure, RequestId},
    front::Counted,
    instance::Instance,
    service::{BodyBounds, Place, Shared},
    share::Turns,
    upload::{Upload, Watched},
};
use crate::{Outcome, RunError, core_dump};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header};
use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    time::{sleep, timeout},
};
use wasmtime_wasi_http::{Error, WasiBody};

/// How long a function that is told to stop may take to notice: it does at its next loop or call, within a tick of the clock.
const NOTICES_WITHIN: Duration = Duration::from_millis(200);

/// A function at work on one request. When it is dropped it ends where it is.
pub(super) struct Guest {
    running: Running,
    interrupted: Arc<AtomicBool>,
    shared: Arc<Shared>,
    id: RequestId,
}

impl Guest {
    /// Runs it further. Whether it ended well; if not, that is in the log.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.running.as_mut().poll(cx).map(|ended| match ended {
            Ok(()) => true,
            Err(failure) => {
                self.shared.note_failure(&self.id, &failure);
                false
            }
        })
    }

    /// Lets it do what it has to do after its answer.
    pub(super) fn go_on(mut self) {
        let shared = Arc::clone(&self.shared);
        shared.runtime.spawn(async move {
            let patience = self.shared.bounds.afterwards;
            let _ = timeout(patience, poll_fn(|cx| self.poll(cx))).await;
        });
    }

    /// Stops it, and says where it was.
    async fn stop(&mut self) -> Outcome {
        self.interrupted.store(true, Relaxed);
        match timeout(NOTICES_WITHIN, self.running.as_mut()).await {
            Ok(Err(Failure::Ended(outcome))) => outcome,
            _ => Outcome::timed_out_waiting(),
        }
    }
}

/// Answers one request, in any case.
pub(super) async fn answer(shared: Arc<Shared>, request: Request<Incoming>, counted: Counted) -> Response<Answer> {
    let id = shared.begin_request();
    let bounds = BodyBounds { bytes: shared.bounds.body_bytes, grace: shared.bounds.body_grace };
    let answered = match check(&request) {
        Ok(()) => attempt(&shared, &id, shared.place(), bounds, request).await,
        Err(failure) => Err(failure),
    };
    let response = answered.unwrap_or_else(|failure| {
        shared.note_failure(&id, &failure);
        failure.response(&id)
    });
    response.map(|answer| answer.keeping(counted))
}

/// An answer of the function's, or why there is none.
pub(super) async fn attempt(
    shared: &Arc<Shared>,
    id: &RequestId,
    place: impl Future<Output = Place>,
    bounds: BodyBounds,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Failure> {
    if hyper::body::Body::size_hint(request.body()).lower() > bounds.bytes {
        return Err(Failure::BodyTooLarge);
    }
    let without_body = request.method() == Method::HEAD;
    let (head, body) = request.into_parts();
    let (body, watched): (WasiBody, _) = if hyper::body::Body::is_end_stream(&body) {
        (Empty::<Bytes>::new().map_err(Error::from).boxed_unsync(), None)
    } else {
        let (upload, watched) = Upload::new(body, bounds);
        (upload.boxed_unsync(), Some(watched))
    };
    let (sender, receiver) = oneshot::channel();
    let mut guest = begin(shared, id, place.await, Request::from_parts(head, body), sender)?;
    let (response, ended) = head_of(&mut guest, receiver, watched, shared.bounds.answer_within).await?;
    let (head, body) = response.into_parts();
    let without_body = without_body || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    Ok(Response::from_parts(head, Answer::of((!ended).then_some(guest), body, without_body)))
}

/// Refuses what can be refused before anything of it is used.
fn check(request: &Request<Incoming>) -> Result<(), Failure> {
    if request.method() == Method::CONNECT {
        return Err(Failure::Tunnel);
    }
    let host = request.headers().get(header::HOST);
    if request.uri().authority().is_none() && host.is_none_or(|host| host.to_str().is_err()) {
        return Err(Failure::NoHost);
    }
    Ok(())
}

/// Makes the instance; it begins when it is polled.
fn begin(
    shared: &Arc<Shared>,
    id: &RequestId,
    place: Place,
    request: Request<WasiBody>,
    answer: oneshot::Sender<Head>,
) -> Result<Guest, Failure> {
    let mut instance = Instance::ready(shared).map_err(Failure::NotStarted)?;
    let interrupted = Arc::clone(&instance.interrupted);
    let call = Call::new(&shared.handler, &mut instance.store, request, answer);
    let call = call.map_err(|error| Failure::NotStarted(RunError::engine(error)))?;
    let takes_long = Arc::clone(&instance.takes_long);
    let work = {
        let (shared, id) = (Arc::clone(shared), id.clone());
        async move {
            let _place = place;
            let ended = call.run(&mut instance, &shared.counts).await;
            conclude(&shared, &id, instance, ended)
        }
    };
    let running: Running = match &shared.share {
        Some(share) => Box::pin(Turns::new(work, Arc::clone(share), takes_long)),
        None => Box::pin(work),
    };
    Ok(Guest { running, interrupted, shared: Arc::clone(shared), id: id.clone() })
}

/// What becomes of an instance, and what it has come to.
fn conclude(
    shared: &Shared,
    id: &RequestId,
    mut instance: Instance,
    ended: wasmtime::Result<()>,
) -> Result<(), Failure> {
    shared.counts.add_fuel(instance.fuel_used());
    let Err(error) = ended else {
        shared.idle.keep(instance);
        return Ok(());
    };
    match Outcome::of_error(&error, &instance.memory) {
        Some(Outcome::Exited(0)) => Ok(()),
        Some(outcome) => {
            shared.dump(id, |name| core_dump::of(&error, &outcome, &mut instance.store, name));
            if matches!(outcome, Outcome::OutOfMemory { .. }) {
                // What waits for a request may be what is in the way.
                shared.idle.clear();
            }
            Err(Failure::Ended(outcome))
        }
        None => Err(Failure::NotStarted(RunError::Start { detail: format!("{error:#}") })),
    }
}

/// Runs the function until it answers or waits, and so on. The head, and whether the function has ended.
async fn head_of(
    guest: &mut Guest,
    mut receiver: oneshot::Receiver<Head>,
    mut watched: Option<Watched>,
    within: Duration,
) -> Result<(hyper::Response<WasiBody>, bool), Failure> {
    loop {
        let step = {
            let running = &mut guest.running;
            let step = poll_fn(|cx| step(running, &mut receiver, watched.as_mut(), cx));
            let mut step = pin!(step);
            // Most functions answer at once; only for the others is there a clock.
            match poll_fn(|cx| Poll::Ready(step.as_mut().poll(cx))).await {
                Poll::Ready(step) => Ok(step),
                Poll::Pending => tokio::select! { step = step => Ok(step), () = sleep(within) => Err(()) },
            }
        };
        match step {
            Ok(step) => return step,
            Err(()) if watched.as_ref().is_some_and(Watched::is_waited_for) => {}
            Err(()) => return Err(Failure::TooLate(guest.stop().await)),
        }
    }
}

type Running = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

fn step(
    running: &mut Running,
    receiver: &mut oneshot::Receiver<Head>,
    watched: Option<&mut Watched>,
    cx: &mut Context<'_>,
) -> Poll<Result<(hyper::Response<WasiBody>, bool), Failure>> {
    let ended = match running.as_mut().poll(cx) {
        // Even if it has answered: nobody has seen that yet.
        Poll::Ready(Err(failure)) => {
            let verdict = watched.and_then(|watched| watched.verdict.try_recv().ok());
            return Poll::Ready(Err(verdict.unwrap_or(failure)));
        }
        Poll::Ready(Ok(())) => true,
        Poll::Pending => false,
    };
    if let Some(Ok(failure)) = watched.map(|watched| watched.verdict.try_recv()) {
        return Poll::Ready(Err(failure));
    }
    match receiver.try_recv() {
        Ok(Ok(response)) => Poll::Ready(Ok((response, ended))),
        Ok(Err(error)) => Poll::Ready(Err(Failure::Declined(error))),
        Err(TryRecvError::Empty | TryRecvError::Closed) if ended => Poll::Ready(Err(Failure::NoAnswer)),
        Err(_) => Poll::Pending,
    }
}
