//! Directories that a layer's archive leaves out: what they are like is decided by the layers below.
//!
//! An archive with `usr/bin/app` need not have `usr/`. Unpacked, the layer must have that directory, and mounted on others
//! its mode and owner would hide theirs. But what those are the layer cannot know: images have it on different bases. So
//! unpacking only marks such directories ([`Mark`]), and a stack with marked ones gets one more directory on top, found
//! by the names of its layers and shared by all images that have just these:
//!
//! ```text
//! layers/<32 hex of a hash of the stack>/    nothing but the directories left out and those above them, each with mode,
//!                                            owner, time and attributes of the topmost layer that does not leave it out
//! ```
//!
//! It is made when the stack is first asked for, which a pull does; `run` reads one attribute a layer. Most archives leave
//! the root out: for that alone a stack gets the directory only where mode or owner would be others.

use super::{
    Store, StoreError,
    layers::{is_diff_id_attribute, visible},
    merged::{Found, look},
    sizes::is_size_attribute,
};
use crate::unpack::{Mark, hex, is_overlay_attribute, plan::MOST_LAYERS};
use oci_spec::image::Digest;
use rustix::{
    fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, lgetxattr, llistxattr, lsetxattr, utimensat},
    io::Errno,
};
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, chown},
    },
    path::{Path, PathBuf},
    str::FromStr,
};

/// No attribute has a longer value, and no file longer names of attributes: `XATTR_SIZE_MAX`, `XATTR_LIST_MAX` (xattr(7)).
const ATTRIBUTE_BYTES: usize = 64 << 10;

impl Store {
    /// Those of an image's layers that show, base first, with the directory on top that they need; made where it is not
    /// there.
    pub(super) fn completed(&self, all: &[PathBuf]) -> Result<Vec<PathBuf>, StoreError> {
        let mut stack = visible(all);
        // On as many layers as can be stacked nothing goes on top.
        let Some(name) = name(all).filter(|_| stack.len() < MOST_LAYERS) else { return Ok(stack) };
        let top = self.layer_dir(&name);
        if !top.is_dir() {
            let stage = self.stage_layer(&name)?;
            let failed = |source| StoreError::io("making the directories that layers left out in", &stage.path, source);
            fill(&stage.path, all, &stack).map_err(failed)?;
            stage.commit()?;
        }
        stack.push(top);
        Ok(stack)
    }

    /// The directory that a stack of layers gets on top, if it gets one.
    pub(super) fn top_of(&self, all: &[PathBuf]) -> Option<PathBuf> {
        name(all).map(|name| self.layer_dir(&name))
    }
}

/// What stands for a stack that needs a directory on top. None: it needs none.
fn name(all: &[PathBuf]) -> Option<Digest> {
    let (top, below) = all.split_last()?;
    if below.is_empty() {
        return None;
    }
    let marks: Vec<Mark> = all.iter().map(|layer| Mark::of(layer)).collect();
    let differs = || {
        let attributes = |layer: &PathBuf| fs::symlink_metadata(layer).map(|it| (it.mode(), it.uid(), it.gid())).ok();
        let given = marks.iter().rposition(|mark| !mark.itself);
        given.is_some_and(|given| attributes(&all[given]) != attributes(top))
    };
    if !marks.iter().any(|mark| mark.others) && !differs() {
        return None;
    }
    let mut hash = Sha256::new_with_prefix("what these layers leave out");
    for layer in all {
        hash.update(layer.file_name().unwrap_or_default().as_bytes());
        hash.update("\n");
    }
    Digest::from_str(&format!("sha256:{}", hex(&hash.finalize()))).ok()
}

/// Makes the directories, then gives them what they should have, the deepest first.
fn fill(target: &Path, all: &[PathBuf], visible: &[PathBuf]) -> io::Result<()> {
    let top_first: Vec<PathBuf> = visible.iter().rev().cloned().collect();
    let mut wanted = BTreeSet::new();
    for layer in &top_first {
        if Mark::of(layer).others {
            for path in left_out(layer)? {
                if inherits(&top_first, &path)? {
                    wanted.extend(path.ancestors().map(Path::to_owned));
                }
            }
        }
    }
    // The root is there, and last.
    wanted.remove(Path::new(""));
    for path in &wanted {
        fs::create_dir(target.join(path))?;
    }
    for path in wanted.iter().rev() {
        if let Some(from) = given(&top_first, path)? {
            copy_attributes(&from.join(path), &target.join(path))?;
        }
    }
    // No layer removes the root of those below, not even one that hides all that is in it.
    let root = all.iter().rev().find(|layer| !Mark::of(layer).itself).or(all.last());
    root.map_or(Ok(()), |root| copy_attributes(root, target))
}

/// The directories that a layer leaves out, but for its root.
fn left_out(layer: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut pending) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(layer.join(&directory))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                let path = directory.join(entry.file_name());
                if Mark::of(&entry.path()).itself {
                    found.push(path.clone());
                }
                pending.push(path);
            }
        }
    }
    Ok(found)
}

/// Whether the topmost layer that has a directory leaves out what a lower one says of it.
fn inherits(top_first: &[PathBuf], path: &Path) -> io::Result<bool> {
    let layers = around(top_first, path)?;
    let topmost = layers.iter().map(|layer| layer.join(path)).find(|place| fs::symlink_metadata(place).is_ok());
    Ok(topmost.is_some_and(|place| Mark::of(&place).itself) && topmost_giving(&layers, path)?.is_some())
}

/// The layer that decides what a directory is like; where all leave it out, the topmost one that has it.
fn given(top_first: &[PathBuf], path: &Path) -> io::Result<Option<PathBuf>> {
    let layers = around(top_first, path)?;
    let having = || layers.iter().find(|layer| layer.join(path).is_dir()).cloned();
    Ok(topmost_giving(&layers, path)?.or_else(having))
}

/// The layers, top first, that make up the directory around a path; none where it does not show.
fn around(top_first: &[PathBuf], path: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut layers, mut at) = (top_first.to_vec(), PathBuf::new());
    for part in path.parent().unwrap_or(path) {
        at.push(part);
        layers = match look(&layers, &at)? {
            Found::Directory(layers) => layers,
            _ => return Ok(Vec::new()),
        };
    }
    Ok(layers)
}

/// The topmost layer that has a directory and does not leave it out. That a layer hides a directory's content does not
/// make it another one; but a layer in which it is something else does.
fn topmost_giving(layers: &[PathBuf], path: &Path) -> io::Result<Option<PathBuf>> {
    for layer in layers {
        let place = layer.join(path);
        match fs::symlink_metadata(&place) {
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(found) if !found.is_dir() => return Ok(None),
            Ok(_) if Mark::of(&place).itself => {}
            Ok(_) => return Ok(Some(layer.clone())),
        }
    }
    Ok(None)
}

fn copy_attributes(from: &Path, to: &Path) -> io::Result<()> {
    let (wanted, made) = (fs::symlink_metadata(from)?, fs::symlink_metadata(to)?);
    if (wanted.uid(), wanted.gid()) != (made.uid(), made.gid()) {
        chown(to, Some(wanted.uid()), Some(wanted.gid()))?;
    }
    let (mut names, mut value) = (vec![0; ATTRIBUTE_BYTES], vec![0; ATTRIBUTE_BYTES]);
    // A file system without attributes has none to copy.
    let length = llistxattr(from, &mut names).unwrap_or(0);
    let names = names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    for name in
        names.filter(|name| !is_overlay_attribute(name) && !is_diff_id_attribute(name) && !is_size_attribute(name))
    {
        let length = lgetxattr(from, name, &mut value)?;
        match lsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            Err(Errno::PERM | Errno::OPNOTSUPP) => {}
            other => other?,
        }
    }
    fs::set_permissions(to, Permissions::from_mode(wanted.mode() & 0o7777))?;
    let time = Timespec { tv_sec: wanted.mtime(), tv_nsec: wanted.mtime_nsec() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
