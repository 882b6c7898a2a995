//! Who has a port of the machine, as far as it can be seen.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use super::Networks;
use crate::spec::ports::Protocol;

/// States of sockets in /proc/net that keep a port from others: one of TCP that listens, and any of UDP.
const LISTENS: &str = "0A";

impl Networks {
    /// A container or a process in words, to follow `by`; None: nobody is seen. `ip`: the machine's address; None: all of them.
    pub(super) fn holder(&self, protocol: Protocol, ip: Option<IpAddr>, port: u16) -> Option<String> {
        self.container_with(protocol, ip, port).or_else(|| process_with(protocol, ip, port))
    }

    fn container_with(&self, protocol: Protocol, ip: Option<IpAddr>, port: u16) -> Option<String> {
        let (joined, _) = self.of_containers().ok()?;
        let leases = joined.into_values().flatten().map(|(_, lease)| lease);
        let mut holding = leases.filter(|lease| {
            let mut ports = lease.ports.iter();
            ports.any(|one| one.host_port == port && one.protocol == protocol && meet(one.host_ip, ip))
        });
        holding.next().map(|lease| format!("container {}", lease.name))
    }
}

/// Whether two places have an address in common.
fn meet(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    let specific = |ip: Option<IpAddr>| ip.filter(|ip| !ip.is_unspecified());
    specific(one).is_none() || specific(other).is_none() || one == other
}

fn process_with(protocol: Protocol, ip: Option<IpAddr>, port: u16) -> Option<String> {
    let (tables, listening): (&[&str], _) = match protocol {
        Protocol::Tcp => (&["tcp", "tcp6"], true),
        Protocol::Udp => (&["udp", "udp6"], false),
        Protocol::Sctp => return None,
    };
    tables.iter().find_map(|table| {
        let text = fs::read_to_string(format!("/proc/net/{table}")).ok()?;
        let sockets = text.lines().skip(1).filter_map(parse_socket);
        let mut holding = sockets.filter(|socket| {
            socket.port == port && (!listening || socket.state == LISTENS) && meet(Some(socket.ip), ip)
        });
        holding.find_map(|socket| owner(socket.inode))
    })
}

/// A line of /proc/net/tcp and its like (proc_net(5)).
struct Socket<'a> {
    ip: IpAddr,
    port: u16,
    state: &'a str,
    inode: &'a str,
}

fn parse_socket(line: &str) -> Option<Socket<'_>> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (ip, port) = fields.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Socket { ip: parse_ip(ip)?, port, state: fields.get(3)?, inode: fields.get(9)? })
}

/// Words of four bytes, as the processor has them in memory.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let words: Option<Vec<[u8; 4]>> = (0..hex.len() / 8)
        .map(|word| u32::from_str_radix(hex.get(word * 8..word * 8 + 8)?, 16).ok().map(u32::to_ne_bytes))
        .collect();
    let bytes = words?.concat();
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from).map(IpAddr::V4),
        _ => <[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from).map(IpAddr::V6),
    }
}

/// A process that has a socket.
fn owner(inode: &str) -> Option<String> {
    let wanted = format!("socket:[{inode}]");
    let has = |process: &Path| {
        let fds = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        fds.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|link| link.as_os_str() == wanted.as_str())
    };
    let processes = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let pid = processes
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .find(|name| has(&Path::new("/proc").join(name)))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("process {pid} ({})", name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_read_from_the_kernels_lists() {
        let line =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 31337 1 0 100";
        let socket = parse_socket(line).unwrap();
        assert_eq!((socket.port, socket.state, socket.inode), (8080, "0A", "31337"));
        if cfg!(target_endian = "little") {
            assert_eq!(socket.ip, IpAddr::from([127, 0, 0, 1]));
            assert_eq!(parse_ip("00000000000000000000000001000000"), Some(Ipv6Addr::LOCALHOST.into()));
        }
        for line in
            ["", "sl local", "0: 0100007F 0 0A", "0: 0100007F:zz 0 0A 1 2 3 4 5 6", "0: 01:1F90 0 0A 1 2 3 4 5 6"]
        {
            assert!(parse_socket(line).is_none(), "{line}");
        }
    }

    #[test]
    fn a_process_is_named_by_its_socket() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = process_with(Protocol::Tcp, None, port).unwrap();
        assert!(found.starts_with(&format!("process {} (", std::process::id())), "{found}");
        let other = Some(IpAddr::from([127, 0, 0, 9]));
        assert_eq!(process_with(Protocol::Tcp, other, port), None);
        drop(listener);
    }
}
