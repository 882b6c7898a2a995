//! What kept a file operation from succeeding, where wasmtime-wasi says no more than "input/output error" or "not permitted".
//!
//! It translates the system's errors by a table that lacks some; what they were is found by looking at where they arose. That
//! costs nothing as long as nothing fails.

use rustix::{
    fs::{Access, AtFlags, CWD, Mode, OFlags, StatxFlags, accessat, openat, statx},
    io::{Errno, write},
};
use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

/// An error of the system that WASI knows, and wasmtime-wasi does not hand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// EXDEV: two directories are not of one mount.
    CrossDevice,
    /// EROFS
    ReadOnly,
    /// EMFILE
    TooManyFiles,
    /// ENFILE
    TooManyFilesOfAll,
    /// EDQUOT
    Quota,
}

/// The cause of what failed in one directory, or between two: each as a path, and what that begins at.
///
/// It says nothing of what the directories themselves do not explain.
pub(crate) fn of_change(directories: &[(impl AsFd, &Path)]) -> Option<Cause> {
    let mut opened = Vec::new();
    for (base, path) in directories {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        match openat(base, path, OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY, Mode::empty()) {
            Ok(directory) => opened.push(directory),
            Err(Errno::MFILE) => return Some(Cause::TooManyFiles),
            Err(Errno::NFILE) => return Some(Cause::TooManyFilesOfAll),
            Err(_) => return None,
        }
    }
    let mounts = || opened.iter().map(mount_of).collect::<Result<Vec<_>, _>>().ok();
    if opened.len() == 2 && mounts().is_some_and(|mounts| mounts[0] != mounts[1]) {
        return Some(Cause::CrossDevice);
    }
    if opened.iter().any(|directory| accessat(directory, c".", Access::WRITE_OK, AtFlags::empty()) == Err(Errno::ROFS))
    {
        return Some(Cause::ReadOnly);
    }
    opened.iter().find_map(over_quota)
}

/// Whether one more descriptor is what there is none of.
pub(crate) fn of_opening() -> Option<Cause> {
    match openat(CWD, c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::MFILE) => Some(Cause::TooManyFiles),
        Err(Errno::NFILE) => Some(Cause::TooManyFilesOfAll),
        _ => None,
    }
}

/// Mounts of one file system are different ones, too: rename(2) and link(2) do not go from one to the other.
fn mount_of(directory: &OwnedFd) -> Result<u64, Errno> {
    statx(directory, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).map(|found| found.stx_mnt_id)
}

/// Tries to write to a file without a name.
fn over_quota(directory: &OwnedFd) -> Option<Cause> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let probe = openat(directory, c".", flags, Mode::RUSR | Mode::WUSR);
    let written = probe.and_then(|file| write(file, b"x"));
    (written == Err(Errno::DQUOT)).then_some(Cause::Quota)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_directories_tell() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path| (CWD, path);
        assert_eq!(of_change(&[at(folder.path())]), None);
        assert_eq!(of_change(&[at(folder.path()), at(folder.path())]), None);
        assert_eq!(of_change(&[at(folder.path()), at(Path::new("/proc"))]), Some(Cause::CrossDevice));
        assert_eq!(of_change(&[at(&folder.path().join("missing"))]), None);
        assert_eq!(of_opening(), None);
    }
}
