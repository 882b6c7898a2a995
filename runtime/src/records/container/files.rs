//! Folders and locks.

use std::{
    fs,
    io::{self, ErrorKind},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use images::remove_tree;
use linux_exec::process::Process;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

/// The lock of one folder or file, which ends when it is closed.
#[derive(Debug)]
pub(crate) struct Lock(OwnedFd);

impl Lock {
    /// The same lock for another process too: it ends when both have closed it.
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

/// Makes a folder that may exist, with those above it; for its owner only, as records tell what a container's environment
/// is.
pub(crate) fn make_private_folder(dir: &Path) -> Result<()> {
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
    // What a container wrote may be deeper than a path can say, and than there are descriptors.
    remove_tree(dir).with_context(|| format!("cannot remove {}", dir.display()))
}

/// The lock; None: there is no such file or folder, or somebody else has the lock.
pub(super) fn try_lock(path: &Path) -> Result<Option<Lock>> {
    lock(path, FlockOperation::NonBlockingLockExclusive)
}

/// Waits for the lock; None: there is no such folder.
pub(super) fn lock_alone(dir: &Path) -> Result<Option<Lock>> {
    lock(dir, FlockOperation::LockExclusive)
}

/// The same for as many as ask for it so.
pub(super) fn lock_together(dir: &Path) -> Result<Option<Lock>> {
    lock(dir, FlockOperation::LockShared)
}

/// The process that has locked a file, as far as that can be seen; proc_locks(5).
pub(super) fn lock_holder(path: &Path) -> Option<i32> {
    let inode = fs::metadata(path).ok()?.ino().to_string();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    // 1: FLOCK  ADVISORY  WRITE 4242 08:01:131090 0 EOF
    let pid = locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_of_file = fields.get(5)?.rsplit(':').next()? == inode;
        (is_of_file && fields.get(1) == Some(&"FLOCK")).then(|| fields.get(4)?.parse().ok()).flatten()
    })?;
    // The device of an inode is not always the one that stat(2) tells, so the number alone could be another file's.
    Process::of(pid).ok()?.runs_own_executable().unwrap_or(true).then_some(pid)
}

fn lock(path: &Path, how: FlockOperation) -> Result<Option<Lock>> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => OwnedFd::from(other.with_context(|| format!("cannot open {}", path.display()))?),
    };
    loop {
        match flock(&file, how) {
            Ok(()) => return Ok(Some(Lock(file))),
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}
