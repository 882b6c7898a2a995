//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` as a container finds them.

use std::{fmt::Write, net::IpAddr, path::Path};

use super::{Attached, resolver};
use crate::spec::RunSpec;

/// Name servers of anybody's, where the machine has none that a container could reach (as with Docker).
const PUBLIC_SERVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// Where systemd-resolved keeps the servers that it asks itself.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// `/etc/hosts`.
pub(crate) fn hosts(spec: &RunSpec, attached: Option<&Attached>) -> String {
    let leases: Vec<_> = attached.into_iter().flat_map(Attached::leases).collect();
    // Who is on no network is still to find itself.
    let own = if leases.is_empty() { format!(" {}", own_names(spec)) } else { String::new() };
    let mut text = format!("127.0.0.1\tlocalhost{own}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    text.push_str("fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n");
    let gateway = attached.and_then(Attached::gateway);
    for (host, ip) in &spec.names.hosts {
        // Without a network of its own a container reaches the machine by its loopback, if at all.
        let ip = ip.or(gateway).unwrap_or_else(|| IpAddr::from([127, 0, 0, 1]));
        let _ = writeln!(text, "{ip}\t{host}");
    }
    leases.iter().flat_map(|(_, lease)| lease.addresses()).for_each(|ip| text.push_str(&own_line(spec, ip)));
    text
}

/// A container's own names.
fn own_names(spec: &RunSpec) -> String {
    match spec.domainname.as_str() {
        "" => spec.hostname.clone(),
        domain => format!("{0}.{domain} {0}", spec.hostname),
    }
}

/// The line of `/etc/hosts` for one of a container's own addresses.
pub(super) fn own_line(spec: &RunSpec, ip: IpAddr) -> String {
    format!("{ip}\t{}\n", own_names(spec))
}

/// `/etc/resolv.conf`: what was typed, and what is left out as the machine has it.
pub(crate) fn resolv_conf(spec: &RunSpec, attached: Option<&Attached>) -> String {
    let ours = attached.is_some_and(Attached::has_names);
    let machine = machine_resolv_conf();
    let of = |word: &'static str| {
        machine.lines().filter_map(move |line| line.strip_prefix(word)).map(|rest| rest.trim().to_owned())
    };
    let servers: Vec<String> = match spec.names.servers.as_slice() {
        _ if ours => vec![resolver::ADDRESS.to_string()],
        [] => machine_servers(&machine).iter().map(ToString::to_string).collect(),
        servers => servers.iter().map(ToString::to_string).collect(),
    };
    let servers = if servers.is_empty() { PUBLIC_SERVERS.map(str::to_owned).to_vec() } else { servers };
    let search: Vec<String> = match spec.names.search.as_slice() {
        [] => of("search ").take(1).collect(),
        none if none == ["."] => Vec::new(),
        search => vec![search.join(" ")],
    };
    let options: Vec<String> = match spec.names.options.as_slice() {
        // What has no dot is most likely a container.
        [] if ours => vec!["ndots:0".to_owned()],
        [] => of("options ").collect(),
        options => vec![options.join(" ")],
    };
    let line = |word: &str, values: Vec<String>| {
        values.into_iter().map(move |value| format!("{word} {value}\n")).collect::<String>()
    };
    line("nameserver", servers) + &line("search", search) + &line("options", options)
}

fn machine_resolv_conf() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let usual = read("/etc/resolv.conf");
    match machine_servers(&usual).is_empty() && Path::new(RESOLVED).exists() {
        true => read(RESOLVED),
        false => usual,
    }
}

/// Whether the machine asks nobody that somebody else could ask, but somebody at its own loopback.
pub(super) fn only_machine_has_servers() -> bool {
    machine_servers(&machine_resolv_conf()).is_empty() && !all_machine_servers().is_empty()
}

/// All that the machine asks, by itself.
pub(super) fn all_machine_servers() -> Vec<IpAddr> {
    servers(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()).collect()
}

/// Servers that can be reached from elsewhere than the machine itself.
fn machine_servers(text: &str) -> Vec<IpAddr> {
    servers(text).filter(|ip| !ip.is_loopback()).collect()
}

fn servers(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(|line| line.strip_prefix("nameserver")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_no_server_for_others() {
        let text = "# made by\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver ::1\nnameserver fe80::1%eth0\nnameserver 2001:db8::1\n";
        let found: Vec<String> = machine_servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.1", "2001:db8::1"]);
    }
}
