//! The time limit: a program that has one runs on a thread of its own, and the caller's thread watches the clock.
//!
//! That way everything can be timed out: a loop is stopped by the epoch, and a call to the host that does not come back
//! (a sleep, a read from a terminal, a write to a pipe that nobody reads, a FIFO without a writer) is left behind. The
//! calls themselves can then be made in the simplest and fastest way, which is to block.

use crate::Engine;
use std::{
    io, panic,
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};
use wasmtime::{Store, Trap};

/// How long after the time limit a program may take to notice it. It does so at the next loop or call, unless it is in
/// a call to the host.
const GRACE: Duration = Duration::from_millis(100);

/// Tells the watching thread that the program has noticed the end of its time.
pub(crate) struct Watched(Sender<()>);

impl Watched {
    /// Makes the program stop where it is when the epoch ends.
    pub(crate) fn attach<T>(self, store: &mut Store<T>) {
        store.epoch_deadline_callback(move |_| {
            // Nobody listens any more if the grace is over too; then it does not matter.
            let _ = self.0.send(());
            Err(Trap::Interrupt.into())
        });
    }
}

/// Does `work` on a new thread and gives its result; none if it still waits for the host after the limit.
///
/// The thread is then left behind, and ends with the process.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    engine: &Engine,
    work: impl FnOnce(Watched) -> T + Send + 'static,
) -> io::Result<Option<T>> {
    let (sender, noticed) = mpsc::channel();
    let worker = thread::Builder::new().name("guest".into()).spawn(move || {
        // The store keeps the other one, and outlives the work.
        let done = sender.clone();
        let result = work(Watched(sender));
        let _ = done.send(());
        result
    })?;
    // Whether the program has noticed, is done, or has panicked: in each case the thread ends now.
    if noticed.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
        engine.interrupt();
        if noticed.recv_timeout(GRACE) == Err(RecvTimeoutError::Timeout) {
            return Ok(None);
        }
    }
    worker.join().map(Some).or_else(|panic| panic::resume_unwind(panic))
}
