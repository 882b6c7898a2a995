//! Keeps ports of the machine from everybody else, by a socket that is bound: the packet filter leads away what comes for it, but for
//! what comes over IPv6 and cannot be led, for which it listens. It ends with the process, so a port is free again however that ended.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrIn6, SockaddrStorage, bind, getsockname,
        listen, setsockopt, socket, sockopt,
    },
};

use super::{ports::BoundPort, relay::Door};
use crate::spec::ports::{HostPort, Protocol, PublishedPort};

/// Ports that are this process's, until it is dropped.
#[derive(Default)]
pub(super) struct Reserved {
    pub(super) ports: Vec<BoundPort>,
    /// Those that listen.
    pub(super) doors: Vec<Door>,
    sockets: Vec<OwnedFd>,
}

impl Reserved {
    /// Lets somebody else have the ports, who is to listen at all of them.
    pub(super) fn release(&mut self) {
        self.sockets.clear();
        self.doors.clear();
    }
}

/// Who is to have the ports.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// This process, as long as it lives.
    Us,
    /// Somebody who listens at them when they are [released](Reserved::release), where connections that have ended keep nobody from it.
    Another,
}

/// Says who has a port that is taken.
pub(super) type Holder<'a> = dyn Fn(&PublishedPort, u16) -> Option<String> + 'a;

/// Takes all ports, or none.
pub(super) fn reserve(published: &[PublishedPort], whose: For, holder: &Holder<'_>) -> Result<Reserved> {
    let mut reserved = Reserved::default();
    for port in published {
        let (host_port, socket) = one(port, whose, holder)?;
        let PublishedPort { host_ip, container_port, protocol, .. } = *port;
        let relayed = socket.as_ref().is_some_and(|taken| taken.listens);
        reserved.ports.push(BoundPort { host_ip, host_port, container_port, protocol, relayed });
        match socket {
            Some(Taken { socket, listens: true }) => {
                reserved.doors.push(Door { listener: socket.into(), container_port });
            }
            taken => reserved.sockets.extend(taken.map(|taken| taken.socket)),
        }
    }
    Ok(reserved)
}

/// A socket that keeps a port.
struct Taken {
    socket: OwnedFd,
    /// Over IPv6 somebody may connect to it.
    listens: bool,
}

fn one(port: &PublishedPort, whose: For, holder: &Holder<'_>) -> Result<(u16, Option<Taken>)> {
    match port.host_port {
        HostPort::Any => take(port, 0, whose, holder),
        HostPort::Fixed(number) => take(port, number, whose, holder),
        HostPort::OneOf(first, last) => {
            let mut taken = None;
            for number in first..=last {
                match take(port, number, whose, &|_, _| None) {
                    Ok(found) => return Ok(found),
                    Err(error) => taken = Some(error),
                }
            }
            Err(taken.unwrap_or_else(|| anyhow::anyhow!("no port")))
                .with_context(|| format!("none of the ports {first} to {last} can be published"))
        }
    }
}

fn take(port: &PublishedPort, number: u16, whose: For, holder: &Holder<'_>) -> Result<(u16, Option<Taken>)> {
    let ip = port.host_ip.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let place = || SocketAddr::new(port.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), number);
    let bound = match bound(port.protocol, (ip, number), port.host_ip.is_none(), whose) {
        // No IPv6 here.
        Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) if port.host_ip.is_none() => {
            bound(port.protocol, (IpAddr::V4(Ipv4Addr::UNSPECIFIED), number), false, whose)
        }
        other => other,
    };
    match bound {
        Ok((number, socket)) => Ok((number, Some(socket))),
        // Who has no SCTP has nobody who listens on it either.
        Err(Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT) if port.protocol == Protocol::Sctp => match number {
            0 => bail!("-p: the kernel has no SCTP to choose a port of; name one"),
            number => Ok((number, None)),
        },
        Err(Errno::EADDRINUSE) => {
            let by = holder(port, number).map_or_else(
                || " (ss -lnp shows by whom; amphora ps lists what containers publish)".to_owned(),
                |holder| format!(", by {holder}"),
            );
            bail!("Bind for {}/{} failed: port is already allocated{by}", place(), port.protocol)
        }
        Err(Errno::EADDRNOTAVAIL) => bail!("Bind for {} failed: this machine has no such address", place()),
        Err(errno) => Err(errno).with_context(|| format!("cannot publish {}/{}", place(), port.protocol)),
    }
}

fn bound(protocol: Protocol, (ip, port): (IpAddr, u16), both: bool, whose: For) -> Result<(u16, Taken), Errno> {
    let listens = protocol == Protocol::Tcp && matches!(ip, IpAddr::V6(ip) if ip.is_unspecified() || ip.is_loopback());
    let family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let (kind, protocol) = match protocol {
        Protocol::Tcp => (SockType::Stream, Some(SockProtocol::Tcp)),
        Protocol::Udp => (SockType::Datagram, Some(SockProtocol::Udp)),
        Protocol::Sctp => return Err(Errno::EPROTONOSUPPORT),
    };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, protocol)?;
    if listens || (protocol == Some(SockProtocol::Tcp) && whose == For::Another) {
        // Connections that have ended keep nobody from the port.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    if ip.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &!both)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(ip, port)))?;
    if listens {
        listen(&socket, Backlog::MAXCONN)?;
        fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    let name: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let number = name.as_sockaddr_in().map(|name| name.port());
    let number = number.or_else(|| name.as_sockaddr_in6().map(SockaddrIn6::port)).ok_or(Errno::EPROTO)?;
    Ok((number, Taken { socket, listens }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ports::parse_all;

    fn reserve_texts(texts: &[&str]) -> Result<Reserved> {
        let ports = parse_all(&texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>()).unwrap();
        reserve(&ports, For::Us, &|_, number| Some(format!("who has {number}")))
    }

    #[test]
    fn a_port_is_one_containers() {
        let first = reserve_texts(&["127.0.0.1:0:80", "127.0.0.1::80/udp"]).unwrap();
        let [tcp, udp] = first.ports.as_slice() else { panic!("{:?}", first.ports) };
        assert!(tcp.host_port > 0 && udp.host_port > 0);
        let again = format!("127.0.0.1:{}:80", tcp.host_port);
        let message = reserve_texts(&[&again]).err().unwrap().to_string();
        assert!(message.contains(&format!("port is already allocated, by who has {}", tcp.host_port)), "{message}");
        assert!(reserve_texts(&[&format!("{}:80", tcp.host_port)]).is_err());
        let range = format!("127.0.0.1:{}-{}:80", tcp.host_port, tcp.host_port);
        assert!(reserve_texts(&[&range]).is_err());
        drop(first);
        assert_eq!(reserve_texts(&[&again]).unwrap().ports.len(), 1);
        let message = reserve_texts(&["192.0.2.1:80:80"]).err().unwrap().to_string();
        assert!(message.contains("no such address"), "{message}");
    }
}
