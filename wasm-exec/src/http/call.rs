//! The call of a function, as each version of WASI has it: what it is given, and where its answer goes.

use super::{counts::Counts, function::Handler, instance::Instance};
use crate::state::State;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    Request, Response, Uri,
    body::{Body, Frame, SizeHint},
    header::HOST,
    http::uri::Scheme,
};
use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};
use tokio::sync::oneshot;
use wasmtime::{Result, Store, component::Resource};
use wasmtime_wasi_http::{
    Error, WasiBody, WasiHttpView,
    p2::{self, bindings::http::types},
    p3,
};

/// An answer, or with which error there is none.
pub(super) type Head = Result<Response<WasiBody>, Error>;

/// What an instance is called by.
pub(super) enum Exports {
    P2(p2::bindings::Proxy),
    P3(p3::bindings::Service),
}

/// What is to be called, and with what.
pub(super) enum Call {
    P2 {
        handler: p2::bindings::ProxyPre<State>,
        request: Resource<p2::types::HostIncomingRequest>,
        answer: Resource<p2::types::HostResponseOutparam>,
    },
    P3 {
        handler: p3::bindings::ServicePre<State>,
        request: p3::Request,
        answer: oneshot::Sender<Head>,
    },
}

impl Call {
    pub(super) fn new(
        handler: &Handler,
        store: &mut Store<State>,
        request: Request<WasiBody>,
        answer: oneshot::Sender<Head>,
    ) -> Result<Self> {
        let mut http = store.data_mut().http();
        match handler.clone() {
            Handler::P2(handler) => {
                let request = http.new_incoming_request(types::Scheme::Http, request)?;
                let answer = http.new_response_outparam_from_callback(move |head| {
                    // Who asked may be gone.
                    let _ = answer.send(head.map_err(Error::from));
                })?;
                Ok(Self::P2 { handler, request, answer })
            }
            Handler::P3(handler) => {
                // What becomes of the request after its answer nobody here waits for.
                let (request, _processed) = p3::Request::from_http(http.hooks, with_whole_uri(request)?);
                Ok(Self::P3 { handler, request, answer })
            }
        }
    }

    /// Instantiates the function, unless it has been used before, and calls it; it has ended when this is ready.
    pub(super) async fn run(self, instance: &mut Instance, counts: &Counts) -> Result<()> {
        let (store, before) = (&mut instance.store, instance.exports.take());
        match (self, before) {
            (Self::P2 { handler, request, answer }, before) => {
                let function = match before {
                    Some(Exports::P2(function)) => function,
                    _ => timed(counts, handler.instantiate_async(&mut *store)).await?,
                };
                function.wasi_http_incoming_handler().call_handle(&mut *store, request, answer).await?;
                instance.exports = Some(Exports::P2(function));
            }
            (Self::P3 { handler, request, answer }, before) => {
                let function = match before {
                    Some(Exports::P3(function)) => function,
                    _ => timed(counts, handler.instantiate_async(&mut *store)).await?,
                };
                store
                    .run_concurrent(async |store| answer_concurrently(&function, store, request, answer).await)
                    .await??;
                instance.exports = Some(Exports::P3(function));
            }
        }
        Ok(())
    }
}

/// Makes an instance, and notes how long that took.
async fn timed<T>(counts: &Counts, instantiating: impl Future<Output = Result<T>>) -> Result<T> {
    let began = Instant::now();
    let made = instantiating.await?;
    counts.note_instantiation(began.elapsed());
    Ok(made)
}

/// Hands on the answer, and lets the function go on until its client has all of it and it has no more to do.
async fn answer_concurrently(
    function: &p3::bindings::Service,
    store: &wasmtime::component::Accessor<State>,
    request: p3::Request,
    answer: oneshot::Sender<Head>,
) -> Result<()> {
    let response = match function.handle(store, request).await? {
        Ok(response) => response,
        Err(code) => {
            let _ = answer.send(Err(code.into()));
            return Ok(());
        }
    };
    let response = store.with(|store| response.into_http(store, async { Ok(()) }))?;
    let (sending, sent) = oneshot::channel();
    let _ = answer.send(Ok(response.map(|body| Sending { body, _sending: sending }.boxed_unsync())));
    // It is never told anything: whoever sends the body drops it in the end.
    let _ = sent.await;
    poll_fn(|cx| store.poll_no_interesting_tasks(cx)).await;
    Ok(())
}

/// A body, with what ends when it does.
struct Sending {
    body: WasiBody,
    _sending: oneshot::Sender<()>,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request as it came names its host in a header of its own; WASI 0.3 looks for it in the URI alone.
fn with_whole_uri(mut request: Request<WasiBody>) -> Result<Request<WasiBody>> {
    if request.uri().authority().is_none()
        && let Some(host) = request.headers().get(HOST).filter(|host| !host.is_empty())
    {
        let mut parts = request.uri().clone().into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(host.as_bytes().try_into()?);
        *request.uri_mut() = Uri::from_parts(parts)?;
    }
    Ok(request)
}
