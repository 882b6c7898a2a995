//! The server: accepts until it is told to stop, and ends when all that was begun is done.

use super::{
    Bounds, Function, Served,
    clock::Clock,
    counts::Counts,
    failure::{Failure, RequestId},
    front,
    function::Handler,
    instance::Idle,
    request,
};
use crate::{Command, Engine, RunError, limits::MemoryTotal, state::State};
use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};
use tokio::{
    net::TcpStream,
    runtime::{self, Handle, Runtime},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::sleep,
};

/// Threads for calls that block, as those of files do.
const BLOCKING_THREADS: usize = 16;
/// For a thread that was started to begin.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where descriptors or memory are short, they may not be in a moment.
const SHORTAGE: Duration = Duration::from_millis(50);

/// Takes the core dump of a request, with its id. Whether it takes one more.
pub type CoreDumpSink = Box<dyn Fn(&str, &[u8]) -> bool + Send + Sync>;

/// Where and how a function is served.
pub struct Setting {
    /// Sockets that listen already.
    pub listeners: Vec<TcpListener>,
    /// Threads that answer requests.
    pub threads: usize,
    /// Ends it.
    pub stop: Stop,
    /// Takes what is to be told of requests that failed, a message at a time.
    pub log: fn(&str),
    /// How many requests one instance answers, one after another; 1 gives each its own.
    pub reuse: u32,
    /// Takes the core dumps, if the function was loaded to make them.
    pub core_dump: Option<CoreDumpSink>,
    /// Is told now and then what the server has come to, while it has something to do, and when it has nothing more.
    pub note: Box<dyn Fn(&Served) + Send>,
}

/// Tells a server to accept nothing more; from any thread.
#[derive(Debug, Clone)]
pub struct Stop(Arc<watch::Sender<bool>>);

impl Stop {
    /// One that nobody has used yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// The server answers what it has begun to answer, and ends.
    pub fn request(&self) {
        self.0.send_replace(true);
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
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
    places: Arc<Semaphore>,
    clock: Arc<Clock>,
    names: RandomState,
    log: fn(&str),
}

/// Room for one function to run; it is free again when this is dropped.
pub(super) struct Place {
    clock: Arc<Clock>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clock.finish();
    }
}

impl Shared {
    /// Waits until fewer requests are being answered than may be.
    pub(super) async fn place(&self) -> Place {
        // It is never closed.
        let permit = Arc::clone(&self.places).acquire_owned().await.ok();
        self.clock.begin();
        Place { clock: Arc::clone(&self.clock), _permit: permit }
    }

    pub(super) fn begin_request(&self) -> RequestId {
        RequestId(self.names.hash_one(self.counts.begin_request()))
    }

    /// Hands on the dump that `make` makes, as long as somebody takes it: making one copies all of a memory.
    pub(super) fn dump(&self, id: RequestId, make: impl FnOnce(&str) -> Option<Vec<u8>>) {
        let Some(sink) = self.core_dump.as_ref().filter(|_| self.takes_core_dumps.load(Relaxed)) else { return };
        let id = id.to_string();
        if let Some(dump) = make(&id)
            && !sink(&id, &dump)
        {
            self.takes_core_dumps.store(false, Relaxed);
        }
    }

    pub(super) fn note_failure(&self, id: RequestId, failure: &Failure) {
        if let Some(message) = failure.log() {
            let message = format!("request {id}: {message}");
            self.counts.note_failure(failure, &message);
            (self.log)(&message);
        }
    }
}

/// Serves the function until it is told to stop and the last request is answered. `command.timeout` is for the caller to keep.
///
/// An error means that nothing was served.
pub fn serve(function: Function, command: Command, setting: Setting) -> Result<Served, RunError> {
    if command.fuel.is_some() && !function.engine.profile().fuel {
        return Err(RunError::NotCounting);
    }
    function.parts.check(&command)?;
    command.stores.open()?;
    let thread = |what| move |error| RunError::Thread { what, error };
    // What each request will need is there.
    let memory = MemoryTotal::new(command.memory_bytes);
    State::of_request(&command, crate::limits::MemorySum::part_of(&memory))?;
    let (counts, idle) = (Arc::new(Counts::new(memory)), Arc::new(Idle::new(setting.reuse)));
    let (clock, ticking) = {
        let (counts, idle, note) = (Arc::clone(&counts), Arc::clone(&idle), setting.note);
        let look = move |rests: bool| {
            if rests {
                idle.clear();
            }
            note(&counts.now());
        };
        Clock::start(function.engine.clone(), look).map_err(thread("the clock"))?
    };
    let runtime = event_loop(setting.threads).map_err(thread("the event loop"))?;
    let shared = Arc::new(Shared {
        engine: function.engine,
        handler: function.handler,
        command,
        bounds: function.bounds,
        counts: Arc::clone(&counts),
        idle,
        core_dump: setting.core_dump,
        takes_core_dumps: AtomicBool::new(true),
        runtime: runtime.handle().clone(),
        places: Arc::new(Semaphore::new(places(function.bounds.requests))),
        clock: Arc::new(clock),
        names: RandomState::new(),
        log: setting.log,
    });
    let served = runtime.block_on(accept_all(&shared, setting.listeners, &setting.stop));
    // Not dropped, which waits for all of its threads, for one that could never be started too.
    runtime.shutdown_background();
    shared.clock.end();
    // It tells for the last time how things are. It cannot have panicked: it does nothing that does.
    let _ = ticking.join();
    served.map_err(thread("serving a socket"))?;
    Ok(counts.now())
}

/// With all threads that answer, and one for calls that block, which stays: tokio lets whatever comes wait for a thread that it could
/// not start, without end.
fn event_loop(threads: usize) -> io::Result<Runtime> {
    let (begun, beginnings) = mpsc::channel();
    let mut builder = runtime::Builder::new_multi_thread();
    builder.worker_threads(threads).max_blocking_threads(BLOCKING_THREADS).thread_keep_alive(Duration::MAX);
    // Nobody listens any more to those that come later.
    builder.on_thread_start(move || {
        let _ = begun.send(());
    });
    let runtime = builder.enable_io().enable_time().thread_name("function").build()?;
    runtime.spawn_blocking(|| ());
    for _ in 0..=threads {
        if beginnings.recv_timeout(PATIENCE).is_err() {
            runtime.shutdown_background();
            return Err(rustix::io::Errno::AGAIN.into());
        }
    }
    Ok(runtime)
}

/// As many as a semaphore takes, at the most.
fn places(wanted: u32) -> usize {
    usize::try_from(wanted).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}

async fn accept_all(shared: &Arc<Shared>, listeners: Vec<TcpListener>, stop: &Stop) -> io::Result<()> {
    let connections = Arc::new(Semaphore::new(places(shared.bounds.connections)));
    let mut accepting = Vec::new();
    for listener in listeners {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let accept = accept(Arc::clone(shared), listener, Arc::clone(&connections), stop.clone());
        accepting.push(shared.runtime.spawn(accept));
    }
    for task in accepting {
        task.await.map_err(io::Error::other)?;
    }
    // What is left of them, and then of functions that outlive their connections.
    let _ = connections.acquire_many(shared.bounds.connections).await;
    let _ = shared.places.acquire_many(shared.bounds.requests).await;
    Ok(())
}

/// Accepts what comes at one socket.
async fn accept(shared: Arc<Shared>, listener: tokio::net::TcpListener, connections: Arc<Semaphore>, stop: Stop) {
    let mut stopping = stop.0.subscribe();
    loop {
        let next = next(&listener, &connections);
        let (socket, permit) = tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => return,
            next = next => next,
        };
        let (shared, stopping) = (Arc::clone(&shared), stop.0.subscribe());
        Handle::clone(&shared.runtime).spawn(async move {
            let Bounds { head_bytes, .. } = shared.bounds;
            let answer = |request, counted| request::answer(Arc::clone(&shared), request, counted);
            front::serve(Box::new(socket), head_bytes, shared.bounds.waits(), stopping, answer).await;
            drop(permit);
        });
    }
}

/// The next connection, as soon as there may be one more. More of them wait in the kernel.
async fn next(
    listener: &tokio::net::TcpListener,
    connections: &Arc<Semaphore>,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    let permit = Arc::clone(connections).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((socket, _peer)) => return (socket, permit),
            // A client that is gone again already: the next one is there at once.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => sleep(SHORTAGE).await,
        }
    }
}
