//! Running a program.

use crate::{
    Outcome, Preopen, Program, Report, exit,
    limits::MemorySum,
    preopens,
    stdio::Output,
    watch::{self, Watched},
};
use std::{io, mem::ManuallyDrop, path::PathBuf, time::Duration};
use tokio::runtime::{self, Runtime};
use wasmtime::{Engine, Store, WasmBacktrace};
use wasmtime_wasi::{WasiCtxBuilder, WasiCtxView, WasiView, p1::WasiP1Ctx};

/// Which sockets the program may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkGrant {
    /// None at all; name look-up neither.
    None,
    /// All that the process's network namespace has (WASI p2 sockets, name look-up).
    All,
}

/// All that a program is given. Stdio is this process's own.
#[derive(Debug)]
pub struct Command {
    /// Arguments, `argv[0]` first.
    pub argv: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Granted directories.
    pub preopens: Vec<Preopen>,
    /// Working directory as a guest path, where relative paths begin.
    ///
    /// Components are told it. Modules have no such thing: `PWD` is set, unless `env` has it, and the directory is
    /// granted once more under the name `.`, if it is inside a granted one and none of them is `/` or `.` already;
    /// relative paths of a C program then begin there.
    pub cwd: Option<String>,
    /// Sockets.
    pub network: NetworkGrant,
    /// The sum of all linear memories and tables, in bytes; a table element counts 8.
    pub memory_bytes: Option<u64>,
    /// Instructions, roughly; needs code compiled with fuel.
    pub fuel: Option<u64>,
    /// Wall-clock time from the call of [`run`]. Ends loops as well as waiting, whatever is waited for; a program that
    /// waits is left waiting on a thread of its own, and ends with the process.
    pub timeout: Option<Duration>,
}

/// Why a program could not be started.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The bytes are not a program.
    #[error("this is not a Wasm program: {detail}")]
    Program {
        /// What is wrong, and at which offset.
        detail: String,
    },
    /// Compiled code that does not load.
    #[error(
        "the compiled code cannot be loaded: {detail}; remove it from the store's `compiled` directory, and the program is compiled again"
    )]
    Code {
        /// wasmtime's words.
        detail: String,
    },
    /// A fuel limit for code that does not count.
    #[error("a fuel limit needs code that counts instructions, and this code was compiled without")]
    NotCounting,
    /// Nothing to call.
    #[error("this program cannot be started: it needs to export {expected}, and {exports}{hint}")]
    NoEntry {
        /// What a program is started by.
        expected: &'static str,
        /// What there is.
        exports: String,
        /// What it is instead.
        hint: &'static str,
    },
    /// Something that nothing provides.
    #[error("this program imports what is not provided here: {}", missing.join(", "))]
    Imports {
        /// Names, with what is wrong where it is not the name.
        missing: Vec<String>,
    },
    /// A granted directory that cannot be opened.
    #[error("cannot open the granted directory {host}: {detail}")]
    Directory {
        /// Where it was looked for.
        host: PathBuf,
        /// Why not.
        detail: String,
    },
    /// A working directory that is not there.
    #[error("cannot use {guest} as the working directory: {host}: {detail}")]
    WorkingDirectory {
        /// Its name for the program.
        guest: String,
        /// Where it was looked for.
        host: PathBuf,
        /// Why not.
        detail: String,
    },
    /// The engine could not be made.
    #[error("the Wasm engine cannot be set up: {detail}")]
    Engine {
        /// wasmtime's words.
        detail: String,
    },
    /// The program could not be instantiated, by no fault of its own that has a name.
    #[error("the program cannot be started: {detail}")]
    Start {
        /// wasmtime's words.
        detail: String,
    },
    /// A thread or the event loop could not be made.
    #[error("cannot start {what}: {error}")]
    Thread {
        /// Which.
        what: &'static str,
        /// Why not.
        error: io::Error,
    },
}

/// What a running program's host functions work on.
pub(crate) struct State {
    pub(crate) wasi: WasiP1Ctx,
    pub(crate) memory: MemorySum,
    /// Where an exit says that it was raised.
    pub(crate) nowhere: Option<WasmBacktrace>,
}

/// Runs the program in this process to its end.
///
/// Call it in a process of its own that ends right after: it takes the process's stdio, installs signal handlers for
/// traps, blocks in every call of the program's to its host, leaves the program's memory as it is, and may leave a thread
/// behind that waits for standard input or, after a time-out, for something else. Whatever ends the program is in the report; an error means that nothing of it ran.
pub fn run(program: Program, command: Command) -> Result<Report, RunError> {
    let program = ManuallyDrop::new(program);
    if command.fuel.is_some() && !program.fuel {
        return Err(RunError::NotCounting);
    }
    let memory = MemorySum::new(command.memory_bytes);
    let Some(limit) = command.timeout else { return execute(&program, &command, &memory, None) };

    let engine = ManuallyDrop::new(Engine::clone(&program.engine));
    let work = {
        let memory = memory.clone();
        move |watched| execute(&program, &command, &memory, Some(watched))
    };
    match watch::within(limit, &engine, work) {
        Ok(Some(ended)) => ended,
        Ok(None) => Ok(report(Outcome::timed_out_waiting(), &memory, None)),
        Err(error) => Err(RunError::Thread { what: "the program's thread", error }),
    }
}

/// Runs the program in this thread.
///
/// Nothing is dropped: the process ends now, and the kernel takes its memory back faster than it can be unmapped and freed
/// piece by piece.
fn execute(
    program: &Program,
    command: &Command,
    memory: &MemorySum,
    watched: Option<Watched>,
) -> Result<Report, RunError> {
    let fuel = program.fuel.then(|| command.fuel.unwrap_or(u64::MAX));
    let mut store = ManuallyDrop::new(store(&program.engine, command, memory.clone(), fuel)?);
    if let Some(watched) = watched {
        watched.attach(&mut store);
    }
    let runtime = event_loop(command.network).map_err(|error| RunError::Thread { what: "the event loop", error })?;
    let runtime = ManuallyDrop::new(runtime);

    let ended = runtime.block_on(program.start(&mut store));
    let outcome = match ended {
        Ok(()) => Outcome::Exited(0),
        Err(error) => {
            Outcome::of_error(&error, memory).ok_or_else(|| RunError::Start { detail: format!("{error:#}") })?
        }
    };
    let fuel_used = fuel.zip(store.get_fuel().ok()).map(|(given, left)| given.saturating_sub(left));
    Ok(report(outcome, memory, fuel_used))
}

fn report(outcome: Outcome, memory: &MemorySum, fuel_used: Option<u64>) -> Report {
    Report { outcome, fuel_used, peak_memory_bytes: memory.peak_bytes(), memory_refused: memory.refused().is_some() }
}

fn store(engine: &Engine, command: &Command, memory: MemorySum, fuel: Option<u64>) -> Result<Store<State>, RunError> {
    let mut store = Store::new(engine, State { wasi: wasi(command, memory.clone())?, memory, nowhere: None });
    exit::prepare(&mut store);
    store.limiter(|state| &mut state.memory);
    // The epoch moves once, when the time is over.
    store.set_epoch_deadline(1);
    if let Some(fuel) = fuel {
        store.set_fuel(fuel).map_err(RunError::engine)?;
    }
    Ok(store)
}

fn wasi(command: &Command, memory: MemorySum) -> Result<WasiP1Ctx, RunError> {
    let mut wasi = WasiCtxBuilder::new();
    wasi.inherit_stdin().stdout(Output::stdout(memory)).stderr(Output::Stderr);
    wasi.args(&command.argv).envs(&command.env);
    // Nobody else is served by this thread, and handing file operations to another costs far more than most of them.
    wasi.allow_blocking_current_thread(true);
    if let Some(cwd) = &command.cwd {
        wasi.initial_cwd(cwd);
        if !command.env.iter().any(|(name, _)| name == "PWD") {
            wasi.env("PWD", cwd);
        }
    }
    preopens::grant(&mut wasi, &command.preopens, command.cwd.as_deref())?;
    // Otherwise no socket can even be made.
    if command.network == NetworkGrant::All {
        wasi.inherit_network().allow_tcp(true).allow_udp(true).allow_ip_name_lookup(true);
    }
    Ok(wasi.build_p1())
}

fn event_loop(network: NetworkGrant) -> io::Result<Runtime> {
    let mut builder = runtime::Builder::new_current_thread();
    builder.enable_time();
    if network == NetworkGrant::All {
        builder.enable_io();
    }
    builder.build()
}

impl State {
    /// A state for linking and not for running.
    pub(crate) fn empty() -> Self {
        Self { wasi: WasiCtxBuilder::new().build_p1(), memory: MemorySum::new(None), nowhere: None }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

impl RunError {
    #[expect(clippy::needless_pass_by_value, reason = "the signature that map_err needs")]
    pub(crate) fn engine(error: wasmtime::Error) -> Self {
        Self::Engine { detail: format!("{error:#}") }
    }

    pub(crate) fn no_entry<'a>(expected: &'static str, exports: impl Iterator<Item = &'a str>) -> Self {
        let exports: Vec<_> = exports.collect();
        let hint = match exports.as_slice() {
            names if names.iter().any(|name| name.starts_with("wasi:http/")) => {
                "; it is a function that answers HTTP requests, not a command"
            }
            names if names.iter().any(|name| name.starts_with("wasi:cli/run@")) => {
                "; it is a command for another version of WASI"
            }
            _ => "",
        };
        Self::NoEntry { expected, exports: listed(&exports), hint }
    }
}

fn listed(names: &[&str]) -> String {
    const SHOWN: usize = 8;
    let more = match names.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    match names {
        [] => "it exports nothing".into(),
        _ => format!("it exports {}{more}", names[..names.len().min(SHOWN)].join(", ")),
    }
}
