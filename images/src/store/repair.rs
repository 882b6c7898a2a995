//! Making a damaged or lost `index.json` anew, from its copy, from what of it still parses, and from the blobs.
//!
//! ```text
//! ROOT/index.damaged-<n>    the file that was damaged, as it was found; nothing removes it
//! ```
//!
//! The copy counts where nothing else is known to have written to the list since it was made. Where something has, what
//! still parses counts, and the names that only the copy has are told and not given.
//!
//! An entry counts if its document is here, whole, and of the kind that the entry says. Every other document that no
//! index lists gets an entry without a name, so that no image is taken for a leftover, also none that a container uses.
//! The old file is set aside and replaced in two steps, each of which leaves a file that can be repaired.

use super::{
    Store, StoreError,
    documents::{self, DOCUMENT_BYTES, INDEX_TYPE, MANIFEST_TYPE},
    index::{self, Entries, Entry, INDEX_BYTES, Index, Replacement, Room},
    index_copy::{self, Copy},
    plain::{self, Found},
};
use crate::platform::is_index;
use oci_spec::image::{Digest, ImageIndex, ImageManifest};
use serde_json::Map;
use std::{
    collections::{BTreeMap, HashSet},
    fs,
    io::{BufReader, Read},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

/// What [`Store::repair`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// What was wrong.
    pub found: String,
    /// Where the damaged file lies now; None if there was none.
    pub aside: Option<PathBuf>,
    /// Names that stand for what they stood for, a sentence each.
    pub named: Vec<String>,
    /// Images that have no name now, a sentence each.
    pub unnamed: Vec<String>,
    /// What could not be kept, a sentence each.
    pub lost: Vec<String>,
}

impl Store {
    /// Makes `index.json` anew if it is damaged, and says how; None if it is whole.
    ///
    /// Names come from its copy where there is one, else from the entries that still parse; a name that cannot be known
    /// to be right is not given. Works on a full disk. Blobs and layers stay as they are.
    pub fn repair(&self) -> Result<Option<Repaired>, StoreError> {
        let writing = self.writing()?;
        let _lock = self.index_lock()?;
        let Some(found) = self.index_damage()? else { return Ok(None) };
        let Survivors { entries, others, lost } = self.survivors()?;
        let (documents, damaged) = self.documents(&entries)?;
        let mut repaired = Repaired { found, lost: [lost, damaged].concat(), ..Repaired::default() };
        let mut manifests = checked_entries(entries, &documents, &mut repaired);
        let listed: HashSet<&str> = manifests.iter().map(|entry| entry.digest.as_str()).collect();
        let children: HashSet<&String> = documents.values().flat_map(|document| &document.children).collect();
        let is_unlisted = |digest: &String| !listed.contains(digest.as_str()) && !children.contains(digest);
        let unlisted: Vec<Entry> = documents
            .iter()
            .filter(|(digest, _)| is_unlisted(digest))
            .map(|(digest, document)| Entry::new(&document.media_type, digest, document.size))
            .collect();
        manifests.extend(unlisted);
        let nameless = manifests.iter().filter(|entry| entry.name().is_none());
        repaired.unnamed = nameless.map(|entry| format!("{} has no name", entry.digest)).collect();
        let bytes = Index::new(manifests, others).to_bytes(self)?;
        if bytes.len() as u64 > INDEX_BYTES {
            let (path, limit) = (self.index_path(), usize::try_from(INDEX_BYTES).unwrap_or(usize::MAX));
            return Err(StoreError::IndexFull { path, found: bytes.len(), limit });
        }
        // What is written is protected by the lock that is held here.
        let replacement = Replacement::prepare(self, None, Room::FreeOrSpare, &bytes)?;
        repaired.aside = self.set_aside()?;
        replacement.finish(self, &bytes)?;
        drop(writing);
        Ok(Some(repaired))
    }

    /// What is wrong with `index.json`, if anything is.
    fn index_damage(&self) -> Result<Option<String>, StoreError> {
        let bytes = match index::read(self) {
            Err(StoreError::IndexDamaged { reason, .. }) => return Ok(Some(reason)),
            other => other?,
        };
        let index = match index::parse::<Index>(self, &bytes) {
            Err(StoreError::IndexDamaged { reason, .. }) => return Ok(Some(reason)),
            other => other?,
        };
        if let Err(StoreError::IndexDamaged { reason, .. }) = index::parse::<Entries>(self, &bytes) {
            return Ok(Some(reason));
        }
        let bad = index.manifests.iter().find_map(|entry| self.index_digest(&entry.digest).err());
        Ok(bad
            .map(|error| error.to_string())
            .or_else(|| index.twice().map(|name| format!("{name} stands there twice"))))
    }

    /// Every manifest and index that is here and has the bytes that its digest promises, and a sentence for each that
    /// has others.
    fn documents(&self, entries: &[Entry]) -> Result<(BTreeMap<String, Document>, Vec<String>), StoreError> {
        let listed: HashSet<&str> = entries.iter().map(|entry| entry.digest.as_str()).collect();
        let (mut documents, mut damaged) = (BTreeMap::new(), Vec::new());
        for digest in self.blob_files()? {
            let likely = listed.contains(digest.as_ref()).then_some(Ok(true));
            let likely = likely.unwrap_or_else(|| self.looks_like_document(&digest));
            match likely.and_then(|likely| likely.then(|| self.bytes(&digest)).transpose()) {
                Ok(Some(Some(bytes))) => {
                    documents.extend(Document::parse(&bytes).map(|document| (digest.to_string(), document)));
                }
                Ok(_) => {}
                Err(error) => damaged.push(error.to_string()),
            }
        }
        Ok((documents, damaged))
    }

    /// Whether a blob is small and begins as JSON does: most blobs are layers, and need not be hashed.
    fn looks_like_document(&self, digest: &Digest) -> Result<bool, StoreError> {
        let Some(file) = self.find_blob(digest)? else { return Ok(false) };
        let path = self.blob_path(digest);
        let failed = |source| StoreError::io("reading", &path, source);
        if file.metadata().map_err(failed)?.len() > DOCUMENT_BYTES {
            return Ok(false);
        }
        for byte in BufReader::new(file).bytes() {
            match byte.map_err(failed)? {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                first => return Ok(first == b'{'),
            }
        }
        Ok(false)
    }

    /// The entries that there were, as far as they are known, and the other fields.
    fn survivors(&self) -> Result<Survivors, StoreError> {
        let path = self.index_path();
        let failed = |source| StoreError::io("reading", &path, source);
        let mut bytes = Vec::new();
        if let Found::Plain(file) = plain::open(&path).map_err(failed)? {
            file.take(INDEX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        }
        let parsed = |bytes: &[u8]| serde_json::from_slice::<Index>(bytes).ok();
        let older = match index_copy::read(self, &bytes, INDEX_BYTES)? {
            Copy::Same(copy) => match parsed(&copy) {
                Some(Index { manifests, others, .. }) => {
                    return Ok(Survivors { entries: manifests, others, lost: Vec::new() });
                }
                None => Vec::new(),
            },
            Copy::Older(copy) => parsed(&copy).map_or_else(Vec::new, |index| index.manifests),
            Copy::None => Vec::new(),
        };
        let entries = salvage(&bytes);
        let names: HashSet<&str> = entries.iter().filter_map(Entry::name).collect();
        let only_there = older.iter().filter(|entry| entry.name().is_some_and(|name| !names.contains(name)));
        let told = only_there.map(|entry| {
            let (name, digest) = (entry.name().unwrap_or_default(), &entry.digest);
            format!("{name} stood for {digest} before another tool wrote to the list of images")
        });
        let mut lost = vec!["every name that does not parse any more: there is no copy of this list".to_owned()];
        lost.extend(told);
        Ok(Survivors { entries, others: Map::new(), lost })
    }

    /// Gives the damaged file another name beside its own; a folder can have only one.
    fn set_aside(&self) -> Result<Option<PathBuf>, StoreError> {
        let damaged = self.index_path();
        let Ok(found) = fs::symlink_metadata(&damaged) else { return Ok(None) };
        for number in 1_u32.. {
            let aside = self.root.join(format!("index.damaged-{number}"));
            match fs::symlink_metadata(&aside) {
                // By a repair that was killed.
                Ok(same) if (same.ino(), same.dev()) == (found.ino(), found.dev()) => return Ok(Some(aside)),
                Ok(_) => continue,
                Err(_) => {}
            }
            // Without following links, as hard_link(3) does on Linux.
            if fs::hard_link(&damaged, &aside).is_err() {
                fs::rename(&damaged, &aside).map_err(|source| StoreError::io("renaming", &damaged, source))?;
            }
            return Ok(Some(aside));
        }
        Ok(None)
    }
}

/// What there was in the list.
struct Survivors {
    entries: Vec<Entry>,
    others: Map<String, serde_json::Value>,
    /// A sentence each.
    lost: Vec<String>,
}

/// A manifest or an index.
struct Document {
    media_type: String,
    size: u64,
    /// What an index lists.
    children: Vec<String>,
}

impl Document {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let size = bytes.len() as u64;
        if let Ok(manifest) = documents::parse::<ImageManifest>(bytes) {
            let media_type = manifest.media_type().as_ref().map_or(MANIFEST_TYPE.to_owned(), ToString::to_string);
            return Some(Self { media_type, size, children: Vec::new() });
        }
        let index = documents::parse::<ImageIndex>(bytes).ok()?;
        let media_type = index.media_type().as_ref().map_or(INDEX_TYPE.to_owned(), ToString::to_string);
        let children = index.manifests().iter().map(|child| child.digest().to_string()).collect();
        Some(Self { media_type, size, children })
    }
}

/// Those whose document is here; of several with one name the first, which is the one that was found by it.
fn checked_entries(entries: Vec<Entry>, documents: &BTreeMap<String, Document>, repaired: &mut Repaired) -> Vec<Entry> {
    let (mut kept, mut names, mut digests) = (Vec::new(), HashSet::new(), HashSet::new());
    for mut entry in entries {
        let shown = entry.name().unwrap_or("an image without a name").to_owned();
        let Some(document) = documents.get(&entry.digest) else {
            repaired.lost.push(format!("{shown}: {} is not in the store", entry.digest));
            continue;
        };
        if is_index(&entry.media_type) != is_index(&document.media_type) {
            repaired.lost.push(format!("{shown}: {} is no {}", entry.digest, entry.media_type));
            continue;
        }
        let taken = entry.name().is_some_and(|name| names.contains(name));
        if taken || !entry.names_agree() {
            let why = if taken { "another image has that name too" } else { "its two names differ" };
            repaired.lost.push(format!("{shown} for {}: {why}", entry.digest));
            entry.drop_name();
        }
        let is_first = digests.insert(entry.digest.clone());
        if let Some(name) = entry.name() {
            names.insert(name.to_owned());
            repaired.named.push(format!("{shown} stands for {}", entry.digest));
        } else if !is_first {
            continue;
        }
        kept.push(entry);
    }
    kept
}

/// The entries that parse, of bytes that do not as a whole: wherever one can begin.
fn salvage(bytes: &[u8]) -> Vec<Entry> {
    let (mut entries, mut at) = (Vec::new(), 0);
    while let Some(begin) = bytes[at..].iter().position(|&byte| byte == b'{') {
        at += begin;
        let mut parsed = serde_json::Deserializer::from_slice(&bytes[at..]).into_iter::<Entry>();
        match parsed.next() {
            Some(Ok(entry)) => {
                entries.push(entry);
                at += parsed.byte_offset().max(1);
            }
            _ => at += 1,
        }
    }
    entries
}
