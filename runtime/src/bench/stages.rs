//! Where the time of `amphora run` goes: what it says itself with `--timings`, in runs of their own.

use anyhow::Result;

use super::{
    Benchmark,
    peers::OWN,
    process::{self, is_interrupted},
    results::Stages,
    rounds::Lane,
    statistics,
};

/// Fewer than the runs side by side: the order of magnitude is what matters here.
const RUNS: usize = 30;

impl Benchmark<'_> {
    pub(super) fn stages(&mut self, lanes: &[Lane]) -> Result<()> {
        for lane in Self::warm(lanes).filter(|lane| lane.contender.name == OWN) {
            self.watcher.begins(&format!("stages of {}", lane.subject.name));
            let mut words = lane.way.words.clone();
            let run = words.iter().position(|word| word == "run").map_or(words.len(), |at| at + 1);
            words.insert(run, "--timings".to_owned());
            let mut stages: Vec<(String, Vec<f64>)> = Vec::new();
            for _ in 0..RUNS.min(self.request.runs) {
                if is_interrupted() {
                    return Ok(());
                }
                let said = process::run(&words, self.request.timeout)?.complaint;
                said.lines().filter_map(parse).for_each(|stage| add(&mut stages, stage));
            }
            let medians = stages.into_iter().map(|(name, values)| (name, statistics::median(&values))).collect();
            self.results.stages.push(Stages { subject: lane.subject.name.clone(), medians });
        }
        Ok(())
    }
}

/// To the values of its name, in the order in which stages happen.
fn add(stages: &mut Vec<(String, Vec<f64>)>, (name, value): (String, f64)) {
    match stages.iter_mut().find(|(known, _)| *known == name) {
        Some((_, values)) => values.push(value),
        None => stages.push((name, vec![value])),
    }
}

/// `stage NAME MICROSECONDS`
fn parse(line: &str) -> Option<(String, f64)> {
    let mut words = line.strip_prefix("stage ")?.rsplitn(2, ' ');
    let microseconds = words.next()?.parse().ok()?;
    Some((words.next()?.to_owned(), microseconds))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn stage_lines_are_read_and_others_ignored() {
        assert_eq!(parse("stage clone 171"), Some(("clone".to_owned(), 171.0)));
        assert_eq!(parse("stage exec or load 5.5"), Some(("exec or load".to_owned(), 5.5)));
        assert_eq!(parse("hello"), None);
        assert_eq!(parse("stage clone"), None);
    }
}
