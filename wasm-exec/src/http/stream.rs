//! A client's socket: what was read to find out the protocol comes first, and how it goes on is noted.

use super::pace::Pace;
use bytes::{Buf, Bytes};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// The answer to a head that does not end; hyper has none.
const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// The connection.
pub(super) struct Stream {
    socket: TcpStream,
    pace: Arc<Pace>,
    /// Read already.
    before: Bytes,
}

impl Stream {
    pub(super) fn new(socket: TcpStream, pace: Arc<Pace>, before: Bytes) -> Self {
        Self { socket, pace, before }
    }

    fn note_written(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Pending => self.pace.stalled(),
            Poll::Ready(_) => self.pace.wrote(),
        }
        written
    }
}

/// Tells a client that its head took too long; if it does not take even that, it does not learn it.
pub(super) fn say_too_slow(socket: &TcpStream) {
    let _ = socket.try_write(TOO_SLOW);
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.pace.is_given_up() {
            say_too_slow(&self.socket);
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
        self.note_written(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
