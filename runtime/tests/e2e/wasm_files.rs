//! What a Wasm program finds in the directories that it was granted: the system's own errors, whole writes, long listings.

use std::fs;

use crate::sandbox::Sandbox;

/// WASI p1's errors.
const MFILE: i32 = 33;
const ROFS: i32 = 69;
const XDEV: i32 = 75;

/// A module that ends with what `body` leaves; it has the names `file` (at 1024) and `made` (at 1032), of four bytes each.
fn module(function: &str, parameters: &str, body: &str) -> String {
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "{function}" (func $call (param {parameters}) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 4000)
  (data (i32.const 1024) "file")
  (data (i32.const 1032) "made")
  (func (export "_start") (local $errno i32) (local $at i32) (local $used i32) (local $cookie i64) (local $count i32)
    {body}))
"#
    )
}

/// How it ends, run with these flags in a folder with the folders `a` and `b`, where `a/file` is.
fn status(sandbox: &Sandbox, module: &str, flags: &[&str]) -> Option<i32> {
    for folder in ["a", "b"] {
        fs::create_dir_all(sandbox.work().join(folder)).expect("a folder");
    }
    fs::write(sandbox.work().join("a/file"), "whole\n").expect("a file");
    let file = sandbox.file("program.wat", module);
    sandbox.ok(["import", &file, "local/program:latest"]);
    let words = ["run", "--rm"].iter().chain(flags).copied().chain(["local/program:latest"]);
    sandbox.run(words).code
}

#[test]
fn directories_of_two_grants_are_two_devices() {
    let Some(sandbox) = Sandbox::new() else { return };
    let flags = ["-v", "./a:/a", "-v", "./b:/b"];
    let rename = "(call $exit (call $call (i32.const 3) (i32.const 1024) (i32.const 4) (i32.const 4) (i32.const 1032) (i32.const 4)))";
    assert_eq!(status(&sandbox, &module("path_rename", "i32 i32 i32 i32 i32 i32", rename), &flags), Some(XDEV));
    let link = "(call $exit (call $call (i32.const 3) (i32.const 0) (i32.const 1024) (i32.const 4) (i32.const 4) (i32.const 1032) (i32.const 4)))";
    assert_eq!(status(&sandbox, &module("path_link", "i32 i32 i32 i32 i32 i32 i32", link), &flags), Some(XDEV));
    // Within one it is renamed.
    let within =
        rename.replace("(i32.const 4) (i32.const 4) (i32.const 1032)", "(i32.const 4) (i32.const 3) (i32.const 1032)");
    assert_eq!(status(&sandbox, &module("path_rename", "i32 i32 i32 i32 i32 i32", &within), &flags), Some(0));
    assert!(sandbox.work().join("a/made").exists());
}

#[test]
fn a_read_only_directory_says_so() {
    let Some(sandbox) = Sandbox::new() else { return };
    let call = "(call $exit (call $call (i32.const 3) (i32.const 1032) (i32.const 4)))";
    let flags = ["-v", "./a:/a:ro"];
    assert_eq!(status(&sandbox, &module("path_create_directory", "i32 i32 i32", call), &flags), Some(ROFS));
    let unlink = call.replace("1032", "1024");
    assert_eq!(status(&sandbox, &module("path_unlink_file", "i32 i32 i32", &unlink), &flags), Some(ROFS));
    assert!(sandbox.work().join("a/file").exists());
}

#[test]
fn a_program_is_told_when_it_has_too_many_files_open() {
    let Some(sandbox) = Sandbox::new() else { return };
    let open = "(loop $more
      (local.set $errno (call $open (i32.const 3) (i32.const 0) (i32.const 1024) (i32.const 4) (i32.const 0)
        (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 0)))
      (br_if $more (i32.eqz (local.get $errno))))
    (call $exit (local.get $errno))";
    let module = module("sched_yield", "", open);
    assert_eq!(status(&sandbox, &module, &["--ulimit", "nofile=32", "-v", "./a:/a"]), Some(MFILE));
}

#[test]
fn one_write_may_be_of_any_size() {
    let Some(sandbox) = Sandbox::new() else { return };
    // 200 MiB, which is more than the engine copies of one call.
    let write = "(drop (call $open (i32.const 3) (i32.const 0) (i32.const 1024) (i32.const 4) (i32.const 0)
      (i64.const 64) (i64.const 64) (i32.const 0) (i32.const 0)))
    (i32.store (i32.const 16) (i32.const 4096))
    (i32.store (i32.const 20) (i32.const 209715200))
    (local.set $errno (call $call (i32.load (i32.const 0)) (i32.const 16) (i32.const 1) (i32.const 8)))
    (call $exit (i32.or (local.get $errno) (i32.ne (i32.load (i32.const 8)) (i32.const 209715200))))";
    let module = module("fd_write", "i32 i32 i32 i32", write);
    assert_eq!(status(&sandbox, &module, &["-v", "./a:/a"]), Some(0));
    assert_eq!(fs::metadata(sandbox.work().join("a/file")).expect("it").len(), 209_715_200);
}

#[test]
fn a_long_listing_is_whole_and_outlasts_changes() {
    let Some(sandbox) = Sandbox::new() else { return };
    fs::create_dir_all(sandbox.work().join("a")).expect("a folder");
    for number in 0..20_000 {
        fs::write(sandbox.work().join(format!("a/{number}")), "").expect("a file");
    }
    // Every call begins where the last one ended: after the last name that was whole.
    let list = "(loop $calls
      (drop (call $call (i32.const 3) (i32.const 4096) (i32.const 4096) (local.get $cookie) (i32.const 0)))
      (local.set $used (i32.load (i32.const 0)))
      (local.set $at (i32.const 0))
      (block $parsed (loop $entries
        (br_if $parsed (i32.gt_u (i32.add (local.get $at) (i32.const 24)) (local.get $used)))
        (local.set $errno (i32.add (i32.add (local.get $at) (i32.const 24)) (i32.load offset=4112 (local.get $at))))
        (br_if $parsed (i32.gt_u (local.get $errno) (local.get $used)))
        (local.set $cookie (i64.load offset=4096 (local.get $at)))
        (local.set $count (i32.add (local.get $count) (i32.const 1)))
        (local.set $at (local.get $errno))
        (br $entries)))
      (br_if $calls (i32.eq (local.get $used) (i32.const 4096))))
    (call $exit (i32.ne (local.get $count) (i32.const 20003)))";
    let module = module("fd_readdir", "i32 i32 i32 i64 i32", list);
    assert_eq!(status(&sandbox, &module, &["-v", "./a:/a"]), Some(0));
}

/// A component that makes or renames a directory entry, and ends with 100 and the number of the `error-code`.
fn component(function: &str, parameters: &str, core_parameters: &str, arguments: &str) -> String {
    format!(
        r#"(component
  (import "wasi:cli/exit@0.2.3" (instance $exit
    (export "exit" (func (param "status" (result))))
    (export "exit-with-code" (func (param "status-code" u8)))))
  (import "wasi:filesystem/types@0.2.3" (instance $types
    (export "descriptor" (type $descriptor (sub resource)))
    (type $code (enum "access" "would-block" "already" "bad-descriptor" "busy" "deadlock" "quota" "exist" "file-too-large"
      "illegal-byte-sequence" "in-progress" "interrupted" "invalid" "io" "is-directory" "loop" "too-many-links"
      "message-size" "name-too-long" "no-device" "no-entry" "no-lock" "insufficient-memory" "insufficient-space"
      "not-directory" "not-empty" "not-recoverable" "unsupported" "no-tty" "no-such-device" "overflow" "not-permitted"
      "pipe" "read-only" "invalid-seek" "text-file-busy" "cross-device"))
    (export "error-code" (type $error (eq $code)))
    (export "{function}" (func {parameters} (result (result (error $error)))))))
  (alias export $types "descriptor" (type $descriptor))
  (import "wasi:filesystem/preopens@0.2.3" (instance $preopens
    (alias outer 1 $descriptor (type $outer))
    (export "descriptor" (type $own (eq $outer)))
    (export "get-directories" (func (result (list (tuple (own $own) string)))))))
  (core module $memory
    (memory (export "memory") 1) (global $next (mut i32) (i32.const 8192))
    (data (i32.const 1024) "file") (data (i32.const 1032) "made")
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (global.set $next (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
      (global.get $next)
      (global.set $next (i32.add (global.get $next) (local.get 3)))))
  (core instance $memory (instantiate $memory))
  (alias core export $memory "memory" (core memory $shared))
  (core func $exit (canon lower (func $exit "exit-with-code")))
  (core func $directories (canon lower (func $preopens "get-directories")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core func $call (canon lower (func $types "{function}") (memory (core memory $memory "memory"))))
  (core module $program
    (import "" "memory" (memory 1))
    (import "" "exit" (func $exit (param i32)))
    (import "" "directories" (func $directories (param i32)))
    (import "" "call" (func $call (param {core_parameters})))
    (func (export "run") (result i32) (local $first i32)
      (call $directories (i32.const 64))
      (local.set $first (i32.load (i32.const 64)))
      (call $call {arguments})
      (if (i32.load8_u (i32.const 128))
        (then (call $exit (i32.add (i32.const 100) (i32.load8_u (i32.const 129))))))
      (i32.const 0)))
  (core instance $program (instantiate $program (with "" (instance
    (export "memory" (memory $shared))
    (export "exit" (func $exit))
    (export "directories" (func $directories))
    (export "call" (func $call))))))
  (func $run (result (result)) (canon lift (core func $program "run")))
  (instance $cli (export "run" (func $run)))
  (export "wasi:cli/run@0.2.3" (instance $cli)))
"#
    )
}

#[test]
fn a_component_is_told_the_same() {
    let Some(sandbox) = Sandbox::new() else { return };
    const READ_ONLY: i32 = 100 + 33;
    const CROSS_DEVICE: i32 = 100 + 36;
    let make = component(
        "[method]descriptor.create-directory-at",
        r#"(param "self" (borrow $descriptor)) (param "path" string)"#,
        "i32 i32 i32 i32",
        "(i32.load (local.get $first)) (i32.const 1032) (i32.const 4) (i32.const 128)",
    );
    assert_eq!(status(&sandbox, &make, &["-v", "./a:/a:ro"]), Some(READ_ONLY));
    assert_eq!(status(&sandbox, &make, &["-v", "./a:/a"]), Some(0));
    let rename = component(
        "[method]descriptor.rename-at",
        r#"(param "self" (borrow $descriptor)) (param "old-path" string)
           (param "new-descriptor" (borrow $descriptor)) (param "new-path" string)"#,
        "i32 i32 i32 i32 i32 i32 i32",
        "(i32.load (local.get $first)) (i32.const 1024) (i32.const 4) (i32.load offset=12 (local.get $first))
         (i32.const 1032) (i32.const 4) (i32.const 128)",
    );
    assert_eq!(status(&sandbox, &rename, &["-v", "./a:/a", "-v", "./b:/b"]), Some(CROSS_DEVICE));
}

#[test]
fn a_relative_path_leads_out_of_the_working_directory_within_its_grant() {
    let Some(sandbox) = Sandbox::new() else { return };
    fs::create_dir_all(sandbox.work().join("v/a/sub")).expect("folders");
    fs::create_dir_all(sandbox.work().join("v/outside")).expect("a folder");
    // Descriptor 3 is the working directory.
    let make = |path: &str| {
        let body = format!("(call $exit (call $call (i32.const 3) (i32.const 2048) (i32.const {})))", path.len());
        let text = module("path_create_directory", "i32 i32 i32", &body);
        text.replace("(data (i32.const 1024)", &format!("(data (i32.const 2048) \"{path}\") (data (i32.const 1024)"))
    };
    let flags = ["-v", "./v/a:/v/a", "-w", "/v/a/sub"];
    assert_eq!(status(&sandbox, &make("../made"), &flags), Some(0));
    assert_eq!(status(&sandbox, &make("./x/../../deeper/../made"), &flags), Some(44));
    assert!(sandbox.work().join("v/a/made").is_dir());
    assert_ne!(status(&sandbox, &make("../../outside/made"), &flags), Some(0));
    assert_ne!(status(&sandbox, &make("../sub/../../outside/made"), &flags), Some(0));
    assert!(!sandbox.work().join("v/outside/made").exists());
    let bytes = "(call $exit (i32.or (call $call (i32.const 3) (i32.const 2048) (i32.const 7))
      (i32.or (i32.load (i32.const 262143996)) (i32.load (i32.const 0)))))";
    let text = module("path_create_directory", "i32 i32 i32", bytes);
    let text = text.replace("(data (i32.const 1024)", "(data (i32.const 2048) \"../more\") (data (i32.const 1024)");
    assert_eq!(status(&sandbox, &text, &flags), Some(0), "its memory is as it was");
}
