//! Finds a command in a root file system, as execvp(3) would inside the container.
//!
//! No file is opened for that, only looked at: whoever shares a volume could hold up whoever opens one (by a lease, a FIFO).
use crate::{
    plan::{Mount, MountSource},
    resolve,
    rootfs::{Rootfs, open_host_path},
};
use rustix::{
    fd::{AsFd, BorrowedFd},
    fs::{FileType, OFlags, ResolveFlags, fstat},
    io::Errno,
};
use std::path::{Component, Path, PathBuf};

/// Why a program cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// Exit code 127.
    #[error("{0}")]
    NotFound(String),
    /// Exit code 126.
    #[error("{0}")]
    NotExecutable(String),
}

/// What a path was found to be.
enum Found {
    Program,
    /// Why it cannot be run.
    Unusable(String),
    Missing,
}

impl Rootfs {
    /// Looks a command up as execvp(3) would, beneath the root: a name with a slash is relative to `cwd`, another one
    /// is searched for in `path_env`. `mounts` will cover some of the tree: a path below a bind is looked up in its source. The
    /// absolute path inside the container.
    pub fn find_program(
        &self,
        mounts: &[Mount],
        name: &str,
        path_env: &str,
        cwd: &Path,
    ) -> Result<PathBuf, ProgramError> {
        let mut unusable = None;
        for candidate in candidates(name, path_env, cwd) {
            match self.look(mounts, &candidate) {
                Found::Program => return Ok(candidate),
                Found::Unusable(reason) => unusable = unusable.or(Some((candidate, reason))),
                Found::Missing => {}
            }
        }
        Err(match unusable {
            Some((path, reason)) => {
                ProgramError::NotExecutable(format!("cannot execute {} in the container: {reason}", path.display()))
            }
            None if name.contains('/') => ProgramError::NotFound(format!("{name}: no such file in the container")),
            None => ProgramError::NotFound(format!("{name}: not found in the container's PATH ({path_env})")),
        })
    }

    fn look(&self, mounts: &[Mount], path: &Path) -> Found {
        let cover = mounts.iter().rev().filter_map(|mount| Some((mount, path.strip_prefix(&mount.target).ok()?)));
        // The innermost one covers the others; of two on the same point the later one.
        let Some((mount, rest)) = cover.min_by_key(|(_, rest)| rest.components().count()) else {
            return look_in(self.mount.as_fd(), path);
        };
        let look = |mounted: BorrowedFd<'_>| match rest.as_os_str().is_empty() {
            true => look_at(mounted),
            false => look_in(mounted, rest),
        };
        match &mount.source {
            MountSource::Bind { source, .. } => {
                open_host_path(source).map_or(Found::Missing, |source| look(source.as_fd()))
            }
            MountSource::Detached(tree) => look(tree.as_fd()),
            _ => Found::Missing,
        }
    }
}

/// The absolute paths to try, in order.
pub(crate) fn candidates(name: &str, path_env: &str, cwd: &Path) -> Vec<PathBuf> {
    let absolute = |path: &Path| plain(&Path::new("/").join(cwd).join(path));
    if name.is_empty() {
        return Vec::new();
    }
    if name.contains('/') {
        return vec![absolute(Path::new(name))];
    }
    path_env.split(':').map(|directory| absolute(&Path::new(directory).join(name))).collect()
}

/// Without `.`; `..` is left to the kernel, as symbolic links change its meaning.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|component| *component != Component::CurDir).collect()
}

fn look_in(root: BorrowedFd<'_>, path: &Path) -> Found {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match resolve::open(root, path, flags, ResolveFlags::IN_ROOT) {
        Ok(file) => look_at(file.as_fd()),
        Err(Errno::NOENT | Errno::NOTDIR) => Found::Missing,
        Err(Errno::LOOP) => Found::Unusable("it leads through a magic link or too many symbolic links".into()),
        Err(errno) => Found::Unusable(errno.to_string()),
    }
}

/// Judges a file by its type and mode; the kernel has the last word in execve(2).
fn look_at(file: BorrowedFd<'_>) -> Found {
    let mode = match fstat(file) {
        Ok(stat) => stat.st_mode,
        Err(errno) => return Found::Unusable(errno.to_string()),
    };
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile if mode & 0o111 == 0 => Found::Unusable("it is not marked executable".into()),
        FileType::RegularFile => Found::Program,
        FileType::Directory => Found::Unusable("it is a directory".into()),
        _ => Found::Unusable("it is not a regular file".into()),
    }
}
