//! Instances of a function: one for each request, or one for several of them after another.
//!
//! An instance that answered a request and ended well may answer more, if that is wanted; what it keeps in its memory the next request
//! finds there. One that ended otherwise, or whose client went away, is never used again. There are never more of them, at work and
//! waiting, than requests may be answered at once: a request takes one that waits, if there is one.

use super::{call::Exports, service::Shared};
use crate::{Command, Engine, RunError, limits::MemorySum, state::State};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};
use wasmtime::{Store, UpdateDeadline};

/// What a function may hand over by one call: as much as the largest value of a store, and what goes with it.
const CALL_BYTES: usize = 20 << 20;

/// A memory and a state of its own.
pub(super) struct Instance {
    pub(super) store: Store<State>,
    pub(super) memory: MemorySum,
    /// Tells it to stop at its next loop or call.
    pub(super) interrupted: Arc<AtomicBool>,
    /// The clock ticked while it was at work.
    pub(super) takes_long: Arc<AtomicBool>,
    /// What is called, once it has been instantiated.
    pub(super) exports: Option<Exports>,
    /// Requests that it has answered.
    answered: u32,
    /// What each request may use of it.
    fuel: Option<u64>,
}

impl Instance {
    /// One that is ready for a request: used before, or new.
    pub(super) fn ready(shared: &Shared) -> Result<Self, RunError> {
        let mut instance = match shared.idle.take() {
            Some(instance) => instance,
            None => Self::new(&shared.engine, &shared.command, MemorySum::part_of(&shared.counts.memory))?,
        };
        if let Some(fuel) = instance.fuel {
            instance.store.set_fuel(fuel).map_err(RunError::engine)?;
        }
        // What an earlier request was refused is none of this one's.
        instance.memory.goes_on();
        Ok(instance)
    }

    fn new(engine: &Engine, command: &Command, memory: MemorySum) -> Result<Self, RunError> {
        let mut store = Store::new(engine.inner(), State::of_request(command, memory.clone())?);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(CALL_BYTES);
        // The clock ticks while anything runs: whoever takes long lets others go on.
        store.set_epoch_deadline(1);
        let interrupted = Arc::new(AtomicBool::new(false));
        let takes_long = Arc::new(AtomicBool::new(false));
        let (seen, ticked) = (Arc::clone(&interrupted), Arc::clone(&takes_long));
        store.epoch_deadline_callback(move |_| match seen.load(Relaxed) {
            true => Ok(UpdateDeadline::Interrupt),
            false => {
                ticked.store(true, Relaxed);
                Ok(UpdateDeadline::Yield(1))
            }
        });
        let fuel = engine.profile().fuel.then(|| command.fuel.unwrap_or(u64::MAX));
        Ok(Self { store, memory, interrupted, takes_long, exports: None, answered: 0, fuel })
    }

    /// What the last request has used, if that is counted.
    pub(super) fn fuel_used(&self) -> u64 {
        self.fuel.zip(self.store.get_fuel().ok()).map_or(0, |(given, left)| given.saturating_sub(left))
    }
}

/// Instances that wait for a request.
pub(super) struct Idle {
    instances: Mutex<Vec<Instance>>,
    /// How many requests one of them answers.
    reuse: u32,
}

impl Idle {
    pub(super) fn new(reuse: u32) -> Self {
        Self { instances: Mutex::default(), reuse }
    }

    fn take(&self) -> Option<Instance> {
        // The one whose memory was used last.
        if self.reuse > 1 { self.lock().pop() } else { None }
    }

    /// Keeps one that has answered, if it may answer once more.
    pub(super) fn keep(&self, mut instance: Instance) {
        instance.answered += 1;
        // One that was told to stop would stop in the next request.
        if instance.answered < self.reuse && !instance.interrupted.load(Relaxed) {
            self.lock().push(instance);
        }
    }

    /// Lets go of what they hold.
    pub(super) fn clear(&self) {
        drop(std::mem::take(&mut *self.lock()));
    }

    /// Nobody panics while he has it, as nothing runs then.
    fn lock(&self) -> MutexGuard<'_, Vec<Instance>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
