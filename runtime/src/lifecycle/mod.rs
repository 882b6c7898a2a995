//! A container's life: created, started, supervised, ended, removed. One code path for both kinds.
//!
//! There is no daemon. `run` in the foreground is itself the supervisor of its container; `run -d` and `start` leave a
//! process of their own behind for that. A container dies with its supervisor.
//!
//! Once the program has begun, its end is what counts: it reaches whoever waits and whoever asks later, whatever else fails.

pub(crate) mod log;
pub(crate) mod streams;
pub(crate) mod supervise;
pub(crate) mod terminal;
pub(crate) mod timings;

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
    kinds::{Prepared, report::Report},
    lifecycle::{
        streams::{Copying, Wiring},
        supervise::{Ending, Signals, StopRule},
        timings::Timings,
    },
    output::{
        self,
        errors::{self, Coded},
    },
    records::{
        container::{Container, Ended, LimitHit, Lock, RunRecord, Running, Status, Unreadable},
        host::Host,
    },
    spec::{FORMAT, Kind, RunSpec, Workload},
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
    record: RunRecord,
    /// What our other children had used up before.
    cpu_before_ms: i64,
    /// Held until the end.
    _running: Lock,
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
    let ended = end(host, container, started, timings);
    timings.stage("clean-up");
    ended.map(|ended| ended.exit_code)
}

/// Leaves a supervisor behind, and returns when the container runs, or with the reason why it does not. The caller holds
/// the container's lock until then.
pub(crate) fn start_detached(host: &Host, container: &Container, _lock: &Lock) -> Result<()> {
    let supervisor = Command::new("/proc/self/exe")
        .arg(crate::SUPERVISE)
        .args([&host.paths.root, &host.paths.runroot])
        .arg(&container.spec.id)
        .stdin(ProcessStdio::null())
        .stdout(ProcessStdio::piped())
        .stderr(ProcessStdio::inherit())
        .spawn()
        .context("cannot start a supervisor")?;
    wait_until_started(supervisor, &format!("container {}", container.spec.name))
}

/// What the process does that [`start_detached`] leaves behind.
pub(crate) fn supervise_in_background(host: &Host, id: &str) -> Result<u8> {
    // A session of its own: closing the user's terminal is none of its business. Fails only for a group leader.
    let _ = nix::unistd::setsid();
    let null = streams::nowhere()?;
    let container = host.containers.find(id)?;
    // Whoever started us holds the container's lock, and has seen that it does not run.
    let started = container.writable().and_then(|_| image_of(host, &container.spec)).and_then(|image| {
        let wiring = Wiring::Copied { attached: false, log: Some(container.log_path()) };
        start(host, &container, &image, wiring, &mut Timings::off())
    });
    tell_starter(started.as_ref().err(), &null);
    end(host, &container, started, &mut Timings::off()).map(|ended| ended.exit_code)
}

/// Tells the process that waits for it whether the program has begun, and lets go of its streams.
pub(crate) fn tell_starter(failure: Option<&anyhow::Error>, null: &OwnedFd) {
    let told = match failure {
        None => "started ".to_owned(),
        Some(error) => format!("{} {}", errors::exit_code(error), errors::sentence(error)),
    };
    let mut starter = std::io::stdout();
    // It may be gone; the program goes on without it.
    let _ = starter.write_all(told.as_bytes()).and_then(|()| starter.flush());
    streams::detach(null);
}

/// Waits until a process that was left behind tells that its program has begun, or why not.
pub(crate) fn wait_until_started(mut left: std::process::Child, what: &str) -> Result<()> {
    let mut said = String::new();
    let mut pipe = left.stdout.take().context("the process in the background has no pipe")?;
    pipe.read_to_string(&mut said).context("cannot hear from the process in the background")?;
    match said.split_once(' ') {
        Some(("started", _)) => Ok(()),
        Some((code, message)) => Err(Coded::new(code.parse().unwrap_or(125), message).into()),
        None => bail!("the supervisor of {what} ended before it had begun"),
    }
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

/// What a container runs, as it was decided when it was made; the image is asked only for a record that does not say.
pub(crate) fn workload_of(host: &Host, spec: &RunSpec) -> Result<Workload> {
    match (&spec.image.workload, spec.image.kind) {
        (Some(workload), _) => Ok(workload.clone()),
        (None, Kind::Linux) => Ok(Workload::Linux),
        (None, Kind::Wasm) => Workload::of(&image_of(host, spec)?),
    }
}

fn start(host: &Host, container: &Container, image: &Image, wiring: Wiring, timings: &mut Timings) -> Result<Started> {
    let spec = &container.spec;
    let workload = workload_of(host, spec)?;
    let running = container.lock_run()?;
    let running = running.with_context(|| format!("container {} is running already", spec.name))?;
    let signals = Signals::block()?;
    let cgroup = make_cgroup(&workload, spec)?;
    let begun = || -> Result<_> {
        let (stdio, pending) = streams::prepare(spec.stdio, wiring, streams::is_root(&spec.user))?;
        let Prepared { plan, report, timeout_grace } = workload.plan(host, image, container, &cgroup, stdio)?;
        timings.stage("prepare");
        let cpu_before_ms = if spec.limits.has_cpu_time() { children_cpu_ms() } else { 0 };
        let mut child = spawn(plan).map_err(|error| spawn_error(&error))?;
        let started_unix_nanos = output::now_nanos();
        timings.stage("spawn");
        let record = note_running(container, &child, started_unix_nanos).inspect_err(|_| abandon(&child))?;
        let copying = pending.copy(child.terminal.take()).inspect_err(|_| abandon(&child))?;
        Ok((child, report, timeout_grace, copying, started_unix_nanos, record, cpu_before_ms))
    };
    match begun() {
        Ok((child, report, timeout_grace, copying, started_unix_nanos, record, cpu_before_ms)) => Ok(Started {
            child,
            cgroup,
            report,
            timeout_grace,
            copying,
            signals,
            started_unix_nanos,
            record,
            cpu_before_ms,
            _running: running,
        }),
        Err(error) => {
            // The first error is the one to tell; a cgroup that stays is found by `system check`.
            let _ = persistently(|| Ok(cgroup.remove()?));
            Err(error)
        }
    }
}

/// A child that nobody can supervise must not go on.
pub(crate) fn abandon(child: &Child) {
    let _ = child.process.signal(Signal::SIGKILL as i32);
    let _ = linux_exec::spawn::reap(child);
}

fn spawn_error(error: &SpawnError) -> anyhow::Error {
    Coded::new(error.exit_code(), error.to_string()).into()
}

/// Every limit that was asked for is enforced, or the container does not start.
fn make_cgroup(workload: &Workload, spec: &RunSpec) -> Result<Cgroup> {
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
    let cgroup = cgroups.create(&spec.id, &resources)?;
    if resources.restrict_devices && !cgroup.restricts_devices() {
        output::note(&format!(
            "amphora: warning: with the capabilities that it was given, {} can make device nodes that work, and this machine has no \
             cgroup controller for devices to keep it from that (v1: mount the hierarchy `devices`; v2: needs bpf(2))",
            spec.name
        ));
    }
    Ok(cgroup)
}

fn note_running(container: &Container, child: &Child, started_unix_nanos: i64) -> Result<RunRecord> {
    let own_pid = i32::try_from(std::process::id())?;
    let own = Process::of(own_pid).context("cannot read our own start time")?;
    container.write_running(&Running {
        format: FORMAT,
        pid: child.process.pid,
        start_ticks: child.process.start_ticks,
        supervisor_pid: own.pid,
        supervisor_start_ticks: own.start_ticks,
        started_unix_nanos,
    })
}

/// Supervises what was started, and leaves the container as it is to be afterwards. Fails only if the program has not begun,
/// or the kernel does not say how it ended.
fn end(host: &Host, container: &Container, started: Result<Started>, timings: &mut Timings) -> Result<Ended> {
    let (ended, record, _running) = match started {
        Ok(started) => {
            let (ended, record, running) = finish(container, started, timings);
            (ended, Some(record), Some(running))
        }
        Err(error) => (Err(error), None, None),
    };
    settle(host, container, ended.as_ref(), record.as_ref());
    ended
}

/// Supervises to the end, and takes down what `start` made.
fn finish(container: &Container, started: Started, timings: &mut Timings) -> (Result<Ended>, RunRecord, Lock) {
    let spec = &container.spec;
    let Started { child, cgroup, report, timeout_grace, copying, signals, record, _running: running, .. } = started;
    let rule = StopRule {
        time_limit: spec.limits.timeout_ms.map(|ms| Duration::from_millis(ms) + timeout_grace),
        stop_signal: spec.stop_signal,
        stop_timeout: spec.stop_timeout_ms.map(Duration::from_millis),
    };
    let ending = supervise::supervise(&child, &signals, rule, &|| copying.resize());
    let not_copied = copying.finish();
    timings.stage("run");
    let told = report.map(Report::read);
    // Of what is removed now nobody can ask what it used.
    let usage = if spec.auto_remove { Usage::default() } else { cgroup.usage() };
    let removed = persistently(|| Ok(cgroup.remove()?));
    let ended = ending.map(|ending| {
        let mut ended = judge(spec, ending, &usage, told, children_cpu_ms() - started.cpu_before_ms);
        ended.started_unix_nanos = started.started_unix_nanos;
        ended.finished_unix_nanos = output::now_nanos();
        // Whatever still holds the cgroup cannot be helped here; `system check` finds it.
        let problems = not_copied.into_iter().chain(removed.err().map(|error| errors::sentence(&error)));
        ended.error = ended.error.or(problems.reduce(|first, second| format!("{first}; {second}")));
        ended
    });
    (ended, record, running)
}

/// Does what may fail for want of descriptors or memory in one moment and not in the next.
fn persistently<T>(action: impl Fn() -> Result<T>) -> Result<T> {
    const PAUSES_MS: [u64; 4] = [1, 10, 50, 200];
    for pause in PAUSES_MS {
        if let Ok(done) = action() {
            return Ok(done);
        }
        std::thread::sleep(Duration::from_millis(pause));
    }
    action()
}

/// Exit code and limit, from what the kernel said, and the first process if it is one that tells (outer `Some`) and did.
fn judge(spec: &RunSpec, ending: Ending, usage: &Usage, told: Option<Option<Report>>, cpu_ms: i64) -> Ended {
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
        () if killed_by(Signal::SIGKILL) && has_used_up_cpu(spec, cpu_ms) => Some(LimitHit::Cpu),
        () if usage.pids_refused > 0 => Some(LimitHit::Pids),
        // It was refused memory, and ended by itself.
        () if report.memory_refused => Some(LimitHit::Memory),
        () => None,
    };
    let exit_code = match ending.exit {
        _ if timed_out => 124,
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128u8.saturating_add(signal),
    };
    Ended {
        format: FORMAT,
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

/// Whether the container used its `--ulimit cpu`: a program that ignores the SIGXCPU of the soft limit gets the SIGKILL of
/// the hard one.
fn has_used_up_cpu(spec: &RunSpec, used_ms: i64) -> bool {
    // The limit counts whole ticks, and this figure the time in between: a program that shares its processor with others is charged
    // their parts of its ticks too, on a busy machine a third and more.
    const LEAST_MS_OF_A_SECOND: u64 = 600;
    let Some(limit) = spec.limits.ulimits.iter().find(|ulimit| ulimit.name == "cpu") else { return false };
    u64::try_from(used_ms).is_ok_and(|used_ms| used_ms / LEAST_MS_OF_A_SECOND >= limit.soft)
}

/// What those of our children have used that were waited for: a compiler, then the container.
fn children_cpu_ms() -> i64 {
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0, |used| (used.user_time() + used.system_time()).num_milliseconds())
}

/// Writes the end down, or removes the container. What cannot be done is said, and changes nothing of the end: the record of
/// the run has it, and `system check` finds what is left.
fn settle(host: &Host, container: &Container, ended: Result<&Ended, &anyhow::Error>, record: Option<&RunRecord>) {
    let ended = match ended {
        Ok(ended) => ended.clone(),
        Err(error) => {
            let now = output::now_nanos();
            Ended {
                format: FORMAT,
                exit_code: errors::exit_code(error),
                error: Some(errors::sentence(error)),
                started_unix_nanos: now,
                finished_unix_nanos: now,
                ..Ended::default()
            }
        }
    };
    let name = &container.spec.name;
    if let Some(Err(error)) = record.map(|record| record.note_end(&ended)) {
        output::complain(&error.context(format!("container {name}")));
    }
    let settled = match container.spec.auto_remove {
        true => persistently(|| match container.lock_if_there()? {
            Some(_lock) => host.containers.delete(container),
            None => container.forget_running(),
        })
        .with_context(|| format!("container {name} has ended and cannot be removed (amphora system prune does)")),
        false => persistently(|| container.write_ended(&ended))
            .with_context(|| format!("container {name} has ended with {}, which cannot be noted", ended.exit_code)),
    };
    if let Err(error) = settled {
        output::complain(&error);
    }
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

/// Waits until the run that goes on has ended, and gives its end, though the container may be gone by then; or the end of
/// the last run. None: it has never run.
pub(crate) fn wait(container: &Container) -> Result<Option<Ended>> {
    // Held open while we wait: the end is read from it.
    if let Some(run) = container.run()? {
        wait_for(run.running.process(), None)?;
        wait_for(run.running.supervisor(), None)?;
        return container.end_of(&run).map(Some);
    }
    match container.status()? {
        Status::Stopped(ended) => Ok(Some(ended)),
        Status::Created | Status::Running(_) => Ok(None),
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
    kill_run(&running)
}

/// The same for what cannot be read, as far as it is known to run.
pub(crate) fn kill_unreadable(container: &Unreadable) -> Result<()> {
    container.running.as_ref().map_or(Ok(()), kill_run)
}

fn kill_run(running: &Running) -> Result<()> {
    kill(running, Signal::SIGKILL as i32)?;
    wait_for(running.process(), None)?;
    wait_for(running.supervisor(), None).map(drop)
}

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
        let Some(_run) = container.lock_run()? else { continue };
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
