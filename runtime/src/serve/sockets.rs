//! Sockets that clients come to: opened here, or by a service manager that started the gateway for the first of them.

use std::{
    net::{SocketAddr, TcpListener},
    os::fd::AsRawFd,
};

use anyhow::{Context, Result, bail};
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockopt, listen, setsockopt, socket,
        sockopt::{AcceptConn, Ipv6V6Only, ReuseAddr},
    },
};

use super::config::{ClientLimits, Config, Listen};

/// One that listens.
pub(super) struct Opened {
    pub(super) socket: TcpListener,
    pub(super) is_encrypted: bool,
}

/// All that the file names.
pub(super) fn open(config: &Config) -> Result<Vec<Opened>> {
    let encrypted = config.tls.iter().flat_map(|tls| &tls.listen).map(|listen| (listen, true));
    let all = config.listen.iter().map(|listen| (listen, false)).chain(encrypted);
    let opened = all.map(|(listen, is_encrypted)| {
        let socket = match listen {
            Listen::Address(address) => open_at(*address)?,
            Listen::Inherited => inherited()?,
        };
        Ok(Opened { socket, is_encrypted })
    });
    opened.collect()
}

/// Standard input, as systemd passes a socket by `StandardInput=socket`.
fn inherited() -> Result<TcpListener> {
    let stdin = rustix::stdio::stdin();
    if !getsockopt(&stdin, AcceptConn).unwrap_or(false) {
        bail!("listen: standard input is no socket that listens; start it by a socket unit with StandardInput=socket");
    }
    // Children have another standard input, and the copy is closed in them.
    let own = rustix::io::fcntl_dupfd_cloexec(stdin, 3).context("cannot copy standard input")?;
    let socket = TcpListener::from(own);
    socket.set_nonblocking(true).context("cannot use standard input")?;
    Ok(socket)
}

/// A socket that listens there.
pub(super) fn open_at(address: SocketAddr) -> Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let open = || -> nix::Result<TcpListener> {
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
        setsockopt(&socket, ReuseAddr, &true)?;
        if address.is_ipv6() {
            // Whoever wants both names both.
            setsockopt(&socket, Ipv6V6Only, &true)?;
        }
        bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
        listen(&socket, Backlog::MAXALLOWABLE)?;
        Ok(socket.into())
    };
    open().with_context(|| format!("cannot listen at {address}"))
}

/// As many as may be, for connections; the limits before, soft and hard.
pub(super) fn take_descriptors() -> Result<(u64, u64)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot ask for the limit of descriptors")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the limit of descriptors")?;
    Ok((soft, hard))
}

/// Connections at once: each takes a descriptor, and its request another one or two.
pub(super) fn connections(limits: &ClientLimits) -> u32 {
    // It cannot fail: the resource is one.
    let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default();
    limits.connections.min(u32::try_from(descriptors / 3).unwrap_or(u32::MAX)).max(1)
}
