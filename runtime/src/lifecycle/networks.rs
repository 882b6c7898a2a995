//! A container that is connected to a network or disconnected from one, while it runs or before it runs again.
//!
//! What it is to be on is written down first. If it runs, its supervisor is then told to look, by a signal, and does what is written: it
//! alone has the locks of the addresses, and whatever kills it kills the container too. It answers by a FIFO in the container's folder,
//! which whoever asks has made, and says with it which networks it has looked for, as an answer may be an older question's.
//! Who is killed before he has asked leaves a record that is ahead of what is; `system check` names it, and `system repair` asks again.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::stat::Mode,
    unistd::mkfifo,
};
use serde::{Deserialize, Serialize};

use super::{
    supervise::{ENDS_WITHIN, LOOK_AT_NETWORKS},
    workload_of,
};
use crate::{
    network::{Attached, Definition, Joined},
    output::{self, errors},
    records::{
        container::{Container, Lock, RunFound},
        host::Host,
    },
    spec::{
        Network, RunSpec,
        network::{DEFAULT_NETWORK, Endpoint},
    },
};

/// How long a supervisor may take: others may start containers at the same time.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

/// What a supervisor says.
#[derive(Serialize, Deserialize)]
struct Answer {
    /// The networks that it looked for.
    wanted: Network,
    error: Option<String>,
}

/// Puts a container on one more network.
pub(crate) fn connect(host: &Host, container: &Container, network: &Definition, wanted: Endpoint) -> Result<()> {
    let lock = container.lock()?;
    let container = host.containers.reload(container)?;
    let spec = &container.spec;
    let endpoints = match &spec.network {
        Network::Joined(endpoints) => endpoints,
        Network::None => bail!(
            "container {0} cannot be connected to multiple networks with one of the networks in private (none) mode: disconnect it \
             from that first (amphora network disconnect none {0})",
            spec.name
        ),
        Network::Host | Network::Container(_) => bail!(
            "container {} shares the network namespace of the host or of another container (--network {}) and cannot be connected to \
             any other network",
            spec.name,
            spec.network.mode()
        ),
    };
    if endpoints.iter().any(|endpoint| endpoint.network == network.name) {
        bail!("endpoint with name {} already exists in network {}", spec.name, network.name);
    }
    if network.name == DEFAULT_NETWORK && !wanted.aliases.is_empty() {
        bail!(
            "network-scoped alias is supported only for containers in user defined networks (amphora network create)"
        );
    }
    host.networks.check_wanted(network, &wanted)?;
    change(host, &container, &lock, [endpoints.as_slice(), &[wanted]].concat())
}

/// Takes a container off a network, which may be gone.
pub(crate) fn disconnect(host: &Host, container: &Container, network: &str) -> Result<()> {
    let lock = container.lock()?;
    let container = host.containers.reload(container)?;
    let spec = &container.spec;
    let rest = match &spec.network {
        Network::Host if network == "host" => bail!(
            "container {} cannot be disconnected from the host's network: make another one (amphora run)",
            spec.name
        ),
        Network::None if network == "none" && container.going_on_under(&lock)?.is_some() => bail!(
            "container {0} runs without a network, and gets none before it runs again: stop it first (amphora stop {0})",
            spec.name
        ),
        Network::None if network == "none" => Vec::new(),
        Network::Joined(endpoints) if endpoints.iter().any(|endpoint| endpoint.network == network) => {
            endpoints.iter().filter(|endpoint| endpoint.network != network).cloned().collect()
        }
        _ => bail!("container {} is not connected to network {network}", spec.name),
    };
    change(host, &container, &lock, rest)
}

fn change(host: &Host, container: &Container, lock: &Lock, endpoints: Vec<Endpoint>) -> Result<()> {
    let spec = &container.spec;
    let revised = RunSpec { network: Network::Joined(endpoints), ..spec.clone() };
    workload_of(host, spec)?.behaviour().check(&revised)?;
    let run = container.going_on_under(lock)?;
    container.revise(lock, &revised)?;
    let Some(run) = run else { return Ok(()) };
    ask(container, &run, &revised.network).inspect_err(|_| {
        // It was on the networks before that it is on now; where that cannot be written, `system check` names it.
        let _ = container.revise(lock, spec);
    })
}

/// Lets the supervisor of a container that runs know that it has another name.
pub(super) fn tell_name(container: &Container, lock: &Lock) -> Result<()> {
    if container.spec.network.endpoints().is_empty() {
        return Ok(());
    }
    container.going_on_under(lock)?.map_or(Ok(()), |run| ask(container, &run, &container.spec.network))
}

/// Lets the supervisor do what is written. Of a container that ends meanwhile there is nothing to do.
fn ask(container: &Container, run: &RunFound, wanted: &Network) -> Result<()> {
    let name = &container.spec.name;
    let supervisor = run.running.supervisor();
    let Ok(process) = run.running.process().pidfd() else { return Ok(()) };
    let Ok(supervised) = supervisor.pidfd() else { return without_supervisor(name, process.as_fd()) };
    let fifo = Fifo::make(container.answer_path())?;
    if supervisor.signal(LOOK_AT_NETWORKS as i32).is_err() {
        return without_supervisor(name, process.as_fd());
    }
    let until = Instant::now() + ANSWERS_WITHIN;
    let mut said = Vec::new();
    while Instant::now() < until {
        let [_, supervisor_ended, has_ended] = wait([fifo.file.as_fd(), supervised.as_fd(), process.as_fd()], until);
        fifo.read(&mut said)?;
        for line in said.split(|&byte| byte == b'\n') {
            match serde_json::from_slice::<Answer>(line) {
                Ok(Answer { wanted: of, error }) if of == *wanted => {
                    return error.map_or(Ok(()), |error| Err(anyhow::anyhow!("{error}")));
                }
                // Not whole yet, or an older question's.
                _ => {}
            }
        }
        if has_ended {
            return Ok(());
        }
        if supervisor_ended {
            return without_supervisor(name, process.as_fd());
        }
    }
    bail!(
        "the amphora process that supervises container {name} (pid {}) does not answer; if it was stopped, kill -CONT {0} lets it go on",
        supervisor.pid
    )
}

/// A container ends with its supervisor, unless its program undoes that.
fn without_supervisor(name: &str, process: BorrowedFd<'_>) -> Result<()> {
    let [has_ended] = wait([process], Instant::now() + ENDS_WITHIN);
    if has_ended {
        return Ok(());
    }
    bail!(
        "the amphora process that supervised container {name} is gone, though it still runs: stop it first (amphora stop {name})"
    )
}

/// Waits until one of these can be read, and says which can be.
fn wait<const N: usize>(fds: [BorrowedFd<'_>; N], until: Instant) -> [bool; N] {
    let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    let _ = poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
    fds.map(|fd| fd.any().unwrap_or(false))
}

/// What a supervisor does when it is told to look.
pub(super) fn follow(host: &Host, container: &Container, attached: Option<&mut Attached>) {
    let followed = || -> Result<()> {
        let now = host.containers.reload(container)?;
        let Some(attached) = attached else { return Ok(()) };
        let done = attached.follow(&now.spec, now.writable()?);
        let error = done.err().map(|error| errors::sentence(&error));
        answer(&now.answer_path(), &Answer { wanted: now.spec.network, error })
    };
    if let Err(error) = followed() {
        output::complain(&error.context(format!("container {}", container.spec.name)));
    }
}

/// Nobody may wait for it any more.
fn answer(path: &Path, answer: &Answer) -> Result<()> {
    let nonblocking = (OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits();
    let Ok(mut file) = fs::OpenOptions::new().write(true).custom_flags(nonblocking).open(path) else { return Ok(()) };
    if !file.metadata().is_ok_and(|found| found.file_type().is_fifo()) {
        return Ok(());
    }
    let line = serde_json::to_string(answer).context("an answer as JSON")? + "\n";
    let _ = file.write_all(line.as_bytes());
    Ok(())
}

/// Removed when it is dropped.
struct Fifo {
    path: PathBuf,
    file: fs::File,
}

impl Fifo {
    /// The caller holds the container's lock, so another one there is left behind.
    fn make(path: PathBuf) -> Result<Self> {
        let make = || -> std::io::Result<fs::File> {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
            // For writing, too, so that it has no end.
            fs::OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&path)
        };
        let file = make().with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path, file })
    }

    /// What has come.
    fn read(&self, said: &mut Vec<u8>) -> Result<()> {
        match (&self.file).read_to_end(said) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => {
                Err(error).with_context(|| format!("cannot read {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Containers that run on other networks than is written, or without their devices, a sentence each; the former are told to look again when
/// `mend`.
pub(crate) fn check(host: &Host, mend: bool) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let (joined, unreadable) = host.networks.of_containers()?;
    if !unreadable.is_empty() {
        // What cannot be read may be what is missing; it is named elsewhere.
        return Ok(found);
    }
    for container in host.containers.list()?.0 {
        if matches!(container.spec.network, Network::Joined(_)) {
            check_container(host, &container, &joined, mend, &mut found)?;
        }
    }
    Ok(found)
}

fn differs(spec: &RunSpec, joined: &Joined) -> bool {
    let mut wanted: Vec<&str> = spec.network.endpoints().iter().map(|endpoint| endpoint.network.as_str()).collect();
    let on = joined.get(&spec.id).map(Vec::as_slice).unwrap_or_default();
    let mut on: Vec<&str> = on.iter().map(|(network, _)| network.name.as_str()).collect();
    wanted.sort_unstable();
    on.sort_unstable();
    wanted != on
}

fn check_container(
    host: &Host,
    container: &Container,
    joined: &Joined,
    mend: bool,
    found: &mut Vec<String>,
) -> Result<()> {
    let leases = joined.get(&container.spec.id).map(Vec::as_slice).unwrap_or_default();
    if !differs(&container.spec, joined) && host.networks.lost_devices(leases)?.is_empty() {
        return Ok(());
    }
    // Who has the lock is about to change it.
    let Some(lock) = container.try_lock()? else { return Ok(()) };
    let Ok(container) = host.containers.reload(container) else { return Ok(()) };
    let Ok(Some(run)) = container.going_on_under(&lock) else { return Ok(()) };
    let joined = host.networks.of_containers()?.0;
    if !differs(&container.spec, &joined) {
        let leases = joined.get(&container.spec.id).map(Vec::as_slice).unwrap_or_default();
        found.extend(host.networks.lost_devices(leases)?);
        return Ok(());
    }
    let networks: Vec<&str> = container.spec.network.endpoints().iter().map(|one| one.network.as_str()).collect();
    let name = &container.spec.name;
    let networks = if networks.is_empty() { "none".to_owned() } else { networks.join(", ") };
    found.push(format!("container {name} is on other networks than it is to be on ({networks})"));
    if mend && let Err(error) = ask(&container, &run, &container.spec.network) {
        found.push(format!("container {name}: {}", errors::sentence(&error)));
    }
    Ok(())
}
