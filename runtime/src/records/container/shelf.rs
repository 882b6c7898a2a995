//! Folders and names of containers. There are two shelves of them: one in ROOT, and one in RUNROOT, which is memory on most
//! machines, for those that are removed when they end and so need not outlive a reboot.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::files::{
    Lock, folder_entries, is_there, lock_alone, lock_together, make_private_folder, remove_if, try_lock,
};
use crate::spec::RunSpec;

/// One shelf.
pub(super) struct Shelf {
    containers: PathBuf,
    names: PathBuf,
}

impl Shelf {
    /// The shelf in ROOT or RUNROOT; nothing is made.
    pub(super) fn in_folder(parent: &Path) -> Self {
        Self { containers: parent.join("containers"), names: parent.join("names") }
    }

    /// Makes the shelf itself.
    pub(super) fn make(&self) -> Result<()> {
        make_private_folder(&self.containers)?;
        make_private_folder(&self.names)
    }

    /// Held while a folder is made and not yet locked, by as many as make one.
    pub(super) fn making(&self) -> Result<Option<Lock>> {
        lock_together(&self.containers)
    }

    /// Held while a folder without a spec is judged: nobody is just about to lock it.
    pub(super) fn nobody_makes(&self) -> Result<Option<Lock>> {
        lock_alone(&self.containers)
    }

    /// Where a container's records are.
    pub(super) fn folder(&self, id: impl AsRef<Path>) -> PathBuf {
        self.containers.join(id)
    }

    /// Names of all folders, half-made ones too.
    pub(super) fn ids(&self) -> Result<Vec<String>> {
        let folders = folder_entries(&self.containers)?;
        Ok(folders.iter().filter_map(|folder| Some(folder.file_name()?.to_str()?.to_owned())).collect())
    }

    /// The id that a name leads to, whether or not there is such a container.
    pub(super) fn owner(&self, name: &str) -> Result<Option<String>> {
        if name.is_empty() || name.contains('/') {
            return Ok(None);
        }
        let link = self.names.join(name);
        match fs::read_link(&link) {
            Ok(id) => Ok(Some(id.to_string_lossy().into_owned())),
            Err(error) if is_no_name(&error) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", link.display())),
        }
    }

    /// Claims a name for a container whose folder is there and locked. A link to no folder, or to one that nobody holds
    /// and that has no spec, was left by a killed command and is taken over, by one command at a time. The id of the
    /// container that has the name already, if there is one.
    pub(super) fn claim_name(&self, spec: &RunSpec) -> Result<Option<String>> {
        if self.link_name(spec)? {
            return Ok(None);
        }
        let _one_at_a_time = lock_alone(&self.names)?;
        let owner = self.owner(&spec.name)?.unwrap_or_default();
        if self.is_dead(&owner)? {
            // Gone already is fine: then the link is free, or somebody else's.
            let _ = fs::remove_file(self.names.join(&spec.name));
            if self.link_name(spec)? {
                return Ok(None);
            }
        }
        Ok(Some(owner))
    }

    /// The living container that has a name.
    pub(super) fn living_owner(&self, name: &str) -> Result<Option<String>> {
        let Some(owner) = self.owner(name)? else { return Ok(None) };
        Ok((!self.is_dead(&owner)?).then_some(owner))
    }

    /// False if the name is taken.
    fn link_name(&self, spec: &RunSpec) -> Result<bool> {
        let link = self.names.join(&spec.name);
        match std::os::unix::fs::symlink(&spec.id, &link) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot make {}", link.display())),
        }
    }

    /// Gives a name back, if it is this container's.
    pub(super) fn drop_name(&self, spec: &RunSpec) -> Result<()> {
        let is_ours = self.owner(&spec.name)?.is_some_and(|owner| owner == spec.id);
        remove_if(is_ours, &self.names.join(&spec.name))
    }

    /// Whether nobody makes or has made the container of this id.
    fn is_dead(&self, id: &str) -> Result<bool> {
        let dir = self.folder(id);
        if !is_there(&dir)? {
            return Ok(true);
        }
        Ok(try_lock(&dir)?.is_some() && !is_there(&dir.join("spec.json"))?)
    }

    /// The names that lead to an id.
    pub(super) fn names_of(&self, id: &str) -> Result<Vec<PathBuf>> {
        let mut links = folder_entries(&self.names)?;
        links.retain(|link| fs::read_link(link).is_ok_and(|owner| owner.as_os_str() == id));
        Ok(links)
    }

    /// Names that lead nowhere, each with a sentence; removed when `remove`.
    pub(super) fn check_names(&self, remove: bool, found: &mut Vec<String>) -> Result<()> {
        for link in folder_entries(&self.names)? {
            let owner = fs::read_link(&link).unwrap_or_default();
            if !is_there(&self.folder(owner))? {
                found.push(format!("name without a container: {}", link.display()));
                remove_if(remove, &link)?;
            }
        }
        Ok(())
    }
}

/// Whether reading a link failed because there is none of that name, and not for another reason.
fn is_no_name(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput | ErrorKind::InvalidFilename)
}
