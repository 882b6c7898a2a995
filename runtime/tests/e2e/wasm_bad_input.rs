//! Wasm programs that are broken, huge or never end: each has a sentence or an end of its own, and nothing panics.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt};

use crate::{sandbox::Sandbox, session::Session};

/// A number as the binary format has it (LEB128).
fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 127 {
        bytes.push(u8::try_from(number & 127).expect("seven bits") | 128);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).expect("seven bits"));
    bytes
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id], leb(content.len()).as_slice(), content].concat()
}

/// A module of this many functions without parameters, all of this body, of which the first is `_start`.
fn module(functions: usize, body: &[u8]) -> Vec<u8> {
    let body = [leb(body.len() + 2).as_slice(), &[0], body, &[0x0b]].concat();
    let parts = [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, b"\x01\x60\0\0"),
        section(3, &[leb(functions), vec![0; functions]].concat()),
        section(7, b"\x01\x06_start\0\0"),
        section(10, &[leb(functions), body.repeat(functions)].concat()),
    ];
    parts.concat()
}

#[test]
fn a_module_that_is_cut_anywhere_is_refused() {
    let Some(sandbox) = Sandbox::new() else { return };
    let whole = module(2, b"\x41\x01\x1a");
    // Between two sections a part of it may be a module, too; with functions and without their bodies it is none.
    let sections = [8, 14];
    for length in 1..whole.len() {
        let path = sandbox.file("cut.wasm", &whole[..length]);
        let ended = sandbox.run(["import", &path, "local/cut:latest"]);
        let expected = i32::from(!sections.contains(&length));
        assert_eq!(ended.code, Some(expected), "{length}: {ended}");
        assert!(!ended.stderr.contains("panicked"), "{length}: {ended}");
    }
    let empty = sandbox.file("empty.wasm", b"\0asm\x01\0\0\0");
    sandbox.ok(["import", &empty, "local/empty:latest"]);
    assert!(sandbox.fails(126, ["run", "--rm", "local/empty"]).contains("it exports nothing"));
    fs::remove_file(empty).expect("the file");
    sandbox.check_clean();
}

#[test]
fn many_functions_deep_blocks_and_deep_calls_have_an_end() {
    let Some(sandbox) = Sandbox::new() else { return };
    let nested = [[0x02, 0x40].repeat(10_000), vec![0x0b; 10_000]].concat();
    for (name, bytes, code) in
        [("functions", module(20_000, b""), 0), ("blocks", module(1, &nested), 0), ("calls", module(1, b"\x10\0"), 134)]
    {
        let path = sandbox.file("large.wasm", bytes);
        let image = format!("local/{name}:latest");
        sandbox.ok(["import", &path, &image]);
        let ended = sandbox.run(["run", "--rm", &image]);
        assert_eq!(ended.code, Some(code), "{name}: {ended}");
        assert!(code == 0 || ended.stderr.contains("call stack exhausted"), "{name}: {ended}");
    }
}

#[test]
fn what_a_limit_withholds_from_the_engine_is_named_with_its_flag() {
    let Some(sandbox) = Sandbox::new() else { return };
    let path = sandbox.file("memory.wat", r#"(module (memory (export "memory") 1) (func (export "_start")))"#);
    sandbox.ok(["import", &path, "local/memory:latest"]);
    let refused = sandbox.fails(126, ["run", "--rm", "--ulimit", "as=100000000", "local/memory"]);
    assert!(refused.contains("--ulimit as") && !refused.contains("panicked"), "{refused}");
    let refused = sandbox.fails(125, ["run", "--rm", "--ulimit", "nofile=3", "local/memory"]);
    assert!(refused.contains("nofile"), "{refused}");
}

#[test]
fn a_module_of_a_gigabyte_is_refused_before_it_is_read() {
    let Some(sandbox) = Sandbox::new() else { return };
    let path = sandbox.file("large.wasm", b"\0asm\x01\0\0\0");
    fs::File::options().write(true).open(&path).and_then(|file| file.set_len(1 << 30)).expect("a sparse file");
    let refused = sandbox.fails(1, ["import", &path, "local/large:latest"]);
    assert!(refused.contains("a Wasm binary of more than 134217728 bytes"), "{refused}");
    sandbox.check_clean();
}

/// A program's arguments and variables are text; what is none is refused, and not changed.
#[test]
fn what_is_no_text_is_no_argument_of_a_program() {
    let Some((sandbox, [args])) = Sandbox::with(["args:wasm"]) else { return };
    let no_text = OsStr::from_bytes(b"A=\xff\xfe");
    for before in [&["run", "--rm", &args][..], &["run", "--rm", "-e"]] {
        let mut command = sandbox.command(before);
        command.arg(no_text);
        // After a variable the image is still to come.
        command.args(before.contains(&"-e").then_some(&args));
        let ended = Session::start(command).wait();
        assert_eq!(ended.code, Some(125), "{before:?}: {ended}");
        assert!(ended.stderr.contains("invalid UTF-8"), "{before:?}: {ended}");
    }
}

/// The last number of a version does not matter, what is imported of it does.
#[test]
fn versions_of_wasi_are_accepted_by_their_first_numbers() {
    let Some(sandbox) = Sandbox::new() else { return };
    let component = |import: &str, export: &str| {
        format!(
            r#"(component
                (import "wasi:clocks/monotonic-clock@{import}" (instance $clock (export "now" (func (result u64)))))
                (core func $now (canon lower (func $clock "now")))
                (core module $program
                    (import "" "now" (func $now (result i64)))
                    (func (export "run") (result i32) (drop (call $now)) i32.const 0))
                (core instance $program (instantiate $program (with "" (instance (export "now" (func $now))))))
                (func $run (result (result)) (canon lift (core func $program "run")))
                (instance $cli (export "run" (func $run)))
                (export "wasi:cli/run@{export}" (instance $cli)))"#
        )
    };
    let run = |text: &str| {
        let path = sandbox.file("versions.wat", text);
        sandbox.ok(["import", &path, "local/versions:latest"]);
        sandbox.run(["run", "--rm", "local/versions"])
    };
    let ended = run(&component("0.2.77", "0.2.99"));
    assert_eq!(ended.code, Some(0), "{ended}");
    let ended = run(&component("0.4.0", "0.2.3"));
    assert!(ended.code == Some(126) && ended.stderr.contains("0.2 and 0.3 are, with any last number"), "{ended}");
    let ended = run(&component("0.2.3", "1.0.0"));
    assert!(ended.code == Some(126) && ended.stderr.contains("a version of WASI that is not known here"), "{ended}");
}
