//! Packet filters: tables, sets, chains and rules of nf_tables, changed in one transaction.
//!
//! Sources: include/uapi/linux/netfilter/nf_tables.h, and libnftnl for what attributes mean.

use std::net::IpAddr;

use nix::{errno::Errno, sys::socket::SockProtocol};

use super::{
    message::{ACKNOWLEDGE, APPEND, CREATE, DUMP, Messages, find, text},
    socket::Socket,
};
use crate::Error;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
const GET_ELEMENTS: u16 = 13;
const DELETE_ELEMENTS: u16 = 14;

/// A list of elements is an attribute, whose length has 16 bits.
const ELEMENTS_IN_A_MESSAGE: usize = 400;

const SET_IS_MAP: u32 = 8;
const HOOK_FORWARD: u32 = 2;

/// What packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// Frames in a bridge.
    Bridge,
}

/// A table.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    /// What it sees.
    pub family: Family,
    /// Its name.
    pub name: &'a str,
}

/// Where packets come to a chain.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    /// Whether it translates addresses; else it filters.
    pub nat: bool,
    /// Where.
    pub at: HookPoint,
    /// Chains with a lower number come first.
    pub priority: i32,
}

/// A point on a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookPoint {
    /// It was received.
    Prerouting = 0,
    /// It is for this machine.
    Input = 1,
    /// It is passed on.
    Forward = 2,
    /// It was made here.
    Output = 3,
    /// It is about to be sent.
    Postrouting = 4,
}

/// A part of a set's keys or values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// A device's name.
    Device,
    /// A hardware address.
    Mac,
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A protocol over IP.
    Protocol,
    /// A port.
    Port,
}

impl Field {
    /// Bytes, and the number by which nft(8) shows it.
    const fn shape(self) -> (u32, u32) {
        match self {
            Field::Device => (16, 41),
            Field::Mac => (6, 9),
            Field::Ipv4 => (4, 7),
            Field::Ipv6 => (16, 8),
            Field::Protocol => (1, 12),
            Field::Port => (2, 13),
        }
    }

    const fn registers(self) -> u32 {
        self.shape().0.div_ceil(4)
    }
}

/// A value of a [`Field`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// A device's name, of at most 15 bytes.
    Device(&'a str),
    /// A hardware address.
    Mac([u8; 6]),
    /// An address of either kind.
    Ip(IpAddr),
    /// A protocol over IP.
    Protocol(u8),
    /// A port.
    Port(u16),
}

impl Value<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = match self {
            Value::Device(name) => {
                let mut bytes = name.as_bytes().to_vec();
                bytes.resize(16, 0);
                bytes
            }
            Value::Mac(mac) => mac.to_vec(),
            Value::Ip(ip) => super::links::octets(*ip),
            Value::Protocol(number) => vec![*number],
            Value::Port(port) => port.to_be_bytes().to_vec(),
        };
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}

/// A set's element: its key, and in a map its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element<'a> {
    /// The key.
    pub key: Vec<Value<'a>>,
    /// The value.
    pub value: Vec<Value<'a>>,
}

/// What a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// The device that a packet came by.
    InputDevice,
    /// The device that it goes by.
    OutputDevice,
    /// What a frame carries: 0x0800, 0x0806, 0x86dd.
    EtherType,
    /// AF_INET or AF_INET6.
    IpVersion,
    /// The protocol over IP.
    Protocol,
    /// How many bytes of the frame's, the packet's or the segment's header, from where.
    Header(Layer, u32, u32),
}

/// A header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// Ethernet's.
    Link = 0,
    /// IP's, or ARP's.
    Network = 1,
    /// TCP's, UDP's or ICMP's.
    Transport = 2,
}

impl Load {
    const fn registers(self) -> u32 {
        match self {
            Load::InputDevice | Load::OutputDevice => 4,
            Load::EtherType | Load::IpVersion | Load::Protocol => 1,
            Load::Header(_, _, length) => length.div_ceil(4),
        }
    }
}

/// A part of a rule, in order: the first that does not hold ends it.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// Something is these bytes.
    Is(Load, &'a [u8]),
    /// Something, after the mask, is these bytes.
    Masked(Load, &'a [u8], &'a [u8]),
    /// These together are in a set.
    In(&'a [Load], &'a str),
    /// They are not.
    NotIn(&'a [Load], &'a str),
    /// The connection is known, or belongs to one that is.
    Established,
    /// The connection's destination was translated.
    Translated,
    /// The destination is an address of this machine.
    Local,
    /// Translates the destination to what a map has for these, an address and a port; else the rule ends.
    TranslateTo {
        /// What is looked up.
        key: &'a [Load],
        /// The map.
        map: &'a str,
        /// Its addresses are IPv6 ones.
        v6: bool,
    },
    /// The source becomes the address of the device by which it goes.
    Masquerade,
    /// It passes this chain.
    Accept,
    /// It is gone.
    Drop,
    /// Another chain decides, and if it does not, this one goes on.
    Jump(&'a str),
}

/// The packet filter of the network namespace in which it was opened.
pub struct Filter {
    socket: Socket,
}

impl Filter {
    /// Opens that of the caller's namespace.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(SockProtocol::NetlinkNetFilter).map_err(refused)? })
    }

    /// Makes changes; false, and nothing is changed, if a table, a chain, a set or an element is not there, or an element is
    /// there with another value.
    pub fn commit(&self, mut change: Transaction) -> Result<bool, Error> {
        change.messages.flag_last(ACKNOWLEDGE);
        change.messages.begin(BATCH_END, 0, &header(0, SUBSYSTEM));
        match self.socket.transaction(&change.messages) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.errno, Errno::ENOENT | Errno::EEXIST | Errno::EBUSY) => Ok(false),
            Err(error) => Err(refused(error.errno)),
        }
    }
}

fn refused(errno: Errno) -> Error {
    let hint = match errno {
        Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT => {
            "the kernel has no nf_tables, or not all that networks need of it: modprobe nf_tables (CONFIG_NF_TABLES, NFT_NAT, \
             NFT_MASQ, NFT_CT, NFT_FIB_INET, NF_TABLES_BRIDGE)"
        }
        Errno::EPERM => "it needs CAP_NET_ADMIN",
        _ => "",
    };
    Error::new("change the packet filter (nf_tables)", errno).hint(hint)
}

/// Changes that all happen, or none.
pub struct Transaction {
    messages: Messages,
    sets: u32,
}

impl Default for Transaction {
    fn default() -> Self {
        let mut messages = Messages::default();
        messages.begin(BATCH_BEGIN, 0, &header(0, SUBSYSTEM));
        Self { messages, sets: 0 }
    }
}

impl Transaction {
    /// Makes a table unless it is there.
    pub fn table(&mut self, table: Table<'_>) {
        self.begin(NEW_TABLE, CREATE, table);
        self.messages.text(1, table.name);
    }

    /// Removes a table, which must be there, with all that is in it.
    pub fn delete_table(&mut self, table: Table<'_>) {
        self.begin(DELETE_TABLE, 0, table);
        self.messages.text(1, table.name);
    }

    /// Makes a set; with a value's fields a map.
    pub fn set(&mut self, table: Table<'_>, name: &str, key: &[Field], value: &[Field]) {
        self.sets += 1;
        self.begin(NEW_SET, CREATE, table);
        let ((key_kind, key_bytes), (value_kind, value_bytes)) = (shape(key), shape(value));
        self.messages.text(1, table.name);
        self.messages.text(2, name);
        self.messages.big(3, if value.is_empty() { 0 } else { SET_IS_MAP });
        self.messages.big(4, key_kind);
        self.messages.big(5, key_bytes);
        if !value.is_empty() {
            self.messages.big(6, value_kind);
            self.messages.big(7, value_bytes);
        }
        self.messages.big(10, self.sets);
    }

    /// Makes a chain; one without a hook is for [`Part::Jump`].
    pub fn chain(&mut self, table: Table<'_>, name: &str, hook: Option<Hook>) {
        self.begin(NEW_CHAIN, CREATE, table);
        self.messages.text(1, table.name);
        self.messages.text(3, name);
        let Some(hook) = hook else { return };
        self.messages.nest(4, |nested| {
            nested.big(1, hook.at as u32);
            nested.big(2, hook.priority.cast_unsigned());
        });
        self.messages.text(7, if hook.nat { "nat" } else { "filter" });
    }

    /// Adds a rule at a chain's end.
    pub fn rule(&mut self, table: Table<'_>, chain: &str, parts: &[Part<'_>]) {
        self.begin(NEW_RULE, CREATE | APPEND, table);
        self.messages.text(1, table.name);
        self.messages.text(2, chain);
        self.messages.nest(4, |list| parts.iter().for_each(|part| part.write(list)));
    }

    /// Adds elements to a set; what is there already is fine.
    pub fn add(&mut self, table: Table<'_>, set: &str, elements: &[Element<'_>]) {
        self.elements(NEW_ELEMENTS, CREATE, table, set, elements);
    }

    /// Removes elements of a set, which must be there.
    pub fn remove(&mut self, table: Table<'_>, set: &str, elements: &[Element<'_>]) {
        self.elements(DELETE_ELEMENTS, 0, table, set, elements);
    }

    fn begin(&mut self, kind: u16, flags: u16, table: Table<'_>) {
        self.messages.begin(SUBSYSTEM << 8 | kind, flags, &header(table.family.number(), 0));
    }

    fn elements(&mut self, kind: u16, flags: u16, table: Table<'_>, set: &str, elements: &[Element<'_>]) {
        for some in elements.chunks(ELEMENTS_IN_A_MESSAGE) {
            self.begin(kind, flags, table);
            self.messages.text(1, table.name);
            self.messages.text(2, set);
            self.messages.nest(3, |list| some.iter().for_each(|element| element.write(list, kind == NEW_ELEMENTS)));
        }
    }
}

impl Element<'_> {
    fn write(&self, list: &mut Messages, with_value: bool) {
        let bytes = |values: &[Value<'_>]| values.iter().flat_map(Value::bytes).collect::<Vec<_>>();
        list.nest(1, |element| {
            element.nest(1, |key| key.attribute(1, &bytes(&self.key)));
            if with_value && !self.value.is_empty() {
                element.nest(2, |value| value.attribute(1, &bytes(&self.value)));
            }
        });
    }
}

/// How many elements a set has; None if there is no such set.
pub fn count_elements(table: Table<'_>, set: &str) -> Result<Option<usize>, Error> {
    let mut messages = Messages::default();
    messages.begin(SUBSYSTEM << 8 | GET_ELEMENTS, DUMP, &header(table.family.number(), 0));
    messages.text(1, table.name);
    messages.text(2, set);
    let mut count = 0;
    let listed = Socket::open(SockProtocol::NetlinkNetFilter).and_then(|socket| {
        socket.list(&messages, true, |answer| {
            let elements = answer.body.get(4..).and_then(|rest| find(rest, 3)).unwrap_or_default();
            count += super::message::attributes(elements).count();
        })
    });
    match listed {
        Ok(()) => Ok(Some(count)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(Error::new(format!("read the packet filter's set {set}"), errno)),
    }
}

/// The tables and chains of anybody's that drop what is passed on unless a rule of theirs says otherwise: `ip filter FORWARD`.
pub fn closed_forward_chains() -> Result<Vec<String>, Error> {
    let mut messages = Messages::default();
    messages.begin(SUBSYSTEM << 8 | GET_CHAIN, DUMP, &header(0, 0));
    let mut found = Vec::new();
    let listed = Socket::open(SockProtocol::NetlinkNetFilter).and_then(|socket| {
        socket.list(&messages, true, |answer| {
            let Some((fixed, rest)) = answer.body.split_first_chunk::<4>() else { return };
            let big = |value: &[u8]| value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
            let hook = find(rest, 4).and_then(|hook| find(hook, 1)).and_then(big);
            let policy = find(rest, 5).and_then(big);
            let name = |kind| find(rest, kind).map(text).unwrap_or_default();
            if hook == Some(HOOK_FORWARD) && policy == Some(0) {
                found.push(format!("{} {} {}", family_name(fixed[0]), name(1), name(3)));
            }
        })
    });
    listed.map(|()| found).map_err(|errno| Error::new("list the packet filter's chains", errno))
}

fn family_name(number: u8) -> &'static str {
    match number {
        1 => "inet",
        2 => "ip",
        7 => "bridge",
        10 => "ip6",
        _ => "netdev",
    }
}

impl Family {
    const fn number(self) -> u8 {
        match self {
            Family::Inet => 1,
            Family::Bridge => 7,
        }
    }
}

/// nfgenmsg: family, version, and a number in network order.
fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn shape(fields: &[Field]) -> (u32, u32) {
    let kind = fields.iter().fold(0, |kind, field| kind << 6 | field.shape().1);
    match fields {
        [one] => (kind, one.shape().0),
        several => (kind, several.iter().map(|field| field.registers() * 4).sum()),
    }
}

/// The first register of four bytes.
const FIRST: u32 = 8;
/// Where a looked up value goes, behind the longest key.
const VALUE: u32 = FIRST + 10;

impl Part<'_> {
    fn write(&self, list: &mut Messages) {
        match *self {
            Part::Is(load, bytes) => {
                load.write(list, FIRST);
                compare(list, bytes, false);
            }
            Part::Masked(load, mask, bytes) => {
                load.write(list, FIRST);
                and(list, mask);
                compare(list, bytes, false);
            }
            Part::In(loads, set) => look_up(list, loads, set, false, None),
            Part::NotIn(loads, set) => look_up(list, loads, set, true, None),
            Part::Established => connection_has(list, 0, 0x2 | 0x4),
            Part::Translated => connection_has(list, 2, 1 << 5),
            Part::Local => {
                expression(list, "fib", |data| {
                    data.big(1, FIRST);
                    data.big(2, 3);
                    data.big(3, 2);
                });
                compare(list, &2_u32.to_ne_bytes(), false);
            }
            Part::TranslateTo { key, map, v6 } => {
                look_up(list, key, map, false, Some(VALUE));
                expression(list, "nat", |data| {
                    data.big(1, 1);
                    data.big(2, if v6 { 10 } else { 2 });
                    data.big(3, VALUE);
                    data.big(5, VALUE + if v6 { 4 } else { 1 });
                });
            }
            Part::Masquerade => expression(list, "masq", |_| {}),
            Part::Accept => verdict(list, 1, None),
            Part::Drop => verdict(list, 0, None),
            Part::Jump(chain) => verdict(list, -3, Some(chain)),
        }
    }
}

impl Load {
    fn write(self, list: &mut Messages, register: u32) {
        let key = match self {
            Load::InputDevice => 6,
            Load::OutputDevice => 7,
            Load::EtherType => 1,
            Load::IpVersion => 15,
            Load::Protocol => 16,
            Load::Header(layer, offset, length) => {
                return expression(list, "payload", |data| {
                    data.big(1, register);
                    data.big(2, layer as u32);
                    data.big(3, offset);
                    data.big(4, length);
                });
            }
        };
        expression(list, "meta", |data| {
            data.big(1, register);
            data.big(2, key);
        });
    }
}

fn expression(list: &mut Messages, name: &str, data: impl FnOnce(&mut Messages)) {
    list.nest(1, |element| {
        element.text(1, name);
        element.nest(2, data);
    });
}

fn compare(list: &mut Messages, bytes: &[u8], other: bool) {
    expression(list, "cmp", |data| {
        data.big(1, FIRST);
        data.big(2, u32::from(other));
        data.nest(3, |value| value.attribute(1, bytes));
    });
}

fn and(list: &mut Messages, mask: &[u8]) {
    expression(list, "bitwise", |data| {
        data.big(1, FIRST);
        data.big(2, FIRST);
        data.big(3, u32::try_from(mask.len()).unwrap_or_default());
        data.nest(4, |value| value.attribute(1, mask));
        data.nest(5, |value| value.attribute(1, &vec![0; mask.len()]));
    });
}

/// Whether one of these bits is set in what connection tracking has under a key.
fn connection_has(list: &mut Messages, key: u32, bits: u32) {
    expression(list, "ct", |data| {
        data.big(1, FIRST);
        data.big(2, key);
    });
    and(list, &bits.to_ne_bytes());
    compare(list, &[0; 4], true);
}

fn look_up(list: &mut Messages, loads: &[Load], set: &str, inverted: bool, value: Option<u32>) {
    let mut register = FIRST;
    for load in loads {
        load.write(list, register);
        register += load.registers();
    }
    expression(list, "lookup", |data| {
        data.text(1, set);
        data.big(2, FIRST);
        if let Some(register) = value {
            data.big(3, register);
        }
        if inverted {
            data.big(5, 1);
        }
    });
}

fn verdict(list: &mut Messages, code: i32, chain: Option<&str>) {
    expression(list, "immediate", |data| {
        data.big(1, 0);
        data.nest(2, |value| {
            value.nest(2, |verdict| {
                verdict.big(1, code.cast_unsigned());
                if let Some(chain) = chain {
                    verdict.text(2, chain);
                }
            });
        });
    });
}
