//! Files and directories on their way into the store: `temporary/<pid>-<start time>-<n>`.
//!
//! The name tells whose it is, so that what a killed process left behind can be told from what a living one writes.

use super::{Store, StoreError, Writing};
use crate::remove_tree;
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// A path under `temporary/` that is removed on drop, with all that is beneath it, unless it was renamed away.
///
/// Nobody else removes it while this process lives. With the writers' lock it also keeps others from removing what it
/// goes with.
#[derive(Debug)]
pub(super) struct Temporary {
    pub(super) path: PathBuf,
    renamed: bool,
    _writing: Option<Writing>,
}

impl Temporary {
    pub(super) fn file(store: &Store, writing: Option<Writing>) -> Result<(Self, File), StoreError> {
        let temporary = Self::claim(store, writing);
        let opened = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&temporary.path);
        let file = opened.map_err(|source| StoreError::io("creating", &temporary.path, source))?;
        Ok((temporary, file))
    }

    pub(super) fn directory(store: &Store) -> Result<Self, StoreError> {
        let temporary = Self::claim(store, None);
        let made = DirBuilder::new().mode(0o755).create(&temporary.path);
        made.map_err(|source| StoreError::io("creating", &temporary.path, source))?;
        Ok(temporary)
    }

    /// Gives it its final name, replacing a file of that name. On failure it is removed.
    pub(super) fn rename(mut self, target: &Path) -> Result<(), StoreError> {
        fs::rename(&self.path, target).map_err(|source| StoreError::io("renaming to", target, source))?;
        self.renamed = true;
        Ok(())
    }

    fn claim(store: &Store, writing: Option<Writing>) -> Self {
        Self { path: fresh_path(store), renamed: false, _writing: writing }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // What cannot be removed now is found by `check` later; a drop has nobody to tell.
            let _ = remove_tree(&self.path);
        }
    }
}

/// A path that nobody else uses: the pid and start time are this process's own.
pub(super) fn fresh_path(store: &Store) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("{}-{}-{}", std::process::id(), own_start_time(), NEXT.fetch_add(1, Ordering::Relaxed));
    store.temporary_folder().join(name)
}

/// Makes a small file appear whole. Who holds the exclusive lock gives no shared one.
pub(super) fn write(store: &Store, writing: Option<Writing>, target: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    filled(store, writing, target, bytes)?.0.rename(target)
}

/// A small file that is whole, to be renamed; it is still open.
pub(super) fn filled(
    store: &Store,
    writing: Option<Writing>,
    target: &Path,
    bytes: &[u8],
) -> Result<(Temporary, File), StoreError> {
    let (temporary, mut file) = Temporary::file(store, writing)?;
    file.write_all(bytes).map_err(|source| StoreError::io("writing", target, source))?;
    Ok((temporary, file))
}

/// Whether the process that a temporary path belongs to is still there. Names of another form belong to nobody.
pub(super) fn writer_lives(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    let mut parts = name.split('-').map(|part| part.parse::<u64>().ok());
    let (Some(Some(pid)), Some(Some(start))) = (parts.next(), parts.next()) else { return false };
    status(&pid.to_string()) == Some((start, true))
}

fn own_start_time() -> u64 {
    static START: OnceLock<u64> = OnceLock::new();
    // Without /proc nobody can be told dead by start time either; zero then stands for "unknown".
    *START.get_or_init(|| status("self").map_or(0, |(start, _)| start))
}

/// Start time of a process in clock ticks since boot, and whether it runs, as one that was killed and that nobody has reaped
/// does not: fields 22 and 3 of `/proc/PID/stat`, proc_pid_stat(5).
fn status(pid: &str) -> Option<(u64, bool)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses and may hold any character, so count from its end.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    Some((fields.nth(22 - 4)?.parse().ok()?, !ended))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_living_writers_from_dead_ones() {
        let own = format!("/x/{}-{}-0", std::process::id(), own_start_time());
        assert!(writer_lives(Path::new(&own)));
        let reused_pid = format!("/x/{}-{}-0", std::process::id(), own_start_time() + 1);
        for dead in [reused_pid.as_str(), "/x/4194305-1-0", "/x/file", "/x/1", "/x/-"] {
            assert!(!writer_lives(Path::new(dead)), "{dead}");
        }
    }
}
