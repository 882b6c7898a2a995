//! What a group uses now and has used, as values.

use super::{files, resources::Device};
use std::path::{Path, PathBuf};

/// Of one container; None is what this machine does not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Bytes in use.
    pub memory_bytes: Option<u64>,
    /// The most that ever were.
    pub memory_peak_bytes: Option<u64>,
    /// None: unlimited too.
    pub memory_limit_bytes: Option<u64>,
    /// Of the bytes in use, those of files that are mapped by nobody for long: what is left is what Docker shows.
    pub memory_inactive_file_bytes: Option<u64>,
    /// Processes killed by the limit.
    pub oom_kills: Option<u64>,
    /// Microseconds of all CPUs together.
    pub cpu_usec: Option<u64>,
    /// Of those in programs.
    pub cpu_user_usec: Option<u64>,
    /// Of those in the kernel.
    pub cpu_system_usec: Option<u64>,
    /// Periods in which the quota was used up.
    pub cpu_throttled_periods: Option<u64>,
    /// How long that kept threads from running, in microseconds.
    pub cpu_throttled_usec: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// None: unlimited too.
    pub pids_limit: Option<u64>,
    /// By device.
    pub io: Vec<IoStatistics>,
}

/// Of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoStatistics {
    /// Which.
    pub device: Device,
    /// Bytes.
    pub read_bytes: u64,
    /// Bytes.
    pub written_bytes: u64,
    /// Operations.
    pub reads: u64,
    /// Operations.
    pub writes: u64,
}

/// How v1 shows that there is no limit: the greatest number of whole pages.
const V1_UNLIMITED: u64 = 0x7fff_ffff_ffff_0000;

/// From whichever of the container's groups has each file; a name is that of v2, else that of v1.
pub(super) fn read(paths: &[PathBuf]) -> Statistics {
    let number = |names: &[&str]| first(paths, names, &files::read_number);
    let keyed = |names: &[&str], key: &str| first(paths, names, &|path| files::read_keyed(path, key));
    let nanos = |name: &str| number(&[name]).map(|nanos| nanos / 1000);
    Statistics {
        memory_bytes: number(&["memory.current", "memory.usage_in_bytes"]),
        memory_peak_bytes: number(&["memory.peak", "memory.max_usage_in_bytes"]),
        memory_limit_bytes: number(&["memory.max", "memory.limit_in_bytes"]).filter(|bytes| *bytes < V1_UNLIMITED),
        memory_inactive_file_bytes: keyed(&["memory.stat"], "total_inactive_file")
            .or_else(|| keyed(&["memory.stat"], "inactive_file")),
        oom_kills: keyed(&["memory.events", "memory.oom_control"], "oom_kill"),
        cpu_usec: keyed(&["cpu.stat"], "usage_usec").or_else(|| nanos("cpuacct.usage")),
        cpu_user_usec: keyed(&["cpu.stat"], "user_usec").or_else(|| nanos("cpuacct.usage_user")),
        cpu_system_usec: keyed(&["cpu.stat"], "system_usec").or_else(|| nanos("cpuacct.usage_sys")),
        cpu_throttled_periods: keyed(&["cpu.stat"], "nr_throttled"),
        cpu_throttled_usec: keyed(&["cpu.stat"], "throttled_usec")
            .or_else(|| keyed(&["cpu.stat"], "throttled_time").map(|nanos| nanos / 1000)),
        pids: number(&["pids.current"]),
        pids_limit: number(&["pids.max"]),
        io: io(paths),
    }
}

fn first(paths: &[PathBuf], names: &[&str], read: &dyn Fn(&Path) -> Option<u64>) -> Option<u64> {
    names.iter().find_map(|name| paths.iter().find_map(|path| read(&path.join(name))))
}

fn io(paths: &[PathBuf]) -> Vec<IoStatistics> {
    let text = |name: &str| paths.iter().find_map(|path| std::fs::read_to_string(path.join(name)).ok());
    if let Some(text) = text("io.stat") {
        return text.lines().filter_map(v2_line).collect();
    }
    let bytes = text("blkio.throttle.io_service_bytes_recursive").unwrap_or_default();
    let operations = text("blkio.throttle.io_serviced_recursive").unwrap_or_default();
    v1_lines(&bytes, &operations)
}

/// `8:16 rbytes=1 wbytes=2 rios=3 wios=4 …`
fn v2_line(line: &str) -> Option<IoStatistics> {
    let (numbers, values) = line.split_once(' ')?;
    let value = |key: &str| {
        let found = values.split(' ').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')?.parse().ok());
        found.unwrap_or(0)
    };
    Some(IoStatistics {
        device: device(numbers)?,
        read_bytes: value("rbytes"),
        written_bytes: value("wbytes"),
        reads: value("rios"),
        writes: value("wios"),
    })
}

/// `8:16 Read 1`, and so on; a sum of all devices at the end.
fn v1_lines(bytes: &str, operations: &str) -> Vec<IoStatistics> {
    let mut all: Vec<IoStatistics> = Vec::new();
    for (text, is_bytes) in [(bytes, true), (operations, false)] {
        for line in text.lines() {
            let mut fields = line.split(' ');
            let (Some(numbers), Some(kind), Some(Ok(value))) =
                (fields.next(), fields.next(), fields.next().map(str::parse::<u64>))
            else {
                continue;
            };
            let Some(device) = device(numbers) else { continue };
            let index = all.iter().position(|known| known.device == device).unwrap_or_else(|| {
                all.push(IoStatistics { device, read_bytes: 0, written_bytes: 0, reads: 0, writes: 0 });
                all.len() - 1
            });
            match (is_bytes, kind) {
                (true, "Read") => all[index].read_bytes = value,
                (true, "Write") => all[index].written_bytes = value,
                (false, "Read") => all[index].reads = value,
                (false, "Write") => all[index].writes = value,
                _ => {}
            }
        }
    }
    all
}

fn device(numbers: &str) -> Option<Device> {
    let (major, minor) = numbers.split_once(':')?;
    Some(Device { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_tell_the_same() {
        let device = Device { major: 8, minor: 16 };
        let expected = IoStatistics { device, read_bytes: 1, written_bytes: 2, reads: 3, writes: 4 };
        let v1 = v1_lines(
            "8:16 Read 1\n8:16 Write 2\n8:16 Sync 9\n8:16 Total 3\nTotal 3\n",
            "8:16 Read 3\n8:16 Write 4\n8:16 Total 7\nTotal 7\n",
        );
        assert_eq!(v1, [expected]);
        assert_eq!(v2_line("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0"), Some(expected));
        assert_eq!(
            v2_line("8:16 "),
            Some(IoStatistics { read_bytes: 0, written_bytes: 0, reads: 0, writes: 0, ..expected })
        );
    }
}
