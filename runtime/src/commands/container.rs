//! `ps`, `stop`, `kill`, `wait` and `rm`.

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use super::{each, filters::ContainerFilters, find, network, note_unreadable, print, run::start_one, view, wait};
use crate::{
    cli::{KillArgs, PsArgs, RmArgs, StopArgs, WaitArgs},
    lifecycle,
    output::{self, Column, errors::Coded},
    records::{
        container::{Container, FindError, Status},
        host::{Host, become_root},
    },
    spec::{exit_code, limits, request::StopTimeout, signals},
};

const COLUMNS: [Column; 8] = [
    Column { header: "CONTAINER ID", field: "ID" },
    Column { header: "IMAGE", field: "Image" },
    Column { header: "KIND", field: "Kind" },
    Column { header: "COMMAND", field: "Command" },
    Column { header: "CREATED", field: "RunningFor" },
    Column { header: "STATUS", field: "Status" },
    Column { header: "PORTS", field: "Ports" },
    Column { header: "NAMES", field: "Names" },
];

/// What `-s` adds.
const SIZE: Column = Column { header: "SIZE", field: "Size" };

/// What a template may name besides.
const MORE_COLUMNS: [Column; 8] = [
    Column { header: "CREATED AT", field: "CreatedAt" },
    Column { header: "STATE", field: "State" },
    Column { header: "LABELS", field: "Labels" },
    Column { header: "MOUNTS", field: "Mounts" },
    Column { header: "NETWORKS", field: "Networks" },
    Column { header: "LOCAL VOLUMES", field: "LocalVolumes" },
    Column { header: "PLATFORM", field: "Platform" },
    SIZE,
];

/// `amphora ps`.
pub(crate) fn ps(host: &Host, args: &PsArgs) -> Result<u8> {
    let filters = ContainerFilters::parse(host, &args.filter)?;
    let limit = if args.latest { Some(1) } else { args.last.and_then(|last| usize::try_from(last).ok()) };
    let only_running = !args.all && limit.is_none() && !filters.ask_for_ended();
    let format = if args.quiet { Some("{{.ID}}") } else { args.format.as_deref() };
    let sized = args.size || format.is_some_and(|format| format.contains("Size") || format.contains("json"));
    let (containers, unreadable) = host.containers.list()?;
    note_unreadable(&unreadable);
    let (on, damaged) = host.networks.of_containers()?;
    damaged.iter().for_each(output::complain);
    let mut rows = Vec::new();
    for container in containers {
        let status = container.status();
        let shown = !only_running || status.as_ref().map_or(true, Status::is_up);
        if shown && filters.hold(host, &container, &status) && limit.is_none_or(|limit| rows.len() < limit) {
            let ports =
                network::shown(&container, status.as_ref().ok(), on.get(&container.spec.id).map_or(&[], Vec::as_slice))
                    .ports;
            rows.push(view::container_row(host, &container, &status, &ports, args.no_trunc, sized));
        }
        if let Err(error) = status {
            output::complain(&error.context(format!("container {}", container.spec.name)));
        }
    }
    let shown = unreadable.iter().filter(|one| args.filter.is_empty() && (!only_running || one.running.is_some()));
    rows.extend(shown.map(|one| view::unreadable_row(one, args.no_trunc).into()));
    let mut columns = COLUMNS.to_vec();
    columns.extend(args.size.then_some(SIZE));
    let headers = [COLUMNS.as_slice(), &MORE_COLUMNS].concat();
    print(&output::list(format, &columns, &headers, &rows)?)
}

/// How containers are to be stopped, as far as that was said.
struct StopOrder {
    signal: Option<i32>,
    timeout: Option<StopTimeout>,
}

impl StopOrder {
    /// What was typed is refused as a flag that does not parse is.
    fn parse(args: &StopArgs) -> Result<Self> {
        let timeout = args.time.as_deref().map(|text| limits::parse_stop_timeout("--time", text)).transpose();
        let timeout = timeout.map_err(|error| Coded::new(exit_code::OURS, error.to_string()))?;
        Ok(Self { signal: args.signal.as_deref().map(signals::parse).transpose()?, timeout })
    }

    fn carry_out(&self, container: &Container) -> Result<()> {
        let spec = &container.spec;
        let timeout = self.timeout.map_or(spec.stop_timeout_ms, StopTimeout::milliseconds);
        lifecycle::stop(container, self.signal.unwrap_or(spec.stop_signal), timeout)
    }
}

/// `amphora stop`.
pub(crate) fn stop(host: &Host, args: &StopArgs) -> Result<u8> {
    let order = StopOrder::parse(args)?;
    each(&args.containers, |name| {
        let container = find(host, name)?;
        order.carry_out(&container)?;
        output::say(name)
    })
}

/// `amphora restart`.
pub(crate) fn restart(host: &Host, args: &StopArgs) -> Result<u8> {
    let order = StopOrder::parse(args)?;
    let mut stopped: Vec<String> = Vec::new();
    let stopping = each(&args.containers, |name| {
        let container = find(host, name)?;
        if container.spec.auto_remove {
            bail!("container {name} is removed when it ends (--rm), so it cannot be started again");
        }
        order.carry_out(&container)?;
        stopped.push(name.to_owned());
        Ok(())
    });
    // Only now: from inside a user namespace a process of another one might be out of reach.
    become_root()?;
    let starting = each(&stopped, |name| {
        start_one(host, name)?;
        find(host, name)?.happened("restart");
        Ok(())
    });
    both(stopping, starting)
}

/// `amphora kill`.
pub(crate) fn kill(host: &Host, args: &KillArgs) -> Result<u8> {
    let signal = signals::parse(&args.signal)?;
    each(&args.containers, |name| {
        let container = find(host, name)?;
        let Some(run) = container.going_on()? else { bail!("container {name} is not running") };
        if [Signal::SIGKILL as i32, container.spec.stop_signal].contains(&signal) {
            container.note_halt()?;
        }
        match signal == Signal::SIGKILL as i32 {
            // What comes next, such as `rm`, may rely on its end.
            true => lifecycle::kill_and_wait(&container, &run)?,
            false => lifecycle::kill_as_wanted(&container, &run, signal)?,
        }
        output::say(name)
    })
}

/// `amphora wait`.
pub(crate) fn wait(host: &Host, args: &WaitArgs) -> Result<u8> {
    each(&args.containers, |name| {
        let code = wait::for_condition(host, &find(host, name)?, args.condition)?;
        output::say(&code.to_string())
    })
}

/// `amphora rm`.
pub(crate) fn rm(host: &Host, args: &RmArgs) -> Result<u8> {
    let mut ended = Vec::new();
    let killing = each(&args.containers, |name| {
        if args.force {
            // Before becoming root in a user namespace: from there its process might be out of reach.
            kill_found(host, name)?;
        }
        ended.push(name.to_owned());
        Ok(())
    });
    become_root()?;
    let removing = each(&ended, |name| {
        match (host.containers.find(name), args.force) {
            (Ok(container), force) => lifecycle::remove(host, &container, args.volumes, force)?,
            (Err(error), true) => match error.downcast::<FindError>()? {
                // As with Docker: what is gone already needs no force.
                FindError::NoSuch(_) => return Ok(()),
                FindError::Unreadable(container) => lifecycle::remove_unreadable(host, &container)?,
                ambiguous @ FindError::Ambiguous(_) => return Err(ambiguous.into()),
            },
            (Err(error), false) => return Err(error),
        }
        output::say(name)
    });
    both(killing, removing)
}

fn kill_found(host: &Host, name: &str) -> Result<()> {
    match host.containers.find(name) {
        Ok(container) => lifecycle::end_by_force(&container),
        Err(error) => match error.downcast::<FindError>()? {
            FindError::NoSuch(_) => Ok(()),
            FindError::Unreadable(container) => lifecycle::kill_unreadable(&container),
            ambiguous @ FindError::Ambiguous(_) => Err(ambiguous.into()),
        },
    }
}

/// What came of two steps: the first failure's code, and every failure said.
fn both(first: Result<u8>, second: Result<u8>) -> Result<u8> {
    match (first, second) {
        (Ok(0), second) => second,
        (first, Ok(_)) => first,
        (first, Err(error)) => {
            output::complain(&error);
            first
        }
    }
}
