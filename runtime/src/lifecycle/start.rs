//! A start: in the foreground, where this process is the supervisor, or in the background, where one is left behind.

use std::{
    io::{Read, Write},
    os::fd::OwnedFd,
    process::Stdio as ProcessStdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use images::{Image, Selection};
use linux_exec::{
    cgroup::{Cgroup, Cgroups},
    process::Process,
    spawn::{Child, spawn},
};
use nix::sys::signal::Signal;

use super::{
    create::create,
    end::{end, persistently},
    group, happened, health,
    log::Log,
    restart::{self, Restarts},
    streams::{self, Copying, Wiring},
    supervise::Signals,
    timings::Timings,
};
use crate::{
    kinds::{Given, Joined, Prepared, report::Teller},
    network::Attached,
    output::{
        self,
        errors::{self, Coded},
    },
    records::{
        container::{Container, Lock, RunRecord, Running, Status},
        host::Host,
        own_process::OwnProcess,
    },
    spec::{
        FORMAT, Network, RunSpec, Workload, exit_code, logging::LogDriver, network::Endpoint, ports::PublishedPort,
        request::Request,
    },
};

/// A container whose first process has begun.
pub(super) struct Started {
    pub(super) child: Child,
    pub(super) cgroup: Cgroup,
    pub(super) attached: Option<Attached>,
    pub(super) report: Option<Teller>,
    pub(super) timeout_grace: Duration,
    pub(super) copying: Copying,
    pub(super) signals: Signals,
    /// Looks after its health.
    pub(super) health: Option<std::process::Child>,
    pub(super) started_unix_nanos: i64,
    pub(super) record: RunRecord,
    /// Held until the end.
    pub(super) running: Lock,
}

/// Makes a container of an image and runs it in the foreground to its end. Its exit code, which is that of the program; the
/// container stays unless the request says otherwise.
///
/// # Errors
/// A request that cannot be met, and a program that could not be started: nothing runs then.
pub fn run(host: &Host, image: &Image, request: Request) -> Result<u8> {
    let (container, lock) = {
        let _writing = host.store.writing()?;
        create(host, image, request)?
    };
    run_attached(host, &container, image, lock, &mut Timings::off())
}

/// Runs a container in the foreground to its end, and removes it where that was asked for. The exit code.
pub(crate) fn run_attached(
    host: &Host,
    container: &Container,
    image: &Image,
    lock: Lock,
    timings: &mut Timings,
) -> Result<u8> {
    let wiring = match container.spec.auto_remove {
        true if container.spec.log.driver != LogDriver::Journald => Wiring::Direct,
        _ => Wiring::Copied { log: Log::of(container)? },
    };
    let started = start(host, container, image, wiring, timings, 0);
    drop(lock);
    let code = end(host, container, started, timings, &mut Restarts::never());
    timings.stage("clean-up");
    code
}

/// Leaves a supervisor behind, and returns when the container runs, or with the reason why it does not. The caller holds
/// the container's lock until then. `size`: to begin with, of its terminal if it has one.
pub(crate) fn start_detached(host: &Host, container: &Container, lock: &Lock, size: Option<(u16, u16)>) -> Result<()> {
    let mut supervisor = spawn_supervisor(host, container, lock, size)?;
    wait_until_started(&mut supervisor, &format!("container {}", container.spec.name))
}

/// The first half of [`start_detached`], for who lives on and has to wait for the supervisor's end.
pub(crate) fn spawn_supervisor(
    host: &Host,
    container: &Container,
    lock: &Lock,
    size: Option<(u16, u16)>,
) -> Result<std::process::Child> {
    // Its standard input is the lock, until it has begun: who kills us does not let anybody else at what is being started.
    let lock = lock.share().context("cannot pass on the container's lock")?;
    OwnProcess::Supervise
        .command(&host.program)
        .args([&host.paths.root, &host.paths.runroot])
        .arg(&container.spec.id)
        .args(size.filter(|_| container.spec.stdio.terminal).map(|(columns, rows)| format!("{columns}x{rows}")))
        .stdin(lock)
        .stdout(ProcessStdio::piped())
        .stderr(ProcessStdio::inherit())
        .spawn()
        .context("cannot start a supervisor")
}

/// What the process does that [`start_detached`] leaves behind.
pub(crate) fn supervise_in_background(host: &Host, id: &str, size: Option<(u16, u16)>) -> Result<u8> {
    // A session of its own: closing the user's terminal is none of its business. Fails only for a group leader.
    let _ = nix::unistd::setsid();
    let null = streams::nowhere()?;
    let mut container = host.containers.find(id)?;
    let mut restarts = Restarts::as_wanted();
    // We hold the container's lock with whoever started us, who has seen that it does not run.
    let mut started = begin(host, &container, size, restarts.count);
    tell_starter(started.as_ref().err(), &null);
    loop {
        let code = end(host, &container, started, &mut Timings::off(), &mut restarts);
        match restarts.next(host, &container) {
            Ok(None) => return code,
            Ok(Some(next)) => {
                started = begin(host, &next.container, size, restarts.count);
                container = next.into_container();
            }
            Err(error) => {
                restart::complain(&container, error);
                return code;
            }
        }
    }
}

fn begin(host: &Host, container: &Container, size: Option<(u16, u16)>, restart_count: u32) -> Result<Started> {
    container.writable()?;
    let image = image_to_start(host, container)?;
    let wiring = Wiring::Kept { log: Log::of(container)?, size };
    start(host, container, &image, wiring, &mut Timings::off(), restart_count)
}

/// Tells the process that waits for it whether the program has begun, and lets go of its streams.
pub(crate) fn tell_starter(failure: Option<&anyhow::Error>, null: &OwnedFd) {
    let told = match failure {
        None => "started ".to_owned(),
        Some(error) => {
            let code = errors::exit_code(error).map(|code| code.to_string()).unwrap_or_default();
            format!("{code} {}", errors::sentence(error))
        }
    };
    let mut starter = std::io::stdout();
    // It may be gone; the program goes on without it.
    let _ = starter.write_all(told.as_bytes()).and_then(|()| starter.flush());
    streams::detach(null);
}

/// Waits until a process that was left behind tells that its program has begun, or why not.
pub(crate) fn wait_until_started(left: &mut std::process::Child, what: &str) -> Result<()> {
    let mut said = String::new();
    let mut pipe = left.stdout.take().context("the process in the background has no pipe")?;
    pipe.read_to_string(&mut said).context("cannot hear from the process in the background")?;
    match said.split_once(' ') {
        Some(("started", _)) => Ok(()),
        Some(("", message)) => Err(anyhow!("{message}")),
        Some((code, message)) => Err(Coded::new(code.parse().unwrap_or(exit_code::OURS), message).into()),
        None => bail!("the supervisor of {what} ended before it had begun"),
    }
}

/// A container runs once at a time.
pub(crate) fn check_startable(container: &Container, lock: &Lock) -> Result<()> {
    match container.status_under(lock)? {
        Status::Running(_) => bail!("container {} is running already", container.spec.name),
        Status::OutOfReach => Err(container.out_of_reach()),
        // Between two runs its supervisor sees that somebody else was quicker.
        Status::Created | Status::Restarting(..) | Status::Stopped(_) => {
            // Its last supervisor may be about to end.
            persistently(|| container.lock_run()?.context("the lock of its run is held")).map(drop).with_context(|| {
                format!(
                    "container {} has ended, but what it wrote is still being copied to a reader who does not read",
                    container.spec.name
                )
            })
        }
    }
}

/// The image that a container was made from, though its name may belong to another one by now.
pub(super) fn image_of(host: &Host, spec: &RunSpec) -> Result<Image> {
    host.store.resolve(&spec.image.digest, &Selection::default())?.with_context(|| {
        format!(
            "the image {} ({}) of container {} is gone; pull or load it again",
            spec.image.name, spec.image.digest, spec.name
        )
    })
}

/// The image of a container that is about to start. From here on nobody removes it, whatever he knows of the container.
pub(crate) fn image_to_start(host: &Host, container: &Container) -> Result<Image> {
    let _writing = host.store.writing()?;
    host.containers.hold(container)?;
    image_of(host, &container.spec)
}

/// What a container runs, as it was decided when it was made; the image is asked only for a record that does not say.
pub(crate) fn workload_of(host: &Host, spec: &RunSpec) -> Result<Workload> {
    match &spec.image.workload {
        Some(workload) => Ok(workload.clone()),
        None => Workload::of(&image_of(host, spec)?),
    }
}

fn start(
    host: &Host,
    container: &Container,
    image: &Image,
    wiring: Wiring,
    timings: &mut Timings,
    restart_count: u32,
) -> Result<Started> {
    let spec = &container.spec;
    let workload = workload_of(host, spec)?;
    let running = container.begin_run()?;
    let running = running.with_context(|| format!("container {} is running already", spec.name))?;
    if !spec.auto_remove {
        container.presume_end(output::now_nanos())?;
    }
    let signals = Signals::block()?;
    let joined = Joined::open(host, spec)?;
    let mut attached = attach(host, spec)?;
    let cgroup = make_cgroup(&workload, spec)?;
    let begun = || -> Result<_> {
        let (stdio, pending) = streams::prepare(spec.stdio, wiring)?;
        let given = Given { cgroup: &cgroup, attached: attached.as_ref(), joined: &joined };
        let Prepared { mut plan, report, timeout_grace, ports } =
            workload.plan(host, image, container, given, stdio)?;
        timings.stage("prepare");
        // Others may hold up the program's file (a lease on a shared volume, say): the time limit counts from here.
        plan.patience = Signals::patience(spec.limits.timeout_ms.map(|ms| Instant::now() + Duration::from_millis(ms)));
        let mut child = spawn(plan).map_err(|error| signals.explain(&error))?;
        let started_unix_nanos = output::now_nanos();
        timings.stage("spawn");
        let input_fd = pending.input_fd(child.terminal.as_ref());
        let record = note_running(container, &child, started_unix_nanos, restart_count, input_fd, ports)
            .inspect_err(|_| abandon(&child))?;
        let serving = attached.as_mut().map_or(Ok(()), |attached| attached.serve(spec));
        serving.inspect_err(|_| abandon(&child))?;
        let copying = pending.copy(child.terminal.take()).inspect_err(|_| abandon(&child))?;
        Ok((child, report, timeout_grace, copying, started_unix_nanos, record))
    };
    match begun() {
        Ok((child, report, timeout_grace, copying, started_unix_nanos, record)) => {
            let health = health::begin(host, container);
            container.note(&happened::started(spec, attached.as_ref()));
            Ok(Started {
                child,
                cgroup,
                attached,
                report,
                timeout_grace,
                copying,
                signals,
                health,
                started_unix_nanos,
                record,
                running,
            })
        }
        Err(error) => {
            // The first error is the one to tell; a cgroup that stays is found by `system check`.
            let _ = persistently(|| Ok(cgroup.remove()?));
            Err(error)
        }
    }
}

/// A network namespace for who needs another than a new one or the host's.
fn attach(host: &Host, spec: &RunSpec) -> Result<Option<Attached>> {
    match &spec.network {
        Network::None | Network::Host => Ok(None),
        Network::Container(id) => {
            let container = host.containers.find(id)?;
            let Some(run) = container.going_on()? else {
                bail!("cannot join the network of container {}: it is not running", container.spec.name)
            };
            Attached::shared(&host.networks, run.running.pid).map(Some)
        }
        Network::Joined(_) => {
            let attached = Attached::new(&host.networks, spec);
            attached.map(Some).with_context(|| match spec.network.endpoints() {
                // It may never have been asked for.
                [one] if *one == Endpoint::of_default() && spec.ports.is_empty() => format!(
                    "cannot connect container {} to the default network (--network none runs it without one)",
                    spec.name
                ),
                _ => format!("cannot connect container {} to its networks", spec.name),
            })
        }
    }
}

/// A child that nobody can supervise must not go on.
pub(crate) fn abandon(child: &Child) {
    let _ = child.process.signal(Signal::SIGKILL as i32);
    let _ = linux_exec::spawn::reap(child);
}

/// Every limit that was asked for is enforced, or the container does not start.
fn make_cgroup(workload: &Workload, spec: &RunSpec) -> Result<Cgroup> {
    let place = group::place(spec)?;
    let shares_pids = !spec.further.pid.is_own();
    if shares_pids {
        // No namespace has ended with a run whose supervisor was killed.
        group::remove_leftover(&place)?;
    }
    let cgroups = Cgroups::detect()?;
    let mut resources = workload.resources(spec)?;
    let mut unenforceable = cgroups.unenforceable(&resources);
    if !unenforceable.is_empty() && workload.behaviour().limits_memory_itself() {
        (resources.memory_bytes, resources.memory_swap_bytes) = (None, None);
        unenforceable = cgroups.unenforceable(&resources);
    }
    if !unenforceable.is_empty() {
        bail!("cannot enforce what was asked for, so {} is not started: {}", spec.name, unenforceable.join("; "));
    }
    let cgroup = cgroups.create_at(&place, &resources)?;
    if let Some(parent) = spec.further.cgroup_parent.as_ref().filter(|_| cgroup.paths().is_empty()) {
        bail!("--cgroup-parent {parent}: no cgroup can be made there (run as root, or where cgroup v2 is delegated)");
    }
    if shares_pids && cgroup.paths().is_empty() {
        bail!(
            "--pid {}: without a pid namespace of its own a container's processes are known by its cgroup, and none can be made here \
             (run as root, or where cgroup v2 is delegated)",
            spec.further.pid
        );
    }
    if resources.restrict_devices && !cgroup.restricts_devices() {
        output::note(&format!(
            "amphora: warning: with the capabilities that it was given, {} can make device nodes that work, and this machine has no \
             cgroup controller for devices to keep it from that (v1: mount the hierarchy `devices`; v2: needs bpf(2))",
            spec.name
        ));
    }
    Ok(cgroup)
}

fn note_running(
    container: &Container,
    child: &Child,
    started_unix_nanos: i64,
    restart_count: u32,
    input_fd: Option<i32>,
    ports: Vec<PublishedPort>,
) -> Result<RunRecord> {
    let own = Process::own().context("cannot read our own start time")?;
    container.write_running(&Running {
        format: FORMAT,
        pid: child.process.pid,
        start_ticks: child.process.start_ticks,
        supervisor_pid: own.pid,
        supervisor_start_ticks: own.start_ticks,
        started_unix_nanos,
        paused: false,
        regrouped: false,
        restarting: false,
        restart_count,
        input_fd,
        ports,
    })
}
