//! The program's output streams: this process's own, unbuffered.
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
    io,
    os::fd::{AsFd, BorrowedFd},
};
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamError, StreamResult},
};

/// What the program may write before it is asked to wait. Writing is done at once, so this only bounds the copy.
const PERMIT_BYTES: usize = 64 * 1024;

/// Standard output or standard error.
#[derive(Debug, Clone)]
pub(crate) enum Output {
    /// Who writes to it goes on with his work.
    Stdout {
        memory: MemorySum,
    },
    Stderr,
}

impl Output {
    pub(crate) fn stdout(memory: MemorySum) -> Self {
        Self::Stdout { memory }
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        match self {
            Self::Stdout { .. } => IsTerminal::is_terminal(&io::stdout()),
            Self::Stderr => IsTerminal::is_terminal(&io::stderr()),
        }
    }
}

impl StdoutStream for Output {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        match self {
            Self::Stdout { .. } => Box::new(tokio::io::stdout()),
            Self::Stderr => Box::new(tokio::io::stderr()),
        }
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        match self {
            Self::Stdout { memory } => {
                memory.goes_on();
                write_all(io::stdout().as_fd(), &bytes)
            }
            Self::Stderr => write_all(io::stderr().as_fd(), &bytes),
        }
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT_BYTES)
    }
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> StreamResult<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            // Somebody who shares it has made it non-blocking.
            Err(Errno::AGAIN) => wait_writable(fd)?,
            Err(errno) => return Err(failure(errno)),
        }
    }
    Ok(())
}

fn wait_writable(fd: BorrowedFd<'_>) -> StreamResult<()> {
    match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(failure(errno)),
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
        let Err(StreamError::LastOperationFailed(error)) = write_all(writer.as_fd(), b"x") else {
            panic!("a pipe without a reader took a byte");
        };
        assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::BrokenPipe);
    }
}
