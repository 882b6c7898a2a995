//! The clock by which functions let each other go on: it ticks as long as one of them runs.

use crate::Engine;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    thread::{self, JoinHandle, Thread},
    time::Duration,
};

/// For how long one function may keep a thread from the others.
const TICK: Duration = Duration::from_millis(10);
/// Ticks without a function before the clock stands still: waking it costs more than some ticks.
const IDLE_TICKS: u32 = 50;

/// Counts the functions that run.
#[derive(Debug)]
pub(super) struct Clock {
    running: Arc<Running>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct Running {
    functions: AtomicU32,
    stands: AtomicBool,
    over: AtomicBool,
}

impl Clock {
    /// A thread of its own; it ends after [`Clock::end`].
    pub(super) fn start(engine: Engine) -> io::Result<(Self, JoinHandle<()>)> {
        let running = Arc::new(Running::default());
        let seen = Arc::clone(&running);
        let handle = thread::Builder::new().name("clock".into()).spawn(move || tick(&engine, &seen))?;
        Ok((Self { running, thread: handle.thread().clone() }, handle))
    }

    /// A function begins.
    pub(super) fn begin(&self) {
        self.running.functions.fetch_add(1, SeqCst);
        if self.running.stands.load(SeqCst) {
            self.thread.unpark();
        }
    }

    /// One has ended.
    pub(super) fn finish(&self) {
        self.running.functions.fetch_sub(1, SeqCst);
    }

    pub(super) fn end(&self) {
        self.running.over.store(true, SeqCst);
        self.thread.unpark();
    }
}

fn tick(engine: &Engine, running: &Running) {
    let mut idle = 0;
    while !running.over.load(SeqCst) {
        if idle >= IDLE_TICKS {
            running.stands.store(true, SeqCst);
            if running.functions.load(SeqCst) == 0 {
                thread::park();
            }
            running.stands.store(false, SeqCst);
            idle = 0;
        }
        thread::sleep(TICK);
        match running.functions.load(SeqCst) {
            0 => idle += 1,
            _ => {
                idle = 0;
                engine.interrupt();
            }
        }
    }
}
