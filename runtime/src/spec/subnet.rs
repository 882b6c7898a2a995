//! Ranges of IP addresses: `10.90.0.0/16`, `fd00::/64`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// A range of addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Subnet {
    /// The first address.
    address: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// The range that an address is in.
    pub(crate) fn around(ip: IpAddr, prefix: u8) -> Self {
        let prefix = prefix.min(bits(ip));
        Self { address: from_number(number(ip) & !host_mask(bits(ip), prefix), ip.is_ipv4()), prefix }
    }

    /// How many bits all its addresses have in common.
    pub(crate) fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether it is of IPv4.
    pub(crate) fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// Whether an address is in it.
    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.is_ipv4() && Self::around(ip, self.prefix) == *self
    }

    /// Whether some address is in both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// Whether all of another one is in it.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.address)
    }

    /// The address of a number, counted from the first.
    pub(crate) fn nth(&self, index: u128) -> Option<IpAddr> {
        let host = host_mask(bits(self.address), self.prefix);
        (index <= host).then(|| from_number(number(self.address) | index, self.is_ipv4()))
    }

    /// The number of an address in it, counted from the first.
    pub(crate) fn index_of(&self, ip: IpAddr) -> Option<u128> {
        self.contains(ip).then(|| number(ip) - number(self.address))
    }

    /// Addresses that devices can have: without the first, which is the network's, and in IPv4 the last, which is everybody's; all
    /// where there are only two.
    pub(crate) fn usable(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let host = host_mask(bits(self.address), self.prefix);
        let (first, last) = match host {
            0 | 1 => (0, host),
            _ => (1, if self.is_ipv4() { host - 1 } else { host }),
        };
        let this = *self;
        (first..=last).map_while(move |index| this.nth(index))
    }

    /// Whether a device can have an address.
    pub(crate) fn is_usable(&self, ip: IpAddr) -> bool {
        let host = host_mask(bits(self.address), self.prefix);
        match self.index_of(ip) {
            None => false,
            Some(_) if host <= 1 => true,
            Some(index) => index != 0 && !(self.is_ipv4() && index == host),
        }
    }
}

fn bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn host_mask(bits: u8, prefix: u8) -> u128 {
    match u32::from(bits - prefix) {
        128 => u128::MAX,
        host => (1 << host) - 1,
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

fn from_number(number: u128, v4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if v4 => Ipv4Addr::from(number).into(),
        _ => Ipv6Addr::from(number).into(),
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(ip, prefix)| {
            let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
            Some((ip.parse::<IpAddr>().ok()?, digits.then(|| prefix.parse::<u8>().ok()).flatten()?))
        });
        let (ip, prefix) = parsed
            .filter(|(ip, prefix)| *prefix <= bits(*ip))
            .ok_or_else(|| format!("`{text}` is no subnet: expected an address and a number of bits, 10.90.0.0/24"))?;
        let subnet = Self::around(ip, prefix);
        if subnet.address != ip {
            return Err(format!("`{text}` is no subnet, but an address in {subnet}"));
        }
        Ok(subnet)
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn subnets_are_understood() {
        for text in ["10.90.0.0/16", "0.0.0.0/0", "10.0.0.1/32", "fd00::/64", "::/0", "fd00::1/128"] {
            assert_eq!(subnet(text).to_string(), text);
        }
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "fd00::/129", "x/8", "10.0.0.1/24"] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
        assert!("10.0.0.1/24".parse::<Subnet>().unwrap_err().contains("an address in 10.0.0.0/24"));
    }

    #[test]
    fn overlaps_are_seen() {
        for (one, other, overlap) in [
            ("10.90.0.0/16", "10.90.7.0/24", true),
            ("10.90.7.0/24", "10.90.0.0/16", true),
            ("10.90.0.0/24", "10.90.1.0/24", false),
            ("0.0.0.0/0", "10.90.1.0/24", true),
            ("fd00::/64", "fd00:0:0:1::/64", false),
            ("::/0", "10.0.0.0/8", false),
        ] {
            assert_eq!(subnet(one).overlaps(&subnet(other)), overlap, "{one} {other}");
        }
        assert!(
            subnet("10.0.0.0/8").covers(&subnet("10.1.0.0/16")) && !subnet("10.1.0.0/16").covers(&subnet("10.0.0.0/8"))
        );
    }

    #[test]
    fn addresses_are_counted() {
        let all: Vec<String> = subnet("10.0.0.8/29").usable().map(|ip| ip.to_string()).collect();
        assert_eq!(all, ["10.0.0.9", "10.0.0.10", "10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.14"]);
        assert_eq!(subnet("10.0.0.8/31").usable().count(), 2);
        assert_eq!(subnet("10.0.0.8/32").usable().count(), 1);
        assert_eq!(subnet("fd00::/126").usable().count(), 3);
        let first = subnet("fd00::/8").usable().next().unwrap();
        assert_eq!(first.to_string(), "fd00::1");
        for (ip, usable) in [("10.0.0.8", false), ("10.0.0.9", true), ("10.0.0.15", false), ("10.0.0.16", false)] {
            assert_eq!(subnet("10.0.0.8/29").is_usable(ip.parse().unwrap()), usable, "{ip}");
        }
        assert_eq!(subnet("10.0.0.0/24").index_of("10.0.0.7".parse().unwrap()), Some(7));
    }
}
