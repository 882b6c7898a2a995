//! What got better and worse between two benchmarks, and how sure that is.

use anyhow::{Result, bail};

use super::{
    machine,
    results::{Results, Row, Temperature},
    statistics,
};

/// What two benchmarks say of one row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    pub(crate) subject: String,
    pub(crate) temperature: Temperature,
    pub(crate) contender: String,
    /// Medians, in ms.
    pub(crate) medians: [f64; 2],
    /// The later median as a multiple of the earlier one, with its 95 % interval.
    pub(crate) ratio: f64,
    pub(crate) interval: [f64; 2],
    pub(crate) verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The interval holds 1, or the difference is below the threshold.
    Same,
    Faster,
    Slower,
}

impl Verdict {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Same => "no difference",
            Self::Faster => "faster",
            Self::Slower => "slower",
        }
    }
}

/// What two benchmarks say together.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) changes: Vec<Change>,
    /// Rows that only one of them has.
    pub(crate) unmatched: Vec<String>,
    pub(crate) remarks: Vec<String>,
}

/// Compares. `threshold`: a share, such as 0.05; smaller differences are none.
///
/// # Errors
/// Different machines, unless that is wanted.
pub(crate) fn compare(before: &Results, after: &Results, threshold: f64, any_machine: bool) -> Result<Comparison> {
    let differences = machine::differences(&before.machine, &after.machine);
    if !differences.is_empty() && !any_machine {
        bail!(
            "they were measured on different machines (--different-machines compares them all the same):\n  {}",
            differences.join("\n  ")
        );
    }
    let mut remarks: Vec<String> =
        differences.into_iter().map(|difference| format!("different {difference}")).collect();
    for (name, results) in [("first", before), ("second", after)] {
        remarks.extend(results.partial.then(|| format!("the {name} benchmark was interrupted")));
    }
    let mut random = fastrand::Rng::with_seed(before.settings.seed ^ after.settings.seed.rotate_left(1));
    let mut changes = Vec::new();
    let mut unmatched: Vec<String> = Vec::new();
    for row in &before.rows {
        match after.row(&row.subject, row.temperature, &row.contender) {
            Some(later) => changes.extend(change(row, later, threshold, &mut random)),
            None => unmatched.push(format!("{}, only in the first", name_of(row))),
        }
    }
    let is_new = |row: &&Row| before.row(&row.subject, row.temperature, &row.contender).is_none();
    unmatched.extend(after.rows.iter().filter(is_new).map(|row| format!("{}, only in the second", name_of(row))));
    if changes.is_empty() {
        bail!("they have no row in common");
    }
    Ok(Comparison { changes, unmatched, remarks })
}

fn name_of(row: &Row) -> String {
    format!("{} with {} ({})", row.contender, row.subject, row.temperature.name())
}

fn change(before: &Row, after: &Row, threshold: f64, random: &mut fastrand::Rng) -> Option<Change> {
    let ratio = statistics::independent_ratio(&after.walls(), &before.walls(), random)?;
    let [low, high] = ratio.interval;
    let is_sure = low > 1.0 || high < 1.0;
    let verdict = match ratio.median {
        median if is_sure && median > 1.0 + threshold => Verdict::Slower,
        median if is_sure && median < 1.0 / (1.0 + threshold) => Verdict::Faster,
        _ => Verdict::Same,
    };
    Some(Change {
        subject: before.subject.clone(),
        temperature: before.temperature,
        contender: before.contender.clone(),
        medians: [before.start.median, after.start.median],
        ratio: ratio.median,
        interval: ratio.interval,
        verdict,
    })
}

/// `5%` or `0.05`, as a share.
pub(crate) fn parse_threshold(text: &str) -> Result<f64, String> {
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let share = number.trim().parse::<f64>().ok().map(|number| number / unit);
    let share = share.filter(|share| (0.0..=10.0).contains(share));
    share.ok_or_else(|| format!("`{text}` is no share between 0 and 10, such as `5%` or `0.05`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{report::tests::example, results::Sample, statistics::Summary};

    fn slowed(by: f64) -> Results {
        let mut results = example();
        for row in &mut results.rows {
            for sample in &mut row.samples {
                sample.wall_ms *= by;
            }
            row.start = Summary::of(&row.walls(), &mut fastrand::Rng::with_seed(1)).unwrap();
        }
        results
    }

    fn verdicts(by: f64, threshold: f64) -> Vec<Verdict> {
        let comparison = compare(&example(), &slowed(by), threshold, false).unwrap();
        comparison.changes.iter().map(|change| change.verdict).collect()
    }

    #[test]
    fn a_tenth_is_found_and_nothing_is_none() {
        assert!(verdicts(1.1, 0.05).iter().all(|verdict| *verdict == Verdict::Slower));
        assert!(verdicts(0.9, 0.05).iter().all(|verdict| *verdict == Verdict::Faster));
        assert!(verdicts(1.0, 0.05).iter().all(|verdict| *verdict == Verdict::Same));
        assert!(verdicts(1.1, 0.2).iter().all(|verdict| *verdict == Verdict::Same));
    }

    #[test]
    fn other_machines_are_refused_by_what_differs() {
        let mut other = example();
        other.machine.cores = 64;
        let refusal = compare(&example(), &other, 0.05, false).unwrap_err().to_string();
        assert!(refusal.contains("cores: 2 and 64"), "{refusal}");
        assert!(compare(&example(), &other, 0.05, true).unwrap().remarks[0].contains("cores"));
    }

    #[test]
    fn files_that_are_not_as_they_were_written_are_named_so() {
        let whole = example().to_json().unwrap();
        assert_eq!(Results::parse(&whole).unwrap().rows.len(), example().rows.len());
        let refusal = |text: &str| format!("{:#}", Results::parse(text).unwrap_err());
        assert!(refusal(&whole[..whole.len() / 2]).contains("not whole"));
        assert!(refusal("{}").contains("no results.json"));
        let newer = whole.replacen("\"version\": 1,", "\"version\": 7,", 1);
        assert!(refusal(&newer).contains("version 7 of the schema"));
        let mut edited = example();
        edited.rows[0].samples.iter_mut().for_each(|sample: &mut Sample| sample.wall_ms /= 2.0);
        assert!(refusal(&edited.to_json().unwrap()).contains("somebody has edited it"));
    }

    #[test]
    fn thresholds_are_shares() {
        assert_eq!(parse_threshold("5%"), Ok(0.05));
        assert_eq!(parse_threshold("0.1"), Ok(0.1));
        for text in ["", "%", "-1%", "x", "NaN", "inf", "5000%"] {
            assert!(parse_threshold(text).is_err(), "{text}");
        }
    }
}
