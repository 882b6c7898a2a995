//! The network of a program: which destinations it may connect to, by sockets and by HTTP alike, and how names become addresses.
//!
//! ```text
//! wasi:http ────────── request ── tls
//!                         │
//! wasi:sockets ─ lookup ──┴─ Network ─┬─ Destinations (reach)
//!                                     └─ Names
//! ```
//!
//! What is connected to is the address that was judged, and never a name once more.

mod destinations;
mod lookup;
mod names;
mod reach;
mod request;
mod tls;

pub use destinations::{DestinationError, Destinations};
pub use names::NameFiles;

pub(crate) use lookup::{add_p2 as add_lookup, add_p3 as add_concurrent_lookup};
pub(crate) use request::Hooks;

use destinations::plain_name;
use names::{LookupError, Names};
use std::{
    collections::VecDeque,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tls::Trust;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use wasmtime_wasi::sockets::SocketAddrUse;

/// Connections for HTTP at once, of all instances.
const CONNECTIONS: usize = 256;
/// Addresses that names stood for which are remembered, for sockets, which know addresses alone.
const REMEMBERED: usize = 1024;

/// What is known of a program's network before it runs. It opens nothing.
pub struct NetworkSetting {
    /// What the program may connect to. None: all that the process's network namespace has.
    pub destinations: Option<Destinations>,
    /// Whether it may listen at sockets of its own.
    pub listens: bool,
    /// How names are looked up.
    pub names: NameFiles,
    /// Whom it trusts for TLS: certificates in PEM.
    pub authorities: Vec<u8>,
}

/// The network of one program; clones are the same.
#[derive(Clone)]
pub struct Network(Arc<Inner>);

struct Inner {
    /// None: there is none.
    setting: Option<Setting>,
    /// Told once of what was asked for and not granted, as `host:port` or as a name.
    denied: Box<dyn Fn(&str) + Send + Sync>,
    has_denied: AtomicBool,
}

struct Setting {
    destinations: Option<Destinations>,
    listens: bool,
    names: Names,
    trust: Trust,
    connections: Arc<Semaphore>,
    /// Addresses, and the names that stood for them.
    resolved: Mutex<VecDeque<(IpAddr, String)>>,
}

/// Why nothing was connected to.
#[derive(Debug)]
enum Refusal {
    /// The destination is none that was granted.
    Denied,
    /// Its name is, but leads where it may not.
    Misled,
    Lookup(LookupError),
    TimedOut,
    TooMany,
    Io(io::Error),
}

impl Network {
    /// None at all. `denied` is told once of what was asked for all the same.
    pub fn none(denied: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { setting: None, denied: Box::new(denied), has_denied: AtomicBool::new(false) }))
    }

    /// One that is there. `denied` is told once of what was asked for and not granted.
    pub fn new(setting: NetworkSetting, denied: impl Fn(&str) + Send + Sync + 'static) -> Self {
        let NetworkSetting { destinations, listens, names, authorities } = setting;
        let setting = Setting {
            destinations,
            listens,
            names: Names::new(names),
            trust: Trust::new(authorities),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            resolved: Mutex::default(),
        };
        Self(Arc::new(Inner { setting: Some(setting), denied: Box::new(denied), has_denied: AtomicBool::new(false) }))
    }

    pub(crate) fn is_none(&self) -> bool {
        self.0.setting.is_none()
    }

    /// Whether a socket may be used so.
    pub(crate) fn permits(&self, address: SocketAddr, used_for: SocketAddrUse) -> bool {
        let Some(setting) = &self.0.setting else { return false };
        match used_for {
            // What a connection begins at, which the system chooses.
            SocketAddrUse::TcpBind | SocketAddrUse::UdpBind if address.port() == 0 => true,
            SocketAddrUse::TcpBind | SocketAddrUse::UdpBind | SocketAddrUse::TcpListen | SocketAddrUse::TcpAccept => {
                setting.listens
            }
            // Who is spoken to answers.
            SocketAddrUse::UdpReceive => setting.listens || setting.has(address),
            SocketAddrUse::TcpConnect | SocketAddrUse::UdpSend => {
                let permitted = setting.has(address);
                if !permitted {
                    self.deny(&address.to_string());
                }
                permitted
            }
        }
    }

    /// The addresses of a name that a program looks up to make sockets to.
    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, Refusal> {
        if let Some(address) = literal(name) {
            return Ok(vec![address]);
        }
        let Some(setting) = &self.0.setting else { return Err(Refusal::Denied) };
        let name = plain_name(name);
        if setting.destinations.as_ref().is_some_and(|list| !list.has_name(&name, None)) {
            self.deny(&name);
            return Err(Refusal::Denied);
        }
        let addresses = setting.names.look_up(&name).await.map_err(Refusal::Lookup)?;
        if setting.destinations.is_some() {
            setting.remember(&name, &addresses);
        }
        Ok(addresses)
    }

    /// Connects to a host, by name or address.
    async fn connect(
        &self,
        host: &str,
        port: u16,
        within: Duration,
    ) -> Result<(TcpStream, OwnedSemaphorePermit), Refusal> {
        let Some(setting) = &self.0.setting else {
            self.deny(&format!("{host}:{port}"));
            return Err(Refusal::Denied);
        };
        let until = Instant::now() + within;
        let addresses = match timeout_at(until, self.destination(setting, host, port)).await {
            Ok(addresses) => addresses?,
            Err(_) => return Err(Refusal::Lookup(LookupError::TimedOut)),
        };
        let permit = match timeout_at(until, Arc::clone(&setting.connections).acquire_owned()).await {
            Ok(Ok(permit)) => permit,
            _ => return Err(Refusal::TooMany),
        };
        let mut refusal = Refusal::Lookup(LookupError::NoSuchName);
        let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        for address in addresses {
            // One that does not answer leaves time for the others.
            let share = until.saturating_duration_since(Instant::now()) / left.max(1);
            left = left.saturating_sub(1);
            refusal = match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true).map_err(Refusal::Io)?;
                    return Ok((stream, permit));
                }
                Ok(Err(error)) => Refusal::Io(error),
                Err(_) => Refusal::TimedOut,
            };
        }
        Err(refusal)
    }

    /// The addresses of a host that may be connected to.
    async fn destination(&self, setting: &Setting, host: &str, port: u16) -> Result<Vec<SocketAddr>, Refusal> {
        let list = setting.destinations.as_ref();
        if let Some(address) = literal(host) {
            let address = SocketAddr::new(address, port);
            if list.is_some_and(|list| !list.has_address(address)) {
                self.deny(&address.to_string());
                return Err(Refusal::Denied);
            }
            return Ok(vec![address]);
        }
        let name = plain_name(host);
        if list.is_some_and(|list| !list.has_name(&name, Some(port))) {
            self.deny(&format!("{name}:{port}"));
            return Err(Refusal::Denied);
        }
        let found = setting.names.look_up(&name).await.map_err(Refusal::Lookup)?;
        let may_be = |address: &SocketAddr| list.is_none_or(|list| list.has_resolved(&name, *address));
        let (permitted, others): (Vec<_>, Vec<_>) =
            found.into_iter().map(|address| SocketAddr::new(address, port)).partition(may_be);
        match others.first() {
            Some(address) if permitted.is_empty() => {
                self.deny(&format!("{name} at {address}"));
                Err(Refusal::Misled)
            }
            _ => Ok(permitted),
        }
    }

    /// A program may ask a million times.
    fn deny(&self, what: &str) {
        if !self.0.has_denied.swap(true, Relaxed) {
            (self.0.denied)(what);
        }
    }
}

impl Setting {
    /// Whether a socket may be connected to an address, which the program knows or has looked up.
    fn has(&self, address: SocketAddr) -> bool {
        let Some(list) = &self.destinations else { return true };
        let ip = address.ip().to_canonical();
        let resolved = || self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        list.has_address(address)
            || resolved().iter().any(|(known, name)| *known == ip && list.has_resolved(name, address))
    }

    fn remember(&self, name: &str, addresses: &[IpAddr]) {
        let mut resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        for address in addresses.iter().map(IpAddr::to_canonical) {
            resolved.retain(|(known, of)| *known != address || of != name);
            resolved.push_back((address, name.to_owned()));
        }
        while resolved.len() > REMEMBERED {
            resolved.pop_front();
        }
    }
}

/// An address, with brackets or without.
fn literal(host: &str) -> Option<IpAddr> {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    inner.unwrap_or(host).parse().ok()
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let destinations = self.0.setting.as_ref().map(|setting| &setting.destinations);
        f.debug_struct("Network").field("destinations", &destinations).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
