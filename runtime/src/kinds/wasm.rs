//! A Wasm program as a container's first process: its compiled code, what it is granted, and how it tells of its end.

use std::{
    any::Any,
    collections::HashSet,
    fs::{self, File},
    io::{self, Write},
    os::fd::{AsRawFd, OwnedFd},
    panic::{self, AssertUnwindSafe},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use images::Image;
use linux_exec::plan::Entry;
use nix::{fcntl::OFlag, unistd::pipe2};
use wasm_exec::{CodeCache, Compiled, NetworkGrant, Outcome, Preopen};

use crate::{
    kinds::{Target, report::Report},
    output,
    records::host::Host,
    spec::{Network, RunSpec},
};

/// A program larger than this takes a moment to compile; then a word says what is being waited for.
const WORTH_A_WORD_BYTES: u64 = 1 << 20;

/// The first process and the end of the pipe on which it reports.
pub(crate) struct WasmProcess {
    pub(crate) entry: Entry,
    pub(crate) report: OwnedFd,
}

/// Refuses options that mean nothing to a Wasm program, rather than ignoring them.
pub(crate) fn check(spec: &RunSpec) -> Result<()> {
    const HOST_SIDE: [&str; 6] = ["core", "cpu", "fsize", "nofile", "data", "as"];
    match spec.limits.ulimits.iter().find(|u| !HOST_SIDE.contains(&u.name.as_str())) {
        Some(ulimit) => bail!(
            "--ulimit {}: a Wasm program has no such resource; those that its process has are {}",
            ulimit.name,
            HOST_SIDE.join(", ")
        ),
        None => Ok(()),
    }
}

/// The native code of an image's program: from the cache, else compiled now, outside the program's own cgroup and in a
/// process of its own, as the compiler's threads must be gone before this process is copied.
pub(crate) fn compiled(target: &Target, host: &Host, image: &Image, fuel: bool) -> Result<Compiled> {
    let cache = CodeCache::new(host.paths.compiled());
    let key = cache_key(target, image)?;
    if let Some(code) = cache.lookup(&key, fuel)? {
        return Ok(code);
    }
    if image.size_bytes > WORTH_A_WORD_BYTES {
        let name = image.reference.as_ref().map_or_else(|| key.clone(), |r| r.familiar());
        output::note(&format!("Compiling {name} to native code, once"));
    }
    let compiler = Command::new("/proc/self/exe")
        .arg(crate::COMPILE)
        .args([&host.paths.root, &host.paths.runroot])
        .args([image.digest.to_string(), fuel.to_string(), std::process::id().to_string()])
        .output()
        .context("cannot start the compiler")?;
    if !compiler.status.success() {
        let said = String::from_utf8_lossy(&compiler.stderr);
        bail!("{}", said.trim().trim_start_matches("amphora: "));
    }
    cache.lookup(&key, fuel)?.context("the compiled program vanished from the cache; try again")
}

/// What the compiler process does.
pub(crate) fn compile(host: &Host, image: &Image, fuel: bool) -> Result<()> {
    let target = Target::of(image)?;
    let bytes = target.wasm_bytes(host, image)?.context("a Linux program is not compiled")?;
    let cache = CodeCache::new(host.paths.compiled());
    cache.compile(&cache_key(&target, image)?, &bytes, fuel)?;
    Ok(())
}

/// Compiled code of no image that is here: one sentence each; removed when `remove`.
pub(crate) fn check_compiled(host: &Host, remove: bool) -> Result<Vec<String>> {
    let mut keys = HashSet::new();
    for image in host.store.list()? {
        // Of an image whose key cannot be told no code was ever compiled.
        if let Some(key) = Target::of(&image).ok().and_then(|target| cache_key(&target, &image).ok()) {
            keys.insert(key);
        }
    }
    let stale = CodeCache::new(host.paths.compiled()).stale(&|key| keys.contains(key))?;
    if remove {
        stale.iter().try_for_each(|path| match fs::remove_file(path) {
            // Another command may clean up at the same time.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        })?;
    }
    Ok(stale.iter().map(|path| format!("compiled code of no image: {}", path.display())).collect())
}

/// 64 hexadecimal digits: of the program itself, or of the image in whose file system it lies.
pub(crate) fn cache_key(target: &Target, image: &Image) -> Result<String> {
    let digest = match target {
        Target::WasmBlob { digest } => digest.clone(),
        Target::WasmFile { .. } | Target::Linux => image.digest.to_string(),
    };
    // Of sha512 the first half: as many digits as sha256 has.
    let hex = digest.split_once(':').and_then(|(_, hex)| hex.get(..64));
    Ok(hex.with_context(|| format!("{digest} is no digest of sha256 or sha512"))?.to_owned())
}

/// The process, with exactly what was granted.
pub(crate) fn entry(spec: &RunSpec, code: Compiled, whole_root: bool) -> Result<WasmProcess> {
    let (report, report_writer) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
    let keep = vec![code.as_raw_fd(), report_writer.as_raw_fd()];
    let command = wasm_exec::Command {
        code,
        argv: spec.argv.clone(),
        env: spec.env.iter().filter_map(|v| v.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
        preopens: preopens(spec, whole_root),
        cwd: Some(spec.cwd.clone()),
        network: match spec.network {
            Network::None => NetworkGrant::None,
            Network::Host => NetworkGrant::All,
        },
        memory_bytes: spec.limits.memory_bytes,
        fuel: spec.limits.fuel,
        timeout: spec.limits.timeout_ms.map(Duration::from_millis),
    };
    let function = Box::new(move || run(command, report_writer));
    Ok(WasmProcess { entry: Entry::Call { function, keep }, report })
}

/// Only what the user mounted; the root itself only when the program came in a root file system.
fn preopens(spec: &RunSpec, whole_root: bool) -> Vec<Preopen> {
    let root = whole_root.then(|| Preopen { host: "/".into(), guest: "/".into(), writable: !spec.read_only });
    let mounted = spec.mounts.iter().map(|mount| Preopen {
        host: mount.target.clone(),
        guest: mount.target.to_string_lossy().into_owned(),
        writable: !mount.readonly,
    });
    root.into_iter().chain(mounted).collect()
}

/// Runs in the container's own process; the last thing that it does is to report.
fn run(command: wasm_exec::Command, pipe: OwnedFd) -> u8 {
    // Of a thread, say, that a limit withholds the engine's libraries know nothing better than a panic. It is told as what it
    // is, once, below; for the message that the standard library would print nobody asked.
    panic::set_hook(Box::new(|_| {}));
    let (code, report) = match panic::catch_unwind(AssertUnwindSafe(|| wasm_exec::run(command))) {
        Ok(Ok(report)) => conclude(&report),
        Ok(Err(error)) => (126, Report { error: Some(error.to_string()), ..Report::default() }),
        Err(panic) => (125, Report { error: Some(engine_failure(panic.as_ref())), ..Report::default() }),
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
    let code = match &run.outcome {
        Outcome::Exited(code) => *code,
        Outcome::Trapped { trap, backtrace } => {
            say(&format!("{trap}\n{backtrace}"));
            134
        }
        Outcome::TimedOut { backtrace } => {
            say(&format!("the time limit (--timeout) was reached\n{backtrace}"));
            report.timed_out = true;
            124
        }
        Outcome::OutOfFuel => {
            say("wasm trap: all fuel (--fuel) consumed");
            report.out_of_fuel = true;
            134
        }
        Outcome::OutOfMemory { limit_bytes, wanted_bytes, trap, backtrace } => {
            say(&format!("out of memory: the program asked for {wanted_bytes} bytes, its limit (-m) is {limit_bytes}"));
            if !trap.is_empty() {
                say(&format!("{trap}\n{backtrace}"));
            }
            report.out_of_memory = true;
            137
        }
    };
    (code, report)
}

/// To the program's own standard error, so that it is in its log.
fn say(message: &str) {
    let _ = writeln!(std::io::stderr(), "amphora: {}", message.trim_end());
}
