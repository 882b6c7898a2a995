//! What lies in a container's /dev, as the parent prepares it.
//!
//! A node is more than the device behind it: whoever may change the mode of the host's `/dev/null` stops the host's programs.
//! So a container gets nodes of its own, on a tmpfs that nobody else sees. In a user namespace the kernel lets nobody make any;
//! there each of the host's is looked at, checked to be what its name says, and bound on a read-only mount, which lets a device
//! be read and written but neither its mode, owner nor times be changed.
//!
//! Every node is on a mount of its own, and all other mounts are `nodev`: a node that the container's program makes (CAP_MKNOD is in
//! Docker's default set) opens nothing.

use crate::{
    detached,
    error::Error,
    sys::{self, MountChange},
};
use rustix::{
    fd::{AsFd, AsRawFd, OwnedFd},
    fs::{
        AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, major, makedev, minor, mkdirat, mknodat,
        openat, statat,
    },
    io::{Errno, Result},
    mount::{MountAttrFlags, MountPropagationFlags, OpenTreeFlags, open_tree},
    process::geteuid,
};
use std::{
    ffi::{CStr, CString},
    io,
};

/// Every container's devices: name, major and minor number (Documentation/admin-guide/devices.txt).
pub(crate) const DEVICES: [(&CStr, u32, u32); 6] =
    [(c"null", 1, 3), (c"zero", 1, 5), (c"full", 1, 7), (c"random", 1, 8), (c"urandom", 1, 9), (c"tty", 5, 0)];

/// In the mount of nodes: an empty directory, to cover others with.
pub(crate) const EMPTY: &CStr = c"empty";

/// How deep the host's /dev is looked into: `/dev/bus/usb/001/002` is three.
const MAX_DEPTH: usize = 6;
/// How many of the host's devices a privileged container can have.
const MAX_NODES: usize = 16_384;

/// The nodes of a container's /dev.
pub(crate) enum Devices {
    /// Its own, from the mount that [`Nodes`] makes.
    Own,
    /// In a user namespace: the host's, one detached mount for each of [`DEVICES`], or for each path with directories first.
    Host(Vec<HostDevice>),
    /// A node of its own for each of the host's.
    All(Vec<Node>),
}

/// A mount to be attached at a path in /dev; a directory to be made where there is none.
pub(crate) struct HostDevice {
    pub(crate) path: CString,
    pub(crate) tree: Option<OwnedFd>,
}

/// A device or directory to be made in /dev.
pub(crate) struct Node {
    path: CString,
    kind: FileType,
    mode: Mode,
    device: u64,
    owner: (Uid, Gid),
}

impl Node {
    /// Makes it in an empty tmpfs. The umask is 0.
    pub(crate) fn make(&self, directory: &OwnedFd) -> Result<()> {
        if self.kind == FileType::Directory {
            return mkdirat(directory, &self.path, self.mode);
        }
        mknodat(directory, &self.path, self.kind, self.mode, self.device)?;
        match self.owner {
            (uid, gid) if uid.is_root() && gid.is_root() => Ok(()),
            (uid, gid) => chownat(directory, &self.path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW),
        }
    }
}

/// A tmpfs with a null device and an empty directory, from which masks are taken, and the container's other devices.
pub(crate) struct Nodes {
    pub(crate) tree: OwnedFd,
    /// A null device of the host's where none can be made.
    pub(crate) host_null: Option<OwnedFd>,
}

impl Nodes {
    pub(crate) fn prepare(user_namespace: bool) -> std::result::Result<Self, Error> {
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let tree = detached::tmpfs(Some(64 * 1024), 0o755, attributes)
            .map_err(|errno| Error::new("make a tmpfs for devices", errno))?;
        let host_null = user_namespace.then(|| bind(DEVICES[0])).transpose()?;
        Ok(Self { tree, host_null })
    }

    /// Fills it, in the child. The umask is 0.
    pub(crate) fn fill(&self) -> Result<()> {
        mkdirat(&self.tree, EMPTY, Mode::from_raw_mode(0o555))?;
        if self.host_null.is_some() {
            return Ok(());
        }
        DEVICES.iter().try_for_each(|&(name, major, minor)| {
            mknodat(&self.tree, name, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(major, minor))
        })
    }
}

impl Devices {
    pub(crate) fn prepare(user_namespace: bool, all: bool) -> std::result::Result<Self, Error> {
        if !all {
            return match user_namespace {
                false => Ok(Self::Own),
                true => DEVICES
                    .into_iter()
                    .map(|device| Ok(HostDevice { path: device.0.to_owned(), tree: Some(bind(device)?) }))
                    .collect::<std::result::Result<_, _>>()
                    .map(Self::Host),
            };
        }
        let nodes = host_nodes().map_err(|errno| Error::new("list the host's devices", errno))?;
        match user_namespace {
            false => Ok(Self::All(nodes)),
            true => Ok(Self::Host(nodes.into_iter().filter_map(bind_node).collect())),
        }
    }
}

/// Binds one of [`DEVICES`] from the host, once it was seen to be that.
fn bind((name, wanted_major, wanted_minor): (&CStr, u32, u32)) -> std::result::Result<OwnedFd, Error> {
    let shown = || format!("bind the host's /dev/{}", name.to_string_lossy());
    let error = |errno| Error::new(shown(), errno);
    let dev = openat(CWD, c"/dev", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(error)?;
    let file = openat(dev, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).map_err(error)?;
    let stat = fstat(&file).map_err(error)?;
    let found = (FileType::from_raw_mode(stat.st_mode), major(stat.st_rdev), minor(stat.st_rdev));
    if found != (FileType::CharacterDevice, wanted_major, wanted_minor) {
        return Err(error(Errno::NODEV).hint(&format!(
            "it is not the character device {wanted_major}:{wanted_minor} but {:?} {}:{}",
            found.0, found.1, found.2
        )));
    }
    read_only_copy(&file).map_err(error)
}

/// A mount of the host's null device, on which nothing of it can be changed.
pub(crate) fn bind_null() -> std::result::Result<OwnedFd, Error> {
    bind(DEVICES[0])
}

/// The null device, for a program's standard streams: it can be read and written, and neither its mode, owner nor times be
/// changed through the descriptor, as that is of a read-only mount.
///
/// An ordinary user, who can mount nothing, can change nothing of the host's device either: he gets that one.
///
/// # Errors
/// There is no null device at /dev/null.
pub fn open_null() -> io::Result<OwnedFd> {
    let path = match bind(DEVICES[0]) {
        Ok(mount) => return open_both(&format!("/proc/self/fd/{}", mount.as_raw_fd())),
        Err(_) if !geteuid().is_root() => "/dev/null",
        Err(error) => return Err(io::Error::other(error)),
    };
    open_both(path)
}

fn open_both(path: &str) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())?)
}

/// A device that this user cannot bind is left out.
fn bind_node(node: Node) -> Option<HostDevice> {
    if node.kind == FileType::Directory {
        return Some(HostDevice { path: node.path, tree: None });
    }
    let dev = openat(CWD, c"/dev", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let file = openat(dev, &node.path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).ok()?;
    (fstat(&file).ok()?.st_rdev == node.device).then_some(())?;
    let tree = read_only_copy(&file).ok()?;
    Some(HostDevice { path: node.path, tree: Some(tree) })
}

/// A mount of that file alone, on which its metadata cannot be changed.
fn read_only_copy(file: &OwnedFd) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(file, c"", flags)?;
    let read_only = MountChange::set(MountAttrFlags::MOUNT_ATTR_RDONLY);
    let propagation = MountPropagationFlags::PRIVATE;
    sys::mount_setattr(tree.as_fd(), c"", MountChange { propagation, ..read_only })?;
    Ok(tree)
}

/// All devices of the host's /dev with the directories that they lie in, each after its own directory; without what every
/// container has of its own (terminals, shared memory, queues) and what is mounted there.
fn host_nodes() -> Result<Vec<Node>> {
    let root = openat(CWD, c"/dev", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let device = fstat(&root)?.st_dev;
    let mut nodes = Vec::new();
    list(&root, b"", device, 0, &mut nodes)?;
    Ok(nodes)
}

fn list(directory: &OwnedFd, prefix: &[u8], file_system: u64, depth: usize, nodes: &mut Vec<Node>) -> Result<()> {
    const OWN: [&[u8]; 8] = [b".", b"..", b"pts", b"ptmx", b"shm", b"mqueue", b"console", b"fd"];
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if OWN[..2].contains(&name.to_bytes()) || (depth == 0 && OWN.contains(&name.to_bytes())) {
            continue;
        }
        // It may be gone again.
        let Ok(stat) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let path = [prefix, name.to_bytes()].concat();
        let node = Node {
            path: CString::new(path.clone()).map_err(|_| Errno::INVAL)?,
            kind,
            mode: Mode::from_raw_mode(stat.st_mode & 0o7777),
            device: stat.st_rdev,
            owner: (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid)),
        };
        match kind {
            FileType::CharacterDevice | FileType::BlockDevice if nodes.len() < MAX_NODES => nodes.push(node),
            FileType::Directory if stat.st_dev == file_system && depth < MAX_DEPTH => {
                nodes.push(node);
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                // What may not be looked into stays empty.
                if let Ok(inner) = openat(directory, name, flags, Mode::empty()) {
                    list(&inner, &[&path, b"/".as_slice()].concat(), file_system, depth + 1, nodes)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}
