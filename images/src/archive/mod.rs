//! Archives of images: OCI layout directories, oci-archives and docker-archives (`amphora load`).
//!
//! An archive is read by name, not in its order: a tar file is indexed once by seeking over its content, and what
//! cannot be sought through (standard input from a pipe, a compressed archive) is spooled into an unnamed file in the
//! store first. Each image becomes visible as a whole, when all its digests were right.
//!
//! Sources: the OCI image-spec (image-layout.md), and docker's `docker save` format (manifest.json; moby, image/spec).

mod docker;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod input;
mod layout;
mod save;
mod source;
#[cfg(test)]
mod tests;

use crate::{
    Reference, Selection, Store,
    ingest::IngestError,
    platform::SelectError,
    ready::{NotReady, Ready, Stored, clean_up},
    reference::ReferenceError,
    store::StoreError,
    unpack::PlanError,
};
use source::Source;
use std::{collections::HashSet, io, path::Path};

pub use save::{SaveError, save};
pub(crate) use source::open_seekable;

/// What in the archive was wrong.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The archive itself cannot be read.
    #[error("reading {archive}: {source}")]
    Read {
        /// As it was given.
        archive: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Not an archive of images.
    #[error(
        "{archive} is no archive of images: it has neither index.json (OCI layout) nor manifest.json (docker save), \
         or is cut short"
    )]
    Unknown {
        /// As it was given.
        archive: String,
    },
    /// Something that it should have.
    #[error("{archive} has no `{member}`, which `{needed_by}` needs; it is incomplete: save the image again")]
    Missing {
        /// The archive.
        archive: String,
        /// A name in it.
        member: String,
        /// What refers to it.
        needed_by: String,
    },
    /// A document in it.
    #[error("`{member}` in {archive} does not make sense: {reason}")]
    Malformed {
        /// The archive.
        archive: String,
        /// A name in it.
        member: String,
        /// What was found, what was expected.
        reason: String,
    },
    /// A blob in it.
    #[error("`{member}` in {archive}: {source}")]
    Blob {
        /// The archive.
        archive: String,
        /// A name in it.
        member: String,
        /// What was wrong with it.
        source: Box<IngestError>,
    },
    /// Layers that are refused by name, or do not fit the config.
    #[error("image `{member}` in {archive}: {source}")]
    Plan {
        /// The archive.
        archive: String,
        /// The manifest.
        member: String,
        /// Why.
        source: PlanError,
    },
    /// Indexes within each other that do not end.
    #[error("{archive}: {source}")]
    Select {
        /// The archive.
        archive: String,
        /// Why.
        source: SelectError,
    },
    /// It is stored and cannot be made ready to run.
    #[error("image {digest} in {archive}: {source}")]
    NotReady {
        /// The archive.
        archive: String,
        /// The image.
        digest: String,
        /// Why.
        source: Box<NotReady>,
    },
    /// The store.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// One image loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// Under this name.
    Named(Reference),
    /// Under this name, which stood for another image until now.
    Moved {
        /// The name.
        reference: Reference,
        /// The digest that it stood for.
        from: String,
    },
    /// Only its digest.
    Unnamed(String),
    /// Not under this name, which the archive has for it.
    Ignored {
        /// As it stands in the archive.
        name: String,
        /// Why no image can have it.
        reason: String,
    },
}

/// Loads every image in `path`: a directory with an OCI layout, or a tar archive of one or of `docker save`, plain or
/// compressed, from a file or from standard input (`-`). Entries may have a leading `./`.
///
/// The name is the annotation `io.containerd.image.name`, else `org.opencontainers.image.ref.name`, else docker's
/// RepoTags; a short one is read as if typed. An image without a name is stored by its digest alone, and so is one with a
/// name that is no reference or holds a digest (an archive cannot vouch for that), which is told. Names are given when the
/// image is `ready`.
///
/// # Errors
/// See [`ArchiveError`]. An image at fault is an error in the list, and the others are loaded all the same.
pub fn load(store: &Store, path: &Path, ready: Ready) -> Result<Vec<Result<Loaded, ArchiveError>>, ArchiveError> {
    // A pipe is waited for, and nothing of the store is held meanwhile.
    let source = Source::open(store, path)?;
    let writing = store.writing()?;
    let loaded = load_each(store, &source, ready);
    if loaded.as_ref().map_or(true, |all| all.iter().any(Result::is_err)) {
        clean_up(store, writing);
    }
    loaded
}

fn load_each(store: &Store, source: &Source, ready: Ready) -> Result<Vec<Result<Loaded, ArchiveError>>, ArchiveError> {
    if source.has("index.json") && (source.has("oci-layout") || !source.has("manifest.json")) {
        layout::load(store, source, ready)
    } else if source.has("manifest.json") {
        docker::load(store, source, ready)
    } else {
        Err(ArchiveError::Unknown { archive: source.name.clone() })
    }
}

/// Makes what was stored ready and names it, by each of the names that can be one.
fn give_names<'a>(
    store: &Store,
    source: &Source,
    stored: &Stored,
    names: impl Iterator<Item = &'a str>,
    ready: Ready,
) -> Result<Vec<Loaded>, ArchiveError> {
    let Stored { media_type, digest, size } = stored;
    stored.make_ready(store, &Selection::default(), ready).map_err(|error| ArchiveError::NotReady {
        archive: source.name.clone(),
        digest: digest.to_string(),
        source: Box::new(error),
    })?;
    let (mut references, mut seen, mut loaded) = (Vec::new(), HashSet::new(), Vec::new());
    for name in names {
        match tag(name) {
            Err(reason) => loaded.push(Loaded::Ignored { name: name.to_owned(), reason }),
            Ok(reference) if seen.insert(reference.clone()) => references.push(reference),
            Ok(_) => {}
        }
    }
    if references.is_empty() {
        store.keep_unnamed(media_type, digest, *size)?;
        loaded.push(Loaded::Unnamed(digest.to_string()));
        return Ok(loaded);
    }
    // All at once, however many: the list of images is written for each time.
    let moved_from = store.name_all(&references, media_type, digest, *size)?;
    loaded.extend(references.into_iter().zip(moved_from).map(|(reference, from)| match from {
        None => Loaded::Named(reference),
        Some(from) => Loaded::Moved { reference, from },
    }));
    Ok(loaded)
}

/// A name of an archive, if an image can have it.
fn tag(name: &str) -> Result<Reference, String> {
    let reference: Reference = name.parse().map_err(|error: ReferenceError| error.to_string())?;
    match reference.digest {
        None => Ok(reference),
        Some(_) => Err("it holds a digest, which an archive cannot vouch for".to_owned()),
    }
}
