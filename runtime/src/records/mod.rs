//! What is written down about containers and volumes, and the machine as a command finds it.

pub(crate) mod container;
pub(crate) mod events;
pub(crate) mod given;
pub(crate) mod host;
pub(crate) mod own_process;
pub(crate) mod paths;
mod places;
pub(crate) mod tree;
pub(crate) mod volumes;
