//! What many at once take: the memory of all processes that belong to them, helpers included, and the kernel's.

use std::{
    collections::HashMap,
    fs,
    io::Read,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pipe::{PipeFlags, pipe_with},
};

use super::{
    Benchmark, bundle,
    machine::kibibytes,
    peers,
    process::{end_all, is_interrupted},
    results::Memory,
    rounds::Lane,
    stage::Material,
};

/// What makes the built-in program wait, and what it says then.
pub(super) const WAIT: &str = "wait";
const WAITING: &str = "waiting\n";
/// How long programs of others are given until they have begun.
const BEGIN_WITHIN: Duration = Duration::from_secs(2);
/// Of the kernel, what grows with processes, mounts and groups.
const KERNEL: [&str; 5] = ["Slab", "KernelStack", "PageTables", "SecPageTables", "Percpu"];

impl Benchmark<'_> {
    pub(super) fn memory(&mut self, materials: &[Material], lanes: &[Lane]) -> Result<()> {
        for material in materials {
            let waiting = if material.is_built_in { material.with_arguments(&[WAIT]) } else { material.clone() };
            for lane in Self::warm(lanes).filter(|lane| lane.subject.name == material.subject.name) {
                for count in self.request.counts.clone() {
                    if is_interrupted() {
                        return Ok(());
                    }
                    let name = &lane.contender.name;
                    self.watcher.begins(&format!("memory of {count} {name} with {}", lane.subject.name));
                    match self.memory_of(&waiting, lane, count) {
                        Ok(memory) => self.results.memory.push(memory),
                        Err(error) => {
                            let reason = format!("memory of {count}: {error:#}");
                            self.absent(name, &lane.subject.name, reason);
                            break;
                        }
                    }
                }
            }
            restore_bundle(material)?;
        }
        Ok(())
    }

    fn memory_of(&self, material: &Material, lane: &Lane, count: usize) -> Result<Memory> {
        if lane.contender.is_served {
            bail!("a daemon starts it: which processes belong to it is not seen");
        }
        let contender = peers::named(self.stage, self.request, material, &lane.contender.name)?;
        let way = contender.ways.iter().find(|way| way.note == lane.way.note).context("there is no way to call it")?;
        let kernel = kernel_bytes();
        let begun = self.start(material, &way.words, count);
        let measured = begun.and_then(|()| pss());
        let kernel_bytes = kernel_bytes() - kernel;
        end_all()?;
        for index in 0..count {
            contender.undo_of(index);
        }
        let (pss_bytes, processes) = measured?;
        Ok(Memory {
            subject: lane.subject.name.clone(),
            contender: lane.contender.name.clone(),
            count,
            pss_bytes,
            kernel_bytes,
            processes,
        })
    }

    /// Starts so many, and waits until all have begun. They write into one pipe.
    fn start(&self, material: &Material, words: &[String], count: usize) -> Result<()> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut children = Vec::new();
        for index in 0..count {
            let words = peers::renamed(words, index);
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(Stdio::null());
            children.push(command.process_group(0).spawn().with_context(|| format!("cannot start {}", words[0]))?);
        }
        drop(writer);
        let wanted = if material.is_built_in { WAITING.len() * count } else { usize::MAX };
        let time = if material.is_built_in { self.request.timeout } else { BEGIN_WITHIN };
        let said = read_until(reader.into(), wanted, Instant::now() + time)?;
        if material.is_built_in && said < wanted {
            bail!("of {count} at once, {} began", said / WAITING.len());
        }
        for child in &mut children {
            if let Some(status) = child.try_wait()? {
                bail!("it ends by itself ({status}): arguments that make it wait are needed");
            }
        }
        Ok(())
    }
}

/// Undoes that the bundle was made for another command line.
pub(super) fn restore_bundle(material: &Material) -> Result<()> {
    match (material.ids, &material.rootfs) {
        (Some(ids), Ok(_)) => bundle::write(material, ids).map(drop),
        _ => Ok(()),
    }
}

/// Reads until so many bytes have come, nobody writes any more, or it is time: how many came.
fn read_until(mut pipe: fs::File, wanted: usize, deadline: Instant) -> Result<usize> {
    let (mut said, mut buffer) = (0, vec![0; 4096]);
    while said < wanted && !is_interrupted() {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: i64::try_from(left.as_secs())?, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => break,
            Ok(_) => match pipe.read(&mut buffer)? {
                0 => break,
                count => said += count,
            },
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(said)
}

/// Of all processes below this one, and how many they are.
fn pss() -> Result<(u64, usize)> {
    let descendants = all_below()?;
    let mut bytes = 0;
    for pid in &descendants {
        let path = format!("/proc/{pid}/smaps_rollup");
        match fs::read_to_string(&path) {
            Ok(text) => bytes += kibibytes(&text, "Pss"),
            // It has ended, or is about to.
            Err(error) if matches!(error.raw_os_error(), Some(2 | 3)) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {path}")),
        }
    }
    Ok((bytes, descendants.len()))
}

/// All processes below this one.
pub(super) fn all_below() -> Result<Vec<i32>> {
    Ok(descendants(i32::try_from(std::process::id())?, &parents()))
}

/// Of each process its parent.
fn parents() -> HashMap<i32, i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let parent = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before it may have spaces and parentheses.
        Some((pid, stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?))
    };
    pids.filter_map(parent).collect()
}

fn descendants(ancestor: i32, parents: &HashMap<i32, i32>) -> Vec<i32> {
    let is_below = |pid: &i32| {
        let mut pid = *pid;
        // No chain is longer than there are processes.
        for _ in 0..parents.len() {
            match parents.get(&pid) {
                Some(parent) if *parent == ancestor => return true,
                Some(parent) => pid = *parent,
                None => return false,
            }
        }
        false
    };
    parents.keys().copied().filter(|pid| is_below(pid)).collect()
}

fn kernel_bytes() -> i64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    KERNEL.iter().map(|name| i64::try_from(kibibytes(&text, name)).unwrap_or(0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helpers_of_helpers_belong_to_it() {
        let parents = HashMap::from([(2, 1), (10, 2), (11, 10), (12, 11), (20, 1)]);
        let mut below = descendants(10, &parents);
        below.sort_unstable();
        assert_eq!(below, [11, 12]);
        assert_eq!(descendants(12, &parents), [] as [i32; 0]);
    }
}
