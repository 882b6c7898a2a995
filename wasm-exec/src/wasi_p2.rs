//! WASI for a component's linker: the imports of the `wasi:cli/command` world, those of 0.2 here.

mod files;

use crate::{exit, parts::Parts, state::State, wasi_p3};
use wasmtime::{
    Engine,
    component::{HasSelf, Linker},
};
use wasmtime_wasi::p2::{add_to_linker_async, bindings::cli::exit as wasi_exit};

/// All that a component with these `parts` can import, in any version 0.2.x, and 0.3.x if it is `concurrent`; such a one may use both.
pub(crate) fn linker(engine: &Engine, concurrent: bool, parts: &Parts) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    add_to_linker_async(&mut linker)?;
    // In place of wasmtime-wasi's.
    linker.allow_shadowing(true);
    wasi_exit::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    files::add(&mut linker)?;
    if concurrent {
        wasi_p3::add(&mut linker)?;
    }
    parts.add(&mut linker, concurrent)?;
    Ok(linker)
}

impl wasi_exit::Host for State {
    fn exit(&mut self, status: Result<(), ()>) -> wasmtime::Result<()> {
        Err(exit::error(self, status.is_err().into()))
    }

    fn exit_with_code(&mut self, status: u8) -> wasmtime::Result<()> {
        Err(exit::error(self, status.into()))
    }
}
