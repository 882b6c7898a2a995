//! Programs that must not start, and what is said about them.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod program;

use program::{Command, command, component, refusal};
use wasm_exec::{RunError, unprovided_imports};

fn unprovided(text: &str) -> Vec<String> {
    unprovided_imports(&wat::parse_str(text).unwrap()).unwrap()
}

fn missing(text: &str) -> Vec<String> {
    match refusal(command(text)) {
        RunError::Imports { missing } => missing,
        other => panic!("{other}"),
    }
}

#[test]
fn a_modules_missing_imports_are_all_named() {
    let text = r#"(module
        (import "env" "host_call" (func (param i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
        (import "wasi_unstable" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
        (import "env" "memory" (memory 1))
        (import "wasi_snapshot_preview1" "sock_connect" (func (param i32) (result i32)))
        (func (export "_start")))"#;
    let expected = ["env::host_call", "wasi_unstable::fd_write", "env::memory", "wasi_snapshot_preview1::sock_connect"];
    assert_eq!(unprovided(text), expected);
    assert_eq!(missing(text), expected);
}

#[test]
fn an_import_of_another_type_is_named_with_both() {
    let text = r#"(module
        (import "wasi_snapshot_preview1" "fd_close" (func (param i64) (result i32)))
        (import "wasi_snapshot_preview1" "fd_sync" (global i32))
        (func (export "_start")))"#;
    let expected = [
        "wasi_snapshot_preview1::fd_close (as (type (func (param i64) (result i32))), which here is (type (func (param i32) (result i32))))",
        "wasi_snapshot_preview1::fd_sync (which here is a function)",
    ];
    assert_eq!(unprovided(text), expected);
    assert_eq!(missing(text), expected);
}

#[test]
fn what_wasi_has_is_provided() {
    let text = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
        (import "wasi_snapshot_preview1" "path_open" (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32))))"#;
    assert_eq!(unprovided(text), [""; 0]);

    let text = r#"(component
        (import "wasi:cli/environment@0.2.0" (instance (export "get-arguments" (func (result (list string))))))
        (import "wasi:random/random@0.2.9" (instance (export "get-random-u64" (func (result u64)))))
        (import "wasi:sockets/tcp@0.2.0" (instance (export "tcp-socket" (type (sub resource)))))
        (import "my:own/types" (instance (type $number u32) (export "number" (type (eq $number))))))"#;
    assert_eq!(unprovided(text), [""; 0]);
}

#[test]
fn imports_behind_code_are_judged_by_their_names() {
    let import = |name| format!(r#"(component (core module) (import "{name}" (instance (export "f" (func)))))"#);
    assert_eq!(unprovided(&import("wasi:nn/tensor@0.2.0")), ["wasi:nn/tensor@0.2.0"]);
    assert_eq!(unprovided(&import("wasi:io/poll@0.2.0")), [""; 0]);
}

#[test]
fn a_components_missing_imports_are_all_named() {
    let imports = r#"
        (import "wasi:cli/environment@0.2.0" (instance))
        (import "wasi:nn/tensor@0.2.0" (instance (export "tensor" (type (sub resource)))))
        (import "wasi:cli/environment@0.3.7" (instance (export "get-arguments" (func (result (list string))))))
        (import "wasi:cli/environment@0.4.0" (instance (export "get-arguments" (func (result (list string))))))
        (import "wasi:cli/exit@0.3.0-rc-2025-09-16" (instance))
        (import "my:own/thing" (instance (export "do-it" (func))))"#;
    let text = component("i32.const 0").replacen("(component", &format!("(component {imports}"), 1);
    let expected =
        ["wasi:nn/tensor@0.2.0", "wasi:cli/environment@0.4.0", "wasi:cli/exit@0.3.0-rc-2025-09-16", "my:own/thing"];
    assert_eq!(unprovided(&text), expected);
    assert_eq!(missing(&text), expected);
}

#[test]
fn a_function_that_an_interface_lacks_is_named() {
    let import = r#"(import "wasi:cli/environment@0.2.0" (instance (export "set-cwd" (func (param "to" string)))))"#;
    let text = component("i32.const 0").replacen("(component", &format!("(component {import}"), 1);
    for found in [unprovided(&text), missing(&text)] {
        let [found] = found.as_slice() else { panic!("{found:?}") };
        assert!(found.contains("wasi:cli/environment@0.2.0") && found.contains("set-cwd"), "{found}");
    }
}

#[test]
fn what_is_no_program_has_no_imports() {
    for bytes in [
        &b""[..],
        b"\0asm",
        b"\0asm\x02\0\0\0",
        b"#!/bin/sh\n",
        b"\0asm\x01\0\0\0\x02\xff",
        b"\0asm\x0d\0\x01\0\x0a\xff",
    ] {
        let error = unprovided_imports(bytes).unwrap_err();
        assert!(matches!(error, RunError::Program { .. }), "{bytes:?}: {error}");
    }
}

#[test]
fn a_program_without_an_entry_says_what_it_has() {
    let cases = [
        (r#"(module (func (export "add")) (func (export "sub")))"#, "a function `_start`", "it exports add, sub"),
        (r#"(module (func (export "_start") (param i32)))"#, "without parameters", "it exports _start"),
        ("(module)", "a function `_start`", "it exports nothing"),
        (r#"(component (instance $i) (export "wasi:cli/run@0.4.0" (instance $i)))"#, "0.3", "a version of WASI"),
        (r#"(component (instance $i) (export "wasi:http/incoming-handler@0.2.0" (instance $i)))"#, "0.2", "HTTP"),
        (
            r#"(component (import "wasi:nn/tensor@0.2.0" (instance)) (instance $i) (export "a:b/c" (instance $i)))"#,
            "wasi:cli/run@0.2.x",
            "it exports a:b/c",
        ),
    ];
    for (text, expected, found) in cases {
        let error = refusal(command(text));
        assert!(matches!(error, RunError::NoEntry { .. }), "{text}: {error}");
        let error = error.to_string();
        assert!(error.contains(expected) && error.contains(found), "{text}: {error}");
    }
}

#[test]
fn an_entry_of_another_type_is_named() {
    for name in ["wasi:cli/run@0.2.5", "wasi:cli/run@0.3.0"] {
        let error = refusal(command(&format!(r#"(component (instance $i) (export "{name}" (instance $i)))"#)));
        assert!(matches!(&error, RunError::Entry { name: found, .. } if found == name), "{error}");
        let error = refusal(command(&format!(
            r#"(component
                (core module $program (func (export "run") (result i32) i32.const 0))
                (core instance $program (instantiate $program))
                (func $run (result u32) (canon lift (core func $program "run")))
                (instance $i (export "run" (func $run))) (export "{name}" (instance $i)))"#
        )));
        assert!(error.to_string().contains("whose result is `result`") && error.to_string().contains(name), "{error}");
    }
}

#[test]
fn long_lists_of_exports_are_cut() {
    let exports: String = (0..20).map(|n| format!(r#"(func (export "f{n}"))"#)).collect();
    let error = refusal(command(&format!("(module {exports})"))).to_string();
    assert!(error.contains("f7 and 12 more") && !error.contains("f8"), "{error}");
}

#[test]
fn a_fuel_limit_needs_code_that_counts() {
    let command = Command { fuel: Some(1), ..command(r#"(module (func (export "_start")))"#) };
    assert!(matches!(refusal(command), RunError::NotCounting));
}
