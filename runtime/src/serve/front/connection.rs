//! One connection: which protocol it speaks, its requests, and how long it is waited for.

use std::{convert::Infallible, pin::Pin, pin::pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    Client, Door,
    pace::{Counted, Overdue, Pace},
    stream::{self, Socket, Stream},
};
use crate::serve::{config::ClientLimits, exchange};

/// By which a client says that it speaks HTTP/2 without asking first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Headers of one request.
const HEADERS: usize = 100;
/// Requests at once of one HTTP/2 connection.
const STREAMS: u32 = 100;
/// What is kept of an answer for an HTTP/2 client that takes none of it.
const SEND_BYTES: usize = 64 << 10;
/// The least that hyper's buffer may have.
const LEAST_HEAD_BYTES: u64 = 8192;
/// How often it is looked whether a client is too slow, at the most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Serves it to its end. Errors are between the client and us: there is nobody to tell.
pub(super) async fn serve(door: Door, socket: TcpStream, client: Client) {
    let limits = door.gateway.site().limits.clone();
    let Some(tls) = &door.tls else { return talk(&door, limits, Box::new(socket), client).await };
    if let Ok(Ok(socket)) = timeout(limits.head_timeout.duration(), tls.accept(socket)).await {
        talk(&door, limits, Box::new(socket), client).await;
    }
}

async fn talk(door: &Door, limits: ClientLimits, mut socket: Socket, client: Client) {
    let mut stopping = door.stopping.clone();
    let first = tokio::select! {
        biased;
        first = timeout(limits.head_timeout.duration(), first_bytes(&mut socket)) => first,
        _ = stopping.wait_for(|stop| *stop) => return,
    };
    let Ok(first) = first else { return stream::say_too_slow(socket).await };
    let Some(first) = first else { return };
    let is_h2 = first.starts_with(PREFACE);
    let pace = Arc::new(Pace::new(is_h2));
    pace.read();
    let io = TokioIo::new(Stream::new(socket, Arc::clone(&pace), first));
    let watch = Watch { limits: &limits, pace: &pace, stopping };
    let service = service_fn(|request| {
        let (counted, gateway, client) = (Counted::new(&pace), Arc::clone(&door.gateway), client.clone());
        async move { Ok::<_, Infallible>(exchange::answer(gateway, client, request, counted).await) }
    });
    let head_bytes = limits.head.0.clamp(LEAST_HEAD_BYTES, u64::from(u32::MAX));
    if is_h2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.max_concurrent_streams(STREAMS).max_send_buf_size(SEND_BYTES);
        builder.max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX));
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
    limits: &'a ClientLimits,
    pace: &'a Pace,
    stopping: watch::Receiver<bool>,
}

impl Watch<'_> {
    /// Until it ends, its client is too slow, or the gateway stops and it has no request.
    async fn over<C: Future>(mut self, mut connection: Pin<&mut C>, finish: impl Fn(Pin<&mut C>)) {
        let ClientLimits { head_timeout, idle_timeout, send_timeout, .. } = self.limits;
        let shortest = head_timeout.0.min(idle_timeout.0).min(send_timeout.0);
        let every = Duration::from_millis(shortest / 4).clamp(Duration::from_millis(10), LOOK_EVERY);
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
                    match self.pace.overdue(self.limits) {
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
