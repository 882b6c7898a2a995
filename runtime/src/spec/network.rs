//! Which networks a container is on, and by which addresses and names, in Docker's spelling.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::spec::names;

/// The network of containers for which no other is named.
pub(crate) const DEFAULT_NETWORK: &str = "bridge";

/// Which network a container sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// A network of its own with only a loopback device.
    #[default]
    None,
    /// The host's.
    Host,
    /// That of another container, by its id.
    Container(String),
    /// These, in order; none of them where it was disconnected from all.
    Joined(Vec<Endpoint>),
}

impl Network {
    /// The network of containers for which no other is named.
    pub(crate) fn default_one() -> Self {
        Self::Joined(vec![Endpoint::of_default()])
    }

    /// The networks that it is on.
    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        match self {
            Network::Joined(endpoints) => endpoints,
            Network::None | Network::Host | Network::Container(_) => &[],
        }
    }

    /// What Docker calls its mode.
    pub(crate) fn mode(&self) -> String {
        match self {
            Network::None => "none".to_owned(),
            Network::Host => "host".to_owned(),
            Network::Container(id) => format!("container:{id}"),
            Network::Joined(endpoints) => {
                endpoints.first().map_or(DEFAULT_NETWORK, |first| first.network.as_str()).to_owned()
            }
        }
    }
}

/// A container's place on one network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network's name.
    pub network: String,
    /// The IPv4 address that it is to have; None: one that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address that it is to have; None: one that is free, where the network has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
    /// The hardware address; None: one made of the IP address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// By which other names others find it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

impl Endpoint {
    /// On the default network, with nothing of its own.
    pub(crate) fn of_default() -> Self {
        Self { network: DEFAULT_NETWORK.to_owned(), ..Self::default() }
    }
}

/// How a container finds others: what it is told beside the networks' own names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NameService {
    /// `--dns`: name servers, instead of the host's.
    pub servers: Vec<IpAddr>,
    /// `--dns-search`, instead of the host's; `.` for none.
    pub search: Vec<String>,
    /// `--dns-option`, instead of the host's.
    pub options: Vec<String>,
    /// `--add-host`: names and addresses; None: the host's own.
    pub hosts: Vec<(String, Option<IpAddr>)>,
}

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let byte = |part: &str| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok()).flatten();
        let bytes: Option<Vec<u8>> = text.split([':', '-']).map(byte).collect();
        let mac = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok()).ok_or_else(|| {
            format!("`{text}` is no hardware address: expected six pairs of digits, such as 02:42:ac:11:00:02")
        })?;
        match mac[0] & 1 {
            0 if mac != [0; 6] => Ok(Self(mac)),
            _ => Err(format!("`{text}` is the hardware address of a group or of nobody, not of one device")),
        }
    }
}

/// What was typed of networks: `--network`, and the flags that are about the first one.
#[derive(Debug, Default)]
pub(crate) struct Typed<'a> {
    pub(crate) networks: &'a [String],
    pub(crate) aliases: &'a [String],
    pub(crate) ipv4: Option<&'a str>,
    pub(crate) ipv6: Option<&'a str>,
    pub(crate) mac: Option<&'a str>,
}

/// Understands what was typed; `None` where no network was named.
///
/// # Errors
/// A sentence that names the flag.
pub(crate) fn parse(typed: &Typed<'_>) -> Result<Option<Network>, String> {
    let mut joined = Vec::new();
    for text in typed.networks {
        let alone = match text.as_str() {
            "none" => Some(Network::None),
            "host" => Some(Network::Host),
            other => other.strip_prefix("container:").map(|name| Network::Container(name.to_owned())),
        };
        match alone {
            Some(_) if typed.networks.len() > 1 => {
                return Err(format!("--network {text}: it goes with no other network; give it alone"));
            }
            Some(alone) => return with_nothing_else(typed, text, alone).map(Some),
            None => joined.push(parse_endpoint(text)?),
        }
    }
    let about_first = !typed.aliases.is_empty() || typed.ipv4.or(typed.ipv6).or(typed.mac).is_some();
    if joined.is_empty() && !about_first {
        return Ok(None);
    }
    if joined.is_empty() {
        joined.push(Endpoint::of_default());
    }
    let mut names: Vec<&str> = joined.iter().map(|endpoint| endpoint.network.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("--network {}: given twice", twice[0]));
    }
    let first = &mut joined[0];
    for alias in typed.aliases {
        first.aliases.push(host_name("--network-alias", alias)?);
    }
    let ip = |flag: &str, text: &str| format!("invalid value `{text}` for {flag}: it is no such address");
    first.ipv4 = typed.ipv4.map(|text| text.parse().map_err(|_| ip("--ip", text))).transpose()?.or(first.ipv4);
    first.ipv6 = typed.ipv6.map(|text| text.parse().map_err(|_| ip("--ip6", text))).transpose()?.or(first.ipv6);
    let mac = typed.mac.map(|text| text.parse().map_err(|error| format!("--mac-address: {error}")));
    first.mac = mac.transpose()?.or(first.mac);
    if first.network == DEFAULT_NETWORK && !first.aliases.is_empty() {
        return Err("--network-alias: names are for networks of your own (amphora network create NAME)".to_owned());
    }
    Ok(Some(Network::Joined(joined)))
}

fn with_nothing_else(typed: &Typed<'_>, text: &str, network: Network) -> Result<Network, String> {
    let flags = [
        ("--network-alias", !typed.aliases.is_empty()),
        ("--ip", typed.ipv4.is_some()),
        ("--ip6", typed.ipv6.is_some()),
        ("--mac-address", typed.mac.is_some()),
    ];
    match flags.iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(format!("{flag}: with --network {text} a container has no address of its own")),
        None => Ok(network),
    }
}

/// `NAME`, or `name=NAME,alias=A,ip=…,ip6=…,mac-address=…`.
fn parse_endpoint(text: &str) -> Result<Endpoint, String> {
    let mut endpoint = Endpoint::default();
    if !text.contains('=') {
        endpoint.network = text.to_owned();
    } else {
        for field in text.split(',') {
            let (key, value) = field.split_once('=').unwrap_or((field, ""));
            let bad = || format!("invalid value `{text}` for --network: `{field}` is not understood");
            match key {
                "name" => endpoint.network = value.to_owned(),
                "alias" => endpoint.aliases.push(host_name("--network", value)?),
                "ip" => endpoint.ipv4 = Some(value.parse().map_err(|_| bad())?),
                "ip6" => endpoint.ipv6 = Some(value.parse().map_err(|_| bad())?),
                "mac-address" => endpoint.mac = Some(value.parse().map_err(|_| bad())?),
                _ => return Err(format!("{}; expected name=, alias=, ip=, ip6= or mac-address=", bad())),
            }
        }
    }
    if endpoint.network == "default" {
        endpoint.network = DEFAULT_NETWORK.to_owned();
    }
    names::validate("network name", &endpoint.network).map_err(|error| format!("--network {text}: {error}"))?;
    Ok(endpoint)
}

/// A name that others look up: labels of letters, digits, `-` and `_`, with dots between.
pub(crate) fn host_name(flag: &str, text: &str) -> Result<String, String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
    };
    match text.len() <= 253 && text.split('.').all(label) {
        true => Ok(text.to_owned()),
        false => Err(format!("invalid value `{text}` for {flag}: it is no host name (letters, digits, `-` and dots)")),
    }
}

/// `--add-host NAME:ADDRESS`, where the address may be `host-gateway`.
pub(crate) fn parse_host(text: &str) -> Result<(String, Option<IpAddr>), String> {
    let (name, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or_else(|| format!("invalid value `{text}` for --add-host: expected NAME:ADDRESS"))?;
    let name = host_name("--add-host", name)?;
    if address == "host-gateway" {
        return Ok((name, None));
    }
    let bare = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
    let ip = bare
        .parse()
        .map_err(|_| format!("invalid value `{text}` for --add-host: `{bare}` is no IP address (or host-gateway)"))?;
    Ok((name, Some(ip)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn networks(texts: &[&str]) -> Result<Option<Network>, String> {
        parse(&Typed { networks: &owned(texts), ..Typed::default() })
    }

    #[test]
    fn networks_are_understood() {
        assert_eq!(networks(&[]), Ok(None));
        assert_eq!(networks(&["none"]), Ok(Some(Network::None)));
        assert_eq!(networks(&["container:web"]), Ok(Some(Network::Container("web".to_owned()))));
        let endpoint = |network: &str| Endpoint { network: network.to_owned(), ..Endpoint::default() };
        assert_eq!(networks(&["default"]), Ok(Some(Network::Joined(vec![endpoint("bridge")]))));
        let long = "name=front,alias=web,ip=10.0.0.2,mac-address=02:42:00:00:00:01";
        let found = networks(&[long, "back"]).unwrap().unwrap();
        let [first, second] = found.endpoints() else { panic!("{found:?}") };
        assert_eq!((first.aliases.as_slice(), first.ipv4), (&owned(&["web"])[..], Some(Ipv4Addr::new(10, 0, 0, 2))));
        assert_eq!(second, &endpoint("back"));
        let typed = Typed { ipv4: Some("10.0.0.9"), ..Typed::default() };
        assert_eq!(parse(&typed).unwrap().unwrap().endpoints()[0].network, "bridge");
    }

    #[test]
    fn what_does_not_go_together_is_named() {
        for (texts, said) in [
            (&["host", "front"][..], "alone"),
            (&["front", "front"], "twice"),
            (&["a/b"], "invalid network name"),
            (&["name=front,colour=red"], "colour=red"),
            (&["name=front,ip=x"], "ip=x"),
            (&["name=front,alias=-x"], "no host name"),
        ] {
            let message = networks(texts).unwrap_err();
            assert!(message.contains(said), "{texts:?}: {message}");
        }
        let typed = Typed { networks: &owned(&["host"]), ipv4: Some("10.0.0.9"), ..Typed::default() };
        assert!(parse(&typed).unwrap_err().contains("--ip: with --network host"));
    }

    #[test]
    fn hosts_and_hardware_addresses_are_understood() {
        let ip = |text: &str| Some(text.parse().unwrap());
        for (text, name, address) in [
            ("db:10.0.0.1", "db", ip("10.0.0.1")),
            ("db=[::1]", "db", ip("::1")),
            ("db:fd00::1", "db", ip("fd00::1")),
            ("host.docker.internal:host-gateway", "host.docker.internal", None),
        ] {
            assert_eq!(parse_host(text), Ok((name.to_owned(), address)), "{text}");
        }
        for text in ["", "db", "db:", "db:x", "a b:10.0.0.1", "db:10.0.0.1.2"] {
            assert!(parse_host(text).unwrap_err().contains("--add-host"), "{text}");
        }
        assert_eq!("02-42-AC-11-00-02".parse::<Mac>().unwrap().to_string(), "02:42:ac:11:00:02");
        for text in ["", "02:42", "03:42:ac:11:00:02", "00:00:00:00:00:00", "2:42:ac:11:00:02", "02:42:ac:11:00:0x"] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn networks_are_written_down() {
        for (network, json) in [
            (Network::None, r#""none""#.to_owned()),
            (Network::Host, r#""host""#.to_owned()),
            (Network::Container("ab".to_owned()), r#"{"container":"ab"}"#.to_owned()),
            (networks(&["front"]).unwrap().unwrap(), r#"{"joined":[{"network":"front"}]}"#.to_owned()),
        ] {
            assert_eq!(serde_json::to_string(&network).unwrap(), json);
            assert_eq!(serde_json::from_str::<Network>(&json).unwrap(), network);
        }
    }
}
