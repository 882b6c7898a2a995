//! Wasm programs that are broken, huge or never end: each has a sentence or an end of its own, and nothing panics.

use std::fs;

use crate::sandbox::Sandbox;

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
