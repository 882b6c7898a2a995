//! Stopping, signalling and waiting for what another process supervises.

use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use linux_exec::{cgroup::Place, process::Process};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::Signal,
};

use super::{
    group, happened, holders, pause,
    supervise::{self, ENDS_WITHIN},
};
use crate::{
    output::errors::Coded,
    records::container::{Container, Ended, RunFound, Running, Status, Unreadable},
};

/// Between two looks at what a supervisor writes down.
const PAUSE: Duration = Duration::from_millis(20);
/// How often [`ENDS_WITHIN`] is waited for a killed process.
const LOOKS: u32 = 5;
/// How long a supervisor may take to write an end down, or to remove what is removed then.
pub(super) const SETTLES_WITHIN: Duration = Duration::from_secs(10);

/// Stops a container, and its supervisor from starting it again: a signal, then SIGKILL (None: never); returns when its end has been
/// written down.
pub(crate) fn stop(container: &Container, signal: i32, timeout_ms: Option<u64>) -> Result<()> {
    end_each_run(container, &|run| stop_run(container, run, signal, timeout_ms))
}

/// Ends what runs, and what is about to run again: it may have ended by itself just before its supervisor was told to leave it.
fn end_each_run(container: &Container, end: &dyn Fn(&RunFound) -> Result<()>) -> Result<()> {
    const ROUNDS: u32 = 100;
    for _ in 0..ROUNDS {
        if let Some(run) = container.going_on()? {
            container.note_halt()?;
            end(&run)?;
        } else if let Some(run) = container.between_runs()? {
            container.note_halt()?;
            end_between_runs(container, &run)?;
        } else {
            return Ok(());
        }
    }
    bail!("container {} is started again and again while it is being stopped", container.spec.name)
}

/// Its supervisor, which waits to start it again, ends.
fn end_between_runs(container: &Container, run: &RunFound) -> Result<()> {
    let supervisor = run.running.supervisor();
    // It may have ended, or begun another run, just now.
    let _ = supervisor.signal(Signal::SIGTERM as i32);
    let begun = Instant::now();
    holders::wake(supervisor);
    while !wait_for(supervisor, Some(Duration::from_millis(5)))? && container.between_runs()?.is_some() {
        if begun.elapsed() > SETTLES_WITHIN {
            let _ = supervisor.signal(Signal::SIGKILL as i32);
        }
    }
    Ok(())
}

fn stop_run(container: &Container, run: &RunFound, signal: i32, timeout_ms: Option<u64>) -> Result<()> {
    let process = run.running.process();
    container.note(&[happened::killed(&container.spec, signal)]);
    let grace = supervise::stop(process, signal, timeout_ms.map(Duration::from_millis));
    pause::let_go_on(&group::place(&container.spec)?, &run.running);
    match wait_for(process, grace)? {
        true => settled(container, run)?,
        false => kill_and_wait(container, run)?,
    }
    container.happened("stop");
    Ok(())
}

/// Sends a signal to a running container's first process, as its user wants it.
pub(crate) fn kill_as_wanted(container: &Container, run: &RunFound, signal: i32) -> Result<()> {
    container.note(&[happened::killed(&container.spec, signal)]);
    kill(&run.running, signal)
}

fn kill(running: &Running, signal: i32) -> Result<()> {
    match running.process().signal(signal) {
        Err(error) if error.raw_os_error() != Some(nix::libc::ESRCH) => Err(error).context("cannot send the signal"),
        _ => Ok(()),
    }
}

/// Waits until the run that goes on has ended, and gives its end, though the container may be gone by then; or the end of
/// the last run. None: it has never run.
pub(crate) fn wait(container: &Container) -> Result<Option<Ended>> {
    loop {
        // Held open while we wait: the end is read from it.
        if let Some(run) = container.run()? {
            wait_for(run.running.process(), None)?;
            settle(container, &run, None)?;
            // As with Docker, what is about to run again has not come to its end.
            if container.is_followed(&run)? {
                wait_for(run.running.supervisor(), Some(PAUSE))?;
                continue;
            }
            return container.end_of(&run).map(Some);
        }
        match container.status()? {
            Status::Stopped(ended) => return Ok(Some(ended)),
            Status::OutOfReach => return Err(container.out_of_reach()),
            Status::Created => return Ok(None),
            // It has begun since we looked.
            Status::Running(_) | Status::Restarting(..) => {}
        }
    }
}

/// Whether the process ended in time (None: however long it takes).
fn wait_for(process: Process, timeout: Option<Duration>) -> Result<bool> {
    let pidfd = match process.pidfd() {
        Ok(pidfd) => pidfd,
        Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => return Ok(true),
        Err(error) => return Err(error).context("cannot watch the process"),
    };
    let timeout = timeout.map_or(PollTimeout::NONE, |t| PollTimeout::try_from(t).unwrap_or(PollTimeout::MAX));
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, timeout).context("cannot wait for the process")? > 0)
}

/// Kills a container that runs, and waits until its end has been written down.
pub(crate) fn kill_and_wait(container: &Container, run: &RunFound) -> Result<()> {
    container.note(&[happened::killed(&container.spec, Signal::SIGKILL as i32)]);
    kill_surely(&group::place(&container.spec)?, &run.running)?;
    settled(container, run)
}

/// Makes a container end that runs, or is being started: with its supervisor, if that does not come to its end.
pub(crate) fn end_by_force(container: &Container) -> Result<()> {
    // What is being started runs only when who starts it gives the lock back.
    drop(container.lock_if_there()?);
    end_each_run(container, &|run| {
        container.note(&[happened::killed(&container.spec, Signal::SIGKILL as i32)]);
        kill_surely(&group::place(&container.spec)?, &run.running)?;
        settle_by_force(container, run)
    })
}

/// Of a container that has ended: waits for its supervisor, and kills that if it does not come to its end.
pub(super) fn settle_by_force(container: &Container, run: &RunFound) -> Result<()> {
    let settled = settle(container, run, Some(SETTLES_WITHIN))?;
    // With --rm it removes all that it leaves, however long that takes. A record that names a stranger kills nobody.
    if !settled && !container.spec.auto_remove && run.running.is_of(&container.spec.id) {
        let supervisor = run.running.supervisor();
        // It may have ended just now.
        let _ = supervisor.signal(Signal::SIGKILL as i32);
        wait_for(supervisor, Some(SETTLES_WITHIN))?;
    }
    Ok(())
}

/// The same for what cannot be read, as far as it is known to run.
pub(crate) fn kill_unreadable(container: &Unreadable) -> Result<()> {
    let Some(running) = &container.running else { return Ok(()) };
    kill_surely(&Place::of_container(&container.id)?, running)?;
    if !wait_for(running.supervisor(), Some(SETTLES_WITHIN))? {
        let _ = running.supervisor().signal(Signal::SIGKILL as i32);
    }
    Ok(())
}

/// Kills the first process, and waits until it is gone with all that are in its pid namespace.
///
/// # Errors
/// Something keeps it, which is named.
pub(super) fn kill_surely(place: &Place, running: &Running) -> Result<()> {
    let process = running.process();
    kill(running, Signal::SIGKILL as i32)?;
    pause::let_go_on(place, running);
    let mut holders = Vec::new();
    for _ in 0..LOOKS {
        if wait_for(process, Some(ENDS_WITHIN))? {
            return Ok(());
        }
        holders = holders::release(Some(place), process);
    }
    let held = if holders.is_empty() { "nothing is seen that keeps it".to_owned() } else { holders.join("; ") };
    Err(Coded::new(1, format!("its first process, {}, was killed and does not end: {held}", process.pid)).into())
}

fn settled(container: &Container, run: &RunFound) -> Result<()> {
    if settle(container, run, Some(SETTLES_WITHIN))? || run.ended()?.is_some() {
        return Ok(());
    }
    let supervisor = run.running.supervisor_pid;
    Err(Coded::new(
        1,
        format!("it has ended, but its supervisor, process {supervisor}, does not write that down (end it: kill -9 {supervisor})"),
    )
    .into())
}

/// Waits for the supervisor to write down an end, which it may do long before its own: whoever reads the output may take his
/// time. Whether it came to that.
pub(super) fn settle(container: &Container, run: &RunFound, longest: Option<Duration>) -> Result<bool> {
    let begun = Instant::now();
    let supervisor = run.running.supervisor();
    holders::wake(supervisor);
    while !wait_for(supervisor, Some(PAUSE))? {
        if container.has_forgotten(run)? || run.is_between_runs()? {
            return Ok(true);
        }
        if longest.is_some_and(|longest| begun.elapsed() > longest) {
            return Ok(false);
        }
    }
    Ok(true)
}
