//! How far a connection is, and whether its client is too slow.

use super::Bounds;
use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Milliseconds since the connection began, one more than it is so that 0 is "not at all".
type Stamp = AtomicU64;

/// What a connection waits for; its reader and writer note it, and whoever holds the clock looks now and then.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    /// What is read may be no part of a head: HTTP/2 has frames without a request, which an idle client sends, too.
    has_frames: bool,
    /// Requests that are being answered.
    requests: AtomicU32,
    /// When the last one was over.
    idle_since: Stamp,
    /// When the first byte of a head came.
    head_since: Stamp,
    /// Since when the client takes nothing.
    stalled_since: Stamp,
    /// Its reader is to end it.
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
        Self {
            began: Instant::now(),
            has_frames,
            requests: AtomicU32::new(0),
            idle_since: Stamp::new(1),
            head_since: Stamp::new(0),
            stalled_since: Stamp::new(0),
            given_up: AtomicBool::new(false),
        }
    }

    /// Something was read.
    pub(super) fn read(&self) {
        if !self.has_frames && self.requests.load(Relaxed) == 0 && self.head_since.load(Relaxed) == 0 {
            self.head_since.store(self.now(), Relaxed);
        }
    }

    /// Something was written.
    pub(super) fn wrote(&self) {
        if self.stalled_since.load(Relaxed) != 0 {
            self.stalled_since.store(0, Relaxed);
        }
    }

    /// Nothing can be written now.
    pub(super) fn stalled(&self) {
        if self.stalled_since.load(Relaxed) == 0 {
            self.stalled_since.store(self.now(), Relaxed);
        }
    }

    /// A request's head is complete.
    pub(super) fn begin(&self) {
        self.requests.fetch_add(1, Relaxed);
        self.head_since.store(0, Relaxed);
    }

    /// A request is over.
    pub(super) fn end(&self) {
        if self.requests.fetch_sub(1, Relaxed) == 1 {
            self.idle_since.store(self.now(), Relaxed);
        }
    }

    /// Whether it is too slow by now.
    pub(super) fn overdue(&self, bounds: &Bounds) -> Option<Overdue> {
        let now = self.now();
        let is_over = |since: &Stamp, limit: Duration| match since.load(Relaxed) {
            0 => false,
            since => u128::from(now.saturating_sub(since)) > limit.as_millis(),
        };
        if is_over(&self.stalled_since, bounds.stalled) {
            return Some(Overdue::Stalled);
        }
        if self.requests.load(Relaxed) > 0 {
            return None;
        }
        match self.head_since.load(Relaxed) {
            0 => is_over(&self.idle_since, bounds.idle).then_some(Overdue::Idle),
            _ => is_over(&self.head_since, bounds.head_within).then_some(Overdue::Head),
        }
    }

    /// The head is not waited for any more.
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

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Bounds = Bounds {
        requests: 1,
        connections: 1,
        head_bytes: 0,
        body_bytes: 0,
        head_within: Duration::MAX,
        body_grace: Duration::MAX,
        idle: Duration::MAX,
        stalled: Duration::MAX,
        answer_within: Duration::MAX,
        afterwards: Duration::MAX,
    };

    /// What is overdue two seconds later.
    fn later(pace: &mut Pace, bounds: Bounds) -> Option<Overdue> {
        pace.began = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
        pace.overdue(&bounds)
    }

    #[test]
    fn each_phase_has_its_own_bound() {
        let second = Duration::from_secs(1);
        let (head, idle, stalled) = (
            Bounds { head_within: second, ..NONE },
            Bounds { idle: second, ..NONE },
            Bounds { stalled: second, ..NONE },
        );
        let mut pace = Pace::new(false);
        assert_eq!((later(&mut pace, idle), later(&mut pace, head)), (Some(Overdue::Idle), None));
        let mut pace = Pace::new(false);
        pace.read();
        assert_eq!((later(&mut pace, idle), later(&mut pace, head)), (None, Some(Overdue::Head)));
        pace.begin();
        assert_eq!((later(&mut pace, idle), later(&mut pace, head)), (None, None));
        let mut pace = Pace::new(false);
        pace.begin();
        pace.stalled();
        assert_eq!(later(&mut pace, stalled), Some(Overdue::Stalled));
        pace.wrote();
        assert_eq!(later(&mut pace, stalled), None);
        pace.end();
        assert_eq!(later(&mut pace, idle), None);
    }
}
