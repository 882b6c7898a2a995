//! Start and first byte: rounds in which everybody runs once, in an order drawn anew each time, so that whatever else the
//! machine does meets all of them alike.

use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{Advice, fadvise};

use super::{
    Benchmark, line,
    machine::CpuTime,
    memory,
    peers::{self, Contender, OWN, Task, Way},
    process::{self, Run, is_interrupted},
    results::{Got, Row, Sample, Subject, Temperature, Until},
    serve,
    sight::{self, Seen},
    stage::{self, Material},
    statistics::{self, Summary},
};

/// Who fails this often in a row takes part no longer: each failure may cost the whole time limit.
const FAILURES_IN_A_ROW: usize = 5;
/// Runs that are looked at to know what a subject does.
const TRIAL_RUNS: usize = 2;

/// A contender that does its work, with what was measured of it so far.
pub(super) struct Lane {
    pub(super) subject: Subject,
    pub(super) contender: Contender,
    /// The way that it is called.
    pub(super) way: Way,
    pub(super) seen: Seen,
    samples: Vec<Sample>,
    machine_cpu_ms: f64,
    failures: usize,
    failed_in_a_row: usize,
    first_failure: Option<String>,
}

impl Benchmark<'_> {
    /// Those who do the work; the first is amphora, which says what the work is. Who does not is noted.
    pub(super) fn qualify(&mut self, material: &Material, contenders: Vec<Contender>) -> Result<Vec<Lane>> {
        let mut subject = material.subject.clone();
        let mut lanes: Vec<Lane> = Vec::new();
        for contender in contenders {
            if is_interrupted() {
                break;
            }
            self.watcher.begins(&format!("{} with {}", contender.name, subject.name));
            let is_first = lanes.is_empty() && contender.name == OWN && contender.temperature == Temperature::Warm;
            let qualified = match is_first {
                true => self.learn(&contender, &mut subject),
                false => self.try_ways(&contender, &subject),
            };
            match qualified {
                Ok(way) => {
                    let warm = lanes.iter().find(|lane| lane.contender.name == contender.name);
                    let seen = warm.map(|lane| lane.seen.clone());
                    let seen = seen.unwrap_or_else(|| self.look(&contender, &way, material, &subject));
                    lanes.push(Lane::new(&subject, contender, way, seen));
                }
                Err(_) if is_interrupted() => break,
                Err(error) if is_first => {
                    self.absent(&contender.name, &subject.name, format!("{error:#}"));
                    return Ok(Vec::new());
                }
                Err(error) => self.absent(&contender.name, &subject.name, format!("{error:#}")),
            }
        }
        self.note_ways(&lanes);
        // What is pulled has been started, too, or will be.
        if !self.results.subjects.iter().any(|known| known.name == subject.name) {
            self.results.subjects.push(subject);
        }
        Ok(lanes)
    }

    /// What the subject does, as amphora runs it.
    fn learn(&mut self, contender: &Contender, subject: &mut Subject) -> Result<Way> {
        let way = contender.ways[0].clone();
        let runs: Vec<Run> = (0..TRIAL_RUNS).map(|_| self.once(contender, &way)).collect::<Result<_>>()?;
        let (first, last) = (&runs[0], &runs[TRIAL_RUNS - 1]);
        match contender.task.until() {
            Until::Exit => {
                let (one, other) = (first.exit_code, last.exit_code);
                ensure!(one == other, "it ends with {one}, then with {other}");
                if one != 0 && !self.request.allow_failure {
                    let complaint = quoted(&first.complaint);
                    bail!("it ends with {one} (--allow-failure times it all the same){complaint}");
                }
                subject.exit_code = one;
            }
            Until::Answer => {}
            Until::Ready => return check(last, subject, Until::Ready).map(|()| way).map_err(anyhow::Error::msg),
        }
        subject.output = (first.output == last.output).then(|| format!("sha256:{}", first.output));
        if subject.output.is_none() {
            let remark =
                format!("{} writes something else each time: of its work only the exit code is checked", subject.name);
            self.results.remarks.push(remark);
        }
        Ok(way)
    }

    /// The first way that works; the error is that of the usual one.
    fn try_ways(&self, contender: &Contender, subject: &Subject) -> Result<Way> {
        let mut first = None;
        for way in &contender.ways {
            let until = contender.task.until();
            match self.once(contender, way).and_then(|run| check(&run, subject, until).map_err(anyhow::Error::msg)) {
                Ok(()) => return Ok(way.clone()),
                Err(error) => drop(first.get_or_insert(error)),
            }
        }
        Err(first.unwrap_or_else(|| anyhow::anyhow!("there is no way to call it")))
    }

    /// What its process gets, once: followed, or where that is in its way, looked at from outside.
    fn look(&self, contender: &Contender, way: &Way, material: &Material, subject: &Subject) -> Seen {
        if contender.is_served {
            return Seen::nothing("a daemon starts it");
        }
        let timeout = self.request.timeout;
        let prepared = contender.prepare(self.request.drop_caches);
        let seen = prepared.and_then(|()| match &contender.task {
            Task::Ready { .. } => Ok(Seen::nothing("it fetches, and starts nothing")),
            Task::Answer(door) => sight::glance(&way.words, timeout, Some(door)),
            Task::Exit => match sight::look(&way.words, timeout) {
                Ok((seen, code)) if code == subject.exit_code && matches!(seen.got, Got::Seen(_)) => Ok(seen),
                // As an ordinary user: newuidmap, say, has no rights that its user has not while somebody follows it. And who may not
                // be looked at while he ends, may be while he runs.
                _ => self.glance(contender, way, material),
            },
        });
        seen.unwrap_or_else(|error| {
            contender.undo();
            Seen::nothing(format!("{error:#}"))
        })
    }

    /// From outside, and at best when the program waits.
    fn glance(&self, contender: &Contender, way: &Way, material: &Material) -> Result<Seen> {
        if !material.is_built_in {
            return sight::glance(&way.words, self.request.timeout, None);
        }
        let waiting = material.with_arguments(&[memory::WAIT]);
        let seen = peers::named(self.stage, self.request, &waiting, &contender.name).and_then(|contender| {
            let way =
                contender.ways.iter().find(|other| other.note == way.note).context("there is no way to call it")?;
            let seen = sight::glance_at_waiting(&way.words, self.request.timeout);
            contender.undo();
            seen
        });
        memory::restore_bundle(material)?;
        seen
    }

    /// Says of programs why they are not called as usual.
    fn note_ways(&mut self, lanes: &[Lane]) {
        for lane in lanes {
            let program = self.results.contenders.iter_mut().find(|program| program.name == lane.contender.name);
            if let (Some(program), Some(note)) = (program, lane.way.note) {
                program.note = Some(note.to_owned());
            }
        }
    }

    fn once(&self, contender: &Contender, way: &Way) -> Result<Run> {
        contender.prepare(self.request.drop_caches)?;
        let timeout = self.request.timeout;
        let run = match &contender.task {
            Task::Exit => process::run(&way.words, timeout),
            Task::Answer(door) => serve::run(&way.words, door, timeout),
            Task::Ready { witness, .. } => process::run(&way.words, timeout).and_then(|run| {
                if let Some(witness) = witness.as_ref().filter(|_| run.exit_code == 0) {
                    stage::run_words(witness).context("what it pulled is not ready to run")?;
                    process::settle()?;
                }
                Ok(run)
            }),
        };
        if run.as_ref().map_or(true, |run| run.exit_code != 0) {
            contender.undo();
        }
        run
    }

    /// Warm rounds, then cold ones; then the rows.
    pub(super) fn rounds(&mut self, lanes: &mut [Lane]) -> Result<()> {
        // What is still to be written cannot be put out of the page cache, and disturbs.
        rustix::fs::sync();
        let starts = lanes.iter().all(|lane| lane.contender.task.until() == Until::Exit);
        // What takes long is done less often, and has warmed up by being tried.
        let warm = if starts { (self.request.warm_up_runs, self.request.runs) } else { (1, self.request.cold_runs) };
        for (temperature, warm_up, runs) in
            [(Temperature::Warm, warm.0, warm.1), (Temperature::Cold, 0, self.request.cold_runs)]
        {
            let mut chosen: Vec<usize> =
                (0..lanes.len()).filter(|lane| lanes[*lane].contender.temperature == temperature).collect();
            if runs == 0 || chosen.is_empty() {
                continue;
            }
            let title = lanes[chosen[0]].contender.task.until().title();
            self.watcher.begins(&format!("{} rounds of {}{title}", temperature.name(), chosen.len()));
            for round in 0..warm_up + runs {
                self.random.shuffle(&mut chosen);
                for lane in &chosen {
                    if is_interrupted() {
                        break;
                    }
                    self.turn(&mut lanes[*lane], round.checked_sub(warm_up));
                }
                if is_interrupted() {
                    break;
                }
                self.watcher.done(round + 1, warm_up + runs);
            }
        }
        self.rows(lanes);
        Ok(())
    }

    /// One run of one contender; `round` None: to warm up.
    fn turn(&self, lane: &mut Lane, round: Option<usize>) {
        if lane.failed_in_a_row >= FAILURES_IN_A_ROW {
            return;
        }
        let until = lane.contender.task.until();
        let then = CpuTime::now();
        let run = self.once(&lane.contender, &lane.way);
        if is_interrupted() {
            return;
        }
        let checked =
            run.map_err(|error| format!("{error:#}")).and_then(|run| check(&run, &lane.subject, until).map(|()| run));
        let Some(round) = round else { return };
        match checked {
            Ok(run) => {
                lane.failed_in_a_row = 0;
                lane.machine_cpu_ms += CpuTime::now().busy_ms_since(then);
                lane.samples.push(sample(round, &run, until));
            }
            Err(reason) => {
                lane.failures += 1;
                lane.failed_in_a_row += 1;
                lane.first_failure.get_or_insert(reason);
            }
        }
    }

    fn rows(&mut self, lanes: &[Lane]) {
        for lane in lanes {
            let walls: Vec<f64> = lane.samples.iter().map(|sample| sample.wall_ms).collect();
            let firsts: Vec<f64> = lane.samples.iter().filter_map(|sample| sample.first_byte_ms).collect();
            let Some(start) = Summary::of(&walls, &mut self.random) else {
                let reason = lane.first_failure.clone();
                self.absent(
                    &lane.contender.name,
                    &lane.subject.name,
                    reason.map_or_else(
                        || "it did not come to its turn".to_owned(),
                        |reason| format!("no run succeeded: {reason}"),
                    ),
                );
                continue;
            };
            let row = Row {
                subject: lane.subject.name.clone(),
                temperature: lane.contender.temperature,
                until: lane.contender.task.until(),
                contender: lane.contender.name.clone(),
                command: line(&lane.way.words),
                samples: lane.samples.clone(),
                start,
                first_byte: Summary::of(&firsts, &mut self.random),
                ratio: None,
                machine_cpu_ms: lane.machine_cpu_ms / lane.samples.len() as f64,
                got: lane.seen.got.clone(),
                failures: lane.failures,
                first_failure: lane.first_failure.clone(),
            };
            self.results.rows.push(row);
        }
        self.ratios();
    }

    fn ratios(&mut self) {
        for index in 0..self.results.rows.len() {
            let row = &self.results.rows[index];
            if row.ratio.is_some() {
                continue;
            }
            let own = self.results.row(&row.subject, row.temperature, row.until, OWN).map(Row::walls);
            let ratio = own.and_then(|own| statistics::ratio(&row.walls(), &own, &mut self.random));
            self.results.rows[index].ratio = ratio;
        }
    }
}

impl Lane {
    /// What it had mapped when it was looked at is read from the disk in its cold runs, too.
    fn new(subject: &Subject, mut contender: Contender, way: Way, seen: Seen) -> Self {
        contender.evicted.extend(seen.files.iter().cloned());
        let (samples, subject) = (Vec::new(), subject.clone());
        let (machine_cpu_ms, failures, failed_in_a_row, first_failure) = (0.0, 0, 0, None);
        Self { subject, contender, way, seen, samples, machine_cpu_ms, failures, failed_in_a_row, first_failure }
    }
}

impl Contender {
    /// Does before a run what makes it cold, or what makes it fetch again.
    fn prepare(&self, drop_caches: bool) -> Result<()> {
        if let Task::Ready { before: Some(before), witness } = &self.task {
            // It fails, too, where nothing was pulled yet.
            if let Err(error) = stage::run_words(before)
                && witness.as_ref().is_some_and(|witness| stage::run_words(witness).is_ok())
            {
                return Err(error).context("what an earlier run has pulled cannot be removed");
            }
            process::settle()?;
        }
        if let Some(folder) = &self.emptied {
            empty(folder)?;
        }
        if self.temperature == Temperature::Warm {
            return Ok(());
        }
        if drop_caches {
            rustix::fs::sync();
            return fs::write("/proc/sys/vm/drop_caches", "3").context("only root can use --drop-caches");
        }
        self.evicted.iter().for_each(|path| evict(path));
        Ok(())
    }

    /// That it fails says that nothing was left.
    pub(super) fn undo(&self) {
        self.run_undo(self.undo.as_deref());
    }

    /// The same for one of several containers at once.
    pub(super) fn undo_of(&self, index: usize) {
        self.run_undo(self.undo.as_ref().map(|words| peers::renamed(words, index)).as_deref());
    }

    fn run_undo(&self, words: Option<&[String]>) {
        if let Some(words) = words {
            let _ = stage::run_words(words);
        }
    }
}

/// Puts a file, or all files of a folder, out of the page cache. What cannot be opened stays where it is.
fn evict(path: &Path) {
    let Ok(metadata) = path.symlink_metadata() else { return };
    if metadata.is_dir() {
        fs::read_dir(path).into_iter().flatten().flatten().for_each(|entry| evict(&entry.path()));
    } else if metadata.is_file()
        && let Ok(file) = File::open(path)
    {
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
    }
}

/// Removes what is in a folder.
fn empty(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot empty {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn sample(round: usize, run: &Run, until: Until) -> Sample {
    Sample {
        round,
        wall_ms: run.wall_ms,
        first_byte_ms: run.first_byte_ms.filter(|_| until == Until::Exit),
        request_ms: run.request_ms,
        user_ms: run.user_ms,
        system_ms: run.system_ms,
        minor_faults: run.minor_faults,
    }
}

/// Whether a run did the subject's work; else what it did instead.
///
/// How a server ends that was told to is its own business, and so is what is said of a pull.
fn check(run: &Run, subject: &Subject, until: Until) -> Result<(), String> {
    let expected = if until == Until::Exit { subject.exit_code } else { 0 };
    if run.exit_code != expected && until != Until::Answer {
        return Err(format!("it ended with {} instead of {expected}{}", run.exit_code, quoted(&run.complaint)));
    }
    if let Some(output) = &subject.output
        && until != Until::Ready
        && output.strip_prefix("sha256:") != Some(run.output.as_str())
    {
        let bytes = run.output_bytes;
        return Err(format!(
            "it wrote {bytes} bytes, which are not what amphora's run writes{}",
            quoted(&run.complaint)
        ));
    }
    if run.left_behind > 0 {
        return Err(format!("it left {} processes behind, which were killed", run.left_behind));
    }
    Ok(())
}

/// The last line of what a program complained of.
fn quoted(complaint: &str) -> String {
    complaint.lines().next_back().map_or_else(String::new, |line| format!(": {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Kind;

    #[test]
    fn work_is_checked_before_its_time_counts() {
        let subject = Subject {
            name: "x".to_owned(),
            kind: Kind::Linux,
            digest: String::new(),
            arguments: Vec::new(),
            exit_code: 0,
            output: Some("sha256:ab".to_owned()),
        };
        let good = Run {
            wall_ms: 1.0,
            first_byte_ms: None,
            request_ms: None,
            user_ms: 0.0,
            system_ms: 0.0,
            minor_faults: 0,
            exit_code: 0,
            output: "ab".to_owned(),
            output_bytes: 2,
            complaint: "one\ntwo".to_owned(),
            left_behind: 0,
        };
        let exit = Until::Exit;
        assert_eq!(check(&good, &subject, exit), Ok(()));
        let failed = check(&Run { exit_code: 3, ..good.clone() }, &subject, exit).unwrap_err();
        assert_eq!(failed, "it ended with 3 instead of 0: two");
        let silent = Run { output: String::new(), output_bytes: 0, ..good.clone() };
        assert!(check(&silent, &subject, exit).is_err() && check(&silent, &subject, Until::Answer).is_err());
        assert_eq!(check(&silent, &subject, Until::Ready), Ok(()));
        assert!(check(&Run { left_behind: 1, ..good.clone() }, &subject, exit).is_err());
        assert_eq!(check(&Run { exit_code: 143, ..good.clone() }, &subject, Until::Answer), Ok(()));
        assert!(check(&Run { exit_code: 1, ..good }, &subject, Until::Ready).is_err());
        let any_output = Subject { output: None, ..subject };
        assert_eq!(check(&silent, &any_output, exit), Ok(()));
    }
}
