//! `amphora bench`: from what was typed to a request, and from results to what is printed.

use std::{
    cell::Cell,
    io::IsTerminal,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use linux_exec::interrupt;

use crate::{
    bench::{
        self, Measure, Request, Watcher,
        compare::{self, Manner, Verdict},
        report,
        results::Results,
    },
    cli::{BenchArgs, BenchCommand, MeasureChoice},
    output,
    records::host::Host,
};

/// Of `--quick`.
const QUICK_RUNS: usize = 10;
const WARM_UP_RUNS: usize = 3;
/// A cold run takes as long as many warm ones.
const WARM_RUNS_FOR_A_COLD_ONE: usize = 4;

/// `amphora bench`.
pub(crate) fn bench(host: &Host, args: &BenchArgs) -> Result<u8> {
    // What there is, is written. A second ^C ends this process at once.
    interrupt::expect()?;
    let request = request(args)?;
    if let Some(folder) = &args.report {
        report::prepare(folder)?;
    }
    output::note(&format!("amphora bench: seed {}", request.seed));
    let results = bench::run(host, &request, &Progress::new())?;
    output::print(&report::text(&results))?;
    if let Some(folder) = &args.report {
        let files = report::write(&results, folder)?;
        output::say(&format!("written to {}: {}", folder.display(), files.join(", ")))?;
    }
    // 130, as of a program that ^C ended.
    Ok(if results.partial { 130 } else { 0 })
}

fn request(args: &BenchArgs) -> Result<Request> {
    let runs = if args.quick { QUICK_RUNS } else { usize::try_from(args.runs)? };
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).context("cannot draw a seed")?;
    let peers = args.peers.as_ref();
    Ok(Request {
        images: args.images.clone(),
        arguments: args.arguments.clone(),
        peers: peers.map(|names| names.iter().filter(|name| !name.is_empty()).cloned().collect()),
        own_peers: args.peer.clone(),
        measures: args.only.iter().map(|choice| measure(*choice)).collect(),
        runs,
        cold_runs: runs.div_ceil(WARM_RUNS_FOR_A_COLD_ONE),
        warm_up_runs: WARM_UP_RUNS,
        // Short enough to be typed again.
        seed: args.seed.unwrap_or(u64::from_le_bytes(seed) % 1_000_000_000),
        timeout: Duration::from_secs(args.timeout),
        allow_failure: args.allow_failure,
        drop_caches: args.drop_caches,
        rate_time: Duration::from_secs(if args.quick { 1 } else { args.seconds }),
        at_a_time: args.at_a_time.iter().map(|count| Ok(usize::try_from(*count)?)).collect::<Result<_>>()?,
        port: args.port,
        trace: args.trace,
        counts: args.at_once.iter().map(|count| Ok(usize::try_from(*count)?)).collect::<Result<_>>()?,
        work: args.work.clone(),
        command: bench::line(&std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>()),
    })
}

fn measure(choice: MeasureChoice) -> Measure {
    match choice {
        MeasureChoice::Start => Measure::Start,
        MeasureChoice::Stages => Measure::Stages,
        MeasureChoice::Size => Measure::Size,
        MeasureChoice::Rate => Measure::Rate,
        MeasureChoice::Memory => Measure::Memory,
        MeasureChoice::Http => Measure::Http,
        MeasureChoice::Pull => Measure::Pull,
    }
}

/// `amphora bench compare`.
pub(crate) fn compare(BenchCommand::Compare(args): &BenchCommand) -> Result<u8> {
    let (before, after) = (Results::read(&args.before)?, Results::read(&args.after)?);
    let manner = Manner {
        threshold: args.threshold,
        any_machine: args.different_machines,
        of_cpu: args.cpu,
        yardstick: args.relative_to.as_deref(),
    };
    let comparison = compare::compare(&before, &after, manner)?;
    output::print(&report::comparison(&comparison))?;
    let is_slower = comparison.changes.iter().any(|change| change.verdict == Verdict::Slower);
    Ok(u8::from(is_slower))
}

/// On a terminal one line that is written over; else a line for each part.
struct Progress {
    is_terminal: bool,
    began: Cell<Instant>,
}

impl Progress {
    fn new() -> Self {
        Self { is_terminal: std::io::stderr().is_terminal(), began: Cell::new(Instant::now()) }
    }
}

impl Watcher for Progress {
    fn begins(&self, what: &str) {
        self.began.set(Instant::now());
        output::note(&format!("amphora bench: {what}"));
    }

    fn done(&self, count: usize, of: usize) {
        let so_far = self.began.get().elapsed().as_secs_f64();
        let left = so_far / count as f64 * (of - count) as f64;
        if self.is_terminal {
            output::rewrite(&format!("  {count} of {of}, {left:.0} s left"), count == of);
        }
    }
}
