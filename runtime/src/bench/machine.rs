//! The machine that is measured on, and what it did meanwhile.

use std::{fs, path::Path};

use super::results::Machine;

/// CPU time of the whole machine so far, in clock ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct CpuTime {
    busy: u64,
    idle: u64,
    steal: u64,
}

/// Milliseconds of one tick of /proc/stat; the kernel says them all in hundredths of a second (USER_HZ).
const TICK_MS: f64 = 10.0;

impl CpuTime {
    pub(super) fn now() -> Self {
        Self::parse(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    fn parse(stat: &str) -> Self {
        let line = stat.lines().next().unwrap_or("").strip_prefix("cpu ").unwrap_or("");
        let ticks: Vec<u64> = line.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect();
        let tick = |index: usize| ticks.get(index).copied().unwrap_or(0);
        // user, nice, system, idle, iowait, irq, softirq, steal; guests count as user time already.
        Self { busy: tick(0) + tick(1) + tick(2) + tick(5) + tick(6), idle: tick(3) + tick(4), steal: tick(7) }
    }

    /// Milliseconds that all CPUs together were busy since then.
    pub(super) fn busy_ms_since(self, then: Self) -> f64 {
        self.busy.saturating_sub(then.busy) as f64 * TICK_MS
    }

    /// The share of the time since then that the host gave to others.
    pub(super) fn steal_since(self, then: Self) -> f64 {
        let steal = self.steal.saturating_sub(then.steal) as f64;
        let all = steal + (self.busy.saturating_sub(then.busy) + self.idle.saturating_sub(then.idle)) as f64;
        if all > 0.0 { steal / all } else { 0.0 }
    }
}

/// Finds out what figures depend on. `store`, `state`: where those lie.
pub(super) fn machine(store: &Path, state: &Path, cgroups: String, user: String) -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpu = read("/proc/cpuinfo");
    let memory = read("/proc/meminfo");
    Machine {
        kernel: read("/proc/sys/kernel/osrelease"),
        kernel_build: read("/proc/sys/kernel/version"),
        architecture: std::env::consts::ARCH.to_owned(),
        cpu: value(&cpu, "model name").or(value(&cpu, "CPU part")).unwrap_or("unknown").to_owned(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: kibibytes(&memory, "MemTotal"),
        cgroups,
        user,
        store_file_system: file_system(store),
        state_file_system: file_system(state),
        governor: match read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") {
            governor if governor.is_empty() => "none: the machine does not say it".to_owned(),
            governor => governor,
        },
        mitigations: mitigations(),
        clock_source: read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        huge_pages: chosen_of(&read("/sys/kernel/mm/transparent_hugepage/enabled")),
        is_virtual: cpu
            .lines()
            .any(|line| line.starts_with("flags") && line.split(' ').any(|flag| flag == "hypervisor")),
        is_container: is_container(),
        load_before: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()),
        steal: 0.0,
    }
}

/// What a file in /proc says after a name and a colon.
fn value<'s>(text: &'s str, name: &str) -> Option<&'s str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':').map(str::trim))
}

/// A line of /proc/meminfo or smaps_rollup, in bytes.
pub(super) fn kibibytes(text: &str, name: &str) -> u64 {
    let number = value(text, name).and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

fn mitigations() -> Vec<[String; 2]> {
    let files = fs::read_dir("/sys/devices/system/cpu/vulnerabilities").into_iter().flatten().flatten();
    let state = |file: &fs::DirEntry| fs::read_to_string(file.path()).unwrap_or_default().trim().to_owned();
    let mut found: Vec<[String; 2]> =
        files.map(|file| [file.file_name().to_string_lossy().into_owned(), state(&file)]).collect();
    found.retain(|[_, state]| state != "Not affected");
    found.sort();
    found
}

/// The word in brackets, of all that could be chosen.
fn chosen_of(words: &str) -> String {
    let chosen = words.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    chosen.unwrap_or("").to_owned()
}

/// The pid namespace that the kernel begins with; `PROC_PID_INIT_INO` of include/linux/proc_ns.h.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Whether this process is in a container itself: its processes are not all of the machine's.
fn is_container() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|namespace| namespace != Path::new(FIRST_PID_NAMESPACE))
}

/// The type of the file system that a path lies on.
fn file_system(path: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let found = mounts.lines().filter_map(|line| {
        let place = line.split(' ').nth(4)?;
        let kind = line.split(" - ").nth(1)?.split(' ').next()?;
        path.starts_with(place).then(|| (place.len(), kind.to_owned()))
    });
    // Of mounts at one place the last one is seen.
    found.max_by_key(|(length, _)| *length).map_or_else(|| "unknown".to_owned(), |(_, kind)| kind)
}

/// What differs between two machines, in words; those of them that figures hang on.
pub(super) fn differences(one: &Machine, other: &Machine) -> Vec<String> {
    let pairs = [
        ("kernel", &one.kernel, &other.kernel),
        ("architecture", &one.architecture, &other.architecture),
        ("CPU", &one.cpu, &other.cpu),
        ("cores", &one.cores.to_string(), &other.cores.to_string()),
        ("cgroups", &one.cgroups, &other.cgroups),
        ("user", &one.user, &other.user),
        ("file system of the store", &one.store_file_system, &other.store_file_system),
        ("file system of the state", &one.state_file_system, &other.state_file_system),
        ("governor", &one.governor, &other.governor),
        ("in a container", &one.is_container.to_string(), &other.is_container.to_string()),
    ]
    .map(|(name, one, other)| (one != other).then(|| format!("{name}: {one} and {other}")));
    pairs.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_time_is_counted_once() {
        let then = CpuTime::parse("cpu  100 0 50 1000 10 1 2 5 70 0\ncpu0 1 2 3\n");
        let now = CpuTime::parse("cpu  110 0 55 1070 10 1 7 15 70 0\n");
        assert_eq!(now.busy_ms_since(then), 200.0);
        assert_eq!(now.steal_since(then), 0.1);
        assert_eq!(CpuTime::parse("").steal_since(CpuTime::parse("")), 0.0);
    }

    #[test]
    fn what_is_chosen_stands_in_brackets() {
        assert_eq!([chosen_of("always [madvise] never"), chosen_of("")], ["madvise", ""]);
    }

    #[test]
    fn lines_of_proc_are_read_by_their_name() {
        let text = "MemTotal:       2048 kB\nMemTotalX: 1 kB\nmodel name\t: A: B\n";
        assert_eq!((kibibytes(text, "MemTotal"), kibibytes(text, "Nothing")), (2_097_152, 0));
        assert_eq!(value(text, "model name"), Some("A: B"));
    }
}
