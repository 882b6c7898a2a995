//! A container's root as a detached mount: made and looked into by the parent, attached by the child.
use crate::{
    detached,
    error::Error,
    magic, overlay, resolve,
    sys::{self, MountChange},
};
use rustix::{
    fd::{AsFd, AsRawFd, OwnedFd},
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs},
    io::Errno,
    mount::MountAttrFlags,
};
use std::{
    fs::File,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// A mount that no path leads to yet. It lives until this is dropped or, once attached, until the container ends.
pub struct Rootfs {
    /// From fsmount(2) or open_tree(2).
    pub mount: OwnedFd,
}

/// The most that an empty root takes: it holds mount points only.
const EMPTY_BYTES: u64 = 64 * 1024;

impl Rootfs {
    /// A writable overlay.
    ///
    /// `lower` is base first (as in a manifest), at least one; `upper` and `work` are directories of one file system,
    /// `work` a fresh one. `volatile`: no fsync, for what is thrown away at the end (`--rm`). In a user namespace
    /// overlay's own attributes are kept in `user.overlay.*`.
    ///
    /// Needs no limit on the number of layers where the kernel has `lowerdir+` (6.8); before that all of the options
    /// must fit in 4095 bytes, for which names relative to the directory that the layers share are used.
    pub fn overlay(lower: &[PathBuf], upper: &Path, work: &Path, volatile: bool) -> Result<Self, Error> {
        let user_namespace = sys::in_user_namespace();
        let writable = Some(overlay::Writable { upper, work });
        let mount = overlay::Overlay { lower, writable, volatile, user_namespace }.mount()?;
        Ok(Self { mount })
    }

    /// An overlay that nobody can write to, base first: to look at what a container sees, which may write to the uppermost directory
    /// meanwhile (the kernel says so in its log). One directory alone is that directory.
    pub fn read_only(lower: &[PathBuf]) -> Result<Self, Error> {
        if let [only] = lower {
            return Self::part(only, true);
        }
        let user_namespace = sys::in_user_namespace();
        let mount = overlay::Overlay { lower, writable: None, volatile: false, user_namespace }.mount()?;
        let change = MountChange::set(MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV);
        sys::mount_setattr(mount.as_fd(), c"", change)
            .map_err(|errno| Error::new("make an overlay read-only", errno))?;
        Ok(Self { mount })
    }

    /// A directory or file of the host's, to be mounted somewhere: nothing in it is a device.
    pub fn part(path: &Path, readonly: bool) -> Result<Self, Error> {
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
        attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, readonly);
        let mount = detached::copy(path, true, attributes);
        Ok(Self { mount: mount.map_err(|errno| Error::new(format!("bind {}", path.display()), errno))? })
    }

    /// An existing directory, with what is mounted below it.
    pub fn directory(path: &Path) -> Result<Self, Error> {
        let action = || format!("use {} as a root file system", path.display());
        if !path.is_dir() {
            return Err(Error::new(action(), Errno::NOTDIR));
        }
        let mount = detached::copy(path, true, MountAttrFlags::empty()).map_err(|errno| Error::new(action(), errno))?;
        Ok(Self { mount })
    }

    /// An empty tmpfs (Wasm artifacts) in which only mount points will be made.
    pub fn empty() -> Result<Self, Error> {
        let mount = detached::tmpfs(Some(EMPTY_BYTES), 0o755, MountAttrFlags::MOUNT_ATTR_NOSUID)
            .map_err(|errno| Error::new("make an empty root file system", errno))?;
        Ok(Self { mount })
    }

    /// Opens a regular file for reading beneath the root, as a process inside would find it; Ok(None) if missing.
    ///
    /// Anything else by that name (a FIFO, a device) is an error, and is not opened.
    pub fn open(&self, path: &Path) -> Result<Option<File>, Error> {
        open_regular(self.mount.as_fd(), path)
            .map_err(|errno| Error::new(format!("read {} in the container's root", path.display()), errno))
    }
}

/// Opens a regular file with `root` as the root directory; magic links are refused. What was looked at is what is opened: the
/// second look goes by the descriptor, as the container may put another file there meanwhile.
pub(crate) fn open_regular(root: rustix::fd::BorrowedFd<'_>, path: &Path) -> rustix::io::Result<Option<File>> {
    let rules = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = match resolve::open(root, path, OFlags::PATH, rules) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        result => result?,
    };
    match FileType::from_raw_mode(fstat(&found)?.st_mode) {
        // Reading one of the kernel's can change it (/proc/kmsg), and is done with rights that the container has not.
        FileType::RegularFile if magic::KERNELS_OWN.contains(&fstatfs(&found)?.f_type) => return Err(Errno::INVAL),
        FileType::RegularFile => {}
        FileType::Directory => return Err(Errno::ISDIR),
        _ => return Err(Errno::INVAL),
    }
    let name = format!("/proc/self/fd/{}", found.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(name, flags, Mode::empty()).map(|file| Some(File::from(file)))
}

/// Opens a host directory or file to look into it as a mount.
pub(crate) fn open_host_path(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(CWD, path.as_os_str().as_bytes(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}
