//! The content store: images as they came, and their layers unpacked.
//!
//! ```text
//! ROOT/
//!   image-layout/                 an ordinary OCI image layout; skopeo, crane and umoci can read it
//!     oci-layout
//!     index.json                  one entry a name, and one without a name for each image that lost its last one
//!     blobs/sha256/<64 hex>       manifests, indexes, configs, layers as they were transferred (sha512/ likewise)
//!   layers/<32 hex>/              one unpacked layer each, named by the first half of its diff id; and what goes on top of
//!                                 a stack of them whose archives leave directories out (`left_out`)
//!   verified/<algorithm>-<hex>     that a layer's blob was seen to be whole, and which diff id it has
//!   temporary/<pid>-<clock>-<n>   files and directories that somebody (pid, clock at his first one) is writing
//!   index.spare                   room for one more index.json: what frees space needs none
//!   index.copy                    the same bytes once more, for [`Store::repair`] (index.copy-next: while it is replaced)
//!   index.damaged-<n>             a damaged index.json that was set aside by it
//!   held.lock                     what living processes use, see [`crate::holds`]
//!   index.lock                    flock: who changes index.json
//!   writers.lock                  flock: shared by all who write, exclusive for who removes
//! ```
//!
//! # What can be trusted
//! A file or a layer has its final name only once it is whole, its digest was right and its bytes are on the disk: it is
//! written under `temporary/` and renamed. What other tools or older versions wrote is not believed to be whole before
//! it was hashed. `index.json` is replaced by rename and names only what is whole, after a `syncfs`. So
//! readers take no lock: [`Store::resolve`] reads three small files, and hashes the two that a digest is known of. A
//! process killed at any moment leaves files under `temporary/`, and blobs or layers that nothing names;
//! [`Store::check`] finds and removes both.
//!
//! What somebody else put in a file's place (a FIFO, a link, other bytes) is not waited for, and is an error of the
//! image that needs it. Where `index.json` itself is damaged or missing, nothing can be found and nothing is removed
//! until [`Store::repair`] has made it anew.
//!
//! # Who locks what
//! - `index.lock` is held for one read-change-rename of `index.json`, with `writers.lock` shared.
//! - `writers.lock` is held *shared* ([`Store::writing`]) by whoever loads or imports an image, from its first look at
//!   what is there already until it has named it; by whoever pulls one, from the moment when the registry is waited for
//!   no more, then looking again at what is there; and by whoever makes a container, from resolving its image until
//!   `in_use` would tell of it. A [`BlobWriter`] and a [`LayerStage`] hold nothing: what a living process writes under
//!   `temporary/` is nobody's leftover.
//! - Taking an image out of `index.json`, and removing blobs and layers, takes it *exclusively* and never waits: while
//!   anybody holds it shared, a name is only taken off, and what it named stays until the next
//!   [`Store::remove_unnamed`] and [`Store::check`]. Layers are moved to `temporary/` first and deleted after letting
//!   go. So nothing is lost that is fresh, that is about to be named, or that a container is about to use; what a
//!   running pull found already there, and is gone when it has the rest, it fetches too.
//! - Taken in the order writers, index. Locks go with their process; there are no stale ones.
//!
//! # What keeps a thing alive
//! The entries of `index.json`, named or not, and all they reach: an index its manifests that are here, a manifest its
//! config and layers, a config the unpacked layers of its diff ids. Containers hold no references of their own.
//! Instead an image that a container uses stays in `index.json`: a name that moves on, or is removed by force, leaves
//! an entry without a name behind, and only [`Store::remove`] and [`Store::remove_unnamed`], which both ask `in_use`
//! and whether anybody holds it ([`crate::holds`]), take that away.

mod blobs;
pub(crate) mod clock;
pub(crate) mod documents;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod garbage;
mod index;
mod index_copy;
mod layers;
mod left_out;
mod lock;
mod merged;
mod plain;
mod repair;
mod resolve;
mod sizes;
mod spare;
mod temporary;
mod verified;

pub use blobs::BlobWriter;
pub(crate) use blobs::WholeBlob;
pub(crate) use blobs::sha256_digest;
pub use error::StoreError;
pub use garbage::{Checked, Used};
pub use layers::LayerStage;
pub use lock::Writing;
pub use repair::Repaired;
pub use resolve::Damaged;
pub use sizes::tree_size;
pub use temporary::Scratch;

use crate::{Classification, Healthcheck, Reference, spin};
use oci_spec::image::{Digest, ImageConfiguration, ImageManifest};
use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// The store beneath ROOT; the module's page draws what lies where.
///
/// Cheap to open and to clone, holds no file open, and may be used from several threads and processes at once.
#[derive(Debug, Clone)]
pub struct Store {
    /// ROOT
    pub root: PathBuf,
    /// What this and its clones hold of the writers' lock.
    held: lock::Held,
    /// Whose files under `temporary/` this and its clones write.
    writer: temporary::OwnWriter,
}

/// An image that is whole in the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// The name it was found under (None: by id).
    pub reference: Option<Reference>,
    /// Manifest digest: the image's id.
    pub digest: Digest,
    /// The manifest.
    pub manifest: ImageManifest,
    /// The config; default when the config blob is not an image config (artifacts).
    pub config: ImageConfiguration,
    /// How its containers are seen to be well.
    pub healthcheck: Result<Option<Healthcheck>, String>,
    /// What it is.
    pub classification: Classification,
    /// Sum of config and layer blob sizes, bytes.
    pub size_bytes: u64,
    /// When it came to be: config.created, else the index entry's annotation written at pull or import (RFC 3339).
    pub created: Option<String>,
    /// What it is made of, if it is a Spin application: or why that cannot be told.
    pub spin: Option<Result<spin::Application, String>>,
}

impl Image {
    /// The same, of a Spin application of which one component alone is wanted.
    ///
    /// # Errors
    /// It is none, or has no such component.
    pub fn only_component(&self, component: &str) -> Result<Self, String> {
        let application = match &self.spin {
            Some(application) => application.as_ref()?.only(component)?,
            None => return Err("it is no Spin application, and has no components to choose from".to_owned()),
        };
        Ok(Self { spin: Some(Ok(application)), ..self.clone() }.with_environment_of_component())
    }

    /// What a component's environment is, its application says.
    fn with_environment_of_component(mut self) -> Self {
        if let Some(Ok(application)) = &self.spin
            && let Ok(served) = application.served()
        {
            let mut settings = self.config.config().clone().unwrap_or_default();
            settings.set_env(Some(served.env));
            self.config.set_config(Some(settings));
        }
        self
    }
}

impl Store {
    /// Opens the store, making its folders on first use.
    ///
    /// Folders that did not exist get mode 0700: layers hold setuid files of other systems, and no other user of the
    /// host should reach those. On later uses this is one system call.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let store =
            Self { root: root.to_owned(), held: lock::Held::default(), writer: temporary::OwnWriter::default() };
        let marker = store.layout().join("oci-layout");
        if !marker.exists() {
            store.create(&marker)?;
        }
        Ok(store)
    }

    /// Makes the folders; the marker comes last, so that where it is, they are.
    fn create(&self, marker: &Path) -> Result<(), StoreError> {
        for folder in
            [self.layout().join("blobs/sha256"), self.layers_folder(), self.temporary_folder(), self.verified_folder()]
        {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.map_err(|source| StoreError::io("making the folder", &folder, source))?;
        }
        index::create(self)?;
        spare::make(self, 0);
        temporary::write(self, Some(self.writing()?), marker, br#"{"imageLayoutVersion":"1.0.0"}"#)
    }

    fn layout(&self) -> PathBuf {
        self.root.join("image-layout")
    }

    fn index_path(&self) -> PathBuf {
        self.root.join("image-layout/index.json")
    }

    fn layers_folder(&self) -> PathBuf {
        self.root.join("layers")
    }

    fn temporary_folder(&self) -> PathBuf {
        self.root.join("temporary")
    }
}

/// The entries of a folder; one that does not exist has none.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let listed = fs::read_dir(folder).and_then(|all| all.map(|entry| entry.map(|found| found.path())).collect());
    match listed {
        Ok(paths) => Ok(paths),
        Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(StoreError::io("listing", folder, source)),
    }
}

#[cfg(test)]
mod tests;
