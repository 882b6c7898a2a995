//! What a container may use, one model for both kinds.
//!
//! The parsers take Docker's spelling of each flag. They do no I/O: what depends on the machine (its CPUs) is handed in.
//! Whether a limit can be enforced for the kind of image at hand is not decided here, but where the target is chosen.

use crate::spec::{quantity, rare_limits::RareLimits, request::StopTimeout};
use linux_exec::cgroup::LEAST_MEMORY_BYTES;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `None` is unlimited in every field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// `-m`. Linux: the cgroup's memory; Wasm: the sum of all linear memories and tables.
    pub memory_bytes: Option<u64>,
    /// `--memory-swap`: memory *plus* swap in bytes; -1 is unlimited swap. `None` with a memory limit: no swap at all.
    pub memory_swap_bytes: Option<i64>,
    /// `--cpus` in thousandths of a CPU, at least 10.
    pub cpu_millis: Option<u64>,
    /// `--cpu-shares`, the weight against others: 2 to 262144, where 1024 is usual.
    pub cpu_shares: Option<u64>,
    /// `--cpuset-cpus`, a list as the kernel writes it: `0-1,3`.
    pub cpuset_cpus: Option<String>,
    /// `--pids-limit`: processes and threads together.
    pub pids: Option<u64>,
    /// `--ulimit`, at most one for each resource.
    pub ulimits: Vec<Ulimit>,
    /// `--timeout`: how long it may run, in milliseconds of wall time.
    pub timeout_ms: Option<u64>,
    /// `--fuel`: Wasm instructions, as wasmtime counts them. Refused for Linux.
    pub fuel: Option<u64>,
    /// `--memory-reservation`: what it gets back first when memory is short.
    pub memory_reservation_bytes: Option<u64>,
    /// `--cpuset-mems`, a list as the kernel writes it.
    pub cpuset_mems: Option<String>,
    /// `--cpu-period` in microseconds.
    pub cpu_period_usec: Option<u64>,
    /// `--cpu-quota` in microseconds.
    pub cpu_quota_usec: Option<u64>,
    /// `--blkio-weight`: 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// `--device-read-bps` and its siblings.
    pub throttles: Vec<Throttle>,
    /// What few ask for.
    #[serde(skip_serializing_if = "RareLimits::is_default")]
    pub rare: RareLimits,
}

/// How fast one block device may be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    /// Its node on the host.
    pub path: PathBuf,
    /// What is counted.
    pub rate: ThrottleRate,
    /// Bytes or operations a second.
    pub limit: u64,
}

/// What a [`Throttle`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ThrottleRate {
    /// `--device-read-bps`
    ReadBps,
    /// `--device-write-bps`
    WriteBps,
    /// `--device-read-iops`
    ReadIops,
    /// `--device-write-iops`
    WriteIops,
}

/// One resource limit of setrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// As typed, and as `inspect` shows it: `nofile`.
    pub name: String,
    /// `RLIMIT_…` of x86-64 and arm64.
    pub resource: u32,
    /// In the resource's own unit (bytes, seconds, count); `u64::MAX` is unlimited.
    pub soft: u64,
    /// As `soft`, and never below it.
    pub hard: u64,
}

/// A flag whose value cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LimitError {
    /// It does not parse.
    #[error("invalid value `{found}` for {flag}: expected {expected}")]
    Invalid { flag: &'static str, found: String, expected: String },
    /// Less than works.
    #[error("invalid value `{found}` for {flag}: the minimum is {minimum}")]
    BelowMinimum { flag: &'static str, found: String, minimum: &'static str },
    /// More, or fewer, CPUs than there are.
    #[error(
        "invalid value `{found}` for --cpus: the range is from 0.01 to {online}.00, as {online} CPUs are available"
    )]
    CpusOutOfRange { found: String, online: u64 },
    /// A CPU that is not there.
    #[error("invalid value `{found}` for --cpuset-cpus: CPU {cpu} is not available, these are: {online}")]
    CpuMissing { found: String, cpu: u32, online: String },
    /// Soft above hard.
    #[error("invalid value `{found}` for --ulimit: the soft limit must not be above the hard limit")]
    SoftAboveHard { found: String },
    /// Two flags that do not go together.
    #[error(
        "--memory-swap {swap} is less than --memory {memory} (bytes): it is memory and swap together; give at least as much, or -1 for unlimited swap"
    )]
    SwapBelowMemory { swap: i64, memory: u64 },
    /// Two ways to say the same.
    #[error("--cpus and {other} cannot be used together: --cpus sets both period and quota")]
    CpusTwice { other: &'static str },
    /// A reservation above the limit.
    #[error("--memory-reservation {reservation} is above --memory {memory} (bytes): give at most as much")]
    ReservationAboveMemory { reservation: u64, memory: u64 },
    /// A swap limit alone means nothing.
    #[error("--memory-swap needs --memory: it limits memory and swap together; add -m SIZE")]
    SwapWithoutMemory,
}

pub(super) fn invalid(flag: &'static str, found: &str, expected: impl Into<String>) -> LimitError {
    LimitError::Invalid { flag, found: found.to_owned(), expected: expected.into() }
}

impl Limits {
    /// Checks what no flag can tell alone: swap against memory.
    ///
    /// # Errors
    /// `--memory-swap` without `--memory`, or below it.
    pub(crate) fn check(&self) -> Result<(), LimitError> {
        if self.cpu_millis.is_some() {
            let quota = self.cpu_quota_usec.map(|_| "--cpu-quota");
            if let Some(other) = quota.or(self.cpu_period_usec.map(|_| "--cpu-period")) {
                return Err(LimitError::CpusTwice { other });
            }
        }
        if let (Some(reservation), Some(memory)) = (self.memory_reservation_bytes, self.memory_bytes)
            && reservation > memory
        {
            return Err(LimitError::ReservationAboveMemory { reservation, memory });
        }
        match (self.memory_swap_bytes, self.memory_bytes) {
            (Some(_), None) => Err(LimitError::SwapWithoutMemory),
            (Some(swap), Some(memory)) if u64::try_from(swap).is_ok_and(|swap| swap < memory) => {
                Err(LimitError::SwapBelowMemory { swap, memory })
            }
            _ => Ok(()),
        }
    }
}

/// Parses `-m`: `128m`, `1g`; at least 6 MiB. `0` is unlimited, as with Docker.
pub(crate) fn parse_memory(text: &str) -> Result<Option<u64>, LimitError> {
    const FLAG: &str = "--memory";
    match quantity::parse_bytes(text).map_err(|expected| invalid(FLAG, text, expected))? {
        0 => Ok(None),
        bytes if bytes < LEAST_MEMORY_BYTES => {
            Err(LimitError::BelowMinimum { flag: FLAG, found: text.to_owned(), minimum: "6m (6291456 bytes)" })
        }
        bytes => Ok(Some(bytes)),
    }
}

/// Parses `--memory-reservation`: a size; `0` as if it were not given.
pub(crate) fn parse_memory_reservation(text: &str) -> Result<Option<u64>, LimitError> {
    let bytes = quantity::parse_bytes(text).map_err(|expected| invalid("--memory-reservation", text, expected))?;
    Ok((bytes != 0).then_some(bytes))
}

/// Parses `--cpuset-mems`; what the machine does not have the kernel refuses.
pub(crate) fn parse_cpuset_mems(text: &str) -> Result<String, LimitError> {
    let wanted = CpuList::parse(text).map(|list| list.to_string());
    wanted.ok_or_else(|| invalid("--cpuset-mems", text, "a list of memory nodes and ranges such as 0-2,4"))
}

/// Parses `--cpu-period` and `--cpu-quota`, in microseconds; `0` as if it were not given, and a quota of -1 is none.
pub(crate) fn parse_cpu_usec(flag: &'static str, text: &str) -> Result<Option<u64>, LimitError> {
    match text.parse::<i64>() {
        Ok(0) => Ok(None),
        Ok(-1) if flag == "--cpu-quota" => Ok(None),
        Ok(usec @ 1000..) => Ok(Some(usec.unsigned_abs())),
        _ => Err(invalid(flag, text, "microseconds, at least 1000")),
    }
}

/// Parses `--blkio-weight`: 10 to 1000, `0` as if it were not given.
pub(crate) fn parse_blkio_weight(text: &str) -> Result<Option<u16>, LimitError> {
    match text.parse() {
        Ok(0) => Ok(None),
        Ok(weight @ 10..=1000) => Ok(Some(weight)),
        _ => Err(invalid("--blkio-weight", text, "a whole number from 10 to 1000")),
    }
}

/// Parses one `--device-read-bps` or sibling: `/dev/vda:10mb`, `/dev/vda:1000`.
pub(crate) fn parse_throttle(flag: &'static str, rate: ThrottleRate, text: &str) -> Result<Throttle, LimitError> {
    let is_bytes = matches!(rate, ThrottleRate::ReadBps | ThrottleRate::WriteBps);
    let parse = |limit: &str| if is_bytes { quantity::parse_bytes(limit).ok() } else { limit.parse().ok() };
    let found = text.rsplit_once(':').filter(|(path, _)| path.starts_with('/'));
    let throttle = found.and_then(|(path, limit)| Some(Throttle { path: path.into(), rate, limit: parse(limit)? }));
    let expected = if is_bytes { "DEVICE:RATE such as /dev/sda:1mb" } else { "DEVICE:RATE such as /dev/sda:1000" };
    throttle.ok_or_else(|| invalid(flag, text, expected))
}

/// Parses `--memory-swap`: a size, `-1` for unlimited, `0` as if it were not given.
pub(crate) fn parse_memory_swap(text: &str) -> Result<Option<i64>, LimitError> {
    if text == "-1" {
        return Ok(Some(-1));
    }
    let expected = || invalid("--memory-swap", text, "a size such as 512m or 1g, or -1 for unlimited");
    let bytes = quantity::parse_bytes(text).map_err(|_| expected())?;
    let bytes = i64::try_from(bytes).map_err(|_| expected())?;
    Ok((bytes != 0).then_some(bytes))
}

/// Parses `--cpus` into thousandths: `0.5` is 500. `0` is unlimited. What is finer than a thousandth is cut off.
pub(crate) fn parse_cpus(text: &str, online: u64) -> Result<Option<u64>, LimitError> {
    let micros =
        quantity::parse_micros(text).ok_or_else(|| invalid("--cpus", text, "a number of CPUs such as 0.5 or 1.25"))?;
    let millis = u64::try_from(micros / 1000).unwrap_or(u64::MAX);
    match millis {
        0 if text.bytes().all(|byte| matches!(byte, b'0' | b'.')) => Ok(None),
        10.. if millis <= online * 1000 => Ok(Some(millis)),
        _ => Err(LimitError::CpusOutOfRange { found: text.to_owned(), online }),
    }
}

/// Parses `--cpu-shares`: 2 to 262144, the range of the kernel's `cpu.shares`; `0` as if it were not given.
pub(crate) fn parse_cpu_shares(text: &str) -> Result<Option<u64>, LimitError> {
    match text.parse() {
        Ok(0) => Ok(None),
        Ok(shares @ 2..=262_144) => Ok(Some(shares)),
        _ => Err(invalid("--cpu-shares", text, "a whole number from 2 to 262144 (1024 is usual)")),
    }
}

/// Parses `--cpuset-cpus` (`0-2,4`) and checks it against the list of CPUs that are online. The result is in the kernel's
/// own spelling.
pub(crate) fn parse_cpuset_cpus(text: &str, online: &CpuList) -> Result<String, LimitError> {
    let wanted = CpuList::parse(text)
        .ok_or_else(|| invalid("--cpuset-cpus", text, "a list of CPUs and ranges such as 0-2,4"))?;
    match wanted.cpus().find(|cpu| !online.contains(*cpu)) {
        Some(cpu) => Err(LimitError::CpuMissing { found: text.to_owned(), cpu, online: online.to_string() }),
        None => Ok(wanted.to_string()),
    }
}

/// Parses `--pids-limit`: `0` and `-1` are unlimited.
pub(crate) fn parse_pids(text: &str) -> Result<Option<u64>, LimitError> {
    match text.parse::<i64>() {
        Ok(0 | -1) => Ok(None),
        Ok(pids) if pids > 0 => Ok(Some(pids.unsigned_abs())),
        _ => Err(invalid("--pids-limit", text, "a whole number of processes, or -1 for unlimited")),
    }
}

/// Parses `--timeout`: `10s`, `1m30s`, `500ms`, or seconds; `0` is unlimited.
pub(crate) fn parse_timeout(text: &str) -> Result<Option<u64>, LimitError> {
    let millis = quantity::parse_duration_ms(text).map_err(|expected| invalid("--timeout", text, expected))?;
    Ok((millis != 0).then_some(millis))
}

/// Parses how long a container has between its stop signal and SIGKILL, in milliseconds: a duration, or `-1` to wait for
/// ever. `flag` is `--stop-timeout` of `run`, `--time` of `stop`.
pub(crate) fn parse_stop_timeout(flag: &'static str, text: &str) -> Result<StopTimeout, LimitError> {
    if text == "-1" {
        return Ok(StopTimeout::Never);
    }
    quantity::parse_duration_ms(text)
        .map(StopTimeout::After)
        .map_err(|expected| invalid(flag, text, format!("{expected}, or -1 to wait for ever")))
}

/// Parses `--fuel`, a count of at least one.
pub(crate) fn parse_fuel(text: &str) -> Result<u64, LimitError> {
    text.parse()
        .ok()
        .filter(|fuel| *fuel > 0)
        .ok_or_else(|| invalid("--fuel", text, "a whole number of instructions, at least 1"))
}

/// Parses each `--ulimit`; of two for one resource the last one holds.
pub(crate) fn parse_ulimits<S: AsRef<str>>(texts: &[S]) -> Result<Vec<Ulimit>, LimitError> {
    let mut ulimits: Vec<Ulimit> = Vec::new();
    for text in texts {
        let ulimit = parse_ulimit(text.as_ref())?;
        ulimits.retain(|earlier| earlier.resource != ulimit.resource);
        ulimits.push(ulimit);
    }
    Ok(ulimits)
}

/// Parses one `--ulimit`: `nofile=1024:2048`, `nproc=64`, `core=-1`, `core=unlimited`.
pub(crate) fn parse_ulimit(text: &str) -> Result<Ulimit, LimitError> {
    const FLAG: &str = "--ulimit";
    let (name, values) = text.split_once('=').ok_or_else(|| invalid(FLAG, text, "NAME=SOFT[:HARD]"))?;
    let resource = resource_number(name).ok_or_else(|| {
        invalid(FLAG, text, format!("one of the limits {}", RESOURCES.map(|(name, _)| name).join(", ")))
    })?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let value = |part| parse_ulimit_value(part).ok_or_else(|| invalid(FLAG, text, "numbers, or -1 for unlimited"));
    let (soft, hard) = (value(soft)?, value(hard)?);
    if soft > hard {
        return Err(LimitError::SoftAboveHard { found: text.to_owned() });
    }
    Ok(Ulimit { name: name.to_owned(), resource, soft, hard })
}

fn parse_ulimit_value(text: &str) -> Option<u64> {
    if text == "-1" || text == "unlimited" { Some(u64::MAX) } else { text.parse().ok() }
}

/// The names are Docker's, and `as`; the numbers those of asm-generic/resource.h, which x86-64 and arm64 use.
const RESOURCES: [(&str, u32); 16] = [
    ("as", 9),
    ("core", 4),
    ("cpu", 0),
    ("data", 2),
    ("fsize", 1),
    ("locks", 10),
    ("memlock", 8),
    ("msgqueue", 12),
    ("nice", 13),
    ("nofile", 7),
    ("nproc", 6),
    ("rss", 5),
    ("rtprio", 14),
    ("rttime", 15),
    ("sigpending", 11),
    ("stack", 3),
];

fn resource_number(name: &str) -> Option<u32> {
    RESOURCES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// A set of CPUs, written as the kernel does in /sys/devices/system/cpu/online: `0-3,8`. cpuset(7), "List format".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CpuList {
    /// First and last, ascending, apart from each other.
    ranges: Vec<(u32, u32)>,
}

impl CpuList {
    /// Parses single numbers and ranges with commas between; order and overlap do not matter. `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut ranges = text.trim_end().split(',').map(parse_range).collect::<Option<Vec<_>>>()?;
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Some(Self { ranges: merged })
    }

    /// Reads which CPUs are online; where the kernel does not tell, assumes as many as this process may use.
    pub(crate) fn online() -> Self {
        let listed = std::fs::read_to_string("/sys/devices/system/cpu/online").ok();
        listed.and_then(|text| Self::parse(&text)).unwrap_or_else(|| {
            let count = std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1));
            Self { ranges: vec![(0, count - 1)] }
        })
    }

    /// How many CPUs it has.
    pub(crate) fn count(&self) -> u64 {
        self.ranges.iter().map(|(first, last)| u64::from(last - first) + 1).sum()
    }

    fn contains(&self, cpu: u32) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&cpu))
    }

    fn cpus(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last)
    }
}

/// No machine has a CPU of a higher number; the bound keeps the arithmetic and the search above small.
const LAST_CPU: u32 = 65_535;

fn parse_range(text: &str) -> Option<(u32, u32)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse::<u32>().ok().filter(|cpu| *cpu <= LAST_CPU && !text.starts_with('+'));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

impl std::fmt::Display for CpuList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_and_has_a_minimum() {
        assert_eq!(parse_memory("128m"), Ok(Some(128 << 20)));
        assert_eq!(parse_memory("6m"), Ok(Some(LEAST_MEMORY_BYTES)));
        assert_eq!(parse_memory("0"), Ok(None));
        let message = parse_memory("1k").unwrap_err().to_string();
        assert_eq!(message, "invalid value `1k` for --memory: the minimum is 6m (6291456 bytes)");
        let message = parse_memory("lots").unwrap_err().to_string();
        assert_eq!(message, "invalid value `lots` for --memory: expected a size such as 512, 64k, 128m or 1.5g");
    }

    #[test]
    fn swap_counts_memory_too() {
        assert_eq!(parse_memory_swap("-1"), Ok(Some(-1)));
        assert_eq!(parse_memory_swap("0"), Ok(None));
        assert_eq!(parse_memory_swap("1g"), Ok(Some(1 << 30)));
        assert!(parse_memory_swap("-2").is_err());
        let limits = |memory_bytes, memory_swap_bytes| Limits { memory_bytes, memory_swap_bytes, ..Limits::default() };
        assert_eq!(limits(Some(100), Some(100)).check(), Ok(()));
        assert_eq!(limits(Some(100), Some(-1)).check(), Ok(()));
        assert_eq!(limits(Some(100), None).check(), Ok(()));
        assert_eq!(limits(None, Some(-1)).check(), Err(LimitError::SwapWithoutMemory));
        assert_eq!(limits(Some(100), Some(99)).check(), Err(LimitError::SwapBelowMemory { swap: 99, memory: 100 }));
    }

    #[test]
    fn cpus_are_thousandths_within_the_machine() {
        for (text, millis) in
            [("0.5", Some(500)), ("1.25", Some(1250)), ("2", Some(2000)), (".01", Some(10)), ("0", None), ("0.0", None)]
        {
            assert_eq!(parse_cpus(text, 2), Ok(millis), "{text}");
        }
        for text in ["0.001", "0.0000001", "2.001", "99999999999999999", "-1", "half", ""] {
            assert!(parse_cpus(text, 2).is_err(), "{text}");
        }
        let message = parse_cpus("3", 2).unwrap_err().to_string();
        assert_eq!(message, "invalid value `3` for --cpus: the range is from 0.01 to 2.00, as 2 CPUs are available");
    }

    #[test]
    fn shares_pids_timeout_and_fuel() {
        assert_eq!(parse_cpu_shares("512"), Ok(Some(512)));
        assert_eq!(parse_cpu_shares("0"), Ok(None));
        assert!(parse_cpu_shares("1").is_err());
        assert!(parse_cpu_shares("262145").is_err());
        assert_eq!(parse_pids("64"), Ok(Some(64)));
        assert_eq!(parse_pids("0"), Ok(None));
        assert_eq!(parse_pids("-1"), Ok(None));
        assert!(parse_pids("-2").is_err());
        assert_eq!(parse_timeout("1m30s"), Ok(Some(90_000)));
        assert_eq!(parse_timeout("0"), Ok(None));
        assert!(parse_timeout("soon").is_err());
        assert_eq!(parse_fuel("1000"), Ok(1000));
        assert!(parse_fuel("0").is_err());
        assert_eq!(parse_stop_timeout("--stop-timeout", "0"), Ok(StopTimeout::After(0)));
        assert_eq!(parse_stop_timeout("--stop-timeout", "-1"), Ok(StopTimeout::Never));
        let message = parse_stop_timeout("--time", "x").unwrap_err().to_string();
        assert!(message.starts_with("invalid value `x` for --time: expected a duration"), "{message}");
    }

    #[test]
    fn ulimits_are_read() {
        let table = [
            ("nofile=1024:2048", 7, 1024, 2048),
            ("nofile=0", 7, 0, 0),
            ("nproc=64", 6, 64, 64),
            ("core=-1", 4, u64::MAX, u64::MAX),
            ("core=unlimited", 4, u64::MAX, u64::MAX),
            ("stack=8388608:unlimited", 3, 8 << 20, u64::MAX),
            ("as=1073741824", 9, 1 << 30, 1 << 30),
        ];
        for (text, resource, soft, hard) in table {
            let ulimit = parse_ulimit(text).unwrap();
            assert_eq!((ulimit.resource, ulimit.soft, ulimit.hard), (resource, soft, hard), "{text}");
        }
    }

    #[test]
    fn bad_ulimits_are_refused_by_name() {
        for text in ["nofile", "nofile=", "nofile=a", "nofile=1:", "nofile=1:2:3", "files=1", "=1", "core=-2", ""] {
            let message = parse_ulimit(text).unwrap_err().to_string();
            assert!(message.starts_with(&format!("invalid value `{text}` for --ulimit: ")), "{message}");
        }
        for text in ["nofile=2:1", "core=-1:5"] {
            assert_eq!(parse_ulimit(text), Err(LimitError::SoftAboveHard { found: text.to_owned() }));
        }
    }

    #[test]
    fn the_last_ulimit_of_a_resource_holds() {
        let ulimits = parse_ulimits(&["nofile=1", "core=0", "nofile=2"]).unwrap();
        let pairs: Vec<_> = ulimits.iter().map(|ulimit| (ulimit.name.as_str(), ulimit.soft)).collect();
        assert_eq!(pairs, [("core", 0), ("nofile", 2)]);
    }

    #[test]
    fn cpu_lists_are_read_and_written_as_the_kernel_does() {
        for (text, written, count) in
            [("0", "0", 1), ("0-3\n", "0-3", 4), ("3,1,2", "1-3", 3), ("0-2,2-4,8", "0-4,8", 6)]
        {
            let list = CpuList::parse(text).unwrap();
            assert_eq!((list.to_string().as_str(), list.count()), (written, count), "{text}");
        }
        for text in ["", "a", "1-", "-1", "2-1", "0,,1", "0-4294967295", "+1"] {
            assert_eq!(CpuList::parse(text), None, "{text}");
        }
        assert!(CpuList::online().count() >= 1);
    }

    #[test]
    fn a_cpu_that_is_not_there_is_named() {
        let online = CpuList::parse("0-1").unwrap();
        assert_eq!(parse_cpuset_cpus("1,0", &online), Ok("0-1".to_owned()));
        let message = parse_cpuset_cpus("0,7", &online).unwrap_err().to_string();
        assert_eq!(message, "invalid value `0,7` for --cpuset-cpus: CPU 7 is not available, these are: 0-1");
        assert!(parse_cpuset_cpus("x", &online).unwrap_err().to_string().contains("such as 0-2,4"));
    }

    #[test]
    fn stored_limits_of_another_version_are_read() {
        let limits =
            Limits { memory_bytes: Some(1), ulimits: parse_ulimits(&["nofile=1"]).unwrap(), ..Limits::default() };
        let text = serde_json::to_string(&limits).unwrap();
        assert_eq!(serde_json::from_str::<Limits>(&text).unwrap(), limits);
        let other: Limits = serde_json::from_str(r#"{"pids":7,"of_a_newer_version":1}"#).unwrap();
        assert_eq!(other, Limits { pids: Some(7), ..Limits::default() });
    }
}
