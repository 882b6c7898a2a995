//! `index.json`: which names there are, and what they point to.
//!
//! Two views of one file: [`Entries`] borrows the few fields that looking something up needs from the file's bytes;
//! [`Index`] keeps every field, also those that other tools wrote, for changing it.

use super::{
    Store, StoreError, Writing, clock, documents, index_copy, layers,
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
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    io::{self, Read},
    path::PathBuf,
};

/// Annotations of an entry: its name, for OCI tools and for containerd's, and when it was stored.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";
const STORED: &str = "io.amphora.image.stored";
/// More than any time has, with its zone.
const STORED_BYTES: usize = 64;

/// A hundred thousand images and more; a file that is larger is none of ours.
pub(super) const INDEX_BYTES: u64 = 64 << 20;
/// What we make it grow to: far enough below what we read.
const WRITTEN_BYTES: usize = 32 << 20;

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
    // With room for all of it at once: what it takes is asked of the file, as `take` hides it.
    let length = file.metadata().map_err(failed)?.len().min(INDEX_BYTES);
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default() + 1);
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
        let (media_type, digest) = (documents::listed_type(media_type).to_owned(), digest.to_owned());
        Self { media_type, digest, size, annotations, others: Map::new() }
    }

    /// A further one of what this one lists, without what other tools wrote into this one.
    fn another(&self) -> Self {
        let mut another = Self::new(&self.media_type, &self.digest, self.size);
        let stored = self.annotations.get(STORED).filter(|text| text.len() <= STORED_BYTES);
        another.annotations.extend(stored.map(|text| (STORED.to_owned(), text.clone())));
        another
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

    /// Puts an entry in under each of some names, or without one, in place of older ones of these names. What an older
    /// one pointed to keeps an entry without a name if that was its last.
    ///
    /// Returns for each name the digest that it pointed to, if that was another one.
    fn insert(&mut self, entry: &Entry, names: &[String]) -> Vec<Option<String>> {
        if names.is_empty() {
            if self.manifests.iter().all(|other| other.digest != entry.digest) {
                self.manifests.push(entry.clone());
            }
            return Vec::new();
        }
        let mut older: HashMap<&str, Option<String>> = names.iter().map(|name| (name.as_str(), None)).collect();
        for other in &self.manifests {
            if let Some(digest) = other.name().and_then(|name| older.get_mut(name)) {
                digest.get_or_insert_with(|| other.digest.clone());
            }
        }
        self.untag_all(|name| older.contains_key(name));
        self.manifests.retain(|other| other.name().is_some() || other.digest != entry.digest);
        for name in older.keys() {
            let mut named = entry.clone();
            named.set_name(name);
            self.manifests.push(named);
        }
        names.iter().map(|name| older[name.as_str()].clone().filter(|digest| *digest != entry.digest)).collect()
    }

    /// Takes names away. The last name of a digest leaves an entry without one.
    pub(super) fn untag_all(&mut self, goes: impl Fn(&str) -> bool) {
        let all = std::mem::take(&mut self.manifests);
        let (gone, kept): (Vec<Entry>, _) = all.into_iter().partition(|entry| entry.name().is_some_and(&goes));
        self.manifests = kept;
        let mut listed: HashSet<String> = self.manifests.iter().map(|entry| entry.digest.clone()).collect();
        for mut entry in gone {
            if listed.insert(entry.digest.clone()) {
                entry.drop_name();
                self.manifests.push(entry);
            }
        }
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

    /// The same entries, for looking something up.
    pub(super) fn entries(&self) -> Entries<'_> {
        let views = self.manifests.iter().map(|entry| EntryView {
            media_type: Cow::Borrowed(&entry.media_type),
            digest: Cow::Borrowed(&entry.digest),
            annotations: Some(Annotations {
                ref_name: entry.name().map(Cow::Borrowed),
                stored: entry.annotations.get(STORED).map(|text| Cow::Borrowed(text.as_str())),
            }),
        });
        Entries { manifests: views.collect() }
    }

    pub(super) fn to_bytes(&self, store: &Store) -> Result<Vec<u8>, StoreError> {
        serde_json::to_vec(self)
            .map_err(|error| StoreError::io("writing", &store.index_path(), io::Error::other(error)))
    }

    /// Takes everything away that points to some digests.
    pub(super) fn forget_all(&mut self, goes: impl Fn(&str) -> bool) {
        self.manifests.retain(|entry| !goes(&entry.digest));
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
    let old = read(store)?;
    let mut index: Index = parse(store, &old)?;
    let result = change(&mut index)?;
    let bytes = index.to_bytes(store)?;
    if bytes == old {
        return Ok(result);
    }
    let grows = bytes.len() > old.len();
    if grows && bytes.len() > WRITTEN_BYTES {
        let (path, found) = (store.index_path(), bytes.len());
        return Err(StoreError::IndexFull { path, found, limit: WRITTEN_BYTES });
    }
    let room = if grows { Room::Free } else { Room::FreeOrSpare };
    Replacement::prepare(store, writing, room, &bytes)?.finish(store, &bytes)?;
    Ok(result)
}

/// What a new `index.json` may be written to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    /// What makes it shorter frees space, and so may use the spare room on a full disk.
    FreeOrSpare,
}

/// A whole new `index.json` that is on the disk and has not replaced the old one yet.
pub(super) struct Replacement {
    writing: Option<Writing>,
    file: NewFile,
}

enum NewFile {
    Fresh(Temporary),
    Spare(PathBuf),
}

impl Replacement {
    /// Under the index lock. Who holds the exclusive lock gives no shared one.
    pub(super) fn prepare(
        store: &Store,
        writing: Option<Writing>,
        room: Room,
        bytes: &[u8],
    ) -> Result<Self, StoreError> {
        let target = store.index_path();
        let fresh = temporary::filled(store, writing.clone(), &target, bytes).and_then(|(temporary, file)| {
            // A rename may reach the disk before the bytes do: a power cut would leave an empty list.
            file.sync_data().map_err(|source| StoreError::io("writing", &target, source))?;
            Ok(temporary)
        });
        let file = match fresh {
            Err(full @ StoreError::Full { .. }) if room == Room::FreeOrSpare => {
                NewFile::Spare(spare::fill(store, bytes).map_err(|_| full)?)
            }
            other => NewFile::Fresh(other?),
        };
        Ok(Self { writing, file })
    }

    /// Replaces the old one, and its copy.
    pub(super) fn finish(self, store: &Store, bytes: &[u8]) -> Result<(), StoreError> {
        let target = store.index_path();
        let path = match &self.file {
            NewFile::Fresh(temporary) => &temporary.path,
            NewFile::Spare(path) => path,
        };
        index_copy::prepare(store, self.writing, path, bytes)?;
        let replaced = match self.file {
            NewFile::Fresh(temporary) => temporary.rename(&target),
            NewFile::Spare(path) => {
                spare::put(&path, &target).map_err(|source| StoreError::io("renaming to", &target, source))
            }
        };
        index_copy::finish(store, replaced.is_ok());
        spare::make(store, bytes.len());
        replaced
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
        let moved_from = self.name_all(std::slice::from_ref(reference), media_type, digest, size)?;
        Ok(moved_from.into_iter().flatten().next())
    }

    /// The same for several names at once: all are given, or none.
    pub fn name_all(
        &self,
        references: &[Reference],
        media_type: &str,
        digest: &Digest,
        size: u64,
    ) -> Result<Vec<Option<String>>, StoreError> {
        let is_other =
            |reference: &&Reference| reference.digest.as_ref().is_some_and(|wanted| wanted.as_str() != digest.as_ref());
        if let Some(other) = references.iter().find(is_other) {
            return Err(StoreError::OtherDigest { name: other.familiar(), found: digest.clone() });
        }
        let names: Vec<String> = references.iter().map(Reference::to_string).collect();
        self.insert(&Entry::new(media_type, digest.as_ref(), size), &names)
    }

    /// As [`Store::name`], for an image that has no name: it is found by its digest.
    pub fn keep_unnamed(&self, media_type: &str, digest: &Digest, size: u64) -> Result<(), StoreError> {
        self.insert(&Entry::new(media_type, digest.as_ref(), size), &[]).map(drop)
    }

    fn insert(&self, entry: &Entry, names: &[String]) -> Result<Vec<Option<String>>, StoreError> {
        let path = self.blob_path_of(&entry.digest);
        if !fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.len() == entry.size) {
            let reason = format!("not in the store whole, so nothing can be named so: {}", entry.digest);
            return Err(StoreError::Malformed { document: "manifest", path, reason });
        }
        layers::sync(&self.layout())?;
        edit(self, |index| Ok(index.insert(entry, names)))
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
            let found = index.manifests.iter().find(|entry| entry.digest == digest).map(Entry::another);
            let entry = found.ok_or_else(|| StoreError::NotFound { name: source.to_owned() })?;
            index.insert(&entry, &[target.to_string()]);
            Ok(())
        })
    }
}
