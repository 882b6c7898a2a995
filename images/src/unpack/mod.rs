//! Unpacking: a tar stream becomes a directory that overlayfs can use as a lower layer.
//!
//! A layer is hostile until proven otherwise. Every name in it is resolved beneath the target directory by the kernel
//! (`openat2` with `RESOLVE_BENEATH`), a symbolic link that the layer itself brought is followed within the target
//! only, and bytes and entries are bounded.
//!
//! ```text
//! compressed bytes ─ compression ─▶ tar stream ─ input (sha256: the diff id) ─ entries ─▶ one entry at a time
//!                                                                                             │ names: what it is called
//!                                                                                             │ directories: its parent, opened
//!                                                                                             ▼ place: system calls
//!                                                                                          target/
//! ```
//!
//! What an entry becomes:
//!
//! | entry | result |
//! |---|---|
//! | `.wh.NAME` | whiteout: character device 0:0 called `NAME` |
//! | `.wh..wh..opq` | `trusted.overlay.opaque=y` on its directory; `user.overlay.opaque=y` where the process is not root of the first user namespace |
//! | a directory that other entries lie in, and that has none of its own | made, and marked as left out: [`crate::store`] gives it what lower layers say of it |
//! | any other `.wh..wh.*` | ignored (AUFS's own bookkeeping) |
//! | a name that is there already | replaced; a directory keeps its content where the new entry is a directory too |
//! | owner that this user namespace does not map | the process's own user and group |
//! | device that the process may not make | left out, as rootless Podman does |
//! | xattrs `trusted.overlay.*`, `user.overlay.*` | left out: a layer does not get to steer the overlay |
//!
//! Sources: the OCI image-spec (layer.md), the kernel's overlayfs.rst, tar(5), pax(1) and GNU tar's manual on sparse
//! formats.

mod compression;
mod directories;
mod entries;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod input;
mod left_out;
pub(crate) mod names;
mod pax;
mod place;
pub(crate) mod plan;
#[cfg(test)]
mod tests;

use crate::{Budget, Digest, budget::Exceeded};
use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

pub use compression::decompress;
pub(crate) use compression::{Compression, HEAD_LENGTH, is_tar, storable};
pub(crate) use entries::{Entries, Kind};
pub(crate) use input::{Source, hex};
pub(crate) use left_out::{Mark, is_overlay_attribute};
pub use plan::PlanError;

/// Why a layer was refused or could not be written.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The stream itself failed: a broken connection, damaged compression.
    #[error("reading the layer after entry `{after}`: {source}")]
    Read {
        /// The last entry whose header was read.
        after: String,
        /// What the reader said.
        source: io::Error,
    },
    /// The stream ended inside an entry.
    #[error("the layer is cut short: it ends inside entry `{entry}`; fetch or build it again")]
    Truncated {
        /// The entry it ends in.
        entry: String,
    },
    /// Not a tar archive, or a damaged one.
    #[error("the layer is not a valid tar archive: entry `{entry}`: {reason}")]
    Malformed {
        /// The entry, or the one before it.
        entry: String,
        /// What was found, and what was expected.
        reason: String,
    },
    /// A valid entry that no layer may have.
    #[error("the layer is refused: entry `{entry}`: {reason}")]
    Refused {
        /// The entry as the archive names it.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// More than the budget allows.
    #[error("the layer is too large: at entry `{entry}`: {source}")]
    TooLarge {
        /// The entry that went too far.
        entry: String,
        /// Which bound.
        source: Exceeded,
    },
    /// A system call failed.
    #[error("unpacking `{entry}` into {}: {action}: {source}", target.display())]
    System {
        /// The entry as the archive names it.
        entry: String,
        /// The target directory.
        target: PathBuf,
        /// What was being done.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Unpacks an uncompressed tar stream beneath `target`, an existing and private directory.
///
/// Returns the diff id: the sha256 of the whole stream, which is read to its end. Modes, owners and times are exact;
/// those of directories are set last. On an error the target is left half filled, for the caller to remove.
///
/// # Errors
/// See [`UnpackError`].
pub fn unpack(tar: &mut dyn Read, target: &Path, budget: &Budget) -> Result<Digest, UnpackError> {
    place_all(tar, place::Placer::new(target, budget)?, budget)
}

/// The same for an archive that is no layer, whose names mean nothing but themselves.
///
/// # Errors
/// See [`UnpackError`].
pub fn extract(tar: &mut dyn Read, target: &Path, budget: &Budget) -> Result<(), UnpackError> {
    place_all(tar, place::Placer::new(target, budget)?.without_marks(), budget).map(drop)
}

fn place_all(tar: &mut dyn Read, mut placer: place::Placer, budget: &Budget) -> Result<Digest, UnpackError> {
    let mut entries = Entries::new(input::Input::new(tar, budget));
    while let Some(entry) = entries.next()? {
        let too_large = |source| UnpackError::TooLarge { entry: names::printable(&entry.path), source };
        budget.entries(1).map_err(too_large)?;
        placer.place(&entry, &mut entries)?;
    }
    placer.finish()?;
    entries.finish()
}

/// Reads an uncompressed stream to its end and returns its diff id, writing nothing.
///
/// # Errors
/// The stream fails, or is longer than the budget allows.
pub(crate) fn diff_id(tar: &mut dyn Read, budget: &Budget) -> Result<Digest, UnpackError> {
    Entries::new(input::Input::new(tar, budget)).finish()
}
