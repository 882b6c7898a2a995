//! Published ports: `-p`, in Docker's spelling.
//!
//! Nothing here looks at the machine: whether an address is there and a port is free is found out where the port is opened.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

/// One port of a container that the host's addresses lead to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The address of the host; None: all of them, of IPv4 and IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// The port of the host.
    pub host_port: HostPort,
    /// The port inside the container; never 0.
    pub container_port: u16,
    /// What is spoken.
    #[serde(default)]
    pub protocol: Protocol,
}

/// Which port of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostPort {
    /// One that is free, which the kernel chooses.
    Any,
    /// This one.
    Fixed(u16),
    /// One of these that is free; first and last.
    OneOf(u16, u16),
}

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// `tcp`
    #[default]
    Tcp,
    /// `udp`
    Udp,
    /// `sctp`
    Sctp,
}

/// What published ports are to a program; decided when its container is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Listening {
    /// It is a function, called for each HTTP request that comes to them. So it is in records that do not say.
    #[default]
    Function,
    /// It is given sockets that listen at them, and accepts there.
    Given,
    /// It opens sockets itself, in a network namespace of its own.
    Own,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// A port that cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PortError {
    /// It does not parse.
    #[error("invalid value `{found}` for {flag}: {problem}")]
    Invalid { flag: &'static str, found: String, problem: String },
    /// A port of the host leads to two of the container's.
    #[error("two ports of the container are published at {place}: give each a port of the host of its own")]
    Taken { place: String },
}

/// Parses all `-p` of one container, in order; what is given twice counts once.
///
/// # Errors
/// The first value that does not parse, or one port of the host for two of the container's.
pub(crate) fn parse_all(texts: &[String]) -> Result<Vec<PublishedPort>, PortError> {
    let mut ports: Vec<PublishedPort> = Vec::with_capacity(texts.len());
    for text in texts {
        for port in parse_publish(text)? {
            if ports.contains(&port) {
                continue;
            }
            if ports.iter().any(|other| other.collides(&port)) {
                return Err(PortError::Taken { place: port.place() });
            }
            ports.push(port);
        }
    }
    Ok(ports)
}

impl PublishedPort {
    fn collides(&self, other: &Self) -> bool {
        let same_ip = self.host_ip.is_none() || other.host_ip.is_none() || self.host_ip == other.host_ip;
        let fixed = matches!(self.host_port, HostPort::Fixed(_)) && self.host_port == other.host_port;
        same_ip && fixed && self.protocol == other.protocol
    }

    /// `80/tcp`: where it leads to.
    pub(crate) fn inside(&self) -> String {
        format!("{}/{}", self.container_port, self.protocol)
    }

    /// `80/tcp`, or `127.0.0.1:80/tcp`.
    fn place(&self) -> String {
        let port = match self.host_port {
            HostPort::Any => "any port".to_owned(),
            HostPort::Fixed(port) => port.to_string(),
            HostPort::OneOf(first, last) => format!("{first}-{last}"),
        };
        match self.host_ip {
            None => format!("{port}/{}", self.protocol),
            Some(IpAddr::V4(ip)) => format!("{ip}:{port}/{}", self.protocol),
            Some(IpAddr::V6(ip)) => format!("[{ip}]:{port}/{}", self.protocol),
        }
    }
}

const EXPECTED: &str =
    "expected [[IP:]HOST_PORT:]CONTAINER_PORT[/tcp|udp|sctp], such as 8080:80 or 127.0.0.1:53:53/udp";

/// Parses one `-p`, which may be a range of ports: `80`, `8080:80`, `8000-8010:80-90/udp`, `127.0.0.1::80`, `[::1]:8080:80`, or
/// `published=8080,target=80,protocol=tcp`.
///
/// # Errors
/// A value that is none.
pub(crate) fn parse_publish(text: &str) -> Result<Vec<PublishedPort>, PortError> {
    let invalid = |problem: String| PortError::Invalid { flag: "--publish", found: text.to_owned(), problem };
    let parsed = if text.contains('=') { parse_fields(text) } else { parse_short(text) };
    parsed.map_err(invalid)
}

/// Parses `--expose`: `CONTAINER[-CONTAINER][/PROTOCOL]`, as `80/tcp` each.
///
/// # Errors
/// A value that is none.
pub(crate) fn parse_expose(text: &str) -> Result<Vec<String>, PortError> {
    let invalid = |problem: String| PortError::Invalid { flag: "--expose", found: text.to_owned(), problem };
    if text.contains([':', '=']) {
        return Err(invalid(
            "expected a port of the container, such as 80 or 80/udp; -p leads there from the host".to_owned(),
        ));
    }
    let ports = parse_short(text).map_err(invalid)?;
    Ok(ports.iter().map(PublishedPort::inside).collect())
}

fn parse_short(text: &str) -> Result<Vec<PublishedPort>, String> {
    let (places, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let (host, container) = match places.rsplit_once(':') {
        None => (None, places),
        Some((host, container)) => (Some(host), container),
    };
    let (ip, host_port) = host.map(|host| host.rsplit_once(':').unwrap_or(("", host))).unwrap_or_default();
    publish(ip, host_port, container, protocol)
}

/// The long form that Docker takes too.
fn parse_fields(text: &str) -> Result<Vec<PublishedPort>, String> {
    let (mut published, mut target, mut protocol) = ("", "", "tcp");
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("published", value)) => published = value,
            Some(("target", value)) => target = value,
            Some(("protocol", value)) => protocol = value,
            _ => {
                return Err(format!(
                    "`{field}` is not known; expected published=HOST_PORT,target=CONTAINER_PORT,protocol=tcp"
                ));
            }
        }
    }
    publish("", published, target, protocol)
}

fn publish(ip: &str, host: &str, container: &str, protocol: &str) -> Result<Vec<PublishedPort>, String> {
    let host_ip = parse_ip(ip)?;
    let protocol = parse_protocol(protocol)?;
    if container.is_empty() {
        return Err(format!("there is no port of the container; {EXPECTED}"));
    }
    let (first, last) = parse_range(container)?;
    if first == 0 {
        return Err("port 0 of the container: ports are from 1 to 65535".to_owned());
    }
    let host_port = host_ports(host, first, last)?;
    let one =
        |container_port| PublishedPort { host_ip, host_port: host_port(container_port), container_port, protocol };
    Ok((first..=last).map(one).collect())
}

/// What each port of the container between `first` and `last` is given.
fn host_ports(host: &str, first: u16, last: u16) -> Result<impl Fn(u16) -> HostPort, String> {
    let range = if host.is_empty() { (0, 0) } else { parse_range(host)? };
    let (low, high) = range;
    if low == 0 && high > 0 {
        return Err(format!("`{host}`: a range of ports begins at 1; 0 alone is any free port"));
    }
    if high > low && last > first && high - low != last - first {
        return Err(format!(
            "{} ports of the host for {} of the container: give as many, or one of the container",
            u32::from(high - low) + 1,
            u32::from(last - first) + 1
        ));
    }
    if low > 0 && high == low && last > first {
        return Err(format!("one port of the host, {low}, for {} of the container", u32::from(last - first) + 1));
    }
    Ok(move |container: u16| match () {
        () if low == 0 => HostPort::Any,
        () if high == low => HostPort::Fixed(low),
        () if last == first => HostPort::OneOf(low, high),
        () => HostPort::Fixed(low + (container - first)),
    })
}

fn parse_ip(text: &str) -> Result<Option<IpAddr>, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    match bare.unwrap_or(text) {
        "" if bare.is_none() => Ok(None),
        text => text.parse().map(Some).map_err(|_| format!("`{text}` is no IP address; {EXPECTED}")),
    }
}

fn parse_protocol(text: &str) -> Result<Protocol, String> {
    match text.to_ascii_lowercase().as_str() {
        "" | "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        _ => Err(format!("`{text}` is no protocol; expected tcp, udp or sctp")),
    }
}

fn parse_range(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse()) {
        Some(Ok(port)) => Ok(port),
        _ => Err(format!("`{text}` is no port, which is a number from 0 to 65535; {EXPECTED}")),
    };
    let (first, last) = (port(first)?, port(last)?);
    if last < first {
        return Err(format!("the range `{text}` ends before it begins"));
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ip: &str, host_port: HostPort, container_port: u16, protocol: Protocol) -> PublishedPort {
        let host_ip = (!ip.is_empty()).then(|| ip.parse().unwrap());
        PublishedPort { host_ip, host_port, container_port, protocol }
    }

    #[test]
    fn dockers_spellings_are_understood() {
        use HostPort::{Any, Fixed, OneOf};
        use Protocol::{Sctp, Tcp, Udp};
        for (text, expected) in [
            ("80", vec![port("", Any, 80, Tcp)]),
            ("0:80", vec![port("", Any, 80, Tcp)]),
            (":80", vec![port("", Any, 80, Tcp)]),
            ("8080:80", vec![port("", Fixed(8080), 80, Tcp)]),
            ("8080:80/", vec![port("", Fixed(8080), 80, Tcp)]),
            ("53:53/UDP", vec![port("", Fixed(53), 53, Udp)]),
            ("9:9/sctp", vec![port("", Fixed(9), 9, Sctp)]),
            ("127.0.0.1::80", vec![port("127.0.0.1", Any, 80, Tcp)]),
            ("127.0.0.1:1:80", vec![port("127.0.0.1", Fixed(1), 80, Tcp)]),
            ("[::1]:1:80", vec![port("::1", Fixed(1), 80, Tcp)]),
            ("::1:1:80", vec![port("::1", Fixed(1), 80, Tcp)]),
            ("8000-8010:80", vec![port("", OneOf(8000, 8010), 80, Tcp)]),
            ("7-8:17-18", vec![port("", Fixed(7), 17, Tcp), port("", Fixed(8), 18, Tcp)]),
            ("80-81", vec![port("", Any, 80, Tcp), port("", Any, 81, Tcp)]),
            ("published=8080,target=80,protocol=udp", vec![port("", Fixed(8080), 80, Udp)]),
            ("target=80", vec![port("", Any, 80, Tcp)]),
        ] {
            assert_eq!(parse_publish(text), Ok(expected), "{text}");
        }
        assert_eq!(parse_publish("1-65535:1-65535").unwrap().len(), 65_535);
    }

    #[test]
    fn exposed_ports_are_the_containers() {
        assert_eq!(parse_expose("80"), Ok(vec!["80/tcp".to_owned()]));
        assert_eq!(parse_expose("53-54/udp"), Ok(vec!["53/udp".to_owned(), "54/udp".to_owned()]));
        for text in ["", "0", "8080:80", "80/x", "x"] {
            let message = parse_expose(text).unwrap_err().to_string();
            assert!(message.contains("--expose"), "{message}");
        }
    }

    #[test]
    fn what_is_no_port_is_named() {
        for (text, problem) in [
            ("", "no port of the container"),
            ("80:", "no port of the container"),
            ("x", "`x` is no port"),
            ("80:x", "`x` is no port"),
            ("65536", "`65536` is no port"),
            ("+80", "`+80` is no port"),
            ("-1", "`` is no port"),
            ("0", "port 0 of the container"),
            ("80:0-3", "port 0 of the container"),
            ("0-3:1-4", "begins at 1"),
            ("9-8:1", "ends before it begins"),
            ("1-2:1-3", "2 ports of the host for 3"),
            ("1:1-3", "one port of the host, 1, for 3"),
            ("80:80/icmp", "`icmp` is no protocol"),
            ("localhost:80:80", "`localhost` is no IP address"),
            ("[]:80:80", "`` is no IP address"),
            ("[::1:80:80", "is no IP address"),
            ("target=80,mode=host", "`mode=host` is not known"),
        ] {
            let message = parse_publish(text).unwrap_err().to_string();
            assert!(message.contains(&format!("invalid value `{text}` for --publish: ")), "{message}");
            assert!(message.contains(problem), "{text}: {message}");
        }
    }

    #[test]
    fn one_port_of_the_host_leads_to_one_place() {
        let all = |texts: &[&str]| parse_all(&texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
        assert_eq!(all(&["80:80", "80:80"]).unwrap().len(), 1);
        assert_eq!(all(&["80:80", "80:80/udp", "127.0.0.1:81:80", "127.0.0.2:81:80", "80", "80"]).unwrap().len(), 5);
        for (texts, place) in [
            (["80:80", "80:81"], "80/tcp"),
            (["80:80", "127.0.0.1:80:80"], "127.0.0.1:80/tcp"),
            (["[::1]:80-81:80-81/udp", "[::1]:81:80/udp"], "[::1]:81/udp"),
        ] {
            assert_eq!(all(&texts), Err(PortError::Taken { place: place.to_owned() }), "{texts:?}");
        }
    }

    #[test]
    fn a_port_is_written_down() {
        for text in ["8080:80", "[::1]:1-9:80/udp", "80"] {
            let ports = parse_publish(text).unwrap();
            let json = serde_json::to_string(&ports).unwrap();
            assert_eq!(serde_json::from_str::<Vec<PublishedPort>>(&json).unwrap(), ports, "{json}");
        }
        let json = serde_json::to_string(&parse_publish("127.0.0.1:8080:80").unwrap()).unwrap();
        let wanted = r#"[{"host_ip":"127.0.0.1","host_port":{"fixed":8080},"container_port":80,"protocol":"tcp"}]"#;
        assert_eq!(json, wanted);
    }
}
