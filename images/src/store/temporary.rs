//! Files and directories on their way into the store: `temporary/<pid>-<clock>-<n>`.
//!
//! The first two parts say whose it is: a writer, who holds a lock of that name ([`crate::holds`]) as long as anything
//! of his may be there. So what a killed process left behind can be told from what a living one writes, wherever that
//! one runs. Whoever removes a directory of a dead writer moves it aside first, so that nothing half removed is ever
//! renamed to a final name.

use super::{Store, StoreError, Writing};
use crate::{
    holds::{Holds, WRITER},
    remove_tree,
};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// A path under `temporary/` that is removed on drop, with all that is beneath it, unless it was renamed away.
///
/// Nobody else removes it while this lives. With the writers' lock it also keeps others from removing what it
/// goes with.
#[derive(Debug)]
pub(super) struct Temporary {
    pub(super) path: PathBuf,
    renamed: bool,
    _writer: Arc<Writer>,
    _writing: Option<Writing>,
}

impl Temporary {
    pub(super) fn file(store: &Store, writing: Option<Writing>) -> Result<(Self, File), StoreError> {
        let temporary = Self::claim(store, writing)?;
        let opened = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&temporary.path);
        let file = opened.map_err(|source| StoreError::io("creating", &temporary.path, source))?;
        Ok((temporary, file))
    }

    pub(super) fn directory(store: &Store) -> Result<Self, StoreError> {
        let temporary = Self::claim(store, None)?;
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

    fn claim(store: &Store, writing: Option<Writing>) -> Result<Self, StoreError> {
        let writer = store.writer.get(store)?;
        let path = store.temporary_folder().join(writer.next_name());
        Ok(Self { path, renamed: false, _writer: writer, _writing: writing })
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

/// Who writes under names that nobody else has: one for a [`Store`] and its clones, however many files they write.
#[derive(Debug)]
struct Writer {
    name: String,
    next: AtomicU64,
    _held: Holds,
}

impl Writer {
    fn new(store: &Store) -> Result<Self, StoreError> {
        let held = Holds::open(&store.root)?;
        loop {
            let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
            let name = format!("{}-{clock}", std::process::id());
            // A process of another pid namespace may have the same pid, and at worst the same moment.
            if held.take_alone(WRITER, &name)? {
                return Ok(Self { name, next: AtomicU64::new(0), _held: held });
            }
        }
    }

    fn next_name(&self) -> String {
        format!("{}-{}", self.name, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// The writer of a [`Store`] and its clones, from its first file on.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnWriter(Arc<Mutex<Option<Arc<Writer>>>>);

impl OwnWriter {
    fn get(&self, store: &Store) -> Result<Arc<Writer>, StoreError> {
        let mut own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*own {
            Some(writer) => Ok(Arc::clone(writer)),
            None => Ok(Arc::clone(own.insert(Arc::new(Writer::new(store)?)))),
        }
    }
}

/// A path that nobody else uses, and that is nobody's leftover while the store or a clone of it is there.
pub(super) fn fresh_path(store: &Store) -> Result<PathBuf, StoreError> {
    Ok(store.temporary_folder().join(store.writer.get(store)?.next_name()))
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

/// Whether the writer that a temporary path belongs to is still there. Names of another form belong to nobody.
pub(super) fn writer_lives(holds: &Holds, path: &Path) -> Result<bool, StoreError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let writer = name.and_then(|name| name.rsplit_once('-')).map(|(writer, _number)| writer);
    writer.map_or(Ok(false), |writer| holds.is_held(WRITER, writer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn living_writers_are_told_from_dead_ones() {
        let root = tempfile::tempdir().unwrap();
        let [store, other] = [(); 2].map(|()| Store::open(root.path()).unwrap());
        let holds = Holds::open(root.path()).unwrap();
        let path = fresh_path(&other).unwrap();
        let staged = Temporary::directory(&store).unwrap();
        assert!(writer_lives(&holds, &path).unwrap() && writer_lives(&holds, &staged.path).unwrap());
        drop((other, store));
        assert!(!writer_lives(&holds, &path).unwrap());
        assert!(writer_lives(&holds, &staged.path).unwrap(), "a temporary outlives its store");
        let own_pid = format!("/x/{}-1-0", std::process::id());
        for dead in [own_pid.as_str(), "/x/file", "/x/1", "/x/-", "/x/a-b"] {
            assert!(!writer_lives(&holds, Path::new(dead)).unwrap(), "{dead}");
        }
    }
}

/// A folder of this store's, on its file system, which is removed with all that is in it when this is dropped, and by
/// [`Store::check`] where that does not come to it.
#[derive(Debug)]
pub struct Scratch(Temporary);

impl Store {
    /// A new one.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn scratch(&self) -> Result<Scratch, StoreError> {
        Temporary::directory(self).map(Scratch)
    }
}

impl Scratch {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }
}
