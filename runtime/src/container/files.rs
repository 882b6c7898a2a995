//! Folders and locks.

use std::{
    fs,
    io::{self, ErrorKind},
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

/// The lock of one folder; released when dropped.
pub(crate) type Lock = Flock<OwnedFd>;

/// Makes a folder that may exist, with those above it; for its owner only, as records tell what a container's environment
/// is.
pub(super) fn make_private_folder(dir: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    match builder.mode(0o700).create(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => builder.recursive(true).create(dir),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
    .with_context(|| format!("cannot make {}", dir.display()))
}

/// What is in a folder; nothing if there is none. All of it or an error: what is not listed might be removed.
pub(super) fn folder_entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = || -> io::Result<Vec<PathBuf>> { fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect() };
    match list() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        other => other.with_context(|| format!("cannot list {}", dir.display())),
    }
}

/// Whether there is something of this name. Not being able to look is an error and not a no.
pub(super) fn is_there(path: &Path) -> Result<bool> {
    path.try_exists().with_context(|| format!("cannot look at {}", path.display()))
}

/// Removes a file, if `really`.
pub(super) fn remove_if(really: bool, path: &Path) -> Result<()> {
    match really.then(|| fs::remove_file(path)) {
        // Another command may clean up at the same time.
        Some(Err(error)) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes a folder with all that is in it; gone already is fine.
pub(super) fn remove_folder(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// The lock of a folder; None: it is gone, or somebody else has the lock.
pub(super) fn try_lock(dir: &Path) -> Result<Option<Lock>> {
    lock_dir(dir, FlockArg::LockExclusiveNonblock)
}

/// None: the folder is gone, or (non-blocking) somebody else has the lock.
pub(super) fn lock_dir(dir: &Path, how: FlockArg) -> Result<Option<Lock>> {
    let file = match fs::File::open(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("cannot open {}", dir.display()))?,
    };
    match Flock::lock(OwnedFd::from(file), how) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(io::Error::from(errno)).with_context(|| format!("cannot lock {}", dir.display())),
    }
}
