//! What a function may have of the processors, beside others in the same process.
//!
//! Who answers quickly is never held up by this. Who is still at work when the clock ticks takes turns from then on: one of each function
//! at a time, and of all functions one fewer than there are threads, so that there is always a thread for those who answer quickly. A
//! function with a limit goes on when it has time left: what it uses is counted, and given back as time goes by.

use rustix::time::{ClockId, clock_gettime};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

/// What a function with a limit may use at once, as with the kernel's own limit: so much of its share.
const PERIOD: Duration = Duration::from_millis(100);

/// Turns of all functions.
#[derive(Debug, Clone)]
pub(super) struct Lanes(Arc<Semaphore>);

impl Lanes {
    pub(super) fn new(threads: usize) -> Self {
        Self(Arc::new(Semaphore::new(threads.saturating_sub(1).max(1))))
    }
}

/// That of one function.
#[derive(Debug)]
pub(super) struct Share {
    lanes: Lanes,
    /// One of its own that takes long is at work at a time.
    own: Arc<Semaphore>,
    budget: Option<Budget>,
}

/// Time on processors that it has left.
#[derive(Debug)]
struct Budget {
    /// Of one processor.
    thousandths: u64,
    left: Mutex<Left>,
}

#[derive(Debug)]
struct Left {
    nanos: i64,
    at: Instant,
}

/// A turn; the next one has it when this is dropped.
struct Turn {
    _own: Option<OwnedSemaphorePermit>,
    _lane: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// `cpu_millis`: thousandths of a processor that all of the function have together.
    pub(super) fn new(lanes: Lanes, cpu_millis: Option<u64>) -> Self {
        let budget = cpu_millis.map(Budget::new);
        Self { lanes, own: Arc::new(Semaphore::new(1)), budget }
    }

    /// Waits until it may go on.
    async fn turn(self: Arc<Self>, takes_long: bool) -> Turn {
        while let Some(debt) = self.budget.as_ref().and_then(Budget::debt) {
            sleep(debt).await;
        }
        if !takes_long {
            return Turn { _own: None, _lane: None };
        }
        // They are never closed.
        let own = Arc::clone(&self.own).acquire_owned().await.ok();
        Turn { _own: own, _lane: Arc::clone(&self.lanes.0).acquire_owned().await.ok() }
    }
}

impl Budget {
    fn new(thousandths: u64) -> Self {
        let left = Left { nanos: most(thousandths), at: Instant::now() };
        Self { thousandths, left: Mutex::new(left) }
    }

    /// How long it has to wait; None: not at all.
    fn debt(&self) -> Option<Duration> {
        let nanos = self.add(Instant::now(), 0);
        let wait = u64::try_from(-i128::from(nanos)).ok()?.saturating_mul(1000) / self.thousandths.max(1);
        // So that it has something when it goes on.
        (nanos <= 0).then(|| Duration::from_nanos(wait) + PERIOD / 20)
    }

    /// What has come by now, without what was used just now.
    fn add(&self, now: Instant, used: i64) -> i64 {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_duration_since(left.at).as_nanos();
        let come = i64::try_from(elapsed * u128::from(self.thousandths) / 1000).unwrap_or(i64::MAX);
        left.nanos = left.nanos.saturating_add(come).min(most(self.thousandths)).saturating_sub(used);
        left.at = now;
        left.nanos
    }
}

fn most(thousandths: u64) -> i64 {
    i64::try_from(PERIOD.as_nanos() * u128::from(thousandths) / 1000).unwrap_or(i64::MAX)
}

/// A function at work, which takes turns.
pub(super) struct Turns<F> {
    work: Pin<Box<F>>,
    share: Arc<Share>,
    /// The clock ticked while it was at work.
    takes_long: Arc<AtomicBool>,
    waits: Option<Pin<Box<dyn Future<Output = Turn> + Send>>>,
}

impl<F> Turns<F> {
    pub(super) fn new(work: F, share: Arc<Share>, takes_long: Arc<AtomicBool>) -> Self {
        Self { work: Box::pin(work), share, takes_long, waits: None }
    }
}

impl<F: Future> Future for Turns<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let takes_long = self.takes_long.swap(false, Relaxed);
        if self.waits.is_none() && (takes_long || self.share.budget.is_some()) {
            self.waits = Some(Box::pin(Arc::clone(&self.share).turn(takes_long)));
        }
        let _turn = match &mut self.waits {
            Some(waits) => Some(ready!(waits.as_mut().poll(cx))),
            None => None,
        };
        self.waits = None;
        if self.share.budget.is_none() {
            return self.work.as_mut().poll(cx);
        }
        let began = time_of_thread();
        let polled = self.work.as_mut().poll(cx);
        let used = time_of_thread().saturating_sub(began);
        self.share.budget.iter().for_each(|budget| _ = budget.add(Instant::now(), used));
        polled
    }
}

/// What this thread has had of the processors, in nanoseconds.
fn time_of_thread() -> i64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_comes_back_as_time_goes_by() {
        let budget = Budget::new(500);
        let began = budget.left.lock().unwrap().at;
        let after = |milliseconds| began + Duration::from_millis(milliseconds);
        // Half of a processor: 50 ms at once.
        assert_eq!(budget.add(began, 0), 50_000_000);
        assert_eq!(budget.add(began, 150_000_000), -100_000_000);
        assert_eq!(budget.add(after(100), 0), -50_000_000);
        assert_eq!(budget.add(after(300), 0), 50_000_000);
        // It does not save up.
        assert_eq!(budget.add(after(9000), 0), 50_000_000);
        assert_eq!(Budget::new(500).debt(), None);
    }

    #[test]
    fn who_takes_long_waits_for_the_others_of_its_function_and_who_does_not_waits_for_nobody() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let share = Arc::new(Share::new(Lanes::new(4), None));
            let first = Arc::clone(&share).turn(true).await;
            let second = Arc::clone(&share).turn(true);
            let mut second = std::pin::pin!(second);
            let waits = at_once(&mut second).await;
            assert!(waits.is_none());
            _ = Arc::clone(&share).turn(false).await;
            drop(first);
            assert!(at_once(&mut second).await.is_some());
        });
    }

    /// What it gives now, if it gives anything.
    async fn at_once<F: Future>(future: &mut Pin<&mut F>) -> Option<F::Output> {
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }
}
