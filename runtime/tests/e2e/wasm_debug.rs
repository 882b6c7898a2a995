//! What an operator sees of Wasm programs: traps, core dumps and counts.

use std::{fs, path::PathBuf};

use serde_json::Value;

use crate::{
    functions::{get, is, port},
    sandbox::Sandbox,
    session::until,
};

const TRAPS: &str = r#"(module $crasher (memory 1)
    (func $inner (i32.store (i32.const 64) (i32.const 0x6b63756c)) unreachable)
    (func (export "_start") call $inner))"#;

fn dumps(folder: &str) -> Vec<PathBuf> {
    fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path()).collect()
}

fn is_dump(path: &PathBuf) -> bool {
    fs::read(path).expect("a dump").starts_with(b"\0asm\x01\0\0\0")
}

#[test]
fn a_trap_leaves_a_core_dump_and_is_remembered() {
    let Some(sandbox) = Sandbox::new() else { return };
    let program = sandbox.file("crasher.wat", TRAPS);
    sandbox.ok(["import", &program, "local/crasher:latest"]);
    let folder = sandbox.work().join("dumps");
    fs::create_dir(&folder).expect("a folder");
    let folder = folder.to_str().expect("a path");
    // A file system without unnamed files says so.
    let ended = sandbox.run(["run", "--name", "one", "-m", "16m", "--coredump", folder, "local/crasher:latest"]);
    if ended.stderr.contains("O_TMPFILE") {
        println!("skipped: {}", ended.stderr);
        return;
    }
    assert_eq!(ended.code, Some(134), "{ended}");
    let [dump] = dumps(folder).try_into().expect("one dump");
    assert!(is_dump(&dump) && ended.stderr.contains(dump.to_str().expect("a path")), "{ended}");
    assert!(dump.to_string_lossy().contains("/one-"));
    assert_eq!(sandbox.inspect("one", ".Wasm.Traps"), "1");
    assert!(sandbox.inspect("one", ".Wasm.LastTrap").contains("crasher!inner"));
    let told = sandbox.ok(["debug", "one"]);
    for part in ["does not run", "Imports:", "Grants:", "unreachable", "crasher!inner", "core dump: ", "at most 16MiB"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    // Each run is remembered for itself, and one that is removed leaves its dump alone.
    sandbox.run(["start", "-a", "one"]);
    assert_eq!(dumps(folder).len(), 2);
    assert_eq!(sandbox.inspect("one", ".Wasm.Traps"), "1");
    sandbox.run(["run", "--rm", "--coredump", folder, "local/crasher:latest"]);
    assert_eq!(dumps(folder).len(), 3);
    // What ends by itself leaves none, and a program that ended later does not inherit an older trap.
    let ended = sandbox.fails(125, ["run", "--rm", "--coredump", &format!("{folder}/none"), "local/crasher:latest"]);
    assert!(ended.contains("--coredump") && ended.contains("none"), "{ended}");
}

#[test]
fn a_function_tells_what_it_comes_to_while_it_runs() {
    let Some((sandbox, [function])) = Sandbox::with(["function:latest"]) else { return };
    let folder = sandbox.work().join("dumps");
    fs::create_dir(&folder).expect("a folder");
    let folder = folder.to_str().expect("a path");
    let flags = ["run", "-d", "--name", "web", "--reuse", "3", "--fuel", "10000000", "-p", "127.0.0.1::80"];
    sandbox.ok(flags.into_iter().chain(["--coredump", folder, function.as_str()]));
    let at = port(&sandbox, "web");
    for _ in 0..5 {
        is(&get(at, "/"), 200);
    }
    let answer = get(at, "/trap");
    is(&answer, 500);
    let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).expect("an id").to_owned();
    let template = "{{.Requests}} {{.Traps}} {{.GuestMemory}} {{.GuestPeak}} {{.Fuel}}";
    let row = until("it tells of all requests", || {
        let row = sandbox.ok(["stats", "--no-stream", "--format", template, "web"]);
        row.starts_with("6 1 ").then_some(row)
    });
    let fields: Vec<&str> = row.split_whitespace().collect();
    assert!(fields[3] == "256KiB" && fields[4].parse::<u64>().is_ok_and(|fuel| fuel > 100), "{row}");
    let told = sandbox.ok(["debug", "web"]);
    for part in
        ["function that answers HTTP requests", "wasi:http/types@0.2", "6, 1 failed, 1 trapped", &id, "Memory map:"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    let refused = sandbox.fails(1, ["exec", "web", "sh"]);
    assert!(refused.contains("amphora debug web"), "{refused}");
    sandbox.ok(["stop", "web"]);
    let [dump] = dumps(folder).try_into().expect("one dump");
    assert!(is_dump(&dump) && dump.to_string_lossy().contains(&id));
    let details = &sandbox.details("web")["Wasm"];
    assert_eq!((&details["Requests"], &details["Traps"]), (&Value::from(6), &Value::from(1)));
    assert!(details["CodeBytes"].as_u64().is_some_and(|bytes| bytes > 4096) && details["Sockets"][0] == "80/tcp");
    assert_eq!(details["CoreDumps"][0], dump.to_str().expect("a path"));
    sandbox.ok(["rm", "web"]);
    let refused = sandbox.fails(125, ["run", "--rm", "--reuse", "3", &function]);
    assert!(refused.contains("--reuse") && refused.contains("-p"), "{refused}");
    sandbox.check_clean();
}

/// The report of its end waits in a pipe; one with names that are six times as long as JSON filled it, and the container never ended.
#[test]
fn a_trap_that_is_told_at_length_ends_its_container_all_the_same() {
    let Some(sandbox) = Sandbox::new() else { return };
    let name = |number: usize| format!("{number}{}", r"\1b".repeat(6000));
    let functions: String = (0..18)
        .map(|number| match number {
            17 => format!("(func $\"{}\" unreachable)", name(number)),
            _ => format!("(func $\"{}\" call $\"{}\")", name(number), name(number + 1)),
        })
        .collect();
    let text = format!("(module {functions} (export \"_start\" (func $\"{}\")))", name(0));
    let program = sandbox.file("long.wat", text);
    sandbox.ok(["import", &program, "local/long:latest"]);
    let ended = sandbox.run(["run", "--name", "long", "local/long:latest"]);
    assert_eq!(ended.code, Some(134), "{:.300}", ended.stderr);
    let trap = sandbox.details("long")["Wasm"]["LastTrap"].as_str().map(str::len);
    assert!(trap.is_some_and(|length| (1000..=8192).contains(&length)), "{trap:?}");
    // Nothing of it is obeyed by a terminal.
    assert!(!sandbox.ok(["debug", "long"]).contains('\u{1b}'));
}
