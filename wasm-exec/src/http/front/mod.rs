//! Clients' connections, for whoever answers their requests: which protocol one speaks, and how long it is waited for.
//!
//! ```text
//! socket ── Stream ── hyper: HTTP/1.1, h2 ── answer(request, Counted) ── Taken
//!             └────── Pace, looked at ─────────────────────┴───────────────┘
//! ```

mod pace;
mod stream;
mod taken;

pub use pace::Counted;
pub use stream::{Io, Socket};

use bytes::{Bytes, BytesMut};
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pace::{Overdue, Pace};
use std::{convert::Infallible, error::Error, future::Future, pin::Pin, pin::pin, sync::Arc, time::Duration};
use stream::Stream;
use taken::Taken;
use tokio::{
    io::AsyncReadExt,
    sync::watch,
    time::{sleep, timeout},
};

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
/// How often it is looked whether a client is too slow.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How long a client is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// From a head's first byte to its last: 408. With HTTP/2, of which any frame may come without a request, `idle` counts.
    pub head: Duration,
    /// A connection without a request is closed.
    pub idle: Duration,
    /// It takes nothing of what it is sent: the connection is closed.
    pub stalled: Duration,
}

/// Serves a connection to its end, or until `stopping` is true and it has no request. Errors are between the client and the server: there
/// is nobody to tell.
///
/// `head_bytes`: of a request's line and headers, more of which are 414 or 431. `answer` answers in any case; what it is given besides is to
/// be kept until the answer's body is over, as the connection counts as idle from then on.
pub async fn serve<B, F>(
    mut socket: Socket,
    head_bytes: u32,
    waits: Waits,
    mut stopping: watch::Receiver<bool>,
    answer: impl Fn(Request<Incoming>, Counted) -> F,
) where
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
{
    let first = tokio::select! {
        biased;
        first = timeout(waits.head, first_bytes(&mut socket)) => first,
        _ = stopping.wait_for(|stop| *stop) => return,
    };
    let Ok(first) = first else { return stream::say_too_slow(socket).await };
    let Some(first) = first else { return };
    let is_h2 = first.starts_with(PREFACE);
    let pace = Arc::new(Pace::new(is_h2));
    pace.read();
    let io = TokioIo::new(Stream::new(socket, Arc::clone(&pace), first));
    let watch = Watch { waits, pace: &pace, stopping };
    let service = service_fn(|request| {
        let (answering, handed) = (answer(request, Counted::new(&pace)), pace.handed());
        async move { Ok::<_, Infallible>(answering.await.map(|body| Taken::new(body, handed))) }
    });
    let head_bytes = head_bytes.max(LEAST_HEAD_BYTES);
    if is_h2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.max_concurrent_streams(STREAMS).max_header_list_size(head_bytes).max_send_buf_size(SEND_BYTES);
        let connection = builder.serve_connection(io, service);
        watch.over(pin!(connection), http2::Connection::graceful_shutdown).await;
    } else {
        let mut builder = http1::Builder::new();
        builder.max_headers(HEADERS).max_buf_size(usize::try_from(head_bytes).unwrap_or(usize::MAX));
        builder.header_read_timeout(None);
        let connection = builder.serve_connection(io, service).with_upgrades();
        watch.over(pin!(connection), http1::UpgradeableConnection::graceful_shutdown).await;
    }
}

/// Enough of what comes first to tell the protocols apart. None if nothing comes.
async fn first_bytes(socket: &mut Socket) -> Option<Bytes> {
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
    waits: Waits,
    pace: &'a Pace,
    stopping: watch::Receiver<bool>,
}

impl Watch<'_> {
    /// Until it ends, its client is too slow, or the server stops and it has no request.
    async fn over<C: Future>(mut self, mut connection: Pin<&mut C>, finish: impl Fn(Pin<&mut C>)) {
        let Waits { head, idle, stalled } = self.waits;
        let (often, seldom) = LOOK_EVERY;
        let every = (head.min(idle).min(stalled) / 4).clamp(often, seldom);
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
                    match self.pace.overdue(self.waits) {
                        // Its reader answers, and ends it.
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
