//! The sockets that a program is published at, if it does not open them itself: they are opened here, before anything of the container
//! is there; its own process can make none. Without a network they are the host's, else those of the container's namespace, to which
//! the network leads.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use anyhow::{Result, bail};
use linux_exec::network::namespace;
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
        sockopt::{Ipv6V6Only, ReuseAddr, TcpNoDelay},
    },
};

use crate::spec::ports::{HostPort, Listening, Protocol, PublishedPort};

/// How often the kernel may choose a port of which the other addresses are taken.
const TRIES: usize = 8;

const ANY_IPV4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Sockets, and where they are: each of one address and one port.
#[derive(Default)]
pub(super) struct Listeners {
    pub(super) sockets: Vec<TcpListener>,
    pub(super) ports: Vec<PublishedPort>,
}

/// Opens all of them, or none. A module, which counts them, gets one for each port, whatever the addresses.
pub(super) fn open(ports: &[PublishedPort], listening: Listening) -> Result<Listeners> {
    let mut all = Listeners::default();
    for port in ports {
        let Listeners { sockets, ports } = open_one(port, listening == Listening::Given)?;
        all.sockets.extend(sockets);
        all.ports.extend(ports);
    }
    Ok(all)
}

/// The same in a network namespace, to which what comes to the host's ports is led: one for each of the container's ports.
pub(super) fn open_inside(namespace: BorrowedFd<'_>, ports: &[PublishedPort]) -> Result<Listeners> {
    let mut opened = BTreeSet::new();
    let numbers: Vec<u16> = ports.iter().map(|port| port.container_port).filter(|port| opened.insert(*port)).collect();
    let sockets = namespace::inside_elsewhere(namespace, || {
        numbers.into_iter().map(|number| listen_everywhere(number).map_err(explained)).collect::<Result<_>>()
    })?;
    Ok(Listeners { sockets, ports: Vec::new() })
}

/// Refuses what this kind of program cannot speak.
pub(super) fn check(ports: &[PublishedPort], listening: Listening) -> Result<()> {
    let spoken = match listening {
        Listening::Function => "is called for HTTP requests, which come by TCP",
        Listening::Given => "accepts connections of TCP at what it is given",
        Listening::Own => "has sockets of TCP and UDP",
    };
    let speaks = |port: &&PublishedPort| match port.protocol {
        Protocol::Tcp => true,
        Protocol::Udp => listening == Listening::Own,
        Protocol::Sctp => false,
    };
    match ports.iter().find(|port| !speaks(port)) {
        Some(port) => bail!(
            "-p {}/{}: this Wasm program {spoken}; leave out /{}",
            port.container_port,
            port.protocol,
            port.protocol
        ),
        None => Ok(()),
    }
}

fn open_one(port: &PublishedPort, together: bool) -> Result<Listeners> {
    let candidates = match port.host_port {
        HostPort::Any => vec![0; TRIES],
        HostPort::Fixed(number) => vec![number],
        HostPort::OneOf(first, last) => (first..=last).collect(),
    };
    let mut refused = None;
    for number in candidates {
        match open_at(port, number, together) {
            Ok(opened) => return Ok(opened),
            Err((address, errno)) if errno == Errno::EADDRINUSE => refused = Some((address, errno)),
            Err(failed) => return Err(explained(failed)),
        }
    }
    Err(explained(refused.unwrap_or((SocketAddr::new(ANY_IPV4, 0), Errno::EADDRINUSE))))
}

/// All addresses with one port; of 0 the kernel chooses one. `together`: by one socket for all of them.
fn open_at(port: &PublishedPort, mut number: u16, together: bool) -> Result<Listeners, (SocketAddr, Errno)> {
    let mut opened = Listeners::default();
    if together && port.host_ip.is_none() {
        let socket = listen_everywhere(number)?;
        let bound = address_of(&socket, SocketAddr::new(ANY_IPV6, number))?;
        let everywhere = if bound.is_ipv6() { &[ANY_IPV4, ANY_IPV6][..] } else { &[ANY_IPV4] };
        opened.ports = everywhere.iter().map(|ip| published(port, *ip, bound.port())).collect();
        opened.sockets.push(socket);
        return Ok(opened);
    }
    let everywhere = [ANY_IPV4, ANY_IPV6];
    let addresses = port.host_ip.as_ref().map_or(everywhere.as_slice(), std::slice::from_ref);
    for &ip in addresses {
        let address = SocketAddr::new(ip, number);
        let socket = match listen_at(address, false) {
            // A machine without IPv6, or a kernel that has it switched off.
            Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) if ip.is_ipv6() && port.host_ip.is_none() => continue,
            other => other.map_err(|errno| (address, errno))?,
        };
        number = address_of(&socket, address)?.port();
        opened.ports.push(published(port, ip, number));
        opened.sockets.push(socket);
    }
    Ok(opened)
}

fn published(port: &PublishedPort, ip: IpAddr, number: u16) -> PublishedPort {
    PublishedPort { host_ip: Some(ip), host_port: HostPort::Fixed(number), ..port.clone() }
}

fn address_of(socket: &TcpListener, wanted: SocketAddr) -> Result<SocketAddr, (SocketAddr, Errno)> {
    socket.local_addr().map_err(|error| (wanted, Errno::from_raw(error.raw_os_error().unwrap_or(0))))
}

/// One socket for all addresses, of IPv6 too where there is any.
fn listen_everywhere(number: u16) -> Result<TcpListener, (SocketAddr, Errno)> {
    let (both, ipv4) = (SocketAddr::new(ANY_IPV6, number), SocketAddr::new(ANY_IPV4, number));
    match listen_at(both, true) {
        Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => listen_at(ipv4, false).map_err(|errno| (ipv4, errno)),
        other => other.map_err(|errno| (both, errno)),
    }
}

/// What is accepted at it sends at once what it is given: sockets have that from the one that they came to. `both`: it is IPv4's too.
fn listen_at(address: SocketAddr, both: bool) -> Result<TcpListener, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket: OwnedFd = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&socket, ReuseAddr, &true)?;
    setsockopt(&socket, TcpNoDelay, &true)?;
    if address.is_ipv6() {
        setsockopt(&socket, Ipv6V6Only, &!both)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&socket, Backlog::MAXALLOWABLE)?;
    Ok(socket.into())
}

fn explained((address, errno): (SocketAddr, Errno)) -> anyhow::Error {
    let hint = match errno {
        Errno::EADDRINUSE => "; somebody else listens there: publish another port, or stop who has it",
        Errno::EACCES => {
            "; ports below the sysctl net.ipv4.ip_unprivileged_port_start are root's: publish a higher one"
        }
        Errno::EADDRNOTAVAIL => "; this machine has no such address",
        _ => "",
    };
    anyhow::anyhow!("-p: cannot listen at {address}: {}{hint}", errno.desc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ports::parse_publish;

    fn opened(text: &str) -> Result<Listeners> {
        open(&parse_publish(text).unwrap(), Listening::Function)
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
    fn a_module_gets_one_socket_for_each_port() {
        let Listeners { sockets, ports } = open(&parse_publish("80").unwrap(), Listening::Given).unwrap();
        assert_eq!(sockets.len(), 1);
        let bound = sockets[0].local_addr().unwrap();
        assert!(ports.len() == if bound.is_ipv6() { 2 } else { 1 });
        assert!(ports.iter().all(|port| port.host_port == HostPort::Fixed(bound.port())));
        std::net::TcpStream::connect(("127.0.0.1", bound.port())).expect("it is IPv4's too");
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
    fn what_a_program_does_not_speak_is_refused() {
        let (tcp, udp) = (parse_publish("80").unwrap(), parse_publish("53:53/udp").unwrap());
        for listening in [Listening::Function, Listening::Given] {
            assert!(check(&tcp, listening).is_ok());
            let message = check(&udp, listening).unwrap_err().to_string();
            assert!(message.contains("-p 53/udp: ") && message.contains("TCP"), "{message}");
        }
        assert!(check(&udp, Listening::Own).is_ok());
        assert!(check(&parse_publish("80:80/sctp").unwrap(), Listening::Own).is_err());
    }
}
