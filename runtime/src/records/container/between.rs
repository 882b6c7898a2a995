//! Between two runs of a container that its supervisor starts again.

use anyhow::Result;

use super::{Container, Ended, RunFound, record::write_json};

impl Container {
    /// The run that has ended and will be followed by another one.
    pub(crate) fn between_runs(&self) -> Result<Option<RunFound>> {
        let Some(run) = self.run()? else { return Ok(None) };
        Ok(run.is_between_runs()?.then_some(run))
    }

    /// Whether more is to be known of it than how this run ended: there is, or was to be, another one.
    pub(crate) fn is_followed(&self, run: &RunFound) -> Result<bool> {
        if !run.is_to_be_followed()? {
            return Ok(false);
        }
        // A supervisor that was killed meanwhile has left this one as the last.
        Ok(self.run()?.is_none_or(|now| !now.running.is_same_run(&run.running) || matches!(now.is_held(), Ok(true))))
    }

    /// Notes how a run ended that will be followed by another one.
    pub(crate) fn write_end_between_runs(&self, ended: &Ended) -> Result<()> {
        write_json(&self.dir.join("ended.json"), ended)
    }

    /// Whether it has ever been started.
    pub(crate) fn has_run(&self) -> Result<bool> {
        Ok(self.ended()?.is_some())
    }
}
