//! One more program in a container that runs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use linux_exec::{
    capabilities::CapabilitySets,
    confinement::Privileges,
    exec::{Join, join, read_file},
    plan::Lifetime,
    process::Process,
    spawn::Child,
    users::{self, User},
};

use super::{
    create,
    end::{WITHHELD, told_caller},
    group, happened,
    start::abandon,
    streams::{self, Copying, Wiring},
    supervise::{self, Duties, Signals, StopRule},
};
use crate::{
    kinds::{UMASK, linux_filter},
    output,
    records::container::Container,
    spec::{RunSpec, env, exit_code, names, request::ExecRequest},
};

/// A program that has begun.
pub(crate) struct Begun<'a> {
    container: &'a Container,
    /// By which its events are known as of one program.
    id: String,
    child: Child,
    copying: Copying,
    signals: Signals,
    stop_signal: i32,
}

impl Begun<'_> {
    /// Waits for its end, and gives its exit code.
    pub(crate) fn supervise(self) -> Result<u8> {
        let rule = StopRule { container: None, time_limit: None, stop_signal: self.stop_signal, stop_timeout: None };
        let mut duties = Duties { resize: &|| self.copying.resize(), look_at_networks: &mut || {} };
        let ending = supervise::supervise(&self.child, &self.signals, rule, &mut duties);
        let not_copied = self.copying.finish();
        let ending = ending?;
        let code = exit_code::of_exit(ending.exit);
        self.container.note(&[happened::exec_died(&self.container.spec, &self.id, code)]);
        if ending.reaped.withheld {
            output::note(&format!("amphora: {WITHHELD}"));
        }
        Ok(told_caller(code, &not_copied))
    }
}

/// Starts a program in the container whose first process is `target`.
pub(crate) fn begin<'a>(
    container: &'a Container,
    target: Process,
    request: &ExecRequest,
    wiring: Wiring,
) -> Result<Begun<'a>> {
    let spec = &container.spec;
    let privileged = request.privileged || spec.security.privileged;
    let capabilities = spec.security.capabilities(privileged)?;
    let user = find_user(request.user.as_deref().unwrap_or(&spec.user), target)?;
    let cgroup = group::open(spec)?;
    let unfiltered = privileged || spec.security.seccomp_unconfined;
    let id = names::new_id()?;
    let signals = Signals::block()?;
    let (stdio, pending) = streams::prepare(request.stdio, wiring)?;
    let uid = user.uid;
    let mut child = join(Join {
        target,
        argv: request.command.iter().map(|word| word.clone().into_bytes()).collect(),
        env: environment(request, spec, &user),
        cwd: working_directory(request.cwd.as_deref(), spec)?,
        user,
        privileges: Privileges {
            capabilities: CapabilitySets::of_user(capabilities, uid),
            no_new_privileges: !spec.security.new_privileges_allowed && !privileged,
            seccomp: linux_filter(spec, capabilities, unfiltered)?,
        },
        umask: UMASK,
        rlimits: spec.limits.ulimits.iter().map(|u| (u.resource, u.soft, u.hard)).collect(),
        cgroup: cgroup.as_ref(),
        stdio,
        patience: Signals::patience(None),
        lifetime: Lifetime::OfStarter,
    })
    .map_err(|error| signals.explain(&error))?;
    let copying = pending.copy(child.terminal.take()).inspect_err(|_| abandon(&child))?;
    container.note(&happened::exec_began(spec, &id, &request.command));
    Ok(Begun { container, id, child, copying, signals, stop_signal: spec.stop_signal })
}

fn find_user(wanted: &str, target: Process) -> Result<User> {
    let read = |path: &str| -> Result<String> {
        let bytes =
            read_file(target, Path::new(path)).with_context(|| format!("cannot read {path} of the container"))?;
        Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
    };
    let texts = read("/etc/passwd").and_then(|passwd| Ok((passwd, read("/etc/group")?)));
    match texts {
        Ok((passwd, group)) => Ok(users::resolve(wanted, &passwd, &group)?),
        // A number needs no file: whatever a container made of its own (a FIFO, say), it locks nobody out.
        Err(unreadable) if is_no_ordinary_file(&unreadable) => users::resolve(wanted, "", "").map_err(|_| unreadable),
        // Anything else may be different in a moment, and the user's groups are not to depend on that.
        Err(error) => Err(error),
    }
}

/// Not a regular one, one of the kernel's, one behind links in a circle, or one that is too large.
fn is_no_ordinary_file(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, InvalidInput, IsADirectory};
    let cause = error.downcast_ref::<std::io::Error>();
    cause.is_some_and(|cause| {
        matches!(cause.kind(), FileTooLarge | InvalidInput | IsADirectory)
            || cause.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32)
    })
}

fn environment(request: &ExecRequest, spec: &RunSpec, user: &User) -> Vec<Vec<u8>> {
    let mut defaults = vec![format!("HOME={}", user.home)];
    if request.stdio.terminal {
        defaults.push("TERM=xterm".to_owned());
    }
    env::merge(&[&defaults, &spec.env, &request.env]).into_iter().map(String::into_bytes).collect()
}

fn working_directory(wanted: Option<&str>, spec: &RunSpec) -> Result<PathBuf> {
    let wanted = wanted.filter(|dir| !dir.is_empty());
    wanted.map_or_else(|| Ok(spec.cwd.clone()), |dir| create::working_directory(Some(dir))).map(PathBuf::from)
}
