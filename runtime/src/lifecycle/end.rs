//! An end: what it was, and what becomes of it. Once the program has begun, it reaches whoever waits and whoever asks later,
//! whatever else fails.

use std::time::Duration;

use anyhow::{Context, Result};
use linux_exec::{cgroup::Usage, spawn::Exit};
use nix::{poll::PollTimeout, sys::signal::Signal};

use super::{
    group, happened, health, networks,
    restart::Restarts,
    start::Started,
    streams::NotCopied,
    supervise::{self, Duties, Ending, StopRule},
    timings::Timings,
};
use crate::{
    kinds::report::{Report, Told},
    network::Attached,
    output::{self, errors},
    records::{
        container::{Container, Ended, EngineRecord, LimitHit},
        host::Host,
    },
    spec::{FORMAT, RunSpec, exit_code},
};

/// Supervises what was started, and leaves the container as it is to be afterwards. Fails only if the program has not begun,
/// or the kernel does not say how it ended. The exit code for our caller.
pub(super) fn end(
    host: &Host,
    container: &Container,
    started: Result<Started>,
    timings: &mut Timings,
    restarts: &mut Restarts,
) -> Result<u8> {
    match started {
        Ok(started) => finish(host, container, started, timings, restarts),
        Err(error) => {
            if settle(host, container, &not_known(&error)) && container.spec.auto_remove {
                container.note(&[happened::destroyed(&container.spec)]);
            }
            Err(error)
        }
    }
}

/// Keeps what an engine told of a trap, and says where core dumps lie.
fn note_trap(container: &Container, told: &Told) -> Result<()> {
    let Told::Report(report) = told else { return Ok(()) };
    for path in &report.core_dumps {
        output::note(&format!("amphora: core dump: {path}"));
    }
    if container.spec.auto_remove || (report.trap.is_none() && report.core_dumps.is_empty()) {
        return Ok(());
    }
    let mut record = match &report.trap {
        Some(trap) => EngineRecord {
            traps: 1,
            peak_memory_bytes: report.peak_memory_bytes,
            fuel_used: report.fuel_used,
            last_trap: Some(trap.clone()),
            ..EngineRecord::default()
        },
        // A server has told all of it itself.
        None => container.engine().unwrap_or_default(),
    };
    record.core_dumps.clone_from(&report.core_dumps);
    record.write_to(&container.new_engine_file()?)
}

/// How long the reader of its output may hold up what comes after a container's end. Who reads so slowly gets all of it still.
const READER_WAITS_MS: u16 = 1000;

/// Supervises to the end, takes down what `start` made, and writes the end down: first into the record of the run, which the rest cannot
/// hold up. The lock of the run is held until all output is copied, as another run would write to the same log.
fn finish(
    host: &Host,
    container: &Container,
    started: Started,
    timings: &mut Timings,
    restarts: &mut Restarts,
) -> Result<u8> {
    let spec = &container.spec;
    let Started {
        child,
        cgroup,
        mut attached,
        report,
        timeout_grace,
        copying,
        signals,
        health,
        record,
        running: _running,
        ..
    } = started;
    let place = group::place(spec)?;
    let rule = StopRule {
        container: Some(&place),
        time_limit: spec.limits.timeout_ms.map(|ms| Duration::from_millis(ms) + timeout_grace),
        stop_signal: spec.stop_signal,
        stop_timeout: spec.stop_timeout_ms.map(Duration::from_millis),
    };
    let mut look_at_networks = || networks::follow(host, container, attached.as_mut());
    let mut duties = Duties { resize: &|| copying.resize(), look_at_networks: &mut look_at_networks };
    let ending = supervise::supervise(&child, &signals, rule, &mut duties);
    timings.stage("run");
    health::end(container, health);
    if !spec.further.pid.is_own() {
        // Those that it leaves behind end with no namespace. Who cannot be killed is seen when the group is removed.
        let _ = cgroup.kill();
    }
    let told = Told::read(report);
    let noted_of_engine = note_trap(container, &told);
    // Of what is removed now nobody can ask what it used.
    let usage = if spec.auto_remove { Usage::default() } else { cgroup.usage() };
    let removed = persistently(|| Ok(cgroup.remove()?));
    let removed = if record.is_regrouped() { removed.and(group::remove_leftover(&place)) } else { removed };
    // Somebody may have renamed it since it began.
    let now = host.containers.revised(container);
    let left = happened::networks(&now, attached.as_ref(), "disconnect");
    let detached = attached.as_mut().map_or(Ok(()), Attached::detach);
    let ended = ending.map(|ending| {
        let mut ended = judge(spec, ending, &usage, told);
        ended.started_unix_nanos = started.started_unix_nanos;
        ended.finished_unix_nanos = output::now_nanos();
        ended.restart_count = restarts.count;
        // Whatever still holds the cgroup cannot be helped here; `system check` finds it.
        let problem = removed.and(detached).and(noted_of_engine).err().map(|error| errors::sentence(&error));
        ended.error = ended.error.or(problem);
        ended
    });
    let mut noted = ended.as_ref().map_or_else(not_known, Ended::clone);
    if let Err(error) = record.note_end(&noted) {
        output::complain(&error.context(format!("container {}", spec.name)));
    }
    let mut events = happened::ended(&now, &noted, left);
    // With --rm at its very end, together with that.
    if !spec.auto_remove {
        container.note(&std::mem::take(&mut events));
    }
    let (mut late, mut code) = (Some(copying), noted.exit_code);
    if let Some(copying) = late.take_if(|copying| copying.is_done_within(PollTimeout::from(READER_WAITS_MS))) {
        let not_copied = copying.finish();
        code = told_caller(noted.exit_code, &not_copied);
        let problems = noted.error.into_iter().chain(not_copied.into_iter().map(|problem| problem.what));
        noted.error = problems.reduce(|first, second| format!("{first}; {second}"));
    }
    let mut record = Some(record);
    let goes_on = restarts.take_over(host, container, &mut record, &noted).unwrap_or_else(|error| {
        let sentence = errors::sentence(&error);
        noted.error = Some(noted.error.take().map_or(sentence.clone(), |first| format!("{first}; {sentence}")));
        false
    });
    if !goes_on {
        let is_settled = settle(host, container, &noted);
        if spec.auto_remove {
            events.extend(is_settled.then(|| happened::destroyed(&now)));
            container.note(&events);
        }
    }
    // What cannot be copied so late is said on our standard error.
    if let Some(copying) = late {
        code = told_caller(code, &copying.finish());
    }
    ended.map(|_| code)
}

/// The exit code for our caller: what the program wrote is a part of its success, which is not told of output that he did not get.
pub(super) fn told_caller(code: u8, not_copied: &[NotCopied]) -> u8 {
    let is_lost = not_copied.iter().any(|problem| problem.for_caller);
    if is_lost && code == 0 { exit_code::OURS } else { code }
}

/// Does what may fail for want of descriptors or memory in one moment and not in the next.
pub(super) fn persistently<T>(action: impl Fn() -> Result<T>) -> Result<T> {
    const PAUSES_MS: [u64; 4] = [1, 10, 50, 200];
    for pause in PAUSES_MS {
        if let Ok(done) = action() {
            return Ok(done);
        }
        std::thread::sleep(Duration::from_millis(pause));
    }
    action()
}

/// Of a program whose end the kernel does not tell.
pub(super) const WITHHELD: &str =
    "it has ended, but a process in the container that traces it keeps its exit code: it counts as killed";

/// Exit code and limit, from what the kernel said and the first process told.
fn judge(spec: &RunSpec, ending: Ending, usage: &Usage, told: Told) -> Ended {
    let (silent, of_program, report) = match told {
        Told::NotAsked => (false, None, Report::default()),
        Told::Nothing => (true, None, Report::default()),
        Told::Report(report) => (false, None, report),
        Told::Signal(signal) => (false, signal, Report::default()),
    };
    let signal = match ending.exit {
        Exit::Signal(signal) => Some(signal),
        // The engine says nothing only where a signal ends it, and then ends with 128 + n.
        Exit::Code(code) if silent => exit_code::signal_of(code),
        Exit::Code(_) => of_program,
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
        () if killed_by(Signal::SIGKILL) && has_used_up_cpu(spec, ending.reaped.cpu) => Some(LimitHit::Cpu),
        () if usage.pids_refused > 0 => Some(LimitHit::Pids),
        // It was refused memory, and ended by itself.
        () if report.memory_refused => Some(LimitHit::Memory),
        () => None,
    };
    let exit_code = if timed_out { exit_code::TIMED_OUT } else { exit_code::of_exit(ending.exit) };
    Ended {
        format: FORMAT,
        exit_code,
        oom_killed,
        limit_hit,
        error: report.error.clone().or(ending.reaped.withheld.then(|| WITHHELD.to_owned())),
        peak_memory_bytes: usage.peak_memory_bytes.or(Some(ending.reaped.peak_rss_bytes)),
        cpu_usec: usage.cpu_usec,
        pids_refused: usage.pids_refused,
        fuel_used: spec.limits.fuel.and(report.fuel_used),
        ..Ended::default()
    }
}

/// Whether the container used its `--ulimit cpu`: a program that ignores the SIGXCPU of the soft limit gets the SIGKILL of
/// the hard one.
fn has_used_up_cpu(spec: &RunSpec, used: Duration) -> bool {
    // The limit counts whole ticks, and this figure the time in between: a program that shares its processor with others is charged
    // their parts of its ticks too, on a busy machine a third and more.
    const LEAST_MS_OF_A_SECOND: u128 = 600;
    let Some(limit) = spec.limits.ulimits.iter().find(|ulimit| ulimit.name == "cpu") else { return false };
    used.as_millis() / LEAST_MS_OF_A_SECOND >= u128::from(limit.soft)
}

/// The end of what has not begun, or of whose end the kernel does not tell.
fn not_known(error: &anyhow::Error) -> Ended {
    let now = output::now_nanos();
    Ended {
        format: FORMAT,
        exit_code: errors::exit_code(error).unwrap_or(exit_code::OURS),
        error: Some(errors::sentence(error)),
        started_unix_nanos: now,
        finished_unix_nanos: now,
        ..Ended::default()
    }
}

/// Writes the end down, or removes the container; whether that was done. What cannot be done is said, and changes nothing of the end:
/// the record of the run has it, and `system check` finds what is left.
fn settle(host: &Host, container: &Container, ended: &Ended) -> bool {
    let name = &container.spec.name;
    let settled = match container.spec.auto_remove {
        true => persistently(|| match container.lock_if_there()? {
            Some(_lock) => host.containers.delete(container),
            None => container.forget_running(),
        })
        .with_context(|| format!("container {name} has ended and cannot be removed (amphora system prune does)")),
        false => persistently(|| container.write_ended(ended))
            .with_context(|| format!("container {name} has ended with {}, which cannot be noted", ended.exit_code)),
    };
    settled.inspect_err(output::complain).is_ok()
}
