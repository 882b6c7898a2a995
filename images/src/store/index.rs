//! `index.json`: which names there are, and what they point to.
//!
//! Two views of one file: [`Entries`] borrows the few fields that looking something up needs from the file's bytes;
//! [`Index`] keeps every field, also those that other tools wrote, for changing it.

use super::{
    Store, StoreError, Writing, clock, index_copy, layers,
    lock::Removing,
    plain::{self, Found},
    spare,
    temporary::{self, Temporary},
};
use crate::Reference;
use oci_spec::image::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    fs,
    io::{self, Read},
    path::PathBuf,
};

/// Annotations of an entry: its name, for OCI tools and for containerd's, and when it was stored.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";
const STORED: &str = "io.amphora.image.stored";

/// A hundred thousand images and more; a file that is larger is none of ours.
pub(super) const INDEX_BYTES: u64 = 64 << 20;

/// All entries, for reading.
#[derive(Deserialize)]
pub(super) struct Entries<'a> {
    #[serde(borrow, default)]
    pub(super) manifests: Vec<EntryView<'a>>,
}

/// What reading needs of an entry.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EntryView<'a> {
    #[serde(borrow)]
    pub(super) media_type: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) digest: Cow<'a, str>,
    #[serde(borrow, default)]
    annotations: Option<Annotations<'a>>,
}

#[derive(Deserialize)]
struct Annotations<'a> {
    #[serde(borrow, rename = "org.opencontainers.image.ref.name", default)]
    ref_name: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "io.amphora.image.stored", default)]
    stored: Option<Cow<'a, str>>,
}

impl EntryView<'_> {
    pub(super) fn name(&self) -> Option<&str> {
        self.annotations.as_ref()?.ref_name.as_deref()
    }

    /// When the name was given to it (RFC 3339).
    pub(super) fn stored(&self) -> Option<&str> {
        self.annotations.as_ref()?.stored.as_deref()
    }
}

/// The bytes of `index.json`, to be parsed as [`Entries`].
pub(super) fn read(store: &Store) -> Result<Vec<u8>, StoreError> {
    let path = store.index_path();
    let failed = |source| StoreError::io("reading", &path, source);
    let file = match plain::open(&path).map_err(failed)? {
        Found::Plain(file) => file,
        // Not as if it were empty: all that is stored would be a leftover then.
        Found::Nothing => return Err(damaged(store, "it is missing".to_owned())),
        Found::Other(what) => return Err(damaged(store, format!("it is {what}, expected a plain file"))),
    };
    let mut bytes = Vec::new();
    file.take(INDEX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > INDEX_BYTES {
        return Err(damaged(store, format!("it has more than {INDEX_BYTES} bytes")));
    }
    Ok(bytes)
}

fn damaged(store: &Store, reason: String) -> StoreError {
    StoreError::IndexDamaged { path: store.index_path(), reason }
}

/// Parses what [`read`] returned.
pub(super) fn parse<'a, T: Deserialize<'a>>(store: &Store, bytes: &'a [u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| damaged(store, error.to_string()))
}

/// Makes the first one, which names nothing. Where blobs are, one was there before: that is for [`Store::repair`].
pub(super) fn create(store: &Store) -> Result<(), StoreError> {
    let writing = store.writing()?;
    let _lock = store.index_lock()?;
    if fs::symlink_metadata(store.index_path()).is_ok() || !store.blob_files()?.is_empty() {
        return Ok(());
    }
    let first = Index::new(Vec::new(), Map::new());
    temporary::write(store, Some(writing), &store.index_path(), &first.to_bytes(store)?)
}

/// The whole file, for changing it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    #[serde(default = "schema_version")]
    schema_version: u32,
    #[serde(default)]
    pub(super) manifests: Vec<Entry>,
    #[serde(flatten)]
    pub(super) others: Map<String, Value>,
}

fn schema_version() -> u32 {
    2
}

/// One entry, with all its fields.
#[derive(Serialize, Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    pub(super) media_type: String,
    pub(super) digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Entry {
    pub(super) fn new(media_type: &str, digest: &str, size: u64) -> Self {
        let annotations = BTreeMap::from([(STORED.to_owned(), clock::now())]);
        let (media_type, digest) = (media_type.to_owned(), digest.to_owned());
        Self { media_type, digest, size, annotations, others: Map::new() }
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.annotations.get(REF_NAME).map(String::as_str)
    }

    /// Whether the name that OCI tools read is the one that containerd reads: here they are written alike.
    pub(super) fn names_agree(&self) -> bool {
        self.annotations.get(CONTAINERD_NAME).is_none_or(|other| Some(other.as_str()) == self.name())
    }

    fn set_name(&mut self, name: &str) {
        for key in [REF_NAME, CONTAINERD_NAME] {
            self.annotations.insert(key.to_owned(), name.to_owned());
        }
    }

    pub(super) fn drop_name(&mut self) {
        for key in [REF_NAME, CONTAINERD_NAME] {
            self.annotations.remove(key);
        }
    }
}

impl Index {
    pub(super) fn new(manifests: Vec<Entry>, others: Map<String, Value>) -> Self {
        Self { schema_version: schema_version(), manifests, others }
    }

    /// A name that two entries have.
    pub(super) fn twice(&self) -> Option<&str> {
        let mut seen = HashSet::new();
        self.manifests.iter().filter_map(Entry::name).find(|name| !seen.insert(*name))
    }

    /// Puts an entry in, in place of an older one of its name. What the older one pointed to keeps an entry without a
    /// name if this was its last.
    ///
    /// Returns the digest that the name pointed to, if that was another one.
    fn insert(&mut self, mut entry: Entry, name: Option<&str>) -> Option<String> {
        let mut moved_from = None;
        if let Some(name) = name {
            let older = self.manifests.iter().find(|other| other.name() == Some(name));
            moved_from = older.map(|older| older.digest.clone()).filter(|digest| *digest != entry.digest);
            self.untag(name);
            entry.set_name(name);
            self.manifests.retain(|other| other.name().is_some() || other.digest != entry.digest);
            self.manifests.push(entry);
        } else if self.manifests.iter().all(|other| other.digest != entry.digest) {
            self.manifests.push(entry);
        }
        moved_from
    }

    /// Takes a name away. The last name of a digest leaves an entry without one.
    pub(super) fn untag(&mut self, name: &str) {
        let Some(at) = self.manifests.iter().position(|entry| entry.name() == Some(name)) else { return };
        let mut entry = self.manifests.remove(at);
        if self.manifests.iter().all(|other| other.digest != entry.digest) {
            entry.drop_name();
            self.manifests.push(entry);
        }
    }

    /// The entries that have no name.
    pub(super) fn unnamed(&self) -> Vec<Entry> {
        self.manifests.iter().filter(|entry| entry.name().is_none()).cloned().collect()
    }

    pub(super) fn to_bytes(&self, store: &Store) -> Result<Vec<u8>, StoreError> {
        serde_json::to_vec(self)
            .map_err(|error| StoreError::io("writing", &store.index_path(), io::Error::other(error)))
    }

    /// Takes everything away that points to a digest.
    pub(super) fn forget(&mut self, digest: &str) {
        self.manifests.retain(|entry| entry.digest != digest);
    }

    /// The names of a digest.
    pub(super) fn names_of(&self, digest: &str) -> Vec<String> {
        let its = self.manifests.iter().filter(|entry| entry.digest == digest);
        its.filter_map(|entry| entry.name().map(str::to_owned)).collect()
    }
}

/// Reads the index, lets `change` change it, and puts it back, all under the locks. Nothing is written when `change`
/// fails.
pub(super) fn edit<T>(
    store: &Store,
    change: impl FnOnce(&mut Index) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    rewrite(store, Some(store.writing()?), change)
}

/// The same for who holds the exclusive lock, as taking images out of the index needs.
pub(super) fn edit_alone<T>(
    store: &Store,
    _alone: &Removing,
    change: impl FnOnce(&mut Index) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    rewrite(store, None, change)
}

fn rewrite<T>(
    store: &Store,
    writing: Option<Writing>,
    change: impl FnOnce(&mut Index) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let _lock = store.index_lock()?;
    let mut index: Index = parse(store, &read(store)?)?;
    let result = change(&mut index)?;
    let bytes = index.to_bytes(store)?;
    Replacement::prepare(store, writing, &bytes)?.finish(store, &bytes)?;
    Ok(result)
}

/// A whole new `index.json` that is on the disk and has not replaced the old one yet.
pub(super) struct Replacement {
    writing: Option<Writing>,
    file: NewFile,
}

enum NewFile {
    Fresh(Temporary),
    /// On a full disk, for who frees space.
    Spare(PathBuf),
}

impl Replacement {
    /// Under the index lock. Who holds the exclusive lock gives no shared one, and may use the spare room.
    pub(super) fn prepare(store: &Store, writing: Option<Writing>, bytes: &[u8]) -> Result<Self, StoreError> {
        let target = store.index_path();
        let fresh = temporary::filled(store, writing.clone(), &target, bytes).and_then(|(temporary, file)| {
            // A rename may reach the disk before the bytes do: a power cut would leave an empty list.
            file.sync_data().map_err(|source| StoreError::io("writing", &target, source))?;
            Ok(temporary)
        });
        let file = match fresh {
            Err(full @ StoreError::Full { .. }) if writing.is_none() => {
                NewFile::Spare(spare::fill(store, bytes).map_err(|_| full)?)
            }
            other => NewFile::Fresh(other?),
        };
        Ok(Self { writing, file })
    }

    /// Replaces the old one.
    pub(super) fn finish(self, store: &Store, bytes: &[u8]) -> Result<(), StoreError> {
        index_copy::forget(store)?;
        let target = store.index_path();
        match self.file {
            NewFile::Fresh(temporary) => temporary.rename(&target)?,
            NewFile::Spare(path) => {
                fs::rename(&path, &target).map_err(|source| StoreError::io("renaming to", &target, source))?;
            }
        }
        if self.writing.is_none() {
            spare::make(store, bytes.len());
        }
        index_copy::keep(store, self.writing, bytes);
        Ok(())
    }
}

impl Store {
    /// Makes a name point to a descriptor whose blobs are whole (manifest or index), atomically, under the index
    /// lock; replaces an older one of that name.
    ///
    /// What the name pointed to before stays as an image without a name, until it is removed or pruned. Brings all
    /// blobs and layers written so far to the disk first. Returns the digest that the name pointed to, if that was
    /// another one.
    pub fn name(
        &self,
        reference: &Reference,
        media_type: &str,
        digest: &Digest,
        size: u64,
    ) -> Result<Option<String>, StoreError> {
        if reference.digest.as_ref().is_some_and(|wanted| *wanted != digest.to_string()) {
            return Err(StoreError::OtherDigest { name: reference.familiar(), found: digest.clone() });
        }
        self.insert(Entry::new(media_type, digest.as_ref(), size), Some(&reference.to_string()))
    }

    /// As [`Store::name`], for an image that has no name: it is found by its digest.
    pub fn keep_unnamed(&self, media_type: &str, digest: &Digest, size: u64) -> Result<(), StoreError> {
        self.insert(Entry::new(media_type, digest.as_ref(), size), None).map(drop)
    }

    pub(super) fn insert(&self, entry: Entry, name: Option<&str>) -> Result<Option<String>, StoreError> {
        let path = self.blob_path_of(&entry.digest);
        if !fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.len() == entry.size) {
            let reason = format!("not in the store whole, so nothing can be named so: {}", entry.digest);
            return Err(StoreError::Malformed { document: "manifest", path, reason });
        }
        layers::sync(&self.layout())?;
        edit(self, |index| Ok(index.insert(entry, name)))
    }

    /// Adds a name for an image (by name or id).
    ///
    /// The new name points to what the old one does: for an image of several platforms that is the index.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<(), StoreError> {
        if target.digest.is_some() {
            return Err(StoreError::DigestInTag { target: target.familiar() });
        }
        let digest = self.entry_digest(source)?.ok_or_else(|| StoreError::NotFound { name: source.to_owned() })?;
        edit(self, |index| {
            let found = index.manifests.iter().find(|entry| entry.digest == digest).cloned();
            let entry = found.ok_or_else(|| StoreError::NotFound { name: source.to_owned() })?;
            index.insert(entry, Some(&target.to_string()));
            Ok(())
        })
    }
}
