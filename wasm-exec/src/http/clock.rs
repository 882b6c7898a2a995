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
/// Ticks after which somebody is told how things are.
const LOOK_TICKS: u32 = 100;
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
    /// A thread of its own; it ends after [`Clock::end`]. `look` is called about once a second as long as functions run, and when the last
    /// one has ended for a while: then with true.
    pub(super) fn start(engine: Engine, look: impl Fn(bool) + Send + 'static) -> io::Result<(Self, JoinHandle<()>)> {
        let running = Arc::new(Running::default());
        let seen = Arc::clone(&running);
        let handle = thread::Builder::new().name("clock".into()).spawn(move || tick(&engine, &seen, &look))?;
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

fn tick(engine: &Engine, running: &Running, look: &impl Fn(bool)) {
    let (mut idle, mut unseen) = (0, 0);
    while !running.over.load(SeqCst) {
        if idle >= IDLE_TICKS {
            look(true);
            unseen = 0;
            running.stands.store(true, SeqCst);
            if running.functions.load(SeqCst) == 0 {
                thread::park();
            }
            running.stands.store(false, SeqCst);
            idle = 0;
        }
        thread::sleep(TICK);
        unseen += 1;
        if unseen >= LOOK_TICKS {
            look(false);
            unseen = 0;
        }
        match running.functions.load(SeqCst) {
            0 => idle += 1,
            _ => {
                idle = 0;
                engine.interrupt();
            }
        }
    }
    look(true);
}
