//! `top`: the processes of a container, as the host's ps(1) shows them.

use std::process::Command as Program;

use anyhow::{Context, Result, bail};
use rustix::param::clock_ticks_per_second;

use super::{find, print};
use crate::{
    cli::TopArgs,
    lifecycle::processes::{self, Found},
    output::{self, errors::Coded},
    records::host::Host,
};

/// `amphora top`.
pub(crate) fn top(host: &Host, args: &TopArgs) -> Result<u8> {
    let container = find(host, &args.container)?;
    let Some(run) = container.going_on()? else {
        bail!(Coded::new(1, format!("container {} is not running", args.container)));
    };
    let found = processes::of(run.running.pid, &container.spec.id);
    let options: Vec<&str> = args.options.iter().map(String::as_str).collect();
    match options.as_slice() {
        [] | ["-ef"] => print(&full(&found)),
        options => print(&filtered(&by_ps(options)?, &found)?),
    }
}

/// What `ps -ef` shows.
fn full(found: &[Found]) -> String {
    let header = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
    let now = output::now_nanos();
    let lines = found.iter().map(|process| {
        let seconds = process.cpu_ticks / clock_ticks_per_second().max(1);
        let age = age_seconds(process);
        let busy = (seconds * 100).checked_div(age).unwrap_or(0).min(99);
        vec![
            user_name(process.uid),
            process.pid.to_string(),
            process.parent.to_string(),
            busy.to_string(),
            output::clock_utc(now - i64::try_from(age).unwrap_or(0) * 1_000_000_000),
            terminal(process.terminal),
            format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
            output::harmless(&process.command).into_owned(),
        ]
    });
    let rows: Vec<Vec<String>> = std::iter::once(header.map(str::to_owned).to_vec()).chain(lines).collect();
    output::aligned(&rows)
}

fn age_seconds(process: &Found) -> u64 {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let uptime: u64 = uptime.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0);
    uptime.saturating_sub(process.start_ticks / clock_ticks_per_second().max(1))
}

fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| uid.to_string())
}

fn terminal(number: u32) -> String {
    // The majors of UNIX 98 pseudoterminals.
    match (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xf_ff00) {
        (0, _) => "?".to_owned(),
        (major @ 136..=143, minor) => format!("pts/{}", (major - 136) * 256 + minor),
        (4, minor) => format!("tty{minor}"),
        (major, minor) => format!("{major}:{minor}"),
    }
}

/// What the host's ps(1) says, which knows all of its options.
fn by_ps(options: &[&str]) -> Result<String> {
    let said = Program::new("ps").args(options).output();
    let said =
        said.context("cannot run ps(1) of the host, which options of top need; without options none is needed")?;
    if !said.status.success() {
        bail!(Coded::new(1, format!("ps: {}", String::from_utf8_lossy(&said.stderr).trim())));
    }
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

/// The header, and the lines of these processes.
fn filtered(said: &str, found: &[Found]) -> Result<String> {
    let mut lines = said.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_ascii_whitespace().position(|name| name == "PID");
    let column = column.context("ps shows no column PID, by which the processes of the container are found")?;
    let count = header.split_ascii_whitespace().count();
    let mut rows = vec![header.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>()];
    for line in lines {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let pid = words.get(column).and_then(|pid| pid.parse::<i32>().ok());
        if words.len() < count || !pid.is_some_and(|pid| found.iter().any(|process| process.pid == pid)) {
            continue;
        }
        // The last column may hold blanks.
        let (fields, last) = words.split_at(count - 1);
        rows.push(fields.iter().map(|word| (*word).to_owned()).chain([last.join(" ")]).collect());
    }
    Ok(output::aligned(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_other_processes_are_left_out() {
        let found = [Found { pid: 7, ..Found::default() }];
        let said = "  PID CMD\n    1 /sbin/init x\n    7 sleep  1000\n   77 other\n";
        let lines = filtered(said, &found).unwrap();
        assert_eq!(lines.split_ascii_whitespace().collect::<Vec<_>>(), ["PID", "CMD", "7", "sleep", "1000"]);
        assert!(filtered("CMD\nx\n", &found).unwrap_err().to_string().contains("PID"));
    }

    #[test]
    fn terminals_have_names() {
        for (number, name) in [(0, "?"), (34817, "pts/1"), (136 << 8, "pts/0"), (1025, "tty1")] {
            assert_eq!(terminal(number), name);
        }
    }
}
