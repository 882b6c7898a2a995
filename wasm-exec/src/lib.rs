//! Compiles and runs a Wasm program in a wasmtime sandbox.
//!
//! Three steps that never mix: [`CodeCache::compile`] turns a module or component into native code in a directory of our
//! own, at pull or import; [`Program::load`] maps that code and finds its imports; [`run`] runs it, in the process that
//! calls it. Nothing of wasmtime shows in this interface.

mod cache;
mod component;
mod engine;
mod exit;
mod imports;
mod limits;
mod load;
mod module;
mod outcome;
mod preopens;
mod program;
mod run;
mod stdio;
mod wasi_p1;
mod watch;
mod writer;

pub use cache::{CacheError, CodeCache, Compiled};
pub use imports::unprovided_imports;
pub use outcome::{Outcome, Report};
pub use preopens::Preopen;
pub use program::Program;
pub use run::{Command, NetworkGrant, RunError, run};
