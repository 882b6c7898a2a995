//! Where a pull may go: which schemes, and what one host's answer may lead to.
//!
//! | rule | why |
//! |---|---|
//! | plain HTTP only to this machine, or with [`RegistryOptions::insecure`](super::RegistryOptions::insecure) | who is on the way could read and change it |
//! | from HTTPS never to HTTP, with whatever option | what the user saw as encrypted stays so |
//! | at most [`MAX_REDIRECTS`] redirects, none to where the request has been | Go's bound, which Docker and containerd have |
//! | `Authorization` goes to the registry's own scheme, host and port, and to the token server that the registry itself names; after a redirect to elsewhere, never again | CVE-2020-15157: a second host asked for the user's password |
//! | no user or password in a URL | they would be the registry's choice |
//! | no redirect and no token server nearer to this machine than the registry ([`Scope`]) | else a registry on the internet makes this machine ask the services in its own network |
//!
//! The last rule is stricter than Docker, containerd and Podman, which ask whatever address they are led to. It is by
//! addresses, as they are resolved for the connection itself: a name that stands for several of them is asked at those
//! that are far enough. A registry in a private network may lead to that network and to the internet, one on this machine
//! anywhere.
//!
//! Which proxy of the environment is asked, if any, is decided for each URL (its scheme, `NO_PROXY`). What goes by none
//! is held to the rule in full. A proxy resolves names itself, and who it asks is not seen: then addresses and this
//! machine's own names in URLs are looked at, and a registry that is asked by a proxy counts as one on the internet, if
//! its own URL does not say where it is.

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::Url;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

/// Redirects that one request follows.
pub(super) const MAX_REDIRECTS: usize = 10;

/// How near an address is, the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Scope {
    /// This machine.
    Loopback,
    /// The same cable; also where clouds tell a machine its secrets (169.254.169.254).
    Link,
    /// A network that the internet does not reach.
    Private,
    /// The internet.
    Public,
}

impl Scope {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let octets = address.octets();
        match octets {
            // 0.0.0.0/8 is this host: connect(2) takes it for 127.0.0.1.
            [0 | 127, ..] => Self::Loopback,
            [169, 254, ..] => Self::Link,
            // Carriers' NAT, protocol assignments, benchmarks (RFC 6890); multicast and what is reserved.
            [100, 64..=127, ..] | [192, 0, 0, _] | [198, 18 | 19, ..] | [224..=255, ..] => Self::Private,
            _ if address.is_private() => Self::Private,
            _ => Self::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        let [a, b, c, ..] = address.segments();
        let last_four = || {
            let [.., g, h] = address.segments();
            let ([one, two], [three, four]) = (g.to_be_bytes(), h.to_be_bytes());
            Self::of_v4(Ipv4Addr::new(one, two, three, four))
        };
        match (a, b, c) {
            _ if address.is_loopback() || address.is_unspecified() => Self::Loopback,
            // An IPv4 address within: compatible (old), NAT64 (RFC 6052), 6to4 (RFC 3056).
            (0, 0, 0) | (0x64, 0xff9b, 0) => last_four(),
            (0x2002, ..) => {
                let ([one, two], [three, four]) = (b.to_be_bytes(), c.to_be_bytes());
                Self::of_v4(Ipv4Addr::new(one, two, three, four))
            }
            (0xfe80..=0xfebf, ..) => Self::Link,
            // Unique local, the old site local, NAT64 within a network (RFC 8215), multicast.
            (0xfc00..=0xfdff | 0xfec0..=0xfeff | 0xff00..=0xffff, ..) | (0x64, 0xff9b, 1) => Self::Private,
            _ => Self::Public,
        }
    }

    /// Of a host that says it without being resolved: an address, or this machine's own name.
    pub(super) fn of_name(host: &str) -> Option<Self> {
        let host = host.trim_end_matches('.');
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        match bare.parse::<IpAddr>() {
            Ok(address) => Some(Self::of(address)),
            Err(_) if host == "localhost" || host.ends_with(".localhost") => Some(Self::Loopback),
            Err(_) => None,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Loopback => "on this machine",
            Self::Link => "on the local link",
            Self::Private => "in a private network",
            Self::Public => "on the internet",
        }
    }
}

/// The nearest scope that answers may lead to: that of the registry, known once it has answered. It never comes nearer.
#[derive(Debug, Clone)]
pub(super) struct Nearest(Arc<AtomicU8>);

impl Nearest {
    /// More than any scope.
    const UNKNOWN: u8 = u8::MAX;

    pub(super) fn new(scope: Option<Scope>) -> Self {
        Self(Arc::new(AtomicU8::new(scope.map_or(Self::UNKNOWN, |scope| scope as u8))))
    }

    pub(super) fn seen(&self, scope: Scope) {
        let known = self.known().map_or(scope, |known| known.max(scope));
        self.0.store(known as u8, Ordering::Relaxed);
    }

    fn known(&self) -> Option<Scope> {
        let all = [Scope::Loopback, Scope::Link, Scope::Private, Scope::Public];
        all.get(usize::from(self.0.load(Ordering::Relaxed))).copied()
    }

    fn get(&self) -> Scope {
        self.known().unwrap_or(Scope::Public)
    }

    /// Whether an answer may lead there.
    pub(super) fn allows(&self, scope: Scope) -> bool {
        scope >= self.get()
    }

    /// Whether the registry's own name may stand for it: before it has answered, for anything.
    pub(super) fn may_be(&self, scope: Scope) -> bool {
        self.known().is_none_or(|known| scope >= known)
    }
}

/// The environment's proxies.
struct Proxies(Matcher);

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // They may have passwords.
        f.write_str("Proxies")
    }
}

/// What holds for all requests of a pull.
#[derive(Debug)]
pub(super) struct Policy {
    registry: Url,
    insecure: bool,
    nearest: Nearest,
    proxies: Proxies,
}

impl Policy {
    /// For a registry, of whose URL only scheme, host and port count.
    pub(super) fn new(registry: Url, insecure: bool) -> Self {
        Self::with(registry, insecure, Matcher::from_env())
    }

    fn with(registry: Url, insecure: bool, proxies: Matcher) -> Self {
        let own = registry.host_str().and_then(Scope::of_name);
        Self { registry, insecure, nearest: Nearest::new(own), proxies: Proxies(proxies) }
    }

    pub(super) fn insecure(&self) -> bool {
        self.insecure
    }

    pub(super) fn nearest(&self) -> Nearest {
        self.nearest.clone()
    }

    /// Whether a URL is asked by a proxy of the environment, which also resolves its name.
    pub(super) fn is_proxied(&self, url: &Url) -> bool {
        // What is asked on this machine is nothing for a proxy.
        !Self::is_here(url) && url.as_str().parse().is_ok_and(|uri| self.proxies.0.intercept(&uri).is_some())
    }

    /// Whether a URL is the registry's own: the same scheme, host and port.
    pub(super) fn is_own(&self, url: &Url) -> bool {
        same_origin(&self.registry, url)
    }

    /// Whether a host is this machine by its name, and so never behind a proxy.
    pub(super) fn is_here(url: &Url) -> bool {
        url.host_str().and_then(Scope::of_name) == Some(Scope::Loopback)
    }

    /// The registry answered from this address.
    pub(super) fn seen(&self, address: SocketAddr) {
        // A proxy's address says nothing of the registry's.
        if !self.is_proxied(&self.registry) {
            self.nearest.seen(Scope::of(address.ip()));
        }
    }

    /// Whether what one URL answered may lead to another one; why not, as the end of a sentence.
    pub(super) fn may_lead(&self, from: &Url, to: &Url) -> Result<(), String> {
        if from.scheme() == "https" && to.scheme() == "http" {
            return Err("which is plain HTTP; from HTTPS only HTTPS is followed".to_owned());
        }
        self.may_ask(to)?;
        match to.host_str().and_then(Scope::of_name) {
            Some(scope) if !self.nearest.allows(scope) => Err(too_near(scope, self.nearest.get())),
            _ => Ok(()),
        }
    }

    /// Whether a token server may be told the user's name and password; why not, as the end of a sentence.
    ///
    /// By plain HTTP only on this machine, or on the host of a registry that is itself asked so.
    pub(super) fn may_be_told(&self, url: &Url) -> Result<(), String> {
        let as_registry = self.registry.scheme() == "http" && self.registry.host_str() == url.host_str();
        if url.scheme() == "https" || Self::is_here(url) || as_registry {
            return Ok(());
        }
        Err("which is plain HTTP to another host than the registry's; the password was not sent there".to_owned())
    }

    /// Whether a URL is one to be asked at all.
    fn may_ask(&self, url: &Url) -> Result<(), String> {
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err("which is not the URL of a web server; only https:// is followed".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("which has a user or a password in it; no registry needs that".to_owned());
        }
        if url.scheme() == "http" && !self.insecure && !Self::is_here(url) {
            return Err("which is plain HTTP to another machine; HTTPS was expected".to_owned());
        }
        Ok(())
    }
}

fn too_near(target: Scope, registry: Scope) -> String {
    let (target, registry) = (target.words(), registry.words());
    format!("which is {target}, while the registry is {registry}; a registry may not lead nearer than it is itself")
}

/// Names are refused where they are resolved: see [`super::resolve`].
pub(super) fn all_too_near(name: &str) -> String {
    format!(
        "{name} has only addresses that are nearer to this machine than the registry; a registry may not lead there"
    )
}

/// Same scheme, host and port.
pub(super) fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host_str() == other.host_str()
        && one.port_or_known_default() == other.port_or_known_default()
}

/// A URL for messages: what follows a `?` may be as good as a password.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Those who cannot have a user have none.
    let _ = (url.set_username(""), url.set_password(None));
    if url.query().is_some() {
        url.set_query(Some("…"));
    }
    url.set_fragment(None);
    url.as_str().replace("?%E2%80%A6", "?…").chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_by_how_near_they_are() {
        let table = [
            (Scope::Loopback, "127.0.0.1 127.9.9.9 0.0.0.0 ::1 :: ::ffff:127.0.0.1 ::127.0.0.1 2002:7f00:1::"),
            (Scope::Link, "169.254.169.254 fe80::1 ::ffff:169.254.169.254 64:ff9b::169.254.169.254"),
            (
                Scope::Private,
                "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 198.18.0.1 224.0.0.1 255.255.255.255",
            ),
            (Scope::Private, "fd00:ec2::254 fec0::1 ff02::1 64:ff9b::10.0.0.1 64:ff9b:1::1 2002:a00:1::"),
            (Scope::Public, "8.8.8.8 172.32.0.1 100.128.0.1 2606:4700::1 64:ff9b::8.8.8.8"),
        ];
        for (scope, addresses) in table {
            for address in addresses.split(' ') {
                assert_eq!(Scope::of(address.parse().unwrap()), scope, "{address}");
            }
        }
        assert_eq!(Scope::of_name("localhost."), Some(Scope::Loopback));
        assert_eq!(Scope::of_name("[::1]"), Some(Scope::Loopback));
        assert_eq!(Scope::of_name("a.localhost"), Some(Scope::Loopback));
        assert_eq!(Scope::of_name("localhost.example"), None);
    }

    fn unproxied(registry: &Url, insecure: bool) -> Policy {
        Policy::with(registry.clone(), insecure, Matcher::builder().build())
    }

    /// From, to, the part of the refusal; none where it is allowed.
    #[test]
    fn answers_lead_only_where_they_may() {
        let (public, private, here) = ("8.8.8.8", "10.0.0.1", "127.0.0.1");
        let table = [
            (public, "https://r.example/a", "https://s.example/b", None),
            (public, "https://r.example/a", "http://r.example/a", Some("from HTTPS only HTTPS")),
            (public, "https://r.example/a", "http://localhost/a", Some("from HTTPS only HTTPS")),
            (public, "https://r.example/a", "file:///etc/shadow", Some("not the URL of a web server")),
            (public, "https://r.example/a", "ftp://s.example/", Some("not the URL of a web server")),
            (public, "https://r.example/a", "https://u:p@s.example/", Some("a user or a password")),
            (public, "https://r.example/a", "https://127.0.0.1/", Some("on this machine")),
            (public, "https://r.example/a", "https://2130706433/", Some("on this machine")),
            (public, "https://r.example/a", "https://[::ffff:7f00:1]/", Some("on this machine")),
            (public, "https://r.example/a", "https://169.254.169.254/latest", Some("on the local link")),
            (public, "https://r.example/a", "https://10.1.1.1/", Some("in a private network")),
            (private, "https://r.example/a", "https://10.1.1.1/", None),
            (private, "https://r.example/a", "https://169.254.169.254/", Some("on the local link")),
            (private, "https://r.example/a", "https://localhost/", Some("on this machine")),
            (here, "https://r.example/a", "https://localhost/", None),
            (here, "http://localhost:5000/a", "http://127.0.0.1:80/", None),
            (here, "http://localhost:5000/a", "http://s.example/", Some("plain HTTP to another machine")),
            (here, "http://localhost:5000/a", "https://s.example/", None),
        ];
        for (address, from, to, refusal) in table {
            let (from, to): (Url, Url) = (from.parse().unwrap(), to.parse().unwrap());
            let policy = unproxied(&from, false);
            policy.seen(SocketAddr::new(address.parse().unwrap(), 443));
            let found = policy.may_lead(&from, &to);
            match refusal {
                None => assert_eq!(found, Ok(()), "{from} {to}"),
                Some(part) => {
                    assert!(found.as_ref().is_err_and(|reason| reason.contains(part)), "{from} {to} {found:?}");
                }
            }
        }
        let from: Url = "http://r.example/a".parse().unwrap();
        let insecure = unproxied(&from, true);
        assert_eq!(insecure.may_lead(&from, &"http://s.example/".parse().unwrap()), Ok(()));
        assert!(insecure.may_be_told(&"http://r.example:81/token".parse().unwrap()).is_ok());
        assert!(insecure.may_be_told(&"https://s.example/token".parse().unwrap()).is_ok());
        assert!(insecure.may_be_told(&"http://s.example/token".parse().unwrap()).is_err());
        let from: Url = "https://r.example/a".parse().unwrap();
        assert!(insecure.may_lead(&from, &"http://r.example/".parse().unwrap()).is_err());
    }

    #[test]
    fn a_proxy_on_this_machine_opens_it_to_nobody() {
        let from: Url = "https://r.example/a".parse().unwrap();
        let proxies = Matcher::builder().https("http://127.0.0.1:3128").build();
        let policy = Policy::with(from.clone(), false, proxies);
        policy.seen("127.0.0.1:3128".parse().unwrap());
        for near in ["https://127.0.0.1/", "https://169.254.169.254/", "https://10.0.0.1/", "https://localhost/"] {
            assert!(policy.may_lead(&from, &near.parse().unwrap()).is_err(), "{near}");
        }
        assert!(!policy.nearest().allows(Scope::Private), "nor by a name that is resolved here");
    }

    /// Any proxy variable switched the rule off, also for what no proxy carries.
    #[test]
    fn proxies_are_asked_for_the_urls_that_they_are_for() {
        let asked = |builder: hyper_util::client::proxy::matcher::Builder, url: &str| {
            let url: Url = url.parse().unwrap();
            Policy::with(url.clone(), false, builder.build()).is_proxied(&url)
        };
        let proxy = "http://proxy.example:3128";
        let none = || Matcher::builder();
        assert!(!asked(none(), "https://r.example/"));
        assert!(!asked(none().http(proxy), "https://r.example/"));
        assert!(asked(none().http(proxy), "http://r.example/"));
        assert!(asked(none().https(proxy).no("other.example"), "https://r.example/"));
        assert!(!asked(none().https(proxy).no("*"), "https://r.example/"));
        assert!(!asked(none().https(proxy).no(".example"), "https://r.example/"));
        assert!(!asked(none().all(proxy), "http://localhost:5000/"));
    }

    /// A second answer for the registry's own name led to this machine.
    #[test]
    fn a_registry_comes_no_nearer_than_it_was() {
        let from: Url = "https://r.example/a".parse().unwrap();
        let policy = unproxied(&from, true);
        let nearest = policy.nearest();
        assert!(nearest.may_be(Scope::Loopback) && !nearest.allows(Scope::Private), "nothing is known yet");
        policy.seen("203.0.113.1:443".parse().unwrap());
        policy.seen("127.0.0.1:443".parse().unwrap());
        assert!(!nearest.may_be(Scope::Loopback) && !nearest.allows(Scope::Loopback) && nearest.allows(Scope::Public));
    }

    #[test]
    fn what_is_secret_in_a_url_is_not_shown() {
        let url: Url = "https://u:p@s.example/a?X-Signature=secret#f".parse().unwrap();
        assert_eq!(shown(&url), "https://s.example/a?…");
        assert!(same_origin(&url, &"https://s.example:443/".parse().unwrap()));
        assert!(!same_origin(&url, &"https://s.example:444/".parse().unwrap()));
    }
}
