//! What kept a file operation from succeeding, where wasmtime-wasi says no more than "input/output error" or "not permitted".
//!
//! It translates the system's errors by a table that lacks some; what they were is found by looking at where they arose. That
//! costs nothing as long as nothing fails.

use rustix::{
    fs::{Access, AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, accessat, openat, openat2, statx},
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

/// What wasmtime-wasi has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// An input/output error: the system said something that has no word there.
    Io,
    /// That it is not permitted: by the system, by the grant, or because a path leads out of it.
    NotPermitted,
}

/// The cause of what failed in one directory, or between two: each as a path beneath a granted one.
///
/// It says nothing of what the directories themselves do not explain, and nothing of paths that lead out.
pub(crate) fn of_change(said: Said, directories: &[(impl AsFd, &Path)]) -> Option<Cause> {
    let mut opened = Vec::new();
    for (granted, path) in directories {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
        match openat2(granted, path, flags, Mode::empty(), ResolveFlags::BENEATH) {
            Ok(directory) => opened.push(directory),
            Err(Errno::MFILE) => return Some(Cause::TooManyFiles),
            Err(Errno::NFILE) => return Some(Cause::TooManyFilesOfAll),
            Err(_) => return None,
        }
    }
    let mounts = || opened.iter().map(mount_of).collect::<Result<Vec<_>, _>>().ok();
    if said == Said::Io && opened.len() == 2 && mounts().is_some_and(|mounts| mounts[0] != mounts[1]) {
        return Some(Cause::CrossDevice);
    }
    if opened.iter().any(|directory| accessat(directory, c".", Access::WRITE_OK, AtFlags::empty()) == Err(Errno::ROFS))
    {
        return Some(Cause::ReadOnly);
    }
    opened.iter().filter(|_| said == Said::Io).find_map(over_quota)
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
    use std::fs::File;

    #[test]
    fn what_directories_tell() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        let granted = File::open(folder.path()).unwrap();
        let elsewhere = File::open("/proc").unwrap();
        let (here, there) = ((&granted, Path::new("inner")), (&elsewhere, Path::new("self")));
        assert_eq!(of_change(Said::Io, &[here]), None);
        assert_eq!(of_change(Said::Io, &[here, (&granted, Path::new(""))]), None);
        assert_eq!(of_change(Said::Io, &[here, there]), Some(Cause::CrossDevice));
        assert_eq!(of_change(Said::NotPermitted, &[here, there]), None);
        for out in ["missing", "..", "/", "/proc", "inner/../.."] {
            assert_eq!(of_change(Said::Io, &[(&granted, Path::new(out)), there]), None, "{out}");
        }
        assert_eq!(of_opening(), None);
    }
}
