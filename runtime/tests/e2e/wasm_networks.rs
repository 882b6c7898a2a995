//! Wasm programs on networks: by their own sockets, by those that they are given, and by names.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    time::Duration,
};

use crate::{
    networks::{alone, alone_with, get_soon, serve},
    sandbox::Sandbox,
    session::{PATIENCE, Session, until},
};

/// Imports a program that is written as text.
fn import(sandbox: &Sandbox, name: &str, text: &str) -> String {
    let path = sandbox.file(&format!("{name}.wat"), text);
    let image = format!("local/{name}:latest");
    sandbox.ok(["import", &path, &image]);
    image
}

pub(crate) fn import_fetch(sandbox: &Sandbox) -> String {
    import(sandbox, "fetch", include_str!("programs/fetch.wat"))
}

/// Says something to who echoes twice, and listens to it until it has said it all.
fn echoes(session: &Session, address: &str) {
    session.until_printed("ready");
    for word in ["first", "second"] {
        let mut stream = TcpStream::connect(address).expect("somebody who listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.write_all(word.as_bytes()).expect("a word");
        stream.shutdown(Shutdown::Write).expect("no more words");
        let mut heard = String::new();
        stream.read_to_string(&mut heard).expect("an echo");
        assert_eq!(heard, word);
    }
}

#[track_caller]
fn ends_well(session: Session) {
    let ended = session.wait();
    assert_eq!(ended.code, Some(0), "the exit code is that of echo.wat: {ended}");
}

#[test]
fn a_wasm_program_finds_others_by_name_and_reaches_what_it_is_connected_to() {
    alone(|sandbox, busybox| {
        let fetch = import_fetch(sandbox);
        sandbox.ok(["network", "create", "front"]);
        sandbox.ok(["network", "create", "back"]);
        serve(sandbox, busybox, "server", &["--network", "name=front,alias=web", "-p", "8080:80"]);
        let hostname = get_soon("127.0.0.1:8080");
        let said = sandbox.ok(["run", "--rm", "--network", "front", &fetch]);
        assert!(said.contains("200 OK") && said.trim_end().ends_with(&hostname), "{said}");
        // By what it was told, on the default network.
        let ip = sandbox.inspect("server", "(index .NetworkSettings.Networks \"front\").IPAddress");
        let host = format!("web:{ip}");
        let said = sandbox.ok(["run", "--rm", "--network", "front", "--add-host", &host, &fetch]);
        assert!(said.trim_end().ends_with(&hostname), "{said}");
        // And of those it may be granted some alone.
        let granted = |to: &str| sandbox.run(["run", "--rm", "--network", "front", "--allow-net", to, &fetch]);
        let said = granted("web:80");
        assert!(said.code == Some(0) && said.stdout.trim_end().ends_with(&hostname), "{said}");
        for to in ["web:81", "server:80", "203.0.113.0/24:80"] {
            let refused = granted(to);
            assert!(refused.code == Some(1) && refused.stderr.contains("--allow-net"), "{to}: {refused}");
        }
        // Of another network it learns no names, and reaches nobody there; without one it has no sockets.
        for flags in
            [&["--network", "back"][..], &["--network", "back", "--add-host", &host], &["--network", "none"], &[]]
        {
            let run = ["run", "--rm", "--timeout", "5s"];
            let ended = sandbox.run(run.iter().chain(flags).copied().chain([fetch.as_str()]));
            // What is dropped is waited for.
            assert!([Some(1), Some(124)].contains(&ended.code) && ended.stdout.is_empty(), "{flags:?}: {ended}");
        }
        // In the place of somebody who is there.
        let said = sandbox.ok(["run", "--rm", "--network", "container:server", "--add-host", "web:127.0.0.1", &fetch]);
        assert!(said.trim_end().ends_with(&hostname), "{said}");
        sandbox.ok(["rm", "-f", "server"]);
        sandbox.check_clean();
    });
}

#[test]
fn a_wasm_program_on_a_network_does_not_reach_the_loopback_of_the_machine() {
    alone(|sandbox, _| {
        let fetch = import_fetch(sandbox);
        // What listens at the machine's own loopback alone, at the port that the program asks.
        let _private = TcpListener::bind("127.0.0.1:80").expect("a port");
        for host in ["web:127.0.0.1", "web:127.0.0.2"] {
            let ended = sandbox.run(["run", "--rm", "--network", "bridge", "--add-host", host, &fetch]);
            assert!(ended.code == Some(1) && ended.stdout.is_empty(), "{host}: {ended}");
        }
        sandbox.check_clean();
    });
}

#[test]
fn a_module_accepts_at_what_it_is_given() {
    let Some(sandbox) = Sandbox::new() else { return };
    let echo = import(&sandbox, "echo", include_str!("programs/echo.wat"));
    let session = sandbox.start(["run", "--name", "echo", "-v", "data:/data", "-p", "127.0.0.1::80", &echo]);
    session.until_printed("ready");
    let address = sandbox.ok(["port", "echo", "80"]);
    echoes(&session, address.trim());
    ends_well(session);
    sandbox.ok(["rm", "echo"]);
    let said = sandbox.fails(125, ["run", "--rm", "-p", "53:53/udp", &echo]);
    assert!(said.contains("accepts connections of TCP"), "{said}");
    // Nothing is at descriptor 3 that was not given.
    let ended = sandbox.run(["run", "--rm", &echo]);
    assert_eq!(ended.code, Some(10), "{ended}");
    sandbox.ok(["volume", "rm", "data"]);
    sandbox.check_clean();
}

#[test]
fn a_module_accepts_within_its_network() {
    alone(|sandbox, busybox| {
        let echo = import(sandbox, "echo", include_str!("programs/echo.wat"));
        sandbox.ok(["network", "create", "front"]);
        let flags = ["run", "--name", "echo", "--network", "front", "-v", "data:/data", "-p", "8080:80", &echo];
        let session = sandbox.start(flags);
        echoes(&session, "127.0.0.1:8080");
        ends_well(session);
        sandbox.ok(["rm", "echo"]);
        // From a container of the other kind, by name.
        serve(sandbox, busybox, "client", &["--network", "front"]);
        let session = sandbox.start(flags);
        session.until_printed("ready");
        let ask = "echo first | nc -w 5 echo 80; echo second | nc -w 5 echo 80";
        assert_eq!(sandbox.ok(["exec", "client", "sh", "-c", ask]), "first\nsecond\n");
        ends_well(session);
        sandbox.ok(["rm", "-f", "client", "echo"]);
        sandbox.ok(["volume", "rm", "data"]);
        sandbox.check_clean();
    });
}

#[test]
fn a_function_is_served_within_its_network() {
    alone_with(["busybox:latest", "function:latest"], |sandbox, [busybox, function]| {
        sandbox.ok(["network", "create", "front"]);
        sandbox.ok(["run", "-d", "--name", "web", "--network", "front", "-p", "8080:80", function]);
        until("the host is answered", || {
            let mut stream = TcpStream::connect("127.0.0.1:8080").ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
            stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            text.contains("hello from wasm").then_some(())
        });
        serve(sandbox, busybox, "client", &["--network", "front"]);
        let said = sandbox.ok(["exec", "client", "wget", "-q", "-O", "-", "http://web/"]);
        assert_eq!(said, "hello from wasm\n");
        sandbox.ok(["rm", "-f", "web", "client"]);
        sandbox.check_clean();
    });
}

#[test]
fn the_process_of_a_wasm_program_on_a_network_is_confined() {
    alone(|sandbox, _| {
        let waits = import(sandbox, "waits", WAITS);
        sandbox.ok(["run", "-d", "--name", "waits", "--network", "bridge", &waits]);
        let pid = sandbox.inspect("waits", ".State.Pid");
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).expect("a namespace");
        assert_ne!(namespace(&pid), namespace("thread-self"));
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect("a field").trim();
        assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1", "2"));
        sandbox.ok(["rm", "-f", "waits"]);
        sandbox.check_clean();
    });
}

/// Reads of nobody who would say something.
const WAITS: &str = r#"(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "\01")
  (data (i32.const 24) "\00\00\00\00\00\01\00\00")
  (func (export "_start") (drop (call $poll (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)))))"#;

/// A C library in this process would have read an image's `/etc/nsswitch.conf` and loaded the libraries that it names.
#[test]
fn names_are_looked_up_without_the_files_of_an_image() {
    alone(|sandbox, busybox| {
        let fetch = import_fetch(sandbox);
        sandbox.ok(["network", "create", "front"]);
        serve(sandbox, busybox, "web", &["--network", "front", "-p", "8080:80"]);
        let hostname = get_soon("127.0.0.1:8080");
        // Grants in the places of all files that it would read: one that nobody writes to holds up who opens it.
        let etc = sandbox.work().join("etc");
        fs::create_dir(&etc).expect("a folder");
        for name in ["nsswitch.conf", "hosts", "resolv.conf", "gai.conf", "host.conf"] {
            nix::unistd::mkfifo(&etc.join(name), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        }
        let volume = format!("{}:/etc", etc.display());
        let said = sandbox.ok(["run", "--rm", "--timeout", "30s", "--network", "front", "-v", &volume, &fetch]);
        assert!(said.trim_end().ends_with(&hostname), "{said}");
        sandbox.ok(["rm", "-f", "web"]);
        sandbox.check_clean();
    });
}
