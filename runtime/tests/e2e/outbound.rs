//! What a component is granted beyond files: destinations to connect to, values of configuration, key-value stores.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use crate::{
    sandbox::Sandbox,
    session::{PATIENCE, until},
};

const COUNTER: &str = include_str!("../../../xtask/fixtures/components/counter.wat");
const TALLY: &str = include_str!("../../../xtask/fixtures/components/tally.wat");
const ASKER: &str = include_str!("../../../xtask/fixtures/components/asker.wat");

/// Numbers of `wasi:http/types.error-code`, as the program prints them.
const IP_PROHIBITED: &str = "error 4\n";
const REFUSED: &str = "error 6\n";
const CERTIFICATE: &str = "error 13\n";
const DENIED: &str = "error 15\n";

fn with(text: &str) -> Option<(Sandbox, &'static str)> {
    let sandbox = Sandbox::new()?;
    sandbox.ok(["import", &sandbox.file("program.wat", text), "local/program"]);
    Some((sandbox, "local/program"))
}

const LOGGER: &str = r#"(component
  (import "wasi:logging/logging@0.1.0-draft" (instance $logging
    (type $levels (enum "trace" "debug" "info" "warn" "error" "critical"))
    (export "level" (type $level (eq $levels)))
    (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))))
  (core module $memory (memory (export "memory") 1) (data (i32.const 16) "netno route"))
  (core instance $memory (instantiate $memory))
  (core func $log (canon lower (func $logging "log") (memory (core memory $memory "memory"))))
  (core module $program
    (import "" "log" (func $log (param i32 i32 i32 i32 i32)))
    (func (export "run") (result i32)
      (call $log (i32.const 3) (i32.const 16) (i32.const 3) (i32.const 19) (i32.const 8))
      (i32.const 0)))
  (core instance $program (instantiate $program (with "" (instance (export "log" (func $log))))))
  (func $run (result (result)) (canon lift (core func $program "run")))
  (instance $cli (export "run" (func $run)))
  (export "wasi:cli/run@0.2.3" (instance $cli)))"#;

/// A server that answers everybody on this machine's loopback, as long as the test runs.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"HTTP/1.1 207 Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    address
}

#[test]
fn a_component_asks_by_http_whom_it_may_and_nobody_else() {
    let Some((sandbox, program)) = with(ASKER) else { return };
    let (address, port) = (server().to_string(), server().port());
    let by_name = format!("localhost:{port}");
    let asked = |flags: &[&str], whom: &str| {
        let words = ["run", "--rm"].iter().chain(flags).copied().chain([program, whom]);
        sandbox.ok(words)
    };
    let granted = "status 207\n";
    assert_eq!(asked(&[], &address), DENIED);
    assert_eq!(asked(&["--allow-net", &address], &address), granted);
    assert_eq!(asked(&["--allow-net", "192.0.2.1,127.0.0.0/8"], &address), granted);
    assert_eq!(asked(&["--allow-net", "localhost"], &by_name), granted);
    assert_eq!(asked(&["--network", "host"], &by_name), granted);
    // By another name, address or port, or by what is too large to mean this machine.
    let elsewhere = format!("127.0.0.1:{}", server().port());
    assert_eq!(asked(&["--allow-net", &elsewhere], &address), DENIED);
    for all in ["localhost", "*", "0.0.0.0/0", "*.example"] {
        assert_eq!(asked(&["--allow-net", all], &address), DENIED, "{all}");
    }
    assert_eq!(asked(&["--network", "host", "--allow-net", "example.com"], &address), DENIED);
    for cloud in ["169.254.169.254", "[fd00:ec2::254]", "[::ffff:169.254.169.254]", "100.100.100.200"] {
        assert_eq!(asked(&["--allow-net", "*,0.0.0.0/0,[::/0]"], cloud), DENIED, "{cloud}");
    }
    // A name that somebody has pointed elsewhere since.
    let rebound = format!("rebound.example:{port}");
    for there in ["127.0.0.1", "169.254.169.254", "[::1]"] {
        let host = format!("rebound.example:{there}");
        assert_eq!(asked(&["--allow-net", "rebound.example", "--add-host", &host], &rebound), IP_PROHIBITED, "{there}");
        assert_eq!(asked(&["--allow-net", "*", "--add-host", &host], &rebound), IP_PROHIBITED, "{there}");
    }
    let both = ["--allow-net", "rebound.example,127.0.0.1", "--add-host", "rebound.example:127.0.0.1"];
    assert_eq!(asked(&both, &rebound), granted, "the address is granted, too");
}

#[test]
fn what_was_asked_for_in_vain_is_in_the_log() {
    let Some((sandbox, program)) = with(ASKER) else { return };
    let ended = sandbox.run(["run", "--rm", program, "a.example:8443"]);
    assert!(ended.stderr.contains("asked for a.example:8443, and was refused: --allow-net HOST:PORT"), "{ended}");
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a socket").local_addr().expect("an address").to_string();
    assert_eq!(sandbox.ok(["run", "--rm", "--allow-net", &nobody, program, &nobody]), REFUSED);
    let told = sandbox.fails(125, ["run", "--rm", "--allow-net", "https://a.example", program]);
    assert!(told.contains("--allow-net") && told.contains("not a URL"), "{told}");
}

/// The registry's certificate is of an authority that nobody but the tests knows.
#[test]
fn https_is_spoken_with_those_whom_the_user_trusts() {
    let Some((sandbox, program)) = with(ASKER) else { return };
    let (Ok(registry), Ok(authority)) =
        (std::env::var("AMPHORA_TEST_REGISTRY_TLS"), std::env::var("AMPHORA_TEST_REGISTRY_CA"))
    else {
        println!("skipped: no registry with TLS; run cargo xtask test");
        return;
    };
    let grant = ["run", "--rm", "--allow-net", registry.as_str()];
    let asked = |flags: &[&str]| {
        let words = grant.iter().chain(flags).copied().chain([program, registry.as_str(), "s"]);
        sandbox.ok(words)
    };
    assert_eq!(asked(&[]), CERTIFICATE);
    let answer = asked(&["--cacert", &authority]);
    assert!(answer.starts_with("status "), "{answer}");
    let told = sandbox.fails(125, ["run", "--rm", "--allow-net", "a", "--cacert", "/none.pem", program]);
    assert!(told.contains("--cacert /none.pem"), "{told}");
    let text = sandbox.file("text", "no certificate");
    let told = sandbox.fails(125, ["run", "--rm", "--allow-net", "a", "--cacert", &text, program]);
    assert!(told.contains("no certificate in PEM"), "{told}");
}

#[test]
fn an_import_that_nothing_was_granted_for_is_named_with_its_flag() {
    let Some((sandbox, program)) = with(COUNTER) else { return };
    let told = sandbox.fails(126, ["run", "--rm", program]);
    for part in ["wasi:config/store@0.2.0-rc.1 (--config NAME=VALUE", "wasi:keyvalue/store@0.2.0-draft (--kv default"] {
        assert!(told.contains(part), "{told}");
    }
    let told = sandbox.fails(126, ["run", "--rm", "--config", "a=b", program]);
    assert!(!told.contains("wasi:config") && told.contains("wasi:keyvalue/atomics"), "{told}");
    let line = sandbox.ok(["run", "--explain-grants", program]);
    assert!(line.starts_with("amphora run --config NAME=VALUE --kv default local/program\n"), "{line}");
    assert_eq!(sandbox.ok(["run", "--rm", "--config", "a=b", "--kv", "default", program]), "1\n");
}

#[test]
fn configuration_comes_from_flags_and_files() {
    let Some((sandbox, program)) = with(COUNTER) else { return };
    let file = sandbox.file("values", "# of the test\ngreeting=from the file \n\nother=x\n");
    let run = ["run", "--rm", "--kv", "default", "--config-file", &file];
    assert_eq!(sandbox.ok(run.iter().copied().chain([program])), "from the file 1\n");
    let flag = ["--config", "greeting=a=b ", program];
    assert_eq!(sandbox.ok(run.iter().copied().chain(flag)), "a=b 1\n", "the flag comes last");
    let told = sandbox.fails(125, ["run", "--rm", "--config", "greeting", program]);
    assert!(told.contains("--config") && told.contains("NAME=VALUE"), "{told}");
}

#[test]
fn a_store_in_a_volume_survives_its_containers_and_what_kills_them() {
    let Some((sandbox, program)) = with(COUNTER) else { return };
    let run = |kv: &str| sandbox.ok(["run", "--rm", "--config", "a=b", "--kv", kv, program]);
    assert_eq!((run("default"), run("default")), ("1\n".into(), "1\n".into()), "in memory");
    assert_eq!((run("default=data"), run("default=data")), ("1\n".into(), "2\n".into()));
    assert_eq!(run("other=data"), "1\n", "stores of one volume are apart");
    // Somebody writes without end, and is killed in the middle.
    let often = ["run", "-d", "--name", "often", "--config", "often=yes", "--kv", "default=data", program];
    sandbox.ok(often);
    until("it has counted", || (sandbox.ok(["logs", "often"]).lines().count() > 20).then_some(()));
    let told = sandbox.fails(125, ["run", "--rm", "--config", "a=b", "--kv", "default=data", program]);
    assert!(told.contains("--kv default=data") && told.contains("another container that runs"), "{told}");
    assert_eq!(run("other=data"), "2\n", "another store of the volume is nobody's");
    sandbox.ok(["kill", "often"]);
    until("it is dead", || (sandbox.inspect("often", ".State.Running") == "false").then_some(()));
    let log = sandbox.ok(["logs", "often"]);
    let last: u64 = log.lines().last().and_then(|line| line.parse().ok()).expect("a number");
    let next: u64 = run("default=data").trim().parse().expect("a number");
    // What was told is on the disk; one more may be, of which nobody was told.
    assert!(next == last + 1 || next == last + 2, "{next} after {last}");
    let told = sandbox.fails(1, ["volume", "rm", "data"]);
    assert!(told.contains("often"), "{told}");
    sandbox.ok(["start", "often"]);
    sandbox.ok(["rm", "-f", "often"]);
    sandbox.ok(["volume", "rm", "data"]);
    sandbox.check_clean();
}

/// The number that a function which counts its requests answers with.
fn tally(port: u16) -> u64 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("somebody who listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    // The body comes in chunks: a length, a line of it, and the length 0.
    let digits = answer.split("\r\n\r\n").nth(1).and_then(|body| body.lines().nth(1)).unwrap_or_default();
    digits.parse().unwrap_or_else(|_| panic!("no number: {answer}"))
}

#[test]
fn requests_of_a_function_share_its_store() {
    let Some((sandbox, program)) = with(TALLY) else { return };
    for kv in ["default", "default=data"] {
        sandbox.ok(["run", "-d", "--name", "tally", "-p", "127.0.0.1::80", "--kv", kv, program]);
        let port = sandbox.details("tally")["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"].to_string();
        let port: u16 = port.trim_matches('"').parse().expect("a port");
        let clients: Vec<_> = (0..8).map(|_| thread::spawn(move || (0..10).map(|_| tally(port)).collect())).collect();
        let mut told: Vec<u64> =
            clients.into_iter().flat_map(|client| client.join().unwrap_or_else(|_| Vec::new())).collect();
        told.sort_unstable();
        assert_eq!(told, (1..=80).collect::<Vec<_>>(), "{kv}: each number once");
        sandbox.ok(["rm", "-f", "tally"]);
    }
    let told = sandbox.run(["run", "--rm", "-p", "127.0.0.1::80", program]);
    assert!(told.code == Some(126) && told.stderr.contains("(--kv default grants it)"), "{told}");
    sandbox.check_clean();
}

#[test]
fn a_store_has_bounds_and_a_file_that_is_none_is_left_alone() {
    let Some((sandbox, program)) = with(COUNTER) else { return };
    for kv in ["default:size=10", "default=data:size=10"] {
        let ended = sandbox.run(["run", "--rm", "--config", "a=b", "--kv", kv, program]);
        assert!(ended.code == Some(1) && ended.stdout.contains("the store is full"), "{kv}: {ended}");
    }
    assert_eq!(
        sandbox.run(["run", "--rm", "--config", "a=b", "--kv", "x", "--kv", "y", program]).stdout,
        "no such store\n"
    );
    // Whoever shares the volume may put there what he likes.
    let kept = sandbox.root().join("volumes/data/_data/default.kv");
    let run = ["run", "--rm", "--config", "a=b", "--kv", "default=data", program];
    std::fs::write(&kept, "something else").expect("a file");
    let told = sandbox.fails(126, run);
    assert!(told.contains("key-value store default"), "{told}");
    assert_eq!(std::fs::read_to_string(&kept).expect("a file"), "something else");
    let elsewhere = sandbox.file("elsewhere", "");
    std::fs::remove_file(&kept).expect("a file");
    std::os::unix::fs::symlink(&elsewhere, &kept).expect("a link");
    let told = sandbox.fails(125, run);
    assert!(told.contains("default.kv"), "{told}");
    assert_eq!(std::fs::read_to_string(&elsewhere).expect("a file"), "");
    std::fs::remove_file(&kept).expect("a link");
    nix::unistd::mkfifo(&kept, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let told = sandbox.fails(125, run);
    assert!(told.contains("it is no file"), "{told}");
}

#[test]
fn messages_of_wasi_logging_are_in_the_log() {
    let Some((sandbox, program)) = with(LOGGER) else { return };
    let ended = sandbox.run(["run", "--rm", program]);
    assert!(ended.code == Some(0) && ended.stderr == "WARN net: no route\n", "{ended}");
}

#[test]
fn linux_programs_are_told_that_they_have_none_of_it() {
    let Some((sandbox, [hello])) = Sandbox::with(["hello:linux"]) else { return };
    for flag in ["--allow-net=a", "--config=a=b", "--kv=default"] {
        let told = sandbox.fails(125, ["run", "--rm", flag, &hello]);
        assert!(told.contains("only Wasm programs"), "{flag}: {told}");
    }
}
