//! A container that is started again when it has ended: by its own supervisor, after a pause that grows as long as it keeps failing.
//!
//! Between two runs the record of the last one stays, with its end and the mark `restarting`, locked by the supervisor. Nothing else is
//! held: who starts the container meanwhile, or removes it by force, finds it ended, and the supervisor sees that the record is not
//! its own any more. Who stops it leaves a mark beside its spec *before* he ends anything (see [`Container::note_halt`]), and wakes
//! the supervisor by a signal.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use linux_exec::process::Process;

use super::{end::persistently, supervise::Signals};
use crate::{
    output,
    records::{
        container::{Container, Ended, Lock, RunRecord, Status},
        host::Host,
    },
};

/// The first pause, as with Docker; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After a run of this length the pauses begin anew.
const RAN_WELL: Duration = Duration::from_secs(10);

/// What a supervisor knows of the runs before.
pub(super) struct Restarts {
    /// None: whoever waits for it in the foreground never starts it again.
    pause: Option<Duration>,
    pub(super) count: u32,
    /// Of the run that has ended, while the next one is waited for.
    between: Option<RunRecord>,
}

/// What is to be started again.
pub(super) struct Next {
    /// As it is to be now.
    pub(super) container: Container,
    _lock: Lock,
    /// Locked until the next run's record takes its place: until then it is seen to restart.
    _last: RunRecord,
}

impl Next {
    /// It has been started: nothing keeps others from it any more.
    pub(super) fn into_container(self) -> Container {
        self.container
    }
}

impl Restarts {
    pub(super) fn never() -> Self {
        Self { pause: None, count: 0, between: None }
    }

    pub(super) fn as_wanted() -> Self {
        Self { pause: Some(FIRST_PAUSE), ..Self::never() }
    }

    /// Whether the container is to be started again; its end is written down then. What is wanted may have changed while it ran.
    pub(super) fn take_over(
        &mut self,
        host: &Host,
        container: &Container,
        record: &mut Option<RunRecord>,
        ended: &Ended,
    ) -> Result<bool> {
        let Some(pause) = self.pause.filter(|_| !container.spec.auto_remove) else { return Ok(false) };
        let wanted = || -> Result<bool> {
            let policy = host.containers.reload(container)?.spec.restart;
            if !policy.wants_more(ended.exit_code, self.count) || container.is_halted()? {
                return Ok(false);
            }
            container.write_end_between_runs(ended)?;
            record.as_ref().map_or(Ok(()), RunRecord::mark_restarting)?;
            Ok(true)
        };
        if !persistently(wanted).context("it is not started again, as that cannot be prepared")? {
            return Ok(false);
        }
        let ran = Duration::from_nanos((ended.finished_unix_nanos - ended.started_unix_nanos).unsigned_abs());
        self.pause = Some(if ran >= RAN_WELL { FIRST_PAUSE } else { pause });
        self.between = record.take();
        Ok(true)
    }

    /// Waits for the next run. None: there is none.
    pub(super) fn next(&mut self, host: &Host, container: &Container) -> Result<Option<Next>> {
        let (Some(record), Some(pause)) = (self.between.take(), self.pause) else { return Ok(None) };
        let signals = Signals::block()?;
        // Whoever left the mark before that was blocked for this purpose has sent a signal that is still pending.
        let goes_on = !container.is_halted()? && !signals.come_within(pause);
        let Some(lock) = container.lock_if_there()? else { return Ok(None) };
        if !is_between_runs(container, &lock)? {
            return Ok(None);
        }
        if !goes_on || container.is_halted()? {
            container.forget_running()?;
            return Ok(None);
        }
        self.count += 1;
        self.pause = Some((pause * 2).min(LONGEST_PAUSE));
        Ok(Some(Next { container: host.containers.reload(container)?, _lock: lock, _last: record }))
    }
}

/// Whether the container still waits for this supervisor.
fn is_between_runs(container: &Container, lock: &Lock) -> Result<bool> {
    let own = Process::own()?;
    Ok(matches!(container.status_under(lock)?, Status::Restarting(run, _) if run.supervisor() == own))
}

impl Signals {
    /// Waits for so long; whether somebody wanted it to end before.
    fn come_within(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            if self.take_deadly() {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            super::supervise::wait_readable(self.as_fd(), left);
        }
    }
}

/// What is said of a container that cannot be started again.
pub(super) fn complain(container: &Container, error: anyhow::Error) {
    output::complain(&error.context(format!("container {} is not started again", container.spec.name)));
}
