//! The store's two locks; the rule is on the page of [`crate::store`].

use super::{Store, StoreError};
use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// While this lives, no image, no blob and no layer is removed from the store, by any process.
///
/// Held shared by everyone who writes, or who relies on things that no entry of the index keeps alive yet.
///
/// All that are held at once through one [`Store`] and its clones are one descriptor, however many layers an image has.
#[derive(Debug, Clone)]
#[must_use = "the store is protected only while this lives"]
pub struct Writing {
    _lock: Arc<File>,
}

/// The lock that is held shared now, if it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Held(Arc<Mutex<Weak<File>>>);

/// The right to remove things: nobody writes, and nobody begins to.
pub(super) struct Removing {
    _lock: File,
}

impl Store {
    /// Announces that things are being added, or used before anything tells so: hold it from the first look at what is
    /// there already until [`Store::name`] is done, or until a container's state names its image.
    ///
    /// Waits while somebody removes things (milliseconds, or as long as deleting large layers takes).
    pub fn writing(&self) -> Result<Writing, StoreError> {
        let mut held = self.held.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = held.upgrade() {
            return Ok(Writing { _lock: lock });
        }
        let path = self.root.join("writers.lock");
        let lock = Arc::new(open(&path)?);
        lock.lock_shared().map_err(|source| StoreError::io("locking", &path, source))?;
        *held = Arc::downgrade(&lock);
        Ok(Writing { _lock: lock })
    }

    /// Does something while nobody writes and nobody begins to: for what belongs to images and lies elsewhere. None when
    /// somebody is writing now.
    pub fn while_nobody_writes<T>(&self, act: impl FnOnce() -> T) -> Result<Option<T>, StoreError> {
        let alone = self.removing()?;
        Ok(alone.map(|_alone| act()))
    }

    /// The exclusive side; None when somebody is writing now.
    pub(super) fn removing(&self) -> Result<Option<Removing>, StoreError> {
        let path = self.root.join("writers.lock");
        let lock = open(&path)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Removing { _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(StoreError::io("locking", &path, source)),
        }
    }

    /// Held for one change of `index.json`.
    pub(super) fn index_lock(&self) -> Result<File, StoreError> {
        let path = self.root.join("index.lock");
        let lock = open(&path)?;
        lock.lock().map_err(|source| StoreError::io("locking", &path, source))?;
        Ok(lock)
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    opened.map_err(|source| StoreError::io("opening the lock", path, source))
}
