//! Stopping, signalling and waiting for what another process supervises.

use std::{os::fd::AsFd, time::Duration};

use anyhow::{Context, Result};
use linux_exec::process::Process;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::Signal,
};

use super::supervise;
use crate::records::container::{Container, Ended, Running, Status, Unreadable};

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
