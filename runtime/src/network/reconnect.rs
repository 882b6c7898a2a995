//! A container that goes to other networks while it runs.

use std::{fs, io::ErrorKind, net::IpAddr, os::fd::AsFd, os::unix::fs::FileExt, path::Path};

use anyhow::{Context, Result, bail};
use linux_exec::network::{Links, namespace};
use rustix::fs::FlockOperation;

use super::{
    Attached, Definition, Lease,
    addresses::Held,
    attach::{Wish, allow_ipv6, gateways, leads_ports, lease_all, set_hairpin},
    files,
    resolver::Sockets,
    unbridged::UNCHANGED,
};
use crate::spec::{RunSpec, network::Endpoint};

/// A container's `/etc/hosts` that is larger is its own business.
const LARGEST_HOSTS_BYTES: u64 = 1 << 20;

impl Attached {
    /// Leaves the networks that `spec` does not name any more, and goes to those that it names now. On an error it is on none that it was
    /// not on before. `folder`: that of its `/etc/hosts` and `/etc/resolv.conf`; what it wrote there itself stays.
    pub(crate) fn follow(&mut self, spec: &RunSpec, folder: &Path) -> Result<()> {
        if !self.networks.are_bridged() {
            bail!(UNCHANGED);
        }
        let links = Links::open()?;
        let before: Vec<Lease> = self.held.iter().map(|held| held.lease.clone()).collect();
        let wanted = |held: &Held| spec.network.endpoints().iter().any(|one| one.network == held.network.name);
        self.leave(&links, &wanted)?;
        let kept: Vec<String> = self.held.iter().map(|held| held.network.name.clone()).collect();
        let gone_on = self.join_all(&links, spec).and_then(|()| self.arrange(&links, spec, folder, &before));
        gone_on.inspect_err(|_| {
            // The error that is told is the first one.
            let left = self.leave(&links, &|held| kept.contains(&held.network.name));
            let _ = left.and_then(|()| self.lead_ports(&links));
        })
    }

    fn join_all(&mut self, links: &Links, spec: &RunSpec) -> Result<()> {
        let endpoints = spec.network.endpoints();
        for endpoint in endpoints {
            if self.held.iter().all(|held| held.network.name != endpoint.network) {
                self.join(links, spec, endpoint)?;
            }
        }
        let place = |held: &Held| endpoints.iter().position(|endpoint| endpoint.network == held.network.name);
        self.held.sort_by_key(place);
        Ok(())
    }

    /// Leaves networks: the rules first, so that nothing is led to an address that another container may have then.
    fn leave(&mut self, links: &Links, stays: &dyn Fn(&Held) -> bool) -> Result<()> {
        let together = self.networks.lock(FlockOperation::LockShared)?;
        let mut whole = true;
        while let Some(at) = self.held.iter().position(|held| !stays(held)) {
            let Held { network, lease, .. } = &self.held[at];
            whole &= self.networks.remove_rules(&self.filter, network, lease)?;
            links.delete(&lease.device)?;
            self.networks.give_back(&network.name, lease)?;
            self.held.remove(at);
        }
        drop(together);
        self.networks.mend_rules(whole)
    }

    fn join(&mut self, links: &Links, spec: &RunSpec, endpoint: &Endpoint) -> Result<()> {
        let (network, bridge) = self.networks.bring_up(self.networks.get(&endpoint.network)?, links)?;
        let number = (0..).find(|number| self.held.iter().all(|held| held.number != *number)).unwrap_or_default();
        let inner = self.inside(|| {
            allow_ipv6(network.ipv6.is_some())?;
            Ok(Links::open()?)
        })?;
        let wish = Wish { network: &network, endpoint, number, ports: &[] };
        let (leased, together) = lease_all(&self.networks, spec, &[wish])?;
        let mut whole = true;
        for held in leased {
            let plugged = self.plug(links, &inner, &held, &bridge, &[]);
            let ready = plugged.and_then(|()| self.networks.add_rules(&self.filter, &network, &held.lease));
            match ready {
                Ok(added) => whole &= added,
                Err(error) => {
                    let _ = (links.delete(&held.lease.device), self.networks.give_back(&network.name, &held.lease));
                    return Err(error);
                }
            }
            self.held.push(held);
        }
        drop(together);
        self.networks.mend_rules(whole)
    }

    /// What depends on all networks together: where ports lead, the way to everybody else, names.
    fn arrange(&mut self, links: &Links, spec: &RunSpec, folder: &Path, before: &[Lease]) -> Result<()> {
        self.take_name(spec)?;
        self.lead_ports(links)?;
        let inner = self.inside(|| Ok(Links::open()?))?;
        for held in &self.held {
            for gateway in gateways(&self.held, held) {
                let device = inner.find(&held.inner_device())?;
                let routed = device.map_or(Ok(()), |device| inner.route_by_default(device.index, gateway));
                // A container that may change its devices may have done so: it is only of a new one that this must not be.
                let is_new = before.iter().all(|lease| lease.device != held.lease.device);
                routed.or_else(|error| if is_new { Err(error) } else { Ok(()) })?;
            }
        }
        self.name_all(spec, folder)?;
        let addresses = |leases: &[Lease]| leases.iter().flat_map(Lease::addresses).collect::<Vec<_>>();
        let now: Vec<Lease> = self.held.iter().map(|held| held.lease.clone()).collect();
        change_hosts(&folder.join("hosts"), spec, &addresses(before), &addresses(&now))
    }

    /// It may have another name since.
    fn take_name(&mut self, spec: &RunSpec) -> Result<()> {
        let together = self.networks.lock(FlockOperation::LockShared)?;
        for held in self.held.iter_mut().filter(|held| held.lease.name != spec.name) {
            let lease = Lease { name: spec.name.clone(), ..held.lease.clone() };
            self.networks.rewrite(held, lease, &together)?;
        }
        Ok(())
    }

    /// Ports lead to the first network from which somebody outside can be answered.
    fn lead_ports(&mut self, links: &Links) -> Result<()> {
        let wanted = leads_ports(self.held.iter().map(|held| &held.network)).unwrap_or_default();
        let together = self.networks.lock(FlockOperation::LockShared)?;
        let mut whole = true;
        // Taken away first: one port leads to one address.
        for is_wanted in [false, true] {
            for (at, held) in self.held.iter_mut().enumerate().filter(|(at, _)| (*at == wanted) == is_wanted) {
                let ports = if at == wanted { self.reserved.ports.as_slice() } else { &[] };
                if held.lease.ports == ports {
                    continue;
                }
                whole &= self.networks.remove_rules(&self.filter, &held.network, &held.lease)?;
                let lease = Lease { ports: ports.to_vec(), ..held.lease.clone() };
                self.networks.rewrite(held, lease, &together)?;
                whole &= self.networks.add_rules(&self.filter, &held.network, &held.lease)?;
                if !ports.is_empty() {
                    set_hairpin(links, &held.lease)?;
                }
            }
        }
        drop(together);
        if let Some(relay) = &self.relay {
            relay.set_container(self.led_to());
        }
        self.forget_flows()?;
        self.networks.mend_rules(whole)
    }

    /// The name server knows of all networks; one that is needed from now on begins.
    fn name_all(&mut self, spec: &RunSpec, folder: &Path) -> Result<()> {
        let networks: Vec<Definition> = self.held.iter().map(|held| held.network.clone()).collect();
        if let Some(serving) = &self.serving {
            serving.set_networks(networks);
            return Ok(());
        }
        if !networks.iter().any(Definition::has_names) {
            return Ok(());
        }
        let path = folder.join("resolv.conf");
        let is_ours = fs::read(&path).is_ok_and(|text| text == files::resolv_conf(spec, Some(self)).as_bytes());
        self.sockets = Some(self.inside(Sockets::open)?);
        self.serve_names(spec)?;
        if is_ours {
            let text = files::resolv_conf(spec, Some(self));
            overwrite(&path, text.as_bytes())?;
        }
        Ok(())
    }

    fn inside<T>(&self, action: impl FnOnce() -> Result<T>) -> Result<T> {
        namespace::inside(self.namespace.as_fd(), action)
    }
}

/// Its own addresses in `/etc/hosts`: a line each, as it was written when it began.
fn change_hosts(path: &Path, spec: &RunSpec, before: &[IpAddr], now: &[IpAddr]) -> Result<()> {
    let gone: Vec<String> = before.iter().filter(|ip| !now.contains(ip)).map(|ip| files::own_line(spec, *ip)).collect();
    let come: String = now.iter().filter(|ip| !before.contains(ip)).map(|ip| files::own_line(spec, *ip)).collect();
    let size = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.with_context(|| format!("cannot look at {}", path.display()))?.len(),
    };
    if (gone.is_empty() && come.is_empty()) || size > LARGEST_HOSTS_BYTES {
        return Ok(());
    }
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let is_kept = |line: &&[u8]| !gone.iter().any(|gone| gone.as_bytes() == *line);
    let mut lines: Vec<u8> = text.split_inclusive(|&byte| byte == b'\n').filter(is_kept).flatten().copied().collect();
    if lines.last().is_some_and(|&byte| byte != b'\n') {
        lines.push(b'\n');
    }
    lines.extend(come.as_bytes());
    overwrite(path, &lines)
}

/// In its place, as the container sees this file and no other of its name.
fn overwrite(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let file = fs::OpenOptions::new().write(true).open(path)?;
        file.write_all_at(bytes, 0)?;
        file.set_len(bytes.len() as u64)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
