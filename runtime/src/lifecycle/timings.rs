//! How long each stage of a start took, for `--timings` and the benchmark.

use std::time::Instant;

/// Stages, in order; nothing is measured when it is off.
pub(crate) struct Timings {
    last: Option<Instant>,
    stages: Vec<(&'static str, u128)>,
}

impl Timings {
    /// Measures from now.
    pub(crate) fn on() -> Self {
        Self { last: Some(Instant::now()), stages: Vec::new() }
    }

    /// Measures nothing.
    pub(crate) fn off() -> Self {
        Self { last: None, stages: Vec::new() }
    }

    /// The stage that ends here.
    pub(crate) fn stage(&mut self, name: &'static str) {
        if let Some(last) = &mut self.last {
            let now = Instant::now();
            self.stages.push((name, now.duration_since(*last).as_micros()));
            *last = now;
        }
    }

    /// `stage NAME MICROSECONDS`, one a line.
    pub(crate) fn report(&self) -> String {
        self.stages.iter().map(|(name, micros)| format!("stage {name} {micros}\n")).collect()
    }
}
