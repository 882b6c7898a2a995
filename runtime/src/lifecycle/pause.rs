//! A container that stands still: its processes are frozen, all of them or none, and notice nothing.

use anyhow::{Context, Result, bail};
use linux_exec::cgroup::{Cgroup, Cgroups, Place};

use super::group;
use crate::{
    output::errors::Coded,
    records::container::{Container, Lock, Mark, RunFound, Running},
};

/// Freezes a running container.
pub(crate) fn pause(container: &Container) -> Result<()> {
    let name = &container.spec.name;
    let (_lock, run) = locked(container)?;
    if run.running.paused {
        return Err(Coded::new(1, format!("container {name} is paused already")).into());
    }
    let cgroups = Cgroups::detect()?;
    let place = group::place(&container.spec)?;
    let frozen = || -> Result<()> {
        container.mark(&run, Mark::Regrouped, true)?;
        cgroups.make_freezable(&place)?;
        Ok(cgroup(container)?.freeze()?)
    };
    frozen().with_context(|| format!("cannot pause container {name}"))?;
    container.mark(&run, Mark::Paused, true)?;
    container.happened("pause");
    Ok(())
}

/// Lets a paused container go on.
pub(crate) fn unpause(container: &Container) -> Result<()> {
    let name = &container.spec.name;
    let (_lock, run) = locked(container)?;
    // Who was killed while he froze it has not noted that.
    let cgroup = cgroup(container)?;
    if !run.running.paused && !cgroup.is_frozen()? {
        return Err(Coded::new(1, format!("container {name} is not paused")).into());
    }
    cgroup.thaw().with_context(|| format!("cannot let container {name} go on"))?;
    container.mark(&run, Mark::Paused, false)?;
    container.happened("unpause");
    Ok(())
}

/// Lets a container go on that is being ended: what is frozen on cgroup v1 takes no signal.
pub(super) fn let_go_on(place: &Place, running: &Running) {
    if running.paused {
        // Whatever keeps it from that is seen by whoever waits for its end.
        let _ = Cgroups::detect().and_then(|cgroups| cgroups.open_at(place)?.map_or(Ok(()), |cgroup| cgroup.thaw()));
    }
}

/// A container that runs, with its lock, so that it is neither stopped and started again nor removed meanwhile.
pub(super) fn locked(container: &Container) -> Result<(Lock, RunFound)> {
    let name = &container.spec.name;
    let lock = container.lock()?;
    match container.going_on_under(&lock)? {
        Some(run) => Ok((lock, run)),
        None => bail!(Coded::new(1, format!("container {name} is not running"))),
    }
}

fn cgroup(container: &Container) -> Result<Cgroup> {
    group::open(&container.spec)?.with_context(|| {
        format!(
            "container {} has no cgroup: start it where one can be made (as root, or delegated)",
            container.spec.name
        )
    })
}
