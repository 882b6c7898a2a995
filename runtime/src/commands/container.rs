//! `ps`, `stop`, `kill`, `wait` and `rm`.

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use super::{each, print, run::start_one, view};
use crate::{
    cli::{Filters, KillArgs, PsArgs, RmArgs, StopArgs, WaitArgs},
    container::{Container, Status},
    host::{Host, become_root},
    lifecycle, limits,
    output::{self, Column},
    signals,
};

const COLUMNS: [Column; 7] = [
    Column { header: "CONTAINER ID", field: "ID" },
    Column { header: "IMAGE", field: "Image" },
    Column { header: "KIND", field: "Kind" },
    Column { header: "COMMAND", field: "Command" },
    Column { header: "CREATED", field: "RunningFor" },
    Column { header: "STATUS", field: "Status" },
    Column { header: "NAMES", field: "Names" },
];

/// What a template may name besides.
const MORE_COLUMNS: [Column; 5] = [
    Column { header: "CREATED AT", field: "CreatedAt" },
    Column { header: "STATE", field: "State" },
    Column { header: "LABELS", field: "Labels" },
    Column { header: "MOUNTS", field: "Mounts" },
    Column { header: "NETWORKS", field: "Networks" },
];

/// `amphora ps`.
pub(crate) fn ps(host: &Host, args: &PsArgs) -> Result<u8> {
    let filters = Filters::parse(&args.filter, &["id", "name", "status", "label", "kind"])?;
    let limit = if args.latest { Some(1) } else { args.last };
    let by_status = args.filter.iter().any(|filter| filter.starts_with("status="));
    let only_running = !args.all && limit.is_none() && !by_status;
    let mut rows = Vec::new();
    for container in host.containers.list()? {
        let shown = !only_running || matches!(container.status()?, Status::Running(_));
        if shown && matches(&filters, &container)? && limit.is_none_or(|limit| rows.len() < limit) {
            rows.push(view::container_row(&container, args.no_trunc)?);
        }
    }
    let format = if args.quiet { Some("{{.ID}}") } else { args.format.as_deref() };
    let headers = [COLUMNS.as_slice(), &MORE_COLUMNS].concat();
    print(&output::list(format, &COLUMNS, &headers, &rows)?)
}

fn matches(filters: &Filters, container: &Container) -> Result<bool> {
    let spec = &container.spec;
    let word = container.status()?.word();
    Ok(filters.any("id", |id| spec.id.starts_with(id))
        && filters.any("name", |name| spec.name.contains(name))
        && filters.any("status", |status| word == status)
        && filters.any("kind", |kind| spec.image.kind.to_string() == kind)
        && filters.labels(|name| spec.labels.get(name).cloned()))
}

/// `amphora stop`.
pub(crate) fn stop(host: &Host, args: &StopArgs) -> Result<u8> {
    let timeout = args.time.as_deref().map(|text| limits::parse_stop_timeout("--time", text)).transpose()?;
    each(&args.containers, |name| {
        let container = host.containers.find(name)?;
        lifecycle::stop(&container, timeout.unwrap_or(container.spec.stop_timeout_ms))?;
        println!("{name}");
        Ok(())
    })
}

/// `amphora restart`.
pub(crate) fn restart(host: &Host, args: &StopArgs) -> Result<u8> {
    let timeout = args.time.as_deref().map(|text| limits::parse_stop_timeout("--time", text)).transpose()?;
    let mut stopped: Vec<String> = Vec::new();
    let stopping = each(&args.containers, |name| {
        let container = host.containers.find(name)?;
        if container.spec.auto_remove {
            bail!("container {name} is removed when it ends (--rm), so it cannot be started again");
        }
        lifecycle::stop(&container, timeout.unwrap_or(container.spec.stop_timeout_ms))?;
        stopped.push(name.to_owned());
        Ok(())
    });
    // Only now: from inside a user namespace a process of another one might be out of reach.
    become_root()?;
    let starting = each(&stopped, |name| start_one(host, name));
    stopping.and(starting)
}

/// `amphora kill`.
pub(crate) fn kill(host: &Host, args: &KillArgs) -> Result<u8> {
    let signal = signals::parse(&args.signal)?;
    each(&args.containers, |name| {
        let container = host.containers.find(name)?;
        let Status::Running(running) = container.status()? else { bail!("container {name} is not running") };
        lifecycle::kill(&running, signal)?;
        if signal == Signal::SIGKILL as i32 {
            // What comes next, such as `rm`, may rely on it.
            lifecycle::wait(&container)?;
        }
        println!("{name}");
        Ok(())
    })
}

/// `amphora wait`.
pub(crate) fn wait(host: &Host, args: &WaitArgs) -> Result<u8> {
    each(&args.containers, |name| {
        let container = host.containers.find(name)?;
        lifecycle::wait(&container)?;
        match container.status()? {
            Status::Stopped(ended) => println!("{}", ended.exit_code),
            Status::Created | Status::Running(_) => println!("0"),
        }
        Ok(())
    })
}

/// `amphora rm`.
pub(crate) fn rm(host: &Host, args: &RmArgs) -> Result<u8> {
    if args.force {
        // Before becoming root in a user namespace: from there its process might be out of reach.
        each(&args.containers, |name| host.containers.find(name).map_or(Ok(()), |c| lifecycle::kill_and_wait(&c)))?;
    }
    become_root()?;
    each(&args.containers, |name| {
        let container = match host.containers.find(name) {
            // As with Docker: what is gone already needs no force.
            Err(_) if args.force => return Ok(()),
            found => found?,
        };
        lifecycle::remove(host, &container, args.volumes)?;
        println!("{name}");
        Ok(())
    })
}
