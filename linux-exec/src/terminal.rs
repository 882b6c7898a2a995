//! A pty in the container's own devpts.
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{Gid, Mode, OFlags, Uid, openat},
    io::Result,
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

/// Both ends, close-on-exec.
pub(crate) struct Terminal {
    /// The supervisor's end.
    pub(crate) master: OwnedFd,
    /// The program's end.
    pub(crate) slave: OwnedFd,
}

impl Terminal {
    /// Opens a new terminal of a devpts whose root directory is given, which may be detached.
    ///
    /// TIOCGPTPEER opens the other end without a path, so no path of the container is trusted. It belongs to `owner`.
    pub(crate) fn open(devpts: BorrowedFd<'_>, size: Option<(u16, u16)>, owner: u32) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        Self::from_master(openat(devpts, c"ptmx", flags, Mode::empty())?, size, owner)
    }

    /// The same with a master that is open already.
    pub(crate) fn from_master(master: OwnedFd, size: Option<(u16, u16)>, owner: u32) -> Result<Self> {
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        if owner != 0 {
            rustix::fs::fchown(&slave, Some(Uid::from_raw(owner)), None::<Gid>)?;
        }
        if let Some((columns, rows)) = size {
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            tcsetwinsize(master.as_fd(), size)?;
        }
        Ok(Self { master, slave })
    }
}
