//! Whether a container is well: a command that is executed in it again and again.
//!
//! A process of its own does that, so that a check that hangs, or prints without end, holds up nobody; the supervisor starts it, and it
//! ends with the container or with the supervisor. What it finds is a record in RUNROOT, which appears by rename.

use std::{
    io::Read,
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use linux_exec::process::Process;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::{end::persistently, probe};
use crate::{
    output,
    records::{
        container::{Check, Container, HealthFound, HealthStatus, RunFound},
        host::Host,
        own_process::OwnProcess,
    },
    spec::{Network, health::Health, ports::Listening, probe::Probe},
};

/// What is kept of a check's output, as with Docker.
const OUTPUT_BYTES: u64 = 4096;
/// How many checks are remembered.
const REMEMBERED: usize = 5;

/// Begins to look after a container that runs.
pub(super) fn begin(host: &Host, container: &Container) -> Option<Child> {
    container.spec.health.as_ref()?;
    let started = persistently(|| container.write_health(&HealthFound::default())).and_then(|()| {
        let mut command = OwnProcess::Health.command(&host.program);
        command.args([&host.paths.root, &host.paths.runroot]).arg(&container.spec.id);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().context("cannot start a process for it")
    });
    started
        .inspect_err(|error| {
            let what = format!("the health of container {} is not looked after: {error:#}", container.spec.name);
            output::note(&format!("amphora: {what}"));
            // Who waits for it to be well learns that nobody looks.
            let _ = container.write_health(&HealthFound::unknown(what));
        })
        .ok()
}

/// Ends what [`begin`] started, of a container that has ended.
pub(super) fn end(container: &Container, process: Option<Child>) {
    if let Some(mut process) = process {
        // It may have seen that itself.
        let _ = process.kill();
        let _ = process.wait();
        container.forget_health(process.id());
    }
}

/// What the process does that [`begin`] starts.
pub(crate) fn look_after(host: &Host, id: &str) -> Result<u8> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let container = host.containers.find(id)?;
    let (Some(health), Some(run)) = (container.spec.health.clone(), persistently(|| container.run())?) else {
        return Ok(0);
    };
    let process = run.running.process();
    // ESRCH: it has ended already.
    let Ok(ended) = persistently(|| Ok(process.pidfd()?)) else { return Ok(0) };
    let begun = Instant::now();
    let mut found = HealthFound::default();
    loop {
        let starts = found.status == HealthStatus::Starting && millis(begun) < health.start_period_ms;
        let pause = if starts { health.start_interval_ms.min(health.interval_ms) } else { health.interval_ms };
        if has_ended(&ended, Duration::from_millis(pause)) {
            return Ok(0);
        }
        // Nothing can be executed in one that is paused, and a record that cannot be read now may be later.
        let goes_on = |run: RunFound| run.running.process() == process && !run.running.paused;
        if !container.going_on().is_ok_and(|run| run.is_some_and(goes_on)) {
            continue;
        }
        let check = check(host, &container, &health, &run);
        if has_ended(&ended, Duration::ZERO) {
            return Ok(0);
        }
        let before = found.status;
        found.note(check, &health, millis(begun) < health.start_period_ms, REMEMBERED);
        // What cannot be written now, on a full disk, is with the next check's.
        let _ = container.write_health(&found);
        if found.status != before {
            container.happened(&format!("health_status: {}", found.status.name()));
        }
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Waits for so long; whether it has ended by then.
fn has_ended(process: &OwnedFd, longest: Duration) -> bool {
    let longest = PollTimeout::try_from(longest).unwrap_or(PollTimeout::MAX);
    poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], longest).is_ok_and(|ready| ready > 0)
}

/// One check. One that could not be made has failed: -1, and why.
fn check(host: &Host, container: &Container, health: &Health, run: &RunFound) -> Check {
    let started_unix_nanos = output::now_nanos();
    let made = match &health.probe {
        Some(probe) => look(container, probe, run, Duration::from_millis(health.timeout_ms)),
        None => execute(host, container, health),
    };
    let (exit_code, output) = made.unwrap_or_else(|error| (-1, format!("the check was not made: {error:#}")));
    Check { started_unix_nanos, finished_unix_nanos: output::now_nanos(), exit_code, output }
}

fn look(container: &Container, probe: &Probe, run: &RunFound, longest: Duration) -> Result<(i32, String)> {
    // Without a network of its own, a program that is given its sockets has them from the host.
    let is_joined = matches!(container.spec.network, Network::Joined(_));
    let is_given = !container.spec.ports.is_empty() && container.spec.listening != Listening::Own;
    let is_opened = is_given && !is_joined;
    probe::check(probe, &run.running, is_opened, longest)
}

fn execute(host: &Host, container: &Container, health: &Health) -> Result<(i32, String)> {
    let mut command = Command::new(&host.program);
    command.arg("--root").arg(&host.paths.root).arg("--runroot").arg(&host.paths.runroot);
    command.args(["exec", &container.spec.id]).args(&health.command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().context("cannot start a health check")?;
    watch(child, Duration::from_millis(health.timeout_ms))
}

/// Waits for a check, and reads what it prints, of which the beginning is kept. One that takes too long is killed: -1, as with Docker.
fn watch(mut child: Child, longest: Duration) -> Result<(i32, String)> {
    let readers = [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)]
        .into_iter()
        .flatten()
        .map(|pipe| thread::spawn(move || beginning(pipe.into())))
        .collect::<Vec<_>>();
    let process = Process::of(i32::try_from(child.id())?).and_then(Process::pidfd);
    let in_time = process.as_ref().is_ok_and(|process| has_ended(process, longest));
    if !in_time {
        // What it started in the container dies with it.
        child.kill().context("cannot end a health check")?;
    }
    // Without a descriptor there is no waiting that ends in time.
    if let Err(error) = process {
        child.wait().context("cannot wait for a health check")?;
        return Err(error).context("cannot watch a health check");
    }
    let code = child.wait().context("cannot wait for a health check")?.code();
    if !in_time {
        // Whoever has its output still open may keep it so.
        return Ok((-1, format!("Health check exceeded timeout ({})", seconds(longest))));
    }
    let output: String = readers.into_iter().filter_map(|reader| reader.join().ok()).collect();
    Ok((code.unwrap_or(-1), output))
}

fn seconds(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}

/// All of it is read, so that whoever prints without end is not held up before his time is over.
fn beginning(mut pipe: std::fs::File) -> String {
    let mut text = Vec::new();
    let _ = pipe.by_ref().take(OUTPUT_BYTES).read_to_end(&mut text);
    let _ = std::io::copy(&mut pipe, &mut std::io::sink());
    String::from_utf8_lossy(&text).into_owned()
}
