//! Runs a program in namespaces and cgroups on a root file system of its own.
//!
//! Everything is decided and allocated in a [`plan::Plan`] before the clone; the child walks a list of steps and
//! reports failure as numbers.

mod actions;
pub mod capabilities;
pub mod cgroup;
mod child;
pub mod confinement;
mod credentials;
mod detached;
pub mod devices;
mod error;
pub mod exec;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod interrupt;
mod launcher;
mod magic;
mod mounts;
pub mod network;
mod overlay;
pub mod plan;
pub mod process;
pub mod program;
mod reap;
mod report;
mod resolve;
pub mod rootfs;
pub mod seccomp;
pub mod shared;
pub mod spawn;
mod steps;
mod sys;
mod sysctl;
mod target;
mod terminal;
pub mod userns;
pub mod users;

pub use error::Error;
