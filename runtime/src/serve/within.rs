//! A function within the gateway's process: an instance for each request, as many at once as may be, and the requests that wait for room.
//!
//! It is written down as a container that never starts: there its output is found (`amphora logs`), and what it has come to (`inspect`); and
//! whoever comes after a gateway that was killed removes it.

use std::{
    fs::File,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use hyper::{Request, Response, body::Incoming};
use tokio::{task::spawn_blocking, time::timeout};
use wasm_exec::{
    OutputSink, OutputStreamName,
    http::{Answer, Asked, Place, Served, Service, Unanswered},
};

use super::{
    containers::{Containers, KeptStores},
    function::Unavailable,
    metrics::{FunctionFigures, Now},
    plan::Plan,
};
use crate::{
    kinds::{Hosting, wasm},
    lifecycle::log::{Log, Stream},
    output,
    records::container::Container,
};

/// Ticks without a request after which no instance waits for one.
const IDLE_TICKS: u32 = 2;
/// For what a function does after its answers, when the gateway ends.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// Between two notes of what it has come to.
const NOTES_EVERY: Duration = Duration::from_secs(1);

/// A function, its instances, and who waits.
pub(super) struct Within {
    service: Service,
    /// What it is granted lies there.
    _folders: Vec<OwnedFd>,
    /// The next function of its name goes on with them.
    _stores: Arc<KeptStores>,
    record: Arc<Record>,
    figures: Arc<FunctionFigures>,
    queue: u32,
    queue_timeout: Duration,
    counts_fuel: bool,
    waiting: AtomicU32,
    retired: AtomicBool,
    idle_ticks: AtomicU32,
    /// The gateway does not wait longer.
    cut_off_at: OnceLock<Instant>,
    noted: Mutex<Noted>,
}

/// What was written down last.
struct Noted {
    file: File,
    served: Served,
    at: Instant,
}

/// The container that it is written down as.
struct Record {
    id: String,
    containers: Arc<Containers>,
    /// Somebody removes it.
    is_taken: AtomicBool,
    is_gone: AtomicBool,
}

impl Record {
    /// Removes it, once. Blocks.
    fn remove(&self) {
        if !self.is_taken.swap(true, Relaxed) {
            self.containers.launcher().discard(&self.id);
            self.is_gone.store(true, Relaxed);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Who waits for room.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    /// None: as many as may wait do.
    fn new(count: &'a AtomicU32, most: u32) -> Option<Self> {
        let more = |waiting: u32| waiting.checked_add(1).filter(|waiting| *waiting <= most);
        count.fetch_update(Relaxed, Relaxed, more).ok().map(|_| Self(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Within {
    /// Loads it. Compiles it, where that has not been done.
    pub(super) fn new(plan: &Plan, figures: Arc<FunctionFigures>, containers: &Arc<Containers>) -> Result<Self> {
        let launcher = containers.launcher();
        let (container, lock) = launcher.create(plan, Vec::new())?;
        // Removed again where anything is wrong.
        let record = Arc::new(Record {
            id: container.spec.id.clone(),
            containers: Arc::clone(containers),
            is_taken: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
        });
        drop(lock);
        let (config, specs) = (&plan.config, &container.spec.wasm.stores);
        let hosted = launcher.workload(&container)?.behaviour().host(Hosting {
            host: containers.host(),
            image: &launcher.image(plan)?,
            container: &container,
            pools: containers.pools(),
            requests: plan.concurrency,
            answer_within: config.timeout.duration(),
            reuse: config.reuse.map_or(1, Into::into),
            output: output_of(&plan.name, &container)?,
            stores: containers.stores_of(&plan.name, specs),
        })?;
        let noted = Noted { file: container.new_engine_file()?, served: Served::default(), at: Instant::now() };
        Ok(Self {
            service: hosted.service,
            _folders: hosted.folders,
            _stores: containers.keep_stores(&plan.name, specs, hosted.stores),
            record,
            figures,
            queue: config.queue,
            queue_timeout: config.queue_timeout.duration(),
            counts_fuel: config.fuel.is_some(),
            waiting: AtomicU32::new(0),
            retired: AtomicBool::new(false),
            idle_ticks: AtomicU32::new(0),
            cut_off_at: OnceLock::new(),
            noted: Mutex::new(noted),
        })
    }

    /// Waits for room; how long that took.
    pub(super) async fn place(&self) -> Result<(Place, Duration), Unavailable> {
        if let Some(place) = self.service.try_place() {
            return Ok((place, Duration::ZERO));
        }
        let began = Instant::now();
        let placed = match Waiting::new(&self.waiting, self.queue) {
            None => Err(Unavailable::Full),
            Some(_waiting) => timeout(self.queue_timeout, self.service.place()).await.map_err(|_| Unavailable::Late),
        };
        placed.map(|place| (place, began.elapsed())).inspect_err(|_| self.figures.note_refusal())
    }

    /// Lets it answer.
    pub(super) async fn answer(
        &self,
        place: Place,
        asked: Asked<'_>,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Unanswered> {
        self.service.answer(place, asked, request).await
    }

    /// Writes down what it has come to; without requests it keeps no instance, and when it is served no more, nothing.
    pub(super) fn tick(&self) {
        let runs = self.service.running() > 0;
        if self.note() || runs {
            self.idle_ticks.store(0, Relaxed);
        } else if self.idle_ticks.fetch_add(1, Relaxed) >= IDLE_TICKS {
            self.service.rest();
        }
        let is_cut_off = self.cut_off_at.get().is_some_and(|at| *at <= Instant::now());
        let is_done = self.retired.load(Relaxed) && !runs && self.waiting.load(Relaxed) == 0;
        if is_done || is_cut_off {
            let record = Arc::clone(&self.record);
            spawn_blocking(move || record.remove());
        }
    }

    /// Whether there is anything new.
    fn note(&self) -> bool {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let served = self.service.served();
        let is_new = noted.served != served;
        if is_new && noted.at.elapsed() >= NOTES_EVERY {
            // Who cannot be told how things are goes on all the same.
            _ = wasm::record(&served, self.counts_fuel).write_to(&noted.file);
            (noted.served, noted.at) = (served, Instant::now());
        }
        is_new
    }

    /// It is served no more.
    pub(super) fn retire(&self) {
        self.retired.store(true, Relaxed);
        self.tick();
    }

    /// All that it still does is cut off soon.
    pub(super) fn stop_all(&self) {
        self.cut_off_at.get_or_init(|| Instant::now() + ENDS_WITHIN);
        self.retire();
    }

    /// Whether nothing of it runs, or is there, any more.
    pub(super) fn is_over(&self) -> bool {
        self.record.is_gone.load(Relaxed)
    }

    pub(super) fn now(&self) -> Now {
        Now {
            in_flight: self.service.running() as u64,
            waiting: self.waiting.load(Relaxed) as usize,
            guests: Some(self.service.served()),
            ..Now::default()
        }
    }
}

/// Its log, as a container's.
fn output_of(function: &str, container: &Container) -> Result<OutputSink> {
    let log = Mutex::new(Log::of(container)?.open()?);
    let (function, has_failed) = (function.to_owned(), AtomicBool::new(false));
    Ok(OutputSink::new(move |stream, bytes| {
        let stream = match stream {
            OutputStreamName::Stdout => Stream::Stdout,
            OutputStreamName::Stderr => Stream::Stderr,
        };
        let written = log.lock().unwrap_or_else(PoisonError::into_inner).write(stream, bytes);
        if let Err(error) = written
            && !has_failed.swap(true, Relaxed)
        {
            output::note(&format!("amphora serve: function {function}: its output is lost: {error}"));
        }
    }))
}
