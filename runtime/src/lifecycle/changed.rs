//! What a container has changed of its image's files: its writable layer against those below.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, statat},
    io::Errno,
};

use super::start::image_of;
use crate::records::{container::Container, host::Host, tree};

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Changed,
    Removed,
}

/// Where the runtime mounts files of its own, for which it makes empty ones.
const MOUNT_POINTS: [&str; 6] = ["/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// All changes, in order of their paths.
pub(crate) fn changes(host: &Host, container: &Container) -> Result<Vec<(Change, PathBuf)>> {
    container.writable()?;
    let Some(upper) = container.upper()? else { return Ok(Vec::new()) };
    let layers = host.store.layers(&image_of(host, &container.spec)?)?;
    let open = |path: &PathBuf| {
        let opened = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        opened.with_context(|| format!("cannot open {}", path.display()))
    };
    // The uppermost first.
    let layers = layers.iter().rev().map(open).collect::<Result<_>>()?;
    let mounts = container.spec.mounts.iter().map(|mount| mount.target.clone());
    let hidden = MOUNT_POINTS.iter().map(PathBuf::from).chain(mounts).collect();
    let mut walk = Walk { layers, hidden, found: Vec::new() };
    let upper = open_directory(CWD, upper.as_os_str()).with_context(|| format!("cannot open {}", upper.display()))?;
    walk.directory(&upper, Path::new("/"), 0)?;
    walk.found.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(walk.found)
}

struct Walk {
    layers: Vec<OwnedFd>,
    hidden: Vec<PathBuf>,
    found: Vec<(Change, PathBuf)>,
}

fn open_directory(parent: impl AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

impl Walk {
    fn directory(&mut self, here: &OwnedFd, path: &Path, depth: usize) -> Result<()> {
        const MAX_DEPTH: usize = 250;
        if depth > MAX_DEPTH {
            bail!("{} is more than {MAX_DEPTH} directories deep", path.display());
        }
        for name in tree::names(here.as_fd())? {
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            let found = match statat(here, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
                // It runs, and has removed it meanwhile.
                Err(Errno::NOENT) => continue,
                found => found.with_context(|| format!("cannot look at {}", path.display()))?,
            };
            let kind = FileType::from_raw_mode(found.st_mode);
            let is_below = self.is_below(&path)?;
            let is_hidden = self.hidden.contains(&path);
            // overlayfs: what is gone.
            if kind == FileType::CharacterDevice && found.st_rdev == 0 {
                self.found.extend((is_below && !is_hidden).then_some((Change::Removed, path)));
                continue;
            }
            if kind == FileType::Directory {
                let below = match open_directory(here, OsStr::from_bytes(name.to_bytes())) {
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                    below => below.with_context(|| format!("cannot open {}", path.display()))?,
                };
                let before = self.found.len();
                self.directory(&below, &path, depth + 1)?;
                // One in which only mount points were made is as it was.
                if is_hidden
                    || (self.found.len() == before && self.hidden.iter().any(|hidden| hidden.starts_with(&path)))
                {
                    continue;
                }
            } else if is_hidden {
                continue;
            }
            self.found.push((if is_below { Change::Changed } else { Change::Added }, path));
        }
        Ok(())
    }

    /// Whether the image has something there.
    fn is_below(&self, path: &Path) -> Result<bool> {
        let below = path.strip_prefix("/").unwrap_or(path);
        for layer in &self.layers {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            match openat2(layer, below, flags, Mode::empty(), resolve) {
                Ok(found) => {
                    let found = fstat(&found)?;
                    let is_whiteout =
                        FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice && found.st_rdev == 0;
                    return Ok(!is_whiteout);
                }
                // LOOP: the last part is a link itself, which with O_PATH is no error, or one above it is.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(errno).with_context(|| format!("cannot look at {}", path.display())),
            }
        }
        Ok(false)
    }
}
