//! Places for instances of many functions in one process: an engine for each profile that one of them needs, and a clock for each engine.

use super::{Bounds, Function, Service, Serving, clock::Clock, function, pool, share::Lanes};
use crate::{Command, Compiled, Engine, Profile, RunError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::runtime::Handle;

/// Engines that functions share, made when the first function needs them.
#[derive(Default)]
pub struct Pools {
    made: Mutex<Vec<Pool>>,
    /// Of the event loop that all of them are on.
    lanes: OnceLock<Lanes>,
}

struct Pool {
    engine: Engine,
    /// Instances that there is room for.
    places: u32,
    clock: Arc<Clock>,
}

/// Instances of all functions of one profile, where the system has so much address space.
const PLACES: u32 = 8192;

impl Pools {
    /// A function whose instances lie beside those of others; `bounds.requests` is cut to the places that there are, and what `bounds` says
    /// of clients is for whoever accepts them. What it does goes on, on the event loop on which this is called: one with time and I/O.
    ///
    /// `command.timeout` has no meaning here. Code of one profile is loaded by the engine of all that have it.
    pub fn service(
        &self,
        code: Compiled,
        bounds: Bounds,
        command: Command,
        serving: Serving,
    ) -> Result<Service, RunError> {
        let (engine, clock, places) = self.engine(code.profile)?;
        let function = Function::of(engine, code, Bounds { requests: bounds.requests.min(places), ..bounds })?;
        let lanes = self.lanes.get_or_init(|| Lanes::new(Handle::current().metrics().num_workers()));
        Service::new(function, command, serving, clock, lanes.clone())
    }

    fn engine(&self, profile: Profile) -> Result<(Engine, Arc<Clock>, u32), RunError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = made.iter().find(|pool| pool.engine.profile() == profile) {
            return Ok((pool.engine.clone(), Arc::clone(&pool.clock), pool.places));
        }
        let (engine, places) = function::reserve(profile, PLACES, pool::shared, false)?;
        let clock = Clock::start(engine.clone(), |_| ());
        let (clock, _thread) = clock.map_err(|error| RunError::Thread { what: "the clock", error })?;
        let clock = Arc::new(clock);
        made.push(Pool { engine: engine.clone(), places, clock: Arc::clone(&clock) });
        Ok((engine, clock, places))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.clock.end();
    }
}
