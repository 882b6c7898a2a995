//! Room kept for `index.json`, so that an image can be removed when the disk is full.
//!
//! `index.spare` is a file with blocks of its own. On a full disk the shorter index is written over it, which takes no
//! new block, and it changes places with the longer one, whose blocks are the spare ones then: enough for the next.

use super::{
    Store, StoreError,
    plain::{self, Found},
};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Enough for some two hundred images.
const LEAST_BYTES: usize = 64 << 10;

/// Makes the spare file, or makes it larger, if there is room: it is for later, so failing now is no error.
pub(super) fn make(store: &Store, index_bytes: usize) {
    let (needed, wanted) = (LEAST_BYTES.max(index_bytes), LEAST_BYTES.max(2 * index_bytes));
    let path = path(store);
    let there = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file);
    if there.as_ref().is_some_and(|found| found.len() >= needed as u64) {
        return;
    }
    let fill = || -> io::Result<()> {
        let mut file = match plain::open_to_write(&path)? {
            Found::Plain(file) => file,
            Found::Nothing => OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?,
            Found::Other(what) => return Err(io::Error::other(what)),
        };
        // Written, not only made long: a hole has no blocks.
        file.write_all(&vec![0; wanted])
    };
    // One that could not be made longer is worth what it is.
    if fill().is_err() && there.is_none() {
        let _ = fs::remove_file(&path);
    }
}

/// Fills the spare file, and tells which it is: for being renamed.
pub(super) fn fill(store: &Store, bytes: &[u8]) -> Result<PathBuf, StoreError> {
    let path = path(store);
    let written = |path: &Path| -> io::Result<()> {
        let Found::Plain(mut file) = plain::open_to_write(path)? else {
            return Err(io::Error::other("it is no plain file"));
        };
        file.write_all(bytes)?;
        file.set_len(bytes.len() as u64)?;
        file.sync_data()
    };
    written(&path).map_err(|source| StoreError::io("writing", &path, source))?;
    Ok(path)
}

/// Puts the filled spare file in the list's place, and the old list in its own, unless that has another name too.
pub(super) fn put(spare: &Path, list: &Path) -> io::Result<()> {
    let is_ours = fs::symlink_metadata(list).is_ok_and(|found| found.is_file() && found.nlink() == 1);
    if is_ours && renameat_with(CWD, spare, CWD, list, RenameFlags::EXCHANGE).is_ok() {
        return Ok(());
    }
    fs::rename(spare, list)
}

fn path(store: &Store) -> PathBuf {
    store.root.join("index.spare")
}
