//! `run` and `start`.

use anyhow::{Result, bail};

use super::{
    create::{self, Made},
    each, find, say_id,
};
use crate::{
    cli::{ProgramArgs, StartArgs},
    lifecycle::{self, timings::Timings},
    output,
    records::host::Host,
};

/// `amphora run`: the container's own exit code, or its id with `-d`.
pub(crate) fn run(host: &Host, args: &ProgramArgs) -> Result<u8> {
    let mut timings = if args.timings { Timings::on() } else { Timings::off() };
    let Made { container, image, lock } = create::make(host, args)?;
    timings.stage("resolve");
    if args.detach {
        lifecycle::start_detached(host, &container, &lock)?;
        return say_id(&container, "was started and runs");
    }
    let code = lifecycle::run_attached(host, &container, &image, lock, &mut timings)?;
    output::ask(&timings.report());
    Ok(code)
}

/// `amphora start`.
pub(crate) fn start(host: &Host, args: &StartArgs) -> Result<u8> {
    if args.attach || args.interactive {
        let [name] = args.containers.as_slice() else { bail!("start -a takes one container at a time") };
        return start_attached(host, name);
    }
    each(&args.containers, |name| start_one(host, name))
}

/// Starts a container in the background, and says its name.
pub(super) fn start_one(host: &Host, name: &str) -> Result<()> {
    let container = find(host, name)?;
    let lock = container.lock()?;
    lifecycle::check_startable(&container, &lock)?;
    lifecycle::start_detached(host, &container, &lock)?;
    output::say(name)
}

fn start_attached(host: &Host, name: &str) -> Result<u8> {
    let container = find(host, name)?;
    let lock = container.lock()?;
    lifecycle::check_startable(&container, &lock)?;
    let image = lifecycle::image_to_start(host, &container)?;
    lifecycle::run_attached(host, &container, &image, lock, &mut Timings::off())
}
