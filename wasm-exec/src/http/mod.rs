//! Functions: components that answer HTTP requests (`wasi:http`), served from sockets that somebody else opened.
//!
//! Each request gets an instance of its own, with a memory and a state of its own, from a pool that was reserved beforehand; it is
//! gone when the request is over, whatever its program has done. Where that is wanted ([`Setting::reuse`]), one that ended well answers
//! more requests, one after another. Nothing here opens a socket.
//!
//! ```text
//! Function (loaded, linked) ──┐
//! Command (what is granted) ──┼─ serve ──── front ───── request ── Answer
//! Setting (sockets, bounds) ──┘           HTTP/1.1, h2c   Instance    body
//!
//! Pools ── Function ── Service ──────────────────────────── request ── body
//! many in one process          whoever accepts requests asks
//! ```

mod answer;
mod call;
mod clock;
mod counts;
mod failure;
pub mod front;
mod function;
mod instance;
mod pool;
mod pools;
mod request;
mod server;
mod service;
mod share;
mod upload;

pub use answer::{Answer, Broken};
pub use counts::Served;
pub use function::{Function, is_handler};
pub use pools::Pools;
pub use server::{Setting, Stop, serve};
pub use service::{Asked, CoreDumpSink, LogSink, Place, Service, Serving, Unanswered};

use std::time::Duration;

/// What a client may take, and what a function may, before the server goes on without them.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Requests that are answered at once; more of them wait.
    pub requests: u32,
    /// Connections at once; more of them wait in the kernel.
    pub connections: u32,
    /// Bytes of a request's line and headers: 414 or 431.
    pub head_bytes: u32,
    /// Bytes of a request's body: 413.
    pub body_bytes: u64,
    /// From a head's first byte to its last: 408.
    pub head_within: Duration,
    /// For a body before it has to come at [`BODY_BYTES_PER_SECOND`] in the mean: 408.
    pub body_grace: Duration,
    /// A connection without a request is closed.
    pub idle: Duration,
    /// A client takes nothing of what it is sent: the connection is closed.
    pub stalled: Duration,
    /// From a whole request to the beginning of its answer: 504.
    pub answer_within: Duration,
    /// For what a function does after its answer.
    pub afterwards: Duration,
}

impl Bounds {
    fn waits(&self) -> front::Waits {
        front::Waits { head: self.head_within, idle: self.idle, stalled: self.stalled }
    }
}

/// What a body has to come with in the mean, after a grace.
pub const BODY_BYTES_PER_SECOND: u64 = 1024;

impl Default for Bounds {
    fn default() -> Self {
        Self {
            requests: 1000,
            connections: 1000,
            head_bytes: 64 << 10,
            body_bytes: 128 << 20,
            head_within: Duration::from_secs(20),
            body_grace: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            stalled: Duration::from_secs(60),
            answer_within: Duration::from_secs(60),
            afterwards: Duration::from_secs(30),
        }
    }
}
