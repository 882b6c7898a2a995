use super::*;

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

const COMMAND: &str = r#"(module
    (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 2 16)
    (func (export "_start")))"#;

#[test]
fn modules() {
    let found = inspect(&wat(COMMAND)).unwrap();
    assert_eq!((found.form, found.role), (Form::Module, Role::Command));
    assert_eq!(found.imports, ["wasi_snapshot_preview1::fd_write", "wasi_snapshot_preview1::proc_exit"]);
    assert_eq!(found.exports, ["memory", "_start"]);
    assert_eq!(found.memory, Some((2 << 16, Some(16 << 16))));
}

#[test]
fn roles_and_memories() {
    let table = [
        ("(module)", Role::Library, None),
        (r#"(module (memory 1) (func (export "_initialize")))"#, Role::Library, Some((1 << 16, None))),
        (r#"(module (import "env" "m" (memory 3)) (memory 1))"#, Role::Library, Some((3 << 16, None))),
        (r#"(module (memory i64 1 1))"#, Role::Library, Some((1 << 16, Some(1 << 16)))),
        (r#"(module (global (export "_start") i32 (i32.const 0)))"#, Role::Library, None),
        (r#"(module (func (export "wasi:cli/run")))"#, Role::Library, None),
        (&interface("wasi:cli/run@0.2.3"), Role::Command, None),
        (&interface("wasi:cli/run@0.3.0"), Role::Command, None),
        (&interface("wasi:http/incoming-handler@0.2.0"), Role::Function, None),
        (&interface("wasi:http/handler@0.3.0"), Role::Function, None),
        (&interface("wasi:http/handlers@0.3.0"), Role::Library, None),
        (&interface("my:own/interface"), Role::Library, None),
        ("(component (core module (func (export \"_start\"))))", Role::Library, None),
    ];
    for (text, role, memory) in table {
        let found = inspect(&wat(text)).unwrap();
        assert_eq!((found.role, found.memory), (role, memory), "{text}");
    }
}

/// A component that imports `wasi:io/error` and exports an interface with nothing in it.
fn interface(name: &str) -> String {
    format!(r#"(component (import "wasi:io/error@0.2.3" (instance)) (instance $i) (export "{name}" (instance $i)))"#)
}

#[test]
fn components() {
    let found = inspect(&wat(&interface("wasi:cli/run@0.2.3"))).unwrap();
    assert_eq!(found.form, Form::Component);
    assert_eq!(found.imports, ["wasi:io/error@0.2.3"]);
    assert_eq!(found.exports, ["wasi:cli/run@0.2.3"]);
}

#[test]
fn cut_short_anywhere() {
    let whole = wat(COMMAND);
    for length in 9..whole.len() {
        match inspect(&whole[..length]) {
            Err(ProgramError::Truncated { offset, length: found }) => assert!(offset <= length && found == length),
            // Between two sections only what the sections say of each other tells that something is missing.
            Err(ProgramError::Malformed { reason, .. }) => {
                assert!(reason.contains("code section"), "{length}: {reason}");
            }
            // A module may end after any section; this one before it has functions, and so exports.
            Ok(found) => assert_eq!((found.role, found.exports.len()), (Role::Library, 0), "{length}"),
            Err(other) => panic!("{length}: {other}"),
        }
    }
    let message = inspect(&whole[..whole.len() - 1]).unwrap_err().to_string();
    assert!(message.contains(&format!("cut short: {} bytes are there", whole.len() - 1)), "{message}");
    assert!(matches!(inspect(&whole[..6]), Err(ProgramError::Truncated { offset: 4, length: 6 })));
}

#[test]
fn malformed() {
    let mut bytes = wat("(module (func (export \"f\")))");
    let at = bytes.windows(1).rposition(|window| window == b"f").unwrap();
    // The export's function index, two bytes after its name.
    bytes[at + 2] = 9;
    let message = inspect(&bytes).unwrap_err().to_string();
    assert!(message.contains("malformed at offset") && message.contains("unknown function 9"), "{message}");
}

#[test]
fn other_files_are_named() {
    let table: [(&[u8], &str); 8] = [
        (b"", "not Wasm but an empty file"),
        (b"\x7fELF\x02\x01\x01\0", "an ELF file (native code)"),
        (b"#!/bin/sh\n", "a script"),
        (b"hello, world\n", "but text"),
        (b"(module)", "Wasm in text form"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "a gzip file"),
        (b"\x01\x02\x03\x04", "binary data"),
        (b"\0asm\x02\0\0\0", "unknown version: the bytes from 4 are 02 00 00 00"),
    ];
    for (bytes, expected) in table {
        let message = inspect(bytes).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}
