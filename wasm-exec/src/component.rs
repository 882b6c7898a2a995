//! Components that are commands: `wasi:cli/run`.

use crate::{RunError, imports, state::State, wasi_p2};
use wasmtime::{Engine, Store, component::Component};
use wasmtime_wasi::{I32Exit, p2::bindings::CommandPre};

const RUN: &str = "wasi:cli/run@0.2.";

/// Checks that the component can be started and that all its imports are there.
pub(crate) fn prepare(engine: &Engine, component: &Component) -> Result<CommandPre<State>, RunError> {
    let linker = wasi_p2::linker(engine).map_err(RunError::engine)?;
    linker.instantiate_pre(component).and_then(CommandPre::new).map_err(|error| refusal(engine, component, &error))
}

/// Runs it to its end; an error that it returns is exit status 1.
pub(crate) async fn start(component: &CommandPre<State>, store: &mut Store<State>) -> wasmtime::Result<()> {
    let command = component.instantiate_async(&mut *store).await?;
    command.wasi_cli_run().call_run(store).await?.map_err(|()| I32Exit(1).into())
}

fn refusal(engine: &Engine, component: &Component, error: &wasmtime::Error) -> RunError {
    let ty = component.component_type();
    if !ty.exports(engine).any(|(name, _)| name.starts_with(RUN)) {
        return RunError::no_entry("an instance `wasi:cli/run@0.2.x`", ty.exports(engine).map(|(name, _)| name));
    }
    match imports::missing_of_component(ty.imports(engine).map(|(name, _)| name)) {
        missing if missing.is_empty() => RunError::Imports { missing: vec![format!("{error:#}")] },
        missing => RunError::Imports { missing },
    }
}
