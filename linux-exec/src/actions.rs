//! What the steps do, in the child. The rules of [`crate::steps`] hold for every function here.
use crate::{
    capabilities::{CapabilitySet, CapabilitySets},
    detached,
    devices::{DEVICES, Devices, EMPTY, Nodes},
    magic,
    sys::{self, MountChange, NewNamespaces},
    target::{Target, open_beneath_root, open_without_links},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{CWD, FileType, Gid, Mode, OFlags, Uid, fstat, fstatfs, mkdirat, mknodat, openat, symlinkat},
    io::{Errno, Result, fcntl_dupfd_cloexec},
    mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree},
    process::{Signal, chdir, fchdir, pivot_root},
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
    thread::{self, CapabilitySet as Bits, ThreadNameSpaceType},
};
use std::ffi::{CStr, CString};

/// Attaches the detached mount `root` on `/`, makes it this process's root, and detaches the old one, which lies on top
/// of it then and is found by "." (pivot_root(2), "pivot_root(".", ".")").
///
/// The old root goes before any path of the image is resolved: as long as it lies there, `..` in `/` leads into it.
pub(crate) fn enter_root(root: &OwnedFd) -> Result<()> {
    move_mount(root, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    fchdir(root)?;
    pivot_root(c".", c".")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    chdir(c"/")
}

/// The most that is read of /proc/self/cgroup: some 20 lines, most of them short.
const MAX_CGROUP_TEXT: usize = 16 * 1024;

/// EXDEV unless this process is in a group of this name, or below one, in all hierarchies, or in those with these numbers.
pub(crate) fn in_own_cgroups(id: &[u8], hierarchies: Option<&[u32]>) -> Result<()> {
    let mut text = [0; MAX_CGROUP_TEXT];
    let file = openat(CWD, c"/proc/self/cgroup", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut length = 0;
    loop {
        let rest = text.get_mut(length..).filter(|rest| !rest.is_empty()).ok_or(Errno::OVERFLOW)?;
        match rustix::io::read(&file, rest)? {
            0 => break,
            read => length += read,
        }
    }
    let mut lines = Membership::all(text.get(..length).unwrap_or_default());
    let all = lines.all(|line| hierarchies.is_some_and(|wanted| !wanted.contains(&line.hierarchy)) || line.is_in(id));
    if all { Ok(()) } else { Err(Errno::XDEV) }
}

/// A line of proc_pid_cgroup(5).
pub(crate) struct Membership<'a> {
    pub(crate) hierarchy: u32,
    path: &'a [u8],
}

impl<'a> Membership<'a> {
    /// The lines of the file.
    pub(crate) fn all(text: &'a [u8]) -> impl Iterator<Item = Self> {
        text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(Self::parse)
    }

    /// What cannot be read is in no group.
    fn parse(line: &'a [u8]) -> Self {
        let mut fields = line.splitn(3, |&byte| byte == b':');
        let number = fields.next().unwrap_or_default();
        let hierarchy = number
            .iter()
            .fold(0_u32, |sum, digit| sum.wrapping_mul(10).wrapping_add(u32::from(digit.wrapping_sub(b'0'))));
        Self { hierarchy, path: fields.nth(1).unwrap_or_default() }
    }

    /// Whether that is a group of this name or below one.
    pub(crate) fn is_in(&self, name: &[u8]) -> bool {
        self.path.split(|&byte| byte == b'/').any(|part| part == name)
    }
}

/// setns(2) with a pidfd; mount namespace and root change together, so the working directory does too.
pub(crate) fn enter_namespaces(target: &OwnedFd, kinds: ThreadNameSpaceType) -> Result<()> {
    rustix::thread::move_into_thread_name_spaces(target.as_fd(), kinds)?;
    chdir(c"/")
}

/// Attaches one of the runtime's own mounts, on a directory that no link leads to.
pub(crate) fn attach_own(tree: &OwnedFd, target: &Target) -> Result<()> {
    attach_to(tree, target.open_or_make_own()?.as_fd())
}

/// move_mount(2) from descriptor to descriptor.
fn attach_to(tree: &OwnedFd, to: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, c"", to, c"", flags)
}

/// move_mount(2) into a directory of ours.
fn attach_in(tree: &OwnedFd, directory: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    move_mount(tree, c"", directory, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Attaches what somebody asked for, on a target found beneath the root, unless it would cover what the runtime relies on
/// (EXDEV): the links on the way may be the image's, or another container's that writes to the same volume at this moment, so it is the
/// place that was found that is judged, and not the path.
pub(crate) fn attach(tree: &OwnedFd, target: &Target, file: bool, dev: Option<&Dev>) -> Result<()> {
    let to = target.open_or_make(file)?;
    if is_forbidden(&to, target, dev)? {
        return Err(Errno::XDEV);
    }
    attach_to(tree, to.as_fd())
}

fn is_forbidden(to: &OwnedFd, target: &Target, dev: Option<&Dev>) -> Result<bool> {
    let kind = fstatfs(to)?.f_type;
    if magic::KERNELS_OWN.contains(&kind) {
        return Ok(true);
    }
    let found = fstat(to)?;
    let root = rustix::fs::stat(c"/")?;
    if (found.st_dev, found.st_ino) == (root.st_dev, root.st_ino) {
        return Ok(true);
    }
    let Some(dev) = dev else { return Ok(false) };
    let of_ours = kind == magic::DEVPTS || [dev.root.0, dev.nodes].contains(&found.st_dev);
    Ok((found.st_dev, found.st_ino) == dev.root || (of_ours && !target.path().to_bytes().starts_with(b"/dev/")))
}

/// Where the container's /dev is, once it is attached.
pub(crate) struct Dev<'a> {
    pub(crate) tree: BorrowedFd<'a>,
    /// Device and inode of its root directory.
    root: (u64, u64),
    /// The file system that its nodes are on.
    nodes: u64,
}

/// Mounts of single nodes, none attached yet, in the order of [`DEVICES`]; without the first where they are the host's.
pub(crate) struct Made {
    devices: [Option<OwnedFd>; DEVICES.len()],
    null: Cover,
    empty: Cover,
}

/// Something to cover others with, and whether it covers one already: then the next gets a copy.
struct Cover {
    mount: OwnedFd,
    attached: bool,
}

impl Cover {
    fn attach(&mut self, to: BorrowedFd<'_>) -> Result<()> {
        if self.attached {
            return attach_to(&clone_tree(self.mount.as_fd(), c"")?, to);
        }
        attach_to(&self.mount, to)?;
        self.attached = true;
        Ok(())
    }
}

/// Makes the nodes, puts their mount where this process alone can see it, since only an attached one can be copied, and takes
/// the single nodes out of it. That place is the host's /dev as it is in this mount namespace, from which the host's mounts are
/// about to be detached.
pub(crate) fn make_nodes(nodes: &Nodes) -> Result<Made> {
    nodes.fill()?;
    move_mount(&nodes.tree, c"", CWD, c"/dev", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    let from = nodes.tree.as_fd();
    let empty = clone_tree(from, EMPTY)?;
    sys::mount_setattr(empty.as_fd(), c"", MountChange::set(detached::PLAIN | MountAttrFlags::MOUNT_ATTR_RDONLY))?;
    let mut devices = [const { None }; DEVICES.len()];
    let null = match &nodes.host_null {
        Some(host) => fcntl_dupfd_cloexec(host, 3)?,
        None => {
            for (slot, (name, ..)) in devices.iter_mut().zip(DEVICES) {
                *slot = Some(clone_tree(from, name)?);
            }
            clone_tree(from, DEVICES[0].0)?
        }
    };
    let cover = |mount| Cover { mount, attached: false };
    Ok(Made { devices, null: cover(null), empty: cover(empty) })
}

/// A copy of a mount that is attached, from a file or directory in it down.
fn clone_tree(directory: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(directory, name, flags)
}

/// Target and name.
const DEV_LINKS: [(&CStr, &CStr); 6] = [
    (c"/proc/self/fd", c"fd"),
    (c"/proc/self/fd/0", c"stdin"),
    (c"/proc/self/fd/1", c"stdout"),
    (c"/proc/self/fd/2", c"stderr"),
    (c"/proc/kcore", c"core"),
    (c"pts/ptmx", c"ptmx"),
];

/// Attaches an empty tmpfs as /dev and fills it. The child's umask is 0.
pub(crate) fn attach_dev<'a>(tree: &'a OwnedFd, target: &Target, devices: &Devices, made: &Made) -> Result<Dev<'a>> {
    attach_own(tree, target)?;
    for (to, name) in DEV_LINKS {
        symlinkat(to, tree, name)?;
    }
    for directory in [c"pts", c"shm", c"mqueue"] {
        mkdirat(tree, directory, Mode::from_raw_mode(0o755))?;
    }
    match devices {
        Devices::Own => {
            for (device, (name, ..)) in made.devices.iter().zip(DEVICES) {
                mount_point(tree, name)?;
                attach_in(device.as_ref().ok_or(Errno::NODEV)?, tree.as_fd(), name)?;
            }
        }
        Devices::All(all) => all.iter().try_for_each(|node| node.make(tree))?,
        Devices::Host(host) => host.iter().try_for_each(|device| match &device.tree {
            None => mkdirat(tree, &device.path, Mode::from_raw_mode(0o755)),
            Some(node) => {
                mount_point(tree, &device.path)?;
                attach_in(node, tree.as_fd(), &device.path)
            }
        })?,
    }
    let own = fstat(tree)?;
    Ok(Dev { tree: tree.as_fd(), root: (own.st_dev, own.st_ino), nodes: fstat(&made.empty.mount)?.st_dev })
}

/// An empty file to mount another one on.
fn mount_point(directory: &OwnedFd, name: &CStr) -> Result<()> {
    mknodat(directory, name, FileType::RegularFile, Mode::from_raw_mode(0o666), 0)
}

/// Attaches a mount on a directory of /dev.
pub(crate) fn attach_in_dev(tree: &OwnedFd, name: &CStr, dev: Option<&Dev>) -> Result<()> {
    attach_in(tree, dev.ok_or(Errno::NODEV)?.tree, name)
}

/// The program's terminal, which lies in a devpts that is attached, also as /dev/console.
pub(crate) fn console(terminal: &OwnedFd, dev: Option<&Dev>) -> Result<()> {
    let dev = dev.ok_or(Errno::NODEV)?;
    mknodat(dev.tree, c"console", FileType::RegularFile, Mode::from_raw_mode(0o600), 0)?;
    attach_in(&clone_tree(terminal.as_fd(), c"")?, dev.tree, c"console")
}

/// A path to be covered or made read-only.
pub(crate) struct Hidden {
    pub(crate) path: CString,
    /// statfs(2) f_type of the file system that the plan puts there.
    pub(crate) file_system: Option<i64>,
}

/// Opens a path to be masked or made read-only, if it is there: no part of it may be a link, and it must lie on the file system that
/// the plan put there (EXDEV; CVE-2021-30465, CVE-2025-52881).
fn open_hidden(path: &Hidden) -> Result<Option<OwnedFd>> {
    let file = match open_without_links(&path.path, OFlags::PATH) {
        Err(Errno::NOENT) => return Ok(None),
        result => result?,
    };
    match path.file_system {
        Some(wanted) if fstatfs(&file)?.f_type != wanted => Err(Errno::XDEV),
        _ => Ok(Some(file)),
    }
}

/// Covers `path` with a null device, or if it is a directory with an empty read-only one; a missing one is fine.
///
/// It looks first, since a bind that fails costs ten times as much: the kernel waits for all readers of the mount
/// table.
pub(crate) fn mask(path: &Hidden, made: &mut Made) -> Result<()> {
    let Some(place) = open_hidden(path)? else { return Ok(()) };
    let is_directory = FileType::from_raw_mode(fstat(&place)?.st_mode) == FileType::Directory;
    let cover = if is_directory { &mut made.empty } else { &mut made.null };
    cover.attach(place.as_fd())
}

/// Attaches a read-only copy of `path` on it; a missing one is fine.
pub(crate) fn read_only_path(path: &Hidden) -> Result<()> {
    let Some(place) = open_hidden(path)? else { return Ok(()) };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let copy = open_tree(&place, c"", flags)?;
    let read_only = MountChange::set(MountAttrFlags::MOUNT_ATTR_RDONLY);
    sys::mount_setattr(copy.as_fd(), c"", MountChange { recursive: true, ..read_only })?;
    attach_to(&copy, place.as_fd())
}

/// Makes the root, without the mounts below it, read-only.
pub(crate) fn read_only_root() -> Result<()> {
    sys::mount_setattr(CWD, c"/", MountChange::set(MountAttrFlags::MOUNT_ATTR_RDONLY))
}

/// Sets `lo` up in this network namespace.
pub(crate) fn loopback_up() -> Result<()> {
    sys::bring_loopback_up()
}

/// A null device for reading and writing: the container's own, or the host's by a mount on which nothing of it can be changed, which is
/// put over it where this process alone can see that. (A detached mount would do, but to close one takes the kernel 0.2 ms.)
pub(crate) fn open_null(host: Option<&OwnedFd>, own: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let null = match (host, own) {
        (None, Some(own)) => openat(own, DEVICES[0].0, flags, Mode::empty())?,
        (Some(mount), _) => {
            move_mount(mount, c"", CWD, c"/dev/null", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
            openat(CWD, c"/dev/null", flags, Mode::empty())?
        }
        (None, None) => return Err(Errno::NODEV),
    };
    sys::above_stdio(null)
}

/// The three streams; dup2(2) clears close-on-exec.
pub(crate) fn stdio([input, output, error]: &[Option<OwnedFd>; 3], null: Option<&OwnedFd>) -> Result<()> {
    dup2_stdin(input.as_ref().or(null).ok_or(Errno::BADF)?)?;
    dup2_stdout(output.as_ref().or(null).ok_or(Errno::BADF)?)?;
    dup2_stderr(error.as_ref().or(null).ok_or(Errno::BADF)?)
}

/// Only pipes: what else a program may have been given is not its own.
pub(crate) fn give_streams(uid: Uid, gid: Gid) -> Result<()> {
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        if FileType::from_raw_mode(fstat(stream)?.st_mode) == FileType::Fifo {
            rustix::fs::fchown(stream, Some(uid), Some(gid))?;
        }
    }
    Ok(())
}

/// PR_CAPBSET_DROP for every capability that this kernel has and `keep` has not.
pub(crate) fn limit_bounding_set(keep: CapabilitySet) -> Result<()> {
    for bit in 0..u64::BITS {
        let one = 1_u64 << bit;
        if keep.0 & one != 0 {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(Bits::from_bits_retain(one)) {
            // Past the last one.
            Err(Errno::INVAL) => return Ok(()),
            result => result?,
        }
    }
    Ok(())
}

/// Group first: afterwards there is no right to.
pub(crate) fn set_ids(uid: Uid, gid: Gid) -> Result<()> {
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

/// capset(2), with the ambient set, which an empty inheritable one empties (capabilities(7)).
pub(crate) fn set_capabilities(sets: CapabilitySets) -> Result<()> {
    let bits = |set: CapabilitySet| Bits::from_bits_retain(set.0);
    let main = thread::CapabilitySets {
        effective: bits(sets.effective),
        permitted: bits(sets.permitted),
        inheritable: bits(sets.inheritable),
    };
    thread::set_capabilities(None, main)?;
    if sets.inheritable == CapabilitySet::default() {
        return if sets.ambient == sets.inheritable { Ok(()) } else { Err(Errno::PERM) };
    }
    thread::clear_ambient_capability_set()?;
    let mut ambient = (0..u64::BITS).map(|bit| 1_u64 << bit).filter(|one| sets.ambient.0 & one != 0);
    ambient.try_for_each(|one| thread::configure_capability_in_ambient_set(Bits::from_bits_retain(one), true))
}

/// A file that is there, by one write(2).
pub(crate) fn write_to(path: &CStr, value: &[u8]) -> Result<()> {
    let file = openat(CWD, path, OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(file, value).map(drop)
}

/// Where nothing is ahead, nothing is written.
pub(crate) fn new_time_namespace(offsets: &[u8]) -> Result<()> {
    sys::unshare(NewNamespaces::TIME)?;
    if offsets.is_empty() { Ok(()) } else { write_to(c"/proc/self/timens_offsets", offsets) }
}

/// A kernel without keys (or one that forbids them) has none to keep from anybody.
pub(crate) fn new_session_keyring() -> Result<()> {
    match sys::new_session_keyring() {
        Err(Errno::NOSYS | Errno::PERM) => Ok(()),
        other => other,
    }
}

/// PR_SET_PDEATHSIG, then looks whether the parent died before that: its end of the report pipe would be closed.
pub(crate) fn die_with_parent(report: BorrowedFd<'_>) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut ends = [PollFd::new(&report, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut ends, Some(&now))?;
    if ends[0].revents().contains(PollFlags::ERR) { Err(Errno::PIPE) } else { Ok(()) }
}

/// chdir(2) without magic links, which could lead out of the container.
pub(crate) fn change_directory(path: &CStr) -> Result<()> {
    fchdir(open_beneath_root(path, OFlags::PATH | OFlags::DIRECTORY)?)
}

/// Signals, umask, and descriptors, which stay open until the exec as one of them is for reporting.
pub(crate) fn reset_inherited(umask: Mode) -> Result<()> {
    sys::unblock_all_signals()?;
    rustix::process::umask(umask);
    sys::close_all_on_exec()
}
