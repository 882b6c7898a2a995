//! What a container with `--rm` uses of ROOT, where no record tells of it: held as long as a process of amphora's has to do with it.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use images::holds::{Holds, IMAGE};

use super::{
    Container, Containers,
    files::{folder_entries, is_there, remove_folder},
};
use crate::spec::names;

/// What [`Holds`] know of containers besides images: their ids, their names, their volumes.
const CONTAINER: &str = "container";
const NAME: &str = "container name";
pub(crate) const VOLUME: &str = "volume";

impl Containers {
    /// Shows to all who see ROOT what a container with `--rm` uses of it, until it is removed or this process ends: its records are
    /// in RUNROOT. Of a container whose record lies in ROOT there is nothing to do.
    ///
    /// The caller holds `Store::writing` since before he looked for the image.
    pub(crate) fn hold(&self, container: &Container) -> Result<()> {
        let spec = &container.spec;
        let mut held = container.held.borrow_mut();
        if !spec.auto_remove || held.is_some() {
            return Ok(());
        }
        let holds = Holds::open(&self.paths.root)?;
        spec.images().try_for_each(|digest| holds.take(IMAGE, digest))?;
        holds.take(CONTAINER, &spec.id)?;
        holds.take(NAME, &spec.name)?;
        spec.volumes().try_for_each(|volume| holds.take(VOLUME, volume))?;
        *held = Some(holds);
        Ok(())
    }

    /// Two commands with different RUNROOTs that want one name may both find it held, but never both get it.
    pub(super) fn refuse_held_name(&self, container: &Container) -> Result<()> {
        let name = &container.spec.name;
        let own = container.held.borrow();
        let is_held = match &*own {
            Some(own) => own.is_held(NAME, name)?,
            None => Holds::open(&self.paths.root)?.is_held(NAME, name)?,
        };
        if is_held {
            bail!(
                "the container name \"{name}\" is taken by a container with --rm that runs with another --runroot \
                 (XDG_RUNTIME_DIR chooses it, too); choose another name, or remove it there"
            );
        }
        Ok(())
    }

    /// Containers with `--rm` whose records are in another RUNROOT, each with a sentence, as far as they have a writable layer.
    pub(crate) fn elsewhere(&self) -> Result<Vec<String>> {
        let holds = Holds::open(&self.paths.root)?;
        let mut found = Vec::new();
        for folder in self.foreign_writable()? {
            if holds.is_held(CONTAINER, &file_name(&folder))? {
                let id = file_name(&folder);
                found.push(format!(
                    "container {}, which runs with another --runroot: {}",
                    names::short_id(&id),
                    folder.display()
                ));
            }
        }
        Ok(found)
    }

    /// Writable layers of no container that is known here.
    fn foreign_writable(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for folder in folder_entries(&self.paths.writable())? {
            // Looked at once more, as a container takes its own folder with it.
            if !is_there(&self.passing.folder(file_name(&folder)))? && is_there(&folder)? {
                found.push(folder);
            }
        }
        Ok(found)
    }

    /// What is written on disk belongs to a container that is removed when it ends, until a reboot forgets that one; unless somebody
    /// holds it, who has another RUNROOT.
    pub(super) fn check_writable(&self, remove: bool, found: &mut Vec<String>) -> Result<()> {
        let holds = Holds::open(&self.paths.root)?;
        for folder in self.foreign_writable()? {
            if holds.is_held(CONTAINER, &file_name(&folder))? {
                continue;
            }
            found.push(format!("writable layer without a container: {}", folder.display()));
            if remove {
                remove_folder(&folder)?;
            }
        }
        Ok(())
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
