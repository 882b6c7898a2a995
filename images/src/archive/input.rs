//! What is named on a command line to be read: a plain file, or a pipe to its end. Nothing else is opened.

use crate::{
    Budget,
    unpack::{Compression, is_tar},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    fs::{self, File, Metadata},
    io::{self, Cursor, Read},
    os::{fd::AsFd, unix::fs::FileTypeExt},
    path::Path,
};

/// Enough to tell what a file is.
const HEAD_BYTES: usize = 1024;

/// Opens a file or a pipe, or standard input for `-`. As everywhere, a named pipe is waited for until somebody writes.
pub(super) fn open(path: &Path) -> io::Result<File> {
    if path == Path::new("-") {
        let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        return check(&input.metadata()?).map(|()| input);
    }
    // Looked at before it is opened: opening a device may do something already.
    check(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    check(&file.metadata()?).map(|()| file)
}

fn check(found: &Metadata) -> io::Result<()> {
    let kind = found.file_type();
    let what = match kind {
        _ if kind.is_dir() => "a folder",
        _ if kind.is_char_device() || kind.is_block_device() => "a device, which may have no end",
        _ => return Ok(()),
    };
    Err(io::Error::other(format!("it is {what}; expected a file or a pipe")))
}

/// A pipe, waited for as long as a command may take.
pub(super) struct Pipe {
    pub(super) file: File,
    pub(super) budget: Budget,
}

impl Read for Pipe {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.budget.time_left().map_err(|bound| io::Error::new(io::ErrorKind::TimedOut, bound))?;
        let timeout = Timespec::try_from(left).ok();
        // Interrupted, or ready, or out of time, which the next look at what is left tells.
        match poll(&mut [PollFd::new(&self.file, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) => Err(io::ErrorKind::Interrupted.into()),
            Ok(_) => self.file.read(out),
            Err(error) => Err(error.into()),
        }
    }
}

/// A pipe's bytes; only the first of one that begins like nothing that can be read, as it may have no end.
pub(super) fn worth_copying(mut pipe: Pipe) -> io::Result<Box<dyn Read>> {
    let mut head = Vec::new();
    pipe.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    let text = head.trim_ascii_start();
    let is_known = head.starts_with(b"\0asm")
        || text.starts_with(b"(")
        || text.starts_with(b";;")
        || Compression::of(&head) != Compression::None
        || (is_tar(&head) && head.iter().any(|&byte| byte != 0));
    Ok(if is_known { Box::new(Cursor::new(head).chain(pipe)) } else { Box::new(Cursor::new(head)) })
}
