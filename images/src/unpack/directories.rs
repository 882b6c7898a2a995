//! The directories of the target, opened beneath it and kept open while entries go into them.
//!
//! Archives are written depth first, so the directories from the root down to the last entry's parent are almost always
//! the ones the next entry needs. They are kept as a stack of descriptors; what is not on it is opened by one `openat2`
//! that follows no symbolic link. Only where that fails does the slow walk begin, which follows the layer's own links
//! inside the root and makes directories that the archive left out.
//!
//! A name of a few bytes can lead through forty links of thousands of components each. What links lead through is
//! charged to the budget step by step, which is why the kernel (`RESOLVE_IN_ROOT`) is not asked: it does not say how far
//! it went.

use super::names;
use crate::Budget;
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat2, readlinkat, statat, unlinkat},
    io::{Errno, Result},
};
use std::{collections::VecDeque, os::fd::OwnedFd};

/// Descriptors kept; a deeper tree reopens some, it does not exhaust the process's limit.
const KEPT: usize = 48;
/// Symbolic links followed for one name, as the kernel does (path_resolution(7)).
const LINKS: usize = 40;
/// Components walked for one name, those of links included: as many as a path can have, twice.
const STEPS: usize = 4096;

/// An open directory.
pub(super) struct Directory {
    pub(super) fd: OwnedFd,
    /// As an entry names it.
    given: Vec<u8>,
    /// Its path without symbolic links.
    pub(super) path: Vec<u8>,
}

/// What becomes of a directory on the way that does not exist.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Made,
    Refused,
}

/// The target and what of it is open.
pub(super) struct Directories {
    root: Directory,
    stack: Vec<Directory>,
    /// What is on the stack may be called something else by now.
    stale: bool,
    made: Vec<Made>,
    budget: Budget,
}

/// A directory that no entry had asked for.
pub(super) struct Made {
    /// Its path without symbolic links.
    pub(super) path: Vec<u8>,
    /// It took the place of a whiteout.
    pub(super) replaced: bool,
}

impl Directories {
    pub(super) fn new(root: OwnedFd, budget: &Budget) -> Self {
        Self {
            root: Directory { fd: root, given: Vec::new(), path: Vec::new() },
            stack: Vec::new(),
            stale: false,
            made: Vec::new(),
            budget: budget.clone(),
        }
    }

    pub(super) fn root(&self) -> &OwnedFd {
        &self.root.fd
    }

    /// Opens the directory that a clean name calls, and those above it that do not exist yet.
    pub(super) fn enter(&mut self, name: &[u8]) -> Result<&Directory> {
        if std::mem::take(&mut self.stale) {
            self.stack.clear();
        }
        while self.stack.last().is_some_and(|top| names::beneath(&top.given, name).is_none()) {
            self.stack.pop();
        }
        let top = self.stack.last().unwrap_or(&self.root);
        let rest = names::beneath(&top.given, name).unwrap_or(name);
        if !rest.is_empty() {
            let (fd, path) = match open_beneath(&top.fd, rest) {
                Ok(fd) => (fd, names::join(&top.path, rest)),
                Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => self.walk(name, Missing::Made)?,
                Err(error) => return Err(error),
            };
            if self.stack.len() == KEPT {
                self.stack.remove(0);
            }
            self.stack.push(Directory { fd, given: name.to_vec(), path });
        }
        Ok(self.current())
    }

    /// The directory that was entered last.
    pub(super) fn current(&self) -> &Directory {
        self.stack.last().unwrap_or(&self.root)
    }

    /// Opens an existing directory without keeping it, by the path that [`Directory::path`] gave.
    pub(super) fn open(&self, path: &[u8]) -> Result<OwnedFd> {
        if path.is_empty() {
            self.root.fd.try_clone().map_err(|_| Errno::MFILE)
        } else {
            open_beneath(&self.root.fd, path)
        }
    }

    /// Resolves an existing directory inside the root, following links there, without keeping it.
    pub(super) fn resolve(&mut self, name: &[u8]) -> Result<OwnedFd> {
        match self.open(name) {
            Err(Errno::LOOP | Errno::NOTDIR) => self.walk(name, Missing::Refused).map(|(fd, _)| fd),
            other => other,
        }
    }

    /// Whether a name leads through a symbolic link of this layer, or is one.
    pub(super) fn is_behind_link(&self, name: &[u8]) -> bool {
        !name.is_empty() && matches!(open_beneath(&self.root.fd, name), Err(Errno::LOOP))
    }

    /// Closes all.
    pub(super) fn forget(&mut self) {
        self.stack.clear();
    }

    /// Closes all when the next one is entered: something was replaced, and may have been a link, or on the stack.
    pub(super) fn forget_at_next(&mut self) {
        self.stale = true;
    }

    /// Directories made on the way since the last call.
    pub(super) fn take_made(&mut self) -> Vec<Made> {
        std::mem::take(&mut self.made)
    }

    /// Component by component from the root: follows links as if the root were `/`.
    fn walk(&mut self, name: &[u8], missing: Missing) -> Result<(OwnedFd, Vec<u8>)> {
        let mut ahead: VecDeque<Vec<u8>> = names::components(name).map(<[u8]>::to_vec).collect();
        let (mut at, mut path) = (self.open(b"")?, Vec::new());
        let (mut links, mut steps) = (0, 0);
        while let Some(component) = ahead.pop_front() {
            steps += 1;
            // Those of the name itself were read from the archive.
            if steps > STEPS || (links > 0 && self.budget.steps(1).is_err()) {
                return Err(Errno::LOOP);
            }
            if component == b".." {
                path.truncate(names::split(&path).0.len());
                at = self.open(&path)?;
                continue;
            }
            match open_beneath(&at, &component) {
                Err(Errno::LOOP | Errno::NOTDIR) => {}
                found => {
                    path = names::join(&path, &component);
                    at = match found {
                        Err(Errno::NOENT) if missing == Missing::Made => self.make(&at, &component, &path, false)?,
                        found => found?,
                    };
                    continue;
                }
            }
            match readlinkat(&at, &component, Vec::new()) {
                Ok(link) => {
                    links += 1;
                    follow(link.as_bytes(), &mut path, &mut ahead, links)?;
                    if path.is_empty() {
                        at = self.open(b"")?;
                    }
                }
                Err(Errno::INVAL) if missing == Missing::Made => {
                    path = names::join(&path, &component);
                    at = self.replace_whiteout(&at, &component, &path)?;
                }
                Err(Errno::INVAL) => return Err(Errno::NOTDIR),
                Err(error) => return Err(error),
            }
        }
        Ok((at, path))
    }

    fn make(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8], replaced: bool) -> Result<OwnedFd> {
        if path.len() > names::PATH_BYTES {
            return Err(Errno::NAMETOOLONG);
        }
        mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
        self.made.push(Made { path: path.to_vec(), replaced });
        open_beneath(parent, name)
    }

    /// A whiteout followed by entries beneath the same name: the old directory is gone, a new one is there.
    fn replace_whiteout(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<OwnedFd> {
        if !is_whiteout(parent, name)? {
            return Err(Errno::NOTDIR);
        }
        unlinkat(parent, name, AtFlags::empty())?;
        self.make(parent, name, path, true)
    }
}

/// Puts a link's target in front of what is still to walk.
fn follow(target: &[u8], path: &mut Vec<u8>, ahead: &mut VecDeque<Vec<u8>>, links: usize) -> Result<()> {
    if links > LINKS {
        return Err(Errno::LOOP);
    }
    if target.starts_with(b"/") {
        path.clear();
    }
    for component in names::components(target).rev() {
        ahead.push_front(component.to_vec());
    }
    Ok(())
}

/// Whether a name is overlayfs's mark for "removed".
pub(super) fn is_whiteout(directory: &OwnedFd, name: &[u8]) -> Result<bool> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0)
}

fn open_beneath(base: &OwnedFd, path: &[u8]) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(base, path, directory_flags(), Mode::empty(), resolve)
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC
}
