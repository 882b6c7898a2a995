//! `exec`: one more program in a container that runs.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio as ProcessStdio},
};

use anyhow::{Context, Result, bail};
use linux_exec::{
    capabilities::CapabilitySet,
    cgroup::Cgroups,
    exec::{Join, join, read_file},
    process::Process,
    seccomp,
    spawn::{Child, Exit},
    users::{self, User},
};

use super::find;
use crate::{
    cli::ExecArgs,
    lifecycle::{
        self,
        streams::{self, Copying, Wiring},
        supervise::{self, Signals, StopRule},
    },
    output::errors::Coded,
    records::{
        container::{Container, Status},
        host::Host,
    },
    spec::{StdioSpec, env},
};

/// `amphora exec`: the program's exit code.
pub(crate) fn exec(host: &Host, args: &ExecArgs) -> Result<u8> {
    let (container, target) = running(host, args)?;
    if args.detach {
        return leave_behind(&container);
    }
    begin(args, &container, target, Wiring::Direct)?.supervise()
}

fn running(host: &Host, args: &ExecArgs) -> Result<(Container, Process)> {
    let container = find(host, args.container())?;
    let Status::Running(running) = container.status()? else {
        bail!("container {} is not running: amphora start {0}", container.spec.name);
    };
    lifecycle::workload_of(host, &container.spec)?.behaviour().check_exec(&container.spec.name)?;
    Ok((container, running.process()))
}

/// The same command again, in a process that stays; returns when the program has begun, or with the reason why not.
fn leave_behind(container: &Container) -> Result<u8> {
    let left = Command::new("/proc/self/exe")
        .arg(crate::EXEC_BEHIND)
        .args(std::env::args_os().skip(1))
        .stdin(ProcessStdio::null())
        .stdout(ProcessStdio::piped())
        .stderr(ProcessStdio::inherit())
        .spawn()
        .context("cannot start a process in the background")?;
    lifecycle::wait_until_started(left, &format!("the program in container {}", container.spec.name)).map(|()| 0)
}

/// What the process does that [`leave_behind`] starts.
pub(crate) fn exec_behind(host: &Host, args: &ExecArgs) -> Result<u8> {
    // A session of its own: closing the user's terminal is none of its business. Fails only for a group leader.
    let _ = nix::unistd::setsid();
    let null = streams::nowhere()?;
    let begun = running(host, args).and_then(|(container, target)| begin(args, &container, target, Wiring::Nowhere));
    lifecycle::tell_starter(begun.as_ref().err(), &null);
    begun?.supervise()
}

/// A program that has begun.
struct Begun {
    child: Child,
    copying: Copying,
    signals: Signals,
    stop_signal: i32,
}

impl Begun {
    fn supervise(self) -> Result<u8> {
        let rule = StopRule { time_limit: None, stop_signal: self.stop_signal, stop_timeout: None };
        let ending = supervise::supervise(&self.child, &self.signals, rule, &|| self.copying.resize());
        self.copying.finish();
        Ok(match ending?.exit {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128u8.saturating_add(signal),
        })
    }
}

fn begin(args: &ExecArgs, container: &Container, target: Process, wiring: Wiring) -> Result<Begun> {
    let spec = &container.spec;
    let privileged = args.privileged || spec.security.privileged;
    let base = if privileged { CapabilitySet::all() } else { CapabilitySet::docker_default() };
    let capabilities = base.adjusted(&spec.security.cap_add, &spec.security.cap_drop)?;
    let user = find_user(args.user.as_deref().unwrap_or(&spec.user), target)?;
    let cgroup = Cgroups::detect()?.open(&spec.id);
    let unfiltered = privileged || spec.security.seccomp_unconfined;
    let signals = Signals::block()?;
    let stdio = StdioSpec { interactive: args.interactive, terminal: args.tty };
    let (stdio, pending) = streams::prepare(stdio, wiring, user.uid == 0)?;
    let mut child = join(Join {
        target,
        argv: args.command().iter().map(|word| word.clone().into_bytes()).collect(),
        env: environment(args, container, &user)?,
        cwd: working_directory(args, container)?,
        user,
        capabilities,
        no_new_privileges: !spec.security.new_privileges_allowed && !privileged,
        seccomp: (!unfiltered).then(|| seccomp::docker_default(capabilities)),
        rlimits: spec.limits.ulimits.iter().map(|u| (u.resource, u.soft, u.hard)).collect(),
        cgroup: cgroup.as_ref(),
        stdio,
    })
    .map_err(|error| Coded::new(error.exit_code(), error.to_string()))?;
    let copying = pending.copy(child.terminal.take()).inspect_err(|_| lifecycle::abandon(&child))?;
    Ok(Begun { child, copying, signals, stop_signal: spec.stop_signal })
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
        Err(unreadable) => users::resolve(wanted, "", "").map_err(|_| unreadable),
    }
}

fn environment(args: &ExecArgs, container: &Container, user: &User) -> Result<Vec<Vec<u8>>> {
    let mut defaults = vec![format!("HOME={}", user.home)];
    if args.tty {
        defaults.push("TERM=xterm".to_owned());
    }
    let merged = env::merge(&[defaults, container.spec.env.clone(), env::from_flags(&args.env_file, &args.env)?]);
    Ok(merged.into_iter().map(String::into_bytes).collect())
}

fn working_directory(args: &ExecArgs, container: &Container) -> Result<PathBuf> {
    match args.workdir.as_deref() {
        None => Ok(PathBuf::from(&container.spec.cwd)),
        Some(dir) if Path::new(dir).is_absolute() => Ok(PathBuf::from(dir)),
        Some(dir) => {
            bail!("the working directory {dir} is not absolute: it is a path inside the container, such as /{dir}")
        }
    }
}
