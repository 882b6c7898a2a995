//! What a server has come to so far, for whoever looks while it runs, and for its end.

use super::failure::Failure;
use crate::{Outcome, limits::MemoryTotal};
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// What a server came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// Requests whose heads came.
    pub requests: u64,
    /// Those that got no answer of the function's, or not all of it.
    pub failed: u64,
    /// Those of them in which the function did not end by itself.
    pub traps: u64,
    /// What memories and tables come to now.
    pub memory_bytes: u64,
    /// Most that they came to at once.
    pub peak_memory_bytes: u64,
    /// Whether any growth was refused because of `memory_bytes`.
    pub memory_refused: bool,
    /// What all requests have used, if that is counted.
    pub fuel_used: u64,
    /// Instances that were made.
    pub instances: u64,
    /// How long that took, in all.
    pub instantiation: Duration,
    /// What went wrong last in a function: the request, and what the log has of it.
    pub last_trap: Option<String>,
}

/// Counted by all requests.
pub(super) struct Counts {
    pub(super) memory: MemoryTotal,
    requests: AtomicU64,
    failed: AtomicU64,
    traps: AtomicU64,
    fuel_used: AtomicU64,
    instances: AtomicU64,
    instantiation_nanos: AtomicU64,
    last_trap: Mutex<Option<String>>,
}

impl Counts {
    pub(super) fn new(memory: MemoryTotal) -> Self {
        Self {
            memory,
            requests: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            traps: AtomicU64::new(0),
            fuel_used: AtomicU64::new(0),
            instances: AtomicU64::new(0),
            instantiation_nanos: AtomicU64::new(0),
            last_trap: Mutex::new(None),
        }
    }

    /// How many came before.
    pub(super) fn begin_request(&self) -> u64 {
        self.requests.fetch_add(1, Relaxed)
    }

    pub(super) fn add_fuel(&self, used: u64) {
        if used > 0 {
            self.fuel_used.fetch_add(used, Relaxed);
        }
    }

    pub(super) fn note_instantiation(&self, taken: Duration) {
        self.instances.fetch_add(1, Relaxed);
        self.instantiation_nanos.fetch_add(u64::try_from(taken.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Counts a failure that is not the client's own; `told` is what is said of it.
    pub(super) fn note_failure(&self, failure: &Failure, told: &str) {
        self.failed.fetch_add(1, Relaxed);
        if matches!(failure, Failure::Ended(outcome) | Failure::TooLate(outcome) if !matches!(outcome, Outcome::Exited(_)))
        {
            self.traps.fetch_add(1, Relaxed);
            *self.last_trap.lock().unwrap_or_else(PoisonError::into_inner) = Some(told.to_owned());
        }
    }

    /// All of it, as it is now.
    pub(super) fn now(&self) -> Served {
        Served {
            requests: self.requests.load(Relaxed),
            failed: self.failed.load(Relaxed),
            traps: self.traps.load(Relaxed),
            memory_bytes: self.memory.used_bytes(),
            peak_memory_bytes: self.memory.peak_bytes(),
            memory_refused: self.memory.was_refused(),
            fuel_used: self.fuel_used.load(Relaxed),
            instances: self.instances.load(Relaxed),
            instantiation: Duration::from_nanos(self.instantiation_nanos.load(Relaxed)),
            last_trap: self.last_trap.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
