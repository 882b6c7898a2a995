//! Networks of containers, without a daemon: bridges, addresses, rules and names.
//!
//! What keeps a network alive is the kernel's own state, and small files that any command can bring it back from:
//!
//! ```text
//! ROOT/networks/                      locked: shared by who adds or removes a container, alone by who changes networks or rules
//! ROOT/networks/NAME/network.json     what the network is to be
//! ROOT/networks/NAME/addresses/IP     who has this address, locked as long as it runs; one file, by each of its addresses
//! ```
//!
//! A container's namespace is made before it is, with one end of a pair of devices in it; the other end is a port of the
//! network's bridge. So the devices go with the namespace, however the container ends. The file of its addresses appears by
//! link(2), which fails where somebody has one of them; it is whole and locked by then, and names all that the packet filter
//! holds of the container. Whose lock is free has ended: whoever meets such a file takes back what it names.

mod addresses;
mod attach;
mod check;
mod definition;
mod dns;
pub(crate) mod files;
mod firewall;
mod frames;
mod holder;
mod pasta;
mod plug;
mod ports;
mod reconnect;
mod relay;
mod reserve;
mod resolver;
mod switch;
mod unbridged;

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use linux_exec::{network::Links, userns};
use rustix::fs::{FlockOperation, flock};

pub(crate) use addresses::Lease;
pub(crate) use attach::Attached;
pub(crate) use definition::{Definition, Pool, Wanted};
pub(crate) use pasta::become_pasta;
pub(crate) use switch::switch;

use crate::{
    records::{container::read_json, paths::Paths},
    spec::{names, network::DEFAULT_NETWORK},
};

/// Networks that are there without a record, and what Docker calls their driver.
pub(crate) const BUILT_IN: [&str; 2] = ["host", "none"];

/// The networks of one ROOT.
#[derive(Clone)]
pub(crate) struct Networks {
    folder: PathBuf,
    /// The name of our tables in the packet filter.
    table: String,
    /// What tells this ROOT from others; None: it is the usual one.
    number: Option<u64>,
}

/// What is still known of a network whose record is damaged.
#[derive(serde::Deserialize)]
struct Identity {
    id: String,
    bridge: String,
}

/// A lock of all networks, which ends when it is closed.
pub(crate) struct Locked(#[expect(dead_code, reason = "held for its lock")] OwnedFd);

/// Networks, and what a container has of each, by its id.
pub(crate) type Joined = BTreeMap<String, Vec<(Definition, Lease)>>;

impl Networks {
    /// Nothing is made before the first network is.
    pub(crate) fn new(paths: &Paths) -> Self {
        let number = number_of(&paths.root);
        Self { folder: paths.root.join("networks"), table: table_name(number), number }
    }

    /// Whether the machine has devices and rules of ours; without root it has none, and each container is connected by itself (see
    /// [`pasta`]).
    fn are_bridged(&self) -> bool {
        nix::unistd::geteuid().is_root() && !userns::is_inside()
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn addresses(&self, name: &str) -> PathBuf {
        self.dir(name).join("addresses")
    }

    /// The network of a name, which may be the beginning of its id where no network has that name.
    pub(crate) fn find(&self, wanted: &str) -> Result<Option<Definition>> {
        if names::validate("network name", wanted).is_ok()
            && let Some(found) = self.load(wanted)?
        {
            return Ok(Some(found));
        }
        // What is damaged has no id, and keeps nobody else from being found.
        let mut by_id =
            self.readable()?.0.into_iter().filter(|network| !wanted.is_empty() && network.id.starts_with(wanted));
        match (by_id.next(), by_id.next()) {
            (Some(_), Some(_)) => bail!("{wanted} matches more than one network id; give more digits, or a name"),
            (found, _) => Ok(found),
        }
    }

    fn load(&self, name: &str) -> Result<Option<Definition>> {
        read_json(&self.dir(name).join("network.json"))
    }

    /// All networks, by name.
    pub(crate) fn list(&self) -> Result<Vec<Definition>> {
        let mut found = Vec::new();
        for name in entries(&self.folder)? {
            found.extend(self.load(&name)?);
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Those that can be read, by name, and what is wrong with the others.
    pub(crate) fn readable(&self) -> Result<(Vec<Definition>, Vec<anyhow::Error>)> {
        let (mut found, mut unreadable) = (Vec::new(), Vec::new());
        for name in entries(&self.folder)? {
            match self.load(&name) {
                Ok(network) => found.extend(network),
                Err(error) => unreadable.push(error.context(format!("network {name}"))),
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((found, unreadable))
    }

    /// Makes a network.
    pub(crate) fn create(&self, wanted: Wanted) -> Result<Definition> {
        let _alone = self.lock(FlockOperation::LockExclusive)?;
        self.create_locked(wanted)
    }

    fn create_locked(&self, wanted: Wanted) -> Result<Definition> {
        if BUILT_IN.contains(&wanted.name.as_str()) || self.load(&wanted.name)?.is_some() {
            bail!("network with name {} already exists", wanted.name);
        }
        let others = self.list().with_context(|| {
            format!("network {} is to have addresses of its own, and those of another one cannot be read", wanted.name)
        })?;
        let network = Definition::decide(wanted, &others, &Links::open()?, self.number)?;
        let dir = self.dir(&network.name);
        make_folder(&self.addresses(&network.name))?;
        network.write(&dir.join("network.json"))?;
        Ok(network)
    }

    /// The network of a name; the default one is made when it is first asked for.
    pub(crate) fn get(&self, name: &str) -> Result<Definition> {
        if let Some(found) = self.find(name)? {
            return Ok(found);
        }
        if name != DEFAULT_NETWORK {
            bail!("network {name} not found (amphora network ls lists them, amphora network create {name} makes it)");
        }
        let _alone = self.lock(FlockOperation::LockExclusive)?;
        match self.load(name)? {
            Some(found) => Ok(found),
            None => self.create_locked(Wanted { name: name.to_owned(), ..Wanted::default() }),
        }
    }

    /// What containers that run have of networks, by their ids; and what could not be read.
    pub(crate) fn of_containers(&self) -> Result<(Joined, Vec<anyhow::Error>)> {
        let mut found = Joined::new();
        let (networks, mut unreadable) = self.readable()?;
        for network in networks {
            unreadable.extend(self.damaged_leases(&network)?.into_iter().map(|damaged| damaged.error));
            for lease in self.leases(&network)? {
                found.entry(lease.container.clone()).or_default().push((network.clone(), lease));
            }
        }
        Ok((found, unreadable))
    }

    /// Removes a network that no container is on, with its bridge and rules.
    pub(crate) fn remove(&self, network: &Definition) -> Result<()> {
        let alone = self.lock(FlockOperation::LockExclusive)?;
        if let Some(lease) = self.leases_of(network, &alone)?.first() {
            bail!(
                "network {} has active endpoints: container {} is on it; stop that first (amphora stop {})",
                network.name,
                lease.name,
                lease.name
            );
        }
        if self.damaged_leases(network)?.iter().any(|damaged| damaged.is_held) {
            bail!(
                "network {} has active endpoints: a container is on it whose record cannot be read (amphora system check names it)",
                network.name
            );
        }
        if network.name == DEFAULT_NETWORK {
            bail!("bridge is a pre-defined network and cannot be removed");
        }
        let links = Links::open()?;
        let has_bridge = links.find(&network.bridge)?.is_some_and(|link| network.is_its_bridge(&link));
        if has_bridge {
            links.delete(&network.bridge)?;
        }
        let dir = self.dir(&network.name);
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        match has_bridge && self.remove_network_rules(network)? {
            true => Ok(()),
            false => self.tidy_rules(&alone),
        }
    }

    /// Writes the rules anew without those of a network that is gone. Where another one cannot be read they stay, and lead nowhere.
    fn tidy_rules(&self, alone: &Locked) -> Result<()> {
        if self.readable()?.1.is_empty() { self.write_rules(alone) } else { Ok(()) }
    }

    /// Removes a network whose record cannot be read, unless a container is on it that runs; false if its record can be read, or there is
    /// no such network.
    pub(crate) fn remove_unreadable(&self, name: &str) -> Result<bool> {
        names::validate("network name", name).map_err(anyhow::Error::msg)?;
        let alone = self.lock(FlockOperation::LockExclusive)?;
        if self.load(name).is_ok() {
            return Ok(false);
        }
        let dir = self.dir(name);
        if self.is_in_use(name)? {
            bail!(
                "network {name} has active endpoints: a container is on it that runs, and {} is damaged",
                dir.display()
            );
        }
        // As much of it as can be known: its own bridge is one of this name and this address.
        let text = fs::read(dir.join("network.json")).unwrap_or_default();
        let links = Links::open()?;
        if let Ok(Identity { id, bridge }) = serde_json::from_slice(&text)
            && let Some(link) = links.find(&bridge)?
            && definition::is_bridge_of(&id, &link)
        {
            links.delete(&bridge)?;
        }
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        self.tidy_rules(&alone)?;
        Ok(true)
    }

    /// Waits for the lock of all networks.
    fn lock(&self, how: FlockOperation) -> Result<Locked> {
        make_folder(&self.folder)?;
        let file = fs::File::open(&self.folder).with_context(|| format!("cannot open {}", self.folder.display()))?;
        lock_file(file.into(), how, &self.folder)
    }
}

/// What tells one ROOT's networks from another's on the same machine; None: the usual place.
fn number_of(root: &Path) -> Option<u64> {
    // FNV-1a.
    let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let number = || root.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325, hash);
    (root != Path::new("/var/lib/amphora")).then(number)
}

/// The tables of one ROOT in the packet filter.
fn table_name(number: Option<u64>) -> String {
    number.map_or_else(|| "amphora".to_owned(), |number| format!("amphora-{number:016x}"))
}

fn lock_file(file: OwnedFd, how: FlockOperation, path: &Path) -> Result<Locked> {
    loop {
        match flock(&file, how) {
            Ok(()) => return Ok(Locked(file)),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}

/// Names in a folder; none where there is no folder. Those that begin with a dot are being made.
fn entries(folder: &Path) -> Result<Vec<String>> {
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("cannot list {}", folder.display()))?,
    };
    let mut found = Vec::new();
    for entry in listed {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        found.extend(entry.file_name().into_string().ok().filter(|name| !name.starts_with('.')));
    }
    Ok(found)
}

fn make_folder(folder: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(folder);
    made.with_context(|| format!("cannot make {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_root_has_tables_of_its_own() {
        let name = |root: &str| table_name(number_of(Path::new(root)));
        assert_eq!(name("/var/lib/amphora"), "amphora");
        assert!(name("/a") != name("/b") && name("/a").len() <= 31);
    }
}
