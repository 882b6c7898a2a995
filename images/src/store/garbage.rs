//! Removing images, and whatever no image needs; the rule of what is kept is on the page of [`crate::store`].

use super::{
    Image, Store, StoreError, entries,
    index::{self, Entries, Index},
    layers,
    lock::Removing,
    resolve::familiar,
    temporary,
};
use crate::{
    Reference,
    holds::{Holds, IMAGE},
    platform::is_index,
    remove_tree,
};
use oci_spec::image::{Digest, ImageConfiguration, ImageIndex, ImageManifest};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Asks which manifest digests containers use. What removes images takes the question, and asks it when nobody can
/// begin to use one any more: under the exclusive lock.
pub type Used<'a> = &'a dyn Fn() -> Result<HashSet<String>, String>;

/// What [`Store::check`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// What nothing needs, a sentence each; removed if that was asked for.
    pub leftovers: Vec<String>,
    /// What is wrong with entries, a sentence each; nothing of it is removed.
    pub damaged: Vec<String>,
    /// What could not be looked at, and why.
    pub not_looked_at: Vec<String>,
}

impl Store {
    /// Removes a name (or by id, all its names when `force`); blobs and layers that nothing names any more go too.
    ///
    /// Returns lines `Untagged: …`, `Deleted: …`. The last name of an image that a container uses is refused, and with
    /// `force` only the name goes; the image stays without one, as it does while somebody writes. The id of a manifest
    /// in an index stands for the index. Works for images that cannot be read, too; what cannot be freed now is a line
    /// of its own, as the name is gone all the same.
    pub fn remove(&self, name: &str, force: bool, used: Used) -> Result<Vec<String>, StoreError> {
        self.remove_each(&[name], force, used)?.into_iter().collect::<Result<Vec<_>, _>>().map(|lines| lines.concat())
    }

    /// The same for several, each with its lines or its error; the list of images is written once, and what nothing
    /// needs is looked for once.
    pub fn remove_each<N: AsRef<str>>(
        &self,
        names: &[N],
        force: bool,
        used: Used,
    ) -> Result<Vec<Result<Vec<String>, StoreError>>, StoreError> {
        let mut each = Vec::new();
        let left = self.take_out(used, |index, used, alone| {
            for name in names {
                let request = Request { name: name.as_ref(), force, used, alone };
                each.push(self.take_away(index, &request));
            }
            Ok(each.iter().any(Result::is_ok))
        })?;
        if let Some(lines) = each.iter_mut().rev().find_map(|lines| lines.as_mut().ok()) {
            lines.extend(left);
        }
        Ok(each)
    }

    /// Takes full names away from images that no container uses, as [`Store::remove`] does, all at once. Those that a
    /// container has begun to use, or that are gone already, are passed over.
    pub fn remove_names(&self, names: &BTreeSet<String>, used: Used) -> Result<Vec<String>, StoreError> {
        let mut lines = Vec::new();
        let left = self.take_out(used, |index, used, alone| {
            lines = self.take_names(index, names, used, alone)?;
            Ok(!lines.is_empty())
        })?;
        lines.extend(left);
        Ok(lines)
    }

    /// Changes the list of images, and then removes what nothing needs any more, if nobody writes. `change` is told
    /// which images are used and whether nobody writes, and says whether it has changed anything. Returns what stays,
    /// as a line.
    fn take_out(
        &self,
        used: Used,
        change: impl FnOnce(&mut Index, &InUse, bool) -> Result<bool, StoreError>,
    ) -> Result<Option<String>, StoreError> {
        let alone = self.removing()?;
        let used = self.ask(used)?;
        let Some(alone) = alone else {
            return index::edit(self, |index| change(index, &used, false)).map(|_| None);
        };
        let changed = index::edit_alone(self, &alone, |index| change(index, &used, true))?;
        Ok(if changed { self.sweep_or_say(alone) } else { None })
    }

    /// Removes the images that have no name and that no container uses: what lost its name to a newer pull.
    ///
    /// Returns lines `Deleted: …`; none while somebody writes.
    /// Those that cannot be read stay: nobody knows what they are.
    pub fn remove_unnamed(&self, used: Used) -> Result<Vec<String>, StoreError> {
        self.remove_unnamed_if(&|_| true, used)
    }

    /// The same, but for those of which a manifest is not meant, told its digest.
    pub fn remove_unnamed_if(&self, is_meant: &dyn Fn(&str) -> bool, used: Used) -> Result<Vec<String>, StoreError> {
        let (mut gone, mut lines) = (HashSet::new(), Vec::new());
        let left = self.take_out(used, |index, used, alone| {
            let unnamed = index.manifests.iter().filter(|entry| alone && entry.name().is_none());
            for entry in unnamed {
                let Ok(digest) = self.index_digest(&entry.digest) else { continue };
                let (manifests, unreadable) = self.children(&digest, &entry.media_type);
                let is_used = used.first_of(&manifests)?.is_some();
                let is_spared = manifests.iter().any(|manifest| !is_meant(manifest.as_ref()));
                if !is_spared && unreadable.is_empty() && !is_used && gone.insert(entry.digest.clone()) {
                    lines.push(format!("Deleted: {}", entry.digest));
                }
            }
            index.forget_all(|digest| gone.contains(digest));
            Ok(alone)
        })?;
        lines.extend(left);
        Ok(lines)
    }

    /// Leftovers: temporary files of dead writers, blobs and layers nothing names. Each with a sentence. `remove`:
    /// removes them too.
    ///
    /// While somebody writes, leftovers cannot be told from what is on its way in: it says so then.
    pub fn check(&self, remove: bool) -> Result<Checked, StoreError> {
        let mut checked = Checked::default();
        for listed in self.listed()? {
            match listed {
                Ok(image) => checked.damaged.extend(self.broken_layers(&image)),
                Err(entry) => {
                    let by = entry.name.as_deref().map_or_else(|| entry.digest.clone(), familiar);
                    checked.damaged.push(format!("{entry}; `amphora rmi {by}`, and pull or load it again"));
                }
            }
        }
        let index: Index = index::parse(self, &index::read(self)?)?;
        checked.damaged.extend(
            index.twice().map(|name| format!("{name} stands twice in the list of images; it is the first one's")),
        );
        let Some(alone) = self.removing()? else {
            let busy = "leftovers of images: a pull, load or import is running, or a container is being made; try again after it";
            checked.not_looked_at.push(busy.to_owned());
            return Ok(checked);
        };
        let (leftovers, spared) = if remove { self.sweep(alone)? } else { self.leftovers()? };
        checked.leftovers = leftovers.into_iter().map(|leftover| leftover.sentence).collect();
        checked.not_looked_at.extend(spared);
        Ok(checked)
    }

    /// A sentence for each layer of an image whose blob is not as long as its manifest says, or no plain file.
    fn broken_layers(&self, image: &Image) -> Vec<String> {
        let by = image.reference.as_ref().map_or_else(|| image.digest.to_string(), Reference::familiar);
        let wrong = image.manifest.layers().iter().filter_map(|layer| {
            let found = match self.blob_size(layer.digest()) {
                Some(size) if size == layer.size() => return None,
                Some(size) => format!("has {size} bytes"),
                None if self.has_blob(layer.digest()) => "is no plain file".to_owned(),
                None => "is missing".to_owned(),
            };
            let (path, expected) = (self.blob_path(layer.digest()), layer.size());
            let path = path.display();
            Some(format!("{by}: its layer {path} {found}, expected {expected} bytes; pull or load {by} again"))
        });
        wrong.collect()
    }

    /// Removes leftovers and returns what they were, and why some cannot be told.
    fn sweep(&self, alone: Removing) -> Result<(Vec<Leftover>, Option<String>), StoreError> {
        let (leftovers, spared) = self.leftovers()?;
        let moved = self.take_off(&leftovers)?;
        drop(alone);
        moved.iter().try_for_each(|path| remove(path))?;
        Ok((leftovers, spared))
    }

    /// Removes leftovers; what stays, as a line.
    fn sweep_or_say(&self, alone: Removing) -> Option<String> {
        let spared = self.sweep(alone).map_or_else(|error| Some(error.to_string()), |(_, spared)| spared);
        spared.map(|what| format!("Left behind: {what}"))
    }

    fn ask(&self, used: Used) -> Result<InUse, StoreError> {
        let told = used().map_err(|reason| StoreError::UseUnknown { reason })?;
        Ok(InUse { told, holds: Holds::open(&self.root)? })
    }

    fn take_away(&self, index: &mut Index, request: &Request) -> Result<Vec<String>, StoreError> {
        let name = request.name;
        if let Some(line) = take_away_undigested(self, index, name) {
            return Ok(vec![line]);
        }
        let target =
            self.find(&index.entries(), name)?.ok_or_else(|| StoreError::NotFound { name: name.to_owned() })?;
        let entry = target.entry.to_string();
        let all = index.names_of(&entry);
        let full = Reference::from_str(name).map(|reference| reference.to_string()).ok();
        let names = full.filter(|full| all.contains(full)).map_or_else(|| all.clone(), |full| vec![full]);
        if names.len() > 1 && !request.force {
            return Err(StoreError::SeveralNames { id: name.to_owned(), names });
        }
        let manifests = self.manifests_of(&target.entry, target.media_type());
        let forget = names.len() == all.len() && request.may_forget(&manifests, names.is_empty())?;
        let mut lines: Vec<String> = names.iter().map(|name| format!("Untagged: {}", familiar(name))).collect();
        if forget {
            index.forget_all(|digest| digest == entry);
            // Of an index that cannot be read, all that is known is its own digest.
            let gone = if manifests.is_empty() { std::slice::from_ref(&target.entry) } else { &manifests };
            lines.extend(gone.iter().map(|manifest| format!("Deleted: {manifest}")));
        } else {
            names.iter().for_each(|name| index.untag(name));
        }
        Ok(lines)
    }

    /// As [`Store::take_away`], for full names.
    fn take_names(
        &self,
        index: &mut Index,
        names: &BTreeSet<String>,
        used: &InUse,
        alone: bool,
    ) -> Result<Vec<String>, StoreError> {
        let mut images: BTreeMap<&str, Going> = BTreeMap::new();
        for entry in &index.manifests {
            let image = images.entry(&entry.digest).or_insert_with(|| Going::new(&entry.media_type));
            match entry.name() {
                Some(name) if names.contains(name) => image.names.push(name),
                Some(_) => image.keeps_a_name = true,
                None => {}
            }
        }
        let (mut lines, mut untag, mut forget) = (Vec::new(), HashSet::new(), HashSet::new());
        for (digest, image) in images.into_iter().filter(|(_, image)| !image.names.is_empty()) {
            let Ok(entry) = self.index_digest(digest) else { continue };
            let manifests = self.manifests_of(&entry, image.media_type);
            if used.first_of(&manifests)?.is_some() {
                continue;
            }
            lines.extend(image.names.iter().map(|name| format!("Untagged: {}", familiar(name))));
            if alone && !image.keeps_a_name {
                lines.extend(manifests.iter().map(|manifest| format!("Deleted: {manifest}")));
                forget.insert(digest.to_owned());
            } else {
                untag.extend(image.names.into_iter().map(str::to_owned));
            }
        }
        index.forget_all(|digest| forget.contains(digest));
        index.untag_all(|name| untag.contains(name));
        Ok(lines)
    }

    /// What nothing needs, and why some of that cannot be told: what cannot be read might need any blob and layer.
    fn leftovers(&self) -> Result<(Vec<Leftover>, Option<String>), StoreError> {
        let mut found = Vec::new();
        let holds = Holds::open(&self.root)?;
        for path in entries(&self.temporary_folder())? {
            if !temporary::writer_lives(&holds, &path)? {
                found.push(Leftover::new(path, "was being written by a process that is gone"));
            }
        }
        let Reached { kept, unreadable, .. } = self.reachable()?;
        if let Some(error) = unreadable.first() {
            let spared = format!("blobs and layers that no image needs: one that is damaged may need them: {error}");
            return Ok((found, Some(spared)));
        }
        for algorithm in self.blob_folders()? {
            let blobs = entries(&algorithm)?.into_iter().filter(|blob| !kept.contains(blob));
            found.extend(blobs.map(|blob| Leftover::new(blob, "is a blob that no image needs")));
        }
        let verified = entries(&self.verified_folder())?.into_iter().filter(|pair| !kept.contains(pair));
        found.extend(verified.map(|pair| Leftover::new(pair, "is the diff id of a blob that no image needs")));
        let unpacked = entries(&self.layers_folder())?.into_iter().filter(|layer| !kept.contains(layer));
        found.extend(unpacked.map(|layer| Leftover::new(layer, "is a layer that no image needs")));
        Ok((found, None))
    }

    /// Every blob and layer directory that the entries of the index reach.
    ///
    /// What is no document of its kind reaches nothing. What was damaged since it was stored, or what the system does
    /// not let us read, might reach anything.
    fn reachable(&self) -> Result<Reached, StoreError> {
        let bytes = index::read(self)?;
        let index: Entries = index::parse(self, &bytes)?;
        let mut reached = Reached::default();
        for entry in &index.manifests {
            let Ok(digest) = self.index_digest(&entry.digest) else { continue };
            reached.pending.push((digest, is_index(&entry.media_type)));
        }
        while let Some((digest, as_index)) = reached.pending.pop() {
            if reached.visited.insert((digest.clone(), as_index)) {
                self.reach(&digest, as_index, &mut reached);
            }
        }
        Ok(reached)
    }

    /// Adds a manifest or an index and what it needs.
    fn reach(&self, digest: &Digest, as_index: bool, reached: &mut Reached) {
        reached.kept.insert(self.blob_path(digest));
        if as_index {
            let Some(index) = reached.readable(self.document::<ImageIndex>(digest)) else { return };
            // One that is not here needs nothing, and an index can list any number.
            let children = index.manifests().iter().filter(|child| self.has_blob(child.digest()));
            let children = children.map(|child| (child.digest().clone(), is_index(child.media_type().as_ref())));
            reached.pending.extend(children);
            return;
        }
        let Some(manifest) = reached.readable(self.document::<ImageManifest>(digest)) else { return };
        for layer in manifest.layers() {
            reached.kept.extend([self.blob_path(layer.digest()), self.verified_path(layer.digest())]);
        }
        let config = manifest.config().digest();
        reached.kept.insert(self.blob_path(config));
        let Some(config) = reached.readable(self.bytes(config)) else { return };
        // A config of another kind has no diff ids, and so no layers.
        let Ok(config) = serde_json::from_slice::<ImageConfiguration>(&config) else { return };
        let diff_ids = config.rootfs().diff_ids().iter().filter_map(|text| layers::parse_diff_id(text).ok());
        let stack: Vec<PathBuf> = diff_ids.map(|diff_id| self.layer_dir(&diff_id)).collect();
        reached.kept.extend(self.top_of(&stack));
        reached.kept.extend(stack);
    }

    /// Takes leftovers from where they would be found: files are removed; folders, whose removal takes long, and which
    /// nobody may find half removed, are moved to names of our own and returned, to be removed once the lock is gone.
    fn take_off(&self, leftovers: &[Leftover]) -> Result<Vec<PathBuf>, StoreError> {
        let mut moved = Vec::new();
        for Leftover { path, .. } in leftovers {
            if fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
                let aside = temporary::fresh_path(self)?;
                fs::rename(path, &aside).map_err(|source| StoreError::io("moving away", path, source))?;
                moved.push(aside);
            } else {
                remove(path)?;
            }
        }
        Ok(moved)
    }
}

/// What the entries need, as far as it was followed.
#[derive(Default)]
struct Reached {
    /// Manifests, and indexes (true), that are to be looked at.
    pending: Vec<(Digest, bool)>,
    /// Those that were, each once as either, so that cycles end. That a blob is kept says nothing of what it is.
    visited: HashSet<(Digest, bool)>,
    kept: HashSet<PathBuf>,
    unreadable: Vec<StoreError>,
}

impl Reached {
    /// What does not parse is nothing; what could not be read is kept in mind.
    fn readable<T>(&mut self, read: Result<Option<T>, StoreError>) -> Option<T> {
        match read {
            Ok(found) => found,
            Err(StoreError::Malformed { .. } | StoreError::UnsupportedDigest { .. }) => None,
            Err(error) => {
                self.unreadable.push(error);
                None
            }
        }
    }
}

/// The images in use: by the caller's word, and by whoever holds one.
struct InUse {
    told: HashSet<String>,
    holds: Holds,
}

impl InUse {
    /// The first of these manifests that is used.
    fn first_of<'a>(&self, manifests: &'a [Digest]) -> Result<Option<&'a Digest>, StoreError> {
        for manifest in manifests {
            let name = manifest.as_ref();
            if self.told.contains(name) || self.holds.is_held(IMAGE, name)? {
                return Ok(Some(manifest));
            }
        }
        Ok(None)
    }
}

/// Takes away a name whose entry has no digest that could be looked up, by another tool's hand.
fn take_away_undigested(store: &Store, index: &mut Index, name: &str) -> Option<String> {
    let full = Reference::from_str(name).ok()?.to_string();
    let is_broken =
        |entry: &index::Entry| entry.name() == Some(full.as_str()) && store.index_digest(&entry.digest).is_err();
    let at = index.manifests.iter().position(is_broken)?;
    index.manifests.remove(at);
    Some(format!("Untagged: {}", familiar(&full)))
}

/// An image that loses names.
struct Going<'a> {
    media_type: &'a str,
    names: Vec<&'a str>,
    keeps_a_name: bool,
}

impl<'a> Going<'a> {
    fn new(media_type: &'a str) -> Self {
        Self { media_type, names: Vec::new(), keeps_a_name: false }
    }
}

/// What [`Store::remove`] was asked for.
struct Request<'a> {
    name: &'a str,
    force: bool,
    used: &'a InUse,
    /// Nobody writes, so images may go and not only names.
    alone: bool,
}

impl Request<'_> {
    /// Whether an image that loses its last name goes too, or stays without one. One that had none must go.
    fn may_forget(&self, manifests: &[Digest], nameless: bool) -> Result<bool, StoreError> {
        let name = self.name.to_owned();
        match self.used.first_of(manifests)? {
            Some(digest) if !self.force || nameless => Err(StoreError::InUse { name, digest: digest.clone() }),
            None if !self.alone && nameless => Err(StoreError::Busy { name }),
            used => Ok(self.alone && used.is_none()),
        }
    }
}

/// A path that nothing needs, and why.
struct Leftover {
    path: PathBuf,
    sentence: String,
}

impl Leftover {
    fn new(path: PathBuf, why: &str) -> Self {
        let sentence = format!("{} {why}", path.display());
        Self { path, sentence }
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    remove_tree(path).map_err(|source| StoreError::io("removing", path, source))
}
