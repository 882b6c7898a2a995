//! Network devices by ioctl, where a socket of netlink would be more than is needed.

use super::check;
use nix::libc;
use rustix::{
    fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    io::{Errno, Result},
};
use std::ffi::c_char;

/// IFF_UP | IFF_RUNNING, which fit a short.
const LOOPBACK_UP: i16 = 0x1 | 0x40;

/// IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL.
const TAP: i16 = (0x0002 | 0x1000 | 0x8000_u16).cast_signed();

/// Sets the loopback interface of this network namespace up, which also gives it 127.0.0.1 and ::1 (netdevice(7)).
pub(crate) fn bring_loopback_up() -> Result<()> {
    let (socket, request) = (socket()?, request("lo", LOOPBACK_UP)?);
    // SAFETY: SIOCSIFFLAGS reads an ifreq.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) }.into()).map(drop)
}

/// Makes a device of Ethernet in the network namespace in which `tun` was opened: its frames are read from and written to `tun`, whole and
/// with nothing before them; it goes with that. Documentation/networking/tuntap.rst.
pub(crate) fn make_tap(tun: BorrowedFd<'_>, name: &str) -> Result<()> {
    let mut request = request(name, TAP)?;
    // SAFETY: TUNSETIFF reads and writes an ifreq.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) }.into()).map(drop)
}

/// A datagram socket (close-on-exec).
fn socket() -> Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let socket = check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }.into())?;
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(socket).unwrap_or(-1)) })
}

/// What is asked of a device. ENAMETOOLONG if its name, with a zero behind it, has no room.
fn request(name: &str, flags: i16) -> Result<libc::ifreq> {
    // SAFETY: ifreq is plain data, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(Errno::NAMETOOLONG);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = flags;
    Ok(request)
}
