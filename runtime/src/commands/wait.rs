//! `wait --condition`: more than that a container does not run.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{
    cli::WaitCondition,
    lifecycle,
    records::{
        container::{Container, Ended, HealthStatus, Status},
        events::{Event, EventReader, Subject, Watch},
        host::Host,
    },
};

/// Between two looks where nothing is told.
const LOOKS_EVERY: Duration = Duration::from_millis(250);
/// With --rm a container is gone before its end is told.
const TOLD_WITHIN: Duration = Duration::from_secs(2);
/// Of a container that has no exit code, as with Podman.
const NO_CODE: i32 = -1;

/// Waits, and gives the container's exit code.
///
/// # Errors
/// The container is removed before.
pub(super) fn for_condition(host: &Host, container: &Container, condition: WaitCondition) -> Result<i32> {
    match condition {
        WaitCondition::NotRunning => Ok(lifecycle::wait(container)?.map_or(0, |ended| i32::from(ended.exit_code))),
        WaitCondition::NextExit => next_exit(host, container),
        WaitCondition::Removed => removed(host, container),
        WaitCondition::Healthy | WaitCondition::Unhealthy if container.spec.health.is_none() => bail!(
            "container {} has no health check, so it will never be healthy or unhealthy; run --health-cmd gives it one",
            container.spec.name
        ),
        state => until_state(host, container, state),
    }
}

/// However soon it ends: this is told, not seen.
fn next_exit(host: &Host, container: &Container) -> Result<i32> {
    let watch = Watch::on(&host.events)?;
    let mut reader = EventReader::open(&host.events, false)?;
    let mut gone_since = None;
    loop {
        let is_there = container.exists()?;
        let of_it = |event: &Event| {
            let is_end = event.subject == Subject::Container && event.id == container.spec.id && event.action == "die";
            is_end.then(|| event.attributes.get("exitCode")?.parse().ok()).flatten()
        };
        if let Some(code) = reader.read()?.iter().find_map(of_it) {
            return Ok(code);
        }
        if !is_there {
            gone_since.get_or_insert_with(Instant::now);
        }
        refuse_gone(container, gone_since.is_none_or(|since: Instant| since.elapsed() < TOLD_WITHIN))?;
        watch.wait(Some(LOOKS_EVERY), false)?;
    }
}

fn removed(host: &Host, container: &Container) -> Result<i32> {
    let watch = Watch::on(&host.events)?;
    let mut code = 0;
    loop {
        // One that is being removed may be in no state.
        if let Ok(status) = container.status() {
            code = ended(&status).map_or(code, |ended| i32::from(ended.exit_code));
        }
        if !container.exists()? {
            return Ok(code);
        }
        watch.wait(Some(LOOKS_EVERY), false)?;
    }
}

fn until_state(host: &Host, container: &Container, state: WaitCondition) -> Result<i32> {
    let watch = Watch::on(&host.events)?;
    loop {
        let is_there = container.exists()?;
        let status = container.status()?;
        if is_there && is_in(container, &status, state)? {
            return Ok(ended(&status).map_or(NO_CODE, |ended| i32::from(ended.exit_code)));
        }
        refuse_gone(container, is_there)?;
        watch.wait(Some(LOOKS_EVERY), false)?;
    }
}

fn is_in(container: &Container, status: &Status, state: WaitCondition) -> Result<bool> {
    let health = |wanted| -> Result<bool> {
        Ok(status.is_up() && container.health()?.is_some_and(|health| health.status == wanted))
    };
    match state {
        WaitCondition::Created => Ok(matches!(status, Status::Created)),
        WaitCondition::Running => Ok(matches!(status, Status::Running(running) if !running.paused)),
        WaitCondition::Paused => Ok(matches!(status, Status::Running(running) if running.paused)),
        WaitCondition::Healthy => health(HealthStatus::Healthy),
        WaitCondition::Unhealthy => health(HealthStatus::Unhealthy),
        WaitCondition::Exited | WaitCondition::NotRunning | WaitCondition::NextExit | WaitCondition::Removed => {
            Ok(matches!(status, Status::Stopped(_)))
        }
    }
}

fn ended(status: &Status) -> Option<&Ended> {
    match status {
        Status::Stopped(ended) | Status::Restarting(_, ended) => Some(ended),
        Status::Created | Status::Running(_) | Status::OutOfReach => None,
    }
}

fn refuse_gone(container: &Container, is_there: bool) -> Result<()> {
    if !is_there {
        bail!("container {} was removed while it was waited for", container.spec.name);
    }
    Ok(())
}
