//! Many instances of one program.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod program;

use program::{compiled, component, counting, plain};
use std::{thread, time::Duration};
use tokio::runtime::{Builder, Runtime};
use wasm_exec::{Command, Engine, Instance, Outcome, Profile, Program};

/// Exits with its number of arguments, unless another instance has written to its memory.
const COUNTS_ARGUMENTS: &str = r#"(module
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (if (i32.load (i32.const 100)) (then unreachable))
        (i32.store (i32.const 100) (i32.const 1))
        (drop (call $args_sizes_get (i32.const 0) (i32.const 4)))
        (call $exit (i32.load (i32.const 0)))))"#;

const ENDLESS: &str = r#"(module (func (export "_start") (loop $on (br $on))))"#;

fn load(text: &str, profile: Profile) -> Program {
    Program::load(&Engine::new(profile).unwrap(), compiled(text, profile.fuel)).unwrap()
}

fn command(arguments: usize) -> Command {
    Command::new(vec!["argument".into(); arguments])
}

fn event_loop() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

#[test]
fn instances_of_one_program_on_many_threads_have_nothing_in_common() {
    let program = load(COUNTS_ARGUMENTS, plain());
    thread::scope(|scope| {
        for number in 0..8_u8 {
            let program = &program;
            scope.spawn(move || {
                let runtime = event_loop();
                for _ in 0..50 {
                    let mut instance = Instance::new(program, &command(number.into())).unwrap();
                    let report = runtime.block_on(instance.run()).unwrap();
                    assert_eq!(report.outcome, Outcome::Exited(number));
                    assert_eq!((report.peak_memory_bytes, report.fuel_used), (65_536, None));
                }
            });
        }
    });
}

#[test]
fn a_component_is_instantiated_many_times() {
    let program = load(&component("i32.const 0"), plain());
    let runtime = event_loop();
    for _ in 0..50 {
        let mut instance = Instance::new(&program, &command(1)).unwrap();
        assert_eq!(runtime.block_on(instance.run()).unwrap().outcome, Outcome::Exited(0));
    }
}

#[test]
fn each_instance_has_its_own_fuel() {
    let program = load(ENDLESS, counting());
    let runtime = event_loop();
    for fuel in [100, 200, 100] {
        let mut instance = Instance::new(&program, &Command { fuel: Some(fuel), ..command(1) }).unwrap();
        let report = runtime.block_on(instance.run()).unwrap();
        assert_eq!((report.outcome, report.fuel_used), (Outcome::OutOfFuel, Some(fuel)));
    }
}

#[test]
fn an_interrupted_engine_ends_what_runs_and_runs_what_comes_after() {
    let program = load(ENDLESS, plain());
    for _ in 0..2 {
        let mut instance = Instance::new(&program, &command(1)).unwrap();
        let engine = program.engine().clone();
        let watch = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            engine.interrupt();
        });
        let report = event_loop().block_on(instance.run()).unwrap();
        assert!(matches!(report.outcome, Outcome::TimedOut { .. }), "{:?}", report.outcome);
        watch.join().unwrap();
    }
}

#[test]
fn code_of_another_profile_is_refused() {
    let code = compiled(ENDLESS, true);
    let error = Program::load(&Engine::new(plain()).unwrap(), code).err().unwrap();
    assert!(error.to_string().contains("fuel"), "{error}");
}
