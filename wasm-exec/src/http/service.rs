//! What answers requests that somebody else accepted, and what all its requests share.

use super::{
    Bounds, Function, Served,
    answer::Answer,
    clock::Clock,
    counts::Counts,
    failure::{Failure, RequestId},
    function::Handler,
    instance::Idle,
    request,
    share::{Lanes, Share},
};
use crate::{Command, Engine, RunError, limits::MemoryTotal, state::State};
use hyper::{Request, Response, StatusCode, body::Incoming};
use std::{
    future::ready,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// Takes the core dump of a request, with its id. Whether it takes one more.
pub type CoreDumpSink = Box<dyn Fn(&str, &[u8]) -> bool + Send + Sync>;

/// Takes what is to be told of requests that failed, a message at a time.
pub type LogSink = Box<dyn Fn(&str) + Send + Sync>;

/// What of a function is for whoever serves it.
pub struct Serving {
    /// Takes what is to be told of requests that failed.
    pub log: LogSink,
    /// How many requests one instance answers, one after another; 1 gives each its own.
    pub reuse: u32,
    /// Thousandths of a processor that it may use; only for a function beside others.
    pub cpu_millis: Option<u64>,
    /// Takes the core dumps, if the function was loaded to make them.
    pub core_dump: Option<CoreDumpSink>,
}

/// A function within a server of somebody else's; clones are the same.
#[derive(Clone)]
pub struct Service(Arc<Shared>);

/// What is known of a request besides.
pub struct Asked<'a> {
    /// What it is called in the log.
    pub id: &'a str,
    /// Bytes of its body: 413.
    pub body_bytes: u64,
    /// For its body before it has to come at [`BODY_BYTES_PER_SECOND`](super::BODY_BYTES_PER_SECOND) in the mean: 408.
    pub body_grace: Duration,
}

/// A request without an answer of the function's.
#[derive(Debug)]
pub struct Unanswered {
    /// What kind of failure it is for the client.
    pub status: StatusCode,
    /// Why: for an operator, and not for the client.
    pub told: String,
}

impl Service {
    pub(super) fn new(
        function: Function,
        command: Command,
        serving: Serving,
        clock: Arc<Clock>,
        lanes: Lanes,
    ) -> Result<Self, RunError> {
        let counts = Arc::new(Counts::new(check(&function, &command)?));
        let idle = Arc::new(Idle::new(serving.reuse));
        let share = Arc::new(Share::new(lanes, serving.cpu_millis));
        let shared = Shared::new(function, command, serving, clock, counts, idle, Handle::current());
        Ok(Self(Arc::new(Shared { share: Some(share), ..shared })))
    }

    /// Room for one request, if there is some now.
    pub fn try_place(&self) -> Option<Place> {
        let permit = Arc::clone(&self.0.places).try_acquire_owned().ok()?;
        Some(self.0.taken(Some(permit)))
    }

    /// Waits for it.
    pub async fn place(&self) -> Place {
        self.0.place().await
    }

    /// Answers a request: by the function, whose place is free again when it has ended, or not at all.
    pub async fn answer(
        &self,
        place: Place,
        asked: Asked<'_>,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Unanswered> {
        let shared = &self.0;
        shared.counts.begin_request();
        let (id, body) =
            (RequestId::Given(asked.id.into()), BodyBounds { bytes: asked.body_bytes, grace: asked.body_grace });
        let answered = request::attempt(shared, &id, ready(place), body, request).await;
        answered.map_err(|failure| {
            shared.note_failure(&id, &failure);
            Unanswered { status: failure.status(), told: failure.told() }
        })
    }

    /// What it has come to.
    pub fn served(&self) -> Served {
        self.0.counts.now()
    }

    /// Requests that are being answered, and functions that go on after their answers.
    pub fn running(&self) -> usize {
        places(self.0.bounds.requests).saturating_sub(self.0.places.available_permits())
    }

    /// How many there may be.
    pub fn most(&self) -> u32 {
        self.0.bounds.requests
    }

    /// Lets go of instances that wait to be used again.
    pub fn rest(&self) {
        self.0.idle.clear();
    }
}

/// What a request's body may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyBounds {
    pub(super) bytes: u64,
    pub(super) grace: Duration,
}

/// What all requests share.
pub(super) struct Shared {
    pub(super) engine: Engine,
    pub(super) handler: Handler,
    pub(super) command: Command,
    pub(super) bounds: Bounds,
    pub(super) counts: Arc<Counts>,
    pub(super) idle: Arc<Idle>,
    core_dump: Option<CoreDumpSink>,
    takes_core_dumps: AtomicBool,
    pub(super) runtime: Handle,
    pub(super) places: Arc<Semaphore>,
    pub(super) clock: Arc<Clock>,
    /// Of a function beside others.
    pub(super) share: Option<Arc<Share>>,
    names: RandomState,
    log: LogSink,
}

/// Room for one function to run; it is free again when this is dropped.
pub struct Place {
    clock: Arc<Clock>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clock.finish();
    }
}

/// Checks that what each request will need is there; what all of them have together.
pub(super) fn check(function: &Function, command: &Command) -> Result<MemoryTotal, RunError> {
    if command.fuel.is_some() && !function.engine.profile().fuel {
        return Err(RunError::NotCounting);
    }
    function.parts.check(command)?;
    command.stores.open()?;
    let memory = MemoryTotal::new(command.memory_bytes);
    State::of_request(command, crate::limits::MemorySum::part_of(&memory))?;
    Ok(memory)
}

impl Shared {
    pub(super) fn new(
        function: Function,
        command: Command,
        serving: Serving,
        clock: Arc<Clock>,
        counts: Arc<Counts>,
        idle: Arc<Idle>,
        runtime: Handle,
    ) -> Self {
        Self {
            engine: function.engine,
            handler: function.handler,
            command,
            bounds: function.bounds,
            counts,
            idle,
            core_dump: serving.core_dump,
            takes_core_dumps: AtomicBool::new(true),
            runtime,
            places: Arc::new(Semaphore::new(places(function.bounds.requests))),
            clock,
            share: None,
            names: RandomState::new(),
            log: serving.log,
        }
    }

    /// Waits until fewer requests are being answered than may be.
    pub(super) async fn place(&self) -> Place {
        // It is never closed.
        self.taken(Arc::clone(&self.places).acquire_owned().await.ok())
    }

    fn taken(&self, permit: Option<OwnedSemaphorePermit>) -> Place {
        self.clock.begin();
        Place { clock: Arc::clone(&self.clock), _permit: permit }
    }

    pub(super) fn begin_request(&self) -> RequestId {
        RequestId::Drawn(self.names.hash_one(self.counts.begin_request()))
    }

    /// Hands on the dump that `make` makes, as long as somebody takes it: making one copies all of a memory.
    pub(super) fn dump(&self, id: &RequestId, make: impl FnOnce(&str) -> Option<Vec<u8>>) {
        let Some(sink) = self.core_dump.as_ref().filter(|_| self.takes_core_dumps.load(Relaxed)) else { return };
        let id = id.to_string();
        if let Some(dump) = make(&id)
            && !sink(&id, &dump)
        {
            self.takes_core_dumps.store(false, Relaxed);
        }
    }

    pub(super) fn note_failure(&self, id: &RequestId, failure: &Failure) {
        if let Some(message) = failure.log() {
            let message = format!("request {id}: {message}");
            self.counts.note_failure(failure, &message);
            (self.log)(&message);
        }
    }
}

/// As many as a semaphore takes, at the most.
pub(super) fn places(wanted: u32) -> usize {
    usize::try_from(wanted).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}
