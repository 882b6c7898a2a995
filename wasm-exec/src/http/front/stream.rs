//! A client's socket: what was read to find out the protocol comes first, and how it goes on is noted.

use super::pace::Pace;
use bytes::{Buf, Bytes};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};

/// The answer to a head that does not end; hyper has none.
const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// For a client to take what it is told last.
const LAST_WORD: Duration = Duration::from_millis(100);

/// Encrypted or not: what is served on it is compiled once.
pub type Socket = Box<dyn Io>;

/// What bytes go through, both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// The connection.
pub(super) struct Stream {
    socket: Socket,
    pace: Arc<Pace>,
    /// Read already.
    before: Bytes,
}

impl Stream {
    pub(super) fn new(socket: Socket, pace: Arc<Pace>, before: Bytes) -> Self {
        Self { socket, pace, before }
    }
}

/// Tells a client that its head took too long; if it does not take even that, it does not learn it.
pub(super) async fn say_too_slow(mut socket: Socket) {
    _ = timeout(LAST_WORD, async { socket.write_all(TOO_SLOW).await.and(socket.flush().await) }).await;
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.pace.is_given_up() {
            // If it does not take even that at once, it does not learn it.
            _ = Pin::new(&mut self.socket).poll_write(cx, TOO_SLOW);
            _ = Pin::new(&mut self.socket).poll_flush(cx);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if !self.before.is_empty() {
            let length = self.before.len().min(buf.remaining());
            buf.put_slice(&self.before[..length]);
            self.before.advance(length);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.pace.read();
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.pace.wrote(written.is_ready());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, parts);
        self.pace.wrote(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
