//! Follows a program and all that it starts: from function to function, or from one system call to the next.

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    libc::PTRACE_SYSCALL_INFO_ENTRY,
    sys::{
        ptrace,
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{
    fs::{self, File},
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
    process::{Child, Command, Stdio},
};

/// Why a process stands still.
enum Stop {
    /// It executes another program from here on.
    Executed,
    /// It met a breakpoint.
    Trap,
    /// It enters or leaves the kernel.
    SystemCall,
}

/// Runs a program to its end, and counts the system calls of all its processes. Its output goes to /dev/null: how often a
/// pipe has to be looked at depends on who reads it when.
pub(crate) fn system_calls(program: &Path, words: &[&str]) -> Result<u64> {
    let (mut begun, mut calls) = (false, 0);
    follow(program, words, Stdio::null, ptrace::syscall::<Option<Signal>>, &mut |pid, stop| {
        begun |= matches!(stop, Stop::Executed);
        let enters = || ptrace::syscall_info(pid).is_ok_and(|info| info.op == PTRACE_SYSCALL_INFO_ENTRY);
        calls += u64::from(begun && matches!(stop, Stop::SystemCall) && enters());
        Ok(())
    })?;
    Ok(calls)
}

/// Runs a program to its end, and tells which of its functions are entered, by the addresses where they start: each once
/// in each process, in order. `starts` are all of them, in the program's code, which lies between them and `end`.
///
/// Its output goes to pipes, for which it has more to do than for /dev/null; what is written fits into them.
pub(crate) fn functions(
    program: &Path,
    words: &[&str],
    starts: &[u64],
    end: u64,
    tell: &mut dyn FnMut(u64),
) -> Result<()> {
    let code = starts.first().copied().context("the program has no functions")?..end;
    let mut original = Vec::new();
    follow(program, words, Stdio::piped, ptrace::cont::<Option<Signal>>, &mut |pid, stop| match stop {
        // The program that an image brings is of no interest.
        Stop::Executed if fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|executed| executed == program) => {
            original = plant(&memory(pid)?, &code, starts)?;
            Ok(())
        }
        Stop::Trap => {
            let address = step_back(pid)?;
            if starts.binary_search(&address).is_err() {
                bail!("a trap at {address:#x}, where no breakpoint is");
            }
            tell(address);
            let byte = original[usize::try_from(address - code.start)?];
            memory(pid)?.write_all_at(&[byte], address).context("cannot remove a breakpoint")
        }
        Stop::Executed | Stop::SystemCall => Ok(()),
    })
}

/// x86's `int3`.
const BREAKPOINT: u8 = 0xcc;

/// Puts a breakpoint at the start of every function; gives the code as it was.
fn plant(memory: &File, code: &Range<u64>, starts: &[u64]) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(code.end - code.start)?];
    memory.read_exact_at(&mut bytes, code.start).context("cannot read the program's code")?;
    let original = bytes.clone();
    for start in starts {
        bytes[usize::try_from(start - code.start)?] = BREAKPOINT;
    }
    memory.write_all_at(&bytes, code.start).context("cannot set breakpoints")?;
    Ok(original)
}

fn memory(pid: Pid) -> Result<File> {
    let path = format!("/proc/{pid}/mem");
    File::options().read(true).write(true).open(&path).with_context(|| format!("cannot open {path}"))
}

/// Has a process go on with the instruction that a breakpoint stands for; its address.
#[cfg(target_arch = "x86_64")]
fn step_back(pid: Pid) -> Result<u64> {
    let mut registers = ptrace::getregs(pid)?;
    registers.rip -= 1;
    ptrace::setregs(pid, registers)?;
    Ok(registers.rip)
}
#[cfg(not(target_arch = "x86_64"))]
fn step_back(_: Pid) -> Result<u64> {
    bail!("functions are followed on x86-64 alone, as the linker is told their order only there")
}

/// Has it go on until it stops again.
type Onwards = fn(Pid, Option<Signal>) -> nix::Result<()>;

/// What its output goes to.
type Streams = fn() -> Stdio;

/// Runs a program to its end, and tells of each stop.
fn follow(
    program: &Path,
    words: &[&str],
    streams: Streams,
    onwards: Onwards,
    tell: &mut dyn FnMut(Pid, Stop) -> Result<()>,
) -> Result<()> {
    // Its ends of the pipes stay open as long as it is there.
    let (first, _shell) = start(program, words, streams)?;
    loop {
        let (pid, signal) = match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Err(Errno::ECHILD) => bail!("the program vanished"),
            Ok(WaitStatus::Exited(pid, code)) if pid == first => {
                return if code == 0 { Ok(()) } else { bail!("{} ended with {code}", words.join(" ")) };
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == first => bail!("the program was killed by {signal}"),
            Ok(WaitStatus::PtraceSyscall(pid)) => (pid, tell(pid, Stop::SystemCall).map(|()| None)?),
            Ok(WaitStatus::Stopped(pid, Signal::SIGTRAP)) => (pid, tell(pid, Stop::Trap).map(|()| None)?),
            Ok(WaitStatus::PtraceEvent(pid, _, event)) => {
                if event == ptrace::Event::PTRACE_EVENT_EXEC as i32 {
                    tell(pid, Stop::Executed)?;
                }
                (pid, None)
            }
            Ok(WaitStatus::Stopped(pid, signal)) => (pid, Some(signal)),
            Ok(_) => continue,
            Err(errno) => return Err(errno).context("cannot wait for the program"),
        };
        match onwards(pid, signal) {
            // It was killed meanwhile, which the next wait tells.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno).context("cannot follow the program"),
        }
    }
}

/// A shell that is followed, and is about to become the program. It stops itself, so that it can be attached to before.
fn start(program: &Path, words: &[&str], streams: Streams) -> Result<(Pid, Child)> {
    let script = "kill -STOP $$; exec \"$0\" \"$@\"";
    let mut shell = Command::new("/bin/sh");
    shell.stdin(Stdio::null()).stdout(streams()).stderr(streams());
    let child = shell.args(["-c", script]).arg(program).args(words).spawn()?;
    let first = Pid::from_raw(i32::try_from(child.id())?);
    waitpid(first, Some(WaitPidFlag::WUNTRACED))?;
    let options = ptrace::Options::PTRACE_O_TRACECLONE
        | ptrace::Options::PTRACE_O_TRACEEXEC
        | ptrace::Options::PTRACE_O_TRACEFORK
        | ptrace::Options::PTRACE_O_TRACEVFORK
        | ptrace::Options::PTRACE_O_TRACESYSGOOD
        | ptrace::Options::PTRACE_O_EXITKILL;
    ptrace::seize(first, options).context("cannot trace the program")?;
    kill(first, Signal::SIGCONT)?;
    Ok((first, child))
}
