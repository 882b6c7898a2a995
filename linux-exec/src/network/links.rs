//! Network devices, addresses and routes of one network namespace (rtnetlink(7)).

use std::{
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

use nix::{errno::Errno, sys::socket::SockProtocol};

use super::{
    message::{ACKNOWLEDGE, CREATE, DUMP, EXCLUSIVE, Messages, REPLACE, Received, attributes, find, text},
    socket::{Refused, Socket},
};
use crate::Error;

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
/// Nobody else can have the address: it is not asked for first, which would take a second.
const IFA_F_NODAD: u32 = 0x2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;
const MAIN_TABLE: u8 = 254;
const OF_AN_ADMINISTRATOR: u8 = 4;
const UNICAST: u8 = 1;

const IFF_UP: u32 = 1;

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in the namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its kind, such as `bridge` or `veth`; empty for hardware.
    pub kind: String,
    /// Its hardware address; zeros where it has none of this length.
    pub mac: [u8; 6],
    /// Whether it is switched on.
    pub up: bool,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
}

/// A pair of devices: what goes in at one comes out at the other.
#[derive(Debug)]
pub struct Veth<'a> {
    /// Of the one that stays here, a port of `bridge`.
    pub name: &'a str,
    /// The number of a bridge.
    pub bridge: u32,
    /// Of the one in the other namespace.
    pub peer: &'a str,
    /// Its hardware address.
    pub peer_mac: [u8; 6],
    /// The other namespace.
    pub namespace: BorrowedFd<'a>,
    /// Of both, in bytes.
    pub mtu: u32,
}

/// Where packets to some addresses go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The addresses: the first and how many bits of it count; None: all.
    pub destination: Option<(IpAddr, u8)>,
    /// Through which device, by number.
    pub device: Option<u32>,
}

/// The devices of the network namespace in which it was opened.
pub struct Links {
    socket: Socket,
}

impl Links {
    /// Opens those of the caller's namespace.
    pub fn open() -> Result<Self, Error> {
        let socket = Socket::open(SockProtocol::NetlinkRoute);
        Ok(Self { socket: socket.map_err(|errno| Error::new("open a netlink socket", errno))? })
    }

    /// The device of a name.
    pub fn find(&self, name: &str) -> Result<Option<Link>, Error> {
        let mut messages = Messages::default();
        messages.begin(GET_LINK, 0, &link_header(0, 0, 0));
        messages.text(IFLA_IFNAME, name);
        let mut found = None;
        match self.socket.list(&messages, false, |answer| found = parse_link(answer)) {
            Ok(()) => Ok(found),
            Err(Errno::ENODEV) => Ok(None),
            Err(errno) => Err(Error::new(format!("look for the network device {name}"), errno)),
        }
    }

    /// All devices.
    pub fn list(&self) -> Result<Vec<Link>, Error> {
        let mut messages = Messages::default();
        messages.begin(GET_LINK, DUMP, &link_header(0, 0, 0));
        let mut found = Vec::new();
        self.socket
            .list(&messages, true, |answer| found.extend(parse_link(answer)))
            .map_err(|errno| Error::new("list network devices", errno))?;
        Ok(found)
    }

    /// Makes a bridge that is switched off; false if there is a device of that name.
    pub fn add_bridge(&self, name: &str, mac: [u8; 6], mtu: u32) -> Result<bool, Error> {
        let mut messages = Messages::default();
        messages.begin(NEW_LINK, ACKNOWLEDGE | CREATE | EXCLUSIVE, &link_header(0, 0, 0));
        messages.text(IFLA_IFNAME, name);
        messages.attribute(IFLA_ADDRESS, &mac);
        messages.number(IFLA_MTU, mtu);
        messages.nest(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "bridge"));
        match self.socket.request(&messages) {
            Ok(()) => Ok(true),
            Err(Refused { errno: Errno::EEXIST, .. }) => Ok(false),
            Err(refused) => {
                Err(Error::new(format!("make the bridge {name}"), refused.errno).hint(&hint(refused.errno, "bridge")))
            }
        }
    }

    /// Makes a pair, of which this end is switched on. The other cannot be yet. False if there is a device of that name.
    pub fn add_veth(&self, veth: &Veth<'_>) -> Result<bool, Error> {
        let mut messages = Messages::default();
        messages.begin(NEW_LINK, ACKNOWLEDGE | CREATE | EXCLUSIVE, &link_header(0, IFF_UP, IFF_UP));
        messages.text(IFLA_IFNAME, veth.name);
        messages.number(IFLA_MTU, veth.mtu);
        messages.number(IFLA_MASTER, veth.bridge);
        messages.nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth");
            info.nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    peer.raw(&link_header(0, 0, 0));
                    peer.text(IFLA_IFNAME, veth.peer);
                    peer.attribute(IFLA_ADDRESS, &veth.peer_mac);
                    peer.number(IFLA_MTU, veth.mtu);
                    peer.attribute(IFLA_NET_NS_FD, &veth.namespace.as_raw_fd().to_ne_bytes());
                });
            });
        });
        match self.socket.request(&messages) {
            Ok(()) => Ok(true),
            Err(Refused { errno: Errno::EEXIST, .. }) => Ok(false),
            Err(refused) => {
                let action = format!("make the network devices {} and {}", veth.name, veth.peer);
                Err(Error::new(action, refused.errno).hint(&hint(refused.errno, "veth")))
            }
        }
    }

    /// Lets a port of a bridge give frames back to where they come from.
    pub fn set_hairpin(&self, port: &Link) -> Result<(), Error> {
        let mut header = link_header(port.index, 0, 0);
        header[0] = family(nix::libc::AF_BRIDGE);
        let mut messages = Messages::default();
        messages.begin(SET_LINK, ACKNOWLEDGE, &header);
        messages.nest(IFLA_PROTINFO, |info| info.attribute(IFLA_BRPORT_MODE, &[1]));
        self.done(&messages, || format!("set the bridge port {}", port.name))
    }

    /// Makes a device a port of a bridge.
    pub fn join_bridge(&self, port: &Link, bridge: &Link) -> Result<(), Error> {
        let mut messages = Messages::default();
        messages.begin(SET_LINK, ACKNOWLEDGE, &link_header(port.index, 0, 0));
        messages.number(IFLA_MASTER, bridge.index);
        self.done(&messages, || format!("make {} a port of the bridge {}", port.name, bridge.name))
    }

    /// Removes a device, and its other end if it is one of a pair; false if there is none.
    pub fn delete(&self, name: &str) -> Result<bool, Error> {
        let mut messages = Messages::default();
        messages.begin(DELETE_LINK, ACKNOWLEDGE, &link_header(0, 0, 0));
        messages.text(IFLA_IFNAME, name);
        match self.socket.request(&messages) {
            Ok(()) => Ok(true),
            Err(Refused { errno: Errno::ENODEV, .. }) => Ok(false),
            Err(refused) => Err(Error::new(format!("remove the network device {name}"), refused.errno)),
        }
    }

    /// Gives a device that is switched off a hardware address and a largest packet, in bytes.
    pub fn set_hardware(&self, link: &Link, mac: [u8; 6], mtu: u32) -> Result<(), Error> {
        let mut messages = Messages::default();
        messages.begin(SET_LINK, ACKNOWLEDGE, &link_header(link.index, 0, 0));
        messages.attribute(IFLA_ADDRESS, &mac);
        messages.number(IFLA_MTU, mtu);
        self.done(&messages, || format!("set the hardware address of {}", link.name))
    }

    /// Gives a device addresses, switches it on, and routes to everything through `gateways`. An address that it has is fine.
    pub fn configure(&self, index: u32, addresses: &[(IpAddr, u8)], gateways: &[IpAddr]) -> Result<(), Error> {
        let mut messages = Messages::default();
        for (ip, prefix) in addresses {
            messages.begin(NEW_ADDRESS, ACKNOWLEDGE | CREATE | REPLACE, &address_header(*ip, *prefix, index));
            put_address(&mut messages, *ip, *prefix);
        }
        messages.begin(SET_LINK, ACKNOWLEDGE, &link_header(index, IFF_UP, IFF_UP));
        gateways.iter().for_each(|gateway| put_default_route(&mut messages, *gateway, index));
        self.socket.request(&messages).map_err(|refused| {
            let number = usize::try_from(refused.message).unwrap_or_default();
            let action = match number.checked_sub(1).and_then(|at| addresses.get(at)) {
                Some((ip, prefix)) => format!("give network device {index} the address {ip}/{prefix}"),
                None => format!("route through network device {index}"),
            };
            Error::new(action, refused.errno)
        })
    }

    /// Routes to everything through `gateway`, unless there is such a route already.
    pub fn route_by_default(&self, index: u32, gateway: IpAddr) -> Result<(), Error> {
        let mut messages = Messages::default();
        put_default_route(&mut messages, gateway, index);
        match self.socket.request(&messages) {
            Err(refused) if refused.errno != Errno::EEXIST => {
                Err(Error::new(format!("route through the gateway {gateway}"), refused.errno))
            }
            _ => Ok(()),
        }
    }

    /// All addresses: the number of the device, the address, and how many bits of it are its network's.
    pub fn addresses(&self) -> Result<Vec<(u32, IpAddr, u8)>, Error> {
        let mut messages = Messages::default();
        messages.begin(GET_ADDRESS, DUMP, &[0; 8]);
        let mut found = Vec::new();
        self.socket
            .list(&messages, true, |answer| found.extend(parse_address(answer)))
            .map_err(|errno| Error::new("list network addresses", errno))?;
        Ok(found)
    }

    /// All routes of the main table.
    pub fn routes(&self) -> Result<Vec<Route>, Error> {
        let mut messages = Messages::default();
        messages.begin(GET_ROUTE, DUMP, &[0; 12]);
        let mut found = Vec::new();
        self.socket
            .list(&messages, true, |answer| found.extend(parse_route(answer)))
            .map_err(|errno| Error::new("list routes", errno))?;
        Ok(found)
    }

    fn done(&self, messages: &Messages, action: impl FnOnce() -> String) -> Result<(), Error> {
        self.socket.request(messages).map_err(|refused| Error::new(action(), refused.errno))
    }
}

fn put_default_route(messages: &mut Messages, gateway: IpAddr, index: u32) {
    let header = [family_of(gateway), 0, 0, 0, MAIN_TABLE, OF_AN_ADMINISTRATOR, 0, UNICAST, 0, 0, 0, 0];
    messages.begin(NEW_ROUTE, ACKNOWLEDGE | CREATE | EXCLUSIVE, &header);
    messages.attribute(RTA_GATEWAY, &octets(gateway));
    messages.number(RTA_OIF, index);
}

fn put_address(messages: &mut Messages, ip: IpAddr, prefix: u8) {
    messages.attribute(IFA_LOCAL, &octets(ip));
    messages.attribute(IFA_ADDRESS, &octets(ip));
    match ip {
        IpAddr::V4(ip) if prefix < 31 => {
            let host = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or_default();
            messages.attribute(IFA_BROADCAST, &(u32::from(ip) | host).to_be_bytes());
        }
        IpAddr::V4(_) => {}
        IpAddr::V6(_) => messages.number(IFA_FLAGS, IFA_F_NODAD),
    }
}

fn hint(errno: Errno, module: &str) -> String {
    match errno {
        Errno::EOPNOTSUPP if !module.is_empty() => {
            format!("the kernel has no `{module}` devices: modprobe {module} (or CONFIG_{})", module.to_uppercase())
        }
        Errno::EPERM => "it needs CAP_NET_ADMIN".to_owned(),
        _ => String::new(),
    }
}

fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

fn address_header(ip: IpAddr, prefix: u8, index: u32) -> [u8; 8] {
    let [i0, i1, i2, i3] = index.to_ne_bytes();
    [family_of(ip), prefix, 0, 0, i0, i1, i2, i3]
}

fn family_of(ip: IpAddr) -> u8 {
    family(if ip.is_ipv4() { nix::libc::AF_INET } else { nix::libc::AF_INET6 })
}

fn family(family: i32) -> u8 {
    u8::try_from(family).unwrap_or_default()
}

pub(super) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4().or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

fn parse_link(answer: &Received<'_>) -> Option<Link> {
    let (header, rest) = answer.body.split_first_chunk::<16>()?;
    let info = find(rest, IFLA_LINKINFO).unwrap_or_default();
    (answer.kind == NEW_LINK).then_some(())?;
    Some(Link {
        index: number(&header[4..])?,
        name: text(find(rest, IFLA_IFNAME)?),
        kind: find(info, IFLA_INFO_KIND).map(text).unwrap_or_default(),
        mac: find(rest, IFLA_ADDRESS).and_then(|mac| mac.try_into().ok()).unwrap_or_default(),
        up: number(&header[8..])? & IFF_UP != 0,
        mtu: find(rest, IFLA_MTU).and_then(number).unwrap_or_default(),
        master: find(rest, IFLA_MASTER).and_then(number),
    })
}

fn parse_address(answer: &Received<'_>) -> Option<(u32, IpAddr, u8)> {
    let (header, rest) = answer.body.split_first_chunk::<8>()?;
    let address = find(rest, IFA_LOCAL).or_else(|| find(rest, IFA_ADDRESS))?;
    Some((number(&header[4..])?, ip(address)?, header[1]))
}

fn parse_route(answer: &Received<'_>) -> Option<Route> {
    let (header, rest) = answer.body.split_first_chunk::<12>()?;
    let table = find(rest, RTA_TABLE).and_then(number).unwrap_or(u32::from(header[4]));
    (table == u32::from(MAIN_TABLE) && header[7] == UNICAST).then_some(())?;
    let mut route = Route { destination: None, device: None };
    for (kind, value) in attributes(rest) {
        match kind {
            RTA_DST => route.destination = ip(value).map(|ip| (ip, header[1])),
            RTA_OIF => route.device = number(value),
            _ => {}
        }
    }
    Some(route)
}
