//! Which devices the processes of a cgroup may open or make nodes of: those that every container has, and terminals.
//!
//! Containers need no such rule as long as every mount they see is `nodev` and they can make no other; one that may mount, or
//! that may reach directories by handle, can make itself a node that works.
//!
//! Source: the kernel's Documentation/admin-guide/cgroup-v1/devices.rst, and BPF_PROG_TYPE_CGROUP_DEVICE of linux/bpf.h.

use super::{CgroupError, files};
use rustix::fs::FlockOperation;
use std::{fs::File, path::Path};

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
    if list.starts_with(NO_RULES) { set_rules(parent) } else { Ok(()) }
}

fn set_rules(path: &Path) -> Result<(), CgroupError> {
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

const EXIT: u64 = instruction(0x95, 0, 0, 0, 0);

/// The same rules for v2. The context is `struct bpf_cgroup_dev_ctx`: the access in the upper half of the first word (1: make a
/// node, 2: read, 4: write), the type in the lower (1: block, 2: character), then major and minor number.
pub(super) const PROGRAM: [u64; 23] = [
    load(2, 0),
    instruction(0xbf, 3, 2, 0, 0),
    instruction(0x77, 3, 0, 0, 16),
    instruction(0x57, 2, 0, 0, 0xffff),
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
