//! `exec`: one more program in a container that runs.

use std::process::Stdio as ProcessStdio;

use anyhow::{Context, Result, bail};
use linux_exec::process::Process;

use super::find;
use crate::{
    cli::ProgramArgs,
    lifecycle::{
        self,
        exec::begin,
        streams::{self, Wiring},
    },
    records::{container::Container, host::Host, own_process::OwnProcess},
    spec::{StdioSpec, env, request::ExecRequest},
};

/// `amphora exec`: the program's exit code.
pub(crate) fn exec(host: &Host, args: &ProgramArgs) -> Result<u8> {
    let (container, target) = running(host, args)?;
    if args.detach {
        return leave_behind(host, &container);
    }
    begin(&container, target, &request(args)?, Wiring::Direct)?.supervise()
}

fn running(host: &Host, args: &ProgramArgs) -> Result<(Container, Process)> {
    let container = find(host, &args.subject)?;
    let Some(run) = container.going_on()? else {
        bail!("container {} is not running: amphora start {0}", container.spec.name);
    };
    if run.running.paused {
        bail!("container {0} is paused, and a program in it would not begin: amphora unpause {0}", container.spec.name);
    }
    lifecycle::workload_of(host, &container.spec)?.behaviour().check_exec(&container.spec.name)?;
    Ok((container, run.running.process()))
}

/// The same command again, in a process that stays; returns when the program has begun, or with the reason why not.
fn leave_behind(host: &Host, container: &Container) -> Result<u8> {
    let mut left = OwnProcess::Exec
        .command(&host.program)
        .args(std::env::args_os().skip(1))
        .stdin(ProcessStdio::null())
        .stdout(ProcessStdio::piped())
        .stderr(ProcessStdio::inherit())
        .spawn()
        .context("cannot start a process in the background")?;
    lifecycle::wait_until_started(&mut left, &format!("the program in container {}", container.spec.name)).map(|()| 0)
}

/// What the process does that [`leave_behind`] starts.
pub(crate) fn exec_behind(host: &Host, args: &ProgramArgs) -> Result<u8> {
    // A session of its own: closing the user's terminal is none of its business. Fails only for a group leader.
    let _ = nix::unistd::setsid();
    let null = streams::nowhere()?;
    let found = running(host, args);
    let begun = match &found {
        Ok((container, target)) => {
            request(args).and_then(|request| begin(container, *target, &request, Wiring::Nowhere))
        }
        Err(error) => {
            lifecycle::tell_starter(Some(error), &null);
            return found.map(|_| 0);
        }
    };
    lifecycle::tell_starter(begun.as_ref().err(), &null);
    begun?.supervise()
}

fn request(args: &ProgramArgs) -> Result<ExecRequest> {
    Ok(ExecRequest {
        command: args.command.clone(),
        env: env::from_flags(&args.env_file, &args.env)?,
        cwd: args.workdir.clone(),
        user: args.user.clone(),
        privileged: args.privileged,
        stdio: StdioSpec { interactive: args.interactive, terminal: args.tty },
    })
}
