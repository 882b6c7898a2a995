//! Our tables in the packet filter: what leaves a network, what reaches a container, and what nobody may send.
//!
//! The rules are the same for all; what differs is in sets, of which a container adds its own elements. So a start changes a few
//! elements in one transaction, and a table that somebody flushed is written anew from the records.
//!
//! `inet`: what a container sends to the machine's loopback, or by an address that is not its own, is dropped before anything else looks
//! at it. Networks reach each other by published ports alone, and internal ones nothing. `bridge`: a port of a bridge sends only by
//! the hardware and IP addresses that its container was given, of ARP too, and no router advertisements.

use std::net::Ipv6Addr;

use anyhow::Result;
use linux_exec::network::{
    Links,
    nftables::{
        Element, Family, Field, Filter, Hook, HookPoint, Layer, Load, Part, Table, Transaction, Value, count_elements,
    },
};

use super::{Definition, Lease, Locked, Networks};
use crate::spec::ports::Protocol;

const BRIDGES: &str = "bridges";
const INTERNAL: &str = "internal";
const PAIRS: &str = "pairs";
const MASQUERADED: &str = "masqueraded";
const MEMBERS_4: &str = "members4";
const MEMBERS_6: &str = "members6";
const PORTS_4: &str = "ports4";
const PORTS_6: &str = "ports6";
const PORTS_AT_4: &str = "ports_at4";
const PORTS_AT_6: &str = "ports_at6";
const DEVICES: &str = "devices";
const OWNERS_4: &str = "owners4";
const OWNERS_6: &str = "owners6";

const IN: Load = Load::InputDevice;
const OUT: Load = Load::OutputDevice;
const MAC: Load = Load::Header(Layer::Link, 6, 6);
const SOURCE_4: Load = Load::Header(Layer::Network, 12, 4);
const SOURCE_6: Load = Load::Header(Layer::Network, 8, 16);
const TARGET_4: Load = Load::Header(Layer::Network, 16, 4);
const TARGET_6: Load = Load::Header(Layer::Network, 24, 16);
const TARGET_PORT: Load = Load::Header(Layer::Transport, 2, 2);
const ICMP_TYPE: Load = Load::Header(Layer::Transport, 0, 1);
const ARP_MAC: Load = Load::Header(Layer::Network, 8, 6);
const ARP_SOURCE: Load = Load::Header(Layer::Network, 14, 4);
/// Of a neighbour advertisement: the address that it is about.
const NEIGHBOUR: Load = Load::Header(Layer::Transport, 8, 16);

const V4: Part<'_> = Part::Is(Load::IpVersion, &[2]);
const V6: Part<'_> = Part::Is(Load::IpVersion, &[10]);
const LOOPBACK_6: Part<'_> = Part::Is(TARGET_6, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
/// The machine's own.
const LOOPBACK_DEVICE: &[u8; 16] = b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const ICMP_6: Part<'_> = Part::Is(Load::Protocol, &[58]);
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// Elements, each with its table and set.
type Elements<'a> = Vec<(Family, &'static str, Element<'a>)>;

impl Networks {
    fn table(&self, family: Family) -> Table<'_> {
        Table { family, name: &self.table }
    }

    /// Lets a container's packets pass, and leads its ports to it; false if the rules are not what they were written as.
    pub(super) fn add_rules(&self, filter: &Filter, network: &Definition, lease: &Lease) -> Result<bool> {
        if !self.are_bridged() {
            return Ok(true);
        }
        let mut change = Transaction::default();
        for (family, set, element) in of_lease(network, lease) {
            change.add(self.table(family), set, &[element]);
        }
        Ok(filter.commit(change)?)
    }

    /// Takes that back; false as above.
    pub(super) fn remove_rules(&self, filter: &Filter, network: &Definition, lease: &Lease) -> Result<bool> {
        if !self.are_bridged() {
            return Ok(true);
        }
        let mut change = Transaction::default();
        for (family, set, element) in of_lease(network, lease) {
            change.remove(self.table(family), set, &[element]);
        }
        Ok(filter.commit(change)?)
    }

    /// Takes back what is there for a network, on which no container is; false as above.
    pub(super) fn remove_network_rules(&self, network: &Definition) -> Result<bool> {
        if !self.are_bridged() {
            return Ok(true);
        }
        let mut change = Transaction::default();
        for (family, set, element) in of_network(network) {
            change.remove(self.table(family), set, &[element]);
        }
        Ok(Filter::open()?.commit(change)?)
    }

    /// Writes all rules anew, from the records, at one stroke.
    pub(super) fn write_rules(&self, alone: &Locked) -> Result<()> {
        if !self.are_bridged() {
            return Ok(());
        }
        let networks = self.with_bridges()?;
        let mut change = Transaction::default();
        for table in [Family::Inet, Family::Bridge].map(|family| self.table(family)) {
            // One that is not there cannot be removed.
            change.table(table);
            change.delete_table(table);
        }
        if !networks.is_empty() {
            write_inet(&mut change, self.table(Family::Inet));
            write_bridge(&mut change, self.table(Family::Bridge));
        }
        for network in &networks {
            for (family, set, element) in of_network(network) {
                change.add(self.table(family), set, &[element]);
            }
            for lease in self.leases_of(network, alone)? {
                for (family, set, element) in of_lease(network, &lease) {
                    change.add(self.table(family), set, &[element]);
                }
            }
        }
        match Filter::open()?.commit(change)? {
            true => Ok(()),
            false => anyhow::bail!(
                "the packet filter has tables {} that are not ours: nft delete table inet {0}",
                self.table
            ),
        }
    }

    /// The networks of which there are rules: with its bridge a network gets them.
    fn with_bridges(&self) -> Result<Vec<Definition>> {
        let mut networks = self.list()?;
        if !networks.is_empty() {
            let links = Links::open()?.list()?;
            networks
                .retain(|network| links.iter().any(|link| link.name == network.bridge && network.is_its_bridge(link)));
        }
        Ok(networks)
    }

    /// Whether the rules hold as many elements as the records say.
    pub(super) fn rules_are_whole(&self, alone: &Locked) -> Result<bool> {
        let networks = self.with_bridges()?;
        let mut expected: Vec<(Family, &str, usize)> = Vec::new();
        let mut count =
            |family: Family, set: &'static str| match expected.iter_mut().find(|(_, known, _)| *known == set) {
                Some((_, _, count)) => *count += 1,
                None => expected.push((family, set, 1)),
            };
        for network in &networks {
            of_network(network).iter().for_each(|(family, set, _)| count(*family, set));
            for lease in self.leases_of(network, alone)? {
                of_lease(network, &lease).iter().for_each(|(family, set, _)| count(*family, set));
            }
        }
        for (family, set, wanted) in expected {
            if count_elements(self.table(family), set)? != Some(wanted) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn of_network(network: &Definition) -> Elements<'_> {
    let bridge = || Value::Device(&network.bridge);
    let one = |set, key| (Family::Inet, set, Element { key, value: Vec::new() });
    let mut elements = vec![one(BRIDGES, vec![bridge()])];
    elements.extend(network.internal.then(|| one(INTERNAL, vec![bridge()])));
    elements.extend(network.connects().then(|| one(PAIRS, vec![bridge(), bridge()])));
    elements.extend((network.masquerades() && !network.internal).then(|| one(MASQUERADED, vec![bridge()])));
    elements
}

fn of_lease<'a>(network: &'a Definition, lease: &'a Lease) -> Elements<'a> {
    let (bridge, device) = (|| Value::Device(&network.bridge), || Value::Device(&lease.device));
    let mac = || Value::Mac(lease.mac.0);
    let set = |family, set, key| (family, set, Element { key, value: Vec::new() });
    let mut elements = vec![set(Family::Bridge, DEVICES, vec![device()])];
    if let Some(ip) = lease.ipv4 {
        elements.push(set(Family::Inet, MEMBERS_4, vec![bridge(), Value::Ip(ip)]));
        elements.push(set(Family::Bridge, OWNERS_4, vec![device(), mac(), Value::Ip(ip)]));
    }
    if let Some(ip) = lease.ipv6 {
        elements.push(set(Family::Inet, MEMBERS_6, vec![bridge(), Value::Ip(ip)]));
        for ip in [ip, link_local(lease.mac.0).into()] {
            elements.push(set(Family::Bridge, OWNERS_6, vec![device(), mac(), Value::Ip(ip)]));
        }
    }
    for port in &lease.ports {
        for ip in lease.addresses().filter(|ip| port.host_ip.is_none_or(|host| host.is_ipv4() == ip.is_ipv4())) {
            let protocol = Value::Protocol(number(port.protocol));
            let value = vec![Value::Ip(ip), Value::Port(port.container_port)];
            let (name, key) = match port.host_ip.filter(|host| !host.is_unspecified()) {
                None if ip.is_ipv4() => (PORTS_4, vec![protocol, Value::Port(port.host_port)]),
                None => (PORTS_6, vec![protocol, Value::Port(port.host_port)]),
                Some(host) if ip.is_ipv4() => {
                    (PORTS_AT_4, vec![Value::Ip(host), protocol, Value::Port(port.host_port)])
                }
                Some(host) => (PORTS_AT_6, vec![Value::Ip(host), protocol, Value::Port(port.host_port)]),
            };
            elements.push((Family::Inet, name, Element { key, value }));
        }
    }
    elements
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

/// The address that a device gives itself (RFC 4291, appendix A).
pub(super) fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

fn write_inet(change: &mut Transaction, table: Table<'_>) {
    use Field::{Device, Ipv4, Ipv6, Port, Protocol};
    change.table(table);
    for (name, key) in [
        (BRIDGES, &[Device][..]),
        (INTERNAL, &[Device]),
        (MASQUERADED, &[Device]),
        (PAIRS, &[Device, Device]),
        (MEMBERS_4, &[Device, Ipv4]),
        (MEMBERS_6, &[Device, Ipv6]),
    ] {
        change.set(table, name, key, &[]);
    }
    change.set(table, PORTS_4, &[Protocol, Port], &[Ipv4, Port]);
    change.set(table, PORTS_6, &[Protocol, Port], &[Ipv6, Port]);
    change.set(table, PORTS_AT_4, &[Ipv4, Protocol, Port], &[Ipv4, Port]);
    change.set(table, PORTS_AT_6, &[Ipv6, Protocol, Port], &[Ipv6, Port]);
    for chain in ["from_container", "publish"] {
        change.chain(table, chain, None);
    }
    let filter = |at, priority| Some(Hook { nat: false, at, priority });
    let nat = |at, priority| Some(Hook { nat: true, at, priority });
    change.chain(table, "raw", filter(HookPoint::Prerouting, -300));
    change.chain(table, "forward", filter(HookPoint::Forward, 0));
    change.chain(table, "input", filter(HookPoint::Input, 0));
    change.chain(table, "prerouting", nat(HookPoint::Prerouting, -100));
    change.chain(table, "output", nat(HookPoint::Output, -100));
    change.chain(table, "postrouting", nat(HookPoint::Postrouting, 100));
    write_filters(change, table);
    write_translations(change, table);
}

fn write_filters(change: &mut Transaction, table: Table<'_>) {
    let (from_bridge, to_bridge) = (Part::In(&[IN], BRIDGES), Part::In(&[OUT], BRIDGES));
    let is_type = |number: &'static [u8]| Part::Is(ICMP_TYPE, number);
    let mut rule = |chain: &str, parts: &[Part<'_>]| change.rule(table, chain, parts);
    // What is for the loopback comes by it: the address of a port that is published there alone is changed before the kernel would drop what
    // a neighbour sends to it (CVE-2020-8558 is of this kind).
    rule("raw", &[Part::Is(IN, LOOPBACK_DEVICE), Part::Accept]);
    rule("raw", &[V4, Part::Masked(TARGET_4, &[255, 0, 0, 0], &[127, 0, 0, 0]), Part::Drop]);
    rule("raw", &[from_bridge, Part::Jump("from_container")]);
    rule("from_container", &[V4, Part::NotIn(&[IN, SOURCE_4], MEMBERS_4), Part::Drop]);
    // From its link-local address a container may ask who has an address, and answer, and no more.
    for number in [&[NEIGHBOUR_SOLICITATION], &[NEIGHBOUR_ADVERTISEMENT]] {
        rule("from_container", &[V6, ICMP_6, is_type(number), Part::Accept]);
    }
    rule("from_container", &[V6, Part::NotIn(&[IN, SOURCE_6], MEMBERS_6), Part::Drop]);
    for number in [&[ROUTER_ADVERTISEMENT], &[REDIRECT]] {
        rule("from_container", &[V6, ICMP_6, is_type(number), Part::Drop]);
    }
    rule("forward", &[Part::In(&[IN, OUT], PAIRS), Part::Accept]);
    for load in [IN, OUT] {
        rule("forward", &[Part::In(&[load], INTERNAL), Part::Drop]);
    }
    rule("forward", &[to_bridge, Part::Established, Part::Accept]);
    rule("forward", &[to_bridge, Part::Translated, Part::Accept]);
    rule("forward", &[to_bridge, Part::Drop]);
    let from_internal = Part::In(&[IN], INTERNAL);
    rule("input", &[from_internal, Part::Established, Part::Accept]);
    rule("input", &[from_internal, ICMP_6, Part::Accept]);
    rule("input", &[from_internal, Part::Drop]);
}

fn write_translations(change: &mut Transaction, table: Table<'_>) {
    let mut rule = |chain: &str, parts: &[Part<'_>]| change.rule(table, chain, parts);
    for chain in ["prerouting", "output"] {
        rule(chain, &[Part::Local, Part::Jump("publish")]);
    }
    // The answer could not come back there: `relay.rs`.
    rule("publish", &[V6, LOOPBACK_6, Part::Accept]);
    let port = [Load::Protocol, TARGET_PORT];
    for (version, address, at, anywhere, v6) in
        [(V4, TARGET_4, PORTS_AT_4, PORTS_4, false), (V6, TARGET_6, PORTS_AT_6, PORTS_6, true)]
    {
        let port_at = [address, Load::Protocol, TARGET_PORT];
        rule("publish", &[version, Part::TranslateTo { key: &port_at, map: at, v6 }]);
        rule("publish", &[version, Part::TranslateTo { key: &port, map: anywhere, v6 }]);
    }
    // What leaves a network, but not what a bridge carries inside of it.
    rule("postrouting", &[Part::In(&[IN], MASQUERADED), Part::NotIn(&[OUT], BRIDGES), Part::Masquerade]);
    rule("postrouting", &[Part::In(&[IN], MASQUERADED), Part::NotIn(&[IN, OUT], PAIRS), Part::Masquerade]);
    // A container that asks for a published port of its own network, or of itself: the answer has to come back this way.
    rule("postrouting", &[V4, Part::In(&[OUT, SOURCE_4], MEMBERS_4), Part::Translated, Part::Masquerade]);
    rule("postrouting", &[V6, Part::In(&[OUT, SOURCE_6], MEMBERS_6), Part::Translated, Part::Masquerade]);
    // The machine itself, by its loopback.
    let to_bridge = Part::In(&[OUT], BRIDGES);
    rule("postrouting", &[to_bridge, V4, Part::Masked(SOURCE_4, &[255, 0, 0, 0], &[127, 0, 0, 0]), Part::Masquerade]);
}

fn write_bridge(change: &mut Transaction, table: Table<'_>) {
    use Field::{Device, Ipv4, Ipv6, Mac};
    change.table(table);
    change.set(table, DEVICES, &[Device], &[]);
    change.set(table, OWNERS_4, &[Device, Mac, Ipv4], &[]);
    change.set(table, OWNERS_6, &[Device, Mac, Ipv6], &[]);
    change.chain(table, "from_port", None);
    let hook = Hook { nat: false, at: HookPoint::Prerouting, priority: -200 };
    change.chain(table, "prerouting", Some(hook));
    let mut rule = |chain: &str, parts: &[Part<'_>]| change.rule(table, chain, parts);
    rule("prerouting", &[Part::In(&[IN], DEVICES), Part::Jump("from_port")]);
    let carries = |kind: &'static [u8; 2]| Part::Is(Load::EtherType, kind);
    let (ip, arp, ipv6) = (carries(&[0x08, 0x00]), carries(&[0x08, 0x06]), carries(&[0x86, 0xdd]));
    let owns = |loads: &'static [Load]| Part::In(loads, OWNERS_4);
    rule("from_port", &[ip, owns(&[IN, MAC, SOURCE_4]), Part::Accept]);
    rule("from_port", &[arp, owns(&[IN, MAC, ARP_SOURCE]), owns(&[IN, ARP_MAC, ARP_SOURCE]), Part::Accept]);
    for number in [&[ROUTER_ADVERTISEMENT], &[REDIRECT]] {
        rule("from_port", &[ipv6, ICMP_6, Part::Is(ICMP_TYPE, number), Part::Drop]);
    }
    let others_neighbour = Part::NotIn(&[IN, MAC, NEIGHBOUR], OWNERS_6);
    let advertisement = Part::Is(ICMP_TYPE, &[NEIGHBOUR_ADVERTISEMENT]);
    rule("from_port", &[ipv6, ICMP_6, advertisement, others_neighbour, Part::Drop]);
    rule("from_port", &[ipv6, Part::In(&[IN, MAC, SOURCE_6], OWNERS_6), Part::Accept]);
    rule("from_port", &[Part::Drop]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_an_address_of_its_hardware() {
        assert_eq!(link_local([0x02, 0x42, 1, 2, 3, 4]).to_string(), "fe80::42:1ff:fe02:304");
    }
}
