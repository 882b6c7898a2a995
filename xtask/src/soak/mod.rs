//! `cargo xtask soak store`: commands that are killed at random moments, and many at once, on one store.
//!
//! What is done is drawn from a seed, which is printed: the same seed draws the same commands, and moments within the time
//! that such a command takes here. What comes of them is up to the machine's scheduling. Every command must end in time, with a code and a sentence that are known;
//! afterwards the store must be whole: `system check` finds nothing after one `system prune`, and every image that has a
//! name runs.

mod place;

use crate::{fixtures::Fixtures, registry::Registries};
use anyhow::{Context, Result, bail};
use place::{Ended, Place};
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use test_inputs::Random;

/// Commands at once, and of how many one is killed.
const WORKERS: usize = 8;
const ONE_KILLED_OF: u64 = 8;
/// Kills that strike nobody, as the command has ended already, are not counted; so many tries for one that does.
const TRIES: usize = 4;
/// The latest moment of a kill among many commands, which take longer than alone.
const CROWDED_KILL_MICROS: u64 = 60_000;
/// How long the last processes of killed commands may take to end.
const SETTLE: Duration = Duration::from_secs(30);
/// Failures that are printed.
const SHOWN: usize = 10;

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) kills: usize,
    pub(crate) commands: usize,
    pub(crate) seed: u64,
}

impl Options {
    /// What `cargo xtask test` does of it.
    pub(crate) fn short() -> Self {
        Self { kills: 30, commands: 200, seed: new_seed() }
    }

    fn parse(words: &[&str]) -> Result<Self> {
        let mut options = Self { kills: 1000, commands: 5000, seed: new_seed() };
        for pair in words.chunks(2) {
            let [option, value] = pair else { bail!("{} needs a number", pair[0]) };
            let number: u64 = value.parse().with_context(|| format!("{option} {value}"))?;
            match *option {
                "--kills" => options.kills = usize::try_from(number)?,
                "--commands" => options.commands = usize::try_from(number)?,
                "--seed" => options.seed = number,
                other => bail!("unknown option of soak: {other}; `cargo xtask help` names all"),
            }
        }
        Ok(options)
    }
}

fn new_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_secs())
}

/// `cargo xtask soak store OPTIONS`.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let ["store", options @ ..] = words else { bail!("what is to be soaked? `cargo xtask soak store`") };
    let options = Options::parse(options)?;
    let fixtures = Fixtures::build(false)?;
    let registries = Registries::start(&fixtures)?.context("docker-registry is not installed")?;
    let registry = registries.open_address().to_owned();
    if store(&fixtures, &registry, options)? { Ok(()) } else { bail!("the store did not hold") }
}

/// Both parts, each on a store of its own. Says what was done, and whether all held.
pub(crate) fn store(fixtures: &Fixtures, registry: &str, options: Options) -> Result<bool> {
    println!("soak store --kills {} --commands {} --seed {}", options.kills, options.commands, options.seed);
    let mut failures = Vec::new();
    let parts: [(&str, &Part); 2] = [("kills", &kill), ("concurrent commands", &crowd)];
    for (number, (name, part)) in parts.into_iter().enumerate() {
        let begun = Instant::now();
        let place = Place::new(fixtures, registry, number)?;
        let tally = Tally::default();
        part(&place, options, &tally)?;
        settle(&place, &tally)?;
        println!("{name}, {:.0} s:", begun.elapsed().as_secs_f64());
        failures.extend(tally.print());
    }
    failures.iter().take(SHOWN).for_each(|failure| println!("FAILED {failure}"));
    println!("{} failed", failures.len());
    Ok(failures.is_empty())
}

type Part = dyn Fn(&Place, Options, &Tally) -> Result<()>;

/// What came of all commands: how often which, and what should not have come.
#[derive(Default)]
struct Tally {
    counts: Mutex<BTreeMap<String, usize>>,
    failures: Mutex<Vec<String>>,
}

impl Tally {
    fn count(&self, what: String) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
    }

    fn fail(&self, what: String) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn judge(&self, ended: &Ended) {
        self.count(format!("{} {}", ended.command[0], ended.meaning()));
        if let Some(why) = ended.unexpected() {
            self.fail(why);
        }
    }

    /// Prints the counts, and gives the failures.
    fn print(self) -> Vec<String> {
        for (what, count) in self.counts.into_inner().unwrap_or_else(PoisonError::into_inner) {
            println!("  {count:6} {what}");
        }
        self.failures.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One command after the other, each killed at a random moment; the next one must find its way.
fn kill(place: &Place, options: Options, tally: &Tally) -> Result<()> {
    let mut random = Random::new(options.seed);
    let (mut struck, mut latest) = (0, LatestMoments::default());
    for _ in 0..options.kills * TRIES {
        if struck == options.kills {
            break;
        }
        let command = place.command(&mut random);
        let after = Duration::from_micros(random.below(latest.micros(&command[0])));
        let ended = place.kill(&command, after)?;
        latest.learn(&command[0], ended.is_none());
        if let Some(ended) = ended {
            tally.judge(&ended);
            continue;
        }
        struck += 1;
        tally.count(format!("{} killed", command[0]));
        for look in [&["images", "-q"][..], &["ps", "-aq"]] {
            let ended = place.run(look)?;
            if ended.code != Some(0) {
                tally.fail(format!("after {} was killed: {ended}", command.join(" ")));
            }
        }
    }
    if struck < options.kills {
        tally.fail(format!("only {struck} kills struck"));
    }
    Ok(())
}

/// The latest moment at which a kill strikes, microseconds, by the command's first word: about as long as it takes.
#[derive(Default)]
struct LatestMoments(BTreeMap<String, u64>);

impl LatestMoments {
    fn micros(&self, command: &str) -> u64 {
        self.0.get(command).copied().unwrap_or(20_000)
    }

    /// Later if it struck, earlier if the command had ended by then: seven of ten strike.
    fn learn(&mut self, command: &str, has_struck: bool) {
        let micros = self.micros(command);
        let next = if has_struck { micros * 11 / 10 } else { micros * 8 / 10 };
        self.0.insert(command.to_owned(), next.clamp(1_000, 1_000_000));
    }
}

/// Many commands at once, some of which are killed.
fn crowd(place: &Place, options: Options, tally: &Tally) -> Result<()> {
    let begun = AtomicUsize::new(0);
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let workers = (0..WORKERS).map(|worker| {
            let begun = &begun;
            scope.spawn(move || {
                let mut random = Random::new(options.seed.wrapping_add(worker as u64 + 1));
                while begun.fetch_add(1, Ordering::Relaxed) < options.commands {
                    one_of_many(place, &mut random, tally)?;
                }
                Ok(())
            })
        });
        let workers: Vec<_> = workers.collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| bail!("a worker panicked"))).collect()
    });
    results.into_iter().collect()
}

fn one_of_many(place: &Place, random: &mut Random, tally: &Tally) -> Result<()> {
    let command = place.command(random);
    if random.below(ONE_KILLED_OF) > 0 {
        tally.judge(&place.run(&command)?);
        return Ok(());
    }
    match place.kill(&command, Duration::from_micros(random.below(CROWDED_KILL_MICROS)))? {
        Some(ended) => tally.judge(&ended),
        None => tally.count(format!("{} killed", command[0])),
    }
    Ok(())
}

/// The store is whole: nothing is left behind after a prune, and what has a name runs.
fn settle(place: &Place, tally: &Tally) -> Result<()> {
    let begun = Instant::now();
    loop {
        // Containers of killed commands end by themselves.
        place.run(&["system", "prune", "-f"])?;
        let check = place.run(&["system", "check"])?;
        if check.code == Some(0) {
            break;
        }
        if begun.elapsed() > SETTLE {
            tally.fail(format!("still after a prune: {check}"));
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    let named = place.run(&["images", "--filter", "dangling=false", "--format", "{{.Repository}}:{{.Tag}}"])?;
    if named.code != Some(0) || !named.stderr.is_empty() {
        tally.fail(format!("at the end: {named}"));
    }
    for name in named.stdout.lines() {
        let ended = place.run(&["run", "--rm", "--pull=never", name])?;
        tally.count(format!(
            "at the end: an image with a name {}",
            if ended.code == Some(0) { "runs" } else { "FAILS" }
        ));
        if ended.code != Some(0) {
            tally.fail(format!("at the end: {ended}"));
        }
    }
    Ok(())
}
