//! Where a container is in its life: from its records, the processes themselves and the lock of its run.

use std::{thread, time::Duration};

use anyhow::{Result, anyhow};

use super::{
    Container, Ended, Running,
    files::{Lock, lock_holder},
    record::RunFound,
};

/// Where a container is in its life.
#[derive(Debug, Clone)]
pub(crate) enum Status {
    Created,
    Running(Running),
    /// Its supervisor holds it, but from here nothing more is known: there is no record of the run, or its processes are not seen.
    OutOfReach,
    /// It has ended, and its supervisor starts it again after a pause.
    Restarting(Running, Ended),
    Stopped(Ended),
}

impl Status {
    /// Docker's word for it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running(running) if running.paused => "paused",
            Status::Running(_) | Status::OutOfReach => "running",
            Status::Restarting(..) => "restarting",
            Status::Stopped(_) => "exited",
        }
    }

    /// Whether something of it runs.
    pub(crate) fn is_up(&self) -> bool {
        matches!(self, Status::Running(_) | Status::OutOfReach | Status::Restarting(..))
    }
}

impl Container {
    /// Where it is in its life, from the records, the processes themselves and the lock of its run.
    pub(crate) fn status(&self) -> Result<Status> {
        // Who has the lock starts it or removes it now: then it is no run whose record was lost.
        self.look(|| self.try_lock()).map(|(status, _)| status)
    }

    /// The same for who holds its lock.
    pub(crate) fn status_under(&self, lock: &Lock) -> Result<Status> {
        self.look(|| Ok(Some(lock))).map(|(status, _)| status)
    }

    /// The run that goes on.
    ///
    /// # Errors
    /// It goes on, but there is no record of it.
    pub(crate) fn going_on(&self) -> Result<Option<RunFound>> {
        self.running_of(self.look(|| self.try_lock())?)
    }

    /// The same for who holds its lock.
    pub(crate) fn going_on_under(&self, lock: &Lock) -> Result<Option<RunFound>> {
        self.running_of(self.look(|| Ok(Some(lock)))?)
    }

    fn running_of(&self, found: (Status, Option<RunFound>)) -> Result<Option<RunFound>> {
        match found {
            (Status::Running(_), run) => Ok(run),
            (Status::OutOfReach, _) => Err(self.out_of_reach()),
            (Status::Created | Status::Restarting(..) | Status::Stopped(_), _) => Ok(None),
        }
    }

    /// `locked` gives the container's lock, if it can be had.
    fn look<L>(&self, locked: impl Fn() -> Result<Option<L>>) -> Result<(Status, Option<RunFound>)> {
        if let Some(found) = self.look_at_records()? {
            return Ok(found);
        }
        let lock = self.lock_soon(locked)?;
        let is_held = lock.is_some() && self.exists()? && self.lock_run()?.is_none();
        // Once more: it may have begun, or ended, before we had the lock.
        if let Some(found) = self.look_at_records()? {
            return Ok(found);
        }
        if is_held {
            return Ok((Status::OutOfReach, None));
        }
        // What was written beforehand is no end as long as the container is being started.
        let ended = self.ended()?.filter(|ended| lock.is_some() || !ended.presumed);
        Ok((ended.map_or(Status::Created, Status::Stopped), None))
    }

    /// Where it decides what is true, tries more than once: who only looks has the lock for a moment, who starts the container
    /// for longer.
    fn lock_soon<L>(&self, locked: impl Fn() -> Result<Option<L>>) -> Result<Option<L>> {
        const TRIES: u32 = 20;
        const PAUSE: Duration = Duration::from_millis(5);
        let mut lock = locked()?;
        for _ in 0..TRIES {
            if lock.is_some() || !self.ended()?.is_some_and(|ended| ended.presumed) {
                break;
            }
            thread::sleep(PAUSE);
            lock = locked()?;
        }
        Ok(lock)
    }

    /// What the records say for certain; None: it has never run, or nobody has written down how the last run ended. A supervisor that is
    /// about to say whether it starts the container again is waited for, as what has ended for good is taken for that by who looks.
    fn look_at_records(&self) -> Result<Option<(Status, Option<RunFound>)>> {
        const TRIES: u32 = 300;
        const PAUSE: Duration = Duration::from_millis(5);
        for _ in 0..TRIES {
            let looked = self.look_at_run()?;
            if !self.spec.restart.restarts() || !matches!(looked, Some((Status::Stopped(_), _))) {
                return Ok(looked);
            }
            match self.run()? {
                Some(run) if self.is_undecided(&run)? => thread::sleep(PAUSE),
                // It has gone on meanwhile.
                Some(run) if run.running.restarting || run.is_going_on_in(&self.spec.id)? => {}
                _ => return Ok(looked),
            }
        }
        self.look_at_run()
    }

    /// Whether its supervisor has noted how a run ended, and has not come to whether another one follows.
    fn is_undecided(&self, run: &RunFound) -> Result<bool> {
        if !self.spec.restart.restarts() || run.running.restarting || run.is_going_on_in(&self.spec.id)? {
            return Ok(false);
        }
        let Some(ended) = run.ended()? else { return Ok(false) };
        let wants_more = self.spec.restart.wants_more(ended.exit_code, run.running.restart_count);
        Ok(wants_more && run.is_held()? && !self.is_halted()?)
    }

    fn look_at_run(&self) -> Result<Option<(Status, Option<RunFound>)>> {
        match self.run()? {
            Some(run) if run.is_going_on_in(&self.spec.id)? => {
                Ok(Some((Status::Running(run.running.clone()), Some(run))))
            }
            Some(run) if run.ended()?.is_none() && run.is_held()? => Ok(Some((Status::OutOfReach, Some(run)))),
            Some(run) if run.running.restarting && run.is_held()? => {
                Ok(Some((Status::Restarting(run.running.clone(), self.end_of(&run)?), Some(run))))
            }
            Some(run) => Ok(Some((Status::Stopped(self.end_of(&run)?), Some(run)))),
            None => Ok(self.ended()?.filter(|ended| !ended.presumed).map(|ended| (Status::Stopped(ended), None))),
        }
    }

    /// Says that it runs and cannot be reached, and what to do.
    pub(crate) fn out_of_reach(&self) -> anyhow::Error {
        let supervisor = lock_holder(&self.run_lock()).map_or_else(
            || "the amphora process that supervises it".to_owned(),
            |pid| format!("the amphora process that supervises it (kill {pid})"),
        );
        if matches!(self.run(), Ok(Some(_))) {
            return anyhow!(
                "container {} is running, but its processes are not seen from here: it was started in another pid or time \
                 namespace, or /proc cannot be read; use amphora there, or end {supervisor}",
                self.spec.name
            );
        }
        anyhow!(
            "container {} is running, but there is no {}: it was removed, or the container was started with another --runroot: use \
             that one, or end {supervisor}",
            self.spec.name,
            self.running.display()
        )
    }
}
