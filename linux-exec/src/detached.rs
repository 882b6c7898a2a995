//! Mounts that no path leads to yet: made by the parent, attached by the child.
//!
//! What does not depend on the child's new namespaces is made here, where a failure is an ordinary error. Such a mount
//! lives as long as its descriptor, or until the namespace that it was attached in ends.
use crate::sys::{self, MountChange};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::CWD,
    io::{Errno, Result},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, OpenTreeFlags, fsconfig_create,
        fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, open_tree,
    },
};
use std::{
    ffi::{CStr, CString},
    path::Path,
};

/// What every file system without devices and programs is mounted with.
pub(crate) const PLAIN: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV).union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// A new file system of a type, with options and mount attributes (fsopen(2), fsmount(2)).
pub(crate) fn create(kind: &CStr, options: &[(&CStr, &str)], attributes: MountAttrFlags) -> Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(context.as_fd(), *key, *value)?;
    }
    finish(context.as_fd(), attributes)
}

/// A file system to be made, with all that it takes prepared.
pub(crate) struct FileSystem<'a> {
    pub(crate) kind: CString,
    /// Keys, with values or without.
    pub(crate) options: Vec<(CString, Option<CString>)>,
    pub(crate) change: MountChange<'a>,
    /// For a procfs: which processes it shows. None: those that its maker sees.
    pub(crate) pids: Option<BorrowedFd<'a>>,
}

impl FileSystem<'_> {
    /// Makes it. Allocates nothing.
    pub(crate) fn make(&self) -> Result<OwnedFd> {
        if *self.kind == *c"devpts" && self.options.is_empty() {
            return devpts();
        }
        let context = fsopen(&*self.kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        if let Some(pids) = self.pids {
            fsconfig_set_fd(context.as_fd(), c"pidns", pids)?;
        }
        for (key, value) in &self.options {
            match value {
                Some(value) => fsconfig_set_string(context.as_fd(), &**key, &**value)?,
                None => fsconfig_set_flag(context.as_fd(), &**key)?,
            }
        }
        let mount = finish(context.as_fd(), self.change.set)?;
        let change = self.change;
        if change.ids_of.is_some() || !(change.clear.is_empty() && change.propagation.is_empty()) {
            sys::mount_setattr(mount.as_fd(), c"", change)?;
        }
        Ok(mount)
    }
}

/// The mount of a file system context whose options are set.
pub(crate) fn finish(context: BorrowedFd<'_>, attributes: MountAttrFlags) -> Result<OwnedFd> {
    fsconfig_create(context)?;
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A copy of the mount at `path`, from that directory or file down, with `attributes` added (open_tree(2)).
///
/// The copy is private: what is mounted on it later does not appear on the original, nor the other way round.
pub(crate) fn copy(path: &Path, recursive: bool, attributes: MountAttrFlags) -> Result<OwnedFd> {
    let propagation = MountPropagationFlags::PRIVATE;
    let tree = open(path, recursive)?;
    sys::mount_setattr(tree.as_fd(), c"", MountChange { propagation, recursive, ..MountChange::set(attributes) })?;
    Ok(tree)
}

/// A copy as it is.
pub(crate) fn open(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    open_tree(CWD, path, flags)
}

/// A tmpfs. `size_bytes` None: half of memory.
pub(crate) fn tmpfs(size_bytes: Option<u64>, mode: u32, attributes: MountAttrFlags) -> Result<OwnedFd> {
    let options = tmpfs_options(size_bytes, mode);
    FileSystem { kind: c"tmpfs".into(), options, change: MountChange::set(attributes), pids: None }.make()
}

/// Its options.
pub(crate) fn tmpfs_options(size_bytes: Option<u64>, mode: u32) -> Vec<(CString, Option<CString>)> {
    let text = |text: String| CString::new(text).ok();
    let size = size_bytes.map(|bytes| (c"size".into(), text(bytes.to_string())));
    [(c"mode".into(), text(format!("{mode:o}")))].into_iter().chain(size).collect()
}

/// How many terminals one container may have open, of the 4096 that a machine has (kernel.pty.max).
const MAX_TERMINALS: &str = "1024";

/// A devpts of its own, from which everybody may open terminals, with the group `tty` (5) where that id is mapped.
///
/// The kernel keeps some terminals for the host (kernel.pty.reserve) from those that were made outside of its first mount namespace.
pub(crate) fn devpts() -> Result<OwnedFd> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let options = [(c"ptmxmode", "666"), (c"mode", "620"), (c"max", MAX_TERMINALS), (c"gid", "5")];
    match create(c"devpts", &options, attributes) {
        Err(Errno::INVAL) => create(c"devpts", &options[..3], attributes),
        other => other,
    }
}
