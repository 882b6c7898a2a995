//! `amphora serve`: commands of both kinds as functions, by CGI.

use std::io::{Read, Write};

use nix::sys::signal::Signal;

use crate::{
    sandbox::Sandbox,
    serve::{Gateway, is},
    serve_answers::joined,
    session::until,
};

/// Answers with its environment and what it is sent; before that it ends, or traps, where its path asks for it.
const LINUX: &str = r#"
case "$PATH_INFO" in
/early) echo "no luck" >&2; exit 3 ;;
/noise) echo "this is no head"; exit 0 ;;
/hang) exec sleep 1000 ;;
/half) printf 'Content-Type: text/plain\n\nbegun\n'; exit 7 ;;
/status) printf 'Status: 418 Short\r\nX-Own: 1\r\n\r\n'; exit 0 ;;
/slow) printf 'Content-Type: text/plain\n\nbegun\n'; exec sleep 1000 ;;
esac
printf 'Content-Type: text/plain\n\n'; env | sort; cat
"#;

/// A module of WASI p1 that does the same, without the ends.
const WASM: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
  (memory (export "memory") 3)
  (data (i32.const 64) "Content-Type: text/plain\n\n")
  (func $put (param $at i32) (param $length i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $length))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func (export "_start")
    (call $put (i32.const 64) (i32.const 26))
    (drop (call $sizes (i32.const 16) (i32.const 20)))
    (drop (call $environ (i32.const 1024) (i32.const 16384)))
    (call $put (i32.const 16384) (i32.load (i32.const 20)))
    (loop $more
      (i32.store (i32.const 0) (i32.const 131072))
      (i32.store (i32.const 4) (i32.const 4096))
      (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (if (i32.load (i32.const 8)) (then
        (call $put (i32.const 131072) (i32.load (i32.const 8)))
        (br $more))))))"#;

const FUNCTIONS: &str = "timeout = \"2s\"\n[functions.wasm]\nimage = \"command:wasm\"\ncgi = true\n\
    [[routes]]\npath = \"/linux\"\nfunction = \"linux\"\n[[routes]]\npath = \"/wasm\"\nfunction = \"wasm\"\n";

fn sandbox() -> Option<(Sandbox, [String; 2])> {
    let (sandbox, [busybox]) = Sandbox::with(["busybox:latest"])?;
    sandbox.file("run", LINUX);
    sandbox.file("command.wat", WASM);
    sandbox.ok(["import", "command.wat", "command:wasm"]);
    Some((sandbox, [busybox, String::new()]))
}

fn gateway<'a>(sandbox: &'a Sandbox, images: &[String; 2], more: &str) -> Gateway<'a> {
    let linux = "[functions.linux]\nimage = \"BUSYBOX\"\nentrypoint = [\"sh\", \"/scripts/run\"]\nvolumes = [\"./run:/scripts/run:ro\"]\ncgi = true\n";
    Gateway::start(sandbox, images, &format!("drain = \"1s\"\n{linux}{more}{FUNCTIONS}"))
}

fn containers(sandbox: &Sandbox) -> usize {
    sandbox.ok(["ps", "-a", "-q"]).lines().count()
}

#[test]
fn commands_of_both_kinds_answer_requests() {
    let Some((sandbox, images)) = sandbox() else { return };
    let gateway = gateway(&sandbox, &images, "");
    for kind in ["linux", "wasm"] {
        let body = "what is sent\n".repeat(2000);
        let answer = gateway.send(format!(
            "POST /{kind}/some%20where?a=b HTTP/1.1\r\nhost: example.com:81\r\nproxy: http://evil/\r\nx-forwarded-for: 6.6.6.6\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        ));
        is(&answer, 200);
        let (head, chunks) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains("content-type: text/plain"), "{head}");
        let answer = String::from_utf8(joined(chunks.as_bytes())).expect("text");
        let told: Vec<&str> = answer.split(['\0', '\n']).collect();
        for expected in [
            "REQUEST_METHOD=POST",
            "PATH_INFO=/some where",
            &format!("SCRIPT_NAME=/{kind}"),
            "QUERY_STRING=a=b",
            "SERVER_NAME=example.com",
            "SERVER_PORT=81",
            "GATEWAY_INTERFACE=CGI/1.1",
            "HTTP_X_FORWARDED_FOR=127.0.0.1",
            "REMOTE_ADDR=127.0.0.1",
        ] {
            assert!(told.contains(&expected), "{kind}: {expected}: {answer}");
        }
        assert!(!answer.contains("HTTP_PROXY"), "{answer}");
        assert_eq!(answer.matches("what is sent").count(), 2000, "{kind}");
        let line = gateway.log_line(&format!("/{kind}/some%20where"));
        assert_eq!((&line["status"], &line["complete"]), (&200.into(), &true.into()), "{line}");
    }
    until("nothing is left of them", || (containers(&sandbox) == 0).then_some(()));
    gateway.stop();
    sandbox.check_clean();
}

#[test]
fn a_command_that_does_not_answer_is_told_as_that() {
    let Some((sandbox, images)) = sandbox() else { return };
    let gateway = gateway(&sandbox, &images, "");
    for (path, status, told) in [
        ("early", 502, "the command ended with 3 before it had answered"),
        ("noise", 502, "the command ended with 0 before it had answered"),
        ("hang", 504, "no answer in time"),
    ] {
        is(&gateway.get(&format!("/linux/{path}")), status);
        let line = gateway.log_line(&format!("/linux/{path}"));
        assert_eq!((&line["status"], &line["error"]), (&status.into(), &told.into()), "{line}");
    }
    until("what it said", || gateway.session.stderr().contains("function linux: no luck\n").then_some(()));
    let answer = gateway.get("/linux/status");
    is(&answer, 418);
    assert!(answer.contains("x-own: 1\r\n"), "{answer}");
    // Its end is no good one, so its answer is no whole one.
    let answer = gateway.get("/linux/half");
    assert!(answer.contains("begun\n") && !answer.ends_with("0\r\n\r\n"), "{answer}");
    let line = gateway.log_line("/linux/half");
    assert!(line["complete"] == false && line.to_string().contains("the command ended with 7"), "{line}");
    until("nothing is left of them", || (containers(&sandbox) == 0).then_some(()));
    gateway.stop();
    sandbox.check_clean();
}

#[test]
fn as_many_commands_run_as_may_and_none_is_left_behind() {
    let Some((sandbox, images)) = sandbox() else { return };
    let gateway = gateway(&sandbox, &images, "max = 1\nqueue = 0\nstop_timeout = \"1s\"\n");
    let begin = || {
        let mut stream = gateway.connect();
        stream.write_all(b"GET /linux/slow HTTP/1.1\r\nhost: a\r\n\r\n").expect("a request");
        let mut head = [0; 12];
        stream.read_exact(&mut head).expect("the beginning of an answer");
        // Room is there a moment after its container is gone.
        (&head == b"HTTP/1.1 200").then_some(stream)
    };
    let slow = begin().expect("room for the first one");
    is(&gateway.get("/linux/full"), 503);
    // Whoever leaves takes it along.
    drop(slow);
    until("it is gone", || (containers(&sandbox) == 0).then_some(()));
    until("there is room again", || gateway.get("/linux/x").starts_with("HTTP/1.1 200 ").then_some(()));
    until("it is gone", || (containers(&sandbox) == 0).then_some(()));
    // A gateway that ends, too.
    let slow = until("there is room again", begin);
    gateway.session.signal(Signal::SIGTERM);
    let Gateway { session, .. } = gateway;
    assert_eq!(session.wait().code, Some(0));
    drop(slow);
    assert_eq!(containers(&sandbox), 0);
    sandbox.check_clean();
}

#[test]
fn what_answers_by_itself_is_no_command() {
    let Some((sandbox, [function])) = Sandbox::with(["function:latest"]) else { return };
    let text = format!("[functions.hello]\nimage = \"{function}\"\ncgi = true\n[[routes]]\nfunction = \"hello\"\n");
    let told = sandbox.refuses(["serve", "--check", &sandbox.file("functions.toml", text)]);
    assert!(told.contains("cgi = true: the image") && told.contains("answers requests by itself"), "{told}");
}
