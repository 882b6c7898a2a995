//! `amphora bench`: how fast images of both kinds start and what they weigh, beside other runtimes, on this machine.
//!
//! A front end: a [`Request`] in, [`Results`] out. Everything that is measured is a command line in a process of its own,
//! amphora's too, so that all are treated alike.
//!
//! ```text
//! rounds   serve   pull                what is timed, in rounds
//! sizes   rate   memory   stages   trace    what else is measured
//! peers                                who is measured, and how each is called
//! stage                                images, stores and root file systems, all of the benchmark's own
//! process   sight                      one run: timed, or looked at
//! results   statistics   machine       what is found
//! report   compare                     what is made of it
//! ```

mod bundle;
pub(crate) mod compare;
mod machine;
mod memory;
mod peers;
pub(crate) mod process;
mod pull;
mod rate;
pub(crate) mod report;
pub(crate) mod results;
mod rounds;
mod serve;
mod sight;
mod sizes;
mod stage;
mod stages;
mod statistics;
mod trace;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};

use self::{
    machine::CpuTime,
    peers::Job,
    process::is_interrupted,
    results::{Absent, Results, SCHEMA, Settings, Tool, VERSION},
    rounds::Lane,
    stage::Stage,
};
use crate::{output, records::host::Host};

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    Start,
    Stages,
    Size,
    Rate,
    Memory,
    Http,
    Pull,
}

/// What somebody wants to know.
#[derive(Debug)]
pub(crate) struct Request {
    /// Names of the user's images; none: the built-in pair.
    pub(crate) images: Vec<String>,
    pub(crate) arguments: Vec<String>,
    /// Peers by name; None: those that are installed.
    pub(crate) peers: Option<Vec<String>>,
    /// Name and command line.
    pub(crate) own_peers: Vec<(String, String)>,
    pub(crate) measures: Vec<Measure>,
    pub(crate) runs: usize,
    pub(crate) cold_runs: usize,
    pub(crate) warm_up_runs: usize,
    pub(crate) seed: u64,
    pub(crate) timeout: Duration,
    pub(crate) allow_failure: bool,
    pub(crate) drop_caches: bool,
    /// How long starts are counted for a rate.
    pub(crate) rate_time: Duration,
    /// How many at a time for a rate; none: 1 to the number of cores.
    pub(crate) at_a_time: Vec<usize>,
    /// Where the servers of the user's Linux images listen; None: the built-in one is told a free port.
    pub(crate) port: Option<u16>,
    /// Whether the kernel is asked what it saw, in runs of their own.
    pub(crate) trace: bool,
    /// How many at once.
    pub(crate) counts: Vec<usize>,
    /// Where everything is put, and kept; None: in a temporary folder.
    pub(crate) work: Option<PathBuf>,
    /// The command line, for the record.
    pub(crate) command: String,
}

/// Who is told what is going on.
pub(crate) trait Watcher {
    /// Something begins.
    fn begins(&self, what: &str);
    /// So many of so many are done.
    fn done(&self, count: usize, of: usize);
}

/// Measures. What was found until ^C is found too.
pub(crate) fn run(host: &Host, request: &Request, watcher: &dyn Watcher) -> Result<Results> {
    process::adopt_orphans()?;
    let stage = Stage::set(request.work.as_deref())?;
    let measured = Benchmark::new(&stage, request, watcher).and_then(|benchmark| benchmark.run(host));
    let cleared = stage.clear();
    match measured {
        Ok(mut results) => {
            if request.work.is_some() {
                results.remarks.push(format!("kept: {} and {}", stage.work.display(), stage.state.display()));
            }
            // What was measured is not lost by it.
            results.remarks.extend(cleared.err().map(|error| format!("{error:#}")));
            Ok(results)
        }
        Err(error) => Err(error),
    }
}

/// One benchmark while it runs.
struct Benchmark<'a> {
    stage: &'a Stage,
    request: &'a Request,
    watcher: &'a dyn Watcher,
    random: fastrand::Rng,
    results: Results,
}

impl<'a> Benchmark<'a> {
    fn new(stage: &'a Stage, request: &'a Request, watcher: &'a dyn Watcher) -> Result<Self> {
        let settings = Settings {
            runs: request.runs,
            cold_runs: request.cold_runs,
            warm_up_runs: request.warm_up_runs,
            seed: request.seed,
            timeout_seconds: request.timeout.as_secs(),
            drop_caches: request.drop_caches,
            allow_failure: request.allow_failure,
            command: request.command.clone(),
        };
        let (cgroups, user) = stage.circumstances()?;
        let results = Results {
            schema: SCHEMA.to_owned(),
            version: VERSION,
            tool: Tool { version: env!("CARGO_PKG_VERSION").to_owned(), digest: peers::digest(&stage.amphora)? },
            began: output::rfc3339(output::now_nanos()),
            settings,
            partial: false,
            machine: machine::machine(&stage.work, &stage.state, cgroups, user),
            subjects: Vec::new(),
            contenders: Vec::new(),
            rows: Vec::new(),
            stages: Vec::new(),
            sizes: Vec::new(),
            rates: Vec::new(),
            memory: Vec::new(),
            traces: Vec::new(),
            absent: Vec::new(),
            remarks: Vec::new(),
        };
        Ok(Self { stage, request, watcher, random: fastrand::Rng::with_seed(request.seed), results })
    }

    fn run(mut self, host: &Host) -> Result<Results> {
        let then = CpuTime::now();
        self.watcher.begins("preparing images and peers");
        let materials = self.stage.materials(host, self.request)?;
        let mut lanes = Vec::new();
        if self.request.measures.iter().any(|measure| !matches!(measure, Measure::Http | Measure::Pull)) {
            for material in &materials {
                let contenders = peers::all(self.stage, self.request, material, Job::Run, &mut self.results)?;
                lanes.extend(self.qualify(material, contenders)?);
            }
        }
        if self.wants(Measure::Start) {
            self.rounds(&mut lanes)?;
        }
        if self.wants(Measure::Stages) {
            self.part("stages", |benchmark| benchmark.stages(&lanes));
        }
        if self.wants(Measure::Size) {
            self.part("size", |benchmark| benchmark.sizes(&materials, &lanes));
        }
        if self.wants(Measure::Rate) {
            self.part("rate", |benchmark| benchmark.rates(&lanes));
        }
        if self.wants(Measure::Memory) {
            self.part("memory", |benchmark| benchmark.memory(&materials, &lanes));
        }
        if self.request.trace && !is_interrupted() {
            self.part("trace", |benchmark| benchmark.traces(&materials, &lanes));
        }
        if self.wants(Measure::Http) {
            self.part("http", |benchmark| benchmark.servers(&materials));
        }
        if self.wants(Measure::Pull) {
            self.part("pull", |benchmark| benchmark.pulls(&materials));
        }
        if self.results.is_empty() && !is_interrupted() {
            let absent = self.results.absent.iter().map(Absent::sentence);
            let reasons: Vec<String> = absent.chain(self.results.remarks.iter().cloned()).collect();
            bail!("there is nothing to measure:\n  {}", reasons.join("\n  "));
        }
        self.results.machine.steal = CpuTime::now().steal_since(then);
        self.results.partial = is_interrupted();
        self.remark();
        Ok(self.results)
    }

    /// Measures something more; what was measured before is not lost if it fails.
    fn part(&mut self, name: &str, measure: impl FnOnce(&mut Self) -> Result<()>) {
        if let Err(error) = measure(self) {
            self.results.remarks.push(format!("{name} could not be measured: {error:#}"));
        }
    }

    fn wants(&self, measure: Measure) -> bool {
        self.request.measures.contains(&measure) && !is_interrupted()
    }

    /// Says what a reader has to know of how quiet it was.
    fn remark(&mut self) {
        let steal = self.results.machine.steal;
        let spreads = self.results.rows.iter().map(|row| (row.start.p90 - row.start.min) / row.start.median);
        let spread = spreads.fold(0.0, f64::max);
        let uncertain = self.results.rows.iter().filter_map(|row| row.ratio);
        let sure =
            uncertain.map(|ratio| (ratio.interval[1] - ratio.interval[0]) / 2.0 / ratio.median).fold(0.0, f64::max);
        let sentence = format!(
            "the spread of a row is up to {:.0} % (minimum to p90), steal {:.1} %; ratios hold within ± {:.0} %",
            spread * 100.0,
            steal * 100.0,
            sure * 100.0
        );
        let outliers: usize = self.results.rows.iter().map(|row| row.start.outliers).sum();
        let runs: usize = self.results.rows.iter().map(|row| row.samples.len()).sum();
        let sentence = format!("{sentence}; {outliers} of {runs} runs are outliers");
        let busy = spread > 0.3 || steal > 0.01;
        if !self.results.rows.is_empty() {
            self.results.remarks.push(if busy { format!("the machine was busy: {sentence}") } else { sentence });
        }
        if self.results.machine.cores == 1 {
            self.results.remarks.push("there is one core: what is done beside a run is in its time".to_owned());
        }
        if self.results.machine.is_container {
            let remark =
                "it was measured in a container: what that takes from, or does for, each contender is in its figures";
            self.results.remarks.push(remark.to_owned());
        }
        if self.results.partial {
            self.results.remarks.push("it was interrupted: this is not all that was asked for".to_owned());
        }
    }

    /// Notes who does not take part.
    fn absent(&mut self, name: &str, subject: &str, reason: impl Into<String>) {
        let absent = Absent { name: name.to_owned(), subject: Some(subject.to_owned()), reason: reason.into() };
        // Cold for the same reason as warm.
        if !self.results.absent.contains(&absent) {
            self.results.absent.push(absent);
        }
    }

    /// Warm lanes of one contender a subject: those whom other measures than times are taken of.
    fn warm(lanes: &[Lane]) -> impl Iterator<Item = &Lane> {
        lanes.iter().filter(|lane| lane.contender.temperature == results::Temperature::Warm)
    }
}

impl Absent {
    pub(crate) fn sentence(&self) -> String {
        match &self.subject {
            Some(subject) => format!("{} with {subject}: {}", self.name, self.reason),
            None => format!("{}: {}", self.name, self.reason),
        }
    }
}

/// Splits a command line into words as a shell does, without expanding anything.
fn words(line: &str) -> Result<Vec<String>> {
    let words = shlex::split(line).with_context(|| format!("`{line}`: a quote is open"))?;
    if words.is_empty() {
        bail!("a command line is expected, and there is none");
    }
    Ok(words)
}

/// A command line that a shell splits into these words.
pub(crate) fn line(words: &[String]) -> String {
    shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "))
}
