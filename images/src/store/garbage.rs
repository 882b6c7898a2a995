//! Removing images, and whatever no image needs; the rule of what is kept is on the page of [`crate::store`].

use super::{
    Store, StoreError, entries,
    index::{self, Entries, Index},
    layers,
    lock::Removing,
    removal::remove_tree,
    resolve, temporary,
};
use crate::{Reference, platform::is_index};
use oci_spec::image::{Digest, ImageConfiguration, ImageIndex, ImageManifest};
use std::{collections::HashSet, fs, path::PathBuf, str::FromStr};

impl Store {
    /// Removes a name (or by id, all its names when `force`); blobs and layers that nothing names any more go too.
    ///
    /// Returns lines `Untagged: …`, `Deleted: …`. `in_use` tells whether a container uses a manifest digest: the last
    /// name of such an image is refused, and with `force` only the name goes; the image stays without one, as it
    /// does while somebody writes. The id of a manifest in an index stands for the index.
    pub fn remove(&self, name: &str, force: bool, in_use: &dyn Fn(&Digest) -> bool) -> Result<Vec<String>, StoreError> {
        let alone = self.removing()?;
        let request = Request { name, force, in_use, alone: alone.is_some() };
        let Some(alone) = alone else { return index::edit(self, |index| self.take_away(index, &request)) };
        let lines = index::edit_alone(self, &alone, |index| self.take_away(index, &request))?;
        self.sweep(alone)?;
        Ok(lines)
    }

    /// Removes the images that have no name and that no container uses: what lost its name to a newer pull.
    ///
    /// Returns lines `Deleted: …`; none while somebody writes.
    pub fn remove_unnamed(&self, in_use: &dyn Fn(&Digest) -> bool) -> Result<Vec<String>, StoreError> {
        let Some(alone) = self.removing()? else { return Ok(Vec::new()) };
        let lines = index::edit_alone(self, &alone, |index| {
            let mut lines = Vec::new();
            for entry in index.unnamed() {
                let manifests = self.manifests_of(&self.index_digest(&entry.digest)?, &entry.media_type)?;
                if !manifests.iter().any(in_use) {
                    index.forget(&entry.digest);
                    lines.push(format!("Deleted: {}", entry.digest));
                }
            }
            Ok(lines)
        })?;
        self.sweep(alone)?;
        Ok(lines)
    }

    /// Leftovers: temporary files of dead writers, blobs and layers nothing names. Each with a sentence. `remove`:
    /// removes them too.
    ///
    /// While somebody writes nothing can be told apart: the list is empty then, or says so when it was to be removed.
    pub fn check(&self, remove: bool) -> Result<Vec<String>, StoreError> {
        let Some(alone) = self.removing()? else {
            let busy = "a pull, load or import is running: what it does not need was left alone; try again after it";
            return Ok(if remove { vec![busy.to_owned()] } else { Vec::new() });
        };
        let leftovers = if remove { self.sweep(alone)? } else { self.leftovers()? };
        Ok(leftovers.into_iter().map(|leftover| leftover.sentence).collect())
    }

    /// Removes leftovers and returns what they were.
    fn sweep(&self, alone: Removing) -> Result<Vec<Leftover>, StoreError> {
        let leftovers = self.leftovers()?;
        let moved = self.take_off(&leftovers)?;
        drop(alone);
        moved.iter().try_for_each(|path| remove_tree(path))?;
        Ok(leftovers)
    }

    fn take_away(&self, index: &mut Index, request: &Request) -> Result<Vec<String>, StoreError> {
        let name = request.name;
        let target = self.find_in(index, name)?.ok_or_else(|| StoreError::NotFound { name: name.to_owned() })?;
        let entry = target.entry.to_string();
        let all = index.names_of(&entry);
        let full = Reference::from_str(name).map(|reference| reference.to_string()).ok();
        let names = full.filter(|full| all.contains(full)).map_or_else(|| all.clone(), |full| vec![full]);
        if names.len() > 1 && !request.force {
            return Err(StoreError::SeveralNames { id: name.to_owned(), names });
        }
        let manifests = self.manifests_of(&target.entry, target.media_type())?;
        let forget = names.len() == all.len() && request.may_forget(&manifests, names.is_empty())?;
        let mut lines: Vec<String> = names.iter().map(|name| format!("Untagged: {}", familiar(name))).collect();
        if forget {
            index.forget(&entry);
            lines.extend(manifests.iter().map(|manifest| format!("Deleted: {manifest}")));
        } else {
            names.iter().for_each(|name| index.untag(name));
        }
        Ok(lines)
    }

    /// What a name or id stands for in an index that is being changed.
    fn find_in(&self, index: &Index, name: &str) -> Result<Option<resolve::Target>, StoreError> {
        let bytes = index.to_bytes(self)?;
        self.find(&index::parse::<Entries>(self, &bytes)?, name)
    }

    fn leftovers(&self) -> Result<Vec<Leftover>, StoreError> {
        let kept = self.reachable()?;
        let mut found = Vec::new();
        for path in entries(&self.temporary_folder())? {
            if !temporary::writer_lives(&path) {
                found.push(Leftover::new(path, "was being written by a process that is gone"));
            }
        }
        for algorithm in entries(&self.layout().join("blobs"))? {
            let blobs = entries(&algorithm)?.into_iter().filter(|blob| !kept.contains(blob));
            found.extend(blobs.map(|blob| Leftover::new(blob, "is a blob that no image needs")));
        }
        let unpacked = entries(&self.layers_folder())?.into_iter().filter(|layer| !kept.contains(layer));
        found.extend(unpacked.map(|layer| Leftover::new(layer, "is a layer that no image needs")));
        Ok(found)
    }

    /// Every blob and layer directory that the entries of the index reach.
    fn reachable(&self) -> Result<HashSet<PathBuf>, StoreError> {
        let bytes = index::read(self)?;
        let index: Entries = index::parse(self, &bytes)?;
        let mut kept = HashSet::new();
        for entry in &index.manifests {
            self.reach(&self.index_digest(&entry.digest)?, &entry.media_type, &mut kept)?;
        }
        Ok(kept)
    }

    /// Adds a manifest or index and what it needs. Each is visited once, so that cycles end.
    fn reach(&self, digest: &Digest, media_type: &str, kept: &mut HashSet<PathBuf>) -> Result<(), StoreError> {
        let mut pending = vec![(digest.clone(), media_type.to_owned())];
        while let Some((digest, media_type)) = pending.pop() {
            if !kept.insert(self.blob_path(&digest)) {
                continue;
            }
            if is_index(&media_type) {
                let Some(index) = self.document::<ImageIndex>("index", &digest)? else { continue };
                let children =
                    index.manifests().iter().map(|child| (child.digest().clone(), child.media_type().to_string()));
                pending.extend(children);
            } else if let Some(manifest) = self.document::<ImageManifest>("manifest", &digest)? {
                self.reach_parts(&manifest, kept);
            }
        }
        Ok(())
    }

    fn reach_parts(&self, manifest: &ImageManifest, kept: &mut HashSet<PathBuf>) {
        let config = manifest.config().digest();
        kept.extend(manifest.layers().iter().map(|layer| self.blob_path(layer.digest())));
        kept.insert(self.blob_path(config));
        // A config of another kind has no diff ids, and so no layers.
        let Ok(Some(config)) = self.document::<ImageConfiguration>("config", config) else { return };
        let diff_ids = config.rootfs().diff_ids().iter().filter_map(|text| layers::parse_diff_id(text).ok());
        kept.extend(diff_ids.map(|diff_id| self.layer_dir(&diff_id)));
    }

    /// Takes leftovers from where they would be found: small things are removed; layers, whose removal takes long, are
    /// moved to `temporary/` and returned, to be removed once the lock is gone.
    fn take_off(&self, leftovers: &[Leftover]) -> Result<Vec<PathBuf>, StoreError> {
        let mut moved = Vec::new();
        for Leftover { path, .. } in leftovers {
            if path.parent() == Some(&self.layers_folder()) {
                let aside = temporary::fresh_path(self);
                fs::rename(path, &aside).map_err(|source| StoreError::io("moving away", path, source))?;
                moved.push(aside);
            } else {
                remove_tree(path)?;
            }
        }
        Ok(moved)
    }
}

/// What [`Store::remove`] was asked for.
struct Request<'a> {
    name: &'a str,
    force: bool,
    in_use: &'a dyn Fn(&Digest) -> bool,
    /// Nobody writes, so images may go and not only names.
    alone: bool,
}

impl Request<'_> {
    /// Whether an image that loses its last name goes too, or stays without one. One that had none must go.
    fn may_forget(&self, manifests: &[Digest], nameless: bool) -> Result<bool, StoreError> {
        let name = self.name.to_owned();
        match manifests.iter().find(|manifest| (self.in_use)(manifest)) {
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

fn familiar(full: &str) -> String {
    Reference::from_str(full).map_or_else(|_| full.to_owned(), |reference| reference.familiar())
}
