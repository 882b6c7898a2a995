//! What killed processes left behind, and what somebody else did to our devices and rules while containers run.

use std::net::IpAddr;

use anyhow::Result;
use linux_exec::network::{Link, Links, nftables::closed_forward_chains};
use rustix::fs::FlockOperation;

use super::{
    Definition, Lease, Locked, Networks,
    attach::{self, is_forwarding},
};
use crate::output::errors::sentence;

impl Networks {
    /// All of it, a sentence each; taken back, or made again, when `mend`.
    pub(crate) fn check(&self, mend: bool) -> Result<Vec<String>> {
        let (networks, unreadable) = self.readable()?;
        let mut found: Vec<String> = unreadable.iter().map(sentence).collect();
        if networks.is_empty() {
            return Ok(found);
        }
        for network in &networks {
            self.check_addresses(network, mend, &mut found)?;
        }
        if !self.are_bridged() {
            return Ok(found);
        }
        let links = Links::open()?;
        let alone = self.lock(FlockOperation::LockExclusive)?;
        let mut in_use = false;
        for network in &networks {
            in_use |= self.check_devices(network, &links, &alone, mend, &mut found)?;
        }
        // Those of networks that cannot be read are not to go.
        if in_use && unreadable.is_empty() && !self.rules_are_whole(&alone)? {
            found.push("rules of networks in the packet filter that are not as they were written".to_owned());
            if mend {
                self.write_rules(&alone)?;
            }
        }
        Ok(found)
    }

    /// Chains of somebody else's that keep networks from all that is outside, each with what would mend it.
    pub(crate) fn in_the_way(&self) -> Result<Vec<String>> {
        let links = Links::open()?;
        let mut bridges = Vec::new();
        for network in self.readable()?.0 {
            bridges.extend(links.find(&network.bridge)?.map(|bridge| format!("\"{}\"", bridge.name)));
        }
        if bridges.is_empty() {
            return Ok(Vec::new());
        }
        let bridges = bridges.join(", ");
        let sentence = |chain: String| {
            format!(
                "the firewall's chain {chain} drops what it does not know, and so what networks of containers send and get from outside: \
                 nft insert rule {chain} iifname {{ {bridges} }} accept; nft insert rule {chain} oifname {{ {bridges} }} accept"
            )
        };
        Ok(closed_forward_chains()?.into_iter().map(sentence).collect())
    }

    fn check_addresses(&self, network: &Definition, mend: bool, found: &mut Vec<String>) -> Result<()> {
        for lease in self.ended_leases(network)? {
            let ips: Vec<String> = lease.addresses().map(|ip| ip.to_string()).collect();
            let (ips, of) = (ips.join(" and "), &lease.name);
            found.push(format!("address {ips} on network {} of container {of}, which has ended", network.name));
        }
        for damaged in self.damaged_leases(network)? {
            let whose = if damaged.is_held { "of a container that runs" } else { "of a container that has ended" };
            found.push(format!(
                "record of an address on network {} {whose}: {}",
                network.name,
                sentence(&damaged.error)
            ));
        }
        let begun = self.abandoned_beginnings(network)?;
        found.extend(begun.iter().map(|path| format!("half-written record: {}", path.display())));
        if mend {
            self.forget_ended(network)?;
        }
        Ok(())
    }

    /// Whether its bridge is there.
    fn check_devices(
        &self,
        network: &Definition,
        links: &Links,
        alone: &Locked,
        mend: bool,
        found: &mut Vec<String>,
    ) -> Result<bool> {
        let leases = self.leases_of(network, alone)?;
        let own =
            || Ok::<_, linux_exec::Error>(links.find(&network.bridge)?.filter(|link| network.is_its_bridge(link)));
        let mut bridge = own()?;
        if bridge.is_none() && !leases.is_empty() {
            let (name, bridge_name) = (&network.name, &network.bridge);
            found.push(format!("network {name} without its bridge {bridge_name}, though containers are on it"));
            if mend {
                self.make_bridge(network, links, alone)?;
                bridge = own()?;
            }
        }
        let Some(bridge) = bridge else { return Ok(false) };
        if !leases.is_empty() {
            check_bridge(network, &bridge, links, mend, found)?;
        }
        for lease in &leases {
            let Some(device) = links.find(&lease.device)? else { continue };
            let of = format!("network device {} of container {}", device.name, lease.name);
            if device.master != Some(bridge.index) {
                found.push(format!("{of} outside of its bridge"));
                if mend {
                    links.join_bridge(&device, &bridge)?;
                    links.set_hairpin(&device)?;
                }
            } else if !device.up {
                found.push(format!("{of} that is switched off"));
                if mend {
                    links.configure(device.index, &[], &[])?;
                }
            }
        }
        Ok(true)
    }

    /// Devices that a running container is to have and that are gone: a sentence for each.
    pub(crate) fn lost_devices(&self, leases: &[(Definition, Lease)]) -> Result<Vec<String>> {
        let links = Links::open()?;
        let mut lost = Vec::new();
        for (network, lease) in leases {
            if links.find(&lease.device)?.is_none() {
                lost.push(format!(
                    "container {0} without its device on network {1}, which somebody removed: amphora restart {0} makes it anew",
                    lease.name, network.name
                ));
            }
        }
        Ok(lost)
    }
}

/// Whether a bridge is as it was made, and the machine with it.
fn check_bridge(network: &Definition, bridge: &Link, links: &Links, mend: bool, found: &mut Vec<String>) -> Result<()> {
    let before = found.len();
    let wanted = network.gateways();
    let there = links.addresses()?;
    let has = |(ip, prefix): &(IpAddr, u8)| there.contains(&(bridge.index, *ip, *prefix));
    if !bridge.up {
        found.push(format!("bridge {} of network {}, which is switched off", bridge.name, network.name));
    }
    if let Some((ip, _)) = wanted.iter().find(|address| !has(address)) {
        found.push(format!("bridge {} of network {} without its address {ip}", bridge.name, network.name));
    }
    if !network.internal && !is_forwarding() {
        found.push(format!("network {} without net.ipv4.ip_forward, which somebody switched off", network.name));
    }
    if mend && found.len() > before {
        attach::prepare_machine(network)?;
        links.configure(bridge.index, &wanted, &[])?;
    }
    Ok(())
}
