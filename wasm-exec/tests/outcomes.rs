//! How programs end, and what the report says of it.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod program;

use program::{
    Command, DIGEST, cache_in, command, command_of, compile, compiled, component, counting, outcome, report,
};
use std::time::{Duration, Instant};
use wasm_exec::{Outcome, Profile};

const PAGE: u64 = 65_536;

fn trap_of(text: &str) -> (String, String) {
    match outcome(command(text)) {
        Outcome::Trapped { trap, backtrace } => (trap, backtrace),
        other => panic!("{other:?}"),
    }
}

fn timed_out(text: &str) -> String {
    let started = Instant::now();
    let limit = Duration::from_millis(50);
    let ended = outcome(Command { timeout: Some(limit), ..command(text) });
    assert!(started.elapsed() >= limit);
    match ended {
        Outcome::TimedOut { backtrace } => backtrace,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_module_that_returns_has_status_0() {
    assert_eq!(outcome(command(r#"(module (func (export "_start")))"#)), Outcome::Exited(0));
}

#[test]
fn a_modules_exit_status_is_the_low_eight_bits() {
    for (given, status) in [(0, 0), (1, 1), (125, 125), (126, 126), (255, 255), (256, 0), (-1, 255)] {
        let text = format!(
            r#"(module
                (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
                (memory (export "memory") 1)
                (func (export "_start") (call $exit (i32.const {given})) unreachable))"#
        );
        assert_eq!(outcome(command(&text)), Outcome::Exited(status), "{given}");
    }
}

#[test]
fn a_components_result_is_its_exit_status() {
    assert_eq!(outcome(command(&component("i32.const 0"))), Outcome::Exited(0));
    assert_eq!(outcome(command(&component("i32.const 1"))), Outcome::Exited(1));
}

#[test]
fn a_component_can_exit_with_any_status() {
    let text = r#"(component
        (import "wasi:cli/exit@0.2.3" (instance $exit
            (export "exit" (func (param "status" (result))))
            (export "exit-with-code" (func (param "status-code" u8)))))
        (core func $exit (canon lower (func $exit "exit-with-code")))
        (core module $program
            (import "" "exit" (func $exit (param i32)))
            (func (export "run") (result i32) (call $exit (i32.const 200)) unreachable))
        (core instance $program (instantiate $program (with "" (instance (export "exit" (func $exit))))))
        (func $run (result (result)) (canon lift (core func $program "run")))
        (instance $cli (export "run" (func $run)))
        (export "wasi:cli/run@0.2.3" (instance $cli)))"#;
    assert_eq!(outcome(command(text)), Outcome::Exited(200));
}

#[test]
fn traps_are_named() {
    let cases = [
        ("unreachable", "unreachable"),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "integer divide by zero"),
        ("(drop (i32.load (i32.const -1)))", "out of bounds memory access"),
        ("(call_indirect (i32.const 0))", "uninitialized element"),
        ("call $start", "call stack exhausted"),
        ("(drop (i32.trunc_f32_u (f32.const nan)))", "invalid conversion to integer"),
    ];
    for (body, expected) in cases {
        let text = format!(r#"(module (memory 1) (table 1 funcref) (func $start (export "_start") {body}))"#);
        let (trap, _) = trap_of(&text);
        assert!(trap.starts_with("wasm trap: ") && trap.contains(expected), "{body}: {trap}");
    }
}

#[test]
fn a_backtrace_names_the_functions_innermost_first() {
    let (_, backtrace) = trap_of(
        r#"(module $thing
            (func $_ZN3app5outer17h0123456789abcdefE call $inner)
            (func $inner unreachable)
            (func (export "_start") call $_ZN3app5outer17h0123456789abcdefE))"#,
    );
    let lines: Vec<_> = backtrace.lines().collect();
    assert_eq!(lines.len(), 3, "{backtrace}");
    assert!(lines[0].contains("0: ") && lines[0].ends_with("thing!inner"), "{backtrace}");
    assert!(lines[1].contains("thing!app::outer"), "{backtrace}");
}

#[test]
fn a_components_trap_is_a_trap() {
    let Outcome::Trapped { trap, backtrace } = outcome(command(&component("unreachable"))) else { panic!() };
    assert!(trap.contains("unreachable") && backtrace.contains("program!body"), "{trap}\n{backtrace}");
}

#[test]
fn a_trap_of_the_start_section_is_a_trap() {
    let (trap, _) = trap_of(r#"(module (func $init unreachable) (start $init) (func (export "_start")))"#);
    assert!(trap.contains("unreachable"), "{trap}");
}

#[test]
fn an_exception_that_nobody_catches_is_a_trap() {
    let (trap, _) = trap_of(r#"(module (tag $oops) (func (export "_start") (throw $oops)))"#);
    assert!(trap.contains("exception"), "{trap}");
}

#[test]
fn a_loop_is_timed_out_where_it_is() {
    let backtrace = timed_out(r#"(module (func $spin (loop br 0)) (func (export "_start") call $spin))"#);
    assert!(backtrace.contains("spin"), "{backtrace}");
    let backtrace = timed_out(&component("(loop br 0) i32.const 0"));
    assert!(backtrace.contains("body"), "{backtrace}");
}

#[test]
fn a_sleep_is_timed_out() {
    // A subscription to the monotonic clock, relative, for an hour.
    let backtrace = timed_out(
        r#"(module
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "_start")
                (i32.store (i32.const 16) (i32.const 1))
                (i64.store (i32.const 24) (i64.const 3600000000000))
                (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))"#,
    );
    assert!(backtrace.contains("waiting"), "{backtrace}");
}

#[test]
fn time_that_is_not_used_up_changes_nothing() {
    let ended = report(Command { timeout: Some(Duration::MAX), ..command(r#"(module (func (export "_start")))"#) });
    assert_eq!(ended.outcome, Outcome::Exited(0));
}

#[test]
fn fuel_is_counted_and_ends() {
    let with_fuel = |text, fuel| report(Command { fuel, ..command_of(compiled(text, true)) });

    let ended = with_fuel(r#"(module (func (export "_start") (loop br 0)))"#, Some(10_000));
    assert_eq!((ended.outcome, ended.fuel_used), (Outcome::OutOfFuel, Some(10_000)));

    let short = r#"(module (func (export "_start") nop))"#;
    let limited = with_fuel(short, Some(10_000));
    let unlimited = with_fuel(short, None);
    assert_eq!(limited.outcome, Outcome::Exited(0));
    assert!((1..100).contains(&limited.fuel_used.unwrap()), "{limited:?}");
    assert_eq!(limited.fuel_used, unlimited.fuel_used);
    assert_eq!(report(command(short)).fuel_used, None);
}

#[test]
fn memory_beyond_the_limit_is_refused_as_the_specification_says() {
    // Grows by one page until it fails, and ends with the number of pages.
    let text = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "_start")
            (loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
            (call $exit (memory.size))))"#;
    let ended = report(Command { memory_bytes: Some(10 * PAGE + 1), ..command(text) });
    assert_eq!(ended.outcome, Outcome::Exited(10));
    assert_eq!((ended.peak_memory_bytes, ended.memory_refused), (10 * PAGE, true));
}

#[test]
fn a_program_that_aborts_without_memory_is_out_of_memory() {
    let text = r#"(module (memory 1) (func (export "_start") (drop (memory.grow (i32.const 99))) unreachable))"#;
    let limited = Command { memory_bytes: Some(10 * PAGE), ..command(text) };
    let Outcome::OutOfMemory { limit_bytes, wanted_bytes, trap, backtrace } = outcome(limited) else { panic!() };
    assert_eq!((limit_bytes, wanted_bytes), (10 * PAGE, 100 * PAGE));
    assert!(trap.contains("unreachable") && backtrace.contains("0: "), "{trap}\n{backtrace}");

    // Had it got its memory, it would be a trap like any other.
    assert!(matches!(outcome(command(text)), Outcome::Trapped { .. }));
    // And a mistake in its arithmetic is not for want of memory.
    let text = text.replace("unreachable", "(drop (i32.div_u (i32.const 1) (i32.const 0)))");
    let limited = Command { memory_bytes: Some(10 * PAGE), ..command(&text) };
    assert!(matches!(outcome(limited), Outcome::Trapped { .. }));
}

#[test]
fn a_program_that_copes_with_a_refused_allocation_and_traps_later_has_trapped() {
    // It gets less, works with files, or writes to its standard output (nothing, here) after what it did not get.
    for work in [
        "(drop (memory.grow (i32.const 1)))",
        "(drop (call $read (i32.const 9) (i32.const 0) (i32.const 0) (i32.const 0)))",
        "(i32.store (i32.const 4) (i32.const 1)) (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))",
    ] {
        let text = format!(
            r#"(module
                (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
                (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
                (memory (export "memory") 1)
                (func (export "_start") (drop (memory.grow (i32.const 99))) {work} unreachable))"#
        );
        let ended = report(Command { memory_bytes: Some(10 * PAGE), ..command(&text) });
        let Outcome::Trapped { trap, .. } = ended.outcome else { panic!("{work}: {:?}", ended.outcome) };
        assert!(trap.contains("unreachable"), "{work}: {trap}");
        assert!(ended.memory_refused, "{work}");
    }
}

#[test]
fn a_program_that_is_too_large_to_start_is_out_of_memory() {
    let start = r#"(func (export "_start"))"#;
    let cases = [
        (format!("(module (memory 20) {start})"), 20 * PAGE),
        (format!("(module (table 100000 funcref) {start})"), 800_000),
        (format!("(module (memory 5) (memory 6) {start})"), 11 * PAGE),
    ];
    for (text, wanted_bytes) in cases {
        let ended = report(Command { memory_bytes: Some(10 * PAGE), ..command(&text) });
        let (trap, backtrace) = (String::new(), String::new());
        let expected = Outcome::OutOfMemory { limit_bytes: 10 * PAGE, wanted_bytes, trap, backtrace };
        assert_eq!(ended.outcome, expected, "{text}");
        assert!(ended.memory_refused);
    }
}

#[test]
fn all_instances_of_a_component_share_one_limit() {
    // Two instances of a page and ten elements each; the second asks for three pages more.
    let text = component("(if (i32.eq (memory.grow (i32.const 3)) (i32.const -1)) (then unreachable)) i32.const 0");
    let needed = 5 * PAGE + 160;
    let ended = report(Command { memory_bytes: Some(needed), ..command(&text) });
    assert_eq!((ended.outcome, ended.peak_memory_bytes), (Outcome::Exited(0), needed));
    let ended = outcome(Command { memory_bytes: Some(needed - 1), ..command(&text) });
    let Outcome::OutOfMemory { limit_bytes, wanted_bytes, .. } = ended else { panic!("{ended:?}") };
    assert_eq!((limit_bytes, wanted_bytes), (needed - 1, needed));
}

#[test]
fn a_refused_growth_is_not_given_back_by_a_later_failure() {
    // Growth over the type's own limit fails without being counted, however often it is tried.
    let text = r#"(module (memory 1)
        (func (export "_start") (local $tries i32)
            (drop (memory.grow (i32.const 8)))
            (loop
                (drop (memory.grow (i32.const 65536)))
                (local.set $tries (i32.add (local.get $tries) (i32.const 1)))
                (br_if 0 (i32.lt_u (local.get $tries) (i32.const 10))))
            (if (i32.ne (memory.grow (i32.const 2)) (i32.const -1)) (then unreachable))))"#;
    let ended = report(Command { memory_bytes: Some(10 * PAGE), ..command(text) });
    assert_eq!((ended.outcome, ended.peak_memory_bytes), (Outcome::Exited(0), 9 * PAGE));
}

/// Sections of a dump by name, and what its memories' data are.
fn sections(dump: &[u8]) -> (Vec<String>, Vec<u8>) {
    let (mut names, mut data) = (Vec::new(), Vec::new());
    for payload in wasmparser::Parser::new(0).parse_all(dump) {
        match payload.unwrap() {
            wasmparser::Payload::CustomSection(section) => names.push(section.name().to_owned()),
            wasmparser::Payload::DataSection(section) => {
                section.into_iter().for_each(|segment| data.extend(segment.unwrap().data));
            }
            _ => {}
        }
    }
    (names, data)
}

#[test]
fn a_core_dump_has_the_memory_and_the_stack_of_what_did_not_end_by_itself() {
    let module = r#"(module $dumped (memory 1) (global $g (mut i32) (i32.const 7))
        (func $inner (i32.store (i32.const 9000) (i32.const 0x64636261)) unreachable)
        (func (export "_start") call $inner))"#;
    let component = component("(i32.store (i32.const 9000) (i32.const 0x64636261)) unreachable");
    for text in [module, &component] {
        let dumping = |text: &str| program::report_dumping(command(text));
        let dump = dumping(text).core_dump.expect("a dump");
        let (names, data) = sections(&dump);
        for name in ["core", "coremodules", "coreinstances", "corestack"] {
            assert!(names.iter().any(|found| found == name), "{name} is not among {names:?}");
        }
        assert!(data.windows(4).any(|bytes| bytes == b"abcd"));
    }
    let ended = |text: &str| program::report_dumping(command(text)).core_dump;
    assert!(ended(r#"(module (func (export "_start")))"#).is_none());
    let exit = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (func (export "_start") (call $exit (i32.const 3))))"#;
    assert!(ended(exit).is_none());
    assert!(report(command(module)).core_dump.is_none(), "nobody asked for it");
}

/// The engine has no form for some references; the trap is told all the same.
#[test]
fn a_dump_that_cannot_be_made_takes_nothing_else_with_it() {
    let text = r#"(module (global $g (mut exnref) (ref.null exn)) (func (export "_start") unreachable))"#;
    let ended = program::report_dumping(command(text));
    assert!(matches!(ended.outcome, Outcome::Trapped { .. }), "{:?}", ended.outcome);
}

#[test]
fn a_time_out_leaves_a_core_dump_too() {
    let text = r#"(module (memory 1) (func (export "_start") (loop br 0)))"#;
    let ended = program::report_dumping(Command { timeout: Some(Duration::from_millis(50)), ..command(text) });
    assert!(matches!(ended.outcome, Outcome::TimedOut { .. }) && ended.core_dump.is_some(), "{:?}", ended.outcome);
}

/// A function that calls itself so many times, with values that it needs afterwards.
fn recursive(depth: u32) -> String {
    const VALUES: u32 = 60;
    let locals = "(local i32)".repeat(VALUES as usize);
    let before: String = (1..=VALUES)
        .map(|at| format!("(local.set {at} (i32.mul (i32.add (local.get 0) (i32.const {at})) (i32.const {})))", at * 7))
        .collect();
    let after: String = (1..=VALUES).map(|at| format!("local.get {at} i32.xor ")).collect();
    format!(
        r#"(module (func $f (param i32) (result i32) {locals} {before}
             (if (result i32) (local.get 0) (then (call $f (i32.sub (local.get 0) (i32.const 1)))) (else (i32.const 0)))
             {after})
           (func (export "_start") (drop (call $f (i32.const {depth})))))"#
    )
}

/// What was compiled in haste is slower, and nothing else.
#[test]
fn baseline_code_ends_as_any_other() {
    let run = |text: &str, fuel, timeout| {
        [false, true].map(|baseline| {
            let dir = tempfile::tempdir().unwrap();
            let profile = Profile { baseline, ..counting() };
            let code = compile(&cache_in(dir.path()), DIGEST, &wat::parse_str(text).unwrap(), profile).unwrap();
            assert_eq!(code.profile.baseline, baseline);
            report(Command { fuel, timeout, ..command_of(code) })
        })
    };
    let [optimised, hasty] = run(&recursive(300), None, None);
    assert_eq!((&optimised.outcome, &hasty.outcome), (&Outcome::Exited(0), &Outcome::Exited(0)));
    assert!(optimised.fuel_used.unwrap() > 300 && optimised.fuel_used == hasty.fuel_used, "{optimised:?} {hasty:?}");
    for ended in run(&recursive(u32::MAX), None, None) {
        let Outcome::Trapped { trap, backtrace } = ended.outcome else { panic!("{ended:?}") };
        assert!(trap.contains("call stack exhausted") && backtrace.contains("!f"), "{trap}: {backtrace}");
    }
    for ended in run(&recursive(u32::MAX), Some(1000), None) {
        assert_eq!((ended.outcome, ended.fuel_used), (Outcome::OutOfFuel, Some(1000)));
    }
    let endless = r#"(module (func (export "_start") (loop br 0)))"#;
    for ended in run(endless, None, Some(Duration::from_millis(50))) {
        assert!(matches!(ended.outcome, Outcome::TimedOut { .. }), "{ended:?}");
    }
}

/// Counting and looking at the clock take their part of each call; a program has as much as without both in wasmtime's command line.
#[test]
fn a_program_that_is_watched_has_as_much_stack_as_any() {
    // With 512 KiB, wasmtime's default, some 16,000 such calls are possible without counting, and 11,000 with it.
    let text = r#"(module
        (func $f (param i32) (result i32)
            (if (result i32) (local.get 0)
                (then (i32.add (i32.const 1) (call $f (i32.sub (local.get 0) (i32.const 1)))))
                (else (i32.const 0))))
        (func (export "_start") (drop (call $f (i32.const 16000)))))"#;
    for fuel in [false, true] {
        assert_eq!(outcome(command_of(compiled(text, fuel))), Outcome::Exited(0), "fuel: {fuel}");
    }
}
