//! Core modules: WASI p1.

use crate::{RunError, imports, state::State, wasi_p1};
use wasmtime::{Engine, ExternType, InstancePre, Linker, Module, Store};

const START: &str = "_start";

/// Checks that the module can be started and that all its imports are there.
pub(crate) fn prepare(engine: &Engine, module: &Module) -> Result<InstancePre<State>, RunError> {
    check_entry(module)?;
    link(engine, module)
}

/// Checks that all its imports are there.
pub(crate) fn link(engine: &Engine, module: &Module) -> Result<InstancePre<State>, RunError> {
    let mut linker = Linker::new(engine);
    for import in module.imports().filter(|import| import.module() == wasi_p1::MODULE) {
        wasi_p1::add(&mut linker, import.name()).map_err(RunError::engine)?;
    }
    linker.instantiate_pre(module).map_err(|error| missing(engine, module, &error))
}

/// Runs it to its end.
pub(crate) async fn start(module: &InstancePre<State>, store: &mut Store<State>) -> wasmtime::Result<()> {
    let instance = module.instantiate_async(&mut *store).await?;
    let start = instance.get_typed_func::<(), ()>(&mut *store, START)?;
    start.call_async(store, ()).await
}

fn check_entry(module: &Module) -> Result<(), RunError> {
    match module.get_export(START) {
        Some(ExternType::Func(ty)) if ty.params().len() == 0 && ty.results().len() == 0 => Ok(()),
        _ => Err(RunError::no_entry(
            "a function `_start` without parameters and results",
            module.exports().map(|export| export.name()),
        )),
    }
}

fn missing(engine: &Engine, module: &Module, error: &wasmtime::Error) -> RunError {
    let imports = module.imports().map(|import| {
        let ty = import.ty().func().cloned();
        (import.module().to_owned(), import.name().to_owned(), ty)
    });
    match imports::missing_of_module(engine, imports.collect()) {
        Ok(missing) if !missing.is_empty() => RunError::Imports { missing },
        _ => RunError::Imports { missing: vec![format!("{error:#}")] },
    }
}
