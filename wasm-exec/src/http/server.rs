//! The server: accepts until it is told to stop, and ends when all that was begun is done.

use super::{
    Bounds, Function, Served, Serving,
    clock::Clock,
    counts::Counts,
    front,
    instance::Idle,
    request,
    service::{self, Shared, places},
};
use crate::{Command, RunError};
use std::{
    io,
    net::TcpListener,
    sync::{Arc, mpsc},
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

/// Where and how a function is served.
pub struct Setting {
    /// Sockets that listen already.
    pub listeners: Vec<TcpListener>,
    /// Threads that answer requests.
    pub threads: usize,
    /// Ends it.
    pub stop: Stop,
    /// What is for whoever serves.
    pub serving: Serving,
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

/// Serves the function until it is told to stop and the last request is answered. `command.timeout` is for the caller to keep.
///
/// An error means that nothing was served.
pub fn serve(function: Function, command: Command, setting: Setting) -> Result<Served, RunError> {
    let memory = service::check(&function, &command)?;
    let thread = |what| move |error| RunError::Thread { what, error };
    let Setting { listeners, threads, stop, serving, note } = setting;
    let (counts, idle) = (Arc::new(Counts::new(memory)), Arc::new(Idle::new(serving.reuse)));
    let (clock, ticking) = {
        let (counts, idle) = (Arc::clone(&counts), Arc::clone(&idle));
        let look = move |rests: bool| {
            if rests {
                idle.clear();
            }
            note(&counts.now());
        };
        Clock::start(function.engine.clone(), look).map_err(thread("the clock"))?
    };
    let runtime = event_loop(threads).map_err(thread("the event loop"))?;
    let handle = runtime.handle().clone();
    let shared = Arc::new(Shared::new(function, command, serving, Arc::new(clock), Arc::clone(&counts), idle, handle));
    let served = runtime.block_on(accept_all(&shared, listeners, &stop));
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
