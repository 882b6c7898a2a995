//! Several targets of one route, each with its share of the requests.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Targets with their weights.
pub(super) struct Weighted<T> {
    targets: Vec<(u64, T)>,
    total: u64,
    /// How far apart two requests after each other are: without a common divisor with the total, so that each place comes once before any
    /// comes again, and about the golden section of it, so that those of one target are spread.
    step: u64,
    requests: AtomicU64,
}

impl<T> Weighted<T> {
    /// Weights are above 0.
    pub(super) fn new(targets: Vec<(u64, T)>) -> Self {
        let total = targets.iter().map(|(weight, _)| weight).sum::<u64>().max(1);
        let near = (total * 382 / 1000).max(1);
        let step = (near..=near + total).find(|step| common_divisor(*step, total) == 1).unwrap_or(1);
        Self { targets, total, step, requests: AtomicU64::new(0) }
    }

    /// The target of the next request: of as many as there are weights together, each gets exactly its own.
    pub(super) fn next(&self) -> &T {
        let [(_, only)] = self.targets.as_slice() else { return self.at_next_place() };
        only
    }

    fn at_next_place(&self) -> &T {
        let mut place = (self.requests.fetch_add(1, Relaxed) % self.total) * self.step % self.total;
        for (weight, target) in &self.targets {
            if place < *weight {
                return target;
            }
            place -= weight;
        }
        // There is at least one, and the place is below the sum of all weights.
        &self.targets[0].1
    }

    /// The same with other targets.
    pub(super) fn map<U>(&self, change: impl Fn(&T) -> U) -> Weighted<U> {
        Weighted {
            targets: self.targets.iter().map(|(weight, target)| (*weight, change(target))).collect(),
            total: self.total,
            step: self.step,
            requests: AtomicU64::new(self.requests.load(Relaxed)),
        }
    }
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gets_its_share_and_never_many_in_a_row() {
        let split = Weighted::new(vec![(95, 'a'), (5, 'b')]);
        for round in 0..3 {
            let got: String = (0..100).map(|_| *split.next()).collect();
            assert_eq!(got.matches('b').count(), 5, "{round}: {got}");
            assert!(!got.contains("bb") && !got.contains(&"a".repeat(40)), "{round}: {got}");
        }
        let thirds = Weighted::new(vec![(1, 0), (1, 1), (1, 2)]);
        let mut got: Vec<i32> = (0..3).map(|_| *thirds.next()).collect();
        got.sort_unstable();
        assert_eq!(got, [0, 1, 2]);
        assert_eq!(
            (Weighted::new(vec![(1, 7)]).next(), Weighted::new(vec![(u64::from(u32::MAX), 1), (1, 2)]).next()),
            (&7, &1)
        );
    }

    #[test]
    fn other_targets_have_the_same_shares() {
        let split = Weighted::new(vec![(1, 1), (3, 2)]).map(|target| target * 10);
        let got: Vec<i32> = (0..4).map(|_| *split.next()).collect();
        assert_eq!(got.iter().filter(|target| **target == 10).count(), 1);
        assert_eq!(got.iter().filter(|target| **target == 20).count(), 3);
    }
}
