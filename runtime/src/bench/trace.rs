//! What the kernel saw of a run (`--trace`): its own events of processes, written down while they happen, in a buffer of the
//! kernel's that is this benchmark's alone. That costs a process next to nothing; the runs are not timed all the same.
//!
//! ```text
//! TRACEFS/instances/amphora-bench-PID/   set_event_pid, events/sched/…/enable, trace
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount, umount};

use super::{
    Benchmark,
    process::{self, is_interrupted},
    results::Trace,
    rounds::Lane,
    stage::Material,
    statistics,
};

/// What is told are medians; a few are enough.
const RUNS: usize = 15;
const EVENTS: [&str; 3] = ["sched_process_fork", "sched_process_exec", "sched_process_exit"];

impl Benchmark<'_> {
    pub(super) fn traces(&mut self, materials: &[Material], lanes: &[Lane]) -> Result<()> {
        let buffer = Buffer::make(&self.stage.work)?;
        for lane in Self::warm(lanes).filter(|lane| !lane.contender.is_served) {
            self.watcher.begins(&format!("trace of {} with {}", lane.contender.name, lane.subject.name));
            let material = materials.iter().find(|material| material.subject.name == lane.subject.name);
            // A Wasm program is executed by nobody.
            let program = material.filter(|material| material.is_linux()).and_then(|material| material.program.first());
            let mut stories = Vec::new();
            for _ in 0..RUNS.min(self.request.runs) {
                if is_interrupted() {
                    return Ok(());
                }
                buffer.clear()?;
                process::run(&lane.way.words, self.request.timeout)?;
                stories.extend(Story::of(&buffer.text()?, std::process::id(), program.map(String::as_str)));
            }
            let figure = |figure: &dyn Fn(&Story) -> Option<f64>| {
                let values: Vec<f64> = stories.iter().filter_map(figure).collect();
                (!values.is_empty()).then(|| statistics::median(&values))
            };
            let Some(all) = figure(&|story| Some(story.all)) else {
                self.absent(
                    &lane.contender.name,
                    &lane.subject.name,
                    "trace: the kernel told nothing of its processes",
                );
                continue;
            };
            self.results.traces.push(Trace {
                subject: lane.subject.name.clone(),
                contender: lane.contender.name.clone(),
                processes: figure(&|story| Some(story.processes as f64)).unwrap_or(0.0),
                executions: figure(&|story| Some(story.executions as f64)).unwrap_or(0.0),
                before: figure(&|story| story.program.map(|[began, _]| began)),
                program: figure(&|story| story.program.map(|[began, ended]| ended - began)),
                after: figure(&|story| story.program.map(|[_, ended]| story.all - ended)),
                all,
            });
        }
        Ok(())
    }
}

/// A buffer of the kernel's for events of this process and of all below it; it goes when this is dropped.
struct Buffer {
    folder: PathBuf,
    /// Where the file system was mounted for it.
    mounted: Option<PathBuf>,
}

impl Buffer {
    fn make(work: &Path) -> Result<Self> {
        let usual = Path::new("/sys/kernel/tracing");
        let mut mounted = None;
        let place = if usual.join("instances").is_dir() {
            usual.to_owned()
        } else {
            let own = work.join("tracing");
            fs::create_dir(&own)?;
            let none: Option<&str> = None;
            mount(Some("tracefs"), &own, Some("tracefs"), MsFlags::empty(), none)
                .context("cannot mount tracefs, where the kernel writes down its events (it takes root)")?;
            mounted = Some(own.clone());
            own
        };
        let folder = place.join("instances").join(format!("amphora-bench-{}", std::process::id()));
        let buffer = Self { folder, mounted };
        fs::create_dir(&buffer.folder).with_context(|| format!("cannot make {}", buffer.folder.display()))?;
        buffer.write("set_event_pid", &std::process::id().to_string())?;
        buffer.write("options/event-fork", "1")?;
        buffer.write("trace_clock", "mono")?;
        for event in EVENTS {
            buffer.write(&format!("events/sched/{event}/enable"), "1")?;
        }
        Ok(buffer)
    }

    fn write(&self, name: &str, value: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, value).with_context(|| format!("cannot write {value} to {}", path.display()))
    }

    fn clear(&self) -> Result<()> {
        self.write("trace", "")
    }

    fn text(&self) -> Result<String> {
        let text = fs::read(self.folder.join("trace")).context("cannot read what the kernel saw")?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Whatever stays, stays empty: nothing is enabled once its folder is gone, and what is mounted goes with WORK.
        let _ = fs::remove_dir(&self.folder);
        if let Some(place) = &self.mounted {
            let _ = umount(place.as_path());
        }
    }
}

/// What happened in one run; times in µs from the command's beginning.
#[derive(Debug, PartialEq)]
struct Story {
    processes: usize,
    executions: usize,
    /// When the image's program was executed, and when it ended.
    program: Option<[f64; 2]>,
    all: f64,
}

impl Story {
    /// Of what the kernel wrote; `this`: the pid of who starts the command. None: the command is not in it as a whole.
    fn of(text: &str, this: u32, program: Option<&str>) -> Option<Self> {
        let mut story = Self { processes: 0, executions: 0, program: None, all: 0.0 };
        let (mut command, mut began, mut inside) = (None, 0.0, None);
        for (micros, event, fields) in text.lines().filter_map(event) {
            let number = |name: &str| field(fields, name)?.parse::<u32>().ok();
            match event {
                "sched_process_fork" => {
                    if command.is_none() && number("pid") == Some(this) {
                        (command, began) = (number("child_pid"), micros);
                    }
                    story.processes += usize::from(command.is_some());
                }
                "sched_process_exec" if command.is_some() => {
                    story.executions += 1;
                    if program.is_some() && field(fields, "filename") == program {
                        inside = number("pid");
                        story.program = Some([micros - began, f64::NAN]);
                    }
                }
                "sched_process_exit" if command.is_some() => {
                    if let (Some(times), true) = (&mut story.program, number("pid") == inside) {
                        times[1] = micros - began;
                    }
                    if number("pid") == command {
                        story.all = micros - began;
                    }
                }
                _ => {}
            }
        }
        story.program = story.program.filter(|[_, ended]| ended.is_finite());
        (story.all > 0.0).then_some(story)
    }
}

/// `COMMAND-PID [CPU] FLAGS SECONDS: EVENT: FIELDS`
fn event(line: &str) -> Option<(f64, &str, &str)> {
    // A command's name may have anything in it, what is behind has not.
    let (before, rest) = line.split_once(": sched_process_")?;
    let seconds: f64 = before.rsplit(' ').next()?.parse().ok()?;
    let (event, fields) = rest.split_once(": ")?;
    let event = EVENTS.iter().find(|name| name.strip_prefix("sched_process_") == Some(event))?;
    Some((seconds * 1e6, event, fields))
}

/// The last of that name: a command's name stands before, and may look like one.
fn field<'f>(fields: &'f str, name: &str) -> Option<&'f str> {
    let value = |word: &'f str| word.strip_prefix(name)?.strip_prefix('=');
    fields.split_whitespace().filter_map(value).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# tracer: nop
 amphora-bench-7 [000] ..... 10.000000: sched_process_fork: comm=amphora pid=7 child_comm=amphora child_pid=8
           <...>-8 [001] ..... 10.000100: sched_process_exec: filename=/usr/bin/crun pid=8 old_pid=8
            crun-8 [001] ..... 10.000500: sched_process_fork: comm=crun pid=8 child_comm=crun child_pid=9
            crun-9 [001] ..... 10.002000: sched_process_exec: filename=/vessel pid=9 old_pid=9
          vessel-9 [001] ..... 10.002300: sched_process_exit: comm=vessel pid=9 prio=120 group_dead=true
            crun-8 [001] ..... 10.004000: sched_process_exit: comm=a pid=1 pid=8 prio=120 group_dead=true
";

    #[test]
    fn a_story_is_read_from_what_the_kernel_wrote() {
        let story = Story::of(TEXT, 7, Some("/vessel")).unwrap();
        let round = |micros: f64| (micros + 0.5).floor();
        let program = story.program.map(|times| times.map(round));
        assert_eq!(
            (story.processes, story.executions, program, round(story.all)),
            (2, 2, Some([2000.0, 2300.0]), 4000.0)
        );
        assert_eq!(Story::of(TEXT, 7, None).unwrap().program, None);
        assert_eq!(Story::of(TEXT, 6, None), None);
        assert_eq!(Story::of("", 7, None), None);
    }
}
