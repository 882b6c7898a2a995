//! Filters of system calls, as classic BPF.
//!
//! A [`Table`] of verdicts becomes one at compile time ([`Compiled`]), which lies ready in the executable and costs nothing at
//! start; so is the one for programs that an engine runs ([`engine`]). Any other profile is compiled at run time ([`profile`]).
//!
//! Source: seccomp(2).

mod bpf;
mod compile;
mod engine;
mod numbers;
pub mod profile;
mod table;

pub use bpf::Compiled;
pub use table::{Check, Table, Verdict};

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

static ENGINE: Compiled = Compiled::new(&engine::table(Sockets::None));
static ENGINE_SERVING: Compiled = Compiled::new(&engine::table(Sockets::Accepted));
static ENGINE_CONNECTING: Compiled = Compiled::new(&engine::table(Sockets::Outbound));
static ENGINE_WITH_SOCKETS: Compiled = Compiled::new(&engine::table(Sockets::All));

/// Which sockets an engine's process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sockets {
    /// None; it can make none, not even a local one.
    None,
    /// Those that it finds open, and what it accepts at them. It can make none, and connect to nobody.
    Accepted,
    /// Those, and what it connects itself: TCP and UDP over IP, to wherever its network namespace leads. It listens at none.
    Outbound,
    /// Those, and it may listen: all of TCP and UDP that its network namespace has. What else there is of sockets is not.
    All,
}

/// The filter for a process that runs its program in an engine of its own and never executes another: files, memory, time
/// and threads. That no socket can be made keeps the process off every network without a network namespace.
///
/// It refuses what comes before a program as well (capabilities, ids, mounts), so it goes with `no_new_privileges`, where
/// it is installed last.
pub fn engine(sockets: Sockets) -> Filter {
    let program = match sockets {
        Sockets::None => &ENGINE,
        Sockets::Accepted => &ENGINE_SERVING,
        Sockets::Outbound => &ENGINE_CONNECTING,
        Sockets::All => &ENGINE_WITH_SOCKETS,
    };
    let network = matches!(sockets, Sockets::None | Sockets::Accepted);
    program.standing_for(StandsFor { network, ipc: true, cgroup: true })
}

#[cfg(test)]
mod tests;
