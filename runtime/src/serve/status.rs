//! How the gateway is, as JSON: once, or again every second as long as somebody listens.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use linux_exec::cgroup::Cgroups;
use serde::Serialize;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{
    function::Function,
    gateway::Gateway,
    metrics::{self, Second},
};
use crate::spec::Kind;

/// Between two events.
const EVERY: Duration = Duration::from_secs(1);

/// What is served, and how it is.
#[derive(Serialize)]
struct Status<'a> {
    gateway: &'a str,
    up_seconds: u64,
    stopping: bool,
    reload_error: Option<String>,
    /// Of `durations`; one more than these is what is above all of them.
    bounds_seconds: &'a [f64],
    functions: Vec<FunctionStatus>,
}

#[derive(Serialize)]
struct FunctionStatus {
    name: String,
    kind: Kind,
    isolation: &'static str,
    image: String,
    digest: String,
    /// What a rollback leads to.
    previous: Option<String>,
    /// Seconds between two looks for a newer image.
    watch_seconds: Option<u64>,
    containers: usize,
    frozen: usize,
    starting: usize,
    /// Of all instances within the gateway, or of all containers with what they wrote lately; None: the machine does not count it.
    memory_bytes: Option<u64>,
    in_flight: u64,
    waiting: usize,
    requests: u64,
    failed: u64,
    starts: u64,
    thaws: u64,
    /// Of instances within the gateway.
    traps: u64,
    /// Requests by how long they took.
    durations: Vec<u64>,
    /// Of the last minute, second by second.
    history: Vec<Second>,
    last_error: Option<String>,
}

impl FunctionStatus {
    fn of(gateway: &Gateway, function: &Function) -> Self {
        let (plan, figures, now) = (&function.plan, &function.figures, function.now());
        Self {
            name: plan.name.clone(),
            kind: plan.kind,
            isolation: plan.isolation.word(),
            image: plan.config.image.clone(),
            digest: plan.digest.clone(),
            previous: gateway.versions().previous(&plan.name),
            watch_seconds: gateway.watch_interval(function).map(|interval| interval.as_secs()),
            containers: now.running + now.frozen,
            frozen: now.frozen,
            starting: now.starting,
            memory_bytes: match &now.guests {
                Some(guests) => Some(guests.memory_bytes),
                None => memory_bytes(&function.container_ids()),
            },
            in_flight: now.in_flight,
            waiting: now.waiting,
            requests: figures.requests(),
            failed: figures.failed(),
            starts: figures.starts(),
            thaws: figures.thaws(),
            traps: now.guests.as_ref().map_or(0, |guests| guests.traps),
            durations: figures.durations(),
            history: figures.history(),
            last_error: figures.last_error(),
        }
    }
}

/// Asked of the kernel, which answers at once.
fn memory_bytes(containers: &[String]) -> Option<u64> {
    if containers.is_empty() {
        return Some(0);
    }
    let cgroups = Cgroups::detect().ok()?;
    let of_one = |id: &String| {
        let used = cgroups.open(id).ok()??.statistics();
        Some(used.memory_bytes?.saturating_sub(used.memory_inactive_file_bytes.unwrap_or(0)))
    };
    // One that has ended just now has none.
    containers.iter().filter_map(of_one).reduce(u64::saturating_add)
}

/// All of it, on one line.
pub(super) fn text(gateway: &Gateway) -> String {
    let status = Status {
        gateway: gateway.name(),
        up_seconds: gateway.up_for().as_secs(),
        stopping: gateway.is_stopping(),
        reload_error: gateway.reload_error(),
        bounds_seconds: &metrics::BUCKETS,
        functions: gateway.site().functions.values().map(|function| FunctionStatus::of(gateway, function)).collect(),
    };
    // It cannot fail: its keys are text.
    serde_json::to_string(&status).unwrap_or_default()
}

/// What operators are sent.
pub(super) enum Report {
    Fixed(Full<Bytes>),
    Events(Events),
}

/// The status, as server-sent events.
pub(super) struct Events {
    gateway: Arc<Gateway>,
    ticks: Interval,
}

impl Events {
    pub(super) fn new(gateway: Arc<Gateway>) -> Self {
        let mut ticks = interval(EVERY);
        // One who reads slowly gets what is, not what was.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Self { gateway, ticks }
    }
}

impl Body for Report {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Fixed(text) => Pin::new(text).poll_frame(cx),
            Self::Events(events) => {
                ready!(events.ticks.poll_tick(cx));
                let event = format!("data: {}\n\n", text(&events.gateway));
                Poll::Ready(Some(Ok(Frame::data(event.into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Fixed(text) => text.is_end_stream(),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Fixed(text) => text.size_hint(),
            Self::Events(_) => SizeHint::default(),
        }
    }
}
