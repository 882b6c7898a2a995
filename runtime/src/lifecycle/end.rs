//! An end: what it was, and what becomes of it. Once the program has begun, it reaches whoever waits and whoever asks later,
//! whatever else fails.

use std::time::Duration;

use anyhow::{Context, Result};
use linux_exec::{cgroup::Usage, spawn::Exit};
use nix::sys::{
    resource::{UsageWho, getrusage},
    signal::Signal,
    time::TimeValLike,
};

use super::{
    start::Started,
    supervise::{self, Ending, StopRule},
    timings::Timings,
};
use crate::{
    kinds::report::{Report, Told},
    output::{self, errors},
    records::{
        container::{Container, Ended, LimitHit, Lock, RunRecord},
        host::Host,
    },
    spec::{FORMAT, RunSpec, exit_code},
};

/// Supervises what was started, and leaves the container as it is to be afterwards. Fails only if the program has not begun,
/// or the kernel does not say how it ended.
pub(super) fn end(
    host: &Host,
    container: &Container,
    started: Result<Started>,
    timings: &mut Timings,
) -> Result<Ended> {
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
    let Started { child, cgroup, report, timeout_grace, copying, signals, record, running, .. } = started;
    let rule = StopRule {
        time_limit: spec.limits.timeout_ms.map(|ms| Duration::from_millis(ms) + timeout_grace),
        stop_signal: spec.stop_signal,
        stop_timeout: spec.stop_timeout_ms.map(Duration::from_millis),
    };
    let ending = supervise::supervise(&child, &signals, rule, &|| copying.resize());
    let not_copied = copying.finish();
    timings.stage("run");
    let told = report.map_or(Told::NotAsked, Told::read);
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

/// Exit code and limit, from what the kernel said and the first process told.
fn judge(spec: &RunSpec, ending: Ending, usage: &Usage, told: Told, cpu_ms: i64) -> Ended {
    let (silent, report) = match told {
        Told::NotAsked => (false, Report::default()),
        Told::Nothing => (true, Report::default()),
        Told::Report(report) => (false, report),
    };
    let signal = match ending.exit {
        Exit::Signal(signal) => Some(signal),
        // The engine says nothing only where a signal ends it, and then ends with 128 + n.
        Exit::Code(code) if silent => exit_code::signal_of(code),
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
    let exit_code = if timed_out { exit_code::TIMED_OUT } else { exit_code::of_exit(ending.exit) };
    Ended {
        format: FORMAT,
        exit_code,
        oom_killed,
        limit_hit,
        error: report.error.clone(),
        peak_memory_bytes: usage.peak_memory_bytes.or(Some(ending.reaped.peak_rss_bytes)),
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
pub(super) fn children_cpu_ms() -> i64 {
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
