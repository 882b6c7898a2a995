//! A file that appears by rename when it is whole, and that one process at a time writes.
//!
//! Who is to write `PATH` has `PATH.tmp` locked (flock(2)) until it has the name `PATH`, or is removed. Who wants to write it
//! too waits for that lock, and finds what the first one wrote. What a killed process left behind nobody has locked. For one that was
//! stopped nobody waits for ever: after a while he who waits writes a file of his own, `PATH.PID.tmp`.

use super::{
    error::{CacheError, io_error},
    name::TEMPORARY,
};
use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock, fstat},
    io::Errno,
    process::geteuid,
};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};

/// Longer than nearly all programs take to compile.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// A file that nobody else writes, empty at first. Dropped, it was never there.
pub(super) struct Draft {
    temporary: PathBuf,
    pub(super) file: File,
    is_published: bool,
}

impl Draft {
    /// Waits until nobody else writes the file of this path, or for long enough.
    pub(super) fn begin(path: &Path) -> Result<Self, CacheError> {
        Self::begin_within(PATIENCE, path)
    }

    /// The same; None if somebody else writes it now.
    pub(super) fn begin_unless_written(path: &Path) -> Result<Option<Self>, CacheError> {
        let temporary = temporary_of(path, "");
        loop {
            match open_alone(&temporary).map_err(io_error("write", &temporary))? {
                Opened::Alone(file) => return Ok(Some(Self { temporary, file, is_published: false })),
                Opened::Gone => {}
                Opened::Locked => return Ok(None),
            }
        }
    }

    fn begin_within(patience: Duration, path: &Path) -> Result<Self, CacheError> {
        let named = |middle: &str| temporary_of(path, middle);
        let (mut temporary, waiting) = (named(""), Instant::now());
        loop {
            match open_alone(&temporary).map_err(io_error("write", &temporary))? {
                Opened::Alone(file) => return Ok(Self { temporary, file, is_published: false }),
                Opened::Gone => {}
                Opened::Locked if waiting.elapsed() < patience => thread::sleep(PAUSE),
                // Of another pid namespace's process of this number, if that waits for nothing either, the next number is free.
                Opened::Locked => temporary = named(&format!(".{}-{}", process::id(), waiting.elapsed().as_nanos())),
            }
        }
    }

    /// Makes it appear under its name, and opens it to be read: by then somebody may have removed it again.
    pub(super) fn publish(mut self, path: &Path) -> Result<File, CacheError> {
        let file = File::open(&self.temporary).map_err(io_error("open", &self.temporary))?;
        fs::rename(&self.temporary, path).map_err(io_error("rename to", path))?;
        self.is_published = true;
        Ok(file)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_published {
            // What cannot be removed is found by `stale`.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn temporary_of(path: &Path, middle: &str) -> PathBuf {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(middle);
    temporary.push(TEMPORARY);
    PathBuf::from(temporary)
}

/// Whether somebody writes the file of this path now.
pub(super) fn is_written(path: &Path) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match rustix::fs::open(temporary_of(path, ""), flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(false),
        other => other?,
    };
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => Ok(true),
        other => Ok(other.map(|()| false)?),
    }
}

/// What came of an attempt.
enum Opened {
    Alone(File),
    /// Somebody else writes it.
    Locked,
    /// Somebody else has published or removed it.
    Gone,
}

fn open_alone(temporary: &Path) -> io::Result<Opened> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = rustix::fs::open(temporary, flags, Mode::RUSR | Mode::WUSR)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(Opened::Locked),
        locked => locked?,
    }
    let found = fstat(&file)?;
    let is_new = found.st_size == 0 && found.st_uid == geteuid().as_raw() && found.st_mode & 0o077 == 0;
    match rustix::fs::lstat(temporary) {
        Err(Errno::NOENT) => Ok(Opened::Gone),
        Err(errno) => Err(errno.into()),
        Ok(named) if (named.st_dev, named.st_ino) != (found.st_dev, found.st_ino) => Ok(Opened::Gone),
        Ok(_) if is_new => Ok(Opened::Alone(file.into())),
        // Whoever left it may still have it open, if his files are inherited.
        Ok(_) => fs::remove_file(temporary).map(|()| Opened::Gone),
    }
}

/// Whether nobody writes a temporary file any more.
pub(super) fn is_abandoned(path: &Path) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        // Somebody has just made it whole, or removed it.
        Err(Errno::NOENT) => return Ok(false),
        other => other?,
    };
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Ok(false),
        other => Ok(other.map(|()| true)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A terminal's Ctrl-Z stops a compiler; a second terminal's program ran only when that one went on.
    #[test]
    fn for_a_writer_that_was_stopped_nobody_waits_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("code");
        let stopped = Draft::begin(&path).unwrap();
        let others: Vec<_> = (0..2).map(|_| Draft::begin_within(Duration::from_millis(20), &path).unwrap()).collect();
        assert_ne!(others[0].temporary, others[1].temporary);
        for draft in others {
            draft.publish(&path).unwrap();
        }
        // It goes on, and its file takes the place of the others'.
        stopped.publish(&path).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
