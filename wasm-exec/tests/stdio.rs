//! What programs write and read: each in a process of its own, as standard input and output are.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod program;

use program::{Command, command, outcome};
use std::{
    io::{Read, Write},
    os::unix::process::ExitStatusExt,
    process::{Child, Command as Process, Stdio},
    time::Duration,
};
use wasm_exec::Outcome;

/// Copies standard input to standard error; ends with the error number of the first call that fails.
const CAT: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 3)
    (func $check (param i32) (if (local.get 0) (then (call $exit (local.get 0)))))
    (func (export "_start")
        (loop $next
            (i32.store (i32.const 0) (i32.const 65536))
            (i32.store (i32.const 4) (i32.const 65536))
            (call $check (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
            (if (i32.eqz (i32.load (i32.const 8))) (then return))
            (i32.store (i32.const 4) (i32.load (i32.const 8)))
            (call $check (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
            (br $next))))"#;

/// WASI p1's number for EPIPE.
const PIPE: u8 = 64;

/// Starts this very file's test `guest`, which runs the program and exits with its status.
fn start(text: &str, timeout_ms: &str, stdin: Stdio) -> Child {
    Process::new(std::env::current_exe().unwrap())
        .args(["--exact", "guest", "--ignored", "--quiet"])
        .envs([("PROGRAM", text), ("TIMEOUT_MS", timeout_ms)])
        .stdin(stdin)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "the process of the other tests"]
#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "the test harness must not add to the program's output, nor wait for its threads"
)]
fn guest() {
    let timeout = match std::env::var("TIMEOUT_MS").unwrap().as_str() {
        "" => None,
        text => Some(Duration::from_millis(text.parse().unwrap())),
    };
    let ended = outcome(Command { timeout, ..command(&std::env::var("PROGRAM").unwrap()) });
    std::process::exit(match ended {
        Outcome::Exited(status) => status.into(),
        Outcome::TimedOut { .. } => 124,
        _ => 134,
    });
}

fn end(child: Child) -> (Option<i32>, Vec<u8>) {
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), None);
    (output.status.code(), output.stderr)
}

#[test]
fn a_pipe_is_copied_to_its_end() {
    let mut child = start(CAT, "", Stdio::piped());
    let sent: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 20).collect();
    let mut stdin = child.stdin.take().unwrap();
    let expected = sent.clone();
    let sender = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let (status, received) = end(child);
    sender.join().unwrap();
    assert_eq!(status, Some(0));
    assert!(received == expected, "{} of {} bytes", received.len(), expected.len());
}

#[test]
fn a_file_and_an_empty_input_are_read_to_their_ends() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[b'x'; 100_000]).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    assert_eq!(end(start(CAT, "", file.into())), (Some(0), vec![b'x'; 100_000]));
    assert_eq!(end(start(CAT, "", Stdio::null())), (Some(0), Vec::new()));
}

#[test]
fn a_read_that_gets_nothing_is_timed_out() {
    let mut child = start(CAT, "100", Stdio::piped());
    let open = child.stdin.take();
    assert_eq!(end(child).0, Some(124));
    drop(open);
}

#[test]
fn input_within_the_time_limit_is_read() {
    let mut child = start(CAT, "60000", Stdio::piped());
    child.stdin.take().unwrap().write_all(b"in time").unwrap();
    assert_eq!(end(child), (Some(0), b"in time".to_vec()));
}

/// Writes to standard error for ever; ends with the error number.
const YES: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 3)
    (func (export "_start") (local $errno i32)
        (i32.store (i32.const 0) (i32.const 65536))
        (i32.store (i32.const 4) (i32.const 65536))
        (loop $next
            (local.set $errno (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
            (br_if $next (i32.eqz (local.get $errno))))
        (call $exit (local.get $errno))))"#;

#[test]
fn a_reader_that_goes_away_is_a_broken_pipe() {
    let mut child = start(YES, "", Stdio::null());
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_exact(&mut [0; 100_000]).unwrap();
    drop(stderr);
    assert_eq!(end(child).0, Some(PIPE.into()));
}

#[test]
fn a_reader_that_does_not_read_is_timed_out() {
    let mut child = start(YES, "100", Stdio::null());
    let stderr = child.stderr.take();
    assert_eq!(end(child).0, Some(124));
    drop(stderr);
}

#[test]
fn a_component_writes_to_the_same_streams() {
    let text = r#"(component
        (import "wasi:io/error@0.2.0" (instance $io-error (export "error" (type (sub resource)))))
        (alias export $io-error "error" (type $error))
        (import "wasi:io/streams@0.2.0" (instance $streams
            (export "output-stream" (type $output-stream (sub resource)))
            (alias outer 1 $error (type $outer-error))
            (export "error" (type $error (eq $outer-error)))
            (type $failure (variant (case "last-operation-failed" (own $error)) (case "closed")))
            (export "stream-error" (type $stream-error (eq $failure)))
            (export "[method]output-stream.blocking-write-and-flush" (func
                (param "self" (borrow $output-stream)) (param "contents" (list u8))
                (result (result (error $stream-error)))))))
        (alias export $streams "output-stream" (type $output-stream))
        (import "wasi:cli/stderr@0.2.0" (instance $stderr
            (alias outer 1 $output-stream (type $outer))
            (export "output-stream" (type $stream (eq $outer)))
            (export "get-stderr" (func (result (own $stream))))))
        (core module $memory
            (memory (export "memory") 1)
            (data (i32.const 64) "hello\n"))
        (core instance $memory (instantiate $memory))
        (alias core export $memory "memory" (core memory $bytes))
        (core func $get (canon lower (func $stderr "get-stderr")))
        (core func $write (canon lower
            (func $streams "[method]output-stream.blocking-write-and-flush") (memory $bytes)))
        (core module $program
            (import "" "get" (func $get (result i32)))
            (import "" "write" (func $write (param i32 i32 i32 i32)))
            (func (export "run") (result i32)
                (call $write (call $get) (i32.const 64) (i32.const 6) (i32.const 256))
                i32.const 0))
        (core instance $program (instantiate $program
            (with "" (instance (export "get" (func $get)) (export "write" (func $write))))))
        (func $run (result (result)) (canon lift (core func $program "run")))
        (instance $cli (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $cli)))"#;
    assert_eq!(end(start(text, "", Stdio::null())), (Some(0), b"hello\n".to_vec()));
}
