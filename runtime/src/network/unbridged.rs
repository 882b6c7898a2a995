//! A container's networks without root: by pasta to wherever its user's sockets lead, and by switches to the containers of its networks.
//!
//! Its namespace belongs to the user namespace of its supervisor, and no other one can be joined to it: so what connects it are descriptors
//! and processes of the user's alone. Records, addresses and names are those of everybody; devices and rules of the machine there are none.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, bail};
use linux_exec::network::{namespace, nftables::Filter};

use super::{
    Attached, Definition, Networks,
    addresses::Held,
    attach::{Wish, give_back_all, leads_ports, lease_all, settle},
    files,
    pasta::{Address, Pasta, Uplink},
    plug::Device,
    ports::BoundPort,
    reserve::{For, reserve},
    resolver::Sockets,
};
use crate::spec::{RunSpec, ports::Protocol};

/// Its networks are those that it began on.
pub(super) const UNCHANGED: &str = "without root the networks of a container that runs stay as they are: stop it first";

/// The way out of a container that is on networks of the user's own: an address that is nobody's (RFC 3927), and that nobody else sees.
const OUTSIDE: (&str, Ipv4Addr, Ipv4Addr, u8) =
    ("outside", Ipv4Addr::new(169, 254, 64, 2), Ipv4Addr::new(169, 254, 64, 1), 30);

impl Attached {
    /// Makes a namespace on all networks that a container is to be on. What is in use is an error, and nothing is left then.
    pub(super) fn unbridged(networks: &Networks, spec: &RunSpec) -> Result<Self> {
        let endpoints = spec.network.endpoints();
        let found: Result<Vec<Definition>> = endpoints.iter().map(|endpoint| networks.get(&endpoint.network)).collect();
        let found = found?;
        check_ports(spec, &found)?;
        let filter = Filter::open()?;
        let mut reserved =
            reserve(&spec.ports, For::Another, &|port, number| networks.holder(port.protocol, port.host_ip, number))?;
        let ports: Vec<BoundPort> = reserved.ports.iter().map(|port| BoundPort { relayed: false, ..*port }).collect();
        let of_ports = leads_ports(&found).unwrap_or_default();
        let wish = |(number, (network, endpoint))| {
            let ports = if number == of_ports { ports.as_slice() } else { &[] };
            Wish { network, endpoint, number, ports }
        };
        let wishes: Vec<Wish<'_>> = found.iter().zip(endpoints).enumerate().map(wish).collect();
        let (held, together) = lease_all(networks, spec, &wishes)?;
        drop(together);
        let serves_names = found.iter().any(Definition::has_names)
            || (spec.names.servers.is_empty() && files::only_machine_has_servers());
        let (namespace, (sockets, devices)) = namespace::make_elsewhere(|| {
            settle(found.iter().any(|network| network.ipv6.is_some()))?;
            let on_switches = held.iter().filter(|held| held.network.has_names());
            let devices: Result<Vec<(&Definition, Device)>> =
                on_switches.map(|held| Ok((&held.network, Device::make(networks, held)?))).collect();
            Ok::<_, anyhow::Error>((serves_names.then(Sockets::open).transpose()?, devices?))
        })
        .inspect_err(|_| give_back_all(networks, &held))?;
        let plugs: Result<Vec<_>> =
            devices.into_iter().map(|(network, device)| device.connect(network, networks)).collect();
        let plugs = plugs.inspect_err(|_| give_back_all(networks, &held))?;
        reserved.release();
        let networks = networks.clone();
        let (serving, relay, pasta) = (None, None, None);
        let mut attached = Self { namespace, networks, held, filter, reserved, sockets, serving, relay, pasta, plugs };
        attached.pasta = match uplink(&attached.held, &ports) {
            Some(uplink) => Some(Pasta::start(attached.namespace(), &uplink)?),
            None => None,
        };
        Ok(attached)
    }
}

/// Refuses what would not be reached.
fn check_ports(spec: &RunSpec, networks: &[Definition]) -> Result<()> {
    let Some(first) = spec.ports.first() else { return Ok(()) };
    if networks.iter().all(|network| network.internal) {
        bail!("-p {}: all networks of the container are internal, which nothing outside reaches", first.container_port);
    }
    for port in &spec.ports {
        if port.protocol == Protocol::Sctp {
            bail!(
                "-p {}/sctp: pasta, which publishes ports without root, knows TCP and UDP; SCTP needs root",
                port.container_port
            );
        }
        let ipv6 = networks.iter().any(|network| !network.internal && !network.has_names() && network.ipv6.is_some());
        if let Some(ip @ IpAddr::V6(_)) = port.host_ip.filter(|_| !ipv6) {
            bail!(
                "-p [{ip}]:…:{}: without root ports are published over IPv4, to which an address of IPv6 cannot be translated",
                port.container_port
            );
        }
    }
    Ok(())
}

/// How a container comes out: by the default network where it is on that, else by a device of its own; None where it may not.
fn uplink<'a>(held: &'a [Held], ports: &'a [BoundPort]) -> Option<Uplink<'a>> {
    if let Some(held) = held.iter().find(|held| !held.network.has_names()) {
        let address = |(ip, prefix)| {
            let pool = held.network.pools().find(|pool| pool.subnet.contains(ip))?;
            Some(Address { ip, prefix, gateway: pool.gateway })
        };
        let addresses = held.addresses().into_iter().filter_map(address).collect();
        return Some(Uplink { device: held.inner_device(), mac: Some(held.lease.mac), addresses, ports });
    }
    if held.iter().all(|held| held.network.internal) {
        return None;
    }
    let (device, ip, gateway, prefix) = OUTSIDE;
    let addresses = vec![Address { ip: ip.into(), prefix, gateway: gateway.into() }];
    Some(Uplink { device: device.to_owned(), mac: None, addresses, ports })
}
