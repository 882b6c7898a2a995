//! Where the time of `amphora run` goes: what it says itself with `--timings`.

use crate::{Options, contenders::amphora, measure::quantile, prepare};
use anyhow::{Context, Result};

/// Fewer than the runs side by side: the order of magnitude is what matters here.
const RUNS: usize = 30;

/// The stages of one kind of image, in the order in which they happen.
pub(crate) struct Stages {
    pub(crate) image: &'static str,
    /// Name and median microseconds.
    pub(crate) medians: Vec<(String, f64)>,
}

/// Runs both kinds with `--timings`, and takes the median of each stage.
pub(crate) fn measure(options: &Options) -> Result<Vec<Stages>> {
    ["hello:linux", "hello:wasm"].into_iter().map(|image| measure_image(options, image)).collect()
}

fn measure_image(options: &Options, image: &'static str) -> Result<Stages> {
    let mut stages: Vec<(String, Vec<f64>)> = Vec::new();
    for _ in 0..RUNS {
        let mut run = amphora(options);
        run.args(["run", "--rm", "--network", "none", "--timings", image]);
        let output = run.output().context("cannot start amphora")?;
        for (name, microseconds) in String::from_utf8_lossy(&output.stderr).lines().filter_map(parse) {
            match stages.iter_mut().find(|(known, _)| *known == name) {
                Some((_, values)) => values.push(microseconds),
                None => stages.push((name, vec![microseconds])),
            }
        }
    }
    let medians = stages.into_iter().map(|(name, values)| (name, quantile(values.into_iter(), 0.5))).collect();
    Ok(Stages { image, medians })
}

/// `stage NAME MICROSECONDS`
fn parse(line: &str) -> Option<(String, f64)> {
    let mut words = line.strip_prefix("stage ")?.rsplitn(2, ' ');
    let microseconds = words.next()?.parse().ok()?;
    Some((words.next()?.to_owned(), microseconds))
}

/// The versions of what took part, as each prints it.
pub(crate) fn machine() -> String {
    let kernel = prepare(std::process::Command::new("uname").arg("-sr")).unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{}, {processors} processors", kernel.trim())
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
