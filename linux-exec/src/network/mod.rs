//! Networks by netlink: devices, addresses and routes; network namespaces; packet filters.
//!
//! Only messages and sockets are here; which devices and rules make a network of containers is decided elsewhere. Nothing is
//! executed, and nothing here waits: the kernel answers a netlink message before send(2) returns.

pub mod conntrack;
mod links;
mod message;
pub mod namespace;
pub mod nftables;
mod socket;
pub mod tap;
#[cfg(test)]
mod tests;

pub use links::{Link, Links, Route, Veth};
