//! How far away an address is, as far as that decides who may be led there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

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
/// Amazon Web Services (all of its local services), Google Cloud and Scaleway.
const METADATA_V6: [[u16; 2]; 3] = [[0xfd00, 0xec2], [0xfd20, 0xce], [0xfd00, 0x42]];

/// Any port: nothing is sent there.
const DISCARD: u16 = 9;
/// Of nobody (RFC 5737, RFC 3849).
const DOCUMENTATION_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const DOCUMENTATION_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// Of an address in its shortest form (`to_canonical`).
pub(super) fn reach(address: IpAddr) -> Reach {
    match by_number(address) {
        Reach::Public | Reach::Private if is_of_this_machine(address) => Reach::Machine,
        reach => reach,
    }
}

fn by_number(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => reach_v6(address),
    }
}

/// Whether it is one of the machine's own, which is what a socket can be bound to. Where that holds of all addresses (`ip_nonlocal_bind`,
/// see ip(7)), it is one that the kernel speaks to from the same address.
fn is_of_this_machine(address: IpAddr) -> bool {
    let is_bound = |address: IpAddr| UdpSocket::bind((address, 0)).is_ok();
    let nobodys = if address.is_ipv4() { DOCUMENTATION_V4.into() } else { DOCUMENTATION_V6.into() };
    is_bound(address) && (!is_bound(nobodys) || speaks_to_itself(address))
}

/// A datagram socket that is connected has an address, and has sent nothing (connect(2)).
fn speaks_to_itself(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let from = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, DISCARD))?;
        socket.local_addr()
    });
    // Without a way there nothing is connected to either.
    from.is_ok_and(|from| from.ip() == address)
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        _ if METADATA_V4.contains(&address) => Reach::Metadata,
        [0, ..] | [255, 255, 255, 255] => Reach::Nowhere,
        [127, ..] => Reach::Machine,
        [169, 254, ..] => Reach::Link,
        [224..=239, ..] => Reach::Group,
        // Reserved (RFC 1112), of protocols and of measurements (RFC 6890): nobody's for all.
        [240..=255, ..] | [192, 0, 0, _] => Reach::Nowhere,
        [198, 18 | 19, ..] => Reach::Private,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Reach::Private,
        _ => Reach::Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    if let Some(address) = translated(address) {
        return reach_v4(address);
    }
    match address.segments() {
        [a, b, 0, 0, ..] if METADATA_V6.contains(&[a, b]) => Reach::Metadata,
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Machine,
        [0, 0, 0, 0, 0, 0, 0, 0] => Reach::Nowhere,
        // The upper half is of sites, which nobody gives any more.
        [0xfe80..=0xfeff, ..] => Reach::Link,
        [0xff00..=0xffff, ..] => Reach::Group,
        [0xfc00..=0xfdff, ..] => Reach::Private,
        _ => Reach::Public,
    }
}

/// The address of IPv4 that one of IPv6 leads to, by a gateway or by the kernel: RFC 6052, RFC 8215 (in its longest prefix), RFC 3056,
/// RFC 4291, RFC 2765, RFC 4380 (where it stands inverted) and RFC 5214.
fn translated(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => of(high, low),
        [0x2001, 0, _, _, _, _, high, low] => of(!high, !low),
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => of(high, low),
        [0, 0, 0, 0, 0xffff, 0, high, low] => of(high, low),
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
            ("64:ff9b:1::a9fe:a9fe", Reach::Link),
            ("2001:0:1:2:3:4:80ff:fffe", Reach::Machine),
            ("2606::5efe:169.254.169.254", Reach::Link),
            ("::ffff:0:127.0.0.1", Reach::Machine),
            ("fd20:ce::254", Reach::Metadata),
            ("fd00:ec2::23", Reach::Metadata),
            ("fd00:42::42", Reach::Metadata),
            ("198.18.0.1", Reach::Private),
            ("192.0.0.8", Reach::Nowhere),
            ("240.0.0.1", Reach::Nowhere),
        ] {
            assert_eq!(by_number(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn an_address_that_leads_back_is_this_machines() {
        for (address, expected) in [("127.0.0.1", true), ("127.9.9.9", true), ("::1", true), ("192.0.2.1", false)] {
            let address: IpAddr = address.parse().unwrap();
            // There may be no IPv6.
            if UdpSocket::bind((address, 0)).is_ok() || !expected {
                assert_eq!(is_of_this_machine(address), expected, "{address}");
            }
        }
        assert!(speaks_to_itself(Ipv4Addr::LOCALHOST.into()) && !speaks_to_itself(DOCUMENTATION_V4.into()));
    }
}
