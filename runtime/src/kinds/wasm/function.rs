//! A function as a container's first process: it is served until the container is to stop.

use std::{
    fs::File,
    net::TcpListener,
    num::NonZeroU32,
    os::fd::{AsRawFd, OwnedFd},
    panic::{self, AssertUnwindSafe},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result};
use linux_exec::plan::{Call, Entry};
use nix::{
    fcntl::OFlag,
    sys::{
        resource::{Resource, getrlimit},
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::pipe2,
};
use wasm_exec::{
    Command, Compiled, RunError,
    http::{Bounds, Function, Served, Setting, Stop, serve},
};

use super::{
    core_dumps::Empty,
    process::{self, WasmProcess},
};
use crate::{
    kinds::report::{Report, beginning_of},
    records::container::{Container, EngineRecord},
    spec::{RunSpec, exit_code},
};

/// Memory that a server may use beyond what its functions may: buffers of connections, requests and answers, besides what any
/// Wasm process has.
pub(super) const ALLOWANCE_BYTES: u64 = 128 << 20;
/// Descriptors that are no connections, and those that a function may have open.
const OTHER_DESCRIPTORS: u64 = 128;
/// Descriptors that it gets, if the caller may have so many.
const DESCRIPTORS: u64 = 8192;
/// Threads beyond which a machine's processors are left to others.
const MOST_THREADS: u64 = 64;

/// What ends a server that has been asked once already.
const ENDING: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

/// What a process of its own gets by hand.
struct Serving {
    command: Command,
    sockets: Vec<TcpListener>,
    threads: usize,
    stop_signal: i32,
    reuse: u32,
    dumps: Option<Arc<Empty>>,
    /// Where it notes what it has come to.
    notes: File,
}

/// The process, with exactly what was granted.
pub(super) fn entry(
    container: &Container,
    code: Compiled,
    command: Command,
    sockets: Vec<TcpListener>,
    dumps: Option<Empty>,
) -> Result<WasmProcess> {
    let spec = &container.spec;
    let (report, report_writer) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
    let bounds = Bounds::default();
    let connections = descriptors(spec).0.saturating_sub(OTHER_DESCRIPTORS).clamp(1, u64::from(bounds.connections));
    let bounds = Bounds { connections: u32::try_from(connections).unwrap_or(bounds.connections), ..bounds };
    let serving = Serving {
        command,
        sockets,
        threads: threads(spec),
        stop_signal: spec.stop_signal,
        reuse: spec.wasm.reuse.map_or(1, NonZeroU32::get),
        dumps: dumps.map(Arc::new),
        notes: container.new_engine_file()?,
    };
    let prepare = Box::new(move || prepare(code, bounds, serving, report_writer));
    Ok(WasmProcess { entry: Entry::Call { prepare }, report })
}

/// As many as there are processors for it.
fn threads(spec: &RunSpec) -> usize {
    let available = thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let limited = spec.limits.cpu_millis.map_or(available, |millis| millis.div_ceil(1000));
    usize::try_from(available.min(limited).clamp(1, MOST_THREADS)).unwrap_or(1)
}

/// The limits of descriptors, soft and hard: what the user says, else more than is usual.
pub(super) fn descriptors(spec: &RunSpec) -> (u64, u64) {
    if let Some(ulimit) = spec.limits.ulimits.iter().find(|ulimit| ulimit.name == "nofile") {
        return (ulimit.soft, ulimit.hard);
    }
    // It cannot fail: the resource is one.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default();
    (soft.max(DESCRIPTORS.min(hard)), hard)
}

/// As for a command: loads it on the host's files.
fn prepare(code: Compiled, bounds: Bounds, serving: Serving, report: OwnedFd) -> Call {
    panic::set_hook(Box::new(|_| {}));
    let function = panic::catch_unwind(AssertUnwindSafe(|| Function::load(code, bounds, serving.dumps.is_some())));
    let descriptor = function.as_ref().ok().and_then(|loaded| loaded.as_ref().ok()).and_then(Function::descriptor);
    let sockets = serving.sockets.iter().map(AsRawFd::as_raw_fd);
    let stores = serving.command.stores.descriptors();
    let dumped_to = serving.dumps.iter().flat_map(|dumps| dumps.descriptors());
    let own = [report.as_raw_fd(), serving.notes.as_raw_fd()];
    let keep = descriptor.into_iter().chain(own).chain(sockets).chain(stores).chain(dumped_to).collect();
    let dumps = serving.dumps.clone();
    let run = move || {
        let served = function.and_then(|function| {
            panic::catch_unwind(AssertUnwindSafe(|| function.map(|function| run(function, serving))))
        });
        process::tell(
            served.map(|served| served.and_then(|served| served).map(|served| conclude(&served, dumps.as_deref()))),
            report,
        )
    };
    Call { function: Box::new(run), keep }
}

/// Serves until a signal says that it is enough.
fn run(function: Function, serving: Serving) -> Result<Served, RunError> {
    let Serving { command, sockets, threads, stop_signal, reuse, dumps, notes } = serving;
    let stop = Stop::new();
    let cannot = |error: std::io::Error| RunError::Thread { what: "waiting for signals", error };
    stop_at_signal(stop_signal, stop.clone()).map_err(cannot)?;
    let core_dump = dumps.map(|dumps| -> wasm_exec::http::CoreDumpSink {
        Box::new(move |request, dump| {
            if let Some(error) = dumps.fill(Some(request), dump) {
                process::say(&format!("request {request}: the core dump cannot be written: {error}"));
            }
            dumps.has_room()
        })
    });
    let counts_fuel = command.fuel.is_some();
    // Who cannot be told how things are goes on all the same.
    let note = Box::new(move |served: &Served| _ = record(served, counts_fuel).write_to(&notes));
    let serving = wasm_exec::http::Serving { log: Box::new(process::say), reuse, cpu_millis: None, core_dump };
    serve(function, command, Setting { listeners: sockets, threads, stop, serving, note })
}

/// What of it a container's record tells.
pub(crate) fn record(served: &Served, counts_fuel: bool) -> EngineRecord {
    EngineRecord {
        requests: served.requests,
        failed: served.failed,
        traps: served.traps,
        memory_bytes: served.memory_bytes,
        peak_memory_bytes: served.peak_memory_bytes,
        fuel_used: counts_fuel.then_some(served.fuel_used),
        last_trap: served.last_trap.as_deref().map(beginning_of),
        core_dumps: Vec::new(),
    }
}

/// The first signal lets requests in flight finish, a second one ends the process as it would any other. Before any other thread is
/// there, so that all of them leave signals to this one.
fn stop_at_signal(stop_signal: i32, stop: Stop) -> std::io::Result<()> {
    let stop_signal = Signal::try_from(stop_signal).ok();
    let signals: SigSet = ENDING.into_iter().chain(stop_signal).collect();
    signals.thread_block()?;
    let arrivals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        // It fails only if it is interrupted by what it waits for.
        while !matches!(arrivals.read_signal(), Ok(Some(_))) {}
        stop.request();
        let _ = signals.thread_unblock();
        loop {
            thread::park();
        }
    })?;
    Ok(())
}

fn conclude(served: &Served, dumps: Option<&Empty>) -> (u8, Report) {
    let report = Report {
        filled: dumps.map(Empty::filled).unwrap_or_default(),
        peak_memory_bytes: served.peak_memory_bytes,
        memory_refused: served.memory_refused,
        ..Report::default()
    };
    // That it was told to stop is how a server ends.
    (exit_code::SUCCESS, report)
}
