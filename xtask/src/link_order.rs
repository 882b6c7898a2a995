//! `cargo xtask link-order`: the order in which the linker lays out functions, so that those of a start lie together.
//!
//! A start runs some hundred kilobytes of a twenty-megabyte program, and left alone they lie all over it: a page fault for
//! each. This runs starts of both kinds instruction by instruction, notes which function was entered when, and writes
//! their symbols to a file that the build gives to the linker. Symbols that are no longer there are passed over, so an old
//! file does no harm but to speed.

use crate::{
    command::{cargo, run},
    fixtures::Fixtures,
    paths,
};
use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sys::{
        ptrace,
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

const BUILD_LIMIT: Duration = Duration::from_secs(1800);
const HEADER: &str =
    "# Written by `cargo xtask link-order`. The functions of a start, in the order in which it enters them.\n";

/// What is looked at, by what follows the store's options.
const STARTS: [&[&str]; 5] = [
    &["run", "--rm", "hello:wasm"],
    &["run", "--rm", "hello:linux"],
    &["run", "--rm", "hello:component"],
    &["run", "-m", "64m", "--pids-limit", "16", "hello:linux"],
    &["run", "-m", "64m", "--timeout", "1m", "-v", "/tmp:/data:ro", "hello:wasm"],
];

/// A function in the executable.
struct Function {
    start: u64,
    end: u64,
    name: String,
}

/// Builds with symbols, follows the starts, writes the file.
pub(crate) fn write() -> Result<()> {
    let fixtures = Fixtures::build(false)?;
    let program = build_with_symbols()?;
    let functions = functions(&program)?;
    let folder = paths::target().join("link-order");
    let store = prepare_store(&program, &fixtures, &folder)?;
    let mut order = Order::new(&functions);
    for start in STARTS {
        let words: Vec<&str> = store.iter().map(String::as_str).chain(start.iter().copied()).collect();
        let before = order.entered.len();
        follow(&program, &words, &mut |address| order.note(address))?;
        println!("{}: {} functions more", start.join(" "), order.entered.len() - before);
    }
    let names: Vec<&str> = order.entered.iter().map(|&index| functions[index].name.as_str()).collect();
    let path = paths::workspace().join("runtime/link-order.txt");
    fs::write(&path, format!("{HEADER}{}\n", names.join("\n")))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("{} functions in {}", names.len(), path.display());
    Ok(())
}

/// The program as it is released, but with its symbols.
fn build_with_symbols() -> Result<PathBuf> {
    let mut build = cargo(BUILD_LIMIT);
    build.current_dir(paths::workspace().join("runtime"));
    build.args(["rustc", "--release", "--bin", "amphora", "--", "-C", "strip=none"]);
    if !build.status()?.success() {
        bail!("the build failed");
    }
    Ok(paths::binary())
}

/// The functions of an executable, by their addresses. `nm` comes with the compiler.
fn functions(program: &Path) -> Result<Vec<Function>> {
    let text = run(Command::new("nm").args(["--numeric-sort", "--print-size"]).arg(program))?;
    let functions: Vec<Function> = String::from_utf8_lossy(&text).lines().filter_map(function).collect();
    if functions.is_empty() {
        bail!("{} has no symbols", program.display());
    }
    Ok(functions)
}

/// A line of nm: address, size, type, name.
fn function(line: &str) -> Option<Function> {
    let mut words = line.split(' ');
    let mut number = || u64::from_str_radix(words.next()?, 16).ok();
    let (start, size) = (number()?, number()?);
    let is_code = matches!(words.next()?, "t" | "T" | "w" | "W" | "i");
    is_code.then(|| words.next()).flatten().map(|name| Function { start, end: start + size, name: name.to_owned() })
}

/// The functions that were entered, each once, in order.
struct Order<'a> {
    functions: &'a [Function],
    seen: BTreeSet<usize>,
    entered: Vec<usize>,
}

impl<'a> Order<'a> {
    fn new(functions: &'a [Function]) -> Self {
        Self { functions, seen: BTreeSet::new(), entered: Vec::new() }
    }

    fn note(&mut self, address: u64) {
        let next = self.functions.partition_point(|function| function.start <= address);
        let Some(index) = next.checked_sub(1) else { return };
        if address < self.functions[index].end && self.seen.insert(index) {
            self.entered.push(index);
        }
    }
}

/// A store with both kinds in it, anew. The options that name it.
fn prepare_store(program: &Path, fixtures: &Fixtures, folder: &Path) -> Result<Vec<String>> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let option = |name: &str, place: &str| format!("--{name}={}", folder.join(place).display());
    let store = vec![option("root", "root"), option("runroot", "run")];
    for (file, image) in [("wasm/hello.wasm", "hello:wasm"), ("component/hello.wasm", "hello:component")] {
        let file = fixtures.path("programs").join(file);
        run(Command::new(program).args(&store).arg("import").arg(file).arg(image))?;
    }
    let layout = fixtures.path("layouts").join("hello-linux");
    run(Command::new(program).args(&store).args(["load", "-i"]).arg(layout))?;
    Ok(store)
}

/// Runs a program and all that it starts to their end, one instruction at a time, and tells each one's address.
fn follow(program: &Path, words: &[&str], tell: &mut dyn FnMut(u64)) -> Result<()> {
    // It stops itself, so that it can be attached to before it begins.
    let script = "kill -STOP $$; exec \"$0\" \"$@\"";
    let mut shell = Command::new("/bin/sh");
    let child =
        shell.args(["-c", script]).arg(program).args(words).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let first = Pid::from_raw(i32::try_from(child.id())?);
    waitpid(first, Some(WaitPidFlag::WUNTRACED))?;
    let options = ptrace::Options::PTRACE_O_TRACECLONE
        | ptrace::Options::PTRACE_O_TRACEFORK
        | ptrace::Options::PTRACE_O_TRACEVFORK
        | ptrace::Options::PTRACE_O_EXITKILL;
    ptrace::seize(first, options).context("cannot trace the program")?;
    kill(first, Signal::SIGCONT)?;
    loop {
        match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Err(Errno::ECHILD) => bail!("the program vanished"),
            Ok(WaitStatus::Exited(pid, code)) if pid == first => {
                return if code == 0 { Ok(()) } else { bail!("{} ended with {code}", words.join(" ")) };
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == first => bail!("the program was killed by {signal}"),
            Ok(WaitStatus::Stopped(pid, Signal::SIGTRAP)) => {
                tell(instruction(pid));
                step(pid, None)?;
            }
            Ok(WaitStatus::Stopped(pid, signal)) => step(pid, Some(signal))?,
            Ok(WaitStatus::PtraceEvent(pid, ..)) => step(pid, None)?,
            Ok(_) => {}
            Err(errno) => return Err(errno).context("cannot wait for the program"),
        }
    }
}

fn step(pid: Pid, signal: Option<Signal>) -> Result<()> {
    match ptrace::step(pid, signal) {
        // It was killed meanwhile, which the next wait tells.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).context("cannot follow the program"),
    }
}

/// Where a stopped process is; 0 if it is gone.
#[cfg(target_arch = "x86_64")]
fn instruction(pid: Pid) -> u64 {
    ptrace::getregs(pid).map_or(0, |registers| registers.rip)
}
#[cfg(target_arch = "aarch64")]
fn instruction(pid: Pid) -> u64 {
    ptrace::getregset::<ptrace::regset::NT_PRSTATUS>(pid).map_or(0, |registers| registers.pc)
}

#[cfg(test)]
mod tests {
    use super::{Order, function};

    #[test]
    fn functions_are_noted_once_in_the_order_of_their_first_instruction() {
        let nm = "0000000000000010 0000000000000008 T first\n\
                  0000000000000018 0000000000000004 D data\n\
                  0000000000000020 0000000000000010 t second\n\
                  0000000000000040 A no_size";
        let functions: Vec<_> = nm.lines().filter_map(function).collect();
        let mut order = Order::new(&functions);
        for address in [0x2f, 0x30, 0x10, 0x17, 0x18, 0x0, 0x20] {
            order.note(address);
        }
        let names: Vec<_> = order.entered.iter().map(|&index| functions[index].name.as_str()).collect();
        assert_eq!(names, ["second", "first"]);
    }
}
