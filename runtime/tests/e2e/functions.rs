//! Functions: Wasm components that answer HTTP requests, served by `run -p`.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    networks::alone_with,
    sandbox::Sandbox,
    session::{PATIENCE, is_alive, until},
};

/// The port of this machine at which a container is published; None while it is not.
fn find_port(sandbox: &Sandbox, name: &str) -> Option<u16> {
    let ended = sandbox.run(["inspect", name]);
    let details: Value = serde_json::from_str(&ended.stdout).ok()?;
    let ports = details[0]["NetworkSettings"]["Ports"].as_object()?;
    ports.values().next()?[0]["HostPort"].as_str()?.parse().ok()
}

pub(crate) fn port(sandbox: &Sandbox, name: &str) -> u16 {
    find_port(sandbox, name).unwrap_or_else(|| panic!("no port: {}", sandbox.ok(["inspect", name])))
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("somebody who listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

pub(crate) fn get(port: u16, path: &str) -> String {
    let mut stream = connect(port);
    write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").expect("a request");
    let mut answer = Vec::new();
    // What came before a reset is there.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[track_caller]
pub(crate) fn is(answer: &str, status: u16) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "not {status}: {answer}");
}

#[test]
fn a_function_is_served_with_no_further_flag() {
    let Some((sandbox, [function])) = Sandbox::with(["function:latest"]) else { return };
    sandbox.ok(["run", "-d", "--name", "web", "-p", "127.0.0.1::8080", &function]);
    let at = port(&sandbox, "web");
    assert_eq!(sandbox.ok(["ps", "--format", "{{.Ports}}"]), format!("127.0.0.1:{at}->8080/tcp\n"));
    let answer = get(at, "/");
    is(&answer, 200);
    assert!(answer.contains("hello from wasm\n"), "{answer}");
    is(&get(at, "/print"), 200);
    until("what it prints is in the log", || (sandbox.ok(["logs", "web"]) == "hello from wasm\n").then_some(()));
    // Each of what goes wrong in a function is its client's 500, and somebody else's to read.
    let answer = get(at, "/trap");
    is(&answer, 500);
    let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).expect("an id");
    assert!(!answer.contains("unreachable"), "{answer}");
    let told = format!("amphora: request {id}: wasm trap");
    until("the trap is in the log", || {
        let log = sandbox.run(["logs", "web"]).stderr;
        (log.contains(&told) && log.contains("unreachable")).then_some(())
    });
    is(&get(at, "/refuse"), 502);
    is(&get(at, "/decline"), 504);
    sandbox.ok(["stop", "web"]);
    assert_eq!(sandbox.inspect("web", ".State.ExitCode"), "0");
    assert!(TcpStream::connect(("127.0.0.1", at)).is_err(), "it is still served");
    sandbox.ok(["start", "web"]);
    is(&get(port(&sandbox, "web"), "/"), 200);
    sandbox.ok(["restart", "web"]);
    is(&get(port(&sandbox, "web"), "/"), 200);
    sandbox.ok(["rm", "-f", "web"]);
    sandbox.check_clean();
}

#[test]
fn functions_of_both_versions_are_served() {
    let Some((sandbox, [function])) = Sandbox::with(["function:concurrent"]) else { return };
    sandbox.ok(["run", "-d", "--name", "web", "-p", "127.0.0.1::80", &function]);
    let at = port(&sandbox, "web");
    is(&get(at, "/"), 203);
    is(&get(at, "/trap"), 500);
    is(&get(at, "/"), 203);
    sandbox.ok(["stop", "web"]);
    assert_eq!(sandbox.inspect("web", ".State.ExitCode"), "0");
}

#[test]
fn a_port_is_taken_before_anything_starts() {
    let Some((sandbox, [function])) = Sandbox::with(["function:latest"]) else { return };
    sandbox.ok(["run", "-d", "--name", "first", "-p", "127.0.0.1::80", &function]);
    let publish = format!("127.0.0.1:{}:80", port(&sandbox, "first"));
    for flags in [&["run", "--rm"][..], &["run", "-d", "--name", "second"]] {
        let told = sandbox.fails(125, flags.iter().copied().chain(["-p", &publish, &function]));
        assert!(told.contains("cannot listen at 127.0.0.1:") && told.contains("in use"), "{told}");
    }
    sandbox.ok(["rm", "-f", "first"]);
    sandbox.ok(["start", "second"]);
    is(&get(port(&sandbox, "second"), "/"), 200);
    sandbox.ok(["rm", "-f", "second"]);
    sandbox.check_clean();
}

#[test]
fn what_is_published_and_what_is_not_belong_together() {
    let Some((sandbox, [function])) = Sandbox::with(["function:latest"]) else { return };
    let told = sandbox.fails(126, ["run", "--rm", &function]);
    assert!(told.contains("answers HTTP requests") && told.contains("-p "), "{told}");
    // A program that is called for nothing may open sockets itself, which takes a network.
    alone_with(["hello:component"], |sandbox, [hello]| {
        assert_eq!(sandbox.ok(["run", "--rm", "-p", "127.0.0.1::80", hello]), "hello from wasm\n");
        sandbox.check_clean();
    });
    let told = sandbox.fails(125, ["run", "--rm", "-p", "53:53/udp", &function]);
    assert!(told.contains("TCP"), "{told}");
}

#[test]
fn a_stopped_function_answers_what_it_has_begun() {
    let Some((sandbox, [function])) = Sandbox::with(["function:latest"]) else { return };
    let session = sandbox.start(["run", "--name", "web", "-p", "127.0.0.1::80", &function]);
    let at = until("it is published", || find_port(&sandbox, "web"));
    let mut begun = connect(at);
    begun.write_all(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab").expect("a request");
    let mut head = [0; 15];
    begun.read_exact(&mut head).expect("the beginning of an answer");
    session.signal(Signal::SIGTERM);
    until("nobody else is accepted", || TcpStream::connect(("127.0.0.1", at)).is_err().then_some(()));
    begun.write_all(b"cd").expect("the rest of the request");
    let mut answer = String::new();
    begun.read_to_string(&mut answer).expect("the rest of the answer");
    assert!(answer.contains("ab\r\n") && answer.contains("cd\r\n"), "{answer}");
    let ended = session.wait();
    assert_eq!(ended.code, Some(0), "{ended}");
}

#[test]
fn a_function_that_never_yields_ends_with_its_container() {
    let Some((sandbox, [function])) = Sandbox::with(["function:latest"]) else { return };
    sandbox.ok(["run", "-d", "--name", "web", "--stop-timeout", "1", "-p", "127.0.0.1::80", &function]);
    let at = port(&sandbox, "web");
    let mut spinning: Vec<_> = (0..8).map(|_| connect(at)).collect();
    for stream in &mut spinning {
        stream.write_all(b"GET /spin HTTP/1.1\r\nhost: a\r\n\r\n").expect("a request");
    }
    is(&get(at, "/"), 200);
    sandbox.ok(["stop", "web"]);
    assert_eq!(sandbox.inspect("web", ".State.ExitCode"), "137");
    sandbox.ok(["rm", "web"]);
    // The time limit is the container's.
    sandbox.ok(["run", "-d", "--name", "web", "--timeout", "1s", "-p", "127.0.0.1::80", &function]);
    assert_eq!(sandbox.ok(["wait", "web"]), "124\n");
}

#[test]
fn a_killed_server_leaves_its_port_and_nothing_else() {
    let Some((sandbox, [function])) = Sandbox::with(["function:latest"]) else { return };
    sandbox.ok(["run", "-d", "--name", "web", "-p", "127.0.0.1::80", &function]);
    let at = port(&sandbox, "web");
    let mut begun = connect(at);
    begun.write_all(b"GET /spin HTTP/1.1\r\nhost: a\r\n\r\n").expect("a request");
    let pid = sandbox.inspect("web", ".State.Pid").parse().expect("a pid");
    sandbox.ok(["kill", "web"]);
    assert_eq!(sandbox.ok(["wait", "web"]), "137\n");
    assert!(!is_alive(pid));
    assert!(TcpStream::connect(("127.0.0.1", at)).is_err(), "somebody still listens");
    sandbox.ok(["rm", "web"]);
    sandbox.ok(["run", "-d", "--name", "web", "-p", &format!("127.0.0.1:{at}:80"), &function]);
    is(&get(at, "/"), 200);
    sandbox.ok(["rm", "-f", "web"]);
    sandbox.check_clean();
}

#[test]
fn memory_is_one_limit_for_all_requests_of_a_function() {
    let Some((sandbox, [function])) = Sandbox::with(["function:latest"]) else { return };
    sandbox.ok(["run", "-d", "--name", "web", "-m", "16m", "-p", "127.0.0.1::80", &function]);
    let at = port(&sandbox, "web");
    for _ in 0..3 {
        is(&get(at, "/grow"), 500);
        is(&get(at, "/"), 200);
    }
    until("it is in the log", || {
        let log = sandbox.run(["logs", "web"]).stderr;
        (log.contains("out of memory: ") && log.contains("the limit is 16777216")).then_some(())
    });
    sandbox.ok(["stop", "web"]);
    assert_eq!(sandbox.inspect("web", ".State.LimitHit"), "memory");
}

/// With too few threads there is no server, and with few of them one that ends.
#[test]
fn a_function_whose_threads_are_withheld_says_which_limit_it_was() {
    let Some((sandbox, [function])) = Sandbox::with(["function:latest"]) else { return };
    if !sandbox.can_limit(&["--pids-limit", "10", "--cpus", "1"]) {
        return;
    }
    // With one processor: the process's own, one for the stop signal, the clock, one that answers, one for calls that block.
    for limit in ["1", "2", "3", "4"] {
        let ended =
            sandbox.run(["run", "--rm", "--cpus", "1", "--pids-limit", limit, "-p", "127.0.0.1::80", &function]);
        assert!(matches!(ended.code, Some(125 | 126)), "{limit}: {ended}");
        assert!(ended.stderr.contains("--pids-limit"), "{limit}: {ended}");
    }
    for limit in ["5", "6"] {
        let flags = ["run", "-d", "--name", "web", "--cpus", "1", "--pids-limit", limit, "-p", "127.0.0.1::80"];
        sandbox.ok(flags.into_iter().chain([function.as_str()]));
        is(&get(port(&sandbox, "web"), "/"), 200);
        sandbox.ok(["stop", "web"]);
        assert_eq!(sandbox.inspect("web", ".State.ExitCode"), "0", "{limit}");
        sandbox.ok(["rm", "web"]);
    }
}

/// No socket of its own, whatever happens to its process: behind the filter it can only accept at the one it was given.
#[test]
fn a_functions_process_has_no_network_but_its_port() {
    let Some((sandbox, [function])) = Sandbox::with(["function:latest"]) else { return };
    sandbox.ok(["run", "-d", "--name", "web", "-p", "127.0.0.1::80", &function]);
    let pid: i32 = sandbox.inspect("web", ".State.Pid").parse().expect("a pid");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    assert!(status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"])), "{status}");
    is(&get(port(&sandbox, "web"), "/"), 200);
    let sockets = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors");
    let sockets = sockets.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    let sockets = sockets.filter(|path| path.to_string_lossy().starts_with("socket:")).count();
    assert!((1..=2).contains(&sockets), "{sockets} sockets");
    sandbox.ok(["rm", "-f", "web"]);
}
