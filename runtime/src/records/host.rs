//! The machine as one command sees it: the store, the containers, and what this user may do.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use images::Store;
use linux_exec::userns::{self, IdMap};

use crate::network::Networks;
use crate::records::{
    container::Containers,
    events::EventLog,
    own_process::THIS_PROGRAM,
    paths::{Paths, default_paths},
    places,
    volumes::Volumes,
};

/// What amphora keeps, and where. Opened once per command.
pub struct Host {
    pub(crate) paths: Paths,
    pub(crate) store: Store,
    pub(crate) containers: Containers,
    pub(crate) volumes: Volumes,
    pub(crate) networks: Networks,
    /// What happened.
    pub(crate) events: EventLog,
    /// The amphora that its own processes are started from.
    pub(crate) program: PathBuf,
}

impl Host {
    /// Finds the places and opens the store, with the rights that the caller has. Both have defaults: `/var/lib/amphora` and
    /// `/run/amphora` for root, folders of their own for everybody else.
    ///
    /// # Errors
    /// A place that cannot be used, or that others can write to.
    pub fn open(root: Option<PathBuf>, runroot: Option<PathBuf>) -> Result<Self> {
        Self::at(default_paths(root, runroot)?)
    }

    /// For the processes that amphora starts itself: the paths are decided.
    pub(crate) fn inherited(root: &Path, runroot: &Path) -> Result<Self> {
        become_root()?;
        Self::at(Paths { root: root.to_owned(), runroot: runroot.to_owned() })
    }

    fn at(paths: Paths) -> Result<Self> {
        places::check(&paths)?;
        let store = Store::open(&paths.root).with_context(|| {
            format!("cannot use {} (--root or AMPHORA_ROOT chooses another place)", paths.root.display())
        })?;
        let (containers, volumes, networks) = (Containers::new(&paths), Volumes::new(&paths), Networks::new(&paths));
        let events = EventLog::in_folder(&paths.runroot);
        Ok(Self { paths, store, containers, volumes, networks, events, program: PathBuf::from(THIS_PROGRAM) })
    }

    /// For programs that are not `amphora`: where that is, of which supervisors and compilers are started.
    #[must_use]
    pub fn with_program(self, amphora: PathBuf) -> Self {
        Self { program: amphora, ..self }
    }

    /// The images.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The manifest digest of the image that a container was made from, as its record says. `wanted`: its name, id, or the beginning of
    /// that.
    ///
    /// # Errors
    /// There is no such container, there are several, or its record cannot be read.
    pub fn image_of(&self, wanted: &str) -> Result<String> {
        Ok(self.containers.find(wanted)?.spec.image.digest)
    }

    /// Manifest digests of all images that a container was made from.
    pub(crate) fn image_digests_in_use(&self) -> Result<HashSet<String>> {
        let (containers, unreadable) = self.containers.list()?;
        let images = containers.iter().flat_map(|container| container.spec.images());
        let mut used: HashSet<String> = images.map(str::to_owned).collect();
        for container in &unreadable {
            used.extend(container.mentions()?.iter().cloned());
        }
        Ok(used)
    }

    /// The volumes that containers have, each with the name of one that has it.
    pub(crate) fn volumes_in_use(&self) -> Result<BTreeMap<String, String>> {
        let (containers, unreadable) = self.containers.list()?;
        let specs = containers.iter().map(|container| &container.spec);
        let mut used: BTreeMap<String, String> =
            specs.flat_map(|spec| spec.volumes().map(|name| (name.to_owned(), spec.name.clone()))).collect();
        for container in &unreadable {
            used.extend(container.mentions()?.iter().map(|text| (text.clone(), container.id.clone())));
        }
        Ok(used)
    }

    /// The same as the store asks for it, when it is about to remove images.
    pub(crate) fn images_used(&self) -> Result<HashSet<String>, String> {
        self.image_digests_in_use().map_err(|error| format!("{error:#}"))
    }
}

/// Becomes root in a user namespace, where the caller is not root already: for what makes or removes files of an image's
/// own users. What only looks, or signals, is better done without: from inside one such namespace, a process that runs as
/// another id in a second one is out of reach.
pub(crate) fn become_root() -> Result<IdMap> {
    Ok(userns::become_root()?)
}
