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
pub(crate) mod ingest;
mod input;
pub(crate) mod names;
mod pax;
mod place;
pub(crate) mod plan;
#[cfg(test)]
mod tests;

use crate::Digest;
use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

pub use compression::decompress;
pub(crate) use compression::{Compression, MAGIC_LENGTH};
pub(crate) use entries::{Entries, Kind};
pub use ingest::IngestError;
pub(crate) use input::Source;
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
    /// More than the bounds allow.
    #[error("the layer is too large: entry `{entry}` goes beyond {limit} {unit}")]
    TooLarge {
        /// The entry that went too far.
        entry: String,
        /// The bound.
        limit: u64,
        /// `bytes` or `entries`.
        unit: &'static str,
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

/// How much a layer may unpack to.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Bytes of the uncompressed stream: file content, headers and padding.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
}

impl Default for Bounds {
    /// 128 GiB and 8 million entries: far above any image in use, far below what a compressed bomb can claim.
    fn default() -> Self {
        Self { bytes: 128 << 30, entries: 8 << 20 }
    }
}

/// Unpacks an uncompressed tar stream beneath `target`, an existing and private directory.
///
/// Returns the diff id: the sha256 of the whole stream, which is read to its end. Modes, owners and times are exact;
/// those of directories are set last. On an error the target is left half filled, for the caller to remove.
///
/// # Errors
/// See [`UnpackError`].
pub fn unpack(tar: &mut dyn Read, target: &Path, bounds: &Bounds) -> Result<Digest, UnpackError> {
    let mut entries = Entries::new(input::Input::new(tar, bounds.bytes));
    let mut placer = place::Placer::new(target)?;
    let mut count = 0;
    while let Some(entry) = entries.next()? {
        count += 1;
        if count > bounds.entries {
            let entry = names::printable(&entry.path);
            return Err(UnpackError::TooLarge { entry, limit: bounds.entries, unit: "entries" });
        }
        placer.place(&entry, &mut entries)?;
    }
    placer.finish()?;
    entries.finish()
}

/// Reads an uncompressed stream to its end and returns its diff id, writing nothing.
///
/// # Errors
/// The stream fails, or is longer than `bounds.bytes`.
pub(crate) fn diff_id(tar: &mut dyn Read, bounds: &Bounds) -> Result<Digest, UnpackError> {
    Entries::new(input::Input::new(tar, bounds.bytes)).finish()
}
