//! Core dumps: what a program had in its memories and globals, and where it was, when it did not end by itself.
//!
//! The form is WebAssembly's own (tool-conventions, Coredump.md), as debuggers for it read: a module whose sections `core`,
//! `coremodules`, `coreinstances` and `corestack` tell of the program, and whose data are the memories'.

use crate::Outcome;
use std::panic::{AssertUnwindSafe, catch_unwind};
use wasmtime::{AsContextMut, Error, WasmCoreDump};

/// The dump that an error brings along; of a program of this name. None where the program ended by itself, where the engine makes none,
/// and where it cannot tell what is in a global: it knows no form for some references.
pub(crate) fn of(error: &Error, outcome: &Outcome, store: impl AsContextMut, name: &str) -> Option<Vec<u8>> {
    if matches!(outcome, Outcome::Exited(_)) {
        return None;
    }
    let dump = error.downcast_ref::<WasmCoreDump>()?;
    // What it was about to tell is not less true for that.
    catch_unwind(AssertUnwindSafe(|| dump.serialize(store, name))).ok()
}
