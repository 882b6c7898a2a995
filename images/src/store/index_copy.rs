//! A copy of `index.json`: from blobs alone no name can be told.
//!
//! ```text
//! ROOT/index.copy        inode, time of birth, time of change and length of the index.json that it is of, and the sha256
//!                        of its bytes, in a line; then its bytes
//! ROOT/index.copy-next   the same of the one that is about to replace it
//! ```
//!
//! The next one is written before `index.json` is replaced, and becomes the copy afterwards, all under the index lock. So
//! there is one of the list at any time, also after a kill in between, and where the list is gone the newer one counts:
//! it is never older than the list. Where another tool has written to `index.json` since, by putting another file in its
//! place or, as skopeo does, into the same one, it is older than what that tool wrote, and is known to be.

use super::{
    Store, StoreError, Writing,
    plain::{self, Found},
    temporary,
};
use crate::ingest;
use rustix::fs::{AtFlags, CWD, StatxFlags, StatxTimestamp, statx};
use std::{
    fs,
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
};

/// More than the first line has.
const LINE_BYTES: u64 = 512;

/// Written before a new list, which lies at `list`, replaces the old one. It is for later, so failing now is no error;
/// but then there is none, as it would be older than the list.
pub(super) fn prepare(store: &Store, writing: Option<Writing>, list: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let written = || {
        settle(store).ok()?;
        let (file, written) = identity(list).ok()?;
        let digest = ingest::digest_of(bytes).ok()?;
        let bytes = [format!("{file}{written} {digest}\n").as_bytes(), bytes].concat();
        temporary::write(store, writing, &next_path(store), &bytes).ok()
    };
    if written().is_some() { Ok(()) } else { forget(&next_path(store)).and_then(|()| forget(&path(store))) }
}

/// Who was killed when the list was replaced already has left its copy as the next one, which is the only one of that list: it is not to
/// be lost to one of a list that may never replace it.
fn settle(store: &Store) -> io::Result<()> {
    let next = next_path(store);
    let Found::Plain(file) = plain::open(&next)? else { return Ok(()) };
    let mut line = Vec::new();
    file.take(LINE_BYTES).read_to_end(&mut line)?;
    let is_of_the_list = identity(&store.index_path()).is_ok_and(|(file, _)| line.starts_with(file.as_bytes()));
    if is_of_the_list { fs::rename(next, path(store)) } else { Ok(()) }
}

/// The new list has replaced the old one, or never will.
pub(super) fn finish(store: &Store, replaced: bool) {
    let next = next_path(store);
    // What stays is told from the copy when that is read.
    let _ = if replaced { fs::rename(next, path(store)) } else { fs::remove_file(next) };
}

fn forget(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(StoreError::io("removing the old copy of the list of images,", path, error))
        }
        _ => Ok(()),
    }
}

/// What the copy is worth.
pub(super) enum Copy {
    /// The bytes of `index.json` before it was damaged.
    Same(Vec<u8>),
    /// Something else has written to `index.json` since: it may have given names, and moved and removed some.
    Older(Vec<u8>),
    /// There is none, or it is damaged itself.
    None,
}

/// Compares the copies with the list, whose bytes are `damaged`, as far as it is a plain file.
///
/// # Errors
/// That cannot be found out: what is made without the copy would replace it, and the names in it be lost.
pub(super) fn read(store: &Store, damaged: &[u8], most_bytes: u64) -> Result<Copy, StoreError> {
    let list = store.index_path();
    let found = match identity(&list) {
        Err(gone) if gone.kind() == ErrorKind::NotFound => None,
        found => Some(found.map_err(|source| StoreError::io("looking at", &list, source))?),
    };
    let mut best = Copy::None;
    for path in [next_path(store), path(store)] {
        let Some((of, index)) = read_one(&path, most_bytes)? else { continue };
        match &found {
            Some((file, written)) if of.starts_with(file.as_str()) => {
                let untouched = of == format!("{file}{written} ");
                // What a tool cut or overwrote that writes no lists is ours all the same.
                let is_remnant = index.starts_with(damaged) || damaged.trim_ascii_start().first() != Some(&b'{');
                return Ok(if untouched || is_remnant { Copy::Same(index) } else { Copy::Older(index) });
            }
            _ if !matches!(best, Copy::None) => {}
            // No list, or an empty one, is nobody's list of images.
            _ if damaged.is_empty() => best = Copy::Same(index),
            _ => best = Copy::Older(index),
        }
    }
    Ok(best)
}

/// What a copy is of, and the bytes; None if it is not there or damaged itself.
fn read_one(path: &Path, most_bytes: u64) -> Result<Option<(String, Vec<u8>)>, StoreError> {
    let failed = |source| StoreError::io("reading the copy of the list of images,", path, source);
    let Found::Plain(file) = plain::open(path).map_err(failed)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(most_bytes + LINE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else { return Ok(None) };
    let index = bytes.split_off(end + 1);
    let Ok(digest) = ingest::digest_of(&index) else { return Ok(None) };
    let line = String::from_utf8_lossy(&bytes[..end]);
    Ok(line.strip_suffix(digest.as_ref()).map(|of| (of.to_owned(), index)))
}

/// Which file a list is, which writing to it or renaming it does not change, and when it was written to last.
fn identity(list: &Path) -> io::Result<(String, String)> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME | StatxFlags::MTIME | StatxFlags::SIZE;
    let found = statx(CWD, list, AtFlags::SYMLINK_NOFOLLOW, wanted)?;
    let time = |time: &StatxTimestamp| format!("{}.{}", time.tv_sec, time.tv_nsec);
    let file = format!("{} {} ", found.stx_ino, time(&found.stx_btime));
    Ok((file, format!("{} {}", time(&found.stx_mtime), found.stx_size)))
}

fn path(store: &Store) -> PathBuf {
    store.root.join("index.copy")
}

fn next_path(store: &Store) -> PathBuf {
    store.root.join("index.copy-next")
}
