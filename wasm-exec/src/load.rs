#![allow(unsafe_code, reason = "native code that this program compiled itself can be loaded in no other way")]
//! Loading compiled code: the only place where bytes become instructions.
//!
//! wasmtime asks that they are what its own compiler returned, and that they do not change while they are mapped. A
//! [`Compiled`] is made by `CodeCache` alone (its file is private to this crate), from a regular file that this user owns,
//! that nobody else can write, and whose last bytes say that it was written whole by `CodeCache::compile`. Our own code
//! never writes to such a file again: a newer one replaces it by rename. wasmtime compares version, settings and processor
//! features before it uses any of it.

use crate::{Compiled, RunError};
use rustix::fs::{FsWord, statfs};
use std::{io::Read, os::fd::AsRawFd};
use wasmtime::{Engine, Module, component::Component};

/// The type of procfs (statfs(2)).
const PROC_SUPER_MAGIC: FsWord = 0x9fa0;

/// Code, mapped and ready.
pub(crate) enum Program {
    /// A core module.
    Module(Module),
    /// A component.
    Component(Component),
}

/// Maps the code of a file of the cache.
pub(crate) fn load(engine: &Engine, code: Compiled) -> Result<Program, RunError> {
    let loaded = if code.component {
        component(engine, code).map(Program::Component)
    } else {
        // SAFETY: the file holds what `Engine::precompile_module` returned and does not change, as said above.
        unsafe { Module::deserialize_open_file(engine, code.file) }.map(Program::Module)
    };
    loaded.map_err(|error| RunError::Code { detail: format!("{error:#}") })
}

fn component(engine: &Engine, mut code: Compiled) -> wasmtime::Result<Component> {
    // There is no `deserialize_open_file` for components. This path names the same open file, where /proc is mounted. It
    // must be the kernel's: a file of this name in an image is not ours to load.
    let by_descriptor = "/proc/self/fd";
    if statfs(by_descriptor).is_ok_and(|found| found.f_type == PROC_SUPER_MAGIC) {
        let path = format!("{by_descriptor}/{}", code.as_raw_fd());
        // SAFETY: as for modules, by `Engine::precompile_component`; in procfs the path leads to the open file itself.
        return unsafe { Component::deserialize_file(engine, path) };
    }
    let mut image = Vec::new();
    code.file.read_to_end(&mut image)?;
    // SAFETY: as for modules, by `Engine::precompile_component`; these bytes are a copy of our own.
    unsafe { Component::deserialize(engine, &image) }
}
