//! What living processes use of ROOT: locks on bytes of `ROOT/held.lock`, a file without content.
//!
//! Each thing has the byte that a hash of its kind and name says. Who uses it holds an open file description lock
//! (fcntl_locking(2)) on that byte, until he closes the table or ends, however he ends; who wants to remove it asks
//! whether anybody does. So whatever a process uses is seen by all who see ROOT: from another pid, time or mount
//! namespace, without /proc, and from a session that keeps its records elsewhere. It costs an open and one system call
//! a thing, makes nothing and leaves nothing behind. Two things of one byte would only both be kept.
//!
//! | kind | held by |
//! |---|---|
//! | [`WRITER`] | who writes files `temporary/<name>-<n>` |
//! | [`IMAGE`] | who uses an image, by the digest of its manifest, and is in no record of ROOT |
//!
//! Who uses images defines more kinds.

use crate::store::StoreError;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
};
use sha2::{Digest as _, Sha256};
use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// A process that writes below `temporary/`, by the first part of its files' names.
pub const WRITER: &str = "writer";
/// An image in use, by the digest of its manifest.
pub const IMAGE: &str = "image";

/// The table, and what is held through it: until it is dropped.
#[derive(Debug)]
pub struct Holds {
    table: File,
    path: PathBuf,
}

impl Holds {
    /// Opens the table of a ROOT; nothing is held yet.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let path = root.join("held.lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let table = options.open(&path).map_err(|source| match source.raw_os_error() {
            Some(libc::EISDIR | libc::ELOOP) => StoreError::Malformed {
                document: "the table of what is in use",
                path: path.clone(),
                reason: format!(
                    "{source}: expected a file without content; remove what is there, and it is made again"
                ),
            },
            _ => StoreError::io("opening", &path, source),
        })?;
        Ok(Self { table, path })
    }

    /// Holds a thing together with all who use it.
    ///
    /// Of an image: with [`crate::Store::writing`] held since before it was looked for, as who removes images asks once.
    pub fn take(&self, kind: &str, name: &str) -> Result<(), StoreError> {
        let byte = byte(libc::F_RDLCK, kind, name);
        self.control(FcntlArg::F_OFD_SETLK(&byte))
    }

    /// Holds a thing that nobody else holds; whether that is so.
    pub(crate) fn take_alone(&self, kind: &str, name: &str) -> Result<bool, StoreError> {
        let byte = byte(libc::F_WRLCK, kind, name);
        match fcntl(&self.table, FcntlArg::F_OFD_SETLK(&byte)) {
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            other => other.map(|_| true).map_err(|errno| self.failed(errno)),
        }
    }

    /// Whether a thing is held through another opening of the table, by this process or another.
    pub fn is_held(&self, kind: &str, name: &str) -> Result<bool, StoreError> {
        let mut byte = byte(libc::F_WRLCK, kind, name);
        self.control(FcntlArg::F_OFD_GETLK(&mut byte))?;
        Ok(i32::from(byte.l_type) != libc::F_UNLCK)
    }

    fn control(&self, command: FcntlArg<'_>) -> Result<(), StoreError> {
        fcntl(&self.table, command).map(drop).map_err(|errno| self.failed(errno))
    }

    fn failed(&self, errno: Errno) -> StoreError {
        StoreError::io("locking", &self.path, errno.into())
    }
}

/// The byte of a thing, as the lock of a kind.
fn byte(lock: i32, kind: &str, name: &str) -> libc::flock {
    let hash = Sha256::new().chain_update(kind).chain_update(" ").chain_update(name).finalize();
    let first = hash.first_chunk().copied().map_or(0, i64::from_be_bytes);
    // One less than the largest offset that there is, so that the byte's end is one too.
    let at = (first & i64::MAX).min(i64::MAX - 1);
    let small = |value: i32| libc::c_short::try_from(value).unwrap_or_default();
    libc::flock { l_type: small(lock), l_whence: small(libc::SEEK_SET), l_start: at, l_len: 1, l_pid: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_no_file_is_named() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("held.lock");
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        let refused = || Holds::open(root.path()).unwrap_err().to_string();
        assert!(
            refused().contains("held.lock: Too many levels of symbolic links") && refused().contains("remove what")
        );
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(refused().contains("held.lock: Is a directory"), "{}", refused());
    }

    #[test]
    fn things_are_held_until_the_table_is_closed() {
        let root = tempfile::tempdir().unwrap();
        let [mine, yours, theirs] = [(); 3].map(|()| Holds::open(root.path()).unwrap());
        let is_held = |holds: &Holds, name| holds.is_held("image", name).unwrap();
        mine.take("image", "a").unwrap();
        yours.take("image", "a").unwrap();
        assert!(is_held(&theirs, "a") && is_held(&mine, "a") && !is_held(&theirs, "b"));
        assert!(!theirs.is_held("volume", "a").unwrap(), "a kind of its own");
        drop(yours);
        assert!(is_held(&theirs, "a") && !is_held(&mine, "a"), "one's own does not count");
        assert!(!theirs.take_alone("image", "a").unwrap());
        drop(mine);
        assert!(!is_held(&theirs, "a"));
        assert!(theirs.take_alone("image", "a").unwrap());
    }
}
