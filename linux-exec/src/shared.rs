//! What a container shares with another one that runs: its namespaces, and the memory at its /dev/shm.
use crate::{
    detached,
    error::Error,
    magic,
    overlay::in_private_mount_namespace,
    process::Process,
    resolve,
    sys::{self, MountChange},
};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{CWD, Mode, OFlags, ResolveFlags, fstatfs, openat},
    io::Errno,
    mount::{MountPropagationFlags, OpenTreeFlags, open_tree},
    thread::{ThreadNameSpaceType, move_into_thread_name_spaces},
};

/// A kind of namespace that another container can be joined in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Processes.
    Pid,
    /// System V objects and POSIX message queues.
    Ipc,
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Self::Pid => "pid",
            Self::Ipc => "ipc",
        }
    }
}

/// The namespace of a container's first process, for [`crate::confinement::Namespace::Join`].
///
/// # Errors
/// The process has ended, or is one that the caller may not look into (of a user namespace that is not its own, say).
pub fn namespace(first: Process, kind: Kind) -> Result<OwnedFd, Error> {
    let name = kind.file();
    let error = |errno| {
        Error::new(format!("open the {name} namespace of process {}", first.pid), errno).hint(match errno {
            Errno::ACCESS | Errno::PERM => "it belongs to a user namespace that is not the caller's",
            Errno::NOENT | Errno::SRCH => "it has ended",
            _ => "",
        })
    };
    let path = format!("/proc/{}/ns/{name}", first.pid);
    let opened = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(error)?;
    // By then its pid may have been another's.
    if first.is_alive() { Ok(opened) } else { Err(error(Errno::SRCH)) }
}

/// The memory at a container's /dev/shm, as a mount for [`crate::plan::MountSource::Detached`]. What lies there is the container's to
/// choose: anything but a tmpfs at a path without links is refused, and nothing in it is a device or can be executed.
pub fn memory(first: Process) -> Result<OwnedFd, Error> {
    let error = |errno| {
        Error::new(format!("take the /dev/shm of process {}", first.pid), errno).hint(match errno {
            Errno::INVAL | Errno::LOOP | Errno::NOENT | Errno::NOTDIR => "there is no memory mounted there",
            Errno::PERM => "it belongs to a user namespace that is not the caller's",
            _ => "",
        })
    };
    let pidfd = first.pidfd().map_err(|error| Error::new("find the container's process", error))?;
    let tree = in_private_mount_namespace(|| {
        move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::MOUNT)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let found = resolve::open(CWD, c"/dev/shm", flags, ResolveFlags::NO_SYMLINKS)?;
        if fstatfs(&found)?.f_type != magic::TMPFS {
            return Err(Errno::INVAL);
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        open_tree(&found, c"", flags)
    });
    let tree = tree.map_err(error)?;
    let private = MountChange { propagation: MountPropagationFlags::PRIVATE, ..MountChange::set(detached::PLAIN) };
    sys::mount_setattr(tree.as_fd(), c"", private).map_err(error)?;
    Ok(tree)
}
