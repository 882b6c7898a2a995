#![allow(unsafe_code, reason = "native code that this program compiled itself can be loaded in no other way")]
//! Loading compiled code: the only place where bytes become instructions.
//!
//! wasmtime asks that they are what its own compiler returned, and that they do not change while they are mapped. A
//! [`Compiled`] is made by `CodeCache` alone (its file is private to this crate), from a regular file that this user owns,
//! that nobody else can write, and that a keyed digest over all of it says was written by `CodeCache::compile`. Our own code
//! never writes to such a file again: a newer one replaces it by rename. wasmtime compares version, settings and processor
//! features before it uses any of it.
//!
//! Code and memory image are mapped, not read: a page of them costs when it is used. The memory image is mapped once more
//! for each instance, from the file, which therefore stays open.

use crate::{Compiled, RunError};
use rustix::fs::{FsWord, StatVfsMountFlags, fstatvfs, statfs};
use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, RawFd},
};
use wasmtime::{Engine, Module, component::Component};

/// The type of procfs (statfs(2)).
const PROC_SUPER_MAGIC: FsWord = 0x9fa0;
/// Where the process's open files have names.
const DESCRIPTORS: &str = "/proc/self/fd";

/// Code, ready.
pub(crate) enum Loaded {
    /// A core module.
    Module(Module),
    /// A component.
    Component(Component),
}

/// Loads the code of a file of the cache; with it comes the descriptor that instances are made from, if the code is mapped.
///
/// Of a component that descriptor is right only if no other thread opens or closes files meanwhile.
pub(crate) fn load(engine: &Engine, code: Compiled) -> Result<(Loaded, Option<RawFd>), RunError> {
    let Compiled { file, component, .. } = code;
    let loaded = match (component, can_be_mapped(&file, component)) {
        (true, true) => map_component(engine, &file),
        (false, true) => map_module(engine, file),
        (component, false) => copy(engine, file, component),
    };
    loaded.map_err(|error| RunError::Code { detail: format!("{error:#}") })
}

/// Whether the file's pages may be executed, and a component's file can be named.
fn can_be_mapped(file: &File, component: bool) -> bool {
    let executable = fstatvfs(file).is_ok_and(|found| !found.f_flag.contains(StatVfsMountFlags::NOEXEC));
    // It must be the kernel's: a file of this name in an image is not ours to load.
    let named = || statfs(DESCRIPTORS).is_ok_and(|found| found.f_type == PROC_SUPER_MAGIC);
    executable && (!component || named())
}

fn map_module(engine: &Engine, file: File) -> wasmtime::Result<(Loaded, Option<RawFd>)> {
    let descriptor = file.as_raw_fd();
    // SAFETY: the file holds what `Engine::precompile_module` returned and does not change, as said above.
    let module = unsafe { Module::deserialize_open_file(engine, file) }?;
    Ok((Loaded::Module(module), Some(descriptor)))
}

/// There is no `deserialize_open_file` for components, so the open file is opened once more, by the kernel's name for it.
fn map_component(engine: &Engine, file: &File) -> wasmtime::Result<(Loaded, Option<RawFd>)> {
    let path = format!("{DESCRIPTORS}/{}", file.as_raw_fd());
    let descriptor = next_descriptor(file)?;
    // SAFETY: as for modules, by `Engine::precompile_component`; in procfs the path leads to the open file itself.
    let component = unsafe { Component::deserialize_file(engine, path) }?;
    Ok((Loaded::Component(component), Some(descriptor)))
}

/// The descriptor that is opened next: the lowest that is free (open(2)).
fn next_descriptor(file: &File) -> io::Result<RawFd> {
    Ok(file.try_clone()?.as_raw_fd())
}

fn copy(engine: &Engine, mut file: File, component: bool) -> wasmtime::Result<(Loaded, Option<RawFd>)> {
    let mut image = Vec::new();
    file.read_to_end(&mut image)?;
    let loaded = if component {
        // SAFETY: what `Engine::precompile_component` returned, as said above; these bytes are a copy of our own.
        unsafe { Component::deserialize(engine, &image) }.map(Loaded::Component)
    } else {
        // SAFETY: the same, of `Engine::precompile_module`.
        unsafe { Module::deserialize(engine, &image) }.map(Loaded::Module)
    };
    Ok((loaded?, None))
}
