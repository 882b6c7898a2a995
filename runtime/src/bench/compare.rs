//! What got better and worse between two benchmarks, and how sure that is.

use anyhow::{Result, bail};

use super::{
    machine,
    results::{Results, Row, Sample, Temperature, Until},
    statistics,
};

/// What two benchmarks say of one row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    pub(crate) subject: String,
    pub(crate) temperature: Temperature,
    pub(crate) until: Until,
    pub(crate) contender: String,
    /// Medians, in ms, or as multiples of the yardstick.
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

/// How two benchmarks are compared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner<'a> {
    /// A share, such as 0.05; smaller differences are none.
    pub(crate) threshold: f64,
    /// Different machines, too.
    pub(crate) any_machine: bool,
    /// CPU time instead of the time that passed: on a busy machine, that one holds.
    pub(crate) of_cpu: bool,
    /// Somebody whom both measured: times are taken as multiples of theirs of the same round, so that what the machine did
    /// besides counts for nothing.
    pub(crate) yardstick: Option<&'a str>,
}

/// What two benchmarks say together.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) changes: Vec<Change>,
    /// Rows that only one of them has.
    pub(crate) unmatched: Vec<String>,
    pub(crate) remarks: Vec<String>,
    /// What medians are: `MS`, or multiples of a yardstick's.
    pub(crate) unit: String,
}

/// Compares.
///
/// # Errors
/// Different machines, unless that is wanted; a yardstick that is not the same in both; nothing in common.
pub(crate) fn compare(before: &Results, after: &Results, manner: Manner<'_>) -> Result<Comparison> {
    let differences = machine::differences(&before.machine, &after.machine);
    if !differences.is_empty() && !manner.any_machine {
        bail!(
            "they were measured on different machines (--different-machines compares them all the same):\n  {}",
            differences.join("\n  ")
        );
    }
    if let Some(name) = manner.yardstick {
        check_yardstick(before, after, name)?;
    }
    let mut remarks: Vec<String> =
        differences.into_iter().map(|difference| format!("different {difference}")).collect();
    for (name, results) in [("first", before), ("second", after)] {
        remarks.extend(results.partial.then(|| format!("the {name} benchmark was interrupted")));
    }
    let mut random = fastrand::Rng::with_seed(before.settings.seed ^ after.settings.seed.rotate_left(1));
    let mut changes = Vec::new();
    let mut unmatched: Vec<String> = Vec::new();
    for row in before.rows.iter().filter(|row| Some(row.contender.as_str()) != manner.yardstick) {
        let later = after.rows.iter().find(|later| later.is_about_the_same_as(row));
        let values = later.map(|later| (values(before, row, manner), values(after, later, manner)));
        match values {
            Some((Some(then), Some(now))) => changes.extend(change(row, &then, &now, manner, &mut random)),
            Some(_) => unmatched.push(format!("{}, without a row of the yardstick", name_of(row))),
            None => unmatched.push(format!("{}, only in the first", name_of(row))),
        }
    }
    let is_new = |row: &&Row| !before.rows.iter().any(|earlier| earlier.is_about_the_same_as(row));
    unmatched.extend(after.rows.iter().filter(is_new).map(|row| format!("{}, only in the second", name_of(row))));
    if changes.is_empty() {
        bail!("they have no row in common{}", if manner.yardstick.is_some() { " besides the yardstick" } else { "" });
    }
    remarks.extend(drift(&changes, manner));
    let time = if manner.of_cpu { "CPU MS" } else { "MS" };
    let unit = manner.yardstick.map_or_else(|| time.to_owned(), |name| format!("{time} ÷ {name}'s"));
    Ok(Comparison { changes, unmatched, remarks, unit })
}

/// A yardstick is the same program in both.
fn check_yardstick(before: &Results, after: &Results, name: &str) -> Result<()> {
    let digest = |results: &Results| {
        results.contenders.iter().find(|program| program.name == name).map(|program| program.digest.clone())
    };
    match (digest(before), digest(after)) {
        (Some(one), Some(other)) if one == other => Ok(()),
        (Some(_), Some(_)) => bail!("{name} is no yardstick: it is not the same program in both (its digest differs)"),
        _ => bail!("{name} is no yardstick: it did not take part in both"),
    }
}

/// What is compared of a row: its times, or those times as multiples of the yardstick's of the same round.
fn values(results: &Results, row: &Row, manner: Manner<'_>) -> Option<Vec<f64>> {
    let time = |sample: &Sample| if manner.of_cpu { sample.user_ms + sample.system_ms } else { sample.wall_ms };
    let Some(name) = manner.yardstick else { return Some(row.samples.iter().map(time).collect()) };
    let base = results.row(&row.subject, row.temperature, row.until, name)?;
    let of_round = |round| base.samples.iter().find(|sample| sample.round == round);
    let quotients = row.samples.iter().filter_map(|sample| Some(time(sample) / time(of_round(sample.round)?)));
    Some(quotients.filter(|quotient| quotient.is_finite()).collect())
}

/// Says when everything moved in one direction, as it does when the machine did.
fn drift(changes: &[Change], manner: Manner<'_>) -> Option<String> {
    let first = changes.first().map(|change| change.verdict).filter(|verdict| *verdict != Verdict::Same)?;
    let is_all = changes.len() > 2 && changes.iter().all(|change| change.verdict == first);
    (is_all && manner.yardstick.is_none()).then(|| {
        format!(
            "all rows are {}: perhaps it is the machine, and --relative-to NAME of a peer that is the same in both takes that out",
            first.word()
        )
    })
}

fn name_of(row: &Row) -> String {
    format!("{} with {} ({}{})", row.contender, row.subject, row.temperature.name(), row.until.title())
}

fn change(row: &Row, then: &[f64], now: &[f64], manner: Manner<'_>, random: &mut fastrand::Rng) -> Option<Change> {
    let ratio = statistics::independent_ratio(now, then, random)?;
    let [low, high] = ratio.interval;
    let is_sure = low > 1.0 || high < 1.0;
    let verdict = match ratio.median {
        median if is_sure && median > 1.0 + manner.threshold => Verdict::Slower,
        median if is_sure && median < 1.0 / (1.0 + manner.threshold) => Verdict::Faster,
        _ => Verdict::Same,
    };
    Some(Change {
        subject: row.subject.clone(),
        temperature: row.temperature,
        until: row.until,
        contender: row.contender.clone(),
        medians: [then, now].map(statistics::median),
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
    use crate::bench::{report::tests::example, statistics::Summary};

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

    fn manner(threshold: f64) -> Manner<'static> {
        Manner { threshold, any_machine: false, of_cpu: false, yardstick: None }
    }

    fn verdicts(by: f64, threshold: f64) -> Vec<Verdict> {
        let comparison = compare(&example(), &slowed(by), manner(threshold)).unwrap();
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
    fn cpu_time_is_compared_by_itself() {
        let cpu = Manner { of_cpu: true, ..manner(0.05) };
        let mut after = slowed(1.5);
        let verdicts = |after: &Results| {
            let comparison = compare(&example(), after, cpu).unwrap();
            comparison.changes.iter().map(|change| change.verdict).collect::<Vec<_>>()
        };
        assert!(verdicts(&after).iter().all(|verdict| *verdict == Verdict::Same));
        after.rows[0].samples.iter_mut().for_each(|sample| sample.system_ms *= 1.3);
        assert_eq!(verdicts(&after)[0], Verdict::Slower);
    }

    #[test]
    fn other_machines_are_refused_by_what_differs() {
        let mut other = example();
        other.machine.cores = 64;
        let refusal = compare(&example(), &other, manner(0.05)).unwrap_err().to_string();
        assert!(refusal.contains("cores: 2 and 64"), "{refusal}");
        let any = Manner { any_machine: true, ..manner(0.05) };
        assert!(compare(&example(), &other, any).unwrap().remarks[0].contains("cores"));
    }

    #[test]
    fn a_yardstick_takes_the_machine_out() {
        let yardstick = Manner { yardstick: Some("<script>crun</script>"), ..manner(0.05) };
        let mut busy = slowed(1.5);
        let verdicts = |after: &Results| {
            let comparison = compare(&example(), after, yardstick).unwrap();
            let of = |change: &Change| (change.contender.clone(), change.verdict);
            comparison.changes.iter().map(of).collect::<Vec<_>>()
        };
        assert!(compare(&example(), &busy, manner(0.05)).unwrap().remarks[0].contains("perhaps it is the machine"));
        assert_eq!(verdicts(&busy), [("amphora".to_owned(), Verdict::Same)]);
        for sample in &mut busy.rows[0].samples {
            sample.wall_ms *= 1.1;
        }
        assert_eq!(verdicts(&busy), [("amphora".to_owned(), Verdict::Slower)]);
        busy.contenders[1].digest = "sha256:44".to_owned();
        assert!(compare(&example(), &busy, yardstick).unwrap_err().to_string().contains("not the same program"));
        let nobody = Manner { yardstick: Some("nobody"), ..yardstick };
        assert!(compare(&example(), &example(), nobody).unwrap_err().to_string().contains("did not take part"));
    }

    #[test]
    fn files_that_are_not_as_they_were_written_are_named_so() {
        let whole = example().to_json().unwrap();
        assert_eq!(Results::parse(&whole).unwrap().rows.len(), example().rows.len());
        let refusal = |text: &str| format!("{:#}", Results::parse(text).unwrap_err());
        assert!(refusal(&whole[..whole.len() / 2]).contains("not whole"));
        assert!(refusal("{}").contains("no results.json"));
        let newer = whole.replacen("\"version\": 2,", "\"version\": 7,", 1);
        assert!(refusal(&newer).contains("version 7 of the schema"));
        let older = whole.replacen("\"version\": 2,", "\"version\": 1,", 1);
        assert_eq!(Results::parse(&older).unwrap().rows.len(), example().rows.len());
        let mut lines = example();
        lines.rows[1].contender = "crun\nvessel:linux warm".to_owned();
        assert!(refusal(&lines.to_json().unwrap()).contains("is no name"));
        let mut twice = example();
        twice.rows.push(twice.rows[0].clone());
        assert!(refusal(&twice.to_json().unwrap()).contains("is there twice"));
        let mut edited = example();
        edited.rows[0].start.p99 *= 0.5;
        assert!(refusal(&edited.to_json().unwrap()).contains("somebody has edited it"));
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
