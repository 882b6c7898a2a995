//! `stats`: what containers use.

use std::{
    collections::HashMap,
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use linux_exec::cgroup::Statistics;
use rustix::param::clock_ticks_per_second;
use serde_json::{Value, json};

use super::{find, note_unreadable};
use crate::{
    cli::StatsArgs,
    lifecycle::{group, processes, workload_of},
    output::{self, Column},
    records::{
        container::{Container, EngineRecord, Running, Status},
        host::Host,
    },
    spec::names,
};

const COLUMNS: [Column; 8] = [
    Column { header: "CONTAINER ID", field: "ID" },
    Column { header: "NAME", field: "Name" },
    Column { header: "CPU %", field: "CPUPerc" },
    Column { header: "MEM USAGE / LIMIT", field: "MemUsage" },
    Column { header: "MEM %", field: "MemPerc" },
    Column { header: "NET I/O", field: "NetIO" },
    Column { header: "BLOCK I/O", field: "BlockIO" },
    Column { header: "PIDS", field: "PIDs" },
];

/// What a template may name besides.
const MORE_COLUMNS: [Column; 6] = [
    Column { header: "CONTAINER", field: "Container" },
    Column { header: "REQUESTS", field: "Requests" },
    Column { header: "TRAPS", field: "Traps" },
    Column { header: "GUEST MEMORY", field: "GuestMemory" },
    Column { header: "GUEST PEAK", field: "GuestPeak" },
    Column { header: "FUEL", field: "Fuel" },
];

/// Between two looks; CPU time is that of this long.
const TICK: Duration = Duration::from_secs(1);
/// The same where only one answer is wanted.
const FIRST_TICK: Duration = Duration::from_millis(500);
/// A terminal's cursor goes to its top, and what is below is cleared.
const TO_THE_TOP: &str = "\u{1b}[H\u{1b}[J";

/// `amphora stats`.
pub(crate) fn stats(host: &Host, args: &StatsArgs) -> Result<u8> {
    let mut before = HashMap::new();
    // CPU time takes two looks.
    rows(host, args, &mut before)?;
    thread::sleep(FIRST_TICK);
    let headers = [COLUMNS.as_slice(), &MORE_COLUMNS].concat();
    loop {
        let rows = rows(host, args, &mut before)?;
        let table = output::list(args.format.as_deref(), &COLUMNS, &headers, &rows)?;
        let text = if args.no_stream || args.format.is_some() { table } else { format!("{TO_THE_TOP}{table}") };
        if !output::emit_to_somebody(&text)? || args.no_stream {
            return Ok(0);
        }
        thread::sleep(TICK);
    }
}

/// When a container was looked at, and what CPU time it had used.
type Before = HashMap<String, (Instant, u64)>;

fn rows(host: &Host, args: &StatsArgs, before: &mut Before) -> Result<Vec<output::Row>> {
    let containers = match args.containers.as_slice() {
        [] => {
            let (all, unreadable) = host.containers.list()?;
            note_unreadable(&unreadable);
            all
        }
        names => names.iter().map(|name| find(host, name)).collect::<Result<_>>()?,
    };
    let named = !args.containers.is_empty();
    let mut rows = Vec::new();
    for container in containers {
        match container.status() {
            Ok(Status::Running(running)) => rows.push(row(host, &container, &running, args.no_trunc, before)?.into()),
            _ if args.all || named => rows.push(idle_row(&container, args.no_trunc).into()),
            _ => {}
        }
    }
    Ok(rows)
}

fn id(container: &Container, whole: bool) -> &str {
    if whole { &container.spec.id } else { names::short_id(&container.spec.id) }
}

fn idle_row(container: &Container, whole: bool) -> Value {
    let id = id(container, whole);
    json!({
        "Container": id,
        "ID": id,
        "Name": container.spec.name,
        "CPUPerc": "--",
        "MemUsage": "-- / --",
        "MemPerc": "--",
        "NetIO": "--",
        "BlockIO": "--",
        "PIDs": "--",
        "Requests": "--",
        "Traps": "--",
        "GuestMemory": "--",
        "GuestPeak": "--",
        "Fuel": "--",
    })
}

fn row(host: &Host, container: &Container, running: &Running, whole: bool, before: &mut Before) -> Result<Value> {
    let spec = &container.spec;
    let cgroup = group::open(spec)?;
    let used = cgroup.map(|cgroup| cgroup.statistics()).unwrap_or_default();
    let processes = processes::of(running.pid, &spec.id);
    let ticks: u64 = processes.iter().map(|process| process.cpu_ticks).sum();
    let cpu_usec = used.cpu_usec.unwrap_or(ticks * 1_000_000 / clock_ticks_per_second().max(1));
    let now = Instant::now();
    let percent = match before.insert(spec.id.clone(), (now, cpu_usec)) {
        Some((then, had)) => {
            let wall_usec = now.duration_since(then).as_micros().max(1);
            u128::from(cpu_usec.saturating_sub(had)) * 10_000 / wall_usec
        }
        None => 0,
    };
    let own: u64 = processes.iter().map(|process| process.resident_bytes).sum();
    let memory = memory_bytes(workload_of(host, spec)?.behaviour().has_its_own_memory(), &used, own);
    let limit = spec.limits.memory_bytes.or(used.memory_limit_bytes).unwrap_or_else(machine_memory_bytes);
    let (received, sent) = network_bytes(running.pid);
    let sum = |of: fn(&linux_exec::cgroup::IoStatistics) -> u64| used.io.iter().map(of).sum::<u64>();
    let threads: u64 = processes.iter().map(|process| process.threads).sum();
    let id = id(container, whole);
    // Of a function; of nothing else it is known while it runs.
    let engine = container.engine().filter(|_| !spec.ports.is_empty());
    let of_engine = |of: &dyn Fn(&EngineRecord) -> String| engine.as_ref().map_or_else(|| "--".to_owned(), of);
    Ok(json!({
        "Container": id,
        "ID": id,
        "Name": spec.name,
        "CPUPerc": hundredths(percent),
        "MemUsage": format!("{} / {}", output::binary_size(memory), output::binary_size(limit)),
        "MemPerc": hundredths(u128::from(memory) * 10_000 / u128::from(limit.max(1))),
        "NetIO": format!("{} / {}", output::size(received), output::size(sent)),
        "BlockIO": format!(
            "{} / {}",
            output::size(sum(|device| device.read_bytes)),
            output::size(sum(|device| device.written_bytes))
        ),
        "PIDs": used.pids.unwrap_or(threads).to_string(),
        "Requests": of_engine(&|engine| engine.requests.to_string()),
        "Traps": of_engine(&|engine| engine.traps.to_string()),
        "GuestMemory": of_engine(&|engine| output::binary_size(engine.memory_bytes)),
        "GuestPeak": of_engine(&|engine| output::binary_size(engine.peak_memory_bytes)),
        "Fuel": of_engine(&|engine| engine.fuel_used.map_or_else(|| "--".to_owned(), |fuel| fuel.to_string())),
    }))
}

/// Of a Wasm program what its process has of its own, which is the guest's memory and a little of the engine's; code and what other
/// containers have too is mapped from files, and counts for nobody. Else as Docker: without files that nobody looked at lately.
fn memory_bytes(has_its_own: bool, used: &Statistics, own: u64) -> u64 {
    match used.memory_bytes.filter(|_| !has_its_own) {
        None => own,
        Some(bytes) => bytes.saturating_sub(used.memory_inactive_file_bytes.unwrap_or(0)),
    }
}

fn machine_memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}

/// What went through all interfaces of a process's network but the loopback: received, sent. None of it where that is the host's.
fn network_bytes(pid: i32) -> (u64, u64) {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    if namespace(&pid.to_string()) == namespace("self") {
        return (0, 0);
    }
    parse_interfaces(&fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default())
}

/// From proc_pid_net(5): `eth0: BYTES PACKETS …`, of which the ninth number is what was sent.
fn parse_interfaces(text: &str) -> (u64, u64) {
    let interfaces = text.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
    interfaces.fold((0, 0), |(received, sent), (_, numbers)| {
        let numbers: Vec<u64> = numbers.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect();
        let number = |index: usize| numbers.get(index).copied().unwrap_or(0);
        (received + number(0), sent + number(8))
    })
}

fn hundredths(value: u128) -> String {
    format!("{}.{:02}%", value / 100, value % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_add_up_without_the_loopback() {
        let text = "Inter-|   Receive                |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes\n    \
            lo: 9 9 9 9 9 9 9 9 9 9\n  eth0: 100 1 0 0 0 0 0 0 20 1\neth1:1 0 0 0 0 0 0 0 2 0\n";
        assert_eq!(parse_interfaces(text), (101, 22));
        assert_eq!(hundredths(12_345), "123.45%");
    }
}
