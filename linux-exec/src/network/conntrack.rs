//! Connections that the kernel follows: those of UDP are forgotten when their port leads elsewhere, as they would go on to
//! lead to where they began.

use std::collections::HashSet;

use nix::{errno::Errno, sys::socket::SockProtocol};

use super::{
    message::{ACKNOWLEDGE, DUMP, Messages, Received, attributes, find},
    socket::Socket,
};
use crate::Error;

const SUBSYSTEM: u16 = 1;
const GET: u16 = SUBSYSTEM << 8 | 1;
const DELETE: u16 = SUBSYSTEM << 8 | 2;
const ORIGINAL: u16 = 1;
const ID: u16 = 12;
const ZONE: u16 = 18;
const PROTOCOL: u16 = 2;
const NUMBER: u16 = 1;
const TARGET_PORT: u16 = 3;
const UDP: u8 = 17;

/// A connection, by what the kernel wants to hear of it.
struct Found {
    family: u8,
    /// Attributes, each as it came.
    names: Vec<(u16, Vec<u8>)>,
}

/// Forgets all connections of UDP that began with a packet to one of these ports; how many.
pub fn forget_udp(ports: &HashSet<u16>) -> Result<usize, Error> {
    let failed = |errno| Error::new("forget connections of UDP", errno);
    let socket = Socket::open(SockProtocol::NetlinkNetFilter).map_err(failed)?;
    let mut messages = Messages::default();
    messages.begin(GET, DUMP, &[0; 4]);
    let mut found = Vec::new();
    socket.list(&messages, true, |answer| found.extend(connection(answer, ports))).map_err(failed)?;
    let mut forgotten = 0;
    for Found { family, names } in found {
        let mut messages = Messages::default();
        messages.begin(DELETE, ACKNOWLEDGE, &[family, 0, 0, 0]);
        for (kind, value) in names {
            match kind {
                ORIGINAL => messages.nest(kind, |nested| nested.raw(&value)),
                _ => messages.attribute(kind, &value),
            }
        }
        match socket.request(&messages) {
            Ok(()) => forgotten += 1,
            // It ended by itself.
            Err(refused) if refused.errno == Errno::ENOENT => {}
            Err(refused) => return Err(failed(refused.errno)),
        }
    }
    Ok(forgotten)
}

fn connection(answer: &Received<'_>, ports: &HashSet<u16>) -> Option<Found> {
    let (header, rest) = answer.body.split_first_chunk::<4>()?;
    let original = find(rest, ORIGINAL)?;
    let protocol = find(original, PROTOCOL)?;
    let port = find(protocol, TARGET_PORT)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))?;
    if find(protocol, NUMBER)? != [UDP] || !ports.contains(&port) {
        return None;
    }
    let names = attributes(rest).filter(|(kind, _)| [ORIGINAL, ID, ZONE].contains(kind));
    Some(Found { family: header[0], names: names.map(|(kind, value)| (kind, value.to_vec())).collect() })
}
