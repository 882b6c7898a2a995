//! What a network is: decided once, when it is made, against the machine's routes and the other networks.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use anyhow::{Result, bail};
use linux_exec::network::{Link, Links};
use serde::{Deserialize, Serialize};

use crate::{
    output,
    records::container::write_json,
    spec::{
        FORMAT, first_format,
        names::{self, short_id},
        network::{DEFAULT_NETWORK, Mac},
        subnet::Subnet,
    },
};

/// The bridge of the usual ROOT's default network, unless a device has that name.
const DEFAULT_BRIDGE: &str = "amphora0";

/// Where subnets are taken from: the first for the default network, and pieces of 256 addresses of the others.
const DEFAULT_SUBNET: [u8; 2] = [10, 90];
const SECOND_BYTES: std::ops::RangeInclusive<u8> = 91..=99;

/// Docker's names for what a bridge can be told; those that mean something here.
pub(crate) const OPTION_MTU: &str = "com.docker.network.driver.mtu";
const OPTION_ICC: &str = "com.docker.network.bridge.enable_icc";
const OPTION_NAME: &str = "com.docker.network.bridge.name";
const OPTION_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const OPTIONS: [&str; 4] = [OPTION_MTU, OPTION_ICC, OPTION_NAME, OPTION_MASQUERADE];

/// A network that somebody wants.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) subnets: Vec<Subnet>,
    pub(crate) gateways: Vec<IpAddr>,
    pub(crate) ranges: Vec<Subnet>,
    pub(crate) internal: bool,
    pub(crate) ipv6: bool,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) options: BTreeMap<String, String>,
}

/// Addresses of one kind that a network has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pool {
    pub(crate) subnet: Subnet,
    /// The bridge's own address.
    pub(crate) gateway: IpAddr,
    /// Where containers' addresses are taken from, if not from all of the subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) range: Option<Subnet>,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Definition {
    /// Of the file.
    #[serde(default = "first_format")]
    pub(crate) format: u32,
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) created_unix_nanos: i64,
    /// The device.
    pub(crate) bridge: String,
    #[serde(default)]
    pub(crate) ipv4: Option<Pool>,
    #[serde(default)]
    pub(crate) ipv6: Option<Pool>,
    /// It reaches nothing outside of it.
    #[serde(default)]
    pub(crate) internal: bool,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// As they were given.
    #[serde(default)]
    pub(crate) options: BTreeMap<String, String>,
}

impl Definition {
    /// Decides what was left open. `others`: networks that there are. `root`: what tells this
    /// ROOT from the usual one.
    pub(super) fn decide(wanted: Wanted, others: &[Definition], links: &Links, root: Option<u64>) -> Result<Self> {
        names::validate("network name", &wanted.name)?;
        check_options(&wanted.options)?;
        let id = names::new_id()?;
        let taken = Taken { others, routes: routes(links)?, first_piece: root.unwrap_or_default() };
        let (ipv4, ipv6) = pools(&wanted, &taken, &id)?;
        let bridge = match wanted.options.get(OPTION_NAME) {
            Some(name) => own_bridge(name, others, links)?,
            // Rules name devices, and those of a ROOT that was deleted by hand stay: no other has the same name.
            None if wanted.name == DEFAULT_NETWORK && root.is_none() && links.find(DEFAULT_BRIDGE)?.is_none() => {
                DEFAULT_BRIDGE.to_owned()
            }
            None => format!("am-{}", short_id(&id)),
        };
        Ok(Self {
            format: FORMAT,
            created_unix_nanos: output::now_nanos(),
            bridge,
            ipv4,
            ipv6,
            internal: wanted.internal,
            labels: wanted.labels,
            options: wanted.options,
            name: wanted.name,
            id,
        })
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        write_json(path, self)
    }

    pub(crate) fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.ipv4.iter().chain(&self.ipv6)
    }

    /// The addresses of its bridge, each with the bits of its subnet.
    pub(super) fn gateways(&self) -> Vec<(IpAddr, u8)> {
        self.pools().map(|pool| (pool.gateway, pool.subnet.prefix())).collect()
    }

    /// Whether its containers reach each other.
    pub(super) fn connects(&self) -> bool {
        self.options.get(OPTION_ICC).is_none_or(|value| value != "false")
    }

    /// Whether what leaves it has the address of the machine.
    pub(super) fn masquerades(&self) -> bool {
        self.options.get(OPTION_MASQUERADE).is_none_or(|value| value != "false")
    }

    /// Whether its containers find each other by name.
    pub(crate) fn has_names(&self) -> bool {
        self.name != DEFAULT_NETWORK
    }

    /// The hardware address of its bridge.
    pub(super) fn mac(&self) -> [u8; 6] {
        mac_of_bridge(&self.id)
    }

    /// Whether a device is its bridge, and not somebody else's of that name, as of another ROOT.
    pub(super) fn is_its_bridge(&self, link: &Link) -> bool {
        is_bridge_of(&self.id, link)
    }

    /// What keeps its bridge from being made: a device of that name, or one that has addresses of its subnets.
    pub(super) fn taken_by(&self, links: &Links) -> Result<Option<String>> {
        let own = links.find(&self.bridge)?;
        if let Some(other) = own.as_ref().filter(|link| !self.is_its_bridge(link)) {
            return Ok(Some(foreign(other, self)));
        }
        let overlaps = |(device, ip, prefix): &(u32, IpAddr, u8)| {
            let subnet = Subnet::around(*ip, *prefix);
            own.as_ref().is_none_or(|own| own.index != *device) && self.pools().any(|pool| pool.subnet.covers(&subnet))
        };
        let Some((device, ip, prefix)) = links.addresses()?.into_iter().find(overlaps) else { return Ok(None) };
        let device = links.list()?.into_iter().find(|link| link.index == device).map(|link| link.name);
        Ok(Some(format!(
            "device {} has the address {ip}/{prefix}, which is in its subnet: remove the device, or the network, and make it anew",
            device.unwrap_or_default()
        )))
    }

    /// A hardware address that belongs to an IP address: who had it before is still known by it.
    pub(super) fn mac_of(&self, ip: IpAddr) -> Mac {
        let [a, b, c, d] = match ip {
            IpAddr::V4(ip) => ip.octets(),
            IpAddr::V6(ip) => {
                let [.., a, b, c, d] = ip.octets();
                [a, b, c, d]
            }
        };
        Mac([0x02, 0x42, a, b, c, d])
    }
}

/// Says that a device is not the network's bridge.
pub(super) fn foreign(device: &Link, network: &Definition) -> String {
    format!(
        "the network device {0} is not of network {1}, which needs that name: another ROOT of amphora's has it, or somebody made it \
         by hand; use another network, or remove the device (ip link delete {0})",
        device.name, network.name
    )
}

/// Whether a device is the bridge of the network with this id.
pub(super) fn is_bridge_of(id: &str, link: &Link) -> bool {
    link.kind == "bridge" && link.mac == mac_of_bridge(id)
}

fn mac_of_bridge(id: &str) -> [u8; 6] {
    let digit = |at: usize| id.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()).unwrap_or(1);
    [0x02, 0x42, digit(0), digit(2), digit(4), digit(6)]
}

fn check_options(options: &BTreeMap<String, String>) -> Result<()> {
    for (name, value) in options {
        if !OPTIONS.contains(&name.as_str()) {
            bail!("invalid value `{name}={value}` for --opt: known are {}", OPTIONS.join(", "));
        }
        let is_flag = [OPTION_ICC, OPTION_MASQUERADE].contains(&name.as_str());
        if is_flag && !["true", "false"].contains(&value.as_str()) {
            bail!("invalid value `{name}={value}` for --opt: expected true or false");
        }
        if name == OPTION_MTU && !value.parse().is_ok_and(|mtu: u32| (576..=65_535).contains(&mtu)) {
            bail!("invalid value `{name}={value}` for --opt: expected a number of bytes from 576 to 65535");
        }
    }
    Ok(())
}

fn own_bridge(name: &str, others: &[Definition], links: &Links) -> Result<String> {
    let valid = (1..=15).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if !valid {
        bail!("invalid value `{name}` for --opt {OPTION_NAME}: expected at most 15 letters, digits, `-`, `_` or `.`");
    }
    if links.find(name)?.is_some() || others.iter().any(|other| other.bridge == name) {
        bail!("--opt {OPTION_NAME}={name}: there is a network device of that name already");
    }
    Ok(name.to_owned())
}

/// The machine itself, whoever is on the same wire, many at once, and what is kept for later (RFC 6890).
const RESERVED: [&str; 7] =
    ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/8", "fe80::/10", "ff00::/8"];

fn overlaps(subnet: &Subnet, reserved: &str) -> bool {
    reserved.parse().is_ok_and(|reserved: Subnet| reserved.overlaps(subnet))
}

/// What a subnet must not overlap.
struct Taken<'a> {
    others: &'a [Definition],
    routes: Vec<Subnet>,
    first_piece: u64,
}

impl Taken<'_> {
    fn by(&self, subnet: &Subnet) -> Option<String> {
        let network = self.others.iter().find(|other| other.pools().any(|pool| pool.subnet.overlaps(subnet)));
        let route = || self.routes.iter().find(|route| route.overlaps(subnet));
        network
            .map(|network| format!("network {}", network.name))
            .or_else(|| route().map(|route| format!("this machine's route to {route}")))
    }
}

/// Where this machine already sends packets; the default route is no obstacle.
fn routes(links: &Links) -> Result<Vec<Subnet>> {
    let routes = links.routes()?.into_iter().filter_map(|route| route.destination);
    let addresses = links.addresses()?.into_iter().map(|(_, ip, prefix)| (ip, prefix));
    let is_some =
        |(ip, prefix): &(IpAddr, u8)| *prefix > 0 && !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    Ok(routes.chain(addresses).filter(is_some).map(|(ip, prefix)| Subnet::around(ip, prefix)).collect())
}

fn pools(wanted: &Wanted, taken: &Taken<'_>, id: &str) -> Result<(Option<Pool>, Option<Pool>)> {
    let (mut ipv4, mut ipv6) = (None, None);
    for subnet in &wanted.subnets {
        if let Some(reserved) = RESERVED.iter().find(|reserved| overlaps(subnet, reserved)) {
            bail!("subnet {subnet} overlaps {reserved}, which no host of a network can have: choose another one");
        }
        if let Some(by) = taken.by(subnet) {
            bail!("subnet {subnet} overlaps {by}: choose another one");
        }
        if subnet.usable().take(2).count() < 2 {
            bail!("subnet {subnet} is too small: it must have two addresses, one of them for the bridge");
        }
        let place = if subnet.is_ipv4() { &mut ipv4 } else { &mut ipv6 };
        if place.replace(*subnet).is_some() {
            bail!("--subnet {subnet}: a network has at most one subnet of IPv4 and one of IPv6");
        }
    }
    if ipv4.is_none() && (wanted.subnets.is_empty()) {
        ipv4 = Some(free_subnet(wanted.name == DEFAULT_NETWORK, taken)?);
    }
    if ipv6.is_none() && wanted.ipv6 {
        ipv6 = Some(unique_local(id)?);
    }
    let given = |ips: &[IpAddr], subnet: &Subnet| ips.iter().copied().find(|ip| ip.is_ipv4() == subnet.is_ipv4());
    let pool = |subnet: Subnet| -> Result<Pool> {
        let gateway = given(&wanted.gateways, &subnet).or_else(|| subnet.usable().next());
        let Some(gateway) = gateway.filter(|gateway| subnet.is_usable(*gateway)) else {
            bail!("--gateway: the subnet {subnet} has no such address for a device");
        };
        let range = wanted.ranges.iter().copied().find(|range| range.is_ipv4() == subnet.is_ipv4());
        if let Some(range) = range.filter(|range| !subnet.covers(range)) {
            bail!("--ip-range {range}: it is not part of the subnet {subnet}");
        }
        Ok(Pool { subnet, gateway, range })
    };
    let (ipv4, ipv6) = (ipv4.map(pool).transpose()?, ipv6.map(pool).transpose()?);
    let lost = |v4: bool| (if v4 { ipv4.is_none() } else { ipv6.is_none() }).then_some(v4);
    let gateway = wanted.gateways.iter().find_map(|ip| lost(ip.is_ipv4()));
    let range = wanted.ranges.iter().find_map(|range| lost(range.is_ipv4()));
    if gateway.or(range).is_some() {
        bail!("--gateway and --ip-range belong to a --subnet of the same kind of address, and there is none");
    }
    Ok((ipv4, ipv6))
}

fn free_subnet(is_default: bool, taken: &Taken<'_>) -> Result<Subnet> {
    let of = |bytes: [u8; 4], prefix| Subnet::around(IpAddr::from(bytes), prefix);
    let [first, second] = DEFAULT_SUBNET;
    let large = is_default.then(|| of([first, second, 0, 0], 16));
    let pieces: Vec<_> =
        SECOND_BYTES.flat_map(|second| (0..=255).map(move |third| [first, second, third, 0])).collect();
    // Another ROOT's networks may have no bridge at the moment, and then no route: each begins elsewhere.
    let skipped = usize::try_from(taken.first_piece % pieces.len() as u64)?;
    let small = pieces.iter().cycle().skip(skipped).take(pieces.len()).map(|bytes| of(*bytes, 24));
    let free = large.into_iter().chain(small).find(|subnet| taken.by(subnet).is_none());
    free.ok_or_else(|| {
        anyhow::anyhow!("no subnet is free: all of 10.91.0.0 to 10.99.255.0 are used; give one with --subnet")
    })
}

/// A subnet that nobody else has, most likely (RFC 4193).
fn unique_local(id: &str) -> Result<Subnet> {
    let digits = id.get(..10).unwrap_or("0000000000");
    let text = format!("fd{}:{}:{}::/64", &digits[..2], &digits[2..6], &digits[6..10]);
    text.parse().map_err(anyhow::Error::msg)
}
