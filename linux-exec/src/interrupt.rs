//! Somebody wants this process to end, and it has to finish something first.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;

use crate::{Error, sys};

pub(crate) static CAME: AtomicBool = AtomicBool::new(false);

/// From now on the first SIGINT and the first SIGTERM only make [`came`] true. A program that is executed has neither
/// handler.
///
/// # Errors
/// None that the kernel is known to give.
pub fn expect() -> Result<(), Error> {
    let signals = [Signal::SIGINT, Signal::SIGTERM].map(|signal| signal as i32);
    sys::note_signals(&signals).map_err(|errno| Error::new("catch signals", errno))
}

/// Whether one of them came.
#[must_use]
pub fn came() -> bool {
    CAME.load(Ordering::Relaxed)
}
