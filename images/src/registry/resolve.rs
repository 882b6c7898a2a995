//! Names to addresses, without threads, and for hosts that a registry leads to, only those that are far enough.

use super::policy::{Nearest, Scope, all_too_near};
use hickory_resolver::{TokioResolver, config::LookupIpStrategy};
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
            let mut addresses = resolver.addresses(name.as_str()).await?;
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

fn system() -> Result<TokioResolver, Box<dyn Error + Send + Sync>> {
    let mut builder = TokioResolver::builder_tokio()
        .map_err(|error| format!("the name servers in /etc/resolv.conf cannot be used: {error}"))?;
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
    Ok(builder.build()?)
}
