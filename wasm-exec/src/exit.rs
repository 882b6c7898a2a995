//! A program's exit: an error that unwinds it, of which nobody wants to know where it was raised.
//!
//! wasmtime gives every error that leaves the program a backtrace, unless it has one, and looks up file and line of each
//! frame at once. For that it reads all of the program's DWARF again for each frame: half of the time that a large program
//! took. So an exit brings a backtrace along, without frames.

use crate::state::State;
use wasmtime::{Error, Store, WasmBacktrace};
use wasmtime_wasi::I32Exit;

/// The backtrace of a program that does not run yet.
pub(crate) fn prepare(store: &mut Store<State>) {
    let nowhere = WasmBacktrace::capture(&*store);
    store.data_mut().nowhere = Some(nowhere);
}

/// The error that ends the program with this status.
pub(crate) fn error(state: &mut State, status: i32) -> Error {
    let exit = Error::from(I32Exit(status));
    match state.nowhere.take() {
        Some(nowhere) => exit.context(nowhere),
        None => exit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Profile, component, engine, module, parts::Parts};
    use std::future::Future;
    use wasmtime::{Engine, Module, component::Component};

    const MODULE: &str = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (func (export "_start") (call $exit (i32.const 3))))"#;

    const COMPONENT: &str = r#"(component
        (import "wasi:cli/exit@0.2.3" (instance $exit (export "exit" (func (param "status" (result))))))
        (core func $exit (canon lower (func $exit "exit")))
        (core module $program
            (import "" "exit" (func $exit (param i32)))
            (func (export "run") (result i32) (call $exit (i32.const 1)) unreachable))
        (core instance $program (instantiate $program (with "" (instance (export "exit" (func $exit))))))
        (func $run (result (result)) (canon lift (core func $program "run")))
        (instance $cli (export "run" (func $run)))
        (export "wasi:cli/run@0.2.3" (instance $cli)))"#;

    fn store(engine: &Engine) -> Store<State> {
        let mut store = Store::new(engine, State::empty());
        store.set_epoch_deadline(1);
        prepare(&mut store);
        store
    }

    fn check(run: impl Future<Output = wasmtime::Result<()>>, status: i32) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let error = runtime.block_on(run).unwrap_err();
        assert_eq!(error.downcast_ref::<I32Exit>().map(|exit| exit.0), Some(status), "{error:?}");
        assert!(error.downcast_ref::<WasmBacktrace>().unwrap().frames().is_empty(), "{error:?}");
    }

    #[test]
    fn the_frames_of_a_modules_exit_are_not_looked_up() {
        let engine = engine::compiler(Profile::default(), 0).unwrap();
        let module = Module::new(&engine, wat::parse_str(MODULE).unwrap()).unwrap();
        let module = module::prepare(&engine, &module).unwrap();
        check(module::start(&module, &mut store(&engine)), 3);
    }

    #[test]
    fn the_frames_of_a_components_exit_are_not_looked_up() {
        let engine = engine::compiler(Profile::default(), 0).unwrap();
        let component = Component::new(&engine, wat::parse_str(COMPONENT).unwrap()).unwrap();
        let component = component::prepare(&engine, &component, false, &Parts::default()).unwrap();
        check(component::start(&component, &mut store(&engine)), 1);
    }
}
