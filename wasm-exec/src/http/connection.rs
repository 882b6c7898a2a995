//! One connection: which protocol it speaks, its requests, and how long it is waited for.

use super::{
    pace::{Overdue, Pace},
    request::answer,
    server::Shared,
    stream::{self, Stream},
};
use bytes::{Bytes, BytesMut};
use hyper::{
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use std::{convert::Infallible, future::Future, pin::Pin, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    runtime::Handle,
    sync::watch,
    time::{sleep, timeout},
};
use wasmtime_wasi_http::io::TokioIo;

/// By which a client says that it speaks HTTP/2 without asking first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Headers of one request.
const HEADERS: usize = 100;
/// Requests at once of one HTTP/2 connection.
const STREAMS: u32 = 100;
/// What is kept of an answer for an HTTP/2 client that takes none of it.
const SEND_BYTES: usize = 64 << 10;
/// The least that hyper's buffer may have.
const LEAST_HEAD_BYTES: u32 = 8192;
/// How often it is looked whether a client is too slow, at the most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Serves it to its end. Errors are between the client and the function: there is nobody to tell.
pub(super) async fn serve(shared: Arc<Shared>, mut socket: TcpStream, mut stopping: watch::Receiver<bool>) {
    let first = first_bytes(&mut socket);
    let first = tokio::select! {
        biased;
        first = timeout(shared.bounds.head_within, first) => first,
        _ = stopping.wait_for(|stop| *stop) => return,
    };
    let Ok(Some(first)) = first else { return stream::say_too_slow(&socket) };
    let is_h2 = first.starts_with(PREFACE);
    let pace = Arc::new(Pace::new(is_h2));
    pace.read();
    let io = TokioIo::new(Stream::new(socket, Arc::clone(&pace), first));
    let service = {
        let (shared, pace) = (Arc::clone(&shared), Arc::clone(&pace));
        service_fn(move |request| {
            let (shared, pace) = (Arc::clone(&shared), Arc::clone(&pace));
            async move { Ok::<_, Infallible>(answer(shared, pace, request).await) }
        })
    };
    let head_bytes = shared.bounds.head_bytes.max(LEAST_HEAD_BYTES);
    let watch = Watch { shared: &shared, pace: &pace, stopping };
    if is_h2 {
        let mut builder = http2::Builder::new(OnRuntime(shared.runtime.clone()));
        builder.max_concurrent_streams(STREAMS).max_header_list_size(head_bytes).max_send_buf_size(SEND_BYTES);
        let connection = builder.serve_connection(io, service);
        watch.over(pin!(connection), http2::Connection::graceful_shutdown).await;
    } else {
        let mut builder = http1::Builder::new();
        builder.max_headers(HEADERS).max_buf_size(usize::try_from(head_bytes).unwrap_or(usize::MAX));
        builder.header_read_timeout(None);
        let connection = builder.serve_connection(io, service);
        watch.over(pin!(connection), http1::Connection::graceful_shutdown).await;
    }
}

/// Enough of what comes first to tell the protocols apart. None if nothing comes.
async fn first_bytes(socket: &mut TcpStream) -> Option<Bytes> {
    let mut first = BytesMut::with_capacity(1024);
    loop {
        match socket.read_buf(&mut first).await {
            Ok(0) | Err(_) => return None,
            Ok(_) if first.len() < PREFACE.len() && PREFACE.starts_with(&first) => {}
            Ok(_) => return Some(first.freeze()),
        }
    }
}

/// What a connection is watched by.
struct Watch<'a> {
    shared: &'a Shared,
    pace: &'a Pace,
    stopping: watch::Receiver<bool>,
}

impl Watch<'_> {
    /// Until it ends, its client is too slow, or the server stops and it has no request.
    async fn over<C: Future>(mut self, mut connection: Pin<&mut C>, finish: impl Fn(Pin<&mut C>)) {
        let bounds = &self.shared.bounds;
        let every = (bounds.head_within.min(bounds.idle).min(bounds.stalled) / 4).min(LOOK_EVERY);
        let mut look = pin!(sleep(every));
        let mut is_ending = false;
        loop {
            tokio::select! {
                biased;
                _ = connection.as_mut() => return,
                _ = self.stopping.wait_for(|stop| *stop), if !is_ending => {
                    is_ending = true;
                    finish(connection.as_mut());
                }
                () = look.as_mut() => {
                    match self.pace.overdue(bounds) {
                        Some(Overdue::Head) if !self.pace.is_given_up() => self.pace.give_up(),
                        // HTTP/2 has a word for it; who does not take it is left at the next look.
                        Some(Overdue::Idle) if !is_ending => {
                            is_ending = true;
                            finish(connection.as_mut());
                        }
                        Some(_) => return,
                        None => {}
                    }
                    look.set(sleep(every));
                }
            }
        }
    }
}

/// Runs the requests of one HTTP/2 connection beside each other.
#[derive(Clone)]
struct OnRuntime(Handle);

impl<F> Executor<F> for OnRuntime
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}
