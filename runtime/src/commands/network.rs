//! `network` and `port`.

use std::{collections::BTreeMap, str::FromStr};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::{confirmed, each, filters::PruneFilters, find, inspect, print};
use crate::{
    cli::{
        Filters, NetworkCommand, NetworkConnectArgs, NetworkCreateArgs, NetworkDisconnectArgs, NetworkInspectArgs,
        NetworkLsArgs, NetworkPruneArgs, NetworkRmArgs, PortArgs,
    },
    lifecycle,
    network::{BUILT_IN, Definition, Lease, Wanted},
    output::{self, Column},
    records::{
        container::{Container, Status},
        events::Event,
        host::Host,
    },
    spec::{
        Network,
        names::short_id,
        network::{self, DEFAULT_NETWORK, Endpoint},
        ports::{self, HostPort, Protocol, PublishedPort},
    },
};

const COLUMNS: [Column; 4] = [
    Column { header: "NETWORK ID", field: "ID" },
    Column { header: "NAME", field: "Name" },
    Column { header: "DRIVER", field: "Driver" },
    Column { header: "SCOPE", field: "Scope" },
];

/// What a template may name besides.
const MORE_COLUMNS: [Column; 4] = [
    Column { header: "IPV6", field: "IPv6" },
    Column { header: "INTERNAL", field: "Internal" },
    Column { header: "LABELS", field: "Labels" },
    Column { header: "CREATED AT", field: "CreatedAt" },
];

/// `amphora network`.
pub(crate) fn network(host: &Host, command: &NetworkCommand) -> Result<u8> {
    match command {
        NetworkCommand::Connect(args) => connect(host, args),
        NetworkCommand::Create(args) => create(host, args),
        NetworkCommand::Disconnect(args) => disconnect(host, args),
        NetworkCommand::Inspect(args) => inspect_networks(host, args),
        NetworkCommand::Ls(args) => ls(host, args),
        NetworkCommand::Prune(args) => prune(host, args),
        NetworkCommand::Rm(args) => rm(host, args),
    }
}

fn connect(host: &Host, args: &NetworkConnectArgs) -> Result<u8> {
    let container = find(host, &args.container)?;
    let network = match args.network.as_str() {
        built_in if BUILT_IN.contains(&built_in) => {
            bail!(
                "container {} cannot be connected to network {built_in}, which is none to be on with others",
                args.container
            )
        }
        DEFAULT_NETWORK => host.networks.get(DEFAULT_NETWORK)?,
        name => found(host, name)?,
    };
    let endpoint = Endpoint {
        network: network.name.clone(),
        ipv4: args.ip.as_deref().map(|text| address("--ip", text)).transpose()?,
        ipv6: args.ip6.as_deref().map(|text| address("--ip6", text)).transpose()?,
        mac: None,
        aliases: names(&args.alias)?,
    };
    lifecycle::networks::connect(host, &container, &network, endpoint)?;
    of_container(host, "connect", &container, &network.id, &network.name);
    Ok(0)
}

fn address<T: FromStr>(flag: &str, text: &str) -> Result<T> {
    text.parse().map_err(|_| anyhow::anyhow!("invalid value `{text}` for {flag}: it is no such address"))
}

fn names(aliases: &[String]) -> Result<Vec<String>> {
    aliases.iter().map(|alias| network::host_name("--alias", alias).map_err(anyhow::Error::msg)).collect()
}

fn disconnect(host: &Host, args: &NetworkDisconnectArgs) -> Result<u8> {
    let container = find(host, &args.container)?;
    // One that is gone, or cannot be read, is left all the same.
    let (id, network) = match host.networks.find(&args.network) {
        Ok(Some(network)) => (network.id, network.name),
        Ok(None) | Err(_) => (args.network.clone(), args.network.clone()),
    };
    lifecycle::networks::disconnect(host, &container, &network)?;
    of_container(host, "disconnect", &container, &id, &network);
    Ok(0)
}

fn create(host: &Host, args: &NetworkCreateArgs) -> Result<u8> {
    if args.driver != "bridge" {
        bail!("--driver {}: not supported; the driver is `bridge`", args.driver);
    }
    let made = host.networks.create(Wanted {
        name: args.name.clone(),
        subnets: parsed("--subnet", &args.subnet)?,
        gateways: parsed("--gateway", &args.gateway)?,
        ranges: parsed("--ip-range", &args.ip_range)?,
        internal: args.internal,
        ipv6: args.ipv6,
        labels: pairs("--label", &args.label)?,
        options: pairs("--opt", &args.opt)?,
    })?;
    happened(host, "create", &made);
    output::say(&made.id)?;
    Ok(0)
}

fn parsed<T: FromStr>(flag: &str, texts: &[String]) -> Result<Vec<T>>
where
    T::Err: std::fmt::Display,
{
    let one =
        |text: &String| text.parse().map_err(|error| anyhow::anyhow!("invalid value `{text}` for {flag}: {error}"));
    texts.iter().map(one).collect()
}

fn pairs(flag: &str, texts: &[String]) -> Result<BTreeMap<String, String>> {
    let pair = |text: &String| match text.split_once('=').unwrap_or((text, "")) {
        ("", _) => bail!("{flag} {text}: expected NAME=VALUE"),
        (name, value) => Ok((name.to_owned(), value.to_owned())),
    };
    texts.iter().map(pair).collect()
}

fn inspect_networks(host: &Host, args: &NetworkInspectArgs) -> Result<u8> {
    inspect::show(&args.networks, args.format.as_deref(), |name| match name {
        built_in if BUILT_IN.contains(&built_in) => Ok(json!({
            "Name": built_in, "Id": built_in_id(built_in), "Scope": "local", "Driver": driver_of(built_in),
            "EnableIPv6": false, "IPAM": { "Driver": "default", "Options": null, "Config": [] }, "Internal": false,
            "Containers": {}, "Options": {}, "Labels": {},
        })),
        DEFAULT_NETWORK => details(host, &host.networks.get(DEFAULT_NETWORK)?),
        name => details(host, &found(host, name)?),
    })
}

fn found(host: &Host, name: &str) -> Result<Definition> {
    host.networks.find(name)?.with_context(|| format!("network {name} not found (amphora network ls lists them)"))
}

fn details(host: &Host, network: &Definition) -> Result<Value> {
    let pool = |pool: &crate::network::Pool| {
        let mut config = json!({ "Subnet": pool.subnet.to_string(), "Gateway": pool.gateway });
        if let Some(range) = pool.range {
            config["IPRange"] = json!(range.to_string());
        }
        config
    };
    let containers: Map<String, Value> = host
        .networks
        .leases(network)?
        .into_iter()
        .map(|lease| (lease.container.clone(), member(network, &lease)))
        .collect();
    Ok(json!({
        "Name": network.name,
        "Id": network.id,
        "Created": output::rfc3339(network.created_unix_nanos),
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv4": network.ipv4.is_some(),
        "EnableIPv6": network.ipv6.is_some(),
        "IPAM": { "Driver": "default", "Options": {}, "Config": network.pools().map(pool).collect::<Vec<_>>() },
        "Internal": network.internal,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": containers,
        "Options": network.options,
        "Labels": network.labels,
    }))
}

fn member(network: &Definition, lease: &Lease) -> Value {
    let with_prefix = |ip: Option<std::net::IpAddr>, pool: &Option<crate::network::Pool>| {
        ip.zip(pool.as_ref()).map(|(ip, pool)| format!("{ip}/{}", pool.subnet.prefix())).unwrap_or_default()
    };
    json!({
        "Name": lease.name,
        "EndpointID": endpoint_id(network, lease),
        "MacAddress": lease.mac,
        "IPv4Address": with_prefix(lease.ipv4, &network.ipv4),
        "IPv6Address": with_prefix(lease.ipv6, &network.ipv6),
    })
}

/// Halves of the two ids that it connects.
fn endpoint_id(network: &Definition, lease: &Lease) -> String {
    format!("{}{}", network.id.get(..32).unwrap_or_default(), lease.container.get(..32).unwrap_or_default())
}

fn ls(host: &Host, args: &NetworkLsArgs) -> Result<u8> {
    let filters = Filters::parse(&args.filter, &["name", "id", "driver", "scope", "type", "label", "dangling"])?;
    let (mut networks, unreadable) = host.networks.readable()?;
    unreadable.iter().for_each(output::complain);
    let mut rows = Vec::new();
    if !networks.iter().any(|network| network.name == DEFAULT_NETWORK) {
        match host.networks.get(DEFAULT_NETWORK) {
            Ok(network) => networks.insert(0, network),
            // It is made of what no other network has, and one of those cannot be read.
            Err(_) if !unreadable.is_empty() => {}
            Err(error) => return Err(error),
        }
    }
    for network in &networks {
        let used = !host.networks.leases(network)?.is_empty();
        let row = row(&network.name, &network.id, "bridge", Some(network), args.no_trunc);
        rows.extend(matches(&filters, &row, &network.id, Some(network), used).then_some(row));
    }
    for name in BUILT_IN {
        let id = built_in_id(name);
        let row = row(name, &id, driver_of(name), None, args.no_trunc);
        rows.extend(matches(&filters, &row, &id, None, true).then_some(row));
    }
    rows.sort_by(|a, b| a["Name"].as_str().cmp(&b["Name"].as_str()));
    let format = if args.quiet { Some("{{.ID}}") } else { args.format.as_deref() };
    let headers = [COLUMNS.as_slice(), &MORE_COLUMNS].concat();
    let rows: Vec<output::Row> = rows.into_iter().map(output::Row::from).collect();
    print(&output::list(format, &COLUMNS, &headers, &rows)?)
}

fn row(name: &str, id: &str, driver: &str, network: Option<&Definition>, no_trunc: bool) -> Value {
    let labels = network.into_iter().flat_map(|network| &network.labels).map(|(name, value)| format!("{name}={value}"));
    json!({
        "ID": if no_trunc { id } else { short_id(id) },
        "Name": name,
        "Driver": driver,
        "Scope": "local",
        "IPv6": network.is_some_and(|network| network.ipv6.is_some()).to_string(),
        "Internal": network.is_some_and(|network| network.internal).to_string(),
        "Labels": labels.collect::<Vec<_>>().join(","),
        "CreatedAt": network.map_or_else(String::new, |network| output::civil_utc(network.created_unix_nanos)),
    })
}

fn matches(filters: &Filters, row: &Value, id: &str, network: Option<&Definition>, used: bool) -> bool {
    let name = row["Name"].as_str().unwrap_or_default();
    let built_in = network.is_none_or(|network| network.name == DEFAULT_NETWORK);
    filters.any("name", |part| name.contains(part))
        && filters.any("id", |part| id.starts_with(part))
        && filters.any("driver", |driver| row["Driver"] == driver)
        && filters.any("scope", |scope| scope == "local")
        && filters.any("type", |kind| kind == if built_in { "builtin" } else { "custom" })
        && filters.any("dangling", |wanted| (wanted == "true" || wanted == "1") != (used || built_in))
        && filters.labels(|label| network?.labels.get(label).cloned())
}

/// Docker has a random id for these; here it is their name, spelt in digits.
fn built_in_id(name: &str) -> String {
    let digits: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{digits:0<64}")
}

fn driver_of(built_in: &str) -> &str {
    if built_in == "host" { "host" } else { "null" }
}

fn prune(host: &Host, args: &NetworkPruneArgs) -> Result<u8> {
    if !args.force && !confirmed("all networks of your own that no container is on", "network prune -f")? {
        return Ok(1);
    }
    match remove_unused(host, &PruneFilters::parse(&args.filter)?)? {
        true => output::say("").map(|()| 0),
        false => Ok(0),
    }
}

/// Those that no container is on; whether there were any.
pub(super) fn remove_unused(host: &Host, filters: &PruneFilters) -> Result<bool> {
    let used = used_by(host)?;
    let mut heading = Some("Deleted Networks:");
    let (networks, unreadable) = host.networks.readable()?;
    unreadable.iter().for_each(output::complain);
    for network in networks {
        let is_used = network.name == DEFAULT_NETWORK || used.contains_key(&network.name);
        let is_meant = filters.hold(Some(network.created_unix_nanos), |name| network.labels.get(name).cloned());
        if is_meant && !is_used && host.networks.leases(&network)?.is_empty() {
            host.networks.remove(&network)?;
            happened(host, "destroy", &network);
            heading.take().map_or(Ok(()), output::say)?;
            output::say(&network.name)?;
        }
    }
    Ok(heading.is_none())
}

/// The networks that containers are to be on, each with one of them.
fn used_by(host: &Host) -> Result<BTreeMap<String, String>> {
    let (containers, _) = host.containers.list()?;
    let of = |container: &Container| {
        let name = container.spec.name.clone();
        let endpoints = container.spec.network.endpoints().iter();
        endpoints.map(move |endpoint| (endpoint.network.clone(), name.clone())).collect::<Vec<_>>()
    };
    Ok(containers.iter().flat_map(of).collect())
}

fn rm(host: &Host, args: &NetworkRmArgs) -> Result<u8> {
    each(&args.networks, |name| {
        if BUILT_IN.contains(&name) {
            bail!("{name} is a pre-defined network and cannot be removed");
        }
        match host.networks.find(name) {
            Ok(Some(network)) => {
                host.networks.remove(&network)?;
                happened(host, "destroy", &network);
            }
            Ok(None) if args.force => return Ok(()),
            Ok(None) => bail!("network {name} not found (amphora network ls lists them)"),
            Err(error) => {
                if !host.networks.remove_unreadable(name)? {
                    return Err(error);
                }
            }
        }
        output::say(name)
    })
}

/// Tells that a container is on a network from now on, or no more.
fn of_container(host: &Host, action: &str, container: &Container, id: &str, name: &str) {
    host.events.note(&[Event::of_network(id, name, action).with("container", &container.spec.id)]);
}

fn happened(host: &Host, action: &str, network: &Definition) {
    host.events.note(&[Event::of_network(&network.id, &network.name, action)]);
}

/// `amphora port`.
pub(crate) fn port(host: &Host, args: &PortArgs) -> Result<u8> {
    let container = find(host, &args.container)?;
    let wanted = args.port.as_deref().map(parse_port).transpose()?;
    let (mut found, unreadable) = host.networks.of_containers()?;
    unreadable.iter().for_each(output::complain);
    let found = found.remove(&container.spec.id).unwrap_or_default();
    let all = published(Some(&container.status()?), &found);
    let lines = all.iter().filter(|one| wanted.is_none_or(|wanted| wanted == (one.port, one.protocol)));
    let lines: Vec<String> = lines
        .map(|one| match wanted {
            Some(_) => one.place(),
            None => format!("{} -> {}", one.name(), one.place()),
        })
        .collect();
    if let (Some(port), true) = (&args.port, lines.is_empty()) {
        bail!("no public port '{port}' published for {}", args.container);
    }
    lines.iter().try_for_each(|line| output::say(line))?;
    Ok(0)
}

fn parse_port(text: &str) -> Result<(u16, Protocol)> {
    let invalid = || format!("invalid value `{text}` for PORT: expected a port such as 80 or 53/udp");
    let parsed = ports::parse_publish(text).with_context(invalid)?;
    match parsed.as_slice() {
        [one] if !text.contains([':', '=']) => Ok((one.container_port, one.protocol)),
        _ => bail!(invalid()),
    }
}

/// What `inspect` shows of a container's networks, and `ps` of its ports.
pub(super) struct Shown {
    /// `NetworkSettings`.
    pub(super) settings: Value,
    /// `0.0.0.0:8080->80/tcp`, with commas between.
    pub(super) ports: String,
}

/// A place of the machine that leads to a port of a container.
struct Published {
    ip: String,
    number: u16,
    port: u16,
    protocol: Protocol,
}

impl Published {
    /// `80/tcp`.
    fn name(&self) -> String {
        format!("{}/{}", self.port, self.protocol)
    }

    /// `0.0.0.0:8080`, `[::]:8080`.
    fn place(&self) -> String {
        if self.ip.contains(':') {
            format!("[{}]:{}", self.ip, self.number)
        } else {
            format!("{}:{}", self.ip, self.number)
        }
    }
}

/// By its networks, and by the sockets that the program was given.
fn published(status: Option<&Status>, found: &[(Definition, Lease)]) -> Vec<Published> {
    let mut all = Vec::new();
    for (network, lease) in found {
        for of in &lease.ports {
            let (port, protocol) = (of.container_port, of.protocol);
            let places = of.places(network.ipv6.is_some());
            all.extend(places.into_iter().map(|(ip, number)| Published { ip, number, port, protocol }));
        }
    }
    let sockets = if let Some(Status::Running(running)) = status { running.ports.as_slice() } else { &[] };
    all.extend(sockets.iter().filter_map(|of| match (of.host_ip, of.host_port) {
        (Some(ip), HostPort::Fixed(number)) => {
            Some(Published { ip: ip.to_string(), number, port: of.container_port, protocol: of.protocol })
        }
        _ => None,
    }));
    all
}

/// Of a container that does not run only what it is to be. `found`: what it has of networks.
pub(super) fn shown(container: &Container, status: Option<&Status>, found: &[(Definition, Lease)]) -> Shown {
    let spec = &container.spec;
    let (mut networks, mut list) = (Map::new(), Vec::new());
    let mut bindings = BTreeMap::<String, Vec<Value>>::new();
    for endpoint in spec.network.endpoints() {
        let at = found.iter().find(|(network, _)| network.name == endpoint.network);
        networks.insert(endpoint.network.clone(), endpoint_details(at, endpoint, container));
    }
    if matches!(spec.network, Network::None | Network::Host) {
        networks.insert(spec.network.mode(), endpoint_details(None, &Endpoint::default(), container));
    }
    for one in published(status, found) {
        list.push(format!("{}->{}", one.place(), one.name()));
        let place = json!({ "HostIp": one.ip, "HostPort": one.number.to_string() });
        bindings.entry(one.name()).or_default().push(place);
    }
    // Docker's older fields are about the default network.
    let default = found.iter().find(|(network, _)| network.name == DEFAULT_NETWORK);
    let default = endpoint_details(default, &Endpoint::default(), container);
    let of_default = |field: &str| default[field].clone();
    Shown {
        ports: list.join(", "),
        settings: json!({
            "Bridge": "",
            "SandboxID": "",
            "SandboxKey": "",
            "Ports": bindings,
            "EndpointID": of_default("EndpointID"),
            "IPAddress": of_default("IPAddress"),
            "IPPrefixLen": of_default("IPPrefixLen"),
            "Gateway": of_default("Gateway"),
            "GlobalIPv6Address": of_default("GlobalIPv6Address"),
            "GlobalIPv6PrefixLen": of_default("GlobalIPv6PrefixLen"),
            "IPv6Gateway": of_default("IPv6Gateway"),
            "MacAddress": of_default("MacAddress"),
            "Networks": networks,
        }),
    }
}

/// `HostConfig.PortBindings`: the ports as they were asked for.
pub(super) fn port_bindings(ports: &[PublishedPort]) -> Value {
    let mut bindings = BTreeMap::<String, Vec<Value>>::new();
    for port in ports {
        let number = match port.host_port {
            HostPort::Any => String::new(),
            HostPort::Fixed(number) => number.to_string(),
            HostPort::OneOf(first, last) => format!("{first}-{last}"),
        };
        let ip = port.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
        let name = format!("{}/{}", port.container_port, port.protocol);
        bindings.entry(name).or_default().push(json!({ "HostIp": ip, "HostPort": number }));
    }
    json!(bindings)
}

/// `IPAMConfig`: the addresses that were asked for.
fn wanted_addresses(endpoint: &Endpoint) -> Value {
    let ipv4 = endpoint.ipv4.map(|ip| ("IPv4Address".to_owned(), json!(ip)));
    let wanted: Map<String, Value> =
        ipv4.into_iter().chain(endpoint.ipv6.map(|ip| ("IPv6Address".to_owned(), json!(ip)))).collect();
    if wanted.is_empty() { Value::Null } else { wanted.into() }
}

fn endpoint_details(at: Option<&(Definition, Lease)>, endpoint: &Endpoint, container: &Container) -> Value {
    let pool = |v4: bool| at.and_then(|(network, _)| if v4 { network.ipv4.as_ref() } else { network.ipv6.as_ref() });
    let text = |ip: Option<std::net::IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
    let lease = at.map(|(_, lease)| lease);
    let prefix = |v4| match (pool(v4), lease) {
        (Some(pool), Some(_)) => pool.subnet.prefix(),
        _ => 0,
    };
    let (ipv4, ipv6) = (lease.and_then(|lease| lease.ipv4), lease.and_then(|lease| lease.ipv6));
    json!({
        "IPAMConfig": wanted_addresses(endpoint),
        "Links": null,
        "DriverOpts": null,
        "GwPriority": 0,
        "Aliases": if endpoint.aliases.is_empty() { Value::Null } else { json!(endpoint.aliases) },
        "MacAddress": lease.map(|lease| lease.mac.to_string()).unwrap_or_default(),
        "NetworkID": at.map_or("", |(network, _)| network.id.as_str()),
        "EndpointID": at.map(|(network, lease)| endpoint_id(network, lease)).unwrap_or_default(),
        "Gateway": text(ipv4.and(pool(true)).map(|pool| pool.gateway)),
        "IPAddress": text(ipv4),
        "IPPrefixLen": prefix(true),
        "IPv6Gateway": text(ipv6.and(pool(false)).map(|pool| pool.gateway)),
        "GlobalIPv6Address": text(ipv6),
        "GlobalIPv6PrefixLen": prefix(false),
        "DNSNames": [container.spec.name, short_id(&container.spec.id)],
    })
}
