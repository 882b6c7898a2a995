//! What a container may send on a network of an ordinary user: the same that the packet filter lets pass where there are bridges.
//!
//! A frame is judged by its own bytes alone, and what is not understood is not passed on.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::firewall::link_local;
use crate::spec::network::Mac;

const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];

const TCP: u8 = 6;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
const ICMP_6: u8 = 58;
const SCTP: u8 = 132;

const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// As whom a container is on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    pub(super) mac: Mac,
    pub(super) ipv4: Option<Ipv4Addr>,
    pub(super) ipv6: Option<Ipv6Addr>,
}

/// The hardware address that a frame is for; None: all.
pub(super) fn target(frame: &[u8]) -> Option<Mac> {
    let mac: [u8; 6] = frame.get(..6)?.try_into().ok()?;
    (mac[0] & 1 == 0).then_some(Mac(mac))
}

impl Identity {
    /// Whether a frame is its own: by its hardware and IP addresses, and none that is a router's to send.
    pub(super) fn may_send(&self, frame: &[u8]) -> bool {
        let Some((header, packet)) = frame.split_at_checked(14) else { return false };
        if header[6..12] != self.mac.0 {
            return false;
        }
        match [header[12], header[13]] {
            IPV4 => self.ipv4.is_some_and(|own| packet.get(12..16) == Some(&own.octets()[..])),
            ARP => {
                let says = (packet.get(8..14), packet.get(14..18));
                self.ipv4.is_some_and(|own| says == (Some(&self.mac.0[..]), Some(&own.octets()[..])))
            }
            IPV6 => self.may_send_ipv6(packet),
            _ => false,
        }
    }

    fn may_send_ipv6(&self, packet: &[u8]) -> bool {
        let Some((header, payload)) = packet.split_at_checked(40) else { return false };
        let source: [u8; 16] = match header[8..24].try_into() {
            Ok(source) => source,
            Err(_) => return false,
        };
        let (source, by_itself) = (Ipv6Addr::from(source), link_local(self.mac.0));
        let is_own = |ip: Ipv6Addr| Some(ip) == self.ipv6 || (self.ipv6.is_some() && ip == by_itself);
        if !is_own(source) {
            return false;
        }
        match header[6] {
            ICMP_6 => match payload.first() {
                Some(&NEIGHBOUR_SOLICITATION) => true,
                Some(&NEIGHBOUR_ADVERTISEMENT) => {
                    let about = payload.get(8..24).and_then(|about| <[u8; 16]>::try_from(about).ok());
                    about.is_some_and(|about| is_own(Ipv6Addr::from(about)))
                }
                None | Some(&(ROUTER_ADVERTISEMENT | REDIRECT)) => false,
                Some(_) => source != by_itself,
            },
            // What other headers would hide is not looked for.
            FRAGMENT => source != by_itself && matches!(payload.first(), Some(&(TCP | UDP))),
            TCP | UDP | SCTP => source != by_itself,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 66, 10, 0, 0, 2];
    const OTHER: [u8; 6] = [2, 66, 10, 0, 0, 3];
    const EVERYBODY: [u8; 6] = [0xff; 6];

    fn own() -> Identity {
        Identity { mac: Mac(MAC), ipv4: Some([10, 0, 0, 2].into()), ipv6: Some("fd00::2".parse().unwrap()) }
    }

    fn frame(source: [u8; 6], kind: [u8; 2], packet: &[u8]) -> Vec<u8> {
        [&EVERYBODY[..], &source, &kind, packet].concat()
    }

    fn ipv4(source: [u8; 4]) -> Vec<u8> {
        [&[0x45; 12][..], &source, &[10, 0, 0, 3]].concat()
    }

    fn arp(mac: [u8; 6], ip: [u8; 4]) -> Vec<u8> {
        [&[0, 1, 8, 0, 6, 4, 0, 2][..], &mac, &ip, &[0; 10]].concat()
    }

    fn ipv6(source: &str, next: u8, payload: &[u8]) -> Vec<u8> {
        let source: Ipv6Addr = source.parse().unwrap();
        [&[0x60, 0, 0, 0, 0, 0, next, 255][..], &source.octets(), &[0; 16], payload].concat()
    }

    fn advertisement(about: &str) -> Vec<u8> {
        let about: Ipv6Addr = about.parse().unwrap();
        [&[NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, 0, 0, 0, 0][..], &about.octets()].concat()
    }

    #[test]
    fn a_container_sends_as_itself_alone() {
        let sends = |frame: Vec<u8>| own().may_send(&frame);
        assert!(sends(frame(MAC, IPV4, &ipv4([10, 0, 0, 2]))));
        assert!(!sends(frame(OTHER, IPV4, &ipv4([10, 0, 0, 2]))));
        assert!(!sends(frame(MAC, IPV4, &ipv4([10, 0, 0, 3]))));
        assert!(!sends(frame(MAC, IPV4, &ipv4([127, 0, 0, 1]))));
        assert!(sends(frame(MAC, ARP, &arp(MAC, [10, 0, 0, 2]))));
        assert!(!sends(frame(MAC, ARP, &arp(MAC, [10, 0, 0, 3]))));
        assert!(!sends(frame(MAC, ARP, &arp(OTHER, [10, 0, 0, 2]))));
        assert!(!sends(frame(MAC, [0x81, 0x00], &ipv4([10, 0, 0, 2]))), "VLAN");
        assert!(!sends(frame(MAC, [0x88, 0xcc], &[0; 60])), "LLDP");
    }

    #[test]
    fn what_only_a_router_says_is_not_passed_on() {
        let sends = |packet: Vec<u8>| own().may_send(&frame(MAC, IPV6, &packet));
        let own_link_local = link_local(MAC).to_string();
        assert!(sends(ipv6("fd00::2", TCP, &[0; 20])));
        assert!(!sends(ipv6("fd00::3", TCP, &[0; 20])));
        assert!(!sends(ipv6(&own_link_local, UDP, &[0; 20])));
        assert!(sends(ipv6(&own_link_local, ICMP_6, &[NEIGHBOUR_SOLICITATION, 0])));
        assert!(!sends(ipv6("fe80::1", ICMP_6, &[NEIGHBOUR_SOLICITATION, 0])));
        for kind in [ROUTER_ADVERTISEMENT, REDIRECT] {
            assert!(!sends(ipv6(&own_link_local, ICMP_6, &[kind, 0])));
            assert!(!sends(ipv6("fd00::2", ICMP_6, &[kind, 0])));
            // Hidden behind headers.
            assert!(!sends(ipv6("fd00::2", 60, &[ICMP_6, 0, 0, 0, 0, 0, 0, 0, kind, 0])));
            assert!(!sends(ipv6("fd00::2", FRAGMENT, &[ICMP_6, 0, 0, 0, 0, 0, 0, 0, kind, 0])));
        }
        assert!(sends(ipv6("fd00::2", ICMP_6, &advertisement("fd00::2"))));
        assert!(!sends(ipv6("fd00::2", ICMP_6, &advertisement("fd00::3"))));
    }

    #[test]
    fn a_frame_of_any_length_is_judged() {
        for kind in [IPV4, ARP, IPV6] {
            for packet in [&ipv4([10, 0, 0, 2])[..], &arp(MAC, [10, 0, 0, 2]), &ipv6("fd00::2", ICMP_6, &[136])] {
                let whole = frame(MAC, kind, packet);
                for length in 0..=whole.len() {
                    let _ = (own().may_send(&whole[..length]), target(&whole[..length]));
                }
            }
        }
        assert!(!own().may_send(&[]));
        assert_eq!(target(&frame(MAC, IPV4, &[])), None);
        assert_eq!(target(&[&MAC[..], &OTHER].concat()), Some(Mac(MAC)));
    }

    #[test]
    fn without_an_address_of_a_kind_nothing_of_it_is_sent() {
        let none = Identity { ipv4: None, ipv6: None, ..own() };
        assert!(!none.may_send(&frame(MAC, IPV4, &ipv4([0, 0, 0, 0]))));
        let link_local = link_local(MAC).to_string();
        assert!(!none.may_send(&frame(MAC, IPV6, &ipv6(&link_local, ICMP_6, &[NEIGHBOUR_SOLICITATION]))));
    }
}
