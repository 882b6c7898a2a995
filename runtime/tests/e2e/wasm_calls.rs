//! Functions of a Wasm program called by name, and proposals that it may use.

use crate::sandbox::Sandbox;

const MODULE: &str = r#"(module
  (global $begun (mut i32) (i32.const 0))
  (func (export "_initialize") (global.set $begun (i32.const 40)))
  (func (export "add") (param i32 i32) (result i32)
    (i32.add (global.get $begun) (i32.add (local.get 0) (local.get 1))))
  (func (export "nothing"))
  (func (export "half") (param f64) (result f64) (f64.div (local.get 0) (f64.const 2)))
  (func (export "fails") unreachable))
"#;

/// A library of an interface with a function that counts a text's bytes, and one that gives a list.
const COMPONENT: &str = r#"(component
  (core module $m
    (memory (export "memory") 1) (global $next (mut i32) (i32.const 1024))
    (data (i32.const 16) "\20\00\00\00\03\00\00\00") (data (i32.const 32) "\01\02\03")
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (global.get $next) (global.set $next (i32.add (global.get $next) (local.get 3))))
    (func (export "count") (param i32 i32 i32) (result i32) (i32.add (local.get 0) (local.get 2)))
    (func (export "list") (result i32) (i32.const 16)))
  (core instance $m (instantiate $m))
  (alias core export $m "memory" (core memory $memory))
  (func $count (param "more" u32) (param "of" string) (result u32)
    (canon lift (core func $m "count") (memory $memory) (realloc (core func $m "realloc"))))
  (func $list (result (list u8)) (canon lift (core func $m "list") (memory $memory)))
  (instance $i (export "count" (func $count)) (export "list" (func $list)))
  (export "test:calls/texts@1.2.0" (instance $i)))
"#;

#[test]
fn functions_are_called_with_values_as_text() {
    let Some(sandbox) = Sandbox::new() else { return };
    for (file, text) in [("module.wat", MODULE), ("component.wat", COMPONENT)] {
        let path = sandbox.file(file, text);
        sandbox.ok(["import", &path, &format!("local/{}:latest", file.trim_end_matches(".wat"))]);
    }
    let call =
        |image: &str, call: &str| sandbox.run(["run", "--rm", "--invoke", call, &format!("local/{image}:latest")]);
    for (image, text, printed) in [
        ("module", "add(1, -2)", "39\n"),
        ("module", "half(3)", "1.5\n"),
        ("module", "nothing()", ""),
        ("module", "nothing", ""),
        ("component", r#"count(1, "héllo")"#, "7\n"),
        ("component", r#"test:calls/texts.count@1.2.0(0, "")"#, "0\n"),
        ("component", "test:calls/texts@1.2.0#list()", "[1, 2, 3]\n"),
        ("component", "test:calls/texts.list()", "[1, 2, 3]\n"),
    ] {
        let ended = call(image, text);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), printed), "{text}: {ended}");
    }
    for (image, text, told) in [
        ("module", "sub(1)", "it exports _initialize, add, nothing, half, fails"),
        ("module", "add(1)", "cannot call `add`"),
        ("module", "add(1, \"x\")", "cannot call `add`"),
        ("module", "add(1, 2", "cannot call `add(1, 2`"),
        ("component", "count(-1, \"\")", "cannot call `count`"),
        ("component", "other()", "test:calls/texts@1.2.0#count"),
    ] {
        let ended = call(image, text);
        assert!(ended.code == Some(126) && ended.stderr.contains(told), "{text}: {ended}");
    }
    let trapped = call("module", "fails()");
    assert!(trapped.code == Some(134) && trapped.stderr.contains("unreachable"), "{trapped}");
}

#[test]
fn a_linux_program_has_no_functions() {
    let Some((sandbox, [hello])) = Sandbox::with(["hello:linux"]) else { return };
    for flag in ["--invoke=f()", "--wasm=gc"] {
        assert!(sandbox.fails(125, ["run", "--rm", flag, &hello]).contains("only Wasm programs"), "{flag}");
    }
}

#[test]
fn proposals_are_switched_on_by_name() {
    let Some(sandbox) = Sandbox::new() else { return };
    let program = r#"(module (memory (export "memory") 5 (pagesize 1)) (func (export "_start")))"#;
    let path = sandbox.file("small.wat", program);
    let imported = sandbox.run(["import", &path, "local/small:latest"]);
    assert!(imported.code == Some(0) && imported.stderr.contains("--wasm custom-page-sizes"), "{imported}");
    let off = sandbox.fails(126, ["run", "--rm", "local/small"]);
    assert!(off.contains("--wasm custom-page-sizes"), "{off}");
    sandbox.ok(["run", "--rm", "--wasm", "gc,custom-page-sizes", "local/small"]);
    sandbox.ok([
        "run",
        "--rm",
        "--wasm",
        "custom-page-sizes",
        "--wasm",
        "wide-arithmetic",
        "--fuel",
        "1000",
        "local/small",
    ]);
    for (name, told) in [("warp", "no proposal `warp`"), ("shared-everything-threads", "cannot be had")] {
        let said = sandbox.fails(125, ["run", "--rm", "--wasm", name, "local/small"]);
        assert!(said.contains(told), "{said}");
    }
    // Atomic instructions need no proposal, and no shared memory.
    let program = r#"(module (memory (export "memory") 1) (func (export "_start")
        (drop (i32.atomic.rmw.add (i32.const 0) (i32.const 1)))))"#;
    let path = sandbox.file("atomic.wat", program);
    sandbox.ok(["import", &path, "local/atomic:latest"]);
    sandbox.ok(["run", "--rm", "local/atomic"]);
    sandbox.check_clean();
}

#[test]
fn the_grants_of_a_program_are_told_before_it_runs() {
    let Some((sandbox, [hello])) = Sandbox::with(["hello:wasm"]) else { return };
    let told = sandbox.ok(["run", "--explain-grants", &hello]);
    assert_eq!(told.lines().next(), Some(format!("amphora run {hello}").as_str()), "{told}");
    let lists = r#"(module
        (import "wasi_snapshot_preview1" "fd_prestat_get" (func (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "sock_shutdown" (func (param i32 i32) (result i32)))
        (import "env" "print" (func))
        (func (export "_start")))"#;
    let path = sandbox.file("lists.wat", lists);
    sandbox.ok(["import", &path, "local/lists:latest"]);
    let told = sandbox.ok(["run", "--explain-grants", "local/lists"]);
    for line in [
        "# it does not run here: it imports env::print (it is no part of WASI: no flag grants it)",
        "# -v SOURCE:TARGET grants directories, for wasi_snapshot_preview1::fd_prestat_get",
        "# -p HOST_PORT:PORT grants sockets that listen, its descriptors from 3 on, for wasi_snapshot_preview1::sock_shutdown",
    ] {
        assert!(told.lines().any(|found| found == line), "{line}: {told}");
    }
    let refused = sandbox.fails(126, ["run", "--rm", "local/lists"]);
    assert!(refused.contains("env::print (it is no part of WASI"), "{refused}");
    assert_eq!(sandbox.ok(["ps", "-aq"]), "", "nothing was made");
}

/// wasmtime has taken back what it had for them.
#[test]
fn threads_of_wasi_p1_are_refused_by_name() {
    let Some(sandbox) = Sandbox::new() else { return };
    let spawning = r#"(module (import "env" "memory" (memory 1 1 shared))
        (import "wasi" "thread-spawn" (func (param i32) (result i32)))
        (func (export "wasi_thread_start") (param i32 i32)) (func (export "_start")))"#;
    let sharing = r#"(module (memory 1 1 shared) (func (export "_start")))"#;
    for (text, told) in [(spawning, "wasi::thread-spawn (threads of WASI p1"), (sharing, "a memory that threads share")]
    {
        let path = sandbox.file("threads.wat", text);
        sandbox.ok(["import", &path, "local/threads"]);
        let refused = sandbox.fails(126, ["run", "--rm", "local/threads"]);
        assert!(refused.contains(told) && refused.contains("without them"), "{refused}");
    }
    let refused = sandbox.fails(125, ["run", "--rm", "--wasm", "threads", "local/threads"]);
    assert!(refused.contains("nothing here starts threads"), "{refused}");
    // Their instructions need no threads.
    let atomic = r#"(module (memory 1) (func (export "_start")
        (drop (i32.atomic.rmw.add (i32.const 0) (i32.const 1))) (drop (memory.atomic.notify (i32.const 0) (i32.const 1)))))"#;
    let path = sandbox.file("atomic.wat", atomic);
    sandbox.ok(["import", &path, "local/atomic"]);
    sandbox.ok(["run", "--rm", "local/atomic"]);
}
