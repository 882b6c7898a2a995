//! One instance of a program: a memory and a state of its own.

use crate::{
    Command, Outcome, Program, Report, RunError, core_dump, exit, limits::MemorySum, program::Linked, state::State,
};
use wasmtime::Store;

/// A program with all that it is given, before it has begun. It is independent of all other instances.
pub struct Instance {
    linked: Linked,
    store: Store<State>,
    memory: MemorySum,
    /// What a dump of it is called.
    name: String,
    /// What it was given, if it counts instructions.
    fuel: Option<u64>,
}

impl Instance {
    /// Opens the granted directories; the program's own memory is made when it [runs](Self::run).
    ///
    /// `command.timeout` is for the caller to keep, who interrupts the [`Engine`](crate::Engine) when it is over.
    pub fn new(program: &Program, command: &Command) -> Result<Self, RunError> {
        Self::counted(program, command, MemorySum::new(command.memory_bytes))
    }

    /// One whose memory the caller watches, too.
    pub(crate) fn counted(program: &Program, command: &Command, memory: MemorySum) -> Result<Self, RunError> {
        let counts = program.engine().profile().fuel;
        if command.fuel.is_some() && !counts {
            return Err(RunError::NotCounting);
        }
        program.parts().check(command)?;
        if !command.listeners.is_empty() && !program.linked().is_module() {
            let detail = "a component opens its sockets itself: it cannot be given any";
            return Err(RunError::Start { detail: detail.into() });
        }
        command.stores.open()?;
        let fuel = counts.then(|| command.fuel.unwrap_or(u64::MAX));
        let mut store = Store::new(program.engine().inner(), State::new(command, memory.clone())?);
        exit::prepare(&mut store);
        store.limiter(|state| &mut state.memory);
        // The epoch moves once, when the time is over.
        store.set_epoch_deadline(1);
        if let Some(fuel) = fuel {
            store.set_fuel(fuel).map_err(RunError::engine)?;
        }
        let name = command.argv.first().cloned().unwrap_or_default();
        Ok(Self { linked: program.linked().clone(), store, memory, name, fuel })
    }

    pub(crate) fn store(&mut self) -> &mut Store<State> {
        &mut self.store
    }

    /// Runs it to its end, once. Whatever ends it is in the report; an error means that nothing of it ran.
    ///
    /// Needs a tokio runtime with time, and with I/O if sockets are granted. Calls of the program's to its host block the
    /// thread; instances on other threads are not held up.
    pub async fn run(&mut self) -> Result<Report, RunError> {
        let (outcome, core_dump) = match self.linked.start(&mut self.store).await {
            Ok(()) => (Outcome::Exited(0), None),
            Err(error) => {
                let outcome = Outcome::of_error(&error, &self.memory);
                let outcome = outcome.ok_or_else(|| RunError::Start { detail: format!("{error:#}") })?;
                let core_dump = core_dump::of(&error, &outcome, &mut self.store, &self.name);
                (outcome, core_dump)
            }
        };
        let fuel_used = self.fuel.zip(self.store.get_fuel().ok()).map(|(given, left)| given.saturating_sub(left));
        Ok(Report { core_dump, ..Report::new(outcome, &self.memory, fuel_used) })
    }
}
