//! Where a program may connect to: names, patterns of names and networks, each with ports.
//!
//! What is asked for by name is judged twice: the name before it is looked up, and each address that it stands for before it is
//! connected to. So a name that is pointed elsewhere leads nowhere else.

use super::reach::{Reach, reach};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest name that there is (RFC 1035), and the longest part of one between two dots.
const NAME_BYTES: usize = 253;
const LABEL_BYTES: usize = 63;

/// What a program may connect to, and nothing else.
///
/// An exact name leads to public and private addresses, a pattern to public ones alone. This machine, the link that it is on
/// (where clouds tell who asks what a machine may do) and groups are reached by nothing but a network that has only such
/// addresses; and this machine by the name `localhost`, too. An address of no network, or the unspecified one, never is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Destinations(Vec<Destination>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Destination {
    host: Host,
    ports: Ports,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// This name.
    Name(String),
    /// `*.example.com`: every name that ends so, with the dot.
    Below(String),
    /// `*`: every name, and every public address.
    Any,
    /// These addresses.
    Network { first: IpAddr, last: IpAddr },
}

/// First and last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ports(u16, u16);

/// Text that names no destination.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{text}` is no destination: {problem}; expected HOST:PORT, with a name, *.NAME, an address or a network as HOST, such as example.com:443 or [fd00::/8]:5432"
)]
pub struct DestinationError {
    text: String,
    problem: String,
}

impl Destinations {
    /// Understands a list of them.
    ///
    /// # Errors
    /// The first that is none.
    pub fn parse(texts: &[String]) -> Result<Self, DestinationError> {
        let parsed =
            texts.iter().map(|text| parse(text).map_err(|problem| DestinationError { text: text.clone(), problem }));
        parsed.collect::<Result<_, _>>().map(Self)
    }

    /// Whether a name may be looked up to connect to this port, or to any if none is known yet. The name is [plain](plain_name).
    pub fn has_name(&self, name: &str, port: Option<u16>) -> bool {
        self.0.iter().any(|entry| entry.host.is_called(name) && port.is_none_or(|port| entry.ports.contain(port)))
    }

    /// Whether an address that a program names itself may be connected to.
    pub fn has_address(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.0.iter().any(|entry| entry.ports.contain(address.port()) && entry.host.has_address(ip))
    }

    /// Whether an address that a plain name was resolved to may be connected to.
    pub fn has_resolved(&self, name: &str, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let leads = |host: &Host| host.is_called(name) && host.leads_to(reach(ip));
        self.has_address(address)
            || self.0.iter().any(|entry| entry.ports.contain(address.port()) && leads(&entry.host))
    }
}

impl Host {
    fn is_called(&self, name: &str) -> bool {
        match self {
            Self::Name(own) => own == name,
            Self::Below(parent) => {
                name.strip_suffix(parent.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            Self::Any => true,
            Self::Network { .. } => false,
        }
    }

    /// Whether what it is called may have an address there.
    fn leads_to(&self, reach: Reach) -> bool {
        match (self, reach) {
            (Self::Name(_), Reach::Public | Reach::Private) | (Self::Below(_) | Self::Any, Reach::Public) => true,
            (Self::Name(name), Reach::Machine) => name == "localhost" || name.ends_with(".localhost"),
            _ => false,
        }
    }

    fn has_address(&self, ip: IpAddr) -> bool {
        match self {
            Self::Any => reach(ip) == Reach::Public,
            Self::Network { first, last } if first.is_ipv4() == ip.is_ipv4() && *first <= ip && ip <= *last => {
                match reach(ip) {
                    Reach::Public | Reach::Private => true,
                    Reach::Nowhere => false,
                    // Not by the way of a large network that has them, too.
                    special => reach(*first) == special && reach(*last) == special,
                }
            }
            _ => false,
        }
    }
}

impl Ports {
    fn contain(self, port: u16) -> bool {
        (self.0..=self.1).contains(&port)
    }
}

/// A name as it is compared: in small letters, without the dot that may end it.
pub(super) fn plain_name(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn parse(text: &str) -> Result<Destination, String> {
    if text.contains("://") || text.contains('@') {
        return Err("it is a host and not a URL".to_owned());
    }
    let (host, ports) = split(text)?;
    let ports = match ports {
        None | Some("*") => Ports(1, u16::MAX),
        Some(ports) => parse_ports(ports)?,
    };
    Ok(Destination { host: parse_host(host)?, ports })
}

/// An address of IPv6 has colons of its own, and is in brackets where a port follows.
fn split(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("the bracket is not closed")?;
        return match rest.strip_prefix(':') {
            Some(ports) => Ok((host, Some(ports))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(format!("`{rest}` is no port")),
        };
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Ok((text, None)),
        Some((host, ports)) => Ok((host, Some(ports))),
        None => Ok((text, None)),
    }
}

fn parse_ports(text: &str) -> Result<Ports, String> {
    let number = |text: &str| match text.parse() {
        Ok(0) | Err(_) => Err(format!("`{text}` is no port: expected 1 to 65535, two of them with a hyphen, or *")),
        Ok(port) => Ok(port),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (number(first)?, number(last)?) {
        (first, last) if first <= last => Ok(Ports(first, last)),
        _ => Err(format!("the ports {text} end before they begin")),
    }
}

fn parse_host(text: &str) -> Result<Host, String> {
    if text == "*" {
        return Ok(Host::Any);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        let address = address.to_canonical();
        return Ok(Host::Network { first: address, last: address });
    }
    if let Some((address, bits)) = text.split_once('/') {
        return parse_network(address, bits);
    }
    match text.strip_prefix("*.") {
        Some(parent) => parse_name(parent).map(Host::Below),
        None => parse_name(text).map(Host::Name),
    }
}

fn parse_network(address: &str, bits: &str) -> Result<Host, String> {
    let address: IpAddr = address.parse().map_err(|_| format!("`{address}` is no IP address"))?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.parse::<u32>().ok().filter(|bits| *bits <= width);
    let bits = bits.ok_or_else(|| format!("a network of such addresses has 0 to {width} bits"))?;
    let (first, last) = ends(address, bits);
    if first == address { Ok(Host::Network { first, last }) } else { Err(format!("the network is {first}/{bits}")) }
}

fn ends(address: IpAddr, bits: u32) -> (IpAddr, IpAddr) {
    match address {
        IpAddr::V4(address) => {
            let rest = u32::MAX.checked_shr(bits).unwrap_or(0);
            let first = address.to_bits() & !rest;
            (Ipv4Addr::from_bits(first).into(), Ipv4Addr::from_bits(first | rest).into())
        }
        IpAddr::V6(address) => {
            let rest = u128::MAX.checked_shr(bits).unwrap_or(0);
            let first = address.to_bits() & !rest;
            (Ipv6Addr::from_bits(first).into(), Ipv6Addr::from_bits(first | rest).into())
        }
    }
}

fn parse_name(text: &str) -> Result<String, String> {
    let name = plain_name(text);
    let is_label = |label: &str| {
        (1..=LABEL_BYTES).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if !name.is_ascii() {
        return Err("a name in other letters is written as it is looked up (xn--…)".to_owned());
    }
    if name.len() > NAME_BYTES || !name.split('.').all(is_label) {
        return Err(format!("`{text}` is no host name"));
    }
    // 127.1 and 0x7f000001 are addresses for some, and names for others.
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(format!("`{text}` is neither a host name nor an address in full"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(texts: &[&str]) -> Destinations {
        Destinations::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn names_are_what_they_are_with_their_ports() {
        let list = list(&["Example.com.:443", "*.example.org:8000-8100", "db"]);
        for (name, port, expected) in [
            ("example.com", 443, true),
            ("example.com", 80, false),
            ("a.example.com", 443, false),
            ("badexample.com", 443, false),
            ("example.org", 8000, false),
            (".example.org", 8000, false),
            ("a.example.org", 8000, true),
            ("a.b.example.org", 8100, true),
            ("a.example.org", 8101, false),
            ("aexample.org", 8000, false),
            ("db", 1, true),
        ] {
            assert_eq!(list.has_name(name, Some(port)), expected, "{name}:{port}");
        }
        assert!(list.has_name("example.com", None));
        assert!(!list.has_name("example.net", None));
    }

    #[test]
    fn a_name_leads_only_where_its_kind_may() {
        let list = list(&["a.example:443", "*.example:443", "localhost:443", "*.localhost"]);
        for (name, address, expected) in [
            ("a.example", "203.0.113.1:443", true),
            ("a.example", "10.0.0.1:443", true),
            ("a.example", "[fd00::1]:443", true),
            ("a.example", "203.0.113.1:80", false),
            ("a.example", "127.0.0.1:443", false),
            ("a.example", "[::1]:443", false),
            ("a.example", "[::ffff:127.0.0.1]:443", false),
            ("a.example", "0.0.0.0:443", false),
            ("a.example", "169.254.169.254:443", false),
            ("a.example", "[64:ff9b::169.254.169.254]:443", false),
            ("a.example", "[fe80::1]:443", false),
            ("b.example", "203.0.113.1:443", true),
            ("b.example", "10.0.0.1:443", false),
            ("c.other", "203.0.113.1:443", false),
            ("localhost", "127.0.0.1:443", true),
            ("localhost", "[::1]:443", true),
            ("localhost", "169.254.1.1:443", false),
            ("a.localhost", "127.0.0.1:443", false),
        ] {
            assert_eq!(list.has_resolved(name, at(address)), expected, "{name} as {address}");
        }
    }

    #[test]
    fn addresses_are_in_networks_that_have_their_kind_alone() {
        let open = list(&["0.0.0.0/0:443", "[::/0]:443"]);
        for (address, expected) in [
            ("203.0.113.1:443", true),
            ("10.0.0.1:443", true),
            ("203.0.113.1:80", false),
            ("127.0.0.1:443", false),
            ("169.254.169.254:443", false),
            ("0.0.0.0:443", false),
            ("224.0.0.1:443", false),
            ("100.100.100.200:443", false),
        ] {
            assert_eq!(open.has_address(at(address)), expected, "{address}");
        }
        let special = list(&["127.0.0.0/8:80", "[::1]:80", "169.254.169.254:80", "239.0.0.0/8:80", "0.0.0.0:80"]);
        for (address, expected) in [
            ("127.0.0.1:80", true),
            ("127.1.2.3:80", true),
            ("[::ffff:127.0.0.1]:80", true),
            ("[::1]:80", true),
            ("[::]:80", false),
            ("169.254.169.254:80", true),
            ("169.254.169.253:80", false),
            ("239.1.2.3:80", true),
            ("0.0.0.0:80", false),
        ] {
            assert_eq!(special.has_address(at(address)), expected, "{address}");
        }
    }

    #[test]
    fn everything_is_every_name_and_what_is_public() {
        let list = list(&["*:443"]);
        assert!(list.has_name("any.thing", Some(443)) && !list.has_name("any.thing", Some(80)));
        assert!(list.has_address(at("[2001:db8::1]:443")) && list.has_address(at("203.0.113.1:443")));
        assert!(!list.has_address(at("192.168.0.1:443")) && !list.has_address(at("127.0.0.1:443")));
        assert!(!list.has_resolved("rebound.example", at("192.168.0.1:443")));
    }

    #[test]
    fn what_is_no_destination_is_refused_with_what_is_wrong() {
        for (text, problem) in [
            ("https://example.com", "not a URL"),
            ("user@example.com", "not a URL"),
            ("example.com:0", "no port"),
            ("example.com:65536", "no port"),
            ("example.com:9-8", "end before they begin"),
            ("example.com:", "no port"),
            ("", "no host name"),
            ("a..b", "no host name"),
            ("*.*.example", "no host name"),
            ("a*.example", "no host name"),
            ("exa mple", "no host name"),
            ("127.1", "nor an address in full"),
            ("2130706433", "nor an address in full"),
            ("0x7f000001:80", "nor an address in full"),
            ("10.0.0.1/8", "the network is 10.0.0.0/8"),
            ("10.0.0.0/33", "0 to 32 bits"),
            ("[fd00::/8:443", "not closed"),
            ("[fd00::]x", "no port"),
            ("bücher.example", "xn--"),
        ] {
            let error = Destinations::parse(&[text.to_owned()]).unwrap_err();
            assert!(error.problem.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn addresses_of_ipv6_need_brackets_for_a_port_alone() {
        for text in ["fd00::1", "[fd00::1]", "[fd00::1]:443", "fd00::/8", "[fd00::/8]:443"] {
            assert!(list(&[text]).has_address(at("[fd00::1]:443")), "{text}");
        }
    }
}
