//! The user's own terminal: its size, and raw mode while a container's terminal is shown in it.

use std::{fs::File, io, os::fd::AsFd};

use nix::sys::termios::{self, SetArg, Termios};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};

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
