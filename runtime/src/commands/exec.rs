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
    spawn::Exit,
    users::{self, User},
};

use crate::{
    cli::ExecArgs,
    container::{Container, Status},
    env,
    errors::Coded,
    host::Host,
    spec::StdioSpec,
    streams::{self, Wiring},
    supervise::{self, Signals, StopRule},
};

/// `amphora exec`: the program's exit code.
pub(crate) fn exec(host: &Host, args: &ExecArgs) -> Result<u8> {
    let container = host.containers.find(args.container())?;
    let Status::Running(running) = container.status()? else {
        bail!("container {} is not running: amphora start {0}", container.spec.name);
    };
    container.spec.image.kind.check_exec(&container.spec.name)?;
    if args.detach {
        return detach();
    }
    run(args, &container, running.process())
}

/// The same command again, without `-d`, in a session of its own.
fn detach() -> Result<u8> {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    let flag = arguments.iter().skip(1).position(|word| word == "-d" || word == "--detach");
    let flag = flag.context("give -d as an option of its own (exec -d -e A=b NAME COMMAND)")?;
    arguments.remove(flag + 1);
    Command::new("/proc/self/exe")
        .args(&arguments[1..])
        .stdin(ProcessStdio::null())
        .stdout(ProcessStdio::null())
        .stderr(ProcessStdio::null())
        .spawn()
        .context("cannot start a process in the background")?;
    Ok(0)
}

fn run(args: &ExecArgs, container: &Container, target: Process) -> Result<u8> {
    let spec = &container.spec;
    let privileged = args.privileged || spec.security.privileged;
    let base = if privileged { CapabilitySet::all() } else { CapabilitySet::docker_default() };
    let capabilities = base.adjusted(&spec.security.cap_add, &spec.security.cap_drop)?;
    let user = find_user(args.user.as_deref().unwrap_or(&spec.user), target)?;
    let cgroup = Cgroups::detect()?.open(&spec.id);
    let unfiltered = privileged || spec.security.seccomp_unconfined;
    let signals = Signals::block()?;
    let stdio = StdioSpec { interactive: args.interactive, terminal: args.tty };
    let (stdio, pending) = streams::prepare(stdio, Wiring::Direct)?;
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
    let copying = pending.copy(child.terminal.take())?;
    let rule = StopRule { time_limit: None, stop_signal: spec.stop_signal, stop_timeout: None };
    let ending = supervise::supervise(&child, &signals, rule, &|| copying.resize())?;
    copying.finish();
    Ok(match ending.exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128u8.saturating_add(signal),
    })
}

fn find_user(wanted: &str, target: Process) -> Result<User> {
    let read = |path: &str| -> Result<String> {
        let bytes =
            read_file(target, Path::new(path)).with_context(|| format!("cannot read {path} of the container"))?;
        Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
    };
    Ok(users::resolve(wanted, &read("/etc/passwd")?, &read("/etc/group")?)?)
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
