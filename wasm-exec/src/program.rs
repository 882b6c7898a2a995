//! A program that can be run: its code loaded, all its imports there.

use crate::{
    Compiled, component, engine,
    load::{self, Loaded},
    module,
    run::{RunError, State},
};
use std::os::fd::RawFd;
use wasmtime::{Engine, InstancePre, Store};
use wasmtime_wasi::p2::bindings::CommandPre;

/// A program, ready to be run.
pub struct Program {
    pub(crate) engine: Engine,
    /// Whether it counts instructions.
    pub(crate) fuel: bool,
    linked: Linked,
    descriptor: Option<RawFd>,
}

enum Linked {
    Module(InstancePre<State>),
    Component(CommandPre<State>),
}

impl Program {
    /// Maps the code, and finds what it imports. Nothing of it runs.
    ///
    /// Needs /proc to map a component; where there is none, and where files may not be executed (`noexec`), the code is
    /// copied into memory instead. Installs handlers for the signals by which the processor tells of traps.
    pub fn load(code: Compiled) -> Result<Self, RunError> {
        let fuel = code.fuel;
        let engine = engine::runner(fuel).map_err(RunError::engine)?;
        let (loaded, descriptor) = load::load(&engine, code)?;
        let linked = match &loaded {
            Loaded::Module(module) => Linked::Module(module::prepare(&engine, module)?),
            Loaded::Component(component) => Linked::Component(component::prepare(&engine, component)?),
        };
        Ok(Self { engine, fuel, linked, descriptor })
    }

    /// The descriptor that must stay open until the program is instantiated, if there is one.
    ///
    /// For a process that closes what it does not need; right if no other thread opened or closed files while
    /// the program was loaded.
    pub fn descriptor(&self) -> Option<RawFd> {
        self.descriptor
    }

    pub(crate) async fn start(&self, store: &mut Store<State>) -> wasmtime::Result<()> {
        match &self.linked {
            Linked::Module(module) => module::start(module, store).await,
            Linked::Component(component) => component::start(component, store).await,
        }
    }
}
