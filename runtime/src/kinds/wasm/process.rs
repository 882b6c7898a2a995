//! A Wasm program as a container's first process: what it is granted, and how it tells of its end.

use std::{
    any::Any,
    fs::File,
    io::Write,
    os::fd::{AsRawFd, OwnedFd},
    panic::{self, AssertUnwindSafe},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use linux_exec::plan::{Call, Entry};
use nix::{fcntl::OFlag, unistd::pipe2};
use wasm_exec::{Command, Compiled, Engine, Outcome, Preopen, Program, RunError};

use super::{grants, network, stores};
use crate::{
    kinds::report::Report,
    records::host::Host,
    spec::{RunSpec, exit_code},
};

/// The first process and the end of the pipe on which it reports.
pub(super) struct WasmProcess {
    pub(super) entry: Entry,
    pub(super) report: OwnedFd,
}

/// The process, with exactly what was granted.
pub(super) fn entry(spec: &RunSpec, code: Compiled, command: Command) -> Result<WasmProcess> {
    let (report, report_writer) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
    let call = spec.wasm.invoke.clone();
    let prepare = Box::new(move || prepare(code, command, call.as_deref(), report_writer));
    Ok(WasmProcess { entry: Entry::Call { prepare }, report })
}

/// What the program is granted.
pub(super) fn command(host: &Host, spec: &RunSpec, whole_root: bool) -> Result<Command> {
    Ok(Command {
        argv: spec.argv.clone(),
        env: spec.env.iter().filter_map(|v| v.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
        preopens: preopens(spec, whole_root),
        cwd: Some(spec.cwd.clone()),
        network: network::granted(spec)?,
        config: spec.wasm.config.clone().into_iter().collect(),
        stores: stores::granted(host, spec)?,
        memory_bytes: spec.limits.memory_bytes,
        fuel: spec.limits.fuel,
        timeout: spec.limits.timeout_ms.map(Duration::from_millis),
    })
}

/// In the container's own process, on the host's files: loads the program, which is mapped only where its file can be
/// named and before there is a limit to what may be mapped. What is wrong with it is told in its turn, by the call.
fn prepare(code: Compiled, command: Command, call: Option<&str>, report: OwnedFd) -> Call {
    // Of a thread, say, that a limit withholds the engine's libraries know nothing better than a panic. It is told as what it
    // is, once, by the call; for the message that the standard library would print nobody asked.
    panic::set_hook(Box::new(|_| {}));
    let load = || {
        let engine = Engine::new(code.profile)?;
        match call {
            Some(call) => Program::load_call(&engine, code, call),
            None => Program::load(&engine, code),
        }
    };
    let program = panic::catch_unwind(AssertUnwindSafe(load));
    let descriptor = program.as_ref().ok().and_then(|loaded| loaded.as_ref().ok()).and_then(Program::descriptor);
    let keep = descriptor.into_iter().chain([report.as_raw_fd()]).chain(command.stores.descriptors()).collect();
    Call { function: Box::new(move || run(program, command, report)), keep }
}

/// Where what the program calls `target` lies in its process's root: there the root itself can hold nothing but what is
/// mounted in it.
pub(super) fn place(target: &Path) -> &Path {
    if target == Path::new("/") { Path::new("/.root") } else { target }
}

/// Only what the user mounted; the root itself only when the program came in a root file system.
fn preopens(spec: &RunSpec, whole_root: bool) -> Vec<Preopen> {
    let root = whole_root.then(|| Preopen { host: "/".into(), guest: "/".into(), writable: !spec.read_only });
    let mounted = spec.mounts.iter().map(|mount| Preopen {
        host: place(&mount.target).into(),
        guest: mount.target.to_string_lossy().into_owned(),
        writable: !mount.readonly,
    });
    root.into_iter().chain(mounted).collect()
}

/// Runs in the container's own process; the last thing that it does is to report.
fn run(program: thread::Result<Result<Program, RunError>>, command: Command, pipe: OwnedFd) -> u8 {
    let run = |program| panic::catch_unwind(AssertUnwindSafe(|| wasm_exec::run(program?, command)));
    tell(program.and_then(run).map(|ended| ended.map(|report| conclude(&report))), pipe)
}

/// Tells how it ended, or why it could not begin, in the log and to the supervisor. The exit code.
pub(super) fn tell(ended: thread::Result<Result<(u8, Report), RunError>>, pipe: OwnedFd) -> u8 {
    let (code, report) = match ended {
        Ok(Ok(ended)) => ended,
        Ok(Err(error)) => (exit_code::NOT_EXECUTABLE, Report { error: Some(refusal(&error)), ..Report::default() }),
        Err(panic) => (exit_code::OURS, Report { error: Some(engine_failure(panic.as_ref())), ..Report::default() }),
    };
    if let Some(error) = &report.error {
        say(error);
    }
    if let Ok(bytes) = serde_json::to_vec(&report) {
        // The supervisor may be gone; then nobody wants to know.
        let _ = File::from(pipe).write_all(&bytes);
    }
    code
}

/// Why it does not start; of each import that is missing, what would grant it, or why nothing does.
fn refusal(error: &RunError) -> String {
    match error {
        RunError::Imports { missing } => {
            let missing: Vec<String> = missing.iter().map(|import| grants::missing(import)).collect();
            format!("this program imports what is not provided here: {}", missing.join(", "))
        }
        RunError::Start { detail } if detail.contains("os error 12") => format!(
            "{error}; a memory takes more than 4 GiB of addresses: leave out --ulimit as and --ulimit data, or raise them \
             (-m limits what the program uses of it)"
        ),
        RunError::Thread { .. } => {
            format!("{error}; raise the limit of processes, which counts threads (--pids-limit)")
        }
        other => other.to_string(),
    }
}

/// A sentence for what the engine's libraries could not go on without.
fn engine_failure(panic: &(dyn Any + Send)) -> String {
    let message = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    let message = message.unwrap_or("no reason is given");
    let hint = if message.contains("thread") {
        "; it needs threads to read standard input and to look up names: raise the limit of processes (--pids-limit)"
    } else {
        ""
    };
    format!("the Wasm engine cannot go on: {message}{hint}")
}

fn conclude(run: &wasm_exec::Report) -> (u8, Report) {
    let mut report = Report {
        fuel_used: run.fuel_used,
        peak_memory_bytes: run.peak_memory_bytes,
        memory_refused: run.memory_refused,
        ..Report::default()
    };
    match &run.outcome {
        Outcome::Exited(_) => {}
        Outcome::Trapped { trap, backtrace } => say(&format!("{trap}\n{backtrace}")),
        Outcome::TimedOut { backtrace } => {
            say(&format!("the time limit (--timeout) was reached\n{backtrace}"));
            report.timed_out = true;
        }
        Outcome::OutOfFuel => {
            say("wasm trap: all fuel (--fuel) consumed");
            report.out_of_fuel = true;
        }
        Outcome::OutOfMemory { limit_bytes, wanted_bytes, trap, backtrace } => {
            say(&format!("out of memory: the program asked for {wanted_bytes} bytes, its limit (-m) is {limit_bytes}"));
            if !trap.is_empty() {
                say(&format!("{trap}\n{backtrace}"));
            }
            report.out_of_memory = true;
        }
    }
    (exit_code::of_outcome(&run.outcome), report)
}

/// To the program's own standard error, so that it is in its log.
pub(super) fn say(message: &str) {
    let _ = std::io::stderr().write_all(format!("amphora: {}\n", message.trim_end()).as_bytes());
}
