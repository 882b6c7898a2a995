//! Modules that chance made: none brings its host down, and code of both kinds ends each of them in the same way.
//!
//! Those of `corpus/modules` are valid and came from wasm-smith 0.254 (arbitrary bytes of a seeded sequence, `exports` a function
//! `_start`, no imports, numbers that are none made alike, no relaxed instructions). wasm-smith is no dependency here, as it
//! would have wasmtime built once more for tests. `AMPHORA_TEST_MODULES=FOLDER` runs others.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod program;

use program::{Command, DIGEST, cache_in, command_of, compile, counting, run};
use std::{env, path::Path};
use test_inputs::Target;
use wasm_exec::{Outcome, Profile, Report, RunError};

/// Ends loops, and keeps most recursions within the smaller of both stacks.
const FUEL: u64 = 1000;
const MEMORY_BYTES: u64 = 64 << 20;
/// Of a program that used up its stack, which is sooner or later.
const STACK: &str = "stack exhausted";

/// None if it is not compiled.
fn ended(wasm: &[u8], baseline: bool) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let code = compile(&cache_in(dir.path()), DIGEST, wasm, Profile { baseline, ..counting() }).ok()?;
    let ended = run(Command { fuel: Some(FUEL), memory_bytes: Some(MEMORY_BYTES), ..command_of(code) });
    Some(shown(&ended))
}

/// How it ended, with what it came to by then. What a trap leaves of the fuel is not told to the last instruction.
fn shown(ended: &Result<Report, RunError>) -> String {
    let report = match ended {
        Ok(report) => report,
        Err(error) => return format!("not started: {error}"),
    };
    let memory = report.peak_memory_bytes;
    match &report.outcome {
        Outcome::Trapped { trap, .. } if trap.contains(STACK) => STACK.to_owned(),
        Outcome::Trapped { trap, .. } | Outcome::OutOfMemory { trap, .. } => format!("{trap}, {memory} bytes"),
        other => format!("{other:?}, {:?} of fuel, {memory} bytes", report.fuel_used),
    }
}

/// Whether it is a module.
fn ends_alike(wasm: &[u8]) -> bool {
    let [optimised, baseline] = [false, true].map(|baseline| ended(wasm, baseline));
    let is_alike = optimised == baseline || optimised.as_deref() == Some(STACK);
    assert!(is_alike, "optimised: {optimised:?}\nbaseline: {baseline:?}");
    optimised.is_some()
}

#[test]
fn modules_that_chance_makes_end_alike_in_both_kinds_of_code() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    Target { name: "modules", property: ends_alike, words: &["_start", "memory"], cases: 100 }.run(&corpus);
}

#[test]
#[ignore = "for many modules, where there are any"]
fn modules_of_a_folder_end_alike() {
    let folder = env::var_os("AMPHORA_TEST_MODULES").expect("AMPHORA_TEST_MODULES");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        assert!(ends_alike(&std::fs::read(&path).unwrap()), "it is not compiled");
        count += 1;
    }
    println!("{count} modules");
}
