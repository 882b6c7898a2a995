//! A program that can be run: its code loaded, all its imports there.

use crate::{
    Compiled, Engine, RunError, component, invoke,
    load::{self, Loaded},
    module,
    parts::Parts,
    state::State,
};
use std::os::fd::RawFd;
use wasmtime::{InstancePre, Store};

/// A program, ready to be instantiated, any number of times and from any thread.
pub struct Program {
    engine: Engine,
    linked: Linked,
    parts: Parts,
    descriptor: Option<RawFd>,
}

/// What an instance is made of; clones share it.
#[derive(Clone)]
pub(crate) enum Linked {
    Module(InstancePre<State>),
    Component(component::Command),
    Call(invoke::Call),
}

impl Program {
    /// Maps the code, and finds what it imports. Nothing of it runs.
    ///
    /// Needs /proc to map a component; where there is none, and where files may not be executed (`noexec`), the code is
    /// copied into memory instead. The engine's profile must be the one that the code was compiled for.
    pub fn load(engine: &Engine, code: Compiled) -> Result<Self, RunError> {
        let concurrent = engine.profile().concurrent;
        let (loaded, descriptor) = load::load(engine.inner(), code)?;
        let parts = parts(engine, &loaded);
        let linked = match &loaded {
            Loaded::Module(module) => Linked::Module(module::prepare(engine.inner(), module)?),
            Loaded::Component(component) => {
                Linked::Component(component::prepare(engine.inner(), component, concurrent, &parts)?)
            }
        };
        Ok(Self { engine: engine.clone(), linked, parts, descriptor })
    }

    /// The same, to call one function that it exports instead of what starts a command: `call` is its name with arguments in WAVE,
    /// such as `f(1, "x")`. Its results become one line on standard output.
    ///
    /// A function of an exported interface may be called by its name alone, if there is one of that name only; else as
    /// `package:name/interface.f` or `package:name/interface@1.0.0#f`.
    pub fn load_call(engine: &Engine, code: Compiled, call: &str) -> Result<Self, RunError> {
        let concurrent = engine.profile().concurrent;
        let (loaded, descriptor) = load::load(engine.inner(), code)?;
        let parts = parts(engine, &loaded);
        let linked = match &loaded {
            Loaded::Module(module) => invoke::of_module(engine.inner(), module, call)?,
            Loaded::Component(component) => invoke::of_component(engine.inner(), component, call, concurrent, &parts)?,
        };
        Ok(Self { engine: engine.clone(), linked: Linked::Call(linked), parts, descriptor })
    }

    /// The engine that it was loaded for.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The descriptor that must stay open until the program is instantiated for the last time, if there is one.
    ///
    /// For a process that closes what it does not need; right if no other thread opened or closed files while
    /// the program was loaded.
    pub fn descriptor(&self) -> Option<RawFd> {
        self.descriptor
    }

    /// What of it has to be granted.
    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    pub(crate) fn linked(&self) -> &Linked {
        &self.linked
    }
}

/// Of a module there are none.
fn parts(engine: &Engine, loaded: &Loaded) -> Parts {
    match loaded {
        Loaded::Module(_) => Parts::default(),
        Loaded::Component(component) => Parts::of(engine.inner(), component),
    }
}

impl Linked {
    /// Whether it is a module that runs from its start.
    pub(crate) fn is_module(&self) -> bool {
        matches!(self, Self::Module(_))
    }

    /// Instantiates it, and runs it to its end.
    pub(crate) async fn start(&self, store: &mut Store<State>) -> wasmtime::Result<()> {
        match self {
            Self::Module(module) => module::start(module, store).await,
            Self::Component(component) => component::start(component, store).await,
            Self::Call(call) => invoke::start(call, store).await,
        }
    }
}
