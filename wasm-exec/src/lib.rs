//! Compiles and runs Wasm programs in a wasmtime sandbox.
//!
//! Three steps that never mix: [`CodeCache::compile`] turns a module or component into native code in a directory of our
//! own, at pull or import; [`Program::load`] maps that code and finds its imports; an [`Instance`] of it runs. [`run`] is one
//! instance as all that the process still does. Nothing of wasmtime shows in this interface.
//!
//! ```text
//! Profile ── CodeCache ── Compiled ─┐
//!    └────── Engine ────────────────┴─ Program ─┬─ Instance ── Report
//!                                     Command ──┘
//! ```

mod cache;
mod cause;
mod command;
mod component;
mod concurrency;
mod config;
mod core_dump;
mod engine;
mod error;
mod exit;
mod files;
pub mod http;
mod imports;
mod instance;
mod invoke;
mod keyvalue;
mod limits;
mod load;
mod logging;
mod module;
mod network;
mod outcome;
mod parts;
mod preopens;
mod program;
mod proposals;
mod run;
mod state;
mod stdio;
mod wasi_p1;
mod wasi_p2;
mod wasi_p3;
mod watch;

pub use cache::{CacheError, CodeCache, Compiled, Found, Pending};
pub use command::Command;
pub use config::Configuration;
pub use engine::{Engine, Profile};
pub use error::RunError;
pub use imports::unprovided_imports;
pub use instance::Instance;
pub use keyvalue::{StoreGrant, Stores};
pub use network::{DestinationError, Destinations, NameFiles, Network, NetworkSetting};
pub use outcome::{Outcome, Report};
pub use parts::is_granted_by_value;
pub use preopens::Preopen;
pub use program::Program;
pub use proposals::{ProposalError, Proposals, missing_proposals};
pub use run::run;
pub use stdio::{OutputSink, OutputStreamName};
