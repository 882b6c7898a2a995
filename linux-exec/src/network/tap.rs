//! Devices of Ethernet whose other end is a descriptor (Documentation/networking/tuntap.rst): each read(2) is a frame that somebody in the
//! namespace has sent, each write(2) one that comes to it.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::{Error, sys};

const TUN: &str = "/dev/net/tun";

/// Makes one in the caller's network namespace, switched off; it goes with the descriptor, which does not block. Needs CAP_NET_ADMIN there,
/// and the right to open `/dev/net/tun`.
pub fn make(name: &str) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let tun = openat(CWD, TUN, flags, Mode::empty()).map_err(|errno| {
        Error::new(format!("open {TUN}"), errno).hint(match errno {
            rustix::io::Errno::NOENT | rustix::io::Errno::NXIO | rustix::io::Errno::NODEV => "as root, modprobe tun",
            rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => {
                "it is everybody's on most machines: as root, chmod 0666 /dev/net/tun"
            }
            _ => "",
        })
    })?;
    sys::make_tap(tun.as_fd(), name).map_err(|errno| Error::new(format!("make the network device {name}"), errno))?;
    Ok(tun)
}
