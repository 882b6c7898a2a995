//! Who has which address: one file for each container on a network, by the names of its addresses.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use linux_exec::process::Process;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::{Definition, Locked, Networks, definition::Pool, entries, ports::BoundPort};
use crate::{
    records::container::read_json,
    spec::{
        FORMAT, RunSpec, first_format,
        network::{Endpoint, Mac},
    },
};

/// What one container has of one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// Of the file.
    #[serde(default = "first_format")]
    pub(crate) format: u32,
    /// The container's id.
    pub(crate) container: String,
    /// Its name.
    pub(crate) name: String,
    /// By which other names it is found.
    #[serde(default)]
    pub(crate) aliases: Vec<String>,
    /// The port of the bridge.
    pub(crate) device: String,
    pub(crate) mac: Mac,
    #[serde(default)]
    pub(crate) ipv4: Option<IpAddr>,
    #[serde(default)]
    pub(crate) ipv6: Option<IpAddr>,
    /// Ports that lead to it.
    #[serde(default)]
    pub(crate) ports: Vec<BoundPort>,
}

impl Lease {
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.into_iter().chain(self.ipv6)
    }
}

/// Each with whether somebody has it.
type Leases = Vec<(Lease, bool)>;

/// A lease that cannot be read.
pub(crate) struct Damaged {
    path: PathBuf,
    /// A container has it that runs.
    pub(crate) is_held: bool,
    /// Why.
    pub(crate) error: anyhow::Error,
}

/// A lease of a container that this process supervises.
pub(super) struct Held {
    pub(super) network: Definition,
    pub(super) lease: Lease,
    /// Of the container's devices, from 0.
    pub(super) number: usize,
    /// Its lock, by which others know that it is in use.
    _lock: File,
}

impl Networks {
    /// Gives a container addresses of a network; None if none is free. `number`: of its devices, from 0.
    pub(super) fn lease(
        &self,
        network: &Definition,
        spec: &RunSpec,
        endpoint: &Endpoint,
        number: usize,
        ports: &[BoundPort],
    ) -> Result<Option<Held>> {
        const TRIES: u32 = 1000;
        let folder = self.addresses(&network.name);
        for _ in 0..TRIES {
            let taken = entries(&folder)?;
            let Some(ipv4) = choose(network, network.ipv4.as_ref(), endpoint.ipv4.map(IpAddr::V4), None, &taken)?
            else {
                return Ok(None);
            };
            let wanted = endpoint.ipv6.map(IpAddr::V6);
            let Some(ipv6) = choose(network, network.ipv6.as_ref(), wanted, ipv4.zip(network.ipv4.as_ref()), &taken)?
            else {
                return Ok(None);
            };
            let Some(first) = ipv4.or(ipv6) else { bail!("network {} has no addresses", network.name) };
            let lease = Lease {
                format: FORMAT,
                container: spec.id.clone(),
                name: spec.name.clone(),
                aliases: endpoint.aliases.clone(),
                device: format!("amv{number:x}{}", spec.id.get(..11).unwrap_or_default()),
                mac: endpoint.mac.unwrap_or_else(|| network.mac_of(first)),
                ipv4,
                ipv6,
                ports: ports.to_vec(),
            };
            if let Some(lock) = write(&folder, &lease)? {
                return Ok(Some(Held { network: network.clone(), lease, number, _lock: lock }));
            }
        }
        bail!("network {}: others take every address that is free before this one does", network.name)
    }

    /// Writes down what has changed of a lease, but for its addresses. `_together`: nobody takes back meanwhile what has no lock.
    pub(super) fn rewrite(&self, held: &mut Held, lease: Lease, _together: &Locked) -> Result<()> {
        held._lock = replace(&self.addresses(&held.network.name), &lease)?;
        held.lease = lease;
        Ok(())
    }

    /// Whether a container could have such an address of a network.
    pub(crate) fn check_wanted(&self, network: &Definition, endpoint: &Endpoint) -> Result<()> {
        choose(network, network.ipv4.as_ref(), endpoint.ipv4.map(IpAddr::V4), None, &[])?;
        choose(network, network.ipv6.as_ref(), endpoint.ipv6.map(IpAddr::V6), None, &[]).map(drop)
    }

    /// Takes the addresses back. What the packet filter has of them must be gone.
    pub(super) fn give_back(&self, network: &str, lease: &Lease) -> Result<()> {
        for path in lease.addresses().map(|ip| self.addresses(network).join(ip.to_string())) {
            // Where its maker was killed between two addresses, the second may be another container's.
            if read_json::<Lease>(&path)?.is_none_or(|found| found.container == lease.container) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Takes back what a container has left that is removed, where its supervisor was killed. What cannot be taken back is no reason to
    /// keep the container: it is named by [`Self::check`].
    pub(crate) fn forget_container(&self, spec: &RunSpec) {
        // A process that was killed lets go of one file after the other.
        const TRIES: u32 = 50;
        const PAUSE: Duration = Duration::from_millis(10);
        for endpoint in spec.network.endpoints() {
            let Ok(Some(network)) = self.load(&endpoint.network) else { continue };
            for _ in 0..TRIES {
                let found = self.look(&network).unwrap_or_default().0;
                match found.iter().find(|(lease, _)| lease.container == spec.id) {
                    None => break,
                    Some((_, false)) => {
                        let _ = self.forget_ended(&network);
                        break;
                    }
                    Some((_, true)) => thread::sleep(PAUSE),
                }
            }
        }
    }

    /// Takes back what belongs to containers that have ended; how many.
    pub(crate) fn forget_ended(&self, network: &Definition) -> Result<usize> {
        let alone = self.lock(FlockOperation::LockExclusive)?;
        let ended = self.ended_leases(network)?;
        self.abandoned_beginnings(network)?.iter().try_for_each(|path| remove(path))?;
        for lease in &ended {
            self.give_back(&network.name, lease)?;
        }
        // Whatever it said, nobody has it any more.
        let mut damaged = self.damaged_leases(network)?;
        damaged.retain(|one| !one.is_held);
        damaged.iter().try_for_each(|one| remove(&one.path))?;
        let forgotten = ended.len() + damaged.len();
        if forgotten != 0 {
            self.write_rules(&alone)?;
        }
        Ok(forgotten)
    }

    /// The leases of containers that run. `_alone`: nobody gives or takes any meanwhile.
    pub(super) fn leases_of(&self, network: &Definition, _alone: &Locked) -> Result<Vec<Lease>> {
        self.leases(network)
    }

    /// The leases of containers that run.
    pub(crate) fn leases(&self, network: &Definition) -> Result<Vec<Lease>> {
        Ok(self.look(network)?.0.into_iter().filter(|(_, held)| *held).map(|(lease, _)| lease).collect())
    }

    /// Those that containers left behind which have ended.
    pub(crate) fn ended_leases(&self, network: &Definition) -> Result<Vec<Lease>> {
        Ok(self.look(network)?.0.into_iter().filter(|(_, held)| !*held).map(|(lease, _)| lease).collect())
    }

    /// Those that cannot be read; of all other functions here they are no part.
    pub(crate) fn damaged_leases(&self, network: &Definition) -> Result<Vec<Damaged>> {
        Ok(self.look(network)?.1)
    }

    /// Whether a container has an address of a network, of which no more than the name may be known.
    pub(super) fn is_in_use(&self, network: &str) -> Result<bool> {
        let folder = self.addresses(network);
        for name in entries(&folder)? {
            if is_held(&folder.join(name))? == Some(true) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Files of addresses that were being written by processes that are gone.
    pub(super) fn abandoned_beginnings(&self, network: &Definition) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for path in beginnings(&self.addresses(&network.name))? {
            found.extend((is_held(&path)? == Some(false)).then_some(path));
        }
        Ok(found)
    }

    fn look(&self, network: &Definition) -> Result<(Leases, Vec<Damaged>)> {
        let folder = self.addresses(&network.name);
        let (mut found, mut damaged) = (Leases::new(), Vec::new());
        for name in entries(&folder)? {
            let path = folder.join(name);
            let Some(is_held) = is_held(&path)? else { continue };
            match read_json::<Lease>(&path) {
                Ok(Some(lease)) if found.iter().all(|(other, _)| other != &lease) => found.push((lease, is_held)),
                Ok(_) => {}
                Err(error) => damaged.push(Damaged { path, is_held, error }),
            }
        }
        found.sort_by_key(|(lease, _)| lease.addresses().next());
        Ok((found, damaged))
    }
}

/// An address that is free. The outer None: there is none; the inner: the network has none of this kind. `beside`: one that it
/// is to resemble.
fn choose(
    network: &Definition,
    pool: Option<&Pool>,
    wanted: Option<IpAddr>,
    beside: Option<(IpAddr, &Pool)>,
    taken: &[String],
) -> Result<Option<Option<IpAddr>>> {
    let Some(pool) = pool else {
        match wanted {
            Some(ip) => bail!("network {} has no subnet for the address {ip}", network.name),
            None => return Ok(Some(None)),
        }
    };
    let is_free = |ip: &IpAddr| *ip != pool.gateway && !taken.contains(&ip.to_string());
    if let Some(ip) = wanted {
        if !pool.subnet.is_usable(ip) {
            bail!("no configured subnet contains IP address {ip}: network {} has {}", network.name, pool.subnet);
        }
        if ip == pool.gateway {
            bail!("the address {ip} is the gateway of network {}", network.name);
        }
        return Ok(is_free(&ip).then_some(Some(ip)));
    }
    let alike = beside.and_then(|(ip, other)| pool.subnet.nth(other.subnet.index_of(ip)?));
    let alike = alike.filter(|ip| pool.range.is_none() && pool.subnet.is_usable(*ip) && is_free(ip));
    let mut range = pool.range.unwrap_or(pool.subnet).usable().filter(|ip| pool.subnet.is_usable(*ip));
    Ok(alike.or_else(|| range.find(is_free)).map(Some))
}

/// A file that is being written, locked, by a name that nobody else has.
fn begin(folder: &Path, lease: &Lease) -> Result<(PathBuf, std::io::Result<File>)> {
    let own = Process::own().context("cannot read our own start time")?;
    let temporary = folder.join(format!(".{}-{}-{}", own.pid, own.start_ticks, lease.device));
    let begun = || -> std::io::Result<File> {
        let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&temporary)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        file.write_all(&serde_json::to_vec(lease)?)?;
        Ok(file)
    };
    let begun = begun();
    Ok((temporary, begun))
}

/// Writes a lease under all its addresses, locked, in place of what is there.
fn replace(folder: &Path, lease: &Lease) -> Result<File> {
    let (temporary, begun) = begin(folder, lease)?;
    let again = temporary.with_extension("again");
    let replaced = begun.and_then(|file| {
        for ip in lease.addresses() {
            fs::hard_link(&temporary, &again)?;
            fs::rename(&again, folder.join(ip.to_string()))?;
        }
        Ok(file)
    });
    let _ = (fs::remove_file(&temporary), replaced.is_err().then(|| fs::remove_file(&again)));
    replaced.with_context(|| format!("cannot write {}", temporary.display()))
}

/// Writes a lease under all its addresses, locked; None if somebody has one of them.
fn write(folder: &Path, lease: &Lease) -> Result<Option<File>> {
    let (temporary, begun) = begin(folder, lease)?;
    let made = || -> std::io::Result<Option<File>> {
        let file = begun?;
        let mut linked: Vec<PathBuf> = Vec::new();
        for ip in lease.addresses() {
            let path = folder.join(ip.to_string());
            match fs::hard_link(&temporary, &path) {
                Ok(()) => linked.push(path),
                Err(error) => {
                    linked.iter().for_each(|path| _ = fs::remove_file(path));
                    return if error.kind() == ErrorKind::AlreadyExists { Ok(None) } else { Err(error) };
                }
            }
        }
        Ok(Some(file))
    };
    let made = made();
    let _ = fs::remove_file(&temporary);
    made.with_context(|| format!("cannot write {}", temporary.display()))
}

fn beginnings(folder: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let paths: Result<Vec<_>, _> = listed.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.with_context(|| format!("cannot list {}", folder.display()))?;
    paths.retain(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")));
    Ok(paths)
}

/// Whether somebody has locked a file; None if it is gone. Who asks at the same time does not count, as he asks for a shared lock.
fn is_held(path: &Path) -> Result<Option<bool>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("cannot open {}", path.display()))?,
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Some(false)),
        Err(Errno::WOULDBLOCK) => Ok(Some(true)),
        Err(errno) => Err(errno).with_context(|| format!("cannot look at the lock of {}", path.display())),
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
