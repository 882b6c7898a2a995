//! Limits of a container that change while it runs, or before it runs again.

use anyhow::{Context, Result, bail};
use linux_exec::cgroup::{Cgroups, Resources};

use super::{group, happened, networks, workload_of};
use crate::{
    records::{
        container::{Container, Mark, RunFound},
        host::Host,
    },
    spec::{RunSpec, limits::Limits, restart::RestartPolicy},
};

/// The kernel's own period of a CPU quota.
const USUAL_PERIOD_USEC: u64 = 100_000;

/// What is to be other than it was; what is None stays.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    /// `Some(None)` takes a limit away.
    pub(crate) memory_bytes: Option<Option<u64>>,
    pub(crate) memory_swap_bytes: Option<Option<i64>>,
    pub(crate) memory_reservation_bytes: Option<Option<u64>>,
    pub(crate) cpu_millis: Option<Option<u64>>,
    pub(crate) cpu_shares: Option<Option<u64>>,
    pub(crate) cpuset_cpus: Option<String>,
    pub(crate) cpuset_mems: Option<String>,
    pub(crate) pids: Option<Option<u64>>,
    pub(crate) blkio_weight: Option<Option<u16>>,
    pub(crate) cpu_period_usec: Option<Option<u64>>,
    pub(crate) cpu_quota_usec: Option<Option<u64>>,
    pub(crate) restart: Option<RestartPolicy>,
}

impl Changes {
    fn apply(&self, limits: &Limits) -> Limits {
        Limits {
            memory_bytes: self.memory_bytes.unwrap_or(limits.memory_bytes),
            memory_swap_bytes: self.memory_swap_bytes.unwrap_or(limits.memory_swap_bytes),
            memory_reservation_bytes: self.memory_reservation_bytes.unwrap_or(limits.memory_reservation_bytes),
            cpu_millis: self.cpu_millis.unwrap_or(limits.cpu_millis),
            cpu_shares: self.cpu_shares.unwrap_or(limits.cpu_shares),
            cpuset_cpus: self.cpuset_cpus.clone().or_else(|| limits.cpuset_cpus.clone()),
            cpuset_mems: self.cpuset_mems.clone().or_else(|| limits.cpuset_mems.clone()),
            pids: self.pids.unwrap_or(limits.pids),
            blkio_weight: self.blkio_weight.unwrap_or(limits.blkio_weight),
            cpu_period_usec: self.cpu_period_usec.unwrap_or(limits.cpu_period_usec),
            cpu_quota_usec: self.cpu_quota_usec.unwrap_or(limits.cpu_quota_usec),
            ..limits.clone()
        }
    }

    /// As the cgroup is to get it: what is the same as before is left alone, and what is taken away is unlimited.
    fn lower(&self, before: &Resources, after: &Resources) -> Resources {
        let unlimited = |is_changed: bool, value: Option<u64>| is_changed.then(|| value.unwrap_or(u64::MAX));
        let memory = self.memory_bytes.is_some() || self.memory_swap_bytes.is_some();
        let mut further = before.further.clone();
        further.memory_reservation_bytes =
            unlimited(self.memory_reservation_bytes.is_some(), after.further.memory_reservation_bytes);
        further.cpuset_mems = self.cpuset_mems.clone();
        further.io_weight = self.blkio_weight.flatten();
        further.cpu_quota_usec = unlimited(self.cpu_quota_usec.is_some(), after.further.cpu_quota_usec);
        further.cpu_period_usec = self.cpu_period_usec.map(|usec| usec.unwrap_or(USUAL_PERIOD_USEC));
        (further.io_throttle, further.io_weight_devices, further.devices) = Default::default();
        Resources {
            memory_bytes: unlimited(memory, after.memory_bytes),
            memory_swap_bytes: if memory { after.memory_swap_bytes } else { None },
            cpu_millis: unlimited(self.cpu_millis.is_some(), after.cpu_millis),
            cpu_shares: self.cpu_shares.map(|shares| shares.unwrap_or(1024)),
            cpuset_cpus: self.cpuset_cpus.clone(),
            pids: unlimited(self.pids.is_some(), after.pids),
            restrict_devices: false,
            every_hierarchy: false,
            further,
        }
    }

    fn changes_limits(&self) -> bool {
        self.memory_bytes.is_some()
            || self.memory_swap_bytes.is_some()
            || self.memory_reservation_bytes.is_some()
            || self.cpu_millis.is_some()
            || self.cpu_shares.is_some()
            || self.cpuset_cpus.is_some()
            || self.cpuset_mems.is_some()
            || self.pids.is_some()
            || self.blkio_weight.is_some()
            || self.cpu_period_usec.is_some()
            || self.cpu_quota_usec.is_some()
    }
}

/// Changes limits, at once where it runs.
pub(crate) fn update(host: &Host, container: &Container, changes: &Changes) -> Result<()> {
    let name = &container.spec.name;
    let lock = container.lock()?;
    let container = host.containers.reload(container)?;
    let spec = &container.spec;
    if spec.auto_remove && changes.restart.is_some_and(RestartPolicy::restarts) {
        bail!("container {name} is removed when it ends (--rm), so it cannot be started again");
    }
    let limits = changes.apply(&spec.limits);
    limits.check()?;
    let revised = RunSpec { limits, restart: changes.restart.unwrap_or(spec.restart), ..spec.clone() };
    let workload = workload_of(host, spec)?;
    workload.behaviour().check(&revised)?;
    if changes.changes_limits()
        && let Some(run) = container.going_on_under(&lock)?
    {
        if changes.memory_bytes.is_some() && workload.behaviour().limits_memory_itself() {
            bail!(
                "container {name} runs a Wasm program, whose engine took its limit of memory when it began: stop it first"
            );
        }
        let resources = changes.lower(&workload.resources(spec)?, &workload.resources(&revised)?);
        apply(&container, &run, &resources).with_context(|| format!("cannot update container {name}"))?;
    }
    container.revise(&lock, &revised)?;
    container.happened("update");
    Ok(())
}

fn apply(container: &Container, run: &RunFound, resources: &Resources) -> Result<()> {
    container.mark(run, Mark::Regrouped, true)?;
    Ok(Cgroups::detect()?.update(&group::place(&container.spec)?, resources)?)
}

/// Gives a container another name, by which others on its networks find it at once.
pub(crate) fn rename(host: &Host, container: &Container, name: &str) -> Result<()> {
    let lock = container.lock()?;
    let container = host.containers.reload(container)?;
    host.containers.rename(&container, &lock, name)?;
    container.note(&[happened::renamed(&container.spec, name)]);
    let told = networks::tell_name(&host.containers.reload(&container)?, &lock);
    told.with_context(|| {
        format!("container {name} was renamed, but is found on its networks by its old name: restart it")
    })
}
