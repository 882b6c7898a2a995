//! OCI images: references, registry client, classification, content store, unpacking, import.

pub mod archive;
pub mod budget;
pub mod classify;
pub mod commit;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod healthcheck;
pub mod holds;
pub mod import;
pub mod ingest;
pub mod pack;
pub mod platform;
pub mod program;
mod ready;
pub mod reference;
pub mod registry;
mod removal;
pub mod spin;
pub mod store;
pub mod unpack;

pub use budget::Budget;
pub use classify::{Class, Classification};
pub use healthcheck::Healthcheck;
pub use oci_spec::image::Digest;
pub use platform::Selection;
pub use ready::{NotReady, Ready};
pub use reference::Reference;
pub use removal::remove_tree;
pub use store::{Image, Store};
