//! How far a connection is, and whether its client is too slow. Its reader and writer note it; who holds the clock looks once a second,
//! so that there is no timer for each request.

use super::Waits;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Milliseconds since the connection began, one more than it is so that 0 is "not at all".
#[derive(Debug, Default)]
struct Stamp(AtomicU64);

impl Stamp {
    fn set(&self, now: u64) {
        self.0.store(now, Relaxed);
    }

    fn set_first(&self, now: impl Fn() -> u64) {
        if !self.is_set() {
            self.set(now());
        }
    }

    fn clear(&self) {
        if self.is_set() {
            self.set(0);
        }
    }

    fn is_set(&self) -> bool {
        self.0.load(Relaxed) != 0
    }

    fn is_over(&self, now: u64, limit: Duration) -> bool {
        self.is_set() && u128::from(now.saturating_sub(self.0.load(Relaxed))) > limit.as_millis()
    }
}

/// What a connection waits for.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    /// What is read may be no part of a head: HTTP/2 has frames without a request, which an idle client sends, too.
    has_frames: bool,
    /// Requests that are being answered.
    requests: AtomicU32,
    idle_since: Stamp,
    /// When the first byte of a head came.
    head_since: Stamp,
    /// Since when the client takes nothing.
    stalled_since: Stamp,
    /// The same of each answer that has begun.
    handed: Mutex<Vec<Arc<Stamp>>>,
    given_up: AtomicBool,
}

/// Why a connection is not waited for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// A request has begun, and its head does not end.
    Head,
    /// There is no request.
    Idle,
    /// The client does not take its answer.
    Stalled,
}

impl Pace {
    pub(super) fn new(has_frames: bool) -> Self {
        let pace = Self {
            began: Instant::now(),
            has_frames,
            requests: AtomicU32::new(0),
            idle_since: Stamp::default(),
            head_since: Stamp::default(),
            stalled_since: Stamp::default(),
            handed: Mutex::default(),
            given_up: AtomicBool::new(false),
        };
        pace.idle_since.set(1);
        pace
    }

    /// Something was read.
    pub(super) fn read(&self) {
        if !self.has_frames && self.requests.load(Relaxed) == 0 {
            self.head_since.set_first(|| self.now());
        }
    }

    /// Something was written, or nothing can be now.
    pub(super) fn wrote(&self, could: bool) {
        if could { self.stalled_since.clear() } else { self.stalled_since.set_first(|| self.now()) }
    }

    /// Whether it is too slow by now.
    pub(super) fn overdue(&self, waits: Waits) -> Option<Overdue> {
        let now = self.now();
        let is_stalled = |since: &Stamp| since.is_over(now, waits.stalled);
        if is_stalled(&self.stalled_since) || self.answers().iter().any(|since| is_stalled(since)) {
            return Some(Overdue::Stalled);
        }
        if self.requests.load(Relaxed) > 0 {
            return None;
        }
        match self.head_since.is_set() {
            true => self.head_since.is_over(now, waits.head).then_some(Overdue::Head),
            false => self.idle_since.is_over(now, waits.idle).then_some(Overdue::Idle),
        }
    }

    /// One more answer that its client may take, or not.
    pub(super) fn handed(self: &Arc<Self>) -> Handed {
        let since = Arc::new(Stamp::default());
        self.answers().push(Arc::clone(&since));
        Handed { pace: Arc::clone(self), since }
    }

    /// Nobody panics while he has it.
    fn answers(&self) -> MutexGuard<'_, Vec<Arc<Stamp>>> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its reader is to end it.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Relaxed);
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Relaxed)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// An answer that its connection knows of, until this is dropped.
#[derive(Debug)]
pub(super) struct Handed {
    pace: Arc<Pace>,
    since: Arc<Stamp>,
}

impl Handed {
    /// There is something to take, or that it is over.
    pub(super) fn waits_for_client(&self) {
        self.since.set_first(|| self.pace.now());
    }

    /// All that there was is taken.
    pub(super) fn waits_for_server(&self) {
        self.since.clear();
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        self.pace.answers().retain(|since| !Arc::ptr_eq(since, &self.since));
    }
}

/// A request that its connection knows of, from its head until this is dropped.
#[derive(Debug)]
pub struct Counted(Arc<Pace>);

impl Counted {
    pub(super) fn new(pace: &Arc<Pace>) -> Self {
        pace.requests.fetch_add(1, Relaxed);
        pace.head_since.clear();
        Self(Arc::clone(pace))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.requests.fetch_sub(1, Relaxed) == 1 {
            self.0.idle_since.set(self.0.now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is overdue two seconds later, where each thing may take one.
    fn later(mut pace: Pace) -> Option<Overdue> {
        let second = Duration::from_secs(1);
        let waits = Waits { head: second, idle: second, stalled: second };
        assert_eq!(pace.overdue(waits), None);
        pace.began = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
        pace.overdue(waits)
    }

    #[test]
    fn each_phase_has_its_own_bound() {
        assert_eq!(later(Pace::new(false)), Some(Overdue::Idle));
        let pace = Pace::new(false);
        pace.read();
        assert_eq!(later(pace), Some(Overdue::Head));
        let pace = Pace::new(true);
        pace.read();
        assert_eq!(later(pace), Some(Overdue::Idle));
        let pace = Pace::new(false);
        pace.wrote(false);
        assert_eq!(later(pace), Some(Overdue::Stalled));
        let pace = Pace::new(false);
        pace.wrote(false);
        pace.wrote(true);
        pace.requests.fetch_add(1, Relaxed);
        assert_eq!(later(pace), None);
    }

    #[test]
    fn an_answer_that_nobody_takes_is_the_clients_and_one_that_does_not_come_is_not() {
        let second = Duration::from_secs(1);
        let waits = Waits { head: second, idle: second, stalled: second };
        let mut pace = Pace::new(true);
        pace.began = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
        let pace = Arc::new(pace);
        let _request = Counted::new(&pace);
        let [taken, waits_for_more] = [pace.handed(), pace.handed()];
        taken.waits_for_client();
        waits_for_more.waits_for_server();
        assert_eq!(pace.overdue(waits), None);
        taken.since.set(1);
        assert_eq!(pace.overdue(waits), Some(Overdue::Stalled));
        taken.waits_for_server();
        assert_eq!(pace.overdue(waits), None);
        taken.since.set(1);
        drop(taken);
        assert_eq!(pace.overdue(waits), None);
        assert_eq!(pace.answers().len(), 1);
    }

    #[test]
    fn a_connection_is_idle_from_the_end_of_its_last_request() {
        let pace = Arc::new(Pace::new(false));
        pace.read();
        let [first, second] = [Counted::new(&pace), Counted::new(&pace)];
        assert!(!pace.head_since.is_set());
        pace.idle_since.clear();
        drop(first);
        assert!(!pace.idle_since.is_set());
        drop(second);
        assert!(pace.idle_since.is_set());
    }
}
