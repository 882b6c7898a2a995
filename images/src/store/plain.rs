//! Opening the store's own files: plain ones, whatever somebody else has put in their place.

use rustix::fs::OFlags;
use std::{
    fs::{File, FileType, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
};

/// What lies at a path where a plain file is expected.
pub(super) enum Found {
    Plain(File),
    Nothing,
    /// Something else, in words. It was not waited for, and no link was followed.
    Other(&'static str),
}

/// Opens a plain file for reading.
pub(super) fn open(path: &Path) -> io::Result<Found> {
    open_as(path, OpenOptions::new().read(true))
}

/// Opens one that is there already, for writing over it.
pub(super) fn open_to_write(path: &Path) -> io::Result<Found> {
    open_as(path, OpenOptions::new().write(true))
}

fn open_as(path: &Path, options: &mut OpenOptions) -> io::Result<Found> {
    // Not blocking: a FIFO would be waited for.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    match options.custom_flags(flags).open(path) {
        Ok(file) => {
            let kind = file.metadata()?.file_type();
            Ok(if kind.is_file() { Found::Plain(file) } else { Found::Other(words(kind)) })
        }
        Err(gone) if gone.kind() == ErrorKind::NotFound => Ok(Found::Nothing),
        // Links, sockets, FIFOs without a reader and folders cannot be opened so; what they are is said all the same.
        Err(source) => match path.symlink_metadata() {
            Ok(found) if !found.is_file() => Ok(Found::Other(words(found.file_type()))),
            _ => Err(source),
        },
    }
}

/// What it is, in words.
pub(super) fn words(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_file() => "a plain file",
        _ if kind.is_dir() => "a folder",
        _ if kind.is_symlink() => "a symbolic link",
        _ if kind.is_fifo() => "a FIFO",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    }
}
