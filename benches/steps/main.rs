//! What a start is made of, a step at a time, in this process. `amphora bench` measures whole starts.
//!
//! ```text
//! cargo bench -p amphora -p amphora-benches --bench steps [PART OF A NAME]
//! ```
//!
//! Times hang on what else the machine does; what a start may cost is held by counts (`cargo xtask budget`).
#![allow(clippy::unwrap_used, reason = "a step that fails is not measured")]
#![allow(missing_docs, reason = "what criterion's macros make")]

mod images;
mod linux;
mod wasm;

use criterion::{criterion_group, criterion_main};

criterion_group!(steps, images::steps, linux::steps, wasm::steps);
criterion_main!(steps);
