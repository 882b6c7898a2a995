//! A copy of `index.json`: from blobs alone no name can be told.
//!
//! ```text
//! ROOT/index.copy     <inode> <time of birth> of the index.json that it is of, a newline, and its bytes
//! ```
//!
//! It is never older than what it is a copy of: it is removed before `index.json` is replaced, and made anew
//! afterwards, all under the index lock. Without room, or after a kill in between, there is none. Where another tool
//! has replaced `index.json`, the copy is told to be another file's.

use super::{
    Store, StoreError, Writing,
    plain::{self, Found},
    temporary,
};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use std::{
    fs,
    io::{self, ErrorKind, Read},
    path::PathBuf,
};

/// Removed before `index.json` changes.
pub(super) fn forget(store: &Store) -> Result<(), StoreError> {
    let path = path(store);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(StoreError::io("removing the old copy of the list of images,", &path, error))
        }
        _ => Ok(()),
    }
}

/// Made anew when it has changed. It is for later, so failing now is no error.
pub(super) fn keep(store: &Store, writing: Option<Writing>, index: &[u8]) {
    let Ok(identity) = identity(store) else { return };
    let bytes = [identity.as_bytes(), b"\n", index].concat();
    // Nothing is left behind by what fails.
    let _ = temporary::write(store, writing, &path(store), &bytes);
}

/// The bytes of the `index.json` that was there last, if nobody else can have changed it since.
///
/// # Errors
/// That cannot be found out: what is made without the copy would replace it, and the names in it be lost.
pub(super) fn read(store: &Store, most_bytes: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let path = path(store);
    let failed = |source| StoreError::io("reading the copy of the list of images,", &path, source);
    let Found::Plain(file) = plain::open(&path).map_err(failed)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(most_bytes).read_to_end(&mut bytes).map_err(failed)?;
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else { return Ok(None) };
    let index = bytes.split_off(end + 1);
    let list = store.index_path();
    let replaced = match fs::symlink_metadata(&list) {
        // An empty file, or none, is nobody's list of images.
        Err(gone) if gone.kind() == ErrorKind::NotFound => false,
        found => {
            let found = found.map_err(|source| StoreError::io("looking at", &list, source))?;
            let own = identity(store).map_err(|source| StoreError::io("looking at", &list, source))?;
            found.is_file() && found.len() > 0 && own.as_bytes() != &bytes[..end]
        }
    };
    Ok((!replaced).then_some(index))
}

/// Which file `index.json` is: writing to it changes nothing of this, replacing it does.
fn identity(store: &Store) -> io::Result<String> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    let found = statx(CWD, store.index_path(), AtFlags::SYMLINK_NOFOLLOW, wanted)?;
    Ok(format!("{} {}.{}", found.stx_ino, found.stx_btime.tv_sec, found.stx_btime.tv_nsec))
}

fn path(store: &Store) -> PathBuf {
    store.root.join("index.copy")
}
