//! What can go wrong in the store.

use crate::{platform::SelectError, reference::ReferenceError};
use oci_spec::image::Digest;
use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call failed.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was being done: `reading`, `making the folder`.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file system is full, or the user's quota of it.
    #[error(
        "no room to write {path}: {source}. What was half written is removed again; free some space on that file system",
        path = path.display()
    )]
    Full {
        /// What was being written.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A blob's bytes are not those that its digest promises.
    #[error("blob {expected}: its bytes have digest {found}; nothing was stored")]
    DigestMismatch {
        /// The digest under which it was asked for.
        expected: String,
        /// The digest of what came.
        found: String,
    },
    /// A blob is not as long as its descriptor says.
    #[error("blob {digest}: expected {expected} bytes, found {found}; nothing was stored")]
    SizeMismatch {
        /// Which blob.
        digest: Digest,
        /// The descriptor's size, bytes.
        expected: u64,
        /// What came, bytes.
        found: u64,
    },
    /// A digest of an algorithm that is not checked here.
    #[error("blob {digest}: its digest is neither sha256 nor sha512, the two that can be checked")]
    UnsupportedDigest {
        /// Which blob.
        digest: Digest,
    },
    /// A document in the store does not parse.
    #[error("{document} {path}: {reason}", path = path.display())]
    Malformed {
        /// `manifest`, `index`, …
        document: &'static str,
        /// Where it lies.
        path: PathBuf,
        /// What was found there.
        reason: String,
    },
    /// A blob in the store is not what it was when it was stored.
    #[error("blob {path} was damaged since it was stored: {found}", path = path.display())]
    Altered {
        /// Where it lies.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// The list of names, `index.json`, is missing or is none.
    #[error("the list of images, {path}, is damaged: {reason}", path = path.display())]
    IndexDamaged {
        /// Where it lies.
        path: PathBuf,
        /// What was found there.
        reason: String,
    },
    /// The list of names would become too long.
    #[error(
        "the list of images, {path}, would have {found} bytes, at most {limit} are written; nothing of it was changed: \
         remove names that are not needed (`amphora rmi`)", path = path.display()
    )]
    IndexFull {
        /// Where it lies.
        path: PathBuf,
        /// How long it would be, bytes.
        found: usize,
        /// The bound, bytes.
        limit: usize,
    },
    /// A blob that an image needs is gone.
    #[error("blob {digest} is not in the store at {path}; pull or load the image that needs it again", path = path.display())]
    MissingBlob {
        /// Which blob.
        digest: Digest,
        /// Where it would lie.
        path: PathBuf,
    },
    /// No image of that name or id.
    #[error("no image `{name}` in the store")]
    NotFound {
        /// As it was asked for.
        name: String,
    },
    /// Several images have ids that begin so.
    #[error("`{prefix}` is the beginning of several image ids: {}; give more digits", candidates.join(", "))]
    Ambiguous {
        /// As it was asked for.
        prefix: String,
        /// The ids.
        candidates: Vec<String>,
    },
    /// A word that is an image's name, and the beginning of another one's id.
    #[error(
        "`{word}` is the name `{word}:latest`, and the beginning of the id {id} of another image; give the tag, or more digits"
    )]
    NameOrId {
        /// As it was asked for.
        word: String,
        /// The id.
        id: String,
    },
    /// Asked to remove an image by id that has several names.
    #[error("image {id} has {} names ({}); remove one of them by name", names.len(), names.join(", "))]
    SeveralNames {
        /// As it was asked for.
        id: String,
        /// The names.
        names: Vec<String>,
    },
    /// Asked to remove an image that a container uses.
    #[error("image {name} ({digest}) is used by a container; remove the container first")]
    InUse {
        /// As it was asked for.
        name: String,
        /// The manifest that is used.
        digest: Digest,
    },
    /// Asked to remove an image without a name while somebody writes.
    #[error(
        "image {name} cannot be removed now: a pull, load or import is running, or a container is being made; try again"
    )]
    Busy {
        /// As it was asked for.
        name: String,
    },
    /// Asked to remove an image while it cannot be told which ones are used.
    #[error("nothing was removed, as it cannot be told which images containers use: {reason}")]
    UseUnknown {
        /// Why.
        reason: String,
    },
    /// Asked to give a name whose digest is another one's.
    #[error("`{name}` cannot stand for {found}: a name with a digest is only satisfied by content that has it")]
    OtherDigest {
        /// The name.
        name: String,
        /// What it was to stand for.
        found: Digest,
    },
    /// Asked to give a name that holds a digest.
    #[error("`{target}` cannot be given to an image: a digest says itself what it stands for; leave it out")]
    DigestInTag {
        /// As it was asked for.
        target: String,
    },
    /// A layer that is not a file system, or whose bytes are not its config's.
    #[error("layer {digest}: {reason}")]
    Layer {
        /// The layer's blob.
        digest: Digest,
        /// What was found, what was expected.
        reason: String,
    },
    /// Indexes that do not end, or hold nothing for this platform.
    #[error("{name}: {source}")]
    Platform {
        /// The image's name or id.
        name: String,
        /// Why nothing could be chosen.
        source: SelectError,
    },
    /// Not a name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

impl StoreError {
    /// An I/O error with its place; a full disk becomes an error of its own.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full { path, source },
            _ => Self::Io { action, path, source },
        }
    }

    /// Whether the file system is full: what the user can mend.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }
}
