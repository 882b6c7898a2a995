//! What a program is given: arguments, environment, directories, sockets.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod program;

use program::{Command, command, outcome, refusal};
use std::{fs, os::unix::fs::symlink, path::Path};
use wasm_exec::{Destinations, NameFiles, Network, NetworkSetting, Outcome, Preopen, RunError};

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
    let setting =
        NetworkSetting { destinations: None, listens: true, names: NameFiles::default(), authorities: Vec::new() };
    assert_eq!(status(Command { network: Network::new(setting, |_| ()), ..command(text) }), 0);
}

/// A component that looks up a name, waits, and looks at the first answer: `run` is an error unless `check` leaves 0 on the stack.
fn lookup(name: &str, check: &str) -> String {
    let length = name.len();
    format!(
        r#"(component $lookup
        (import "wasi:io/poll@0.2.3" (instance $poll
            (export "pollable" (type $pollable (sub resource)))
            (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
        (alias export $poll "pollable" (type $pollable))
        (import "wasi:sockets/network@0.2.3" (instance $network
            (export "network" (type (sub resource)))
            (type $code (enum "unknown" "access-denied" "not-supported" "invalid-argument" "out-of-memory" "timeout"
                "concurrency-conflict" "not-in-progress" "would-block" "invalid-state" "new-socket-limit"
                "address-not-bindable" "address-in-use" "remote-unreachable" "connection-refused" "connection-reset"
                "connection-aborted" "datagram-too-large" "name-unresolvable" "temporary-resolver-failure"
                "permanent-resolver-failure"))
            (export "error-code" (type (eq $code)))
            (type $four (tuple u8 u8 u8 u8))
            (export "ipv4-address" (type $ipv4 (eq $four)))
            (type $eight (tuple u16 u16 u16 u16 u16 u16 u16 u16))
            (export "ipv6-address" (type $ipv6 (eq $eight)))
            (type $either (variant (case "ipv4" $ipv4) (case "ipv6" $ipv6)))
            (export "ip-address" (type (eq $either)))))
        (alias export $network "network" (type $network-type))
        (alias export $network "error-code" (type $code))
        (alias export $network "ip-address" (type $address))
        (import "wasi:sockets/instance-network@0.2.3" (instance $instance
            (alias outer $lookup $network-type (type $outer))
            (export "network" (type $network (eq $outer)))
            (export "instance-network" (func (result (own $network))))))
        (import "wasi:sockets/ip-name-lookup@0.2.3" (instance $names
            (alias outer $lookup $pollable (type $outer-pollable))
            (export "pollable" (type $pollable (eq $outer-pollable)))
            (alias outer $lookup $network-type (type $outer-network))
            (export "network" (type $network (eq $outer-network)))
            (alias outer $lookup $code (type $outer-code))
            (export "error-code" (type $code (eq $outer-code)))
            (alias outer $lookup $address (type $outer-address))
            (export "ip-address" (type $address (eq $outer-address)))
            (export "resolve-address-stream" (type $stream (sub resource)))
            (export "resolve-addresses" (func
                (param "network" (borrow $network)) (param "name" string) (result (result (own $stream) (error $code)))))
            (export "[method]resolve-address-stream.resolve-next-address" (func
                (param "self" (borrow $stream)) (result (result (option $address) (error $code)))))
            (export "[method]resolve-address-stream.subscribe" (func
                (param "self" (borrow $stream)) (result (own $pollable))))))
        (core module $memory
            (memory (export "memory") 1)
            (data (i32.const 1024) "{name}")
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 4096))
        (core instance $memory (instantiate $memory))
        (alias core export $memory "memory" (core memory $bytes))
        (core func $block (canon lower (func $poll "[method]pollable.block")))
        (core func $instance-network (canon lower (func $instance "instance-network")))
        (core func $resolve (canon lower (func $names "resolve-addresses") (memory $bytes)))
        (core func $next (canon lower (func $names "[method]resolve-address-stream.resolve-next-address")
            (memory $bytes)))
        (core func $subscribe (canon lower (func $names "[method]resolve-address-stream.subscribe")))
        (core func $drop (canon resource.drop $pollable))
        (core module $program
            (import "" "memory" (memory 1))
            (import "" "block" (func $block (param i32)))
            (import "" "network" (func $network (result i32)))
            (import "" "resolve" (func $resolve (param i32 i32 i32 i32)))
            (import "" "next" (func $next (param i32 i32)))
            (import "" "subscribe" (func $subscribe (param i32) (result i32)))
            (import "" "drop" (func $drop (param i32)))
            (func (export "run") (result i32) (local $stream i32) (local $pollable i32)
                (call $resolve (call $network) (i32.const 1024) (i32.const {length}) (i32.const 16))
                (if (i32.load8_u (i32.const 16)) (then unreachable))
                (local.set $stream (i32.load (i32.const 20)))
                (local.set $pollable (call $subscribe (local.get $stream)))
                (call $block (local.get $pollable))
                (call $drop (local.get $pollable))
                (call $next (local.get $stream) (i32.const 16))
                {check}))
        (core instance $program (instantiate $program (with "" (instance
            (export "memory" (memory $bytes)) (export "block" (func $block)) (export "network" (func $instance-network))
            (export "resolve" (func $resolve)) (export "next" (func $next)) (export "subscribe" (func $subscribe))
            (export "drop" (func $drop))))))
        (func $run (result (result)) (canon lift (core func $program "run")))
        (instance $cli (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $cli)))"#
    )
}

/// The answer is `ok(some(ipv4(203, 0, 113, 7)))`.
const THE_ADDRESS: &str = "(i32.or (i32.load8_u (i32.const 16))
    (i32.or (i32.ne (i32.load8_u (i32.const 18)) (i32.const 1))
    (i32.or (i32.load8_u (i32.const 20)) (i32.ne (i32.load (i32.const 22)) (i32.const 0x077100cb)))))";

#[test]
fn names_are_looked_up_where_they_are_granted() {
    let network = |allowed: &[&str]| {
        let allowed: Vec<String> = allowed.iter().map(|text| (*text).to_owned()).collect();
        let destinations = Some(Destinations::parse(&allowed).unwrap());
        let names = NameFiles { resolv_conf: Vec::new(), hosts: b"203.0.113.7 db.example\n".to_vec() };
        Network::new(NetworkSetting { destinations, listens: false, names, authorities: Vec::new() }, |_| ())
    };
    let run = |name: &str, check: &str, network| status(Command { network, ..command(&lookup(name, check)) });
    let code = |code: u32| format!("(i32.sub (i32.load8_u (i32.const 18)) (i32.const {code}))");
    assert_eq!(run("db.example", THE_ADDRESS, network(&["db.example:5432"])), 0);
    assert_eq!(run("203.0.113.7", THE_ADDRESS, network(&["db.example"])), 0, "an address needs no question");
    assert_eq!(run("db.example", &code(1), network(&["other.example"])), 0, "access-denied");
    assert_eq!(run("db.example", &code(1), Network::none(|_| ())), 0, "access-denied");
}
