//! Components that are commands: `wasi:cli/run`.

use crate::{RunError, imports, parts::Parts, state::State, wasi_p2};
use wasmtime::{
    Engine, Store,
    component::{
        Component,
        types::{self, ComponentItem, Type},
    },
};
use wasmtime_wasi::{I32Exit, p2, p3};

const RUN: &str = "wasi:cli/run@";

/// A command, linked.
#[derive(Clone)]
pub(crate) enum Command {
    /// Its `run` is that of WASI 0.2.
    P2(p2::bindings::CommandPre<State>),
    /// Its `run` is that of WASI 0.3.
    P3(p3::bindings::CommandPre<State>),
}

/// Checks that the component can be started and that all its imports are there.
pub(crate) fn prepare(
    engine: &Engine,
    component: &Component,
    concurrent: bool,
    parts: &Parts,
) -> Result<Command, RunError> {
    let linker = wasi_p2::linker(engine, concurrent, parts).map_err(RunError::engine)?;
    let exports = component.component_type();
    let runs: Vec<&str> = exports.exports(engine).map(|(name, _)| name).filter(|name| name.starts_with(RUN)).collect();
    // One for both versions is called as what it was made for last.
    let [p2, p3] = ["0.2.", "0.3."].map(|version| runs.iter().find(|name| name[RUN.len()..].starts_with(version)));
    let Some(name) = p3.or(p2) else {
        let expected = "an instance `wasi:cli/run@0.2.x` or `@0.3.x`";
        return Err(RunError::no_entry(expected, exports.exports(engine).map(|(name, _)| name)));
    };
    check_run(engine, &exports, name)?;
    let linked = linker.instantiate_pre(component).map_err(|error| missing(engine, component, &error))?;
    let command = match p3 {
        Some(_) => p3::bindings::CommandPre::new(linked).map(Command::P3),
        None => p2::bindings::CommandPre::new(linked).map(Command::P2),
    };
    command.map_err(|error| RunError::Entry { name: (*name).to_owned(), detail: format!("{error:#}") })
}

/// wasmtime would find out when it has been instantiated, and not say of which function.
fn check_run(engine: &Engine, exports: &types::Component, name: &str) -> Result<(), RunError> {
    let run = match exports.get_export(engine, name).map(|export| export.ty) {
        Some(ComponentItem::ComponentInstance(instance)) => instance.get_export(engine, "run").map(|run| run.ty),
        _ => None,
    };
    let is_right = matches!(&run, Some(ComponentItem::ComponentFunc(run))
        if run.params().len() == 0
            && matches!(run.results().collect::<Vec<_>>().as_slice(),
                [Type::Result(result)] if result.ok().is_none() && result.err().is_none()));
    let detail = "it has no function `run` without parameters whose result is `result`";
    if is_right { Ok(()) } else { Err(RunError::Entry { name: name.to_owned(), detail: detail.to_owned() }) }
}

/// Runs it to its end; an error that it returns is exit status 1.
pub(crate) async fn start(command: &Command, store: &mut Store<State>) -> wasmtime::Result<()> {
    let ended = match command {
        Command::P2(command) => {
            let command = command.instantiate_async(&mut *store).await?;
            command.wasi_cli_run().call_run(store).await?
        }
        Command::P3(command) => {
            let command = command.instantiate_async(&mut *store).await?;
            store.run_concurrent(async |store| command.wasi_cli_run().call_run(store).await).await??
        }
    };
    ended.map_err(|()| I32Exit(1).into())
}

/// What keeps a component from being linked.
pub(crate) fn missing(engine: &Engine, component: &Component, error: &wasmtime::Error) -> RunError {
    let ty = component.component_type();
    match imports::missing_of_component(ty.imports(engine).map(|(name, _)| name)) {
        missing if missing.is_empty() => RunError::Imports { missing: vec![format!("{error:#}")] },
        missing => RunError::Imports { missing },
    }
}
