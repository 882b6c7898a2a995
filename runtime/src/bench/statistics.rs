//! Figures over many runs: quantiles, and how sure they are.

use serde::{Deserialize, Serialize};

use super::results::Ratio;

/// How often what was found is drawn anew.
const RESAMPLES: usize = 1000;

/// What is said of many values. All are values that occurred.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Summary {
    pub(crate) min: f64,
    pub(crate) median: f64,
    /// 95 % interval of the median, by bootstrap.
    pub(crate) interval: [f64; 2],
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    /// Values beyond the quartiles by three times their distance.
    pub(crate) outliers: usize,
}

impl Summary {
    /// Of values, of which there is at least one; None: there is none.
    pub(crate) fn of(values: &[f64], random: &mut fastrand::Rng) -> Option<Self> {
        let medians = |sorted: &[f64], random: &mut fastrand::Rng| {
            (0..RESAMPLES).map(|_| resampled_median(sorted, random)).collect::<Vec<f64>>()
        };
        let found = Self::without_interval(values)?;
        Some(Self { interval: middle(&medians(&sorted(values), random)), ..found })
    }

    /// What does not depend on chance.
    fn without_interval(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let [q1, q3] = [0.25, 0.75].map(|share| quantile(&sorted, share));
        let far = 3.0 * (q3 - q1);
        let outliers = sorted.iter().filter(|value| **value > q3 + far || **value < q1 - far).count();
        let [median, p90, p99] = [0.5, 0.9, 0.99].map(|share| quantile(&sorted, share));
        Some(Self { min, median, interval: [median, median], p90, p99, max, outliers })
    }

    /// Whether it can be what was said of these values.
    pub(crate) fn is_of(&self, values: &[f64]) -> bool {
        let Some(found) = Self::without_interval(values) else { return false };
        let figures = |one: &Self| [one.min, one.median, one.p90, one.p99, one.max];
        // JSON loses the last bit of some.
        let is_near = |one: f64, other: f64| (one - other).abs() <= one.abs() * 1e-9;
        let [low, high] = self.interval;
        figures(self).iter().zip(figures(&found)).all(|(one, other)| is_near(*one, other))
            && self.outliers.abs_diff(found.outliers) <= values.len() / 100
            && self.min <= low
            && low <= self.median
            && self.median <= high
            && high <= self.max
    }
}

/// The quotient of two medians. Values of the same rounds are drawn together, as what else the machine did met both.
pub(crate) fn ratio(own: &[f64], base: &[f64], random: &mut fastrand::Rng) -> Option<Ratio> {
    if own.len() != base.len() || own.is_empty() {
        return independent_ratio(own, base, random);
    }
    let draw = |random: &mut fastrand::Rng| {
        let rounds: Vec<usize> = (0..own.len()).map(|_| random.usize(..own.len())).collect();
        let drawn = |values: &[f64]| median(&rounds.iter().map(|round| values[*round]).collect::<Vec<f64>>());
        drawn(own) / drawn(base)
    };
    let ratios: Vec<f64> = (0..RESAMPLES).map(|_| draw(random)).collect();
    Some(Ratio { median: median(own) / median(base), interval: middle(&ratios) })
}

/// The same of values that have no rounds in common. None: there are none.
pub(crate) fn independent_ratio(own: &[f64], base: &[f64], random: &mut fastrand::Rng) -> Option<Ratio> {
    if own.is_empty() || base.is_empty() {
        return None;
    }
    let draw = |random: &mut fastrand::Rng| resampled_median(own, random) / resampled_median(base, random);
    let ratios: Vec<f64> = (0..RESAMPLES).map(|_| draw(random)).collect();
    Some(Ratio { median: median(own) / median(base), interval: middle(&ratios) })
}

fn resampled_median(values: &[f64], random: &mut fastrand::Rng) -> f64 {
    median(&(0..values.len()).map(|_| values[random.usize(..values.len())]).collect::<Vec<f64>>())
}

/// What the middle 95 % of values lie between.
fn middle(values: &[f64]) -> [f64; 2] {
    let sorted = sorted(values);
    [0.025, 0.975].map(|share| quantile(&sorted, share))
}

/// The smallest value that half of the values do not exceed; NaN is for no values.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(&sorted(values), 0.5)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The smallest of sorted values that at least `share` of them do not exceed.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let is_enough = |index: usize| (index + 1) as f64 >= share * sorted.len() as f64;
    let index = (0..sorted.len()).find(|index| is_enough(*index));
    index.map_or(f64::NAN, |index| sorted[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        let summary = Summary::of(&values, &mut fastrand::Rng::with_seed(1)).unwrap();
        assert_eq!(
            [summary.min, summary.median, summary.p90, summary.p99, summary.max],
            [1.0, 50.0, 90.0, 99.0, 100.0]
        );
        assert!(summary.interval[0] < 50.0 && summary.interval[1] > 50.0, "{summary:?}");
        assert!(summary.interval[0] > 35.0 && summary.interval[1] < 65.0, "{summary:?}");
        assert!(Summary::of(&[], &mut fastrand::Rng::with_seed(1)).is_none());
    }

    #[test]
    fn one_value_is_its_own_summary() {
        let summary = Summary::of(&[7.0], &mut fastrand::Rng::with_seed(1)).unwrap();
        assert_eq!((summary.interval, summary.p99, summary.outliers), ([7.0, 7.0], 7.0, 0));
    }

    #[test]
    fn what_is_said_of_values_is_told_from_what_is_said_of_others() {
        let values: Vec<f64> = (1..=50).map(|value| f64::from(value * value % 37)).collect();
        let summary = Summary::of(&values, &mut fastrand::Rng::with_seed(3)).unwrap();
        assert!(summary.is_of(&values));
        assert!(!summary.is_of(&values[1..]) && !summary.is_of(&[]));
        for edited in [
            Summary { p99: summary.p99 * 0.9, ..summary },
            Summary { interval: [summary.median * 1.1, summary.max], ..summary },
            Summary { outliers: 7, ..summary },
            Summary { min: 0.1, ..summary },
        ] {
            assert!(!edited.is_of(&values), "{edited:?}");
        }
    }

    #[test]
    fn a_seed_gives_the_same_interval_again() {
        let values: Vec<f64> = (1..=50).map(|value| f64::from(value * value % 37)).collect();
        let of = |seed| Summary::of(&values, &mut fastrand::Rng::with_seed(seed)).unwrap();
        assert_eq!(of(3), of(3));
    }

    #[test]
    fn a_drift_that_meets_both_leaves_their_ratio_sure() {
        let base: Vec<f64> = (0..60).map(|round| 1.0 + f64::from(round)).collect();
        let own: Vec<f64> = base.iter().map(|value| value * 1.5).collect();
        let ratio = ratio(&own, &base, &mut fastrand::Rng::with_seed(1)).unwrap();
        assert_eq!((ratio.median, ratio.interval), (1.5, [1.5, 1.5]));
    }

    #[test]
    fn what_is_far_out_is_counted() {
        let mut values: Vec<f64> = (0..40).map(|value| 10.0 + f64::from(value % 4)).collect();
        values.push(500.0);
        assert_eq!(Summary::of(&values, &mut fastrand::Rng::with_seed(1)).unwrap().outliers, 1);
    }
}
