//! The user's own terminal (its size, and raw mode while a container's terminal is shown in it), and the showing.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Write},
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Weak},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, poll},
    sys::termios::{self, SetArg, Termios},
};
use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    termios::{Winsize, tcgetwinsize, tcsetwinsize},
};

use crate::lifecycle::streams::{self, NotCopied, Sink};

/// Raw mode, until it is dropped.
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// None if standard input is no terminal.
    pub(crate) fn enter() -> Option<Self> {
        let stdin = io::stdin();
        let before = termios::tcgetattr(stdin.as_fd()).ok()?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal may be gone; then there is nothing to restore.
        let _ = termios::tcsetattr(io::stdin().as_fd(), SetArg::TCSADRAIN, &self.before);
    }
}

/// Columns and rows of the terminal on standard output.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    Some((size.ws_col, size.ws_row))
}

/// Tells a pty its size; its programs get SIGWINCH.
pub(crate) fn set_size(master: &File, (columns, rows): (u16, u16)) {
    // A pty whose container is gone has no size to set.
    let _ = tcsetwinsize(master, Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 });
}

/// A container's terminal, shown in ours. It has the only descriptor of the pty's master: when nobody looks any more, that
/// is closed, which hangs the container's terminal up.
pub(crate) struct Screen {
    master: Arc<File>,
    keyboard: Option<File>,
    /// Typed, and not yet taken by the terminal.
    typed: Vec<u8>,
}

impl Screen {
    /// `keyboard` is where input comes from, if there is any.
    pub(crate) fn new(master: File, keyboard: Option<File>) -> Result<Self> {
        // The program may take no input because nobody takes its output: neither may wait for the other.
        fcntl_getfl(&master)
            .and_then(|flags| fcntl_setfl(&master, flags | OFlags::NONBLOCK))
            .context("cannot set up the container's terminal")?;
        Ok(Self { master: Arc::new(master), keyboard, typed: Vec::new() })
    }

    /// For who changes its size meanwhile.
    pub(crate) fn master(&self) -> Weak<File> {
        Arc::downgrade(&self.master)
    }

    /// Until nobody has the other side open, or, after the program's end, until there is nothing more to read.
    pub(crate) fn show(mut self, ended: BorrowedFd<'_>, mut sink: Sink) -> Option<NotCopied> {
        let mut buffer = vec![0; 64 << 10];
        let mut is_over = false;
        loop {
            let ready = match self.wait(ended, is_over) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => continue,
                Err(_) => break,
            };
            if ready.keyboard {
                self.read_keyboard();
            }
            if ready.takes {
                self.pass_on_typed();
            }
            if ready.output {
                match (&*self.master).read(&mut buffer) {
                    Ok(count @ 1..) if sink.take(&buffer[..count]) => {}
                    Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                    // A pty's master answers EIO when nobody has the other side open any more.
                    _ => break,
                }
            } else if is_over {
                break;
            }
            is_over |= ready.over;
        }
        sink.problem()
    }

    fn wait(&self, ended: BorrowedFd<'_>, is_over: bool) -> nix::Result<Ready> {
        let wanted = if self.typed.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLIN | PollFlags::POLLOUT };
        let mut fds = vec![PollFd::new(self.master.as_fd(), wanted)];
        if !is_over {
            fds.push(PollFd::new(ended, PollFlags::POLLIN));
            fds.extend(
                self.keyboard
                    .iter()
                    .filter(|_| self.typed.is_empty())
                    .map(|keyboard| PollFd::new(keyboard.as_fd(), PollFlags::POLLIN)),
            );
        }
        poll(&mut fds, streams::timeout(is_over))?;
        let found = fds[0].revents().unwrap_or(PollFlags::empty());
        let any = |index: usize| fds.get(index).is_some_and(|fd| fd.any() == Some(true));
        Ok(Ready {
            takes: found.contains(PollFlags::POLLOUT),
            output: !(found - PollFlags::POLLOUT).is_empty(),
            over: any(1),
            keyboard: any(2),
        })
    }

    fn read_keyboard(&mut self) {
        let mut buffer = [0; 4096];
        match self.keyboard.as_mut().map(|keyboard| keyboard.read(&mut buffer)) {
            Some(Ok(count @ 1..)) => self.typed.extend_from_slice(&buffer[..count]),
            Some(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
            // Our terminal is gone. Whether the program cares is its affair: it gets our SIGHUP.
            _ => self.keyboard = None,
        }
    }

    fn pass_on_typed(&mut self) {
        match (&*self.master).write(&self.typed) {
            Ok(count) => drop(self.typed.drain(..count)),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(_) => {
                self.typed.clear();
                self.keyboard = None;
            }
        }
    }
}

/// What can be done without waiting.
struct Ready {
    /// The container's terminal takes input.
    takes: bool,
    /// The container's terminal has output, or is closed.
    output: bool,
    /// The program has ended.
    over: bool,
    keyboard: bool,
}
