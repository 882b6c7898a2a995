//! Commands on networks.

use super::filter::parse_pair;
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum NetworkCommand {
    /// Put a container on a network
    Connect(NetworkConnectArgs),
    /// Make a network
    Create(NetworkCreateArgs),
    /// Take a container off a network
    Disconnect(NetworkDisconnectArgs),
    /// Show all that is known about networks
    Inspect(NetworkInspectArgs),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(NetworkLsArgs),
    /// Remove networks that no container uses
    Prune(NetworkPruneArgs),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(NetworkRmArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NetworkConnectArgs {
    /// Another name on this network
    #[arg(long, value_name = "name")]
    pub(crate) alias: Vec<String>,
    /// IPv4 address
    #[arg(long, value_name = "ip")]
    pub(crate) ip: Option<String>,
    /// IPv6 address
    #[arg(long, value_name = "ip")]
    pub(crate) ip6: Option<String>,
    /// Name or id
    #[arg(value_name = "NETWORK")]
    pub(crate) network: String,
    /// Container
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct NetworkDisconnectArgs {
    /// Docker's, for what is left of a container that is gone: here nothing is
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Name or id
    #[arg(value_name = "NETWORK")]
    pub(crate) network: String,
    /// Container
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct NetworkCreateArgs {
    /// Kind of network; there is one
    #[arg(short, long, value_name = "string", default_value = "bridge")]
    pub(crate) driver: String,
    /// Address of the bridge
    #[arg(long, value_name = "ip")]
    pub(crate) gateway: Vec<String>,
    /// Reach nothing outside of the network, and be reached by nothing
    #[arg(long)]
    pub(crate) internal: bool,
    /// Take containers' addresses from this part of the subnet
    #[arg(long, value_name = "subnet")]
    pub(crate) ip_range: Vec<String>,
    /// Have IPv6 addresses, too
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// Set a label
    #[arg(long, value_name = "label")]
    pub(crate) label: Vec<String>,
    /// Set an option, such as com.docker.network.driver.mtu=1400
    #[arg(short, long, value_name = "option")]
    pub(crate) opt: Vec<String>,
    /// Addresses of the network, such as 10.1.2.0/24
    #[arg(long, value_name = "subnet")]
    pub(crate) subnet: Vec<String>,
    /// Its name
    #[arg(value_name = "NETWORK")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct NetworkInspectArgs {
    // There are no other machines of which more could be told.
    #[arg(short, long, hide = true)]
    pub(crate) verbose: bool,
    /// `json`, or a template such as '{{.IPAM.Config}}'
    #[arg(short, long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Names or ids
    #[arg(value_name = "NETWORK", required = true)]
    pub(crate) networks: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct NetworkLsArgs {
    /// Show only those for which this holds: name=, id=, driver=, scope=, type=, label=, dangling=
    #[arg(short, long, value_name = "filter")]
    pub(crate) filter: Vec<String>,
    /// `json`, or a template such as 'table {{.Name}}\t{{.Driver}}'
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Show whole ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct NetworkPruneArgs {
    /// Remove only those for which this holds: label=, label!=, until=
    #[arg(long, value_name = "filter", value_parser = parse_pair)]
    pub(crate) filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct NetworkRmArgs {
    /// Say nothing of networks that do not exist
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Names or ids
    #[arg(value_name = "NETWORK", required = true)]
    pub(crate) networks: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PortArgs {
    /// Container
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
    /// A port of the container, such as 80 or 53/udp
    #[arg(value_name = "PORT[/PROTOCOL]")]
    pub(crate) port: Option<String>,
}
