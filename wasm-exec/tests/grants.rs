//! What a program is given: arguments, environment, directories, sockets.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod program;

use program::{Command, command, outcome, refusal};
use std::{fs, os::unix::fs::symlink, path::Path};
use wasm_exec::{NetworkGrant, Outcome, Preopen, RunError};

/// WASI p1's error numbers.
const ACCES: u8 = 2;
const BADF: u8 = 8;
const NOENT: u8 = 44;
const PERM: u8 = 63;
const ROFS: u8 = 69;

/// Opens `path` in the descriptor, to write or to read, and ends with the error number.
fn open(descriptor: u32, path: &str, write: bool) -> String {
    // O_CREAT and the right fd_write; or none and fd_read.
    let (flags, rights) = if write { (1, 64) } else { (0, 2) };
    format!(
        r#"(module
            (import "wasi_snapshot_preview1" "path_open"
                (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (data (i32.const 100) "{path}")
            (func (export "_start")
                (call $exit (call $open (i32.const {descriptor}) (i32.const 1) (i32.const 100) (i32.const {})
                    (i32.const {flags}) (i64.const {rights}) (i64.const 0) (i32.const 0) (i32.const 8)))))"#,
        path.len()
    )
}

/// Ends with the length of a granted directory's name, or 200 and the error number.
fn name_length(descriptor: u32) -> String {
    format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_prestat_get" (func $get (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (func (export "_start") (local $errno i32)
                (local.set $errno (call $get (i32.const {descriptor}) (i32.const 0)))
                (if (local.get $errno) (then (call $exit (i32.add (i32.const 200) (local.get $errno)))))
                (call $exit (i32.load (i32.const 4)))))"#
    )
}

fn granted(host: &Path, guest: &str, writable: bool) -> Preopen {
    Preopen { host: host.into(), guest: guest.into(), writable }
}

fn status(command: Command) -> u8 {
    match outcome(command) {
        Outcome::Exited(status) => status,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_directory_can_be_read_and_only_written_if_granted() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("there"), "x").unwrap();
    for (path, write, writable, expected) in [
        ("there", false, false, [0].as_slice()),
        ("there", false, true, &[0]),
        ("missing", false, true, &[NOENT]),
        ("there", true, false, &[PERM, ROFS, ACCES]),
        ("new", true, false, &[PERM, ROFS, ACCES]),
        ("new", true, true, &[0]),
    ] {
        let command =
            Command { preopens: vec![granted(dir.path(), "/data", writable)], ..command(&open(3, path, write)) };
        let status = status(command);
        assert!(expected.contains(&status), "{path}, write {write}, writable {writable}: {status}");
    }
    assert!(dir.path().join("new").exists());
}

#[test]
fn nothing_outside_of_a_directory_can_be_opened() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    fs::write(dir.path().join("secret"), "x").unwrap();
    symlink("../secret", dir.path().join("in/link")).unwrap();
    symlink(dir.path().join("secret"), dir.path().join("in/absolute")).unwrap();
    for path in ["../secret", "link", "absolute", "/etc/passwd", "in/../../secret"] {
        let preopens = vec![granted(&dir.path().join("in"), "/", true)];
        let status = status(Command { preopens, ..command(&open(3, path, false)) });
        assert!([PERM, NOENT].contains(&status), "{path}: {status}");
    }
}

#[test]
fn without_a_grant_there_is_no_directory() {
    assert_eq!(status(command(&open(3, "etc/passwd", false))), BADF);
    assert_eq!(status(command(&name_length(3))), 200 + BADF);
}

#[test]
fn the_working_directory_comes_first_under_the_name_of_a_dot() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::write(dir.path().join("sub/file"), "x").unwrap();
    let with_cwd = |text: &str| Command {
        preopens: vec![granted(dir.path(), "/data", false)],
        cwd: Some("/data/sub".into()),
        ..command(text)
    };
    assert_eq!(status(with_cwd(&open(3, "file", false))), 0);
    assert_eq!(status(with_cwd(&open(4, "sub/file", false))), 0);
    assert_eq!(status(with_cwd(&name_length(3))), 1);
    assert_eq!(status(with_cwd(&name_length(4))), 5);
    assert_eq!(status(with_cwd(&name_length(5))), 200 + BADF);
}

#[test]
fn the_working_directory_is_in_the_environment_unless_it_is_said_otherwise() {
    // Ends with the size of the environment: `PWD=/data` and a zero byte.
    let text = r#"(module
        (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "_start")
            (drop (call $sizes (i32.const 0) (i32.const 4)))
            (call $exit (i32.load (i32.const 4)))))"#;
    let cwd = Some("/data".to_owned());
    assert_eq!(status(command(text)), 0);
    assert_eq!(status(Command { cwd: cwd.clone(), ..command(text) }), 10);
    let env = vec![("PWD".into(), "/elsewhere".into())];
    assert_eq!(status(Command { cwd, env, ..command(text) }), 15);
}

#[test]
fn arguments_arrive() {
    let text = r#"(module
        (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "_start")
            (drop (call $sizes (i32.const 0) (i32.const 4)))
            (call $exit (i32.add (i32.mul (i32.const 10) (i32.load (i32.const 0))) (i32.load (i32.const 4))))))"#;
    let argv = vec!["name".into(), "a b".into(), String::new()];
    assert_eq!(status(Command { argv, ..command(text) }), 3 * 10 + 10);
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let start = r#"(module (func (export "_start")))"#;
    let error = refusal(Command { preopens: vec![granted(&missing, "/data", true)], ..command(start) });
    assert!(matches!(&error, RunError::Directory { host, .. } if *host == missing), "{error}");

    let preopens = vec![granted(dir.path(), "/data", true)];
    let error = refusal(Command { preopens, cwd: Some("/data/missing".into()), ..command(start) });
    assert!(matches!(error, RunError::WorkingDirectory { .. }), "{error}");
    assert!(error.to_string().contains("/data/missing"), "{error}");
}

#[test]
fn sockets_can_be_made_only_if_granted() {
    // `run` returns what `create-tcp-socket(ipv4)` does: 0 for a socket, 1 for an error.
    let text = r#"(component
        (import "wasi:sockets/network@0.2.0" (instance $network
            (type $codes (enum "unknown" "access-denied" "not-supported" "invalid-argument" "out-of-memory" "timeout"
                "concurrency-conflict" "not-in-progress" "would-block" "invalid-state" "new-socket-limit"
                "address-not-bindable" "address-in-use" "remote-unreachable" "connection-refused" "connection-reset"
                "connection-aborted" "datagram-too-large" "name-unresolvable" "temporary-resolver-failure"
                "permanent-resolver-failure"))
            (export "error-code" (type (eq $codes)))
            (type $families (enum "ipv4" "ipv6"))
            (export "ip-address-family" (type (eq $families)))))
        (alias export $network "error-code" (type $error-code))
        (alias export $network "ip-address-family" (type $family))
        (import "wasi:sockets/tcp@0.2.0" (instance $tcp (export "tcp-socket" (type (sub resource)))))
        (alias export $tcp "tcp-socket" (type $tcp-socket))
        (import "wasi:sockets/tcp-create-socket@0.2.0" (instance $create
            (alias outer 1 $error-code (type $outer-code))
            (export "error-code" (type $code (eq $outer-code)))
            (alias outer 1 $family (type $outer-family))
            (export "ip-address-family" (type $family (eq $outer-family)))
            (alias outer 1 $tcp-socket (type $outer-socket))
            (export "tcp-socket" (type $socket (eq $outer-socket)))
            (export "create-tcp-socket" (func
                (param "address-family" $family) (result (result (own $socket) (error $code)))))))
        (core module $memory (memory (export "memory") 1))
        (core instance $memory (instantiate $memory))
        (alias core export $memory "memory" (core memory $bytes))
        (core func $create (canon lower (func $create "create-tcp-socket") (memory $bytes)))
        (core module $program
            (import "" "memory" (memory 1))
            (import "" "create" (func $create (param i32 i32)))
            (func (export "run") (result i32)
                (call $create (i32.const 0) (i32.const 16))
                (i32.load8_u (i32.const 16))))
        (core instance $program (instantiate $program
            (with "" (instance (export "memory" (memory $bytes)) (export "create" (func $create))))))
        (func $run (result (result)) (canon lift (core func $program "run")))
        (instance $cli (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $cli)))"#;
    assert_eq!(status(command(text)), 1);
    assert_eq!(status(Command { network: NetworkGrant::All, ..command(text) }), 0);
}
