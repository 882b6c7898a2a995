//! `amphora serve`: Wasm functions within the gateway's process.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
};

use nix::sys::signal::Signal;

use crate::{
    sandbox::Sandbox,
    serve::{Gateway, HELLO, containers, is, sandbox, write},
    session::until,
};

const ROUTE: &str = "[[routes]]\nfunction = \"hello\"\n";

/// The container that a function within the gateway is written down as.
fn written_down(sandbox: &Sandbox) -> String {
    let found = containers(sandbox).into_iter().find_map(|line| line.strip_suffix(" created").map(str::to_owned));
    found.unwrap_or_else(|| panic!("{:?}", containers(sandbox)))
}

/// What a metric of the function is.
fn figure(gateway: &Gateway<'_>, name: &str) -> f64 {
    let figures = gateway.admin("/metrics");
    let value = figures.lines().find_map(|line| line.strip_prefix(name)?.rsplit_once("} ")?.1.parse().ok());
    value.unwrap_or_else(|| panic!("no {name}: {figures}"))
}

/// The beginning of an upload, of which the rest comes later.
fn begin_upload(gateway: &Gateway<'_>) -> TcpStream {
    let mut stream = gateway.connect();
    stream
        .write_all(b"POST /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 6\r\n\r\nabc")
        .expect("a half");
    stream
}

/// The rest of it, and the answer.
fn end_upload(mut stream: TcpStream) {
    stream.write_all(b"def").expect("the other half");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    is(&answer, 200);
    assert!(answer.contains("abc") && answer.contains("def"), "{answer}");
}

#[test]
fn what_goes_wrong_in_a_function_is_for_its_log_and_nobody_elses_loss() {
    let Some((sandbox, images)) = sandbox() else { return };
    let text = format!("{HELLO}memory = \"16m\"\ntimeout = \"1s\"\n{ROUTE}");
    let gateway = Gateway::start(&sandbox, &images, &text);
    let name = written_down(&sandbox);
    is(&gateway.get("/print"), 200);
    until("what it prints is in its log", || (sandbox.ok(["logs", &name]) == "hello from wasm\n").then_some(()));
    for (path, status, told) in [
        ("/trap", 500, "wasm trap: wasm `unreachable`"),
        ("/grow", 500, "out of memory: "),
        ("/never", 500, "the function ended without an answer"),
        ("/refuse", 502, "the function answered with an error"),
        ("/spin", 504, "no answer in time"),
    ] {
        let answer = gateway.get(path);
        is(&answer, status);
        assert!(!answer.contains("wasm"), "{answer}");
        let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).expect("an id");
        assert!(answer.ends_with(&format!("request {id}\n")), "{answer}");
        let line = gateway.log_line(id);
        assert!(line["status"] == status && line["error"].as_str().expect("a reason").contains(told), "{line}");
        let log = sandbox.run(["logs", &name]).stderr;
        assert!(log.contains(&format!("amphora: request {id}: {told}")), "{log}");
    }
    // A client that has a part of an answer learns that it is not all.
    let half = gateway.get("/half");
    assert!(half.starts_with("HTTP/1.1 200 ") && !half.ends_with("0\r\n\r\n"), "{half}");
    let line = gateway.log_line("\"path\":\"/half\"");
    assert!(line["complete"] == false && line["error"].as_str().expect("a reason").contains("broke off"), "{line}");
    is(&gateway.get("/"), 200);
    let status = gateway.status("hello");
    assert_eq!((&status["isolation"], &status["traps"]), (&"engine".into(), &4.into()), "{status}");
    assert!(figure(&gateway, "amphora_instances_total{function=\"hello\"") >= 7.0);
    assert!(figure(&gateway, "amphora_instantiation_seconds_total{function=\"hello\"") > 0.0);
    until("what it had is free", || {
        (figure(&gateway, "amphora_guest_memory_bytes{function=\"hello\"") == 0.0).then_some(())
    });
    until("inspect has it", || (sandbox.inspect(&name, ".Wasm.Traps") == "4").then_some(()));
    gateway.stop();
    assert!(containers(&sandbox).is_empty(), "{:?}", containers(&sandbox));
    sandbox.check_clean();
}

#[test]
fn what_takes_a_process_has_one() {
    let Some((sandbox, images)) = sandbox() else { return };
    let process = HELLO.replace("hello", "own");
    let text = format!(
        "{HELLO}{ROUTE}{process}isolation = \"process\"\n[[routes]]\npath = \"/own\"\nfunction = \"own\"\n\
         {}pids = 50\n[[routes]]\npath = \"/limited\"\nfunction = \"limited\"\n",
        HELLO.replace("hello", "limited")
    );
    let gateway = Gateway::start(&sandbox, &images, &text);
    let isolation = |function: &str| gateway.status(function)["isolation"].as_str().expect("text").to_owned();
    assert_eq!(["hello", "own", "limited"].map(isolation), ["engine", "process", "process"]);
    let answer = gateway.get("/own/");
    is(&answer, 200);
    assert!(answer.contains("server-timing: ") && answer.contains("hello from wasm"), "{answer}");
    gateway.stop();
    let file = write(&sandbox, &images, &format!("{HELLO}isolation = \"engine\"\npids = 50\n{ROUTE}"));
    let told = sandbox.refuses(["serve", "--check", &file]);
    let reason =
        "function `hello`: isolation = \"engine\": pids: processes are limited, which takes a process of its own";
    assert!(told.contains(reason), "{told}");
    let file = write(
        &sandbox,
        &images,
        &format!("[functions.web]\nimage = \"BUSYBOX\"\nfuel = 5\n{}", ROUTE.replace("hello", "web")),
    );
    let told = sandbox.refuses(["serve", "--check", &file]);
    assert!(told.contains("function `web`: --fuel"), "{told}");
    sandbox.check_clean();
}

#[test]
fn a_reload_touches_only_what_changed_and_loses_no_request() {
    let Some((sandbox, images)) = sandbox() else { return };
    let other = format!("{}[[routes]]\npath = \"/other\"\nfunction = \"other\"\n", HELLO.replace("hello", "other"));
    let gateway = Gateway::start(&sandbox, &images, &format!("{HELLO}{ROUTE}{other}"));
    let before = containers(&sandbox);
    let begun = begin_upload(&gateway);
    until("it is at work", || (gateway.status("hello")["in_flight"] == 1).then_some(()));
    write(&sandbox, &images, &format!("{HELLO}env = {{ A = \"b\" }}\n{ROUTE}{other}"));
    gateway.session.signal(Signal::SIGHUP);
    until("it is read", || gateway.session.stderr().contains("was read again").then_some(()));
    is(&gateway.get("/"), 200);
    // The old one is there as long as it has a request.
    assert_eq!(containers(&sandbox).len(), 3);
    end_upload(begun);
    until("the old one is gone", || (containers(&sandbox).len() == 2).then_some(()));
    let after = containers(&sandbox);
    let of_other = |names: &[String]| names.iter().find(|name| name.starts_with("other-")).cloned();
    assert!(of_other(&before) == of_other(&after) && before != after, "{before:?} {after:?}");
    assert_eq!(gateway.status("hello")["requests"], 2);
    // What cannot be loaded changes nothing, and leaves nothing.
    write(&sandbox, &images, &format!("{HELLO}kv = [\"a\"]\nvolumes = [\"./missing:/data\"]\n{ROUTE}{other}"));
    gateway.session.signal(Signal::SIGHUP);
    until("it is refused", || gateway.session.stderr().contains("missing for /data is no directory").then_some(()));
    is(&gateway.get("/"), 200);
    assert_eq!(containers(&sandbox), after);
    // One that has begun is answered before the gateway ends.
    let begun = begin_upload(&gateway);
    until("it is at work", || (gateway.status("hello")["in_flight"] == 1).then_some(()));
    gateway.session.signal(Signal::SIGTERM);
    until("nobody else is accepted", || TcpStream::connect(("127.0.0.1", gateway.port)).is_err().then_some(()));
    end_upload(begun);
    let ended = gateway.session.wait();
    assert_eq!(ended.code, Some(0), "{ended}");
    sandbox.check_clean();
}

#[test]
fn as_many_instances_as_may_be_and_the_others_wait() {
    let Some((sandbox, images)) = sandbox() else { return };
    let text = format!("{HELLO}concurrency = 1\nqueue = 1\nqueue_timeout = \"500ms\"\n{ROUTE}");
    let gateway = Gateway::start(&sandbox, &images, &text);
    let begun = begin_upload(&gateway);
    until("it is at work", || (gateway.status("hello")["in_flight"] == 1).then_some(()));
    let (waits, refused) = thread::scope(|scope| {
        let waits = scope.spawn(|| gateway.get("/waits"));
        until("it waits", || (gateway.status("hello")["waiting"] == 1).then_some(()));
        let refused = gateway.get("/refused");
        (waits.join().expect("an answer"), refused)
    });
    for (answer, path, told) in
        [(&refused, "/refused", "too many requests wait already"), (&waits, "/waits", "nothing had room in time")]
    {
        is(answer, 503);
        assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
        assert_eq!(gateway.log_line(path)["error"], told);
    }
    end_upload(begun);
    until("there is room", || (gateway.status("hello")["in_flight"] == 0).then_some(()));
    is(&gateway.get("/"), 200);
    gateway.stop();
}

#[test]
fn limits_of_an_instance_hold_in_the_gateway() {
    let Some((sandbox, images)) = sandbox() else { return };
    let counted = HELLO.replace("hello", "counted");
    let slow = HELLO.replace("hello", "slow");
    let text = format!(
        "{HELLO}reuse = 10\n{ROUTE}{counted}fuel = 1000000\n[[routes]]\npath = \"/counted\"\nfunction = \"counted\"\n\
         {slow}cpus = 0.2\n[[routes]]\npath = \"/slow\"\nfunction = \"slow\"\n"
    );
    let gateway = Gateway::start(&sandbox, &images, &text);
    let answer = gateway.get("/counted/spin");
    is(&answer, 500);
    assert!(gateway.log_line("/counted/spin")["error"].as_str().expect("a reason").contains("all fuel consumed"));
    is(&gateway.get("/counted/"), 200);
    for _ in 0..10 {
        is(&gateway.get("/"), 200);
    }
    // One answers ten, if nothing comes between.
    assert!(figure(&gateway, "amphora_instances_total{function=\"hello\"") < 10.0);
    // One that spins keeps nobody from being answered, and what its client leaves ends.
    let mut spinning = gateway.connect();
    spinning.write_all(b"GET /slow/spin HTTP/1.1\r\nhost: a\r\n\r\n").expect("a request");
    until("it spins", || (gateway.status("slow")["in_flight"] == 1).then_some(()));
    is(&gateway.get("/"), 200);
    is(&gateway.get("/slow/"), 200);
    drop(spinning);
    until("it has ended", || (gateway.status("slow")["in_flight"] == 0).then_some(()));
    assert_eq!(gateway.log_line("/slow/spin")["error"], "the client left before it was answered");
    gateway.stop();
    sandbox.check_clean();
}

#[test]
fn what_a_function_is_granted_is_there_and_outlives_a_reload() {
    let Some((sandbox, images)) = sandbox() else { return };
    let granted = format!(
        "{HELLO}volumes = [\"./www:/www:ro\", \"data:/data\"]\nkv = [\"default=stores\"]\nconfig = {{ a = \"b\" }}\n\
         allow_net = [\"example.com:443\"]\n"
    );
    let gateway = Gateway::start(&sandbox, &images, &format!("{granted}{ROUTE}"));
    is(&gateway.get("/"), 200);
    let volumes = sandbox.ok(["volume", "ls", "-q"]);
    assert!(volumes.contains("data\n") && volumes.contains("stores\n"), "{volumes}");
    let name = written_down(&sandbox);
    let told = sandbox.refuses(["volume", "rm", "data"]);
    assert!(told.contains(&format!("volume data is used by container {name}")), "{told}");
    // A store is one function's at a time: the next function of its name goes on with it.
    write(&sandbox, &images, &format!("{granted}env = {{ A = \"b\" }}\n{ROUTE}"));
    gateway.session.signal(Signal::SIGHUP);
    until("it is read", || gateway.session.stderr().contains("was read again").then_some(()));
    is(&gateway.get("/"), 200);
    until("the old one is gone", || (containers(&sandbox).len() == 1).then_some(()));
    assert_ne!(written_down(&sandbox), name);
    // Who removes what it is written down as takes its log and nothing else.
    sandbox.ok(["rm", &written_down(&sandbox)]);
    is(&gateway.get("/print"), 200);
    gateway.stop();
    sandbox.ok(["volume", "rm", "data", "stores"]);
    sandbox.check_clean();
}
