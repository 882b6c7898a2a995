//! A container's life: created, started, supervised, ended, removed. One code path for both kinds.
//!
//! There is no daemon. `run` in the foreground is itself the supervisor of its container; `run -d` and `start` leave a
//! process of their own behind for that. A container dies with its supervisor.

pub(crate) mod archive;
pub(crate) mod attach;
pub(crate) mod built_in;
pub(crate) mod changed;
mod create;
mod end;
pub(crate) mod exec;
pub(crate) mod files;
pub(crate) mod group;
mod happened;
pub(crate) mod health;
mod holders;
mod journal;
pub(crate) mod log;
pub(crate) mod networks;
pub(crate) mod pause;
mod probe;
pub(crate) mod processes;
mod remove;
mod restart;
mod start;
mod stop;
pub(crate) mod streams;
pub(crate) mod supervise;
pub(crate) mod terminal;
pub(crate) mod timings;
pub(crate) mod update;

pub(crate) use create::{create, specify};
pub(crate) use remove::{check_cgroups, check_orphans, remove, remove_idle, remove_unreadable};
pub use start::run;
pub(crate) use start::{
    check_startable, image_to_start, run_attached, spawn_supervisor, start_detached, supervise_in_background,
    tell_starter, wait_until_started, workload_of,
};
pub(crate) use stop::{end_by_force, kill_and_wait, kill_as_wanted, kill_unreadable, stop, wait};
