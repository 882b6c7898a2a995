//! Removal, and what killed supervisors left behind.

use anyhow::{Context, Result, bail};
use linux_exec::cgroup::{Cgroups, Place};

use super::{
    group,
    stop::{SETTLES_WITHIN, end_by_force, kill_surely, settle, settle_by_force},
};
use crate::records::{
    container::{Container, Running, Status, Unreadable},
    events::{Event, Subject},
    host::Host,
};

/// Removes a container that cannot be read and does not run.
pub(crate) fn remove_unreadable(host: &Host, container: &Unreadable) -> Result<()> {
    group::remove_leftover(&Place::of_container(&container.id)?)?;
    host.containers.delete_unreadable(container)?;
    host.events.note(&[Event::new(Subject::Container, "destroy", &container.id)]);
    Ok(())
}

/// Removes a container that does not run, or, by `force`, that was started meanwhile. Its anonymous volumes go with it when `volumes`.
pub(crate) fn remove(host: &Host, container: &Container, volumes: bool, force: bool) -> Result<()> {
    const ROUNDS: u32 = 100;
    let name = &container.spec.name;
    for _ in 0..ROUNDS {
        if container.spec.auto_remove && !container.exists()? {
            return Ok(());
        }
        // Decided and done under the lock, as one that is being started now would run by then.
        let lock = match container.lock_if_there()? {
            None if container.spec.auto_remove => return Ok(()),
            None => bail!("no such container: {name} (another command has removed it)"),
            Some(lock) => lock,
        };
        match container.status_under(&lock)? {
            Status::Created | Status::Stopped(_) => {}
            Status::OutOfReach => return Err(container.out_of_reach()),
            Status::Running(_) | Status::Restarting(..) if force => {
                drop(lock);
                end_by_force(container)?;
                continue;
            }
            Status::Running(_) | Status::Restarting(..) => {
                bail!("container {name} is running: stop it first (amphora stop {name}), or use rm -f")
            }
        }
        // Without a record its supervisor has done all that it has to do with the container, and only copies its output.
        let Some(run) = container.run()?.filter(|_| !matches!(container.lock_run(), Ok(Some(_)))) else {
            return discard(host, container, volumes);
        };
        drop(lock);
        let supervisor = run.running.supervisor_pid;
        match force {
            true => settle_by_force(container, &run)?,
            false if settle(container, &run, Some(SETTLES_WITHIN))? => {}
            false => {
                bail!("container {name} has ended, but its supervisor, process {supervisor}, does not; rm -f ends it")
            }
        }
    }
    bail!("container {name} is started again and again while it is being removed")
}

/// Removes a container unless it runs, or another command is about to start or remove it; whether it did.
pub(crate) fn remove_idle(host: &Host, container: &Container) -> Result<bool> {
    let Some(lock) = container.try_lock()? else { return Ok(false) };
    match container.status_under(&lock)? {
        Status::Running(_) | Status::Restarting(..) | Status::OutOfReach => Ok(false),
        Status::Created | Status::Stopped(_) => {
            let Some(_run) = container.lock_run()? else { return Ok(false) };
            discard(host, container, false).map(|()| true)
        }
    }
}

fn discard(host: &Host, container: &Container, volumes: bool) -> Result<()> {
    group::remove_leftover(&group::place(&container.spec)?)?;
    if volumes {
        host.volumes.remove_unnamed_of(&container.spec)?;
    }
    host.networks.forget_container(&container.spec);
    host.containers.delete(container)?;
    container.happened("destroy");
    Ok(())
}

/// Containers that run on without their supervisors, as they undid the signal by which they would have died: each with a sentence; killed
/// when `kill`. Before all else that is left behind, as they hold it.
pub(crate) fn check_orphans(host: &Host, kill: bool) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for container in host.containers.list()?.0 {
        let Ok(Some(run)) = container.going_on() else { continue };
        if !run.is_orphaned().unwrap_or(false) {
            continue;
        }
        let Running { pid, supervisor_pid, .. } = run.running;
        found.push(format!(
            "container {} runs on (process {pid}), though its supervisor (process {supervisor_pid}) was killed",
            container.spec.name
        ));
        if kill {
            kill_surely(&group::place(&container.spec)?, &run.running)
                .with_context(|| format!("container {}", container.spec.name))?;
        }
    }
    Ok(found)
}

/// Cgroups of containers that do not run, each with a sentence; removed when `remove`. Those of another ROOT's containers
/// lie beside ours and are not ours to judge.
pub(crate) fn check_cgroups(host: &Host, remove: bool) -> Result<Vec<String>> {
    let cgroups = Cgroups::detect()?;
    let mut found = Vec::new();
    let mut containers = host.containers.list()?.0;
    let listed = cgroups.list();
    let has_group =
        |container: &Container| listed.contains(&container.spec.id) || container.spec.further.has_other_group();
    containers.retain(has_group);
    for container in containers {
        // Locked: it is being started.
        let Some(_lock) = container.try_lock()? else { continue };
        let running = container.status().map_or(true, |status| status.is_up());
        let Some(_run) = container.lock_run()? else { continue };
        let place = group::place(&container.spec)?;
        let Some(cgroup) = cgroups.open_at(&place)?.filter(|_| !running) else { continue };
        found.extend(
            cgroup.paths().iter().map(|path| format!("cgroup of a container that does not run: {}", path.display())),
        );
        if remove {
            cgroup.kill()?;
            cgroup.remove()?;
        }
    }
    Ok(found)
}
