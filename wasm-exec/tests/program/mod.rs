//! Programs for the tests, written as text.

#![allow(dead_code, reason = "each test file is a crate of its own, and none uses all of this")]

use std::{net::TcpListener, path::Path, sync::Arc, time::Duration};
use wasm_exec::{
    CacheError, CodeCache, Compiled, Configuration, Engine, Network, Outcome, Preopen, Profile, Program, Report,
    RunError, Stores,
};

/// Any digest will do where each program has a cache of its own.
pub(crate) const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A program and all that it is given.
pub(crate) struct Command {
    pub(crate) code: Compiled,
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) preopens: Vec<Preopen>,
    pub(crate) cwd: Option<String>,
    pub(crate) network: Network,
    pub(crate) config: Configuration,
    pub(crate) stores: Stores,
    pub(crate) listeners: Vec<Arc<TcpListener>>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) fuel: Option<u64>,
    pub(crate) timeout: Option<Duration>,
}

/// Loads and runs it.
pub(crate) fn run(command: Command) -> Result<Report, RunError> {
    let engine = Engine::new(command.code.profile)?;
    run_with(&engine, command)
}

fn run_with(engine: &Engine, command: Command) -> Result<Report, RunError> {
    let Command { code, argv, env, preopens, cwd, network, config, stores, listeners, memory_bytes, fuel, timeout } =
        command;
    let command = wasm_exec::Command {
        argv,
        env,
        preopens,
        cwd,
        network,
        config,
        stores,
        output: None,
        listeners,
        memory_bytes,
        fuel,
        timeout,
    };
    wasm_exec::run(Program::load(engine, code)?, command)
}

/// What most programs are compiled for.
pub(crate) fn plain() -> Profile {
    Profile::default()
}

/// The same, counting instructions.
pub(crate) fn counting() -> Profile {
    Profile { fuel: true, ..plain() }
}

/// A cache in a folder that does not outlive the test.
pub(crate) fn cache_in(dir: &Path) -> CodeCache {
    CodeCache::new(dir.join("store/compiled"), dir.join("run/compiled"))
}

/// Compiles a program whose bytes are there.
pub(crate) fn compile(cache: &CodeCache, sha256: &str, wasm: &[u8], profile: Profile) -> Result<Compiled, CacheError> {
    cache.compile(sha256, profile, || Ok(wasm.to_vec()))
}

/// Assembles and compiles a module or component.
pub(crate) fn compiled(text: &str, fuel: bool) -> Compiled {
    let dir = tempfile::tempdir().unwrap();
    let wasm = wat::parse_str(text).unwrap();
    compile(&cache_in(dir.path()), DIGEST, &wasm, Profile { fuel, ..plain() }).unwrap()
}

/// A program that is granted nothing.
pub(crate) fn command(text: &str) -> Command {
    command_of(compiled(text, false))
}

/// A program that is granted nothing.
pub(crate) fn command_of(code: Compiled) -> Command {
    Command {
        code,
        argv: vec!["program".into()],
        env: Vec::new(),
        preopens: Vec::new(),
        cwd: None,
        network: Network::none(|_| ()),
        config: Configuration::default(),
        stores: Stores::default(),
        listeners: Vec::new(),
        memory_bytes: None,
        fuel: None,
        timeout: None,
    }
}

/// Runs a program that must start.
pub(crate) fn report(command: Command) -> Report {
    run(command).unwrap_or_else(|error| panic!("{error}"))
}

/// The same, of an engine that makes core dumps.
pub(crate) fn report_dumping(command: Command) -> Report {
    let engine = Engine::with_core_dumps(command.code.profile).unwrap();
    run_with(&engine, command).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a program that must start, and says how it ended.
pub(crate) fn outcome(command: Command) -> Outcome {
    report(command).outcome
}

/// The error of a program that must not start.
pub(crate) fn refusal(command: Command) -> RunError {
    match run(command) {
        Err(error) => error,
        Ok(report) => panic!("it ran: {report:?}"),
    }
}

/// A component whose `run` is the given core function's instructions: `i32.const 0` is success, 1 an error.
pub(crate) fn component(run: &str) -> String {
    format!(
        r#"(component
            (core module $program (memory 1) (table 10 funcref) (func $body (export "run") (result i32) {run}))
            (core instance $first (instantiate $program))
            (core instance $second (instantiate $program))
            (func $run (result (result)) (canon lift (core func $second "run")))
            (instance $cli (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $cli)))"#
    )
}
