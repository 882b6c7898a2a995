//! Loading a function: its code, and all its imports there.

use super::{Bounds, pool};
use crate::{
    Compiled, Engine, Profile, RunError, component,
    load::{self, Loaded},
    parts::Parts,
    state::State,
    wasi_p2,
};
use std::os::fd::RawFd;
use wasmtime::{InstanceAllocationStrategy, component::Component};
use wasmtime_wasi_http::{p2, p3};

/// What makes a component a function; any last number is accepted.
const HANDLERS: [&str; 2] = ["wasi:http/incoming-handler@0.2.", "wasi:http/handler@0.3."];
const EXPECTED: &str =
    "an instance `wasi:http/incoming-handler@0.2.x` or `wasi:http/handler@0.3.x`, as it is to serve a port";

/// Whether what exports this name answers HTTP requests.
pub fn is_handler(export: &str) -> bool {
    HANDLERS.iter().any(|handler| export.starts_with(handler))
}

/// A function, linked.
#[derive(Clone)]
pub(super) enum Handler {
    /// It answers as WASI 0.2 has it.
    P2(p2::bindings::ProxyPre<State>),
    /// It answers as WASI 0.3 has it.
    P3(p3::bindings::ServicePre<State>),
}

/// A component that answers HTTP requests, ready to be instantiated for each.
pub struct Function {
    pub(super) engine: Engine,
    pub(super) handler: Handler,
    pub(super) bounds: Bounds,
    pub(super) parts: Parts,
    descriptor: Option<RawFd>,
}

impl Function {
    /// Maps the code, finds what it imports, and reserves address space for as many instances as there may be requests at once.
    /// Nothing of it runs. What [`Program::load`](crate::Program::load) says of files holds here too.
    ///
    /// `core_dumps`: what does not end by itself leaves one, for [`Setting::core_dump`](super::Setting::core_dump).
    pub fn load(code: Compiled, bounds: Bounds, core_dumps: bool) -> Result<Self, RunError> {
        let (engine, requests) = reserve(code.profile, bounds.requests, pool::own, core_dumps)?;
        Self::of(engine, code, Bounds { requests, ..bounds })
    }

    /// One whose instances lie in the places of this engine.
    pub(super) fn of(engine: Engine, code: Compiled, bounds: Bounds) -> Result<Self, RunError> {
        let (loaded, descriptor) = load::load(engine.inner(), code)?;
        let component = match loaded {
            Loaded::Component(component) => component,
            Loaded::Module(module) => {
                return Err(RunError::no_entry(EXPECTED, module.exports().map(|export| export.name())));
            }
        };
        let parts = Parts::of(engine.inner(), &component);
        let handler = prepare(&engine, &component, &parts)?;
        Ok(Self { handler, engine, bounds, parts, descriptor })
    }

    /// As [`Program::descriptor`](crate::Program::descriptor).
    pub fn descriptor(&self) -> Option<RawFd> {
        self.descriptor
    }
}

/// An engine with places for as many requests at once as there is address space for, which a limit (RLIMIT_AS) or the system may
/// withhold; the others wait, as any beyond the bound do.
pub(super) fn reserve(
    profile: Profile,
    mut requests: u32,
    strategy: fn(u32) -> InstanceAllocationStrategy,
    core_dumps: bool,
) -> Result<(Engine, u32), RunError> {
    loop {
        match Engine::pooled(profile, strategy(requests), core_dumps) {
            Err(_) if requests > 1 => requests /= 2,
            engine => return engine.map(|engine| (engine, requests)),
        }
    }
}

fn prepare(of: &Engine, component: &Component, parts: &Parts) -> Result<Handler, RunError> {
    let engine = of.inner();
    let exports = component.component_type();
    let named = |handler: &str| exports.exports(engine).map(|(name, _)| name).find(|name| name.starts_with(handler));
    // One for both versions is called as what it was made for last.
    let [p2, p3] = HANDLERS.map(named);
    let Some(name) = p3.or(p2) else {
        return Err(RunError::no_entry(EXPECTED, exports.exports(engine).map(|(name, _)| name)));
    };
    let linker = wasi_p2::linker(engine, of.profile().concurrent, parts).map_err(RunError::engine)?;
    let linked = linker.instantiate_pre(component).map_err(|error| component::missing(engine, component, &error))?;
    let handler = match p3 {
        Some(_) => p3::bindings::ServicePre::new(linked).map(Handler::P3),
        None => p2::bindings::ProxyPre::new(linked).map(Handler::P2),
    };
    handler.map_err(|error| RunError::Entry { name: name.to_owned(), detail: format!("{error:#}") })
}
