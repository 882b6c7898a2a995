//! The processes of a container, as the host sees them.

use std::{fs, path::PathBuf};

use linux_exec::process::Process;

/// What proc_pid_stat(5) and proc_pid_status(5) tell of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    /// On the host.
    pub(crate) uid: u32,
    /// Number of its terminal; 0: none.
    pub(crate) terminal: u32,
    /// Clock ticks of CPU time.
    pub(crate) cpu_ticks: u64,
    /// Clock ticks since the machine began.
    pub(crate) start_ticks: u64,
    /// Memory in use that is not of a file.
    pub(crate) resident_bytes: u64,
    pub(crate) threads: u64,
    /// Its command line, or its name in brackets.
    pub(crate) command: String,
}

/// All processes of a container, its first one first; those that `exec` started too: what is in its pid namespace, and in its cgroup
/// if it has one, as others may be in the same namespace.
pub(crate) fn of(first: i32, id: &str) -> Vec<Found> {
    let Some(namespace) = namespace(first) else { return Vec::new() };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let inside = pids.filter(|&pid| self::namespace(pid).as_ref() == Some(&namespace));
    let is_grouped = |pid: i32| Process { pid, start_ticks: 0 }.is_in_cgroup(id).unwrap_or(false);
    let has_group = is_grouped(first);
    let inside = inside.filter(|&pid| !has_group || is_grouped(pid));
    let mut found: Vec<Found> = inside.filter_map(look_at).collect();
    found.sort_by_key(|process| (process.pid != first, process.pid));
    found
}

fn namespace(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

fn look_at(pid: i32) -> Option<Found> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    parse(pid, &stat, &status, &command)
}

fn parse(pid: i32, stat: &str, status: &str, command: &[u8]) -> Option<Found> {
    // The name may hold blanks and parentheses of its own.
    let (name, fields) = stat.rsplit_once(')')?;
    let name = name.split_once('(')?.1;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|field| field.parse::<i64>().ok()).unwrap_or(0);
    let unsigned = |index: usize| number(index).unsigned_abs();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next());
    let kilobytes = |name: &str| field(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let words: Vec<_> = command.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let command = words.join(" ").trim_end().to_owned();
    Some(Found {
        pid,
        parent: i32::try_from(number(1)).ok()?,
        uid: field("Uid:").and_then(|uid| uid.parse().ok()).unwrap_or(0),
        terminal: u32::try_from(number(4)).unwrap_or(0),
        cpu_ticks: unsigned(11) + unsigned(12),
        start_ticks: unsigned(19),
        resident_bytes: (kilobytes("RssAnon:") + kilobytes("RssShmem:")) << 10,
        threads: unsigned(17),
        command: if command.is_empty() { format!("[{name}]") } else { command },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let stat = "42 (a) b (c) S 7 42 42 34817 42 4194560 1 0 0 0 3 4 0 0 20 0 2 0 777 1 2 3";
        let status = "Name:\ta\nUid:\t1000\t0\t0\t0\nRssAnon:\t  12 kB\nRssFile:\t 99 kB\nRssShmem:\t   4 kB\n";
        let found = parse(42, stat, status, b"sh\0-c\0x y\0").unwrap();
        let expected = Found {
            pid: 42,
            parent: 7,
            uid: 1000,
            terminal: 34817,
            cpu_ticks: 7,
            start_ticks: 777,
            resident_bytes: 16 << 10,
            threads: 2,
            command: "sh -c x y".to_owned(),
        };
        assert_eq!(found, expected);
        assert_eq!(parse(42, stat, "", b"").unwrap().command, "[a) b (c]");
        assert_eq!(parse(42, "42", "", b""), None);
    }
}
