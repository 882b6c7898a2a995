//! The compiled code of a program that runs.

use std::{
    fmt::Write,
    fs,
    io::ErrorKind,
    process::{Command, Stdio},
};

use crate::{
    sandbox::{Sandbox, fixture},
    session::{Session, until},
};

/// Of megabytes. User-mode Linux counts pages as dirty that were only touched.
const MOST_DIRTY_KIB: u64 = 512;

const MIB: u64 = 1 << 20;
/// Of the program's memory image, and of data that it never uses.
const IMAGE_BYTES: usize = 2 << 20;
const UNUSED_BYTES: usize = 48 << 20;

/// A mapping of compiled code as /proc/PID/smaps shows it.
#[derive(Debug)]
struct Mapping {
    permissions: String,
    private_dirty_kib: u64,
}

/// A program with much data that does not end.
fn endless(head: &str, tail: &str) -> String {
    let mut text = String::with_capacity(IMAGE_BYTES + UNUSED_BYTES + 1024);
    let (image, unused) = ("i".repeat(IMAGE_BYTES), "u".repeat(UNUSED_BYTES));
    write!(text, r#"{head} (memory (export "memory") 40) (data (i32.const 0) "{image}") (data "{unused}") {tail}"#)
        .expect("a string");
    text
}

fn module() -> String {
    endless("(module", r#"(func (export "_start") (loop $on (br $on))))"#)
}

fn component() -> String {
    let tail = r#"(func (export "run") (result i32) (loop $on (br $on)) unreachable))
        (core instance $program (instantiate $program))
        (func $run (result (result)) (canon lift (core func $program "run")))
        (instance $cli (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $cli)))"#;
    endless("(component (core module $program", tail)
}

/// The mappings of the process whose files lie in this folder; none if it cannot be looked at.
fn mappings(pid: &str, folder: &str) -> Option<Vec<Mapping>> {
    let text = match fs::read_to_string(format!("/proc/{pid}/smaps")) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return None,
        text => text.expect("the process"),
    };
    let mut mappings = Vec::new();
    let mut is_ours = false;
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            [addresses, permissions, ..] if addresses.contains('-') => {
                is_ours = line.contains(folder);
                if is_ours {
                    mappings.push(Mapping { permissions: (*permissions).to_owned(), private_dirty_kib: 0 });
                }
            }
            ["Private_Dirty:", kib, "kB"] if is_ours => {
                mappings.last_mut().expect("a mapping").private_dirty_kib = kib.parse().expect("a number");
            }
            _ => {}
        }
    }
    Some(mappings)
}

fn anonymous_bytes(pid: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
}

/// Pages of a program cost when they are used. With a limit to its memory, too, which its code does not count against.
#[test]
fn code_and_memory_image_are_mapped_and_not_read() {
    let Some(sandbox) = Sandbox::new() else { return };
    for (kind, text) in [("module", module()), ("component", component())] {
        let text = sandbox.file("endless.wat", text);
        sandbox.ok(["import", &text, "local/endless"]);
        sandbox.ok(["run", "-d", "--name", kind, "-m", "6m", "local/endless"]);
        let pid = sandbox.inspect(kind, ".State.Pid");
        let folder = sandbox.root().join("compiled");
        let folder = folder.to_str().expect("UTF-8");
        if mappings(&pid, folder).is_none() {
            println!("skipped: the mappings of process {pid} cannot be looked at");
            return;
        }
        // The image is mapped as the program is instantiated.
        let mappings = until("a memory image", || {
            let mappings = mappings(&pid, folder)?;
            mappings.iter().any(|mapping| mapping.permissions == "rw-p").then_some(mappings)
        });
        assert!(mappings.iter().any(|mapping| mapping.permissions == "r-xp"), "{kind}: {mappings:?}");
        assert!(mappings.iter().all(|mapping| mapping.private_dirty_kib <= MOST_DIRTY_KIB), "{kind}: {mappings:?}");
        let anonymous = anonymous_bytes(&pid);
        assert!(anonymous < 8 * MIB, "{kind}: {anonymous} bytes are its own");
        sandbox.ok(["rm", "-f", kind]);
    }
}

/// Machine code in the store is run only if the store wrote it: a file in the right place, of the right form and owner is not enough.
#[test]
fn code_that_was_tampered_with_is_noticed_and_compiled_again() {
    let Some((sandbox, [hello])) = Sandbox::with(["hello:wasm"]) else { return };
    let said = sandbox.ok(["run", "--rm", &hello]);
    let [code] = sandbox.stored("compiled").try_into().expect("one file");
    let code = sandbox.root().join("compiled").join(code);
    let whole = fs::read(&code).expect("the code");
    let noted = sandbox.runroot().join("checked");
    let tampered = |what: &str, told: bool| {
        let ended = sandbox.run(["run", "--rm", &hello]);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), said.as_str()), "{what}: {ended}");
        assert_eq!(ended.stderr.contains("is not used, and compiled again"), told, "{what}: {ended}");
    };
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(&code, flipped).expect("a bit less");
    tampered("a bit", true);
    tampered("nothing", false);
    fs::write(&code, &whole[..whole.len() / 2]).expect("half of it");
    tampered("its end", true);
    // As after a start of the machine.
    fs::remove_dir_all(&noted).expect("what was noted");
    tampered("nothing", false);
    assert_eq!(fs::read_dir(&noted).expect("what was noted").count(), 1);
    fs::remove_file(sandbox.root().join("compiled.key")).expect("a key");
    fs::remove_dir_all(&noted).expect("what was noted");
    tampered("its key", true);
    sandbox.ok(["rmi", &hello]);
    sandbox.check_clean();
}

#[test]
fn many_first_runs_at_once_compile_once() {
    let Some((sandbox, [hello])) = Sandbox::with(["hello:component"]) else { return };
    let said = sandbox.ok(["run", "--rm", &hello]);
    fs::remove_dir_all(sandbox.root().join("compiled")).expect("the code");
    let sessions: Vec<_> = (0..20).map(|_| sandbox.start(["run", "--rm", &hello])).collect();
    for session in sessions {
        let ended = session.wait();
        assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), said.as_str(), ""));
    }
    assert_eq!(sandbox.stored("compiled").len(), 1);
}

/// A large program, imported, of which no code is there any more.
fn large(sandbox: &Sandbox) -> &'static str {
    large_with(sandbox, "").0
}

/// The same with functions; and how long the optimised code was.
fn large_with(sandbox: &Sandbox, functions: &str) -> (&'static str, u64) {
    let data = "d".repeat(2 << 20);
    let text = format!(r#"(module (memory 40) (data "{data}") {functions} (func (export "_start")))"#);
    let text = sandbox.file("large.wat", text);
    sandbox.ok(["import", &text, "local/large"]);
    let folder = sandbox.root().join("compiled");
    let lengths = sandbox.stored("compiled").into_iter().map(|code| folder.join(code).metadata().expect("code").len());
    let bytes = lengths.max().expect("code of it");
    fs::remove_dir_all(folder).expect("the code");
    ("local/large", bytes)
}

fn is_baseline(name: &str) -> bool {
    name.contains("-baseline.cwasm")
}

#[test]
fn the_first_run_of_something_large_waits_for_no_optimised_code() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = large(&sandbox);
    for flags in [&["run", "--rm", "-m", "8m"][..], &["run", "--rm", "--fuel", "1000000"]] {
        let run = || sandbox.run(flags.iter().copied().chain([image]));
        let first = run();
        assert_eq!(first.code, Some(0), "{first}");
        assert!(first.stderr.contains("quickly; its next runs have better"), "{first}");
        // Who comes meanwhile runs what is there, and starts nothing.
        let second = run();
        assert_eq!((second.code, second.stderr.as_str()), (Some(0), ""));
        let stored = || sandbox.stored("compiled");
        until("optimised code", || {
            stored().iter().all(|name| name.ends_with(".cwasm") && !is_baseline(name)).then_some(())
        });
        let third = run();
        assert_eq!((third.code, third.stderr.as_str()), (Some(0), ""));
    }
    assert_eq!(sandbox.stored("compiled").len(), 2);
    sandbox.check_clean();
}

#[test]
fn what_is_made_on_the_side_is_not_made_for_an_image_that_is_gone() {
    let Some(sandbox) = Sandbox::new() else { return };
    let image = large(&sandbox);
    sandbox.ok(["run", "--rm", image]);
    sandbox.ok(["rmi", image]);
    until("nothing that is compiled", || {
        let left = sandbox.stored("compiled");
        // What is still there nobody uses, and `prune` removes it.
        sandbox.ok(["system", "prune", "-f"]);
        left.is_empty().then_some(())
    });
    sandbox.check_clean();
}

/// What serves requests runs for long, so it waits.
#[test]
fn a_function_has_optimised_code_from_its_first_request_on() {
    let Some(sandbox) = Sandbox::new() else { return };
    let Some(function) = fixture("functions/handler.wasm") else { return };
    // A section that nobody reads makes it large: its id, its length and a name without letters.
    let mut program = fs::read(function).expect("a program");
    program.extend([0, 0x81, 0x80, 0x80, 0x01, 0]);
    program.extend(vec![0; 2 << 20]);
    let program = sandbox.file("large.wasm", program);
    sandbox.ok(["import", &program, "local/function"]);
    fs::remove_dir_all(sandbox.root().join("compiled")).expect("the code");
    sandbox.ok(["run", "-d", "--name", "web", "-p", "127.0.0.1::80", "local/function"]);
    let stored = sandbox.stored("compiled");
    assert!(
        stored.iter().any(|name| name.ends_with(".cwasm")) && !stored.iter().any(|name| is_baseline(name)),
        "{stored:?}"
    );
    sandbox.ok(["rm", "-f", "web"]);
}

/// Who waits for the end of a pipe, or for a lock, that he opened before, waits for no container and no compiler.
#[test]
fn what_is_left_behind_holds_no_file_of_its_caller() {
    let Some((sandbox, [sleep])) = Sandbox::with(["sleep:wasm"]) else { return };
    let image = large(&sandbox);
    for arguments in [&["run", "-d", "--name", "web", &sleep, "1000"][..], &["run", "--rm", image]] {
        let command = sandbox.command(arguments);
        let mut shell = Command::new("sh");
        // What is read here is its ninth file.
        shell.args(["-c", r#"exec 9>&1 >/dev/null 2>&1; exec "$@""#, "sh"]).stdin(Stdio::null());
        shell.arg(command.get_program()).args(command.get_args()).env("AMPHORA_NETWORK", "none");
        let ended = Session::start(shell).wait();
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended}");
    }
    assert_eq!(sandbox.inspect("web", ".State.Running"), "true");
    sandbox.ok(["rm", "-f", "web"]);
    until("optimised code", || {
        sandbox.stored("compiled").iter().all(|name| name.ends_with(".cwasm") && !is_baseline(name)).then_some(())
    });
}

/// Code that is not optimised is longer.
#[test]
fn where_only_optimised_code_has_room_it_is_made_at_once() {
    let Some(sandbox) = Sandbox::new() else { return };
    let values: String =
        (1..60).map(|n| format!("(local.set {n} (i32.mul (local.get {}) (i32.const {n})))", n - 1)).collect();
    let sum: String = (1..60).map(|n| format!("local.get {n} i32.xor ")).collect();
    let locals = "(local i32)".repeat(60);
    let function = format!("(func (param i32) (result i32) {locals} {values} i32.const 0 {sum})");
    let (image, bytes) = large_with(&sandbox, &function.repeat(100));
    let command = sandbox.command(["run", "--rm", image]);
    let mut shell = Command::new("sh");
    // A limit of the size of each file stands for a disk with no more room; in halves of a kibibyte.
    let blocks = (bytes / 512 + 16).to_string();
    shell.args(["-c", r#"ulimit -f "$0"; trap '' XFSZ; exec "$@""#, &blocks]).stdin(Stdio::null());
    shell.arg(command.get_program()).args(command.get_args()).env("AMPHORA_NETWORK", "none");
    let ended = Session::start(shell).wait();
    assert_eq!(ended.code, Some(0), "{ended}");
    assert!(ended.stderr.contains("quickly") && ended.stderr.contains("once"), "{ended}");
    let [code] = sandbox.stored("compiled").try_into().expect("one file");
    assert!(!is_baseline(&code), "{code}");
    sandbox.check_clean();
}
