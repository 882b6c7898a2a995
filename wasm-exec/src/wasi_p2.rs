//! WASI 0.2 for a linker: the imports of its `wasi:cli/command` world.

use crate::{exit, state::State};
use wasmtime::{
    Engine,
    component::{HasSelf, Linker},
};
use wasmtime_wasi::p2::{add_to_linker_async, bindings::cli::exit as wasi_exit};

/// All that a component can import, in any version 0.2.x.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    add_to_linker_async(&mut linker)?;
    // In place of wasmtime-wasi's.
    linker.allow_shadowing(true);
    wasi_exit::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
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
