//! Ports of the machine that lead to a container, as long as it runs.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::spec::ports::Protocol;

/// A published port, whose port of the machine is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BoundPort {
    /// The machine's address; None: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) host_ip: Option<IpAddr>,
    pub(crate) host_port: u16,
    pub(crate) container_port: u16,
    pub(crate) protocol: Protocol,
    /// What comes over IPv6 and cannot be led there is passed on by hand.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) relayed: bool,
}

impl BoundPort {
    /// `0.0.0.0:8080`, for each kind of address.
    pub(crate) fn places(&self, ipv6: bool) -> Vec<(String, u16)> {
        match self.host_ip {
            Some(ip) => vec![(ip.to_string(), self.host_port)],
            None if ipv6 || self.relayed => {
                vec![("0.0.0.0".to_owned(), self.host_port), ("::".to_owned(), self.host_port)]
            }
            None => vec![("0.0.0.0".to_owned(), self.host_port)],
        }
    }
}
