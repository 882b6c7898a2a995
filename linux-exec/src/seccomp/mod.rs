//! Docker's default seccomp profile, and one for programs that an engine runs, as classic BPF put together by the compiler.
//!
//! [`table`] and [`engine`] say which system calls are allowed, [`bpf`] turns that into instructions; all are `const`, so
//! the filters lie ready in the executable and cost nothing at start. Capabilities that open more system calls than
//! Docker's default set (or fewer) have theirs put together at run time, by the same code, in some microseconds.
//!
//! What is answered to what is not allowed:
//! - EPERM, as in Docker, to system calls that the profile knows of and refuses;
//! - ENOSYS to numbers above the newest one in the profile, so that a libc probing for a newer call falls back to an older
//!   one, and with them to every x32 call (their numbers start at 2³⁰); and to `clone3`, whose flags a filter cannot see;
//! - the end of the process, by SIGSYS, to calls in another architecture's convention (`int 0x80` on x86-64, 32-bit programs):
//!   an errno there would leave a 32-bit program looping in its own `exit`.
//!
//! Any other profile is compiled at run time ([`profile`], [`compile`]).
//!
//! Source: moby's default profile (`github.com/moby/profiles`, seccomp/default.json, 2026), seccomp(2).

mod bpf;
mod compile;
mod engine;
mod numbers;
pub mod profile;
mod table;

use crate::capabilities::CapabilitySet;
use bpf::Program;
use std::borrow::Cow;

/// A BPF program.
#[derive(Debug, Clone)]
pub struct Filter {
    /// The instructions: each word is a `struct sock_filter` as it lies in memory on a little-endian machine, `code` in bits
    /// 0–15, `jt` in 16–23, `jf` in 24–31, `k` in 32–63.
    pub program: Cow<'static, [u64]>,
    /// [`profile::Flags`].
    pub(crate) flags: u32,
    stands_for: StandsFor,
}

/// The namespaces that a program needs none of its own of, as no system call that the filter allows reaches what is in them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StandsFor {
    pub(crate) network: bool,
    pub(crate) ipc: bool,
    pub(crate) cgroup: bool,
}

impl Filter {
    pub(crate) fn stands_for(&self) -> StandsFor {
        self.stands_for
    }
}

static PRECOMPILED: Program = Program::compile(&table::actions(table::DOCKER_DEFAULT));
static ENGINE: Program = Program::compile(&engine::actions(Sockets::None));
static ENGINE_SERVING: Program = Program::compile(&engine::actions(Sockets::Accepted));
static ENGINE_WITH_SOCKETS: Program = Program::compile(&engine::actions(Sockets::All));

/// Which sockets an engine's process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sockets {
    /// None; it can make none, not even a local one.
    None,
    /// Those that it finds open, and what it accepts at them. It can make none, and connect to nobody.
    Accepted,
    /// All that its network namespace has.
    All,
}

/// The default filter: the precompiled one where `capabilities` allow exactly what Docker's default set does.
pub fn docker_default(capabilities: CapabilitySet) -> Filter {
    let program = if (capabilities.0 ^ table::DOCKER_DEFAULT.0) & table::OPENING.0 == 0 {
        Cow::Borrowed(PRECOMPILED.words())
    } else {
        Cow::Owned(Program::compile(&table::actions(capabilities)).words().to_vec())
    };
    Filter { program, flags: 0, stands_for: StandsFor::default() }
}

/// The filter for a process that runs its program in an engine of its own and never executes another: files, memory, time
/// and threads. It is far narrower than Docker's. That no socket can be made keeps the process off every network without a
/// network namespace.
///
/// It refuses what comes before a program as well (capabilities, ids, mounts), so it goes with `no_new_privileges`, where
/// it is installed last.
pub fn engine(sockets: Sockets) -> Filter {
    let program = match sockets {
        Sockets::None => &ENGINE,
        Sockets::Accepted => &ENGINE_SERVING,
        Sockets::All => &ENGINE_WITH_SOCKETS,
    };
    let stands_for = StandsFor { network: sockets != Sockets::All, ipc: true, cgroup: true };
    Filter { program: Cow::Borrowed(program.words()), flags: 0, stands_for }
}

#[cfg(test)]
mod interpreter;
#[cfg(test)]
mod tests;
