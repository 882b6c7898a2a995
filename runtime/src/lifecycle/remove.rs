//! Removal, and what killed supervisors left behind.

use anyhow::{Result, bail};
use linux_exec::cgroup::Cgroups;

use crate::records::{
    container::{Container, Status, Unreadable},
    host::Host,
};

/// Removes a container that cannot be read and does not run.
pub(crate) fn remove_unreadable(host: &Host, container: &Unreadable) -> Result<()> {
    leftover_cgroup(&container.id)?;
    host.containers.delete_unreadable(container)
}

/// Removes a container that does not run. Its anonymous volumes go with it when `volumes`.
pub(crate) fn remove(host: &Host, container: &Container, volumes: bool) -> Result<()> {
    if container.spec.auto_remove && !container.exists()? {
        return Ok(());
    }
    // Under the lock, as one that is being started now would run by then.
    let _lock = container.lock()?;
    let name = &container.spec.name;
    if let Status::Running(_) = container.status()? {
        bail!("container {name} is running: stop it first (amphora stop {name}), or use rm -f");
    }
    let Some(_run) = container.lock_run()? else {
        bail!("container {name} is running, and was started with another --runroot: use that one");
    };
    discard(host, container, volumes)
}

/// Removes a container unless it runs, or another command is about to start or remove it; whether it did.
pub(crate) fn remove_idle(host: &Host, container: &Container) -> Result<bool> {
    let Some(_lock) = container.try_lock()? else { return Ok(false) };
    match container.status()? {
        Status::Running(_) => Ok(false),
        Status::Created | Status::Stopped(_) => {
            let Some(_run) = container.lock_run()? else { return Ok(false) };
            discard(host, container, false).map(|()| true)
        }
    }
}

fn discard(host: &Host, container: &Container, volumes: bool) -> Result<()> {
    leftover_cgroup(&container.spec.id)?;
    if volumes {
        host.volumes.remove_unnamed_of(&container.spec)?;
    }
    host.containers.delete(container)
}

/// A supervisor that was killed leaves its cgroup.
fn leftover_cgroup(id: &str) -> Result<()> {
    if let Some(cgroup) = Cgroups::detect()?.open(id)? {
        cgroup.kill()?;
        cgroup.remove()?;
    }
    Ok(())
}

/// Cgroups of containers that do not run, each with a sentence; removed when `remove`. Those of another ROOT's containers
/// lie beside ours and are not ours to judge.
pub(crate) fn check_cgroups(host: &Host, remove: bool) -> Result<Vec<String>> {
    let cgroups = Cgroups::detect()?;
    let mut found = Vec::new();
    for id in cgroups.list() {
        let Ok(Some(container)) = host.containers.load(&id) else { continue };
        // Locked: it is being started.
        let Some(_lock) = container.try_lock()? else { continue };
        let running = matches!(container.status(), Ok(Status::Running(_)) | Err(_));
        let Some(_run) = container.lock_run()? else { continue };
        let Some(cgroup) = cgroups.open(&id)?.filter(|_| !running) else { continue };
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
