//! A Wasm program as a container's first process: what it is granted, and how it tells of its end.

use std::{
    any::Any,
    collections::HashSet,
    fs::File,
    io::Write,
    net::TcpListener,
    os::fd::{AsRawFd, OwnedFd},
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use linux_exec::plan::{Call, Entry};
use nix::{fcntl::OFlag, unistd::pipe2};
use wasm_exec::{Command, Compiled, Engine, Outcome, Preopen, Program, RunError};

use super::{core_dumps::Empty, grants, network, stores};
use crate::{
    kinds::report::{Report, beginning_of},
    network::Attached,
    records::host::Host,
    spec::{RunSpec, exit_code},
};

/// The least that a pipe has room for.
const PIPE_BYTES: usize = 4096;

/// The first process and the end of the pipe on which it reports.
pub(super) struct WasmProcess {
    pub(super) entry: Entry,
    pub(super) report: OwnedFd,
}

/// The process, with exactly what was granted.
pub(super) fn entry(
    spec: &RunSpec,
    code: Compiled,
    mut command: Command,
    sockets: Vec<TcpListener>,
    dumps: Option<Empty>,
) -> Result<WasmProcess> {
    let (report, report_writer) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
    if !sockets.is_empty() {
        announce(&sockets, spec, &mut command.env);
    }
    command.listeners = sockets.into_iter().map(Arc::new).collect();
    let call = spec.wasm.invoke.clone();
    let prepare = Box::new(move || prepare(code, command, call.as_deref(), dumps, report_writer));
    Ok(WasmProcess { entry: Entry::Call { prepare }, report })
}

/// Tells a program of the sockets that it is given, in systemd's words: how many, and as their names the container's ports.
fn announce(sockets: &[TcpListener], spec: &RunSpec, env: &mut Vec<(String, String)>) {
    let mut ports: Vec<String> = spec.ports.iter().map(|port| port.container_port.to_string()).collect();
    if ports.len() != sockets.len() {
        // On a network there is one for each of the container's ports.
        let mut seen = HashSet::new();
        ports.retain(|port| seen.insert(port.clone()));
    }
    for (name, value) in [("LISTEN_FDS", sockets.len().to_string()), ("LISTEN_FDNAMES", ports.join(":"))] {
        if !env.iter().any(|(taken, _)| taken == name) {
            env.push((name.to_owned(), value));
        }
    }
}

/// What the program is granted, but for sockets that it is given.
pub(super) fn command(host: &Host, spec: &RunSpec, whole_root: bool, attached: Option<&Attached>) -> Result<Command> {
    Ok(Command {
        preopens: preopens(spec, whole_root),
        network: network::granted(spec, attached, |what| say(&network::denied(what)))?,
        stores: stores::granted(host, spec)?,
        ..own(spec)
    })
}

/// Of it what opens nothing.
pub(super) fn own(spec: &RunSpec) -> Command {
    Command {
        env: spec.env.iter().filter_map(|v| v.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
        cwd: Some(spec.cwd.clone()),
        config: spec.wasm.config.clone().into_iter().collect(),
        memory_bytes: spec.limits.memory_bytes,
        fuel: spec.limits.fuel,
        timeout: spec.limits.timeout_ms.map(Duration::from_millis),
        ..Command::new(spec.argv.clone())
    }
}

/// In the container's own process, on the host's files: loads the program, which is mapped only where its file can be
/// named and before there is a limit to what may be mapped. What is wrong with it is told in its turn, by the call.
fn prepare(code: Compiled, command: Command, call: Option<&str>, dumps: Option<Empty>, report: OwnedFd) -> Call {
    // Of a thread, say, that a limit withholds the engine's libraries know nothing better than a panic. It is told as what it
    // is, once, by the call; for the message that the standard library would print nobody asked.
    panic::set_hook(Box::new(|_| {}));
    let load = || {
        let new = if dumps.is_some() { Engine::with_core_dumps } else { Engine::new };
        let engine = new(code.profile)?;
        match call {
            Some(call) => Program::load_call(&engine, code, call),
            None => Program::load(&engine, code),
        }
    };
    let program = panic::catch_unwind(AssertUnwindSafe(load));
    let descriptor = program.as_ref().ok().and_then(|loaded| loaded.as_ref().ok()).and_then(Program::descriptor);
    let (stores, dumped_to) = (command.stores.descriptors(), dumps.iter().flat_map(Empty::descriptors));
    let sockets = command.listeners.iter().map(AsRawFd::as_raw_fd);
    let others = stores.chain(dumped_to).chain(sockets);
    let keep = descriptor.into_iter().chain([report.as_raw_fd()]).chain(others).collect();
    Call { function: Box::new(move || run(program, command, dumps.as_ref(), report)), keep }
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
fn run(
    program: thread::Result<Result<Program, RunError>>,
    command: Command,
    dumps: Option<&Empty>,
    pipe: OwnedFd,
) -> u8 {
    let run = |program| panic::catch_unwind(AssertUnwindSafe(|| wasm_exec::run(program?, command)));
    tell(program.and_then(run).map(|ended| ended.map(|report| conclude(&report, dumps))), pipe)
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
    // The supervisor may be gone; then nobody wants to know.
    let _ = send(report, pipe);
    code
}

/// Nobody reads the pipe before the process has ended. What is told at length is left out where it has less room than is usual, as
/// for users of very many pipes; a page it has always.
fn send(mut report: Report, pipe: OwnedFd) -> Result<()> {
    let mut bytes = serde_json::to_vec(&report)?;
    if bytes.len() > PIPE_BYTES && bytes.len() > rustix::pipe::fcntl_getpipe_size(&pipe)? {
        report.trap = None;
        report.error = report.error.map(|error| error[..error.floor_char_boundary(PIPE_BYTES / 8)].to_owned());
        bytes = serde_json::to_vec(&report)?;
    }
    Ok(File::from(pipe).write_all(&bytes)?)
}

/// Why it does not start.
fn refusal(error: &RunError) -> String {
    match error {
        RunError::Start { detail } if detail.contains("os error 12") => format!(
            "{error}; a memory takes more than 4 GiB of addresses: leave out --ulimit as and --ulimit data, or raise them \
             (-m limits what the program uses of it)"
        ),
        RunError::Start { detail } if detail.contains("shared memory support") => {
            "this program cannot be started: it has a memory that threads share, and nothing here starts threads of WASI p1; build it \
             without them"
                .to_owned()
        }
        RunError::Thread { .. } => {
            format!("{error}; raise the limit of processes, which counts threads (--pids-limit)")
        }
        other => grants::refusal(other).to_string(),
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

fn conclude(run: &wasm_exec::Report, dumps: Option<&Empty>) -> (u8, Report) {
    let mut report = Report {
        fuel_used: run.fuel_used,
        peak_memory_bytes: run.peak_memory_bytes,
        memory_refused: run.memory_refused,
        timed_out: matches!(run.outcome, Outcome::TimedOut { .. }),
        out_of_fuel: run.outcome == Outcome::OutOfFuel,
        out_of_memory: matches!(run.outcome, Outcome::OutOfMemory { .. }),
        ..Report::default()
    };
    if let Some(trap) = told(&run.outcome) {
        say(&trap);
        report.trap = Some(beginning_of(&trap));
    }
    if let (Some(dumps), Some(dump)) = (dumps, &run.core_dump) {
        if let Some(error) = dumps.fill(None, dump) {
            say(&format!("the core dump cannot be written: {error}"));
        }
        report.filled = dumps.filled();
    }
    (exit_code::of_outcome(&run.outcome), report)
}

/// What is told of a program that did not end by itself.
fn told(outcome: &Outcome) -> Option<String> {
    Some(match outcome {
        Outcome::Exited(_) => return None,
        Outcome::Trapped { trap, backtrace } => format!("{trap}\n{backtrace}"),
        Outcome::TimedOut { backtrace } => format!("the time limit (--timeout) was reached\n{backtrace}"),
        Outcome::OutOfFuel => "wasm trap: all fuel (--fuel) consumed".to_owned(),
        Outcome::OutOfMemory { limit_bytes, wanted_bytes, trap, backtrace } => {
            let want =
                format!("out of memory: the program asked for {wanted_bytes} bytes, its limit (-m) is {limit_bytes}");
            if trap.is_empty() { want } else { format!("{want}\n{trap}\n{backtrace}") }
        }
    })
}

/// To the program's own standard error, so that it is in its log.
pub(super) fn say(message: &str) {
    let _ = std::io::stderr().write_all(format!("amphora: {}\n", message.trim_end()).as_bytes());
}
