//! What a container shares with another one, opened while that one runs.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use linux_exec::{
    confinement::Namespace,
    plan::{Mount, MountSource},
    process::Process,
    shared::{self, Kind},
};

use crate::{
    records::host::Host,
    spec::{RunSpec, namespaces::NamespaceMode},
};

/// Where POSIX shared memory lies.
const SHARED_MEMORY: &str = "/dev/shm";
/// Where POSIX message queues are looked into.
const QUEUES: &str = "/dev/mqueue";

/// Its namespaces that are others'.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    pid: Option<OwnedFd>,
    ipc: Option<OwnedFd>,
    /// What lies at the other one's /dev/shm.
    memory: Option<Arc<OwnedFd>>,
}

impl Joined {
    /// Opens what the container is to join.
    ///
    /// # Errors
    /// The other one does not run, or does not share.
    pub(crate) fn open(host: &Host, spec: &RunSpec) -> Result<Self> {
        let mut joined = Self::default();
        if let NamespaceMode::Container(id) = &spec.further.pid {
            let (name, first, _) = running(host, "--pid", id)?;
            let opened = shared::namespace(first, Kind::Pid);
            joined.pid = Some(opened.with_context(|| format!("cannot join the processes of container {name}"))?);
        }
        if let NamespaceMode::Container(id) = &spec.further.ipc {
            let (name, first, mode) = running(host, "--ipc", id)?;
            if mode != NamespaceMode::Shareable {
                bail!(
                    "cannot join the IPC namespace of container {name}: it is not shareable (run that one with --ipc shareable)"
                );
            }
            let failed = || format!("cannot join the IPC namespace of container {name}");
            joined.ipc = Some(shared::namespace(first, Kind::Ipc).with_context(failed)?);
            joined.memory = Some(Arc::new(shared::memory(first).with_context(failed)?));
        }
        Ok(joined)
    }

    pub(super) fn pid<'a>(&'a self, spec: &RunSpec) -> Namespace<'a> {
        namespace(&spec.further.pid, self.pid.as_ref())
    }

    pub(super) fn ipc<'a>(&'a self, spec: &RunSpec) -> Namespace<'a> {
        namespace(&spec.further.ipc, self.ipc.as_ref())
    }

    /// What goes with an IPC namespace that is another's.
    pub(super) fn mounts(&self, spec: &RunSpec) -> Vec<Mount> {
        let bind = |path: &str| Mount::new(path, MountSource::Bind { source: path.into(), recursive: true }, false);
        match (&spec.further.ipc, &self.memory) {
            (NamespaceMode::Host, _) => {
                // The host may be without either.
                [SHARED_MEMORY, QUEUES].into_iter().filter(|path| Path::new(path).is_dir()).map(bind).collect()
            }
            (_, Some(memory)) => vec![Mount::new(SHARED_MEMORY, MountSource::Detached(Arc::clone(memory)), false)],
            (_, None) => Vec::new(),
        }
    }
}

fn namespace<'a>(mode: &NamespaceMode, joined: Option<&'a OwnedFd>) -> Namespace<'a> {
    match (mode, joined) {
        (NamespaceMode::Host, _) => Namespace::Host,
        (_, Some(joined)) => Namespace::Join(joined.as_fd()),
        (_, None) => Namespace::New,
    }
}

/// The name of a container that runs, its first process, and whose IPC namespace it has.
fn running(host: &Host, flag: &str, id: &str) -> Result<(String, Process, NamespaceMode)> {
    let container = host.containers.find(id).with_context(|| format!("{flag} container:{id}"))?;
    let name = container.spec.name.clone();
    let Some(run) = container.going_on()? else {
        bail!("{flag} container:{name}: it is not running (amphora start {name})")
    };
    Ok((name, run.running.process(), container.spec.further.ipc))
}
