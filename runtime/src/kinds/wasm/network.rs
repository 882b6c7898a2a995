//! Where a Wasm program may connect to, and what its process may for that.
//!
//! Connections are made by the process itself. Without a network it can make no socket; with destinations alone it is in the host's
//! network namespace, behind a filter that knows sockets of the internet and none that listens, and the engine judges each address. On a
//! network it is in the namespace that was made for it there.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::BorrowedFd,
    path::Path,
};

use anyhow::{Context, Result, bail};
use linux_exec::{confinement::Namespace, seccomp::Sockets};
use wasm_exec::{Destinations, NameFiles, NetworkSetting};

use super::{is_published, is_served};
use crate::{
    network::{Attached, files},
    spec::{Network, RunSpec, ports::Listening},
};

/// Where distributions keep the certificates of the authorities that they trust: Debian, Fedora, openSUSE, Alpine.
const AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Those files have a quarter of a megabyte.
const MOST_BYTES: u64 = 8 << 20;

/// Memory for connections, and for what is known of names and authorities.
const ALLOWANCE_BYTES: u64 = 64 << 20;

/// Refuses what cannot be granted.
pub(super) fn check(spec: &RunSpec) -> Result<()> {
    destinations(spec)?;
    if !spec.wasm.ca_files.is_empty() && !has_network(spec) {
        bail!("--cacert: the program may connect to nobody; --allow-net HOST:PORT says to whom");
    }
    Ok(())
}

/// Which sockets its process may make.
pub(super) fn sockets(spec: &RunSpec) -> Sockets {
    match spec.network {
        // It can make none, whatever it was granted.
        _ if is_published(spec) && spec.listening == Listening::Given => Sockets::Accepted,
        _ if !spec.wasm.allow_net.is_empty() => Sockets::Outbound,
        Network::Host | Network::Container(_) | Network::Joined(_) => Sockets::All,
        Network::None if is_served(spec) => Sockets::Accepted,
        Network::None => Sockets::None,
    }
}

/// Its network namespace: one that was made for it, or the host's; `own` if it needs none of anybody's.
pub(super) fn namespace<'a>(spec: &RunSpec, made: Option<BorrowedFd<'a>>, own: Namespace<'a>) -> Namespace<'a> {
    match made {
        Some(made) => Namespace::Join(made),
        None if has_network(spec) => Namespace::Host,
        None => own,
    }
}

/// Memory that its process may use for it.
pub(super) fn allowance_bytes(spec: &RunSpec) -> u64 {
    if has_network(spec) { ALLOWANCE_BYTES } else { 0 }
}

/// What the engine is told of it. Reads the host's files, as the process will see none of them. `denied` is told once of what was asked
/// for and not granted.
pub(super) fn granted(
    spec: &RunSpec,
    attached: Option<&Attached>,
    denied: impl Fn(&str) + Send + Sync + 'static,
) -> Result<wasm_exec::Network> {
    if !has_network(spec) {
        return Ok(wasm_exec::Network::none(denied));
    }
    let destinations = destinations(spec)?;
    let setting = NetworkSetting {
        listens: destinations.is_none(),
        destinations,
        names: name_files(spec, attached)?,
        authorities: authorities(spec)?,
    };
    Ok(wasm_exec::Network::new(setting, denied))
}

fn has_network(spec: &RunSpec) -> bool {
    !spec.wasm.allow_net.is_empty() || spec.network != Network::None
}

/// None if all are granted.
fn destinations(spec: &RunSpec) -> Result<Option<Destinations>> {
    match spec.wasm.allow_net.as_slice() {
        [] => Ok(None),
        list => Ok(Some(Destinations::parse(list).context("--allow-net")?)),
    }
}

/// For the log, where whoever wonders why it fails looks first.
pub(super) fn denied(what: &str) -> String {
    format!(
        "the program asked for {what}, and was refused: --allow-net HOST:PORT grants a destination (this machine and its link, \
         and what is private behind a pattern of names, by their addresses alone)"
    )
}

/// What a Linux program would find in `/etc` there.
fn name_files(spec: &RunSpec, attached: Option<&Attached>) -> Result<NameFiles> {
    match attached {
        None => Ok(NameFiles { resolv_conf: resolv_conf(spec)?, hosts: hosts(spec)? }),
        Some(_) => Ok(NameFiles {
            resolv_conf: files::resolv_conf(spec, attached).into_bytes(),
            hosts: files::hosts(spec, attached).into_bytes(),
        }),
    }
}

fn resolv_conf(spec: &RunSpec) -> Result<Vec<u8>> {
    let names = &spec.names;
    if names.servers.is_empty() && names.search.is_empty() && names.options.is_empty() {
        return read(Path::new("/etc/resolv.conf"));
    }
    Ok(files::resolv_conf(spec, None).into_bytes())
}

/// What was typed comes before what the machine says of the same names.
fn hosts(spec: &RunSpec) -> Result<Vec<u8>> {
    let machine = read(Path::new("/etc/hosts"))?;
    let added = &spec.names.hosts;
    if added.is_empty() {
        return Ok(machine);
    }
    let is_added = |word: &str| added.iter().any(|(name, _)| name.eq_ignore_ascii_case(word));
    let machine = String::from_utf8_lossy(&machine).into_owned();
    let others = machine.lines().filter(|line| !line.split_whitespace().skip(1).any(is_added)).map(str::to_owned);
    let typed = added.iter().map(|(name, ip)| {
        let ip = ip.unwrap_or_else(|| [127, 0, 0, 1].into());
        format!("{ip} {name}")
    });
    Ok(typed.chain(others).flat_map(|line| (line + "\n").into_bytes()).collect())
}

/// The machine's, and those that the user names.
fn authorities(spec: &RunSpec) -> Result<Vec<u8>> {
    let mut authorities = Vec::new();
    if let Some(path) = AUTHORITIES.iter().map(Path::new).find(|path| path.exists()) {
        authorities = read(path)?;
    }
    for path in &spec.wasm.ca_files {
        let file = File::open(path).with_context(|| format!("--cacert {}", path.display()))?;
        let certificates = take(file, path)?;
        if !certificates.windows(27).any(|text| text == b"-----BEGIN CERTIFICATE-----") {
            bail!("--cacert {}: it has no certificate in PEM (-----BEGIN CERTIFICATE-----)", path.display());
        }
        authorities.push(b'\n');
        authorities.extend(certificates);
    }
    Ok(authorities)
}

/// Nothing, if it is not there.
fn read(path: &Path) -> Result<Vec<u8>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        file => take(file.with_context(|| format!("cannot read {}", path.display()))?, path),
    }
}

fn take(file: File, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 > MOST_BYTES {
        bail!("{}: it has more than {MOST_BYTES} bytes, which is no such file", path.display());
    }
    Ok(bytes)
}
