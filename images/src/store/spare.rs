//! Room kept for `index.json`, so that an image can be removed when the disk is full.
//!
//! `index.spare` is a file with blocks of its own. On a full disk the shorter index is written over it, which takes no
//! new block, and it is renamed into place; afterwards there is room to make another.

use super::{Store, StoreError};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
};

/// Enough for some two hundred images.
const LEAST_BYTES: usize = 64 << 10;

/// Makes the spare file, or makes it larger, if there is room: it is for later, so failing now is no error.
pub(super) fn make(store: &Store, index_bytes: usize) {
    let wanted = LEAST_BYTES.max(2 * index_bytes);
    let path = store.root.join("index.spare");
    if fs::metadata(&path).is_ok_and(|found| found.len() >= wanted as u64) {
        return;
    }
    let fill = || -> io::Result<()> {
        // Written, not only made long: a hole has no blocks.
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        file.write_all(&vec![0; wanted])
    };
    if fill().is_err() {
        let _ = fs::remove_file(&path);
    }
}

/// Makes `index.json` of the spare file.
pub(super) fn write_index(store: &Store, bytes: &[u8]) -> Result<(), StoreError> {
    let path = store.root.join("index.spare");
    let failed = |source| StoreError::io("writing", &path, source);
    let written = |mut file: File| -> io::Result<()> {
        file.write_all(bytes)?;
        file.set_len(bytes.len() as u64)
    };
    OpenOptions::new().write(true).open(&path).and_then(written).map_err(failed)?;
    fs::rename(&path, store.index_path()).map_err(failed)
}
