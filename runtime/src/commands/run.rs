//! `run` and `start`.

use anyhow::{Context, Result, bail};

use super::{
    attach,
    create::{self, Made},
    each, find, note_unreadable, say_id,
};
use crate::{
    cli::{ProgramArgs, StartArgs},
    lifecycle::{self, attach::start_in_front, timings::Timings},
    output,
    records::{
        container::{Container, Status},
        host::Host,
    },
    spec::exit_code,
};

/// `amphora run`: the container's own exit code, or its id with `-d`.
pub(crate) fn run(host: &Host, args: &ProgramArgs) -> Result<u8> {
    if args.explain_grants {
        return create::explain_grants(host, args);
    }
    let mut timings = if args.timings { Timings::on() } else { Timings::off() };
    if args.detach && !args.attach.is_empty() {
        bail!("conflicting options: cannot specify both --attach and --detach");
    }
    attach::refuse_without_terminal(args)?;
    let Made { container, image, lock } = create::make(host, args)?;
    timings.stage("resolve");
    if args.detach {
        lifecycle::start_detached(host, &container, &lock, None)?;
        return say_id(&container, "was started and runs");
    }
    if let Some(attachment) = attach::of_run(args, &container.spec)? {
        return start_in_front(host, &container, lock, attachment);
    }
    let code = lifecycle::run_attached(host, &container, &image, lock, &mut timings)?;
    output::ask(&timings.report());
    Ok(code)
}

/// `amphora start`.
pub(crate) fn start(host: &Host, args: &StartArgs) -> Result<u8> {
    if args.attach || args.interactive {
        let [name] = args.containers.as_slice() else { bail!("start -a takes one container at a time") };
        return start_attached(host, name, args);
    }
    match each(&args.containers, |name| start_one(host, name)) {
        // Of a program that could not be started in the background, `run` has the code.
        Err(error) => {
            output::complain(&error);
            Ok(exit_code::FAILED)
        }
        done => done,
    }
}

/// Starts a container in the background, and says its name.
pub(super) fn start_one(host: &Host, name: &str) -> Result<()> {
    let container = find(host, name)?;
    let lock = container.lock()?;
    // As with Docker, one that runs already is as good as started.
    if !matches!(container.status_under(&lock)?, Status::Running(running) if !running.paused) {
        lifecycle::check_startable(&container, &lock)?;
        container.forget_halt()?;
        lifecycle::start_detached(host, &container, &lock, None)?;
    }
    output::say(name)
}

/// `amphora system restore`: 1 when one of them cannot be started.
pub(crate) fn restore(host: &Host) -> Result<u8> {
    let (containers, unreadable) = host.containers.list()?;
    note_unreadable(&unreadable);
    let mut code = 0;
    // The oldest first, as they were started.
    for container in containers.iter().rev() {
        let restored = restore_one(host, container).with_context(|| format!("container {}", container.spec.name));
        if let Err(error) = restored {
            output::complain(&error);
            code = 1;
        }
    }
    Ok(code)
}

fn restore_one(host: &Host, container: &Container) -> Result<()> {
    let wanted = container.spec.restart.outlives_reboot(container.is_halted()?) && container.has_run()?;
    // Who has the lock starts it or removes it already.
    let Some(lock) = container.try_lock()?.filter(|_| wanted) else { return Ok(()) };
    match container.status_under(&lock)? {
        Status::Stopped(_) => {
            lifecycle::check_startable(container, &lock)?;
            lifecycle::start_detached(host, container, &lock, None)?;
            output::say(&container.spec.name)
        }
        Status::Created | Status::Running(_) | Status::Restarting(..) | Status::OutOfReach => Ok(()),
    }
}

fn start_attached(host: &Host, name: &str, args: &StartArgs) -> Result<u8> {
    let container = find(host, name)?;
    let lock = container.lock()?;
    lifecycle::check_startable(&container, &lock)?;
    container.forget_halt()?;
    let container = host.containers.reload(&container)?;
    if let Some(attachment) = attach::of_start(args, &container.spec)? {
        return start_in_front(host, &container, lock, attachment);
    }
    let image = lifecycle::image_to_start(host, &container)?;
    lifecycle::run_attached(host, &container, &image, lock, &mut Timings::off())
}
