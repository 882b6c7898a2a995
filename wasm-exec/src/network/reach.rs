//! How far away an address is, as far as that decides who may be led there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Anywhere.
    Public,
    /// Within an organisation: RFC 1918, RFC 6598, RFC 4193.
    Private,
    /// The link that the machine is on.
    Link,
    /// Where a cloud tells its machines of themselves, outside of their link.
    Metadata,
    /// This machine.
    Machine,
    /// Many at once.
    Group,
    /// Nobody, or this machine for who connects to it.
    Nowhere,
}

/// Azure, Alibaba Cloud and Oracle Cloud; most others have an address of the link.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
/// Amazon Web Services.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Of an address in its shortest form (`to_canonical`).
pub(super) fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => reach_v6(address),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        _ if METADATA_V4.contains(&address) => Reach::Metadata,
        [0, ..] | [255, 255, 255, 255] => Reach::Nowhere,
        [127, ..] => Reach::Machine,
        [169, 254, ..] => Reach::Link,
        [224..=239, ..] => Reach::Group,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Reach::Private,
        _ => Reach::Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    if let Some(address) = translated(address) {
        return reach_v4(address);
    }
    match address.segments() {
        _ if address == METADATA_V6 => Reach::Metadata,
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Machine,
        [0, 0, 0, 0, 0, 0, 0, 0] => Reach::Nowhere,
        // The upper half is of sites, which nobody gives any more.
        [0xfe80..=0xfeff, ..] => Reach::Link,
        [0xff00..=0xffff, ..] => Reach::Group,
        [0xfc00..=0xfdff, ..] => Reach::Private,
        _ => Reach::Public,
    }
}

/// The address of IPv4 that one of IPv6 leads to, by a gateway or by the kernel: RFC 6052, RFC 3056, RFC 4291.
fn translated(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => of(high, low),
        [0x2002, high, low, ..] => of(high, low),
        [0, 0, 0, 0, 0, 0xffff, high, low] => of(high, low),
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0, high, low] => of(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_as_far_away_as_what_they_lead_to() {
        for (address, expected) in [
            ("1.1.1.1", Reach::Public),
            ("172.15.0.1", Reach::Public),
            ("172.16.0.1", Reach::Private),
            ("100.64.0.1", Reach::Private),
            ("100.100.100.200", Reach::Metadata),
            ("168.63.129.16", Reach::Metadata),
            ("169.254.169.254", Reach::Link),
            ("127.255.255.254", Reach::Machine),
            ("0.1.2.3", Reach::Nowhere),
            ("255.255.255.255", Reach::Nowhere),
            ("224.0.0.251", Reach::Group),
            ("2606:4700::1111", Reach::Public),
            ("fd00::1", Reach::Private),
            ("fd00:ec2::254", Reach::Metadata),
            ("fe80::1", Reach::Link),
            ("fec0::1", Reach::Link),
            ("ff02::1", Reach::Group),
            ("::", Reach::Nowhere),
            ("::1", Reach::Machine),
            ("::ffff:169.254.169.254", Reach::Link),
            ("::127.0.0.1", Reach::Machine),
            ("64:ff9b::7f00:1", Reach::Machine),
            ("64:ff9b::101:101", Reach::Public),
            ("2002:a9fe:a9fe::1", Reach::Link),
            ("2002:0a00:0001::", Reach::Private),
        ] {
            assert_eq!(reach(address.parse().unwrap()), expected, "{address}");
        }
    }
}
