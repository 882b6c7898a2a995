//! Where everything lies.

use std::{
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::PathBuf,
};

use anyhow::{Context, Result, bail};

/// Where everything lies.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// What outlives a reboot.
    pub(crate) root: PathBuf,
    /// What does not.
    pub(crate) runroot: PathBuf,
}

impl Paths {
    pub(super) fn running(&self) -> PathBuf {
        self.runroot.join("running")
    }

    pub(super) fn writable(&self) -> PathBuf {
        self.root.join("writable")
    }

    /// Compiled Wasm programs.
    pub(crate) fn compiled(&self) -> PathBuf {
        self.root.join("compiled")
    }

    /// Which of them were checked since the machine was started.
    pub(crate) fn checked(&self) -> PathBuf {
        self.runroot.join("checked")
    }

    /// Volumes.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }
}

/// ROOT and RUNROOT, from the flags, the environment (clap reads it), or the user's own defaults.
pub(super) fn default_paths(root: Option<PathBuf>, runroot: Option<PathBuf>) -> Result<Paths> {
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
