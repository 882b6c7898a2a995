//! Load on one path, at a fixed rate: a request is late by what the ones before it took, and that counts.

use super::client::Client;
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// Failures that are kept in words.
const KEPT: usize = 10;

/// What came of the requests of one kind.
#[derive(Default)]
pub(super) struct Outcome {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    micros: Vec<u64>,
    failed: usize,
    failures: Vec<String>,
}

impl Outcome {
    fn note(&self, late_by: Duration, failure: Option<String>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match failure {
            None => inner.micros.push(u64::try_from(late_by.as_micros()).unwrap_or(u64::MAX)),
            Some(why) => {
                inner.failed += 1;
                if inner.failures.len() < KEPT {
                    inner.failures.push(why);
                }
            }
        }
    }

    /// How many were answered, how many were not, and what was said of those.
    pub(super) fn counts(&self) -> (usize, usize, Vec<String>) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.micros.len(), inner.failed, inner.failures.clone())
    }

    /// Milliseconds that so many of a thousand answers took at the most.
    pub(super) fn quantile(&self, of_thousand: usize) -> f64 {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.micros.sort_unstable();
        let last = inner.micros.len().saturating_sub(1);
        let place = (inner.micros.len() * of_thousand / 1000).min(last);
        inner.micros.get(place).map_or(f64::NAN, |micros| *micros as f64 / 1000.0)
    }
}

/// Asks for the paths, one after another, so often a second, until it is over. `expected`: the answer's beginning; None: any status does.
pub(super) fn ask(
    port: u16,
    paths: &[&str],
    per_second: u64,
    expected: Option<&str>,
    over: &AtomicBool,
    outcome: &Outcome,
) {
    let mut client = Client::new(port);
    let began = Instant::now();
    let mut due = Duration::ZERO;
    for path in paths.iter().cycle() {
        if over.load(Relaxed) {
            return;
        }
        thread::sleep(due.saturating_sub(began.elapsed()));
        let answer = client.get(path);
        let failure = match (&answer, expected) {
            (Err(error), Some(_)) => Some(format!("{path}: {error:#}")),
            (Ok(answer), Some(expected)) if answer.status != 200 || !answer.body.starts_with(expected.as_bytes()) => {
                Some(format!("{path}: {}, {} bytes", answer.status, answer.body.len()))
            }
            _ => None,
        };
        outcome.note(began.elapsed().saturating_sub(due), failure);
        due += Duration::from_nanos(1_000_000_000 / per_second.max(1));
    }
}
