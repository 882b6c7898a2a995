//! The program's output streams: this process's own, unbuffered, or whatever else takes what it writes.
//!
//! wasmtime-wasi's inherited streams go through the standard library's line buffer and flush it after every write,
//! which is two system calls for most writes, and they report a closed pipe as an input/output error. These write once
//! and hand on the system's own error.

use crate::limits::MemorySum;
use bytes::Bytes;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamError, StreamResult},
};

/// What the program may write before it is asked to wait. Writing is done at once, so this only bounds the copy.
const PERMIT_BYTES: usize = 64 * 1024;

/// Which of a program's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStreamName {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes what a program writes, in place of this process's own streams: from any thread, a write at a time. Clones are the same.
#[derive(Clone)]
pub struct OutputSink(Arc<Take>);

type Take = dyn Fn(OutputStreamName, &[u8]) + Send + Sync;

impl OutputSink {
    /// One that hands it on. Who writes waits as long as `take` does.
    pub fn new(take: impl Fn(OutputStreamName, &[u8]) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    /// Hands it on.
    pub fn write(&self, stream: OutputStreamName, bytes: &[u8]) {
        (self.0)(stream, bytes);
    }
}

impl fmt::Debug for OutputSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutputSink").finish_non_exhaustive()
    }
}

/// Standard output or standard error.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    stream: OutputStreamName,
    /// Who writes to standard output goes on with his work.
    memory: Option<MemorySum>,
    /// None: this process's own.
    sink: Option<OutputSink>,
}

impl Output {
    pub(crate) fn stdout(memory: MemorySum, sink: Option<OutputSink>) -> Self {
        Self { stream: OutputStreamName::Stdout, memory: Some(memory), sink }
    }

    pub(crate) fn stderr(sink: Option<OutputSink>) -> Self {
        Self { stream: OutputStreamName::Stderr, memory: None, sink }
    }

    /// All of it, or an error.
    pub(crate) fn write_whole(&self, bytes: &[u8]) -> Result<(), Errno> {
        self.memory.iter().for_each(MemorySum::goes_on);
        match (&self.sink, self.stream) {
            (Some(sink), stream) => {
                sink.write(stream, bytes);
                Ok(())
            }
            (None, OutputStreamName::Stdout) => write_all(io::stdout().as_fd(), bytes),
            (None, OutputStreamName::Stderr) => write_all(io::stderr().as_fd(), bytes),
        }
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        match self.stream {
            _ if self.sink.is_some() => false,
            OutputStreamName::Stdout => IsTerminal::is_terminal(&io::stdout()),
            OutputStreamName::Stderr => IsTerminal::is_terminal(&io::stderr()),
        }
    }
}

impl StdoutStream for Output {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

/// Of WASI 0.3. Blocks, as the rest does.
impl AsyncWrite for Output {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.write_whole(bytes).map(|()| bytes.len()).map_err(io::Error::from))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.write_whole(&bytes).map_err(failure)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT_BYTES)
    }
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            // Somebody who shares it has made it non-blocking.
            Err(Errno::AGAIN) => wait_writable(fd)?,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn wait_writable(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn failure(errno: Errno) -> StreamError {
    StreamError::LastOperationFailed(io::Error::from(errno).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::ioctl_fionbio;
    use std::io::Read;

    #[test]
    fn everything_is_written_in_order_even_if_somebody_makes_the_pipe_non_blocking() {
        let (mut reader, writer) = io::pipe().unwrap();
        ioctl_fionbio(&writer, true).unwrap();
        let sent: Vec<u8> = (0..=u8::MAX).cycle().take(300_000).collect();
        let expected = sent.clone();
        let written = std::thread::spawn(move || write_all(writer.as_fd(), &sent).unwrap());
        let mut received = Vec::new();
        reader.read_to_end(&mut received).unwrap();
        written.join().unwrap();
        assert!(received == expected);
    }

    #[test]
    fn a_closed_pipe_is_named_as_such() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let Err(StreamError::LastOperationFailed(error)) = write_all(writer.as_fd(), b"x").map_err(failure) else {
            panic!("a pipe without a reader took a byte");
        };
        assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::BrokenPipe);
    }
}
