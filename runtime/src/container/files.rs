//! Records and locks: files that appear whole, folders that are locked.

use std::{
    fs,
    io::{self, ErrorKind},
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use serde::{Serialize, de::DeserializeOwned};

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

/// What is in a folder; nothing if there is none.
pub(super) fn folder_entries(dir: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        other => {
            let entries = other.with_context(|| format!("cannot list {}", dir.display()))?;
            Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        }
    }
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

/// Before the pid of the writer, in the extension of what is being written.
const TEMPORARY: &str = "tmp";

/// Whether a file is one that [`write_json`] was writing when its process was killed.
pub(super) fn is_half_written(path: &Path) -> bool {
    let writer = path.extension().and_then(|extension| extension.to_str()?.strip_prefix(TEMPORARY));
    writer.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
}

/// Writes to a temporary name beside it, then renames.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let temporary = path.with_extension(format!("{TEMPORARY}{}", std::process::id()));
    let write = || -> io::Result<()> {
        fs::write(&temporary, serde_json::to_vec(value)?)?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| _ = fs::remove_file(&temporary)).with_context(|| format!("cannot write {}", path.display()))
}

/// None if there is no such file.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).with_context(|| {
            format!("{} is damaged; amphora system prune removes the container it belongs to", path.display())
        }),
    }
}
