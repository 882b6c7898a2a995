//! The sockets that a function is served at: opened here, on the host, before anything of the container is there. The function's own
//! process can make none.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::{Result, bail};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
        sockopt::{Ipv6V6Only, ReuseAddr, TcpNoDelay},
    },
};

use crate::spec::ports::{HostPort, Protocol, PublishedPort};

/// How often the kernel may choose a port of which the other addresses are taken.
const TRIES: usize = 8;

/// Sockets, and where they are: each of one address and one port.
#[derive(Default)]
pub(super) struct Listeners {
    pub(super) sockets: Vec<TcpListener>,
    pub(super) ports: Vec<PublishedPort>,
}

/// Opens all of them, or none.
pub(super) fn open(ports: &[PublishedPort]) -> Result<Listeners> {
    let mut all = Listeners::default();
    for port in ports {
        let Listeners { sockets, ports } = open_one(port)?;
        all.sockets.extend(sockets);
        all.ports.extend(ports);
    }
    Ok(all)
}

/// A function speaks HTTP, and that is TCP.
pub(super) fn check(ports: &[PublishedPort]) -> Result<()> {
    match ports.iter().find(|port| port.protocol != Protocol::Tcp) {
        Some(port) => bail!(
            "-p {}/{}: a Wasm program that is published answers HTTP requests, which come by TCP; leave out /{}",
            port.container_port,
            port.protocol,
            port.protocol
        ),
        None => Ok(()),
    }
}

fn open_one(port: &PublishedPort) -> Result<Listeners> {
    let candidates = match port.host_port {
        HostPort::Any => vec![0; TRIES],
        HostPort::Fixed(number) => vec![number],
        HostPort::OneOf(first, last) => (first..=last).collect(),
    };
    let mut refused = None;
    for number in candidates {
        match open_at(port, number) {
            Ok(opened) => return Ok(opened),
            Err((address, errno)) if errno == Errno::EADDRINUSE => refused = Some((address, errno)),
            Err((address, errno)) => bail!("{}", explain(address, errno)),
        }
    }
    let (address, errno) = refused.unwrap_or((SocketAddr::from(([0, 0, 0, 0], 0)), Errno::EADDRINUSE));
    bail!("{}", explain(address, errno))
}

/// All addresses with one port; of 0 the kernel chooses one.
fn open_at(port: &PublishedPort, mut number: u16) -> Result<Listeners, (SocketAddr, Errno)> {
    let everywhere = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
    let addresses = port.host_ip.as_ref().map_or(everywhere.as_slice(), std::slice::from_ref);
    let mut opened = Listeners::default();
    for &ip in addresses {
        let address = SocketAddr::new(ip, number);
        let socket = match listen_at(address) {
            // A machine without IPv6, or a kernel that has it switched off.
            Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) if ip.is_ipv6() && port.host_ip.is_none() => continue,
            other => other.map_err(|errno| (address, errno))?,
        };
        let bound =
            socket.local_addr().map_err(|error| (address, Errno::from_raw(error.raw_os_error().unwrap_or(0))))?;
        number = bound.port();
        let host_port = HostPort::Fixed(number);
        opened.ports.push(PublishedPort { host_ip: Some(ip), host_port, ..port.clone() });
        opened.sockets.push(socket);
    }
    Ok(opened)
}

/// What is accepted at it sends at once what it is given: sockets have that from the one that they came to.
fn listen_at(address: SocketAddr) -> Result<TcpListener, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket: OwnedFd = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&socket, ReuseAddr, &true)?;
    setsockopt(&socket, TcpNoDelay, &true)?;
    if address.is_ipv6() {
        setsockopt(&socket, Ipv6V6Only, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&socket, Backlog::MAXALLOWABLE)?;
    Ok(socket.into())
}

fn explain(address: SocketAddr, errno: Errno) -> String {
    let hint = match errno {
        Errno::EADDRINUSE => "; somebody else listens there: publish another port, or stop who has it",
        Errno::EACCES => {
            "; ports below the sysctl net.ipv4.ip_unprivileged_port_start are root's: publish a higher one"
        }
        Errno::EADDRNOTAVAIL => "; this machine has no such address",
        _ => "",
    };
    format!("-p: cannot listen at {address}: {}{hint}", errno.desc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ports::parse_publish;

    fn opened(text: &str) -> Result<Listeners> {
        open(&parse_publish(text).unwrap())
    }

    #[test]
    fn a_free_port_is_the_same_at_all_addresses() {
        let Listeners { sockets, ports } = opened("80").unwrap();
        assert_eq!(sockets.len(), ports.len());
        let numbers: Vec<u16> = sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        assert!(numbers.iter().all(|number| *number == numbers[0] && *number > 0), "{numbers:?}");
        assert!(ports.iter().all(|port| port.host_port == HostPort::Fixed(numbers[0]) && port.container_port == 80));
    }

    #[test]
    fn a_port_that_is_taken_is_named_and_another_of_a_range_is_used() {
        let taken = opened("127.0.0.1::80").unwrap();
        let HostPort::Fixed(number) = taken.ports[0].host_port else { panic!("{:?}", taken.ports) };
        let message = opened(&format!("127.0.0.1:{number}:80")).err().unwrap().to_string();
        assert!(message.contains(&format!("cannot listen at 127.0.0.1:{number}: ")), "{message}");
        assert!(message.contains("Address already in use; somebody else listens there"), "{message}");
        let (first, last) = (number.saturating_sub(20).max(1024), number.saturating_add(20));
        let other = opened(&format!("127.0.0.1:{first}-{last}:80")).unwrap();
        assert_ne!(other.ports[0].host_port, HostPort::Fixed(number));
    }

    #[test]
    fn an_address_of_another_machine_is_named() {
        let message = opened("192.0.2.1:0:80").err().unwrap().to_string();
        assert!(message.contains("192.0.2.1:0") && message.contains("no such address"), "{message}");
    }

    #[test]
    fn functions_are_served_by_tcp_alone() {
        assert!(check(&parse_publish("80").unwrap()).is_ok());
        let message = check(&parse_publish("53:53/udp").unwrap()).unwrap_err().to_string();
        assert!(message.contains("-p 53/udp: ") && message.contains("TCP"), "{message}");
    }
}
