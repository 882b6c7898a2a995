//! Values of the file: each checked where it is read, so that what is wrong is found at its place.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, de::Error};

use crate::{
    serve::path,
    spec::{
        limits::{self, CpuList},
        mounts::{self, MountSpec},
        names, quantity,
        wasm::StoreSpec,
    },
};

/// The name of a function or of a gateway: it becomes part of names of containers and files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Name(String);

impl Name {
    /// One that is right.
    pub(super) fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        const LONGEST: usize = 48;
        names::validate("name", &text).map_err(|error| error.to_string())?;
        match text.len() {
            ..=LONGEST => Ok(Self(text)),
            length => Err(format!("the name `{text}` has {length} bytes; give at most {LONGEST}")),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A size, as a number of bytes or as text such as `64k`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

/// A time in milliseconds, from text such as `10s`, or a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Millis(pub(crate) u64);

/// As `run -m`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory(pub(crate) Option<u64>);

/// As `run --cpus`, in thousandths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cpus(pub(crate) Option<u64>);

/// As `run --pids-limit`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pids(pub(crate) Option<u64>);

/// What people write as a number or as text.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected text or a number")]
enum Scalar {
    Text(String),
    Whole(i64),
    Real(f64),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Whole(number) => write!(f, "{number}"),
            Self::Real(number) => write!(f, "{number}"),
        }
    }
}

/// Reads it by a parser of command lines.
fn scalar<'de, D: Deserializer<'de>, T, E: fmt::Display>(
    deserializer: D,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, D::Error> {
    let text = Scalar::deserialize(deserializer)?.to_string();
    parse(&text).map_err(D::Error::custom)
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = |text: &str, expected| format!("invalid value `{text}`: expected {expected}");
        scalar(deserializer, |text| quantity::parse_bytes(text).map(Self).map_err(|what| expected(text, what)))
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer, |text| match quantity::parse_duration_ms(text) {
            _ if text == "never" => Ok(Self::NEVER),
            Ok(millis) => Ok(Self(millis)),
            Err(expected) => Err(format!("invalid value `{text}`: expected {expected}, or never")),
        })
    }
}

impl Millis {
    /// So long that it does not come.
    const NEVER: Self = Self(100 * 365 * 24 * 3_600_000);

    pub(crate) fn duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.min(Self::NEVER.0))
    }
}

impl<'de> Deserialize<'de> for Memory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer, |text| limits::parse_memory(text).map(Self))
    }
}

impl<'de> Deserialize<'de> for Cpus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer, |text| limits::parse_cpus(text, CpuList::online().count()).map(Self))
    }
}

impl<'de> Deserialize<'de> for Pids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer, |text| limits::parse_pids(text).map(Self))
    }
}

/// Where clients come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Listen {
    Address(SocketAddr),
    /// Standard input is a socket that listens.
    Inherited,
}

impl Listen {
    pub(super) fn loopback(port: u16) -> Self {
        Self::Address(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.parse() {
            _ if text == "inherited" => Ok(Self::Inherited),
            Ok(address) => Ok(Self::Address(address)),
            Err(_) => Err(format!(
                "`{text}` is no address: expected IP:PORT such as 127.0.0.1:8080 or [::]:80, or `inherited`"
            )),
        }
    }
}

/// Where operators come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Admin {
    /// In RUNROOT.
    #[default]
    Default,
    Off,
    /// A unix socket.
    Socket(PathBuf),
    /// Whoever knows the token; the socket in RUNROOT is there, too.
    Address(SocketAddr),
}

impl TryFrom<String> for Admin {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // sockaddr_un(7)
        const LONGEST: usize = 107;
        match text.as_str() {
            "off" => Ok(Self::Off),
            text if text.contains('/') && text.len() <= LONGEST => Ok(Self::Socket(text.into())),
            text => text.parse().map(Self::Address).map_err(|_| {
                format!(
                    "`{text}`: expected `off`, IP:PORT such as 127.0.0.1:8081, or the path of a unix socket, with a slash and of at most {LONGEST} bytes"
                )
            }),
        }
    }
}

/// Where the line of each request is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum AccessLog {
    #[default]
    Stdout,
    Off,
    File(PathBuf),
}

impl TryFrom<String> for AccessLog {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "stdout" => Ok(Self::Stdout),
            "off" => Ok(Self::Off),
            text if text.contains('/') => Ok(Self::File(text.into())),
            text => Err(format!("`{text}`: expected `stdout`, `off`, or a path with a slash")),
        }
    }
}

/// Whether a registry is asked for an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Pull {
    #[default]
    Missing,
    Always,
    Newer,
    Never,
}

/// Where a function's program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Isolation {
    /// In the gateway's own process, within the engine's sandbox alone.
    Engine,
    /// In containers.
    Process,
}

impl Isolation {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Process => "process",
        }
    }
}

/// How often it is looked whether a function's name leads to another image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Watch(Option<Millis>);

impl Watch {
    const USUAL: Millis = Millis(60_000);
    /// A registry is not to be asked without a pause.
    const LEAST: Millis = Millis(1000);

    /// None: it is not looked.
    pub(crate) fn interval(self) -> Option<std::time::Duration> {
        self.0.map(Millis::duration)
    }
}

impl<'de> Deserialize<'de> for Watch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected true, false, or how often it is looked, such as 30s")]
        enum Typed {
            Whether(bool),
            Every(Millis),
        }
        match Typed::deserialize(deserializer)? {
            Typed::Whether(is_wanted) => Ok(Self(is_wanted.then_some(Self::USUAL))),
            Typed::Every(interval) if interval.0 < Self::LEAST.0 => {
                Err(D::Error::custom("watch: it is looked once a second at most; give at least 1s"))
            }
            Typed::Every(interval) => Ok(Self(Some(interval))),
        }
    }
}

/// `--kv`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Store(pub(crate) StoreSpec);

impl TryFrom<String> for Store {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        StoreSpec::parse(&text).map(Self)
    }
}

/// `-v`; what is relative counts from the file's folder.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Mount {
    text: String,
    pub(crate) spec: MountSpec,
}

impl TryFrom<String> for Mount {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let spec = mounts::parse_volume(&text, Path::new("/")).map_err(|error| error.to_string())?;
        Ok(Self { text, spec })
    }
}

impl Mount {
    pub(super) fn resolve(&mut self, folder: &Path) -> Result<(), String> {
        self.spec = mounts::parse_volume(&self.text, folder).map_err(|error| error.to_string())?;
        Ok(())
    }
}

/// `--tmpfs`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Tmpfs(pub(crate) MountSpec);

impl TryFrom<String> for Tmpfs {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        mounts::parse_tmpfs(&text).map(Self).map_err(|error| error.to_string())
    }
}

/// A method's name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct MethodName(pub(crate) hyper::Method);

impl TryFrom<String> for MethodName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // Methods are case-sensitive; one in small letters is a mistake.
        let method = hyper::Method::from_bytes(text.as_bytes()).ok().filter(|_| !text.contains(char::is_lowercase));
        method.map(Self).ok_or_else(|| format!("`{text}` is no method: expected one such as GET or POST"))
    }
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A host, or all below one: `*.example.com`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum HostPattern {
    Exact(String),
    /// With its dot.
    Below(String),
}

impl TryFrom<String> for HostPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_plain = |character: char| character.is_ascii_alphanumeric() || "-._[]:".contains(character);
        let lower = text.to_ascii_lowercase();
        let (name, pattern) = match lower.strip_prefix("*.") {
            Some(rest) => (rest, Self::Below(format!(".{rest}"))),
            None => (lower.as_str(), Self::Exact(lower.clone())),
        };
        let is_host = !name.is_empty() && name.chars().all(is_plain) && (!name.contains(':') || name.starts_with('['));
        is_host.then_some(pattern).ok_or_else(|| {
            format!("`{text}` is no host: expected a name such as example.com or *.example.com, without a port")
        })
    }
}

impl HostPattern {
    /// `host` is in small letters, without a port.
    pub(crate) fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => host == name,
            Self::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// One part of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Segment {
    /// Decoded.
    Literal(String),
    /// `{name}`
    Parameter(String),
}

/// A path, of which parts may be anything: `/users/{id}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct PathPattern(pub(crate) Vec<Segment>);

impl TryFrom<String> for PathPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let problem = |what: &str| format!("the path `{text}` cannot be used: {what}");
        let segments = path::segments(&text).map_err(|error| problem(error.explanation()))?;
        let mut parsed = Vec::with_capacity(segments.len());
        for segment in segments {
            let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
            match name {
                Some(name) if is_name(name) => parsed.push(Segment::Parameter(name.to_ascii_lowercase())),
                None if !segment.contains(['{', '}', '*', '?', '#']) => {
                    parsed.push(Segment::Literal(segment.into_owned()));
                }
                _ => {
                    return Err(problem("a part is plain text, or {name} of letters, digits and `-`"));
                }
            }
        }
        // `/api/` is the beginning of the same paths as `/api`.
        parsed.pop_if(|last| *last == Segment::Literal(String::new()));
        Ok(Self(parsed))
    }
}

impl PathPattern {
    /// Which paths it is for, whatever its parameters are called.
    pub(crate) fn shape(&self) -> String {
        let part = |segment: &Segment| match segment {
            Segment::Literal(text) => format!("/{text}"),
            Segment::Parameter(_) => "/{}".to_owned(),
        };
        if self.0.is_empty() { "/".to_owned() } else { self.0.iter().map(part).collect() }
    }
}
