//! A container on its networks, from before it begins until after it has ended.

use std::{
    collections::HashSet,
    fs,
    io::{ErrorKind, Write},
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result, bail};
use linux_exec::network::{Link, Links, Veth, conntrack, namespace, nftables::Filter};
use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    io::Errno,
};

use super::{
    Definition, Lease, Locked, Networks, Wanted,
    addresses::Held,
    definition::{self, OPTION_MTU},
    pasta::{self, Pasta},
    plug::Plug,
    ports::BoundPort,
    relay::Relay,
    reserve::{For, Reserved, reserve},
    resolver::{Serving, Sockets},
};
use crate::spec::{RunSpec, network::Endpoint, ports::Protocol};

/// Nobody but root can hold it.
const MACHINE_LOCK: &str = "/run/amphora-networks.lock";

/// What Ethernet carries.
const USUAL_MTU: u32 = 1500;

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// A network namespace for a container, and what leads to it. Dropped, it is taken down as far as that can be done.
pub(crate) struct Attached {
    pub(super) namespace: OwnedFd,
    pub(super) networks: Networks,
    pub(super) held: Vec<Held>,
    pub(super) filter: Filter,
    /// Until the rules that lead the ports away are gone.
    pub(super) reserved: Reserved,
    /// Of the name server, until it is started.
    pub(super) sockets: Option<Sockets>,
    /// The name server.
    pub(super) serving: Option<Serving>,
    /// Of those who come over IPv6 and are not led here.
    pub(super) relay: Option<Relay>,
    /// What connects it without root: to whatever its user reaches, and to the containers of its networks.
    pub(super) pasta: Option<Pasta>,
    pub(super) plugs: Vec<Plug>,
}

/// A network that a container is to be on.
pub(super) struct Wish<'a> {
    pub(super) network: &'a Definition,
    pub(super) endpoint: &'a Endpoint,
    /// Of the container's devices, from 0.
    pub(super) number: usize,
    pub(super) ports: &'a [BoundPort],
}

impl Attached {
    /// Makes a namespace on all networks that a container is to be on. What is in use is an error, and nothing is left then.
    pub(crate) fn new(networks: &Networks, spec: &RunSpec) -> Result<Self> {
        if !networks.are_bridged() {
            return Self::unbridged(networks, spec);
        }
        let endpoints = spec.network.endpoints();
        let found: Result<Vec<Definition>> = endpoints.iter().map(|endpoint| networks.get(&endpoint.network)).collect();
        let found = found?;
        let (links, filter) = (Links::open()?, Filter::open()?);
        let up: Result<Vec<_>> = found.into_iter().map(|network| networks.bring_up(network, &links)).collect();
        let (found, bridges): (Vec<Definition>, Vec<Link>) = up?.into_iter().unzip();
        let reserved =
            reserve(&spec.ports, For::Us, &|port, number| networks.holder(port.protocol, port.host_ip, number))?;
        let of_ports = leads_ports(&found).unwrap_or_default();
        let wish = |(number, (network, endpoint))| {
            let ports = if number == of_ports { reserved.ports.as_slice() } else { &[] };
            Wish { network, endpoint, number, ports }
        };
        let wishes: Vec<Wish<'_>> = found.iter().zip(endpoints).enumerate().map(wish).collect();
        let (held, together) = lease_all(networks, spec, &wishes)?;
        let has_names = found.iter().any(Definition::has_names);
        let (namespace, (inner, sockets)) = namespace::make(|| {
            settle(found.iter().any(|network| network.ipv6.is_some()))?;
            Ok::<_, anyhow::Error>((Links::open()?, has_names.then(Sockets::open).transpose()?))
        })
        .inspect_err(|_| _ = take_back(networks, &filter, &held))?;
        let networks = networks.clone();
        let (serving, relay, pasta, plugs) = (None, None, None, Vec::new());
        let attached = Self { namespace, networks, held, filter, reserved, sockets, serving, relay, pasta, plugs };
        for (held, bridge) in attached.held.iter().zip(&bridges) {
            attached.plug(&links, &inner, held, bridge, &gateways(&attached.held, held))?;
        }
        attached.lead(together)?;
        Ok(attached)
    }

    /// By which address containers of a network reach the machine, if there is one: a bridge's, or the machine's own.
    pub(super) fn gateway(&self) -> Option<IpAddr> {
        match &self.pasta {
            Some(_) => pasta::address_of_machine(),
            None => self.leases().flat_map(|(network, _)| network.pools()).map(|pool| pool.gateway).next(),
        }
    }

    /// That of another container, which has the addresses and the ports.
    pub(crate) fn shared(networks: &Networks, pid: i32) -> Result<Self> {
        if !networks.are_bridged() {
            bail!(
                "--network container: without root a container cannot join the network of another, which is its user namespace's"
            );
        }
        let namespace = namespace::of_process(pid)?;
        let (networks, filter, reserved) = (networks.clone(), Filter::open()?, Reserved::default());
        let (held, plugs, sockets, serving, relay, pasta) = (Vec::new(), Vec::new(), None, None, None, None);
        Ok(Self { namespace, networks, held, filter, reserved, sockets, serving, relay, pasta, plugs })
    }

    /// Does what needs threads: passes on who came over IPv6, and answers who asks for names. What was asked before is answered then.
    pub(crate) fn serve(&mut self, spec: &RunSpec) -> Result<()> {
        let doors = std::mem::take(&mut self.reserved.doors);
        if !doors.is_empty() {
            self.relay = Some(Relay::begin(doors, self.led_to())?);
        }
        self.plugs.iter_mut().try_for_each(Plug::keep)?;
        self.serve_names(spec)
    }

    /// The address to which ports lead.
    pub(super) fn led_to(&self) -> Option<IpAddr> {
        let held = self.held.iter().find(|held| !held.lease.ports.is_empty())?;
        held.lease.ipv6.or(held.lease.ipv4)
    }

    pub(super) fn serve_names(&mut self, spec: &RunSpec) -> Result<()> {
        let joined: Vec<Definition> = self.held.iter().map(|held| held.network.clone()).collect();
        let serving = self.sockets.take().map(|sockets| sockets.serve(&self.networks, joined, spec));
        self.serving = serving.transpose()?;
        Ok(())
    }

    /// Whether there is a name server in it.
    pub(crate) fn has_names(&self) -> bool {
        self.sockets.is_some() || self.serving.is_some()
    }

    /// The namespace.
    pub(crate) fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// What it has of each network.
    pub(crate) fn leases(&self) -> impl Iterator<Item = (&Definition, &Lease)> {
        self.held.iter().map(|held| (&held.network, &held.lease))
    }

    /// Makes its devices for a network. `inner`: those of its namespace.
    pub(super) fn plug(
        &self,
        links: &Links,
        inner: &Links,
        held: &Held,
        bridge: &Link,
        gateways: &[IpAddr],
    ) -> Result<()> {
        let lease = &held.lease;
        let peer = held.inner_device();
        let veth = Veth {
            name: &lease.device,
            bridge: bridge.index,
            peer: &peer,
            peer_mac: lease.mac.0,
            namespace: self.namespace.as_fd(),
            mtu: bridge.mtu,
        };
        if !links.add_veth(&veth)? {
            // That of its last run goes with the namespace, which takes the kernel a moment.
            links.delete(&lease.device)?;
            if !links.add_veth(&veth)? {
                bail!("there is a network device {}, or {peer} in the container, that does not go", lease.device);
            }
        }
        if !lease.ports.is_empty() {
            set_hairpin(links, lease)?;
        }
        let index = inner.find(&peer)?.context("a network device is gone that was just made")?.index;
        Ok(inner.configure(index, &held.addresses(), gateways)?)
    }

    /// Adds the rules; where somebody has taken ours away, all of them.
    fn lead(&self, together: Locked) -> Result<()> {
        let mut whole = true;
        for held in &self.held {
            whole &= self.networks.add_rules(&self.filter, &held.network, &held.lease)?;
        }
        drop(together);
        self.forget_flows()?;
        self.networks.mend_rules(whole)
    }

    /// What somebody sends to a port of UDP again and again goes on to where it went first, if nobody says otherwise.
    pub(super) fn forget_flows(&self) -> Result<()> {
        let udp = self.reserved.ports.iter().filter(|port| port.protocol == Protocol::Udp);
        let ports: HashSet<u16> = udp.map(|port| port.host_port).collect();
        if !ports.is_empty() {
            conntrack::forget_udp(&ports)?;
        }
        Ok(())
    }

    /// Takes everything down. Its addresses and ports are free when this returns.
    pub(crate) fn detach(&mut self) -> Result<()> {
        self.take_down()
    }

    fn take_down(&mut self) -> Result<()> {
        let held = std::mem::take(&mut self.held);
        (self.serving, self.relay, self.pasta) = (None, None, None);
        self.plugs.clear();
        take_back(&self.networks, &self.filter, &held)?;
        self.reserved = Reserved::default();
        Ok(())
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // What cannot be taken down here, the next command recognises.
        let _ = self.take_down();
    }
}

impl Held {
    /// Its addresses, each with how many bits of it are the network's.
    pub(super) fn addresses(&self) -> Vec<(IpAddr, u8)> {
        let prefix =
            |ip: IpAddr| self.network.pools().find(|pool| pool.subnet.contains(ip)).map(|pool| pool.subnet.prefix());
        self.lease.addresses().filter_map(|ip| Some((ip, prefix(ip)?))).collect()
    }

    /// Its device in the container.
    pub(super) fn inner_device(&self) -> String {
        format!("eth{}", self.number)
    }
}

/// A container that asks for a port of its own gets its own frames back.
pub(super) fn set_hairpin(links: &Links, lease: &Lease) -> Result<()> {
    let port = links.find(&lease.device)?.context("a network device is gone that was just made")?;
    Ok(links.set_hairpin(&port)?)
}

/// The network to which ports lead: the first from which somebody outside can be answered.
pub(super) fn leads_ports<'a>(networks: impl IntoIterator<Item = &'a Definition>) -> Option<usize> {
    networks.into_iter().position(|network| !network.internal)
}

/// Through which of a network's gateways a container reaches all others: that of its first network with such addresses.
pub(super) fn gateways(all: &[Held], of: &Held) -> Vec<IpAddr> {
    let first = |ipv4: bool| {
        let mut out = all.iter().filter(|held| !held.network.internal);
        out.find(|held| held.network.pools().any(|pool| pool.gateway.is_ipv4() == ipv4))
    };
    let leads = |ipv4: bool| first(ipv4).is_some_and(|first| first.number == of.number);
    of.network.pools().map(|pool| pool.gateway).filter(|gateway| leads(gateway.is_ipv4())).collect()
}

/// Rules first, so that what is led to an address is never led to its next owner.
fn take_back(networks: &Networks, filter: &Filter, held: &[Held]) -> Result<()> {
    if held.is_empty() {
        return Ok(());
    }
    let together = networks.lock(FlockOperation::LockShared)?;
    let mut whole = true;
    for Held { network, lease, .. } in held {
        // Its device goes with the namespace.
        whole &= networks.remove_rules(filter, network, lease)?;
        networks.give_back(&network.name, lease)?;
    }
    drop(together);
    networks.mend_rules(whole)
}

/// Addresses of all networks, or of none; with the lock under which they were taken.
pub(super) fn lease_all(networks: &Networks, spec: &RunSpec, wishes: &[Wish<'_>]) -> Result<(Vec<Held>, Locked)> {
    let mut swept = false;
    loop {
        let together = networks.lock(FlockOperation::LockShared)?;
        let mut held = Vec::with_capacity(wishes.len());
        let mut full = None;
        for wish in wishes {
            let leased = networks.lease(wish.network, spec, wish.endpoint, wish.number, wish.ports);
            match leased.inspect_err(|_| give_back_all(networks, &held))? {
                Some(lease) => held.push(lease),
                None => {
                    full = Some(wish);
                    break;
                }
            }
        }
        let Some(Wish { network, endpoint, .. }) = full else { return Ok((held, together)) };
        give_back_all(networks, &held);
        drop(together);
        if swept || networks.forget_ended(network)? == 0 {
            return Err(no_address(network, endpoint));
        }
        swept = true;
    }
}

pub(super) fn give_back_all(networks: &Networks, held: &[Held]) {
    held.iter().for_each(|held| _ = networks.give_back(&held.network.name, &held.lease));
}

fn no_address(network: &Definition, endpoint: &Endpoint) -> anyhow::Error {
    let wanted = endpoint.ipv4.map(IpAddr::V4).or(endpoint.ipv6.map(IpAddr::V6));
    if let Some(ip) = wanted {
        return anyhow::anyhow!(
            "Address already in use: {ip} on network {} belongs to another container",
            network.name
        );
    }
    let ranges: Vec<_> = network.pools().map(|pool| pool.range.unwrap_or(pool.subnet).to_string()).collect();
    anyhow::anyhow!(
        "no available addresses on network {} ({}): stop containers, or make a network with a larger --subnet",
        network.name,
        ranges.join(" and ")
    )
}

impl Networks {
    /// Writes all rules anew where somebody has taken ours away.
    pub(super) fn mend_rules(&self, whole: bool) -> Result<()> {
        if whole {
            return Ok(());
        }
        let alone = self.lock(FlockOperation::LockExclusive)?;
        self.write_rules(&alone)
    }

    /// A network's bridge, which is made unless it is there. The default network may become another one before: what was free when it
    /// was decided may be another ROOT's by now.
    pub(super) fn bring_up(&self, network: Definition, links: &Links) -> Result<(Definition, Link)> {
        let its_bridge = |network: &Definition| {
            let found = links.find(&network.bridge)?;
            Ok::<_, anyhow::Error>(found.filter(|bridge| network.is_its_bridge(bridge)))
        };
        if let Some(bridge) = its_bridge(&network)?.filter(|bridge| bridge.up) {
            return Ok((network, bridge));
        }
        let alone = self.lock(FlockOperation::LockExclusive)?;
        let found = self.load(&network.name)?.filter(|found| found.id == network.id || !found.has_names());
        let network = found.with_context(|| format!("network {} was removed just now", network.name))?;
        // Others may have waited for the lock to do the same.
        if let Some(bridge) = its_bridge(&network)?.filter(|bridge| bridge.up) {
            return Ok((network, bridge));
        }
        let _machine = lock_machine()?;
        let network = self.settle(network, links, &alone)?;
        self.make_bridge(&network, links, &alone)?;
        let bridge = its_bridge(&network)?.with_context(|| {
            format!("the bridge {} of network {} was removed just now: try again", network.bridge, network.name)
        })?;
        Ok((network, bridge))
    }

    /// The network as it is, if nobody else has its device's name or its addresses; the default one, decided anew.
    fn settle(&self, network: Definition, links: &Links, alone: &Locked) -> Result<Definition> {
        let Some(by) = network.taken_by(links)? else { return Ok(network) };
        if network.has_names() || !self.leases_of(&network, alone)?.is_empty() {
            bail!("network {} cannot be brought up: {by}", network.name);
        }
        let others: Vec<_> = self.list()?.into_iter().filter(|other| other.name != network.name).collect();
        let wanted = Wanted { name: network.name, ..Wanted::default() };
        let anew = Definition::decide(wanted, &others, links, self.number)?;
        anew.write(&self.dir(&anew.name).join("network.json"))?;
        Ok(anew)
    }

    /// The bridge, with its addresses and settings; switched on when all is done.
    pub(super) fn make_bridge(&self, network: &Definition, links: &Links, alone: &Locked) -> Result<()> {
        let mtu = match network.options.get(OPTION_MTU) {
            Some(mtu) => mtu.parse().context("the network's mtu")?,
            None => mtu_of_machine(links)?,
        };
        let made = links.add_bridge(&network.bridge, network.mac(), mtu)?;
        let bridge = links.find(&network.bridge)?.context("a bridge is gone that was just made")?;
        if !network.is_its_bridge(&bridge) {
            bail!("{}", definition::foreign(&bridge, network));
        }
        let prepared = prepare_machine(network)
            .and_then(|()| self.write_rules(alone))
            .and_then(|()| Ok(links.configure(bridge.index, &network.gateways(), &[])?));
        // Half of it would be taken for all of it.
        prepared.inspect_err(|_| _ = made.then(|| links.delete(&network.bridge)))
    }
}

/// Of two ROOTs that bring up bridges on one machine, one looks and takes while the other waits.
fn lock_machine() -> Result<Option<Locked>> {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = match rustix::fs::open(MACHINE_LOCK, flags, Mode::from_raw_mode(0o600)) {
        Ok(file) => file,
        // Only two first starts at the same moment are not kept apart then.
        Err(Errno::NOENT | Errno::ROFS) => return Ok(None),
        Err(errno) => return Err(errno).with_context(|| format!("cannot open {MACHINE_LOCK}")),
    };
    super::lock_file(file, FlockOperation::LockExclusive, Path::new(MACHINE_LOCK)).map(Some)
}

/// That of the device by which this machine reaches others.
fn mtu_of_machine(links: &Links) -> Result<u32> {
    let device = links.routes()?.into_iter().find(|route| route.destination.is_none()).and_then(|route| route.device);
    let found = links.list()?.into_iter().find(|link| Some(link.index) == device);
    Ok(found.map_or(USUAL_MTU, |link| link.mtu.clamp(1280, USUAL_MTU)))
}

/// Settings of the machine that a network needs.
pub(super) fn prepare_machine(network: &Definition) -> Result<()> {
    let of_bridge = |version: &str, name: &str| format!("/proc/sys/net/{version}/conf/{}/{name}", network.bridge);
    // So that the machine itself can use published ports by its loopback; what a container sends there is dropped.
    set(of_bridge("ipv4", "route_localnet"), "1")?;
    set(of_bridge("ipv4", "send_redirects"), "0")?;
    if !network.internal {
        set(IP_FORWARD, "1")?;
    }
    set(of_bridge("ipv6", "accept_ra"), "0")?;
    if network.ipv6.is_none() {
        return set(of_bridge("ipv6", "disable_ipv6"), "1");
    }
    set(of_bridge("ipv6", "accept_dad"), "0")?;
    if network.internal || read("/proc/sys/net/ipv6/conf/all/forwarding").is_none_or(|value| value == "1") {
        return Ok(());
    }
    // A router listens to no other, unless it is told to: the machine's own IPv6 must not end with this.
    for device in fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten() {
        let path = device.path().join("accept_ra");
        if read(&path).is_some_and(|value| value == "1") {
            set(&path, "2")?;
        }
    }
    set("/proc/sys/net/ipv6/conf/all/forwarding", "1")
}

/// Whether this machine passes on what is for others.
pub(super) fn is_forwarding() -> bool {
    read(IP_FORWARD).is_none_or(|value| value == "1")
}

/// Settings inside of a new namespace, before it has devices.
pub(super) fn settle(ipv6: bool) -> Result<()> {
    set("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
    set("/proc/sys/net/ipv4/ping_group_range", &format!("0 {}", last_group()))?;
    // Who comes to an address that another container had is seen at once to be elsewhere.
    set("/proc/sys/net/ipv4/conf/default/arp_notify", "1")?;
    set("/proc/sys/net/ipv6/conf/default/ndisc_notify", "1")?;
    for setting in ["accept_ra", "accept_redirects"] {
        set(format!("/proc/sys/net/ipv6/conf/default/{setting}"), "0")?;
    }
    if ipv6 { Ok(()) } else { allow_ipv6(false) }
}

/// On devices that are made from now on, in the namespace that the caller is in.
pub(super) fn allow_ipv6(allowed: bool) -> Result<()> {
    set("/proc/sys/net/ipv6/conf/default/disable_ipv6", if allowed { "0" } else { "1" })
}

/// The last of the groups that there are, of which the kernel knows none that this user namespace does not have.
fn last_group() -> u64 {
    const LAST: u64 = 2_147_483_647;
    let end = |line: &str| {
        let mut numbers = line.split_whitespace().map(|word| word.parse::<u64>().ok());
        let (first, _, count) = (numbers.next()??, numbers.next(), numbers.next()??);
        (first + count).checked_sub(1)
    };
    let map = fs::read_to_string("/proc/self/gid_map").unwrap_or_default();
    map.lines().filter_map(end).max().unwrap_or(LAST).min(LAST)
}

/// What is not there (a kernel without IPv6) needs no setting; what is read-only must have the value already.
fn set(path: impl AsRef<Path>, value: &str) -> Result<()> {
    let path = path.as_ref();
    let written = fs::OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(value.as_bytes()));
    match written {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(_) if read(path).is_some_and(|found| found == value) => Ok(()),
        written => written.with_context(|| format!("cannot set {} to {value}", path.display())),
    }
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}
