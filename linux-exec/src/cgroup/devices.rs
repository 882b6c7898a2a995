//! Which devices the processes of a cgroup may open or make nodes of: those that every container has, and terminals.
//!
//! Containers need no such rule as long as every mount they see is `nodev` and they can make no other; one that may mount, or
//! that may reach directories by handle, can make itself a node that works.
//!
//! Source: the kernel's Documentation/admin-guide/cgroup-v1/devices.rst, and BPF_PROG_TYPE_CGROUP_DEVICE of linux/bpf.h.

use super::{CgroupError, files};
use rustix::fs::FlockOperation;
use std::{fmt, fs::File, path::Path};

/// Allows or refuses the use of devices. Of each kind of use the last rule decides that speaks of the device; what none speaks of is
/// refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    /// Or refuses.
    pub allow: bool,
    /// None: both.
    pub kind: Option<DeviceKind>,
    /// None: all.
    pub major: Option<u32>,
    /// None: all.
    pub minor: Option<u32>,
    /// Which uses.
    pub access: Access,
}

/// How a device is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// In blocks.
    Block,
    /// By characters.
    Character,
}

/// Uses of a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Access {
    /// Opened for reading.
    pub read: bool,
    /// Opened for writing.
    pub write: bool,
    /// Made by mknod(2).
    pub make: bool,
}

impl Access {
    /// BPF_DEVCG_ACC_* of linux/bpf.h.
    fn bits(self) -> i32 {
        i32::from(self.make) | i32::from(self.read) << 1 | i32::from(self.write) << 2
    }
}

impl Access {
    fn without(self, other: Self) -> Self {
        Self { read: self.read && !other.read, write: self.write && !other.write, make: self.make && !other.make }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [(self.read, 'r'), (self.write, 'w'), (self.make, 'm')];
        letters.iter().filter(|(set, _)| *set).try_for_each(|(_, letter)| write!(f, "{letter}"))
    }
}

impl DeviceRule {
    /// What every container may use: the devices at its /dev and terminals, and making nodes of any.
    #[must_use]
    pub fn usual() -> Vec<Self> {
        let make = Access { make: true, ..Access::default() };
        let all = Access { read: true, write: true, make: true };
        let rule = |major, minor| Self {
            allow: true,
            kind: Some(DeviceKind::Character),
            major: Some(major),
            minor,
            access: all,
        };
        let nodes = Self { allow: true, kind: None, major: None, minor: None, access: make };
        let memory = [3, 5, 7, 8, 9].map(|minor| rule(1, Some(minor)));
        let terminals = [rule(5, Some(0)), rule(5, Some(1)), rule(5, Some(2)), rule(136, None)];
        [nodes].into_iter().chain(memory).chain(terminals).collect()
    }

    /// Whether there is a device of which both speak, and a use.
    fn overlaps(&self, other: &Self) -> bool {
        fn meet<T: Copy + PartialEq>(one: Option<T>, other: Option<T>) -> bool {
            one.is_none() || other.is_none() || one == other
        }
        let uses = self.access.bits() & other.access.bits();
        uses != 0 && meet(self.kind, other.kind) && meet(self.major, other.major) && meet(self.minor, other.minor)
    }

    /// Whether it speaks of all devices of which another one speaks.
    fn covers(&self, other: &Self) -> bool {
        let within = |one: Option<u32>, other: Option<u32>| one.is_none() || one == other;
        (self.kind.is_none() || self.kind == other.kind)
            && within(self.major, other.major)
            && within(self.minor, other.minor)
    }

    /// As v1 reads it; both kinds are two lines.
    fn lines(&self) -> impl Iterator<Item = String> {
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        let kinds: &[char] = match self.kind {
            None => &['b', 'c'],
            Some(DeviceKind::Block) => &['b'],
            Some(DeviceKind::Character) => &['c'],
        };
        kinds.iter().map(move |kind| format!("{kind} {}:{} {}", number(self.major), number(self.minor), self.access))
    }
}

/// For v1, in the order in which they are written: nodes may be made of anything, but opened only of these.
const ALLOWED: [&str; 10] = [
    "b *:* m",
    "c *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// What the list of a v1 group begins with that has no rules.
const NO_RULES: &str = "a *:* rwm";

/// Sets the rules of the v1 group that all restricted groups lie in; they have no rules of their own. A group that may mount
/// cgroup file systems sees its own one, and could change what is written there, but never to more than its parent has.
pub(super) fn restrict_v1(parent: &Path) -> Result<(), CgroupError> {
    // Whoever is not the first waits until all rules are there.
    let lock = File::open(parent).map_err(CgroupError::file("open", parent))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)
        .map_err(|errno| CgroupError::file("lock", parent)(errno.into()))?;
    let list = files::read(&parent.join("devices.list"))?;
    if list.starts_with(NO_RULES) { set_default_v1(parent) } else { Ok(()) }
}

/// Sets a list of rules on a v1 group that is empty.
pub(super) fn set_v1(path: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    let allowed = exceptions(rules)?;
    files::write(&path.join("devices.deny"), "a")?;
    let allow = path.join("devices.allow");
    allowed.iter().flat_map(DeviceRule::lines).try_for_each(|line| files::write(&allow, &line))
}

/// What is allowed in the end: v1 knows no refusal of a part of what it allows.
fn exceptions(rules: &[DeviceRule]) -> Result<Vec<DeviceRule>, CgroupError> {
    let mut allowed: Vec<DeviceRule> = Vec::new();
    for rule in rules {
        if rule.allow {
            allowed.push(*rule);
            continue;
        }
        for wider in allowed.iter_mut().filter(|other| other.overlaps(rule)) {
            if !rule.covers(wider) {
                let (refused, allowed) = (rule.lines().collect::<Vec<_>>(), wider.lines().collect::<Vec<_>>());
                return Err(CgroupError::Unenforceable(format!(
                    "the list of devices cannot be enforced: cgroup v1 cannot refuse `{}` out of `{}`, which is allowed; allow single \
                     devices instead",
                    refused.join(", "),
                    allowed.join(", ")
                )));
            }
            wider.access = wider.access.without(rule.access);
        }
    }
    allowed.retain(|rule| rule.access != Access::default());
    Ok(allowed)
}

/// Sets our own list on a v1 group that is empty.
pub(super) fn set_default_v1(path: &Path) -> Result<(), CgroupError> {
    files::write(&path.join("devices.deny"), "a")?;
    let allow = path.join("devices.allow");
    ALLOWED.iter().try_for_each(|rule| files::write(&allow, rule))?;
    files::write(&allow, "c 5:1 rwm")
}

/// A register of the BPF machine.
type Register = u8;

/// One instruction (linux/bpf.h, `struct bpf_insn`) as a word in memory order on a little-endian machine.
const fn instruction(code: u8, to: Register, from: Register, jump: i16, value: i32) -> u64 {
    code as u64
        | ((from << 4 | to) as u64) << 8
        | (jump.cast_unsigned() as u64) << 16
        | (value.cast_unsigned() as u64) << 32
}

/// Loads 32 bits of the context, which begins at register 1.
const fn load(to: Register, offset: i16) -> u64 {
    instruction(0x61, to, 1, offset, 0)
}

const fn set(to: Register, value: i32) -> u64 {
    instruction(0xb7, to, 0, 0, value)
}

const fn if_equal(register: Register, value: i32, jump: i16) -> u64 {
    instruction(0x15, register, 0, jump, value)
}

const fn if_not_equal(register: Register, value: i32, jump: i16) -> u64 {
    instruction(0x55, register, 0, jump, value)
}

const fn if_at_most(register: Register, value: i32, jump: i16) -> u64 {
    instruction(0xb5, register, 0, jump, value)
}

const fn if_any_bit(register: Register, bits: i32, jump: i16) -> u64 {
    instruction(0x45, register, 0, jump, bits)
}

const fn and(register: Register, bits: i32) -> u64 {
    instruction(0x57, register, 0, 0, bits)
}

const EXIT: u64 = instruction(0x95, 0, 0, 0, 0);

/// The same rules for v2. The context is `struct bpf_cgroup_dev_ctx`: the access in the upper half of the first word (1: make a
/// node, 2: read, 4: write), the type in the lower (1: block, 2: character), then major and minor number.
pub(super) const PROGRAM: [u64; 23] = [
    load(2, 0),
    instruction(0xbf, 3, 2, 0, 0),
    instruction(0x77, 3, 0, 0, 16),
    and(2, 0xffff),
    load(4, 4),
    load(5, 8),
    if_equal(3, 1, 14),
    if_not_equal(2, 2, 8),
    if_equal(4, 136, 12),
    if_equal(4, 5, 8),
    if_not_equal(4, 1, 5),
    if_equal(5, 3, 9),
    if_equal(5, 5, 8),
    if_equal(5, 7, 7),
    if_equal(5, 8, 6),
    if_equal(5, 9, 5),
    // Refused.
    set(0, 0),
    EXIT,
    // Terminals: tty, console, ptmx.
    if_at_most(5, 2, 2),
    set(0, 0),
    EXIT,
    // Allowed.
    set(0, 1),
    EXIT,
];

/// The program for any list of rules: from the last to the first, each takes the uses that it allows from those asked for, until none is
/// left, or refuses one of them.
pub(super) fn compile(rules: &[DeviceRule]) -> Vec<u64> {
    let mut program = PROGRAM[..6].to_vec();
    for rule in rules.iter().rev() {
        append(&mut program, rule);
    }
    program.extend([set(0, 0), EXIT]);
    program
}

fn append(program: &mut Vec<u64>, rule: &DeviceRule) {
    let number = |number: Option<u32>| number.map(|number| i32::try_from(number).unwrap_or(-1));
    let kind = rule.kind.map(|kind| match kind {
        DeviceKind::Block => 1,
        DeviceKind::Character => 2,
    });
    let checks = [(2, kind), (4, number(rule.major)), (5, number(rule.minor))];
    let checks: Vec<_> = checks.into_iter().filter_map(|(register, value)| Some((register, value?))).collect();
    let bits = rule.access.bits();
    let judgement = match rule.allow {
        true => [and(3, 7 & !bits), if_not_equal(3, 0, 2), set(0, 1), EXIT],
        false => [if_any_bit(3, bits, 1), instruction(0x05, 0, 0, 2, 0), set(0, 0), EXIT],
    };
    let mut skipped = i16::try_from(checks.len() + judgement.len()).unwrap_or_default();
    for (register, value) in checks {
        skipped -= 1;
        program.push(if_not_equal(register, value, skipped));
    }
    program.extend(judgement);
}

#[cfg(test)]
mod tests;
