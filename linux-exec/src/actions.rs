//! What the steps do, in the child. The rules of [`crate::steps`] hold for every function here.
use crate::{
    capabilities::CapabilitySet,
    sys,
    target::{Target, open_beneath_root},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{CWD, FileType, Gid, Mode, OFlags, Uid, mkdirat, mknodat, symlinkat},
    io::{Errno, Result},
    mount::{MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, mount_bind_recursive, move_mount},
    process::{Signal, chdir, fchdir, pivot_root},
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
    thread::{CapabilitySet as Bits, CapabilitySets, ThreadNameSpaceType},
};
use std::ffi::CStr;

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

/// setns(2) with a pidfd; mount namespace and root change together, so the working directory does too.
pub(crate) fn enter_namespaces(target: &OwnedFd, kinds: ThreadNameSpaceType) -> Result<()> {
    rustix::thread::move_into_thread_name_spaces(target.as_fd(), kinds)?;
    chdir(c"/")
}

/// mount(2) on a target found beneath the root.
pub(crate) fn mount(kind: &CStr, target: &Target, flags: MountFlags, optional: bool) -> Result<()> {
    fchdir(target.open_or_make(false)?)?;
    match rustix::mount::mount(kind, c".", kind, flags, None) {
        Err(Errno::NODEV | Errno::BUSY) if optional => Ok(()),
        result => result,
    }
}

/// move_mount(2) on a target found beneath the root.
pub(crate) fn attach(tree: &OwnedFd, target: &Target, file: bool) -> Result<()> {
    let to = target.open_or_make(file)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, c"", to, c"", flags)
}

/// The devices that every container has.
pub(crate) const DEVICES: [&CStr; 6] = [c"null", c"zero", c"full", c"random", c"urandom", c"tty"];

/// Target and name.
const DEV_LINKS: [(&CStr, &CStr); 6] = [
    (c"/proc/self/fd", c"fd"),
    (c"/proc/self/fd/0", c"stdin"),
    (c"/proc/self/fd/1", c"stdout"),
    (c"/proc/self/fd/2", c"stderr"),
    (c"/proc/kcore", c"core"),
    (c"pts/ptmx", c"ptmx"),
];

/// Fills an empty tmpfs and attaches it; the devices are files for now, on which the host's are bound. The child's umask
/// is 0.
pub(crate) fn attach_dev(tree: &OwnedFd, target: &Target) -> Result<()> {
    for (to, name) in DEV_LINKS {
        symlinkat(to, tree, name)?;
    }
    for directory in [c"pts", c"shm", c"mqueue"] {
        mkdirat(tree, directory, Mode::from_raw_mode(0o755))?;
    }
    for name in DEVICES {
        mknodat(tree, name, FileType::RegularFile, Mode::from_raw_mode(0o666), 0)?;
    }
    attach(tree, target, false)
}

/// A new devpts's first terminal is number 0.
pub(crate) fn console(target: &Target) -> Result<()> {
    target.open_or_make(true)?;
    rustix::mount::mount_bind(c"/dev/pts/0", target.path())
}

/// Covers `path` with /dev/null, or if it is a directory with an empty read-only one: the one used before, if any. A
/// missing one is fine.
///
/// It looks first, since a bind that fails costs ten times as much: the kernel waits for all readers of the mount
/// table.
pub(crate) fn mask<'a>(path: &'a CStr, empty_directory: &mut Option<&'a CStr>) -> Result<()> {
    match open_beneath_root(path, OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR) => return rustix::mount::mount_bind(c"/dev/null", path),
        result => drop(result?),
    }
    if let Some(empty) = *empty_directory {
        return rustix::mount::mount_bind(empty, path);
    }
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount(c"tmpfs", path, c"tmpfs", flags, c"size=4k,nr_inodes=1")?;
    *empty_directory = Some(path);
    Ok(())
}

/// Binds `path` over itself, read-only; a missing one is fine.
pub(crate) fn read_only_path(path: &CStr) -> Result<()> {
    match mount_bind_recursive(path, path) {
        Err(Errno::NOENT) => return Ok(()),
        result => result?,
    }
    sys::mount_setattr(CWD, path, MountAttrFlags::MOUNT_ATTR_RDONLY, true, false)
}

/// Makes the mount at `path`, without those below it, read-only.
pub(crate) fn read_only_mount(path: &CStr) -> Result<()> {
    sys::mount_setattr(CWD, path, MountAttrFlags::MOUNT_ATTR_RDONLY, false, false)
}

/// Sets `lo` up in this network namespace.
pub(crate) fn loopback_up() -> Result<()> {
    sys::bring_loopback_up(sys::ioctl_socket()?.as_fd())
}

/// The three streams; dup2(2) clears close-on-exec.
pub(crate) fn stdio([input, output, error]: &[OwnedFd; 3]) -> Result<()> {
    dup2_stdin(input)?;
    dup2_stdout(output)?;
    dup2_stderr(error)
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

/// capset(2). An empty inheritable set empties the ambient one (capabilities(7)).
pub(crate) fn set_capabilities(set: CapabilitySet) -> Result<()> {
    let bits = Bits::from_bits_retain(set.0);
    let sets = CapabilitySets { effective: bits, permitted: bits, inheritable: Bits::empty() };
    rustix::thread::set_capabilities(None, sets)
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
pub(crate) fn reset_inherited() -> Result<()> {
    sys::reset_signal_actions();
    sys::unblock_all_signals()?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    sys::close_all_on_exec()
}
