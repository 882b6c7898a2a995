//! Names to addresses, without threads, and for hosts that a registry leads to, only those that are far enough.

use super::policy::{Nearest, Scope, all_too_near};
use hickory_resolver::{TokioResolver, config::LookupIpStrategy};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::{
    error::Error,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, OnceLock},
};

/// The system's resolver: `/etc/hosts`, and the servers of `/etc/resolv.conf`. This machine's own name needs neither.
#[derive(Clone, Default)]
pub(super) struct Resolver {
    // Made with the first question: it must be made within the event loop, and most pulls from this machine ask none.
    system: Arc<OnceLock<TokioResolver>>,
    /// `None`: all addresses.
    nearest: Option<Nearest>,
}

impl Resolver {
    /// The same resolver, for hosts that a registry leads to.
    pub(super) fn no_nearer_than(&self, nearest: Option<Nearest>) -> Self {
        Self { system: Arc::clone(&self.system), nearest }
    }

    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Box<dyn Error + Send + Sync>> {
        if name.trim_end_matches('.') == "localhost" {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let resolver = match self.system.get() {
            Some(resolver) => resolver,
            None => {
                let made = system()?;
                self.system.get_or_init(|| made)
            }
        };
        Ok(resolver.lookup_ip(name).await?.iter().collect())
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let mut addresses = reachable(resolver.addresses(name.as_str()).await?, speaks_ipv6());
            if let Some(nearest) = &resolver.nearest {
                addresses.retain(|&address| nearest.allows(Scope::of(address)));
                if addresses.is_empty() {
                    return Err(all_too_near(name.as_str()).into());
                }
            }
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

    /// "Address family not supported by protocol" was said of a registry that refused connections.
    #[test]
    fn addresses_that_this_machine_cannot_use_are_not_tried() {
        let (v4, v6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
        assert_eq!(reachable(vec![v6, v4], false), [v4]);
        assert_eq!(reachable(vec![v4, v6], true), [v4, v6]);
        assert_eq!(reachable(vec![v6], false), [v6], "its failure is the answer");
    }
}
