//! A container's life: created, started, supervised, ended, removed. One code path for both kinds.
//!
//! There is no daemon. `run` in the foreground is itself the supervisor of its container; `run -d` and `start` leave a
//! process of their own behind for that. A container dies with its supervisor.

use std::{
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Command, Stdio as ProcessStdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use images::{Image, Selection};
use linux_exec::{
    cgroup::{Cgroup, Cgroups, Usage},
    process::Process,
    spawn::{Child, Exit, SpawnError, spawn},
};
use nix::sys::{
    resource::{UsageWho, getrusage},
    signal::Signal,
    time::TimeValLike,
};

use crate::{
    container::{Container, Ended, LimitHit, Lock, Running, Status},
    errors::{self, Coded},
    host::Host,
    output,
    report::Report,
    spec::RunSpec,
    streams::{self, Copying, Wiring},
    supervise::{self, Ending, Signals, StopRule},
    target::{Prepared, Target},
    timings::Timings,
};

/// A container whose first process has begun.
struct Started {
    child: Child,
    cgroup: Cgroup,
    report: Option<OwnedFd>,
    timeout_grace: Duration,
    copying: Copying,
    signals: Signals,
    started_unix_nanos: i64,
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
        true => Wiring::Direct,
        false => Wiring::Copied { attached: true, log: Some(container.log_path()) },
    };
    let started = start(host, container, image, wiring, timings);
    drop(lock);
    let ended = started.and_then(|started| finish(container, started, timings));
    let ended = settle(host, container, ended);
    timings.stage("clean-up");
    ended.map(|ended| ended.exit_code)
}

/// Leaves a supervisor behind, and returns when the container runs, or with the reason why it does not. The caller holds
/// the container's lock until then.
pub(crate) fn start_detached(host: &Host, container: &Container, _lock: &Lock) -> Result<()> {
    let mut supervisor = Command::new("/proc/self/exe")
        .arg(crate::SUPERVISE)
        .args([&host.paths.root, &host.paths.runroot])
        .arg(&container.spec.id)
        .stdin(ProcessStdio::null())
        .stdout(ProcessStdio::piped())
        .stderr(ProcessStdio::inherit())
        .spawn()
        .context("cannot start a supervisor")?;
    let mut said = String::new();
    let mut pipe = supervisor.stdout.take().context("the supervisor has no pipe")?;
    pipe.read_to_string(&mut said).context("cannot hear from the supervisor")?;
    match said.split_once(' ') {
        Some(("started", _)) => Ok(()),
        Some((code, message)) => Err(Coded::new(code.parse().unwrap_or(125), message).into()),
        None => bail!("the supervisor of container {} ended before the container had begun", container.spec.name),
    }
}

/// What the process does that [`start_detached`] leaves behind.
pub(crate) fn supervise_in_background(host: &Host, id: &str) -> Result<u8> {
    let container = host.containers.find(id)?;
    // A session of its own: closing the user's terminal is none of its business. Fails only for a group leader.
    let _ = nix::unistd::setsid();
    container.writable()?;
    let wiring = Wiring::Copied { attached: false, log: Some(container.log_path()) };
    // Whoever started us holds the container's lock, and has seen that it does not run.
    let started =
        image_of(host, &container.spec).and_then(|image| start(host, &container, &image, wiring, &mut Timings::off()));
    let told = match &started {
        Ok(_) => "started ".to_owned(),
        Err(error) => format!("{} {}", errors::exit_code(error), errors::sentence(error)),
    };
    let mut starter = std::io::stdout();
    starter.write_all(told.as_bytes()).and_then(|()| starter.flush()).context("nobody listens")?;
    streams::detach()?;
    let ended = started.and_then(|started| finish(&container, started, &mut Timings::off()));
    settle(host, &container, ended).map(|ended| ended.exit_code)
}

/// A container runs once at a time.
pub(crate) fn check_startable(container: &Container) -> Result<()> {
    match container.status()? {
        Status::Running(_) => bail!("container {} is running already", container.spec.name),
        Status::Created | Status::Stopped(_) => Ok(()),
    }
}

/// The image that a container was made from, though its name may belong to another one by now.
pub(crate) fn image_of(host: &Host, spec: &RunSpec) -> Result<Image> {
    host.store.resolve(&spec.image.digest, &Selection::default())?.with_context(|| {
        format!(
            "the image {} ({}) of container {} is gone; pull or load it again",
            spec.image.name, spec.image.digest, spec.name
        )
    })
}

fn start(host: &Host, container: &Container, image: &Image, wiring: Wiring, timings: &mut Timings) -> Result<Started> {
    let spec = &container.spec;
    let target = Target::of(image)?;
    let signals = Signals::block()?;
    let cgroup = make_cgroup(&target, spec)?;
    let (stdio, pending) = streams::prepare(spec.stdio, wiring)?;
    let begun = || -> Result<_> {
        let Prepared { plan, report, timeout_grace } = target.plan(host, image, container, &cgroup, stdio)?;
        timings.stage("prepare");
        let mut child = spawn(plan).map_err(|error| spawn_error(&error))?;
        let started_unix_nanos = output::now_nanos();
        timings.stage("spawn");
        note_running(container, &child, started_unix_nanos).inspect_err(|_| abandon(&child))?;
        let copying = pending.copy(child.terminal.take()).inspect_err(|_| abandon(&child))?;
        Ok((child, report, timeout_grace, copying, started_unix_nanos))
    };
    match begun() {
        Ok((child, report, timeout_grace, copying, started_unix_nanos)) => {
            Ok(Started { child, cgroup, report, timeout_grace, copying, signals, started_unix_nanos })
        }
        Err(error) => {
            // The first error is the one to tell; a cgroup that stays is found by `system check`.
            let _ = cgroup.remove();
            Err(error)
        }
    }
}

/// A child that nobody can supervise must not go on.
fn abandon(child: &Child) {
    let _ = child.process.signal(Signal::SIGKILL as i32);
    let _ = linux_exec::spawn::reap(child);
}

fn spawn_error(error: &SpawnError) -> anyhow::Error {
    Coded::new(error.exit_code(), error.to_string()).into()
}

/// Every limit that was asked for is enforced, or the container does not start.
fn make_cgroup(target: &Target, spec: &RunSpec) -> Result<Cgroup> {
    let cgroups = Cgroups::detect()?;
    let mut resources = target.resources(&spec.limits);
    let mut unenforceable = cgroups.unenforceable(&resources);
    if !unenforceable.is_empty() && target.memory_without_cgroup() {
        (resources.memory_bytes, resources.memory_swap_bytes) = (None, None);
        unenforceable = cgroups.unenforceable(&resources);
    }
    if !unenforceable.is_empty() {
        bail!("cannot enforce what was asked for, so {} is not started: {}", spec.name, unenforceable.join("; "));
    }
    Ok(cgroups.create(&spec.id, &resources)?)
}

fn note_running(container: &Container, child: &Child, started_unix_nanos: i64) -> Result<()> {
    let own_pid = i32::try_from(std::process::id())?;
    let own = Process::of(own_pid).context("cannot read our own start time")?;
    container.write_running(&Running {
        pid: child.process.pid,
        start_ticks: child.process.start_ticks,
        supervisor_pid: own.pid,
        supervisor_start_ticks: own.start_ticks,
        started_unix_nanos,
    })
}

/// Supervises to the end, and takes down what `start` made.
fn finish(container: &Container, started: Started, timings: &mut Timings) -> Result<Ended> {
    let spec = &container.spec;
    let Started { child, cgroup, report, timeout_grace, copying, signals, started_unix_nanos } = started;
    let rule = StopRule {
        time_limit: spec.limits.timeout_ms.map(|ms| Duration::from_millis(ms) + timeout_grace),
        stop_signal: spec.stop_signal,
        stop_timeout: spec.stop_timeout_ms.map(Duration::from_millis),
    };
    let ending = supervise::supervise(&child, &signals, rule, &|| copying.resize())?;
    copying.finish();
    timings.stage("run");
    let told = report.map(Report::read);
    // Of what is removed now nobody can ask what it used.
    let usage = if spec.auto_remove { Usage::default() } else { cgroup.usage() };
    // Whatever still holds the cgroup cannot be helped here; `system check` finds it.
    let removed = cgroup.remove();
    let mut ended = judge(spec, ending, &usage, told);
    ended.started_unix_nanos = started_unix_nanos;
    ended.finished_unix_nanos = output::now_nanos();
    if let Err(error) = removed {
        ended.error.get_or_insert_with(|| error.to_string());
    }
    Ok(ended)
}

/// Exit code and limit, from what the kernel said, and the first process if it is one that tells (outer `Some`) and did.
fn judge(spec: &RunSpec, ending: Ending, usage: &Usage, told: Option<Option<Report>>) -> Ended {
    let silent = matches!(told, Some(None));
    let report = told.flatten().unwrap_or_default();
    let signal = match ending.exit {
        Exit::Signal(signal) => Some(signal),
        // The engine says nothing only where a signal ends it, and then ends with 128 + n.
        Exit::Code(code) if silent => code.checked_sub(128),
        Exit::Code(_) => report.signal,
    };
    let killed_by = |wanted: Signal| signal.is_some_and(|signal| i32::from(signal) == wanted as i32);
    let timed_out = ending.timed_out || report.timed_out;
    let oom_killed = usage.oom_kills > 0 || report.out_of_memory;
    let limit_hit = match () {
        () if timed_out => Some(LimitHit::Timeout),
        () if oom_killed => Some(LimitHit::Memory),
        () if report.out_of_fuel => Some(LimitHit::Fuel),
        () if killed_by(Signal::SIGXFSZ) => Some(LimitHit::Fsize),
        () if killed_by(Signal::SIGXCPU) => Some(LimitHit::Cpu),
        () if killed_by(Signal::SIGKILL) && has_used_up_cpu(spec) => Some(LimitHit::Cpu),
        () if usage.pids_refused > 0 => Some(LimitHit::Pids),
        () => None,
    };
    let exit_code = match ending.exit {
        _ if timed_out => 124,
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128u8.saturating_add(signal),
    };
    Ended {
        exit_code,
        oom_killed,
        limit_hit,
        error: report.error.clone(),
        peak_memory_bytes: usage.peak_memory_bytes.or(Some(ending.peak_rss_bytes)),
        cpu_usec: usage.cpu_usec,
        pids_refused: usage.pids_refused,
        fuel_used: spec.limits.fuel.and(report.fuel_used),
        ..Ended::default()
    }
}

/// Whether the container, our only child so far, used its `--ulimit cpu`: a program that ignores the SIGXCPU of the soft
/// limit gets the SIGKILL of the hard one.
fn has_used_up_cpu(spec: &RunSpec) -> bool {
    // The kernel's two ways of counting differ by some milliseconds.
    const TOLERANCE_MS: i64 = 100;
    let Some(limit) = spec.limits.ulimits.iter().find(|ulimit| ulimit.name == "cpu") else { return false };
    getrusage(UsageWho::RUSAGE_CHILDREN).is_ok_and(|used| {
        let used_ms = (used.user_time() + used.system_time()).num_milliseconds() + TOLERANCE_MS;
        u64::try_from(used_ms).is_ok_and(|used_ms| used_ms / 1000 >= limit.soft)
    })
}

/// Writes the end down, or removes the container; of two errors the first one counts.
fn settle(host: &Host, container: &Container, ended: Result<Ended>) -> Result<Ended> {
    if container.spec.auto_remove {
        let deleted = container.lock().and_then(|_lock| host.containers.delete(container));
        return ended.and_then(|ended| deleted.map(|()| ended));
    }
    let noted = match &ended {
        Ok(ended) => container.write_ended(ended),
        Err(error) => {
            let now = output::now_nanos();
            container.write_ended(&Ended {
                exit_code: errors::exit_code(error),
                error: Some(errors::sentence(error)),
                started_unix_nanos: now,
                finished_unix_nanos: now,
                ..Ended::default()
            })
        }
    };
    ended.and_then(|ended| noted.map(|()| ended))
}

/// Stops a running container: its stop signal, then SIGKILL (None: never); returns when its end has been written down.
pub(crate) fn stop(container: &Container, timeout_ms: Option<u64>) -> Result<()> {
    let Status::Running(running) = container.status()? else { return Ok(()) };
    let timeout = timeout_ms.map(Duration::from_millis);
    let grace = supervise::stop(running.process(), container.spec.stop_signal, timeout);
    if !wait_for(running.process(), grace)? {
        kill(&running, Signal::SIGKILL as i32)?;
        wait_for(running.process(), None)?;
    }
    wait_for(running.supervisor(), None).map(drop)
}

/// Sends a signal to a running container's first process.
pub(crate) fn kill(running: &Running, signal: i32) -> Result<()> {
    match running.process().signal(signal) {
        Err(error) if error.raw_os_error() != Some(nix::libc::ESRCH) => Err(error).context("cannot send the signal"),
        _ => Ok(()),
    }
}

/// Waits until the run that goes on has ended and has been written down; None if none goes on.
pub(crate) fn wait(container: &Container) -> Result<()> {
    match container.status()? {
        Status::Running(running) => {
            wait_for(running.process(), None)?;
            wait_for(running.supervisor(), None).map(drop)
        }
        Status::Created | Status::Stopped(_) => Ok(()),
    }
}

/// Whether the process ended in time (None: however long it takes).
fn wait_for(process: Process, timeout: Option<Duration>) -> Result<bool> {
    let pidfd = match process.pidfd() {
        Ok(pidfd) => pidfd,
        Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => return Ok(true),
        Err(error) => return Err(error).context("cannot watch the process"),
    };
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let timeout = timeout.map_or(PollTimeout::NONE, |t| PollTimeout::try_from(t).unwrap_or(PollTimeout::MAX));
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, timeout).context("cannot wait for the process")? > 0)
}

/// Kills a container that runs, and waits until its end has been written down.
pub(crate) fn kill_and_wait(container: &Container) -> Result<()> {
    let Status::Running(running) = container.status()? else { return Ok(()) };
    kill(&running, Signal::SIGKILL as i32)?;
    wait_for(running.process(), None)?;
    wait_for(running.supervisor(), None).map(drop)
}

/// Removes a container that does not run. Its anonymous volumes go with it when `volumes`.
pub(crate) fn remove(host: &Host, container: &Container, volumes: bool) -> Result<()> {
    if container.spec.auto_remove && !container.exists() {
        return Ok(());
    }
    // Under the lock, as one that is being started now would run by then.
    let _lock = container.lock()?;
    let name = &container.spec.name;
    if let Status::Running(_) = container.status()? {
        bail!("container {name} is running: stop it first (amphora stop {name}), or use rm -f");
    }
    discard(host, container, volumes)
}

/// Removes a container unless it runs, or another command is about to start or remove it; whether it did.
pub(crate) fn remove_idle(host: &Host, container: &Container) -> Result<bool> {
    let Some(_lock) = container.try_lock()? else { return Ok(false) };
    match container.status()? {
        Status::Running(_) => Ok(false),
        Status::Created | Status::Stopped(_) => discard(host, container, false).map(|()| true),
    }
}

fn discard(host: &Host, container: &Container, volumes: bool) -> Result<()> {
    leftover_cgroup(&container.spec.id)?;
    if volumes {
        host.volumes.remove_unnamed_of(container)?;
    }
    host.containers.delete(container)
}

/// A supervisor that was killed leaves its cgroup.
fn leftover_cgroup(id: &str) -> Result<()> {
    if let Some(cgroup) = Cgroups::detect()?.open(id) {
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
        let Some(cgroup) = cgroups.open(&id).filter(|_| !running) else { continue };
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
