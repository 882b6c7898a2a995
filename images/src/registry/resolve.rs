//! Names to addresses, without threads. What a registry leads to is asked only where that is far enough; the registry's own
//! name is resolved once, and stands for the same addresses from then on.

use super::{
    hosts,
    policy::{Nearest, Scope, all_too_near},
};
use hickory_resolver::{TokioResolver, config::LookupIpStrategy};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::{
    collections::HashMap,
    error::Error,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};
use tokio::time::timeout;

/// Less than a connection may take, so that it is said what takes so long.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(8);

/// The system's resolver: `/etc/hosts`, and the servers of `/etc/resolv.conf`. This machine's own name needs neither.
#[derive(Clone, Default)]
pub(super) struct Names {
    // Made with the first question: it must be made within the event loop, and most pulls from this machine ask none.
    system: Arc<OnceLock<TokioResolver>>,
    /// What the registry's names were resolved to.
    pinned: Arc<Mutex<HashMap<String, Vec<IpAddr>>>>,
}

/// Whose names are resolved.
#[derive(Clone)]
pub(super) enum Whose {
    /// The registry's own.
    Own(Nearest),
    /// Of where it leads.
    Elsewhere(Nearest),
    /// The proxies', which the user has named.
    Proxies,
}

/// Resolves the names of one kind of hosts.
#[derive(Clone)]
pub(super) struct Resolver {
    names: Names,
    whose: Whose,
}

impl Names {
    /// A resolver of these names that shares what is known by now.
    pub(super) fn resolver(&self, whose: Whose) -> Resolver {
        Resolver { names: self.clone(), whose }
    }

    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, Box<dyn Error + Send + Sync>> {
        if name.trim_end_matches('.') == "localhost" {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let listed = hosts::addresses(name);
        if !listed.is_empty() {
            return Ok(listed);
        }
        let resolver = match self.system.get() {
            Some(resolver) => resolver,
            None => {
                let made = system()?;
                self.system.get_or_init(|| made)
            }
        };
        let seconds = LOOKUP_TIMEOUT.as_secs();
        match timeout(LOOKUP_TIMEOUT, resolver.lookup_ip(name)).await {
            Ok(found) => Ok(found?.iter().collect()),
            Err(_) => {
                Err(format!("the name servers of /etc/resolv.conf have not told the address of {name} in {seconds} s")
                    .into())
            }
        }
    }

    async fn look_up_once(&self, name: &str) -> Result<Vec<IpAddr>, Box<dyn Error + Send + Sync>> {
        let pinned = || self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = pinned().get(name) {
            return Ok(known.clone());
        }
        let found = self.look_up(name).await?;
        Ok(pinned().entry(name.to_owned()).or_insert(found).clone())
    }
}

impl Resolver {
    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Box<dyn Error + Send + Sync>> {
        let found = match &self.whose {
            Whose::Own(_) => self.names.look_up_once(name).await?,
            Whose::Elsewhere(_) | Whose::Proxies => self.names.look_up(name).await?,
        };
        let mut addresses = reachable(found, speaks_ipv6());
        addresses.retain(|&address| self.may_be(Scope::of(address)));
        if addresses.is_empty() {
            return Err(all_too_near(name).into());
        }
        Ok(addresses)
    }

    fn may_be(&self, scope: Scope) -> bool {
        match &self.whose {
            Whose::Own(nearest) => nearest.may_be(scope),
            Whose::Elsewhere(nearest) => nearest.allows(scope),
            Whose::Proxies => true,
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses = resolver.addresses(name.as_str()).await?;
            let addresses: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

/// Of several addresses the last failure is told: that this machine knows no IPv6 would hide why an IPv4 address does not answer.
fn reachable(mut addresses: Vec<IpAddr>, ipv6: bool) -> Vec<IpAddr> {
    if !ipv6 && addresses.iter().any(IpAddr::is_ipv4) {
        addresses.retain(IpAddr::is_ipv4);
    }
    addresses
}

/// Whether the kernel has IPv6 at all.
fn speaks_ipv6() -> bool {
    let made = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    !matches!(made, Err(Errno::EAFNOSUPPORT))
}

fn system() -> Result<TokioResolver, Box<dyn Error + Send + Sync>> {
    let mut builder = TokioResolver::builder_tokio()
        .map_err(|error| format!("the name servers in /etc/resolv.conf cannot be used: {error}"))?;
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
    Ok(builder.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asked a second time, its name stood for this machine.
    #[test]
    fn a_registrys_name_is_looked_up_once_and_comes_no_nearer() {
        let [far, near] = [[203, 0, 113, 1], [127, 0, 0, 1]].map(IpAddr::from);
        let (names, nearest) = (Names::default(), Nearest::new(None));
        names.pinned.lock().unwrap().insert("r.example".to_owned(), vec![far, near]);
        let (own, other) = (Whose::Own(nearest.clone()), Whose::Elsewhere(nearest.clone()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let found = |whose: &Whose, name| runtime.block_on(names.resolver(whose.clone()).addresses(name)).ok();
        assert_eq!(found(&own, "r.example"), Some(vec![far, near]), "nobody has answered yet");
        assert_eq!(found(&other, "localhost"), None);
        nearest.seen(Scope::Public);
        assert_eq!(found(&own, "r.example"), Some(vec![far]));
        assert_eq!(found(&own, "localhost"), None);
        assert!(found(&Whose::Proxies, "localhost").is_some(), "the user has named it");
    }

    /// "Address family not supported by protocol" was said of a registry that refused connections.
    #[test]
    fn addresses_that_this_machine_cannot_use_are_not_tried() {
        let (v4, v6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
        assert_eq!(reachable(vec![v6, v4], false), [v4]);
        assert_eq!(reachable(vec![v4, v6], true), [v4, v6]);
        assert_eq!(reachable(vec![v6], false), [v6], "its failure is the answer");
    }
}
