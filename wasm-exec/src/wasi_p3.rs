//! WASI 0.3 for a linker: the imports of its `wasi:cli/command` world.

mod files;

use crate::{exit, state::State};
use wasmtime::component::{HasSelf, Linker};
use wasmtime_wasi::p3::{self, bindings::cli::exit as wasi_exit};

/// Adds all that a component can import, in any version 0.3.x, to a linker that lets what is added last count.
pub(crate) fn add(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    p3::add_to_linker(linker)?;
    // In place of wasmtime-wasi's.
    wasi_exit::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    files::add(linker)
}

impl wasi_exit::Host for State {
    fn exit(&mut self, status: Result<(), ()>) -> wasmtime::Result<()> {
        Err(exit::error(self, status.is_err().into()))
    }

    fn exit_with_code(&mut self, status: u8) -> wasmtime::Result<()> {
        Err(exit::error(self, status.into()))
    }
}
