//! How many starts there are in a second, one at a time and up to as many as there are cores; what they leave to be done later
//! is waited for.

use std::{
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{
    Benchmark,
    machine::CpuTime,
    peers,
    process::{end_all, is_interrupted, settle},
    results::Rate,
    rounds::Lane,
};

/// How long the machine is given to come to rest, and between two looks.
const REST_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A machine of which less than this share is busy rests.
const AT_REST: f64 = 0.1;

impl Benchmark<'_> {
    pub(super) fn rates(&mut self, lanes: &[Lane]) -> Result<()> {
        let counts = match self.request.at_a_time.as_slice() {
            [] => doubled_up_to(self.results.machine.cores),
            counts => counts.to_vec(),
        };
        let mut wanted: Vec<(&Lane, usize)> = Vec::new();
        for lane in Self::warm(lanes) {
            wanted.extend(counts.iter().map(|count| (lane, *count)));
        }
        self.random.shuffle(&mut wanted);
        self.watcher.begins(&format!("starts per second, {} times {:?}", wanted.len(), self.request.rate_time));
        for (index, (lane, at_a_time)) in wanted.iter().enumerate() {
            if is_interrupted() {
                return Ok(());
            }
            let rate = self.rate(lane, *at_a_time)?;
            self.results.rates.push(rate);
            self.watcher.done(index + 1, wanted.len());
        }
        Ok(())
    }

    fn rate(&self, lane: &Lane, at_a_time: usize) -> Result<Rate> {
        let rested = rest();
        let (starts, failures) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (then, begun) = (CpuTime::now(), Instant::now());
        let (until, timeout) = (begun + self.request.rate_time, self.request.timeout);
        thread::scope(|scope| {
            for worker in 0..at_a_time {
                let words = peers::renamed(&lane.way.words, worker);
                let (starts, failures) = (&starts, &failures);
                scope.spawn(move || {
                    while Instant::now() < until && !is_interrupted() {
                        let ended = start_once(&words, timeout);
                        let count = if ended.is_ok_and(|code| code == Some(lane.subject.exit_code)) {
                            starts
                        } else {
                            failures
                        };
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        settle()?;
        let seconds = begun.elapsed().as_secs_f64();
        let rests = rest() && rested;
        let cpu_ms = CpuTime::now().busy_ms_since(then);
        let starts = starts.into_inner();
        Ok(Rate {
            subject: lane.subject.name.clone(),
            contender: lane.contender.name.clone(),
            at_a_time,
            starts,
            seconds,
            per_second: starts as f64 / seconds,
            cpu_ms_per_start: (rests && starts > 0).then(|| cpu_ms / starts as f64),
            failures: failures.into_inner(),
        })
    }
}

/// 1, 2, 4, …, and the number of cores.
fn doubled_up_to(cores: usize) -> Vec<usize> {
    let mut counts: Vec<usize> = (0..16).map(|power| 1 << power).take_while(|count| *count < cores).collect();
    counts.push(cores);
    counts
}

/// The exit code of one start; None: a signal ended it, or we did as its time was over.
fn start_once(words: &[String], timeout: Duration) -> Result<Option<i32>> {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = std::os::unix::process::CommandExt::process_group(&mut command, 0).spawn()?;
    let pid = Pid::from_raw(i32::try_from(child.id())?).context("a child without a pid")?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let timeout = Timespec { tv_sec: i64::try_from(timeout.as_secs())?, tv_nsec: i64::from(timeout.subsec_nanos()) };
    if poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) == Ok(0) {
        child.kill()?;
        end_all()?;
    }
    Ok(child.wait()?.code())
}

/// Waits until the machine does nothing any more; false: it did not come to rest in time.
fn rest() -> bool {
    let cores = thread::available_parallelism().map_or(1, usize::from) as f64;
    let deadline = Instant::now() + REST_WITHIN;
    while Instant::now() < deadline && !is_interrupted() {
        let then = CpuTime::now();
        thread::sleep(LOOK_EVERY);
        if CpuTime::now().busy_ms_since(then) < AT_REST * cores * LOOK_EVERY.as_secs_f64() * 1e3 {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::doubled_up_to;

    #[test]
    fn counts_go_from_one_to_the_number_of_cores() {
        for (cores, counts) in [(1, &[1][..]), (2, &[1, 2]), (6, &[1, 2, 4, 6]), (8, &[1, 2, 4, 8])] {
            assert_eq!(doubled_up_to(cores), counts);
        }
    }
}
