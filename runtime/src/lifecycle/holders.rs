//! What keeps a killed container from ending. Its first process is gone only when every other one in its pid namespace has been
//! reaped (pid_namespaces(7)), and what `exec` started is reaped by its `amphora exec`, outside: one that was stopped, by Ctrl-Z
//! say, holds up the end. It is told to go on, as it has nothing more to wait for; others are named. A container that can mount
//! cgroup v1 hierarchies may have frozen its processes: those are thawed.

use std::{fs, path::PathBuf};

use linux_exec::{
    cgroup::{Cgroups, Place},
    process::Process,
    userns,
};
use nix::sys::signal::Signal;

/// What is used of proc_pid_status(5).
struct Found {
    pid: i32,
    name: String,
    state: char,
    parent: i32,
    tracer: i32,
}

impl Found {
    fn read(pid: i32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| Some(line.strip_prefix(name)?.trim()));
        Some(Self {
            pid,
            name: field("Name:")?.to_owned(),
            state: field("State:")?.chars().next()?,
            parent: field("PPid:")?.parse().ok()?,
            tracer: field("TracerPid:")?.parse().ok()?,
        })
    }

    fn described(&self) -> String {
        format!("process {} ({})", self.pid, self.name)
    }
}

/// Lets stopped processes of ours go on that hold up the end of a killed process, and frozen ones of the container that ends with it;
/// gives a sentence for each other one.
pub(super) fn release(container: Option<&Place>, first: Process) -> Vec<String> {
    if let Some(place) = container {
        // What cannot be thawed is still there at the next look.
        let _ = Cgroups::detect().and_then(|cgroups| cgroups.open_at(place)?.map_or(Ok(()), |cgroup| cgroup.kill()));
    }
    let Some(namespace) = pid_namespace(first.pid) else { return Vec::new() };
    if fs::read_link("/proc/self/ns/pid").is_ok_and(|own| own == namespace) {
        // Its end is its parent's to see, whoever else is there.
        return Vec::new();
    }
    let is_inside = |pid: i32| pid_namespace(pid).is_some_and(|own| own == namespace);
    let held = pids().into_iter().filter(|&pid| is_inside(pid)).filter_map(Found::read);
    held.filter_map(|held| {
        let holder = if held.tracer != 0 { held.tracer } else { held.parent };
        match held.state {
            // Its first process is the supervisor's to reap.
            'Z' if held.pid != first.pid && !is_inside(holder) => wake_or_name(&held, holder),
            'D' => {
                Some(format!("{} waits for the kernel (a disk, or a file system of another machine)", held.described()))
            }
            _ => None,
        }
    })
    .collect()
}

fn wake_or_name(held: &Found, holder: i32) -> Option<String> {
    let process = Process::of(holder).ok()?;
    if wake(process) {
        return None;
    }
    let holder = Found::read(holder)?;
    let stopped = if is_stopped(&holder) { ", is stopped and" } else { "" };
    let next = holder.pid;
    Some(format!("{}{stopped} does not reap {} (end it: kill -9 {next})", holder.described(), held.described()))
}

/// Lets a process go on that is stopped and of this program; whether it was.
pub(super) fn wake(process: Process) -> bool {
    let stopped = Found::read(process.pid).is_some_and(|found| is_stopped(&found));
    // What an ordinary user may not look at is at worst another process of that user's.
    let may_not_look = |_| userns::is_inside() || !nix::unistd::geteuid().is_root();
    let is_ours = || process.runs_own_executable().unwrap_or_else(may_not_look);
    stopped && is_ours() && process.signal(Signal::SIGCONT as i32).is_ok()
}

fn is_stopped(process: &Found) -> bool {
    process.state == 'T'
}

fn pid_namespace(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
