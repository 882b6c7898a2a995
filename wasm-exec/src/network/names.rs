//! Names to addresses, by what the host's files said when they were read: a program's process sees neither of them.

use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, ResolveHosts, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
    system_conf::parse_resolv_conf,
};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::OnceLock,
    time::Duration,
};
use tokio::time::timeout;

/// What a lookup may take with all its repetitions.
const LOOKUP_WITHIN: Duration = Duration::from_secs(10);

/// Contents of /etc/resolv.conf and /etc/hosts.
#[derive(Debug, Clone, Default)]
pub struct NameFiles {
    /// Name servers; without any, only what is listed is found.
    pub resolv_conf: Vec<u8>,
    /// Names that are known without asking.
    pub hosts: Vec<u8>,
}

pub(super) struct Names {
    files: NameFiles,
    /// What is known without asking.
    known: OnceLock<HashMap<String, Vec<IpAddr>>>,
    /// Made with the first question, within the event loop.
    resolver: OnceLock<Result<TokioResolver, String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LookupError {
    NoSuchName,
    TimedOut,
    Failed(String),
}

impl Names {
    pub(super) fn new(files: NameFiles) -> Self {
        Self { files, known: OnceLock::new(), resolver: OnceLock::new() }
    }

    /// All addresses of a name.
    pub(super) async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, LookupError> {
        // RFC 6761: nobody is asked for this one.
        if name == "localhost" {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        // As with hosts(5) nobody is asked for more addresses of a name that is known.
        if let Some(known) = self.known.get_or_init(|| known(&self.files.hosts)).get(name) {
            return Ok(known.clone());
        }
        let resolver = self.resolver.get_or_init(|| resolver(&self.files));
        let resolver = resolver.as_ref().map_err(|detail| LookupError::Failed(detail.clone()))?;
        match timeout(LOOKUP_WITHIN, resolver.lookup_ip(name)).await {
            Ok(Ok(found)) => match found.iter().collect::<Vec<_>>() {
                none if none.is_empty() => Err(LookupError::NoSuchName),
                found => Ok(found),
            },
            Ok(Err(error)) if error.is_no_records_found() => Err(LookupError::NoSuchName),
            Ok(Err(error)) => Err(LookupError::Failed(error.to_string())),
            Err(_) => Err(LookupError::TimedOut),
        }
    }
}

fn resolver(files: &NameFiles) -> Result<TokioResolver, String> {
    let (config, mut options) = match parse_resolv_conf(&files.resolv_conf) {
        Ok(parsed) => parsed,
        // It is an error for there to be no name server, though the other file may have the name.
        Err(_) if !names_a_server(&files.resolv_conf) => {
            (ResolverConfig::from_parts(None, Vec::new(), Vec::new()), ResolverOpts::default())
        }
        Err(error) => return Err(format!("resolv.conf cannot be used: {error}")),
    };
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Never;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build().map_err(|error| error.to_string())
}

/// Addresses by names, in lower case (hosts(5)).
fn known(hosts: &[u8]) -> HashMap<String, Vec<IpAddr>> {
    let mut known: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for line in String::from_utf8_lossy(hosts).lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse) else { continue };
        for name in words {
            known.entry(name.to_ascii_lowercase()).or_default().push(address);
        }
    }
    known
}

fn names_a_server(resolv_conf: &[u8]) -> bool {
    resolv_conf.split(|byte| *byte == b'\n').any(|line| line.trim_ascii_start().starts_with(b"nameserver"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_the_files_alone() {
        let hosts =
            b"# known\n198.51.100.9 caf\xe9\n203.0.113.7 db.example db # the database\n2001:db8::7 DB\n".to_vec();
        let names = Names::new(NameFiles { resolv_conf: Vec::new(), hosts });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let found = |name| runtime.block_on(names.look_up(name));
        assert_eq!(found("db.example"), Ok(vec!["203.0.113.7".parse().unwrap()]));
        assert_eq!(found("db").map(|all| all.len()), Ok(2));
        // Nobody is asked for its address of the other kind.
        let servers = b"nameserver 192.0.2.1\n".to_vec();
        let one = Names::new(NameFiles { resolv_conf: servers, hosts: b"203.0.113.7 one\n".to_vec() });
        assert_eq!(runtime.block_on(one.look_up("one")), Ok(vec![[203, 0, 113, 7].into()]));
        assert_eq!(found("localhost").map(|all| all.len()), Ok(2));
        assert!(found("other.example").is_err());
        let resolv_conf = b"search not..a.domain\nnameserver 127.0.0.1\n".to_vec();
        let names = Names::new(NameFiles { resolv_conf, hosts: Vec::new() });
        let refused = runtime.block_on(names.look_up("other.example"));
        assert!(matches!(&refused, Err(LookupError::Failed(detail)) if detail.contains("resolv.conf")), "{refused:?}");
    }
}
