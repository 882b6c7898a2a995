//! The machine as one command sees it: the store, the containers, and what this user may do.

use std::{
    collections::HashSet,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use images::Store;
use linux_exec::{
    plan::{Mount, MountSource},
    userns::{self, IdMap},
};
use wasm_exec::CodeCache;

use crate::{
    container::{Containers, Paths},
    mounts::{MountKind, MountSpec},
    places,
    spec::RunSpec,
    target::Target,
    volumes::Volumes,
    wasm_process,
};

/// Opened once per command.
pub(crate) struct Host {
    pub(crate) paths: Paths,
    pub(crate) store: Store,
    pub(crate) containers: Containers,
    pub(crate) volumes: Volumes,
}

impl Host {
    /// Finds the places and opens the store, with the rights that the caller has.
    pub(crate) fn open(root: Option<PathBuf>, runroot: Option<PathBuf>) -> Result<Self> {
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
        let (containers, volumes) = (Containers::new(&paths), Volumes::new(&paths));
        Ok(Self { paths, store, containers, volumes })
    }

    /// The user's mounts as the kernel is to make them. Named volumes are made on first use.
    pub(crate) fn lower_mounts(&self, spec: &RunSpec) -> Result<Vec<Mount>> {
        spec.mounts.iter().map(|mount| self.lower_mount(mount)).collect()
    }

    fn lower_mount(&self, mount: &MountSpec) -> Result<Mount> {
        let source = match &mount.kind {
            MountKind::Bind { source, recursive } => {
                check_source(source, &mount.target)?;
                MountSource::Bind { source: source.clone(), recursive: *recursive }
            }
            MountKind::Volume { name, copy: _ } => {
                let name = name.as_deref().context("a volume without a name")?;
                MountSource::Bind { source: self.volumes.make(name)?, recursive: true }
            }
            MountKind::Tmpfs { size_bytes, mode, exec } => {
                MountSource::Tmpfs { size_bytes: *size_bytes, mode: *mode, exec: *exec }
            }
        };
        Ok(Mount { target: mount.target.clone(), source, readonly: mount.readonly })
    }

    /// Manifest digests of all images that a container was made from.
    pub(crate) fn image_digests_in_use(&self) -> Result<HashSet<String>> {
        let (containers, unreadable) = self.containers.list()?;
        let mut used: HashSet<String> = containers.into_iter().map(|container| container.spec.image.digest).collect();
        for container in &unreadable {
            used.extend(container.mentions()?.iter().cloned());
        }
        Ok(used)
    }

    /// The same as the store asks for it, when it is about to remove images.
    pub(crate) fn images_used(&self) -> Result<HashSet<String>, String> {
        self.image_digests_in_use().map_err(|error| format!("{error:#}"))
    }

    /// Compiled code of no image that is here: one sentence each; removed when `remove`.
    pub(crate) fn check_compiled(&self, remove: bool) -> Result<Vec<String>> {
        let mut keys = HashSet::new();
        for image in self.store.list()? {
            // Of an image whose key cannot be told no code was ever compiled.
            if let Some(key) = Target::of(&image).ok().and_then(|target| wasm_process::cache_key(&target, &image).ok())
            {
                keys.insert(key);
            }
        }
        let stale = CodeCache::new(self.paths.compiled()).stale(&|key| keys.contains(key))?;
        if remove {
            stale.iter().try_for_each(|path| match std::fs::remove_file(path) {
                // Another command may clean up at the same time.
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(error).with_context(|| format!("cannot remove {}", path.display()))
                }
                _ => Ok(()),
            })?;
        }
        Ok(stale.iter().map(|path| format!("compiled code of no image: {}", path.display())).collect())
    }
}

/// Becomes root in a user namespace, where the caller is not root already: for what makes or removes files of an image's
/// own users. What only looks, or signals, is better done without: from inside one such namespace, a process that runs as
/// another id in a second one is out of reach.
pub(crate) fn become_root() -> Result<IdMap> {
    Ok(userns::become_root()?)
}

fn check_source(source: &Path, target: &Path) -> Result<()> {
    source.symlink_metadata().map(drop).map_err(|error| {
        anyhow!(
            "volume source {} for {} cannot be used: {error}; make it first, or use a volume name without a slash",
            source.display(),
            target.display()
        )
    })
}

/// ROOT and RUNROOT, from the flags, the environment (clap reads it), or the user's own defaults.
fn default_paths(root: Option<PathBuf>, runroot: Option<PathBuf>) -> Result<Paths> {
    let rootless = !nix::unistd::geteuid().is_root();
    let root = match root {
        Some(root) => std::path::absolute(root)?,
        None if rootless => data_home()?.join("amphora"),
        None => PathBuf::from("/var/lib/amphora"),
    };
    let runroot = match runroot {
        Some(runroot) => std::path::absolute(runroot)?,
        None if rootless => user_runroot()?,
        None => PathBuf::from("/run/amphora"),
    };
    Ok(Paths { root, runroot })
}

fn data_home() -> Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local/share")))
        .context("neither XDG_DATA_HOME nor HOME is set: say with --root where images and containers are to lie")
}

/// `$XDG_RUNTIME_DIR/amphora`; where there is none, a private folder in /tmp that only this user can have made.
fn user_runroot() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute()) {
        return Ok(dir.join("amphora"));
    }
    let uid = nix::unistd::geteuid().as_raw();
    let dir = std::env::temp_dir().join(format!("amphora-{uid}"));
    match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("cannot make {}", dir.display()));
        }
        _ => {}
    }
    let found = dir.symlink_metadata().with_context(|| format!("cannot look at {}", dir.display()))?;
    if !found.is_dir() || found.uid() != uid || found.mode() & 0o077 != 0 {
        bail!("{} is not a private folder of user {uid}; set XDG_RUNTIME_DIR, or use --runroot", dir.display());
    }
    Ok(dir)
}
