//! What a program is kept from: namespaces, capabilities, no_new_privs and a filter of system calls, which hold only together.
use crate::{capabilities::CapabilitySets, error::Error, seccomp::Filter};
use rustix::{fd::BorrowedFd, io::Errno, thread::LinkNameSpaceType};

/// Where one kind of namespace comes from.
#[derive(Debug, Clone, Copy)]
pub enum Namespace<'a> {
    /// It is made for the program.
    New,
    /// The caller's, because whoever starts the program wants that.
    Host,
    /// An open file of one (`/proc/PID/ns/net`, or a bind of that).
    Join(BorrowedFd<'a>),
    /// The caller's, because the filter of system calls keeps the program from all that is in it.
    Filtered,
}

/// Which namespaces a program is in. Its mount namespace is always new.
#[derive(Debug, Clone, Copy)]
pub struct Namespaces<'a> {
    /// One that is there already (see [`crate::userns::make`]), which owns those that are new; None: the caller's.
    pub user: Option<BorrowedFd<'a>>,
    /// Processes. With one that is joined, nothing in it sees the program before it is confined; /proc then needs Linux 6.17.
    pub pid: Namespace<'a>,
    /// With loopback up in a new one.
    pub network: Namespace<'a>,
    /// System V objects and POSIX message queues.
    pub ipc: Namespace<'a>,
    /// Host and domain name.
    pub uts: Namespace<'a>,
    /// What /proc and a cgroup file system show of cgroups.
    pub cgroup: Namespace<'a>,
    /// Boot and monotonic clocks.
    pub time: Clocks<'a>,
}

/// The time namespace.
#[derive(Debug, Clone, Copy)]
pub enum Clocks<'a> {
    /// The caller's.
    Host,
    /// New, with these clocks ahead (or behind). Needs Linux 6.3.
    New {
        /// Seconds and nanoseconds added to CLOCK_MONOTONIC.
        monotonic: (i64, u32),
        /// To CLOCK_BOOTTIME.
        boottime: (i64, u32),
    },
    /// As [`Namespace::Join`].
    Join(BorrowedFd<'a>),
}

impl Namespaces<'_> {
    /// New ones of all kinds but user and time.
    pub const NEW: Self = Self {
        user: None,
        pid: Namespace::New,
        network: Namespace::New,
        ipc: Namespace::New,
        uts: Namespace::New,
        cgroup: Namespace::New,
        time: Clocks::Host,
    };
}

impl<'a> Namespaces<'a> {
    /// Those that a process joins by itself, with their kinds. A pid namespace is for its children only.
    pub(crate) fn joined(&self) -> impl Iterator<Item = (BorrowedFd<'a>, LinkNameSpaceType)> {
        let time = match self.time {
            Clocks::Join(fd) => Namespace::Join(fd),
            Clocks::Host | Clocks::New { .. } => Namespace::Host,
        };
        let kinds = [
            (self.network, LinkNameSpaceType::Network),
            (self.ipc, LinkNameSpaceType::InterProcessCommunication),
            (self.uts, LinkNameSpaceType::HostNameAndNISDomainName),
            (self.cgroup, LinkNameSpaceType::ControlGroup),
            (time, LinkNameSpaceType::Time),
            (self.pid, LinkNameSpaceType::ProcessID),
        ];
        kinds.into_iter().filter_map(|(namespace, kind)| match namespace {
            Namespace::Join(fd) => Some((fd, kind)),
            Namespace::New | Namespace::Host | Namespace::Filtered => None,
        })
    }
}

impl Namespace<'_> {
    pub(crate) fn is_new(&self) -> bool {
        matches!(self, Self::New)
    }

    /// Whether it is the caller's, for whatever reason.
    pub(crate) fn is_callers(&self) -> bool {
        matches!(self, Self::Host | Self::Filtered)
    }
}

/// What a program's own process may do.
#[derive(Clone)]
pub struct Privileges {
    /// The five sets.
    pub capabilities: CapabilitySets,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privileges: bool,
    /// Installed last. It must allow what the launcher does: execve, and for a start that waits ppoll and read.
    pub seccomp: Option<Filter>,
}

/// Namespaces and privileges of which each makes up for what the other leaves open.
#[derive(Clone)]
pub struct Confinement<'a> {
    namespaces: Namespaces<'a>,
    privileges: Privileges,
}

impl<'a> Confinement<'a> {
    /// # Errors
    /// A namespace is left to a filter that does not keep the program out of what is in it, or that a program it executes
    /// could be without.
    pub fn new(namespaces: Namespaces<'a>, privileges: Privileges) -> Result<Self, Error> {
        let filter = privileges.seccomp.as_ref().filter(|_| privileges.no_new_privileges);
        let stands_for = filter.map(Filter::stands_for).unwrap_or_default();
        for (name, namespace, is_kept) in [
            ("pid", namespaces.pid, false),
            ("network", namespaces.network, stands_for.network),
            ("ipc", namespaces.ipc, stands_for.ipc),
            ("uts", namespaces.uts, false),
            ("cgroup", namespaces.cgroup, stands_for.cgroup),
        ] {
            if matches!(namespace, Namespace::Filtered) && !is_kept {
                return Err(Error::new(format!("do without a {name} namespace"), Errno::INVAL).hint(
                    "the filter of system calls does not keep the program from what is in it, or no_new_privs is off",
                ));
            }
        }
        Ok(Self { namespaces, privileges })
    }

    /// Which namespaces.
    #[must_use]
    pub fn namespaces(&self) -> &Namespaces<'a> {
        &self.namespaces
    }

    /// Which privileges.
    #[must_use]
    pub fn privileges(&self) -> &Privileges {
        &self.privileges
    }

    /// Both.
    pub fn into_parts(self) -> (Namespaces<'a>, Privileges) {
        (self.namespaces, self.privileges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::{self, Compiled, Sockets, Table};

    #[test]
    fn a_namespace_is_left_out_only_where_the_filter_stands_for_it() {
        let without = |name: &str| {
            let filtered = |kind: &str| if kind == name { Namespace::Filtered } else { Namespace::New };
            Namespaces {
                pid: filtered("pid"),
                network: filtered("network"),
                ipc: filtered("ipc"),
                uts: filtered("uts"),
                cgroup: filtered("cgroup"),
                ..Namespaces::NEW
            }
        };
        let others = Compiled::new(&Table::refusing()).to_filter();
        for (filter, no_new_privileges, allowed) in [
            (None, true, &[][..]),
            (Some(others), true, &[]),
            (Some(seccomp::engine(Sockets::None)), false, &[]),
            (Some(seccomp::engine(Sockets::None)), true, &["network", "ipc", "cgroup"]),
            (Some(seccomp::engine(Sockets::Accepted)), true, &["network", "ipc", "cgroup"]),
            (Some(seccomp::engine(Sockets::Outbound)), true, &["ipc", "cgroup"]),
            (Some(seccomp::engine(Sockets::All)), true, &["ipc", "cgroup"]),
        ] {
            for name in ["pid", "network", "ipc", "uts", "cgroup"] {
                let capabilities = CapabilitySets::default();
                let privileges = Privileges { capabilities, no_new_privileges, seccomp: filter.clone() };
                let confinement = Confinement::new(without(name), privileges);
                assert_eq!(confinement.is_ok(), allowed.contains(&name), "{name} {no_new_privileges}");
            }
        }
    }
}
