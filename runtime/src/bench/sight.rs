//! What a contender's process really got, seen once in a run that is not timed.
//!
//! All that it starts is followed (ptrace): each process stands still just before it ends, with everything still in place: then its namespaces, its rights and its
//! filter are read from /proc, and which files it had mapped. Of all processes, the program is the one that is in most
//! namespaces of its own, executed something there, and ended first.
//!
//! Where following changes what is followed, and where a program does not end, its processes are looked at from outside instead,
//! while they run: then, what each had last is what counts.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    io::{ErrorKind, Read},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sys::{
        ptrace,
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::{
    machine::kibibytes,
    memory::all_below,
    process::{self, end_all, is_interrupted},
    results::{Confinement, Got},
    serve::Door,
};

const NAMESPACES: [&str; 8] = ["mnt", "pid", "net", "ipc", "uts", "user", "cgroup", "time"];
/// Between two looks whether a process stands still.
const PAUSE: Duration = Duration::from_micros(200);

/// What was seen of one run.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) got: Got,
    /// Of the largest of its processes, when that was largest.
    pub(super) resident_bytes: Option<u64>,
    /// Whatever its processes had mapped: programs and libraries.
    pub(super) files: BTreeSet<PathBuf>,
}

/// How often a program that ends by itself is looked at from outside until it was seen: it may be gone between two looks.
const ATTEMPTS: usize = 5;

/// Follows one run: what was seen, and its exit code. What it says goes nowhere.
pub(super) fn look(words: &[String], timeout: Duration) -> Result<(Seen, i32)> {
    let (first, _shell) = start(words)?;
    let looked = follow(first, Instant::now() + timeout);
    end_all()?;
    looked
}

impl Seen {
    pub(super) fn nothing(why: impl Into<String>) -> Self {
        Self { got: Got::Unseen(why.into()), resident_bytes: None, files: BTreeSet::new() }
    }
}

/// As what one process ended.
struct Snapshot {
    confinement: Confinement,
    executed_inside: bool,
}

fn follow(first: Pid, deadline: Instant) -> Result<(Seen, i32)> {
    let mut code = -1;
    let mut inside = HashSet::new();
    let mut files = BTreeSet::new();
    let mut best: Option<Snapshot> = None;
    let mut denied = None;
    let mut resident_bytes = None;
    loop {
        if Instant::now() >= deadline || is_interrupted() {
            bail!("it did not end while it was followed");
        }
        let (pid, signal) = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => break,
            Ok(WaitStatus::StillAlive) => {
                std::thread::sleep(PAUSE);
                continue;
            }
            // What a contender leaves running is of no interest.
            Ok(status @ (WaitStatus::Exited(..) | WaitStatus::Signaled(..))) if status.pid() == Some(first) => {
                code = process::exit_code(status);
                break;
            }
            Ok(WaitStatus::PtraceEvent(pid, _, event)) => {
                if event == ptrace::Event::PTRACE_EVENT_EXEC as i32 {
                    note_exec(pid, &mut inside);
                } else if event == ptrace::Event::PTRACE_EVENT_EXIT as i32 && is_leader(pid) {
                    files.extend(mapped(pid));
                    resident_bytes = resident_bytes.max(resident(pid));
                    match snapshot(pid) {
                        Ok(confinement) => {
                            let taken = Snapshot { confinement, executed_inside: inside.contains(&pid) };
                            best = Some(better(best, taken));
                        }
                        // Killed while it stood still, it is gone.
                        Err(error) if is_denied(&error) => denied = Some(error),
                        Err(_) => {}
                    }
                }
                (pid, None)
            }
            Ok(WaitStatus::Stopped(pid, Signal::SIGTRAP)) => (pid, None),
            Ok(WaitStatus::Stopped(pid, signal)) => (pid, Some(signal)),
            Ok(_) => continue,
            Err(errno) => return Err(errno).context("cannot wait for what is followed"),
        };
        match ptrace::cont(pid, signal) {
            // It was killed meanwhile, which the next wait tells.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno).context("cannot follow a process"),
        }
    }
    Ok((Seen { got: got(best, denied), resident_bytes, files }, code))
}

fn got(best: Option<Snapshot>, denied: Option<anyhow::Error>) -> Got {
    match (best, denied) {
        // One that may not be looked at is more confined than those that may.
        (_, Some(error)) => Got::Unseen(format!("{error:#}")),
        (Some(best), None) => Got::Seen(best.confinement),
        (None, None) => Got::Unseen("no process of it ended".to_owned()),
    }
}

/// Looks from outside at a run that ends by itself, or at a server until it has answered.
pub(super) fn glance(words: &[String], timeout: Duration, door: Option<&Door>) -> Result<Seen> {
    let attempts = if door.is_some() { 1 } else { ATTEMPTS };
    let mut seen = Seen::nothing("it ended before it was looked at");
    for _ in 0..attempts {
        let mut child = process::command(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.as_mut().map_err(|error| anyhow::anyhow!("cannot start {}: {error}", words[0]))?;
        let observed = observe(child, timeout, door.is_none(), || door.is_some_and(Door::answers));
        if let Some(door) = door {
            door.close(child)?;
        }
        end_all()?;
        let (found, is_inside) = observed?;
        seen = found;
        if is_inside {
            break;
        }
    }
    Ok(seen)
}

/// Looks from outside at a program that says something once it waits.
pub(super) fn glance_at_waiting(words: &[String], timeout: Duration) -> Result<Seen> {
    let mut child = process::command(words).stderr(Stdio::null()).spawn();
    let child = child.as_mut().map_err(|error| anyhow::anyhow!("cannot start {}: {error}", words[0]))?;
    let mut said = child.stdout.take().context("no pipe")?;
    rustix::fs::fcntl_setfl(&said, rustix::fs::OFlags::NONBLOCK)?;
    let observed = observe(child, timeout, false, || said.read(&mut [0; 64]).is_ok_and(|count| count > 0));
    end_all()?;
    observed.map(|(seen, _)| seen)
}

/// Looks at all processes again and again, once more when the time has come, and no more when the first has ended: what was seen, and
/// whether that was a program inside of something. `with_ended`: those count, too, that ended before.
fn observe(
    child: &mut Child,
    timeout: Duration,
    with_ended: bool,
    mut has_come: impl FnMut() -> bool,
) -> Result<(Seen, bool)> {
    let deadline = Instant::now() + timeout;
    let command = fs::read_link(format!("/proc/{}/exe", child.id())).ok();
    // By pid, as later ones are started by earlier ones.
    let mut last: BTreeMap<i32, Result<Snapshot>> = BTreeMap::new();
    let (mut files, mut resident_bytes) = (BTreeSet::new(), None);
    loop {
        let is_last = child.try_wait()?.is_some() || has_come();
        if !with_ended {
            last.clear();
        }
        for pid in all_below()?.into_iter().map(Pid::from_raw) {
            let executed = fs::read_link(format!("/proc/{pid}/exe")).ok();
            let taken = snapshot(pid);
            let own = taken.as_ref().is_ok_and(|taken| taken.namespaces.iter().any(|name| name == "mnt"));
            let executed_inside = own && executed.is_some() && executed != command;
            if !matches!(&taken, Err(error) if !is_denied(error)) {
                last.insert(pid.as_raw(), taken.map(|confinement| Snapshot { confinement, executed_inside }));
            }
            files.extend(mapped(pid));
            resident_bytes = resident_bytes.max(resident(pid));
        }
        if is_last {
            break;
        }
        if Instant::now() >= deadline || is_interrupted() {
            bail!("it took too long while it was looked at");
        }
        std::thread::sleep(PAUSE);
    }
    let (mut best, mut denied) = (None, None);
    for taken in last.into_values() {
        match taken {
            Ok(taken) => best = Some(better(best, taken)),
            Err(error) => denied = Some(error),
        }
    }
    let is_inside = best.as_ref().is_some_and(|best| !best.confinement.namespaces.is_empty());
    // A helper that has its rights from elsewhere, such as newuidmap, may not be looked at either.
    let denied = denied.filter(|_| !(with_ended && is_inside));
    Ok((Seen { got: got(best, denied), resident_bytes, files }, is_inside))
}

/// The earlier one, if both have got as much.
fn better(best: Option<Snapshot>, taken: Snapshot) -> Snapshot {
    let rank = |snapshot: &Snapshot| (snapshot.confinement.namespaces.len(), snapshot.executed_inside);
    match best {
        Some(best) if rank(&best) >= rank(&taken) => best,
        _ => taken,
    }
}

fn note_exec(pid: Pid, inside: &mut HashSet<Pid>) {
    if own_namespaces(pid).is_ok_and(|own| own.iter().any(|name| name == "mnt")) {
        inside.insert(pid);
    }
}

fn is_denied(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

fn is_leader(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| field(&status, "Tgid") == pid.to_string())
}

fn snapshot(pid: Pid) -> Result<Confinement> {
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    };
    let status = read("status")?;
    let mounts = read("mountinfo")?;
    let own_cgroups = fs::read_to_string("/proc/self/cgroup")?;
    let mask = field(&status, "CapEff").to_owned();
    let namespaces = own_namespaces(pid)?;
    Ok(Confinement {
        cgroup: read("cgroup")? != own_cgroups,
        seccomp: field(&status, "Seccomp").parse().unwrap_or(0),
        no_new_privileges: field(&status, "NoNewPrivs") == "1",
        capabilities: u64::from_str_radix(&mask, 16).unwrap_or(0).count_ones(),
        capability_mask: mask,
        masks: if namespaces.iter().any(|name| name == "mnt") { masks(&mounts) } else { 0 },
        namespaces,
        root: root_type(&mounts),
    })
}

/// The namespaces of a process that are not ours.
fn own_namespaces(pid: Pid) -> Result<Vec<String>> {
    let mut own = Vec::new();
    for name in NAMESPACES {
        let path = format!("/proc/{pid}/ns/{name}");
        let theirs = fs::read_link(&path).with_context(|| format!("cannot read {path}"))?;
        if fs::read_link(format!("/proc/self/ns/{name}")).is_ok_and(|ours| ours != theirs) {
            own.push(name.to_owned());
        }
    }
    Ok(own)
}

fn field<'s>(status: &'s str, name: &str) -> &'s str {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.map_or("", str::trim)
}

/// Mounts on something below /proc and /sys, but for the file systems that the kernel itself has there.
fn masks(mountinfo: &str) -> usize {
    let is_mask = |line: &&str| {
        let mut words = line.split(' ').skip(3);
        let (source, place) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let kind = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or("");
        let below = place.starts_with("/proc/") || place.starts_with("/sys/");
        below && (matches!(kind, "tmpfs" | "devtmpfs") || (matches!(kind, "proc" | "sysfs") && source != "/"))
    };
    mountinfo.lines().filter(is_mask).count()
}

/// The file system at `/`; what is mounted last is what is seen.
fn root_type(mountinfo: &str) -> String {
    let roots = mountinfo.lines().filter(|line| line.split(' ').nth(4) == Some("/"));
    let kind = roots.filter_map(|line| line.split(" - ").nth(1)?.split(' ').next()).next_back();
    kind.unwrap_or("").to_owned()
}

/// Its resident set, when that was largest.
fn resident(pid: Pid) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(kibibytes(&status, "VmHWM")).filter(|bytes| *bytes > 0)
}

fn mapped(pid: Pid) -> Vec<PathBuf> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..])));
    // What lies in a container's root has another path here, or none.
    paths.filter(|path| path.is_file()).collect()
}

/// A shell that is followed, and is about to become the program. It stops itself, so that it can be attached to before.
fn start(words: &[String]) -> Result<(Pid, Child)> {
    let script = "kill -STOP $$; exec \"$0\" \"$@\"";
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script]).args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = shell.spawn().context("cannot start /bin/sh")?;
    let first = Pid::from_raw(i32::try_from(child.id())?);
    waitpid(first, Some(WaitPidFlag::WUNTRACED))?;
    let options = ptrace::Options::PTRACE_O_TRACECLONE
        | ptrace::Options::PTRACE_O_TRACEEXEC
        | ptrace::Options::PTRACE_O_TRACEFORK
        | ptrace::Options::PTRACE_O_TRACEVFORK
        | ptrace::Options::PTRACE_O_TRACEEXIT
        | ptrace::Options::PTRACE_O_EXITKILL;
    let attached = ptrace::seize(first, options).context("may not follow processes here");
    if attached.is_err() {
        end_all()?;
    }
    attached?;
    kill(first, Signal::SIGCONT)?;
    Ok((first, child))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
600 599 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/a
601 600 0:51 / /proc rw,nosuid - proc proc rw
602 601 0:51 /sys /proc/sys ro,nosuid - proc proc rw
603 601 0:52 /null /proc/kcore rw,nosuid - tmpfs tmpfs rw
604 600 0:53 / /sys ro,nosuid - sysfs sysfs ro
605 604 0:54 / /sys/firmware ro - tmpfs tmpfs ro
606 604 0:55 / /sys/fs/cgroup ro - cgroup2 cgroup rw
607 600 0:56 / /dev rw - tmpfs tmpfs rw
";

    #[test]
    fn masks_are_told_from_what_belongs_there() {
        assert_eq!((masks(MOUNTS), root_type(MOUNTS)), (3, "overlay".to_owned()));
        assert_eq!((masks(""), root_type("")), (0, String::new()));
    }

    #[test]
    fn fields_of_a_status_are_found_by_their_whole_name() {
        let status = "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\nNoNewPrivs:\t1\n";
        assert_eq!([field(status, "Seccomp"), field(status, "NoNewPrivs"), field(status, "Cap")], ["2", "1", ""]);
    }

    #[test]
    fn the_program_is_who_got_most_and_ended_first() {
        let taken = |namespaces: &[&str], executed_inside, masks| Snapshot {
            confinement: Confinement {
                namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
                masks,
                ..Confinement::default()
            },
            executed_inside,
        };
        let best = better(None, taken(&[], false, 0));
        let best = better(Some(best), taken(&["mnt", "pid"], true, 1));
        let best = better(Some(best), taken(&["mnt", "pid"], true, 2));
        let best = better(Some(best), taken(&["mnt"], true, 3));
        assert_eq!(best.confinement.masks, 1);
    }
}
