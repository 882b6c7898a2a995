//! Commands of WASI 0.3: they end, are limited and are refused like all others.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod program;

use program::{Command, command, command_of, compiled, outcome, refusal, report};
use std::time::Duration;
use wasm_exec::{Outcome, RunError};

/// A component whose asynchronous `run` is the given core function's instructions: `i32.const 0` is success, 1 an error.
fn concurrent(imports: &str, run: &str) -> String {
    format!(
        r#"(component
            (import "wasi:cli/exit@0.3.4" (instance $exit
                (export "exit" (func (param "status" (result))))
                (export "exit-with-code" (func (param "status-code" u8)))))
            {imports}
            (core func $exit (canon lower (func $exit "exit-with-code")))
            (core module $program
                (import "" "exit" (func $exit (param i32)))
                (memory 1)
                (func (export "run") (result i32) {run}))
            (core instance $program (instantiate $program (with "" (instance (export "exit" (func $exit))))))
            (func $run async (result (result)) (canon lift (core func $program "run")))
            (instance $cli (export "run" (func $run)))
            (export "wasi:cli/run@0.3.0" (instance $cli)))"#
    )
}

#[test]
fn they_end_with_their_result_or_by_themselves() {
    for (run, status) in [("i32.const 0", 0), ("i32.const 1", 1), ("(call $exit (i32.const 201)) unreachable", 201)] {
        assert_eq!(outcome(command(&concurrent("", run))), Outcome::Exited(status), "{run}");
    }
}

#[test]
fn their_limits_hold() {
    let endless = concurrent("", "(loop (br 0)) i32.const 0");
    let limited = Command { timeout: Some(Duration::from_millis(50)), ..command(&endless) };
    assert!(matches!(outcome(limited), Outcome::TimedOut { .. }));
    let counted = Command { fuel: Some(10_000), ..command_of(compiled(&endless, true)) };
    assert_eq!(outcome(counted), Outcome::OutOfFuel);
    let growing = concurrent("", "(memory.grow (i32.const 100)) drop unreachable");
    let report = report(Command { memory_bytes: Some(1 << 20), ..command(&growing) });
    assert!(matches!(report.outcome, Outcome::OutOfMemory { .. }), "{report:?}");
    assert!(matches!(outcome(command(&concurrent("", "unreachable"))), Outcome::Trapped { .. }));
}

#[test]
fn both_versions_may_be_imported_and_what_is_missing_is_named() {
    let both = r#"(import "wasi:cli/environment@0.2.0" (instance))"#;
    assert_eq!(outcome(command(&concurrent(both, "i32.const 0"))), Outcome::Exited(0));
    let unknown = r#"(import "wasi:cli/other@0.9.0" (instance (export "f" (func async))))"#;
    let error = refusal(command(&concurrent(unknown, "i32.const 0")));
    assert!(matches!(&error, RunError::Imports { missing } if *missing == ["wasi:cli/other@0.9.0"]), "{error}");
}
