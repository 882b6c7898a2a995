//! The limits as numbers: which ones the kernel would take, and what it wants to read. Pure.

use super::{
    CgroupError, Controller,
    resources::{Further, Resources},
};

/// The kernel's default, in microseconds.
pub(super) const CPU_PERIOD_USEC: u64 = 100_000;

/// The least memory that a container may be limited to. Docker's figure: less does not hold a program, its pages of the page
/// cache and what the kernel keeps for it.
pub const LEAST_MEMORY_BYTES: u64 = 6 << 20;
/// The kernel refuses a quota under one millisecond per period.
const LEAST_CPU_MILLIS: u64 = 10;
const LEAST_SHARES: u64 = 2;
const MOST_SHARES: u64 = 262_144;

/// Refuses what the kernel would refuse, or round to something else.
pub(super) fn check(wanted: &Resources) -> Result<(), CgroupError> {
    check_memory(wanted)?;
    at_least("the CPU limit", wanted.cpu_millis, LEAST_CPU_MILLIS, "at least 0.01 (10 thousandths of a CPU)")?;
    let shares = "a number from 2 to 262144";
    at_least("the CPU shares", wanted.cpu_shares, LEAST_SHARES, shares)?;
    if let Some(found) = wanted.cpu_shares.filter(|found| *found > MOST_SHARES) {
        return Err(refused("the CPU shares", &found, shares));
    }
    at_least("the limit of processes", wanted.pids, 1, "at least 1")?;
    wanted.cpuset_cpus.as_deref().map_or(Ok(()), |list| CpuList::parse(list).map(drop))?;
    check_further(&wanted.further)
}

fn check_further(further: &Further) -> Result<(), CgroupError> {
    let mut weights = further.io_weight.iter().chain(further.io_weight_devices.iter().map(|(_, weight)| weight));
    if let Some(found) = weights.find(|weight| !(10..=1000).contains(*weight)) {
        return Err(refused("the weight of block I/O", found, "a number from 10 to 1000"));
    }
    if let Some(found) = further.memory_swappiness.filter(|found| *found > 100) {
        return Err(refused("the swappiness", &found, "a number from 0 to 100"));
    }
    at_least("the CPU quota", further.cpu_quota_usec, 1000, "at least 1000 microseconds")?;
    if let Some(found) = further.cpu_period_usec.filter(|found| !(1000..=1_000_000).contains(found)) {
        return Err(refused("the CPU period", &found, "1000 to 1000000 microseconds"));
    }
    let words = further.hugepages.iter().map(|(size, _)| size).chain(further.rdma.iter().map(|(device, ..)| device));
    let mut words = words.chain(further.network_priorities.iter().map(|(interface, _)| interface));
    if let Some(found) = words.find(|word| word.is_empty() || word.contains(['/', ' ', '\n', '\0'])) {
        return Err(refused("a page size or name of a device", found, "one word without a slash"));
    }
    // `cgroup.*` would move processes, kill or freeze.
    let is_a_limit = |file: &str| {
        let prefix = file.split_once('.').map(|(prefix, _)| prefix);
        prefix.and_then(Controller::of_v2_file).is_some() && !file.contains(['/', '\0'])
    };
    match further.unified.keys().find(|file| !is_a_limit(file)) {
        Some(file) => Err(refused("a file in `unified`", file, "a controller's, such as memory.high")),
        None => Ok(()),
    }
}

fn check_memory(wanted: &Resources) -> Result<(), CgroupError> {
    at_least("the memory limit", wanted.memory_bytes, LEAST_MEMORY_BYTES, "at least 6m (6291456 bytes)")?;
    match (wanted.memory_bytes, wanted.memory_swap_bytes) {
        (None, Some(found)) if found != u64::MAX => {
            Err(refused("the limit of memory and swap", &found, "the memory limit beside it"))
        }
        (Some(memory), Some(found)) if found < memory => {
            let expected = format!("at least the memory limit ({memory} bytes): it is memory and swap together");
            Err(refused("the limit of memory and swap", &found, &expected))
        }
        _ => Ok(()),
    }
}

fn at_least(option: &'static str, found: Option<u64>, least: u64, expected: &str) -> Result<(), CgroupError> {
    match found {
        Some(found) if found < least => Err(refused(option, &found, expected)),
        _ => Ok(()),
    }
}

fn refused(option: &'static str, found: &(impl ToString + ?Sized), expected: &str) -> CgroupError {
    CgroupError::Value { option, found: found.to_string(), expected: expected.to_owned() }
}

/// Whether the limits can only be kept where swap is accounted: some swap is allowed, and not all of it. (That swap is off
/// beside a memory limit is meant too, but by default, and a kernel that does not account it seldom has any.)
pub(super) fn limits_swap(wanted: &Resources) -> bool {
    wanted.memory_swap_bytes.is_some_and(|swap| swap != u64::MAX && wanted.memory_bytes.is_some())
}

/// Microseconds per period of [`CPU_PERIOD_USEC`].
pub(super) fn cpu_quota_usec(cpu_millis: u64) -> u64 {
    cpu_millis.saturating_mul(CPU_PERIOD_USEC / 1000)
}

/// From v1's 2..=262144 to v2's 1..=10000 so that the defaults, 1024 and 100, are each other's: the curve that runc
/// (opencontainers/cgroups, ConvertCPUSharesToCgroupV2Value) and crun draw since 2025.
pub(super) fn cpu_weight(shares: u64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to 10000")]
    #[expect(clippy::cast_precision_loss, reason = "at most 262144")]
    match shares {
        0..=LEAST_SHARES => 1,
        MOST_SHARES.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            10_f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

/// From v1's 10..=1000 to v2's 1..=10000, linearly, as runc and crun do.
pub(super) fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).saturating_sub(10) * 9999) / 990
}

/// Checks that all CPUs of `wanted` are among `available`, both as the kernel writes them.
pub(super) fn check_cpus(wanted: &str, available: &str) -> Result<(), CgroupError> {
    let (list, present) = (CpuList::parse(wanted)?, CpuList::parse(available)?);
    let contained = |(first, last): &(u32, u32)| present.covers(*first, *last);
    if list.ranges.iter().all(contained) {
        return Ok(());
    }
    Err(refused("the list of CPUs", wanted, &format!("CPUs out of {available}, which are the ones here")))
}

/// CPU numbers such as `0-1,3`; cpuset(7), list format.
struct CpuList {
    /// First and last, both included; sorted.
    ranges: Vec<(u32, u32)>,
}

impl CpuList {
    fn parse(text: &str) -> Result<Self, CgroupError> {
        let ranges: Option<Vec<_>> = text.trim().split(',').map(Self::parse_range).collect();
        let mut ranges = ranges.ok_or_else(|| refused("the list of CPUs", text, "a list such as 0-1,3"))?;
        ranges.sort_unstable();
        Ok(Self { ranges })
    }

    fn parse_range(text: &str) -> Option<(u32, u32)> {
        let number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?;
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = (number(first)?, number(last)?);
        (range.0 <= range.1).then_some(range)
    }

    /// Whether every CPU from `first` to `last` is in the list.
    fn covers(&self, first: u32, last: u32) -> bool {
        let mut next = u64::from(first);
        for (start, end) in &self.ranges {
            if u64::from(*start) <= next {
                next = next.max(u64::from(*end) + 1);
            }
        }
        next > u64::from(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_and_quotas() {
        for (shares, weight) in [(2, 1), (3, 2), (512, 59), (1024, 100), (262_143, 10_000), (262_144, 10_000)] {
            assert_eq!(cpu_weight(shares), weight, "{shares} shares");
        }
        for (weight, converted) in [(10, 1), (500, 4950), (1000, 10_000)] {
            assert_eq!(io_weight(weight), converted, "{weight}");
        }
        assert_eq!(cpu_quota_usec(1500), 150_000);
        assert_eq!(cpu_quota_usec(LEAST_CPU_MILLIS), 1000);
    }

    #[test]
    fn cpus_are_compared() {
        for (wanted, available, fits) in [
            ("0", "0-1", true),
            ("0-1", "0-1\n", true),
            ("0-5", "0-2,3,4-7", true),
            ("1,0", "0-1", true),
            ("2", "0-1", false),
            ("0-2", "0-1,3", false),
            ("4294967295", "0-4294967295", true),
        ] {
            assert_eq!(check_cpus(wanted, available).is_ok(), fits, "{wanted} of {available}");
        }
        for malformed in ["", "a", "1-", "-1", "2-1", "0,,1", "+1", "99999999999"] {
            let error = check_cpus(malformed, "0-1").unwrap_err().to_string();
            assert!(error.contains("a list such as"), "{malformed}: {error}");
        }
    }

    #[test]
    fn values_that_the_kernel_would_refuse_or_round() {
        let none = Resources::default;
        let list = |text: &str| Some(text.to_owned());
        let further = |further| Resources { further, ..none() };
        let unified =
            |file: &str| Further { unified: [(file.to_owned(), "1".to_owned())].into(), ..Further::default() };
        for (wanted, words) in [
            (further(unified("cgroup.procs")), "a file in `unified` cgroup.procs: expected"),
            (further(unified("memory.max/../../x")), "a file in `unified`"),
            (further(unified("memory")), "a file in `unified`"),
            (further(Further { io_weight: Some(9), ..Further::default() }), "the weight of block I/O 9: expected"),
            (further(Further { cpu_period_usec: Some(9), ..Further::default() }), "the CPU period 9: expected"),
            (
                further(Further { hugepages: vec![("../x".into(), 1)], ..Further::default() }),
                "a page size or name of a device ../x: expected",
            ),
            (Resources { memory_bytes: Some(1024), ..none() }, "the memory limit 1024: expected at least 6m"),
            (
                Resources { memory_swap_bytes: Some(9), ..none() },
                "the limit of memory and swap 9: expected the memory limit",
            ),
            (
                Resources { memory_bytes: Some(8 << 20), memory_swap_bytes: Some(5), ..none() },
                "the limit of memory and swap 5: expected at least the memory limit (8388608 bytes)",
            ),
            (Resources { cpu_millis: Some(9), ..none() }, "the CPU limit 9: expected at least 0.01"),
            (Resources { cpu_shares: Some(1), ..none() }, "the CPU shares 1: expected"),
            (Resources { cpu_shares: Some(262_145), ..none() }, "the CPU shares 262145: expected"),
            (Resources { pids: Some(0), ..none() }, "the limit of processes 0: expected at least 1"),
            (Resources { cpuset_cpus: list("x"), ..none() }, "the list of CPUs x: expected a list"),
        ] {
            let error = check(&wanted).unwrap_err().to_string();
            assert!(error.starts_with(words), "{error}");
        }
        let fine = Resources {
            memory_bytes: Some(LEAST_MEMORY_BYTES),
            memory_swap_bytes: Some(u64::MAX),
            cpu_millis: Some(10),
            cpu_shares: Some(2),
            cpuset_cpus: list("0"),
            pids: Some(1),
            ..Resources::default()
        };
        check(&fine).unwrap();
        assert!(!limits_swap(&fine));
    }
}
