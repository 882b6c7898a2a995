//! A function in containers, and the requests that wait for them.
//!
//! ```text
//! acquire ─┬─ room in a container ──────────────────────── Lease ── dropped: dispatch
//!          └─ waits in a queue, bounded and with a deadline ─┘
//!               └─ scale: thaw a frozen container, or start one ── ready: dispatch
//! tick ─ freezes and stops what has no request
//! watch ─ a container that ends by itself is forgotten
//! ```
//!
//! All decisions are taken under one lock, which nothing is waited for with. What blocks (a start, a stop, the freezer) is a task that comes
//! back with what became of it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, oneshot},
    time::timeout,
};

use super::{
    containers::{Containers, Started},
    function::Unavailable,
    instance::Instance,
    metrics::{FunctionFigures, Now},
    plan::Plan,
};

/// After a start that failed, the next one waits: twice as long each time, up to a bound.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Containers of one function.
pub(super) struct Fleet {
    plan: Arc<Plan>,
    figures: Arc<FunctionFigures>,
    containers: Arc<Containers>,
    state: Mutex<State>,
    /// A container is gone: whoever waits for the last one is told by this.
    gone: Arc<Notify>,
}

#[derive(Default)]
struct State {
    slots: Vec<Slot>,
    starting: u32,
    waiting: VecDeque<oneshot::Sender<Result<Lease, Unavailable>>>,
    /// It is served no more: what has no request is stopped.
    retired: bool,
    /// Since a container answered for the first time: starts that came to nothing, and containers that ended without an answer.
    failures: u32,
    /// Nothing is started before.
    pause_until: Option<Instant>,
}

/// A container, and what it does.
struct Slot {
    instance: Arc<Instance>,
    phase: Phase,
    in_flight: u32,
    idle_since: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Ready,
    /// Being frozen or thawed: whoever does it says what it is afterwards.
    Changing,
    Frozen,
    /// It cannot be frozen here.
    Unfreezable,
    Stopping,
    /// It has ended, and is being removed.
    Gone,
}

/// A container's place for one request; dropped, it is free again.
pub(super) struct Lease {
    held: Option<(Arc<Fleet>, Arc<Instance>)>,
}

/// What a request got, and what it took.
pub(super) struct Acquired {
    pub(super) lease: Lease,
    pub(super) waited: Duration,
    /// It waited for a container to be started or thawed.
    pub(super) cold: bool,
}

impl Lease {
    /// None only while it is dropped.
    pub(super) fn instance(&self) -> Option<&Arc<Instance>> {
        self.held.as_ref().map(|(_, instance)| instance)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((fleet, instance)) = self.held.take() {
            fleet.release(&instance);
        }
    }
}

impl Fleet {
    pub(super) fn new(
        plan: Arc<Plan>,
        figures: Arc<FunctionFigures>,
        containers: Arc<Containers>,
        gone: Arc<Notify>,
    ) -> Arc<Self> {
        Arc::new(Self { plan, figures, containers, state: Mutex::default(), gone })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room in a container, and starts one if need be.
    pub(super) async fn acquire(self: &Arc<Self>) -> Result<Acquired, Unavailable> {
        let began = Instant::now();
        let waits = {
            let mut state = self.lock();
            if let Some(lease) = self.take(&mut state) {
                return Ok(Acquired { lease, waited: Duration::ZERO, cold: false });
            }
            state.waiting.retain(|waiting| !waiting.is_closed());
            if state.waiting.len() >= self.plan.config.queue as usize {
                self.figures.note_refusal();
                return Err(Unavailable::Full);
            }
            let (sender, waits) = oneshot::channel();
            state.waiting.push_back(sender);
            self.scale(&mut state);
            waits
        };
        let got = timeout(self.plan.config.queue_timeout.duration(), waits).await;
        let lease = got.unwrap_or(Ok(Err(Unavailable::Late))).unwrap_or(Err(Unavailable::Retired));
        let waited = began.elapsed();
        lease.map(|lease| Acquired { lease, waited, cold: true }).inspect_err(|_| self.figures.note_refusal())
    }

    /// A place in the container that has most of them left.
    fn take(self: &Arc<Self>, state: &mut State) -> Option<Lease> {
        let most = self.plan.concurrency;
        let open = state.slots.iter_mut().filter(|slot| slot.phase.is_open() && slot.in_flight < most);
        let slot = open.min_by_key(|slot| slot.in_flight)?;
        slot.in_flight += 1;
        Some(Lease { held: Some((Arc::clone(self), Arc::clone(&slot.instance))) })
    }

    fn release(self: &Arc<Self>, instance: &Arc<Instance>) {
        let mut state = self.lock();
        if let Some(slot) = state.slot(instance) {
            slot.in_flight -= 1;
            slot.idle_since = Instant::now();
        }
        self.dispatch(&mut state);
    }

    /// Gives those who wait what there is.
    fn dispatch(self: &Arc<Self>, state: &mut State) {
        loop {
            while state.waiting.front().is_some_and(oneshot::Sender::is_closed) {
                state.waiting.pop_front();
            }
            if state.waiting.is_empty() {
                return;
            }
            let Some(lease) = self.take(state) else { return self.scale(state) };
            let Some(waiting) = state.waiting.pop_front() else { return };
            // Gone just now; its place is given back here, as its drop would wait for the lock that is held.
            if let Err(Ok(mut lease)) = waiting.send(Ok(lease))
                && let Some((_, instance)) = lease.held.take()
                && let Some(slot) = state.slot(&instance)
            {
                slot.in_flight -= 1;
            }
        }
    }

    /// Makes room for those who wait, and sees to it that there are as many containers as there always are.
    fn scale(self: &Arc<Self>, state: &mut State) {
        let config = &self.plan.config;
        let changing = state.slots.iter().filter(|slot| slot.phase == Phase::Changing).count();
        let coming = (state.starting as usize + changing) * self.plan.concurrency as usize;
        let is_short = state.waiting.len() > coming;
        if is_short && let Some(slot) = state.slots.iter_mut().find(|slot| slot.phase == Phase::Frozen) {
            slot.phase = Phase::Changing;
            return self.thaw(Arc::clone(&slot.instance));
        }
        let count = state.starting as usize + state.slots.iter().filter(|slot| slot.phase != Phase::Gone).count();
        let is_below = count < config.min as usize && !state.retired;
        if !(is_short || is_below) || count >= config.max as usize {
            return;
        }
        // One that ended by itself is replaced at once if somebody waits.
        let is_paused = state.pause_until.is_some_and(|until| Instant::now() < until);
        if !is_paused || (is_short && state.failures == 0) {
            state.starting += 1;
            self.start();
        } else if count == 0 {
            // Nothing else comes: who waits would do so for nothing.
            state.refuse_all(&Unavailable::Failed("the last start failed just now".to_owned()));
        }
    }

    fn start(self: &Arc<Self>) {
        let fleet = Arc::clone(self);
        tokio::spawn(async move {
            let began = Instant::now();
            let started = fleet.containers.start(&fleet.plan).await;
            fleet.started(started, began.elapsed());
        });
    }

    fn started(self: &Arc<Self>, started: Result<Started, String>, taken: Duration) {
        let error = match started {
            Ok(started) => {
                self.figures.note_start(taken);
                let mut state = self.lock();
                state.starting -= 1;
                let instance = Arc::clone(&started.instance);
                state.slots.push(Slot { instance, phase: Phase::Ready, in_flight: 0, idle_since: Instant::now() });
                self.watch(started);
                return self.dispatch(&mut state);
            }
            Err(error) => error,
        };
        self.figures.note_failed_start(&error);
        self.containers.complain(&self.plan.name, &error);
        let mut state = self.lock();
        state.starting -= 1;
        state.note_failure(&error);
        self.gone.notify_waiters();
    }

    /// A container has answered for the first time: what failed before does not matter any more.
    pub(super) fn note_first_answer(&self) {
        let mut state = self.lock();
        (state.failures, state.pause_until) = (0, None);
    }

    /// Forgets a container when it has ended, whoever ended it.
    fn watch(self: &Arc<Self>, started: Started) {
        let fleet = Arc::clone(self);
        tokio::spawn(async move {
            let instance = Arc::clone(&started.instance);
            let how = fleet.containers.until_ended(started).await;
            let error = format!("container {} ended by itself: {how}", instance.name);
            if fleet.lock().note_end(&instance, &error) {
                fleet.figures.note_death(&error);
                fleet.containers.complain(&fleet.plan.name, &error);
            }
            fleet.containers.discard(&instance).await;
            let mut state = fleet.lock();
            state.slots.retain(|slot| !Arc::ptr_eq(&slot.instance, &instance));
            fleet.dispatch(&mut state);
            fleet.gone.notify_waiters();
        });
    }

    fn thaw(self: &Arc<Self>, instance: Arc<Instance>) {
        let fleet = Arc::clone(self);
        tokio::spawn(async move {
            let thawed = fleet.containers.thaw(&instance).await;
            fleet.figures.note_thaw();
            if let Err(error) = &thawed {
                fleet.containers.complain(&fleet.plan.name, error);
                fleet.stop(&instance);
            }
            // One that does not go on is ended, and forgotten then.
            let phase = if thawed.is_ok() { Phase::Ready } else { Phase::Stopping };
            fleet.changed(&instance, phase);
        });
    }

    fn freeze(self: &Arc<Self>, instance: Arc<Instance>) {
        let fleet = Arc::clone(self);
        tokio::spawn(async move {
            let frozen = fleet.containers.freeze(&instance).await;
            if let Err(error) = &frozen {
                fleet.containers.note_unfreezable(&fleet.plan.name, error);
            }
            fleet.changed(&instance, if frozen.is_ok() { Phase::Frozen } else { Phase::Unfreezable });
        });
    }

    fn changed(self: &Arc<Self>, instance: &Arc<Instance>, phase: Phase) {
        let mut state = self.lock();
        // It may be told to stop meanwhile, which counts.
        if let Some(slot) = state.slot(instance).filter(|slot| slot.phase == Phase::Changing) {
            slot.phase = phase;
            if phase == Phase::Ready {
                slot.idle_since = Instant::now();
            }
        }
        self.dispatch(&mut state);
    }

    /// Ends a container; it is forgotten when it has ended.
    fn stop(self: &Arc<Self>, instance: &Arc<Instance>) {
        self.containers.stop(Arc::clone(instance), self.plan.config.stop_timeout.0);
    }

    /// A container that nobody can connect to any more gets no more requests, and is ended.
    pub(super) fn give_up(self: &Arc<Self>, instance: &Arc<Instance>) {
        let error = format!("container {} does not listen any more", instance.name);
        {
            let mut state = self.lock();
            let Some(slot) = state.slot(instance).filter(|slot| slot.phase.is_open()) else { return };
            slot.phase = Phase::Stopping;
            state.note_loss(instance, &error);
        }
        self.figures.note_death(&error);
        self.containers.complain(&self.plan.name, &error);
        self.stop(instance);
    }

    /// Freezes and stops what has been without a request for long enough, and starts what is always there.
    pub(super) fn tick(self: &Arc<Self>) {
        let config = &self.plan.config;
        let (freeze_after, stop_after) = (config.freeze_after.duration(), config.stop_after.duration());
        let mut state = self.lock();
        let mut spare = state.slots.iter().filter(|slot| !slot.phase.is_ending()).count();
        let (least, retired) = (if state.retired { 0 } else { config.min as usize }, state.retired);
        for slot in state.slots.iter_mut().filter(|slot| slot.in_flight == 0 && slot.phase.is_settled()) {
            let idle = slot.idle_since.elapsed();
            if spare > least && (retired || idle >= stop_after) {
                spare -= 1;
                slot.phase = Phase::Stopping;
                self.stop(&slot.instance);
            } else if slot.phase == Phase::Ready && idle >= freeze_after && !retired {
                slot.phase = Phase::Changing;
                slot.instance.forget_connections();
                self.freeze(Arc::clone(&slot.instance));
            }
        }
        self.scale(&mut state);
    }

    /// Serves those who wait, and nobody more; then it stops its containers.
    pub(super) fn retire(self: &Arc<Self>) {
        self.lock().retired = true;
        self.tick();
    }

    /// Whether nothing of it runs any more.
    pub(super) fn is_over(&self) -> bool {
        let state = self.lock();
        state.slots.is_empty() && state.starting == 0
    }

    /// Stops all containers, whatever they do.
    pub(super) fn stop_all(self: &Arc<Self>) {
        let mut state = self.lock();
        state.retired = true;
        state.refuse_all(&Unavailable::Retired);
        for slot in state.slots.iter_mut().filter(|slot| !slot.phase.is_ending()) {
            slot.phase = Phase::Stopping;
            self.stop(&slot.instance);
        }
    }

    /// Those that run or stand still.
    pub(super) fn container_ids(&self) -> Vec<String> {
        let state = self.lock();
        state.slots.iter().filter(|slot| slot.phase != Phase::Gone).map(|slot| slot.instance.id.clone()).collect()
    }

    pub(super) fn now(&self) -> Now {
        let state = self.lock();
        let of = |wanted: &[Phase]| state.slots.iter().filter(|slot| wanted.contains(&slot.phase)).count();
        Now {
            running: of(&[Phase::Ready, Phase::Unfreezable, Phase::Changing]),
            frozen: of(&[Phase::Frozen]),
            starting: state.starting as usize,
            in_flight: state.slots.iter().map(|slot| u64::from(slot.in_flight)).sum(),
            waiting: state.waiting.iter().filter(|waiting| !waiting.is_closed()).count(),
            guests: None,
        }
    }
}

impl Phase {
    /// Whether requests can go there.
    fn is_open(self) -> bool {
        matches!(self, Self::Ready | Self::Unfreezable)
    }

    /// Whether it ends, or has ended.
    fn is_ending(self) -> bool {
        matches!(self, Self::Stopping | Self::Gone)
    }

    /// Whether nobody is about to change it.
    fn is_settled(self) -> bool {
        matches!(self, Self::Ready | Self::Unfreezable | Self::Frozen)
    }
}

impl State {
    fn slot(&mut self, instance: &Arc<Instance>) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| Arc::ptr_eq(&slot.instance, instance))
    }

    /// A container has ended. Whether nobody told it to.
    fn note_end(&mut self, instance: &Arc<Instance>, error: &str) -> bool {
        let before = self.slot(instance).map(|slot| std::mem::replace(&mut slot.phase, Phase::Gone));
        let ended_by_itself = before.is_some_and(|phase| phase != Phase::Stopping);
        if ended_by_itself && !self.retired {
            self.note_loss(instance, error);
        }
        ended_by_itself
    }

    /// A container is of no use any more: a failure like that of a start, unless it was of use before.
    fn note_loss(&mut self, instance: &Instance, error: &str) {
        if instance.has_answered() {
            // One that ends at once is not started again at once.
            self.pause_until = Some(Instant::now() + FIRST_PAUSE);
        } else {
            self.note_failure(error);
        }
    }

    fn note_failure(&mut self, error: &str) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures += 1;
        self.pause_until = Some(Instant::now() + pause);
        // Others that run may still serve those who wait.
        if self.slots.iter().all(|slot| slot.phase.is_ending()) && self.starting == 0 {
            self.refuse_all(&Unavailable::Failed(error.to_owned()));
        }
    }

    fn refuse_all(&mut self, why: &Unavailable) {
        for waiting in self.waiting.drain(..) {
            // Nobody gets a lease here, so nothing is lost if nobody listens.
            _ = waiting.send(Err(why.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    /// What comes of a container that ends by itself: failures so far, and the pause.
    fn after_an_end(state: &mut State, answers: bool) -> (u32, Duration) {
        let nowhere = File::open("/dev/null").unwrap().into();
        let instance = Arc::new(Instance::new("id".to_owned(), "name".to_owned(), nowhere, 1));
        if answers {
            instance.note_answer();
        }
        let slot =
            Slot { instance: Arc::clone(&instance), phase: Phase::Ready, in_flight: 1, idle_since: Instant::now() };
        state.slots = vec![slot];
        assert!(state.note_end(&instance, "it ended"));
        let pause = state.pause_until.unwrap().saturating_duration_since(Instant::now());
        (state.failures, Duration::from_millis(pause.as_millis().next_multiple_of(200).try_into().unwrap()))
    }

    #[test]
    fn a_program_that_listens_and_ends_is_started_ever_later_until_it_answers() {
        let mut state = State::default();
        for (failures, pause_ms) in [(1, 200), (2, 400), (3, 800)] {
            assert_eq!(after_an_end(&mut state, false), (failures, Duration::from_millis(pause_ms)));
        }
        assert_eq!(after_an_end(&mut state, true), (3, FIRST_PAUSE));
    }
}
