//! The side-by-side benchmark: what it costs to start one small program, by amphora and by others.
//!
//! Every contender runs the same program on the same root file system, one after the other, round after round, so that
//! whatever else the machine does meets all of them alike. A run counts only if its exit code and its output are
//! right: failing fast is not speed. Figures are wall-clock time, CPU time and minor page faults; the last two hold
//! where the first varies. `floor.c` does what the kernel has to do for a container, and nothing else.

mod budgets;
mod bundle;
mod contenders;
mod hugetlb;
mod measure;
mod report;
mod stages;

use anyhow::{Context, Result, bail};
use contenders::Contender;
use measure::{Measured, run_once};
use report::Results;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const USAGE: &str = "usage: side-by-side --amphora FILE --fixtures FOLDER --out FOLDER [--runs N] [--podman]";
/// Fewer say little about a median, and nothing about a 99th percentile.
const DEFAULT_RUNS: usize = 100;
const WARM_UP_RUNS: usize = 3;

/// What was typed.
pub(crate) struct Options {
    pub(crate) amphora: PathBuf,
    pub(crate) fixtures: PathBuf,
    pub(crate) out: PathBuf,
    /// For the state of what runs: memory, as /run is on most machines.
    pub(crate) state: State,
    runs: usize,
    pub(crate) podman: bool,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("side-by-side: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Options> {
    let (mut amphora, mut fixtures, mut out) = (None, None, None);
    let (mut runs, mut podman) = (DEFAULT_RUNS, false);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value\n{USAGE}"));
        match word.as_str() {
            "--amphora" => amphora = Some(PathBuf::from(value()?)),
            "--fixtures" => fixtures = Some(PathBuf::from(value()?)),
            "--out" => out = Some(PathBuf::from(value()?)),
            "--runs" | "-n" => runs = value()?.parse().context("--runs takes a number")?,
            "--podman" => podman = true,
            other => bail!("unknown option {other}\n{USAGE}"),
        }
    }
    let amphora = amphora.context(USAGE)?;
    let (fixtures, out) = (fixtures.context(USAGE)?, out.context(USAGE)?);
    Ok(Options { amphora, fixtures, out, state: State::new(), runs, podman })
}

fn run(mut options: Options) -> Result<()> {
    fs::create_dir_all(&options.out)?;
    options.amphora = install(&options.amphora, &options.out)?;
    let options = &options;
    // crun refuses a cgroup v2 tree that has a controller; undone when this is dropped.
    let _hugetlb = hugetlb::move_to_v1()?;
    let (contenders, mut absent) = contenders::all(options)?;
    let contenders = warm_up(contenders, &mut absent, options)?;
    let measured = measure_all(&contenders, options)?;
    let stages = stages::measure(options)?;
    let results = Results { runs: options.runs, measured, stages, absent };
    print!("{}", results.as_text());
    for (name, text) in [("side-by-side.json", results.as_json()?), ("side-by-side.md", results.as_markdown())] {
        let path = options.out.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("written: {}", path.display());
    }
    Ok(())
}

/// Fills caches, and drops whoever does not do the work at all; the reason goes to `absent`. Amphora has to do it.
fn warm_up(contenders: Vec<Contender>, absent: &mut Vec<String>, options: &Options) -> Result<Vec<Contender>> {
    let mut working = Vec::new();
    for contender in contenders {
        match (0..WARM_UP_RUNS).try_for_each(|_| run_once(&contender, &options.out).map(drop)) {
            Ok(()) => working.push(contender),
            Err(error) if contender.program == options.amphora => return Err(error.context(contender.name)),
            Err(error) => absent.push(format!("{}: does not do the work: {error:#}", contender.name)),
        }
    }
    Ok(working)
}

/// Interleaved: each round runs everyone once, every other round in the opposite order.
fn measure_all(contenders: &[Contender], options: &Options) -> Result<Vec<Measured>> {
    let mut measured: Vec<Measured> = contenders.iter().map(Measured::new).collect();
    for round in 0..options.runs {
        let mut order: Vec<usize> = (0..contenders.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            measured[index].add(run_once(&contenders[index], &options.out)?);
        }
        if (round + 1) % 10 == 0 {
            eprintln!("round {} of {}", round + 1, options.runs);
        }
    }
    Ok(measured)
}

/// Copies a program as an installation does. What a linker has just written lies in small pieces in the page cache, and
/// starts slower than what was copied or read from disk.
pub(crate) fn install(program: &Path, out: &Path) -> Result<PathBuf> {
    let folder = out.join("bin");
    fs::create_dir_all(&folder)?;
    let copy = folder.join(program.file_name().unwrap_or_default());
    // A new file: the pages of an old one would stay as they are.
    match fs::remove_file(&copy) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    fs::copy(program, &copy).with_context(|| format!("cannot copy {}", program.display()))?;
    Ok(copy)
}

/// A folder in memory for what must not outlive a reboot; removed at the end.
pub(crate) struct State(PathBuf);

impl State {
    fn new() -> Self {
        Self(PathBuf::from(format!("/dev/shm/amphora-bench-{}", std::process::id())))
    }

    /// The folder of one of those who run.
    pub(crate) fn of(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a command of the preparations to its end; its stdout.
pub(crate) fn prepare(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("{} ended with {}: {}", command.get_program().display(), output.status, words.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A program on `PATH`, or where the administrator's programs are.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|candidate| Path::is_file(candidate))
}
