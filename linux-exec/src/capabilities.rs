//! Capability names and sets.
//!
//! Source: capabilities(7), `linux/capability.h`.

use rustix::thread;

/// Names without their `CAP_` prefix; the index is the capability's number in `linux/capability.h`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities: bit n stands for capability n of `linux/capability.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapabilitySet(pub u64);

/// The five sets of a process (capabilities(7), "Thread capability sets").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapabilitySets {
    /// What no program that it executes can have more than.
    pub bounding: CapabilitySet,
    /// What it may make effective. The kernel computes it anew at the exec: root gets the bounding and inheritable set, others
    /// the ambient one.
    pub permitted: CapabilitySet,
    /// What counts.
    pub effective: CapabilitySet,
    /// What programs with inheritable capabilities of their own keep.
    pub inheritable: CapabilitySet,
    /// What programs without any keep; part of the permitted and the inheritable set.
    pub ambient: CapabilitySet,
}

impl CapabilitySets {
    /// Bounding, and for root permitted and effective; another user has those empty. Inheritable and ambient are
    /// empty for everybody.
    #[must_use]
    pub fn of_user(set: CapabilitySet, uid: u32) -> Self {
        let held = if uid == 0 { set } else { CapabilitySet::default() };
        Self { bounding: set, permitted: held, effective: held, ..Self::default() }
    }
}

/// A name that is no capability.
#[derive(Debug, thiserror::Error)]
#[error("unknown capability `{0}`: did you mean {nearest}? (capabilities(7) lists them all, `ALL` means every one)", nearest = nearest(.0))]
pub struct UnknownCapability(pub String);

impl CapabilitySet {
    /// Whether a process with these can make itself a device node that opens a device, though all mounts it gets are `nodev`:
    /// by a mount of its own, or by way of a directory that it reaches by its handle.
    #[must_use]
    pub fn reaches_devices(self) -> bool {
        const HANDLES: CapabilitySet = CapabilitySet::of(&["DAC_READ_SEARCH", "MKNOD"]);
        self.can_mount() || self.0 & HANDLES.0 == HANDLES.0
    }

    /// Whether a process with these can mount file systems.
    #[must_use]
    pub fn can_mount(self) -> bool {
        const MOUNTS: CapabilitySet = CapabilitySet::of(&["SYS_ADMIN"]);
        self.0 & MOUNTS.0 != 0
    }

    /// All that this process may have: its bounding set.
    pub fn all() -> Self {
        let held = |bit: &u64| {
            // A kernel that does not know the capability answers EINVAL: then nobody has it.
            thread::capability_is_in_bounding_set(thread::CapabilitySet::from_bits_retain(*bit)).unwrap_or(false)
        };
        Self((0..NAMES.len()).map(|number| 1 << number).filter(held).sum())
    }

    /// This set with some added and some dropped, as Docker and Podman read such lists.
    ///
    /// Names are taken in any case, with or without `CAP_`. `ALL` among the added ones: everything but what is dropped by
    /// name. `ALL` among the dropped ones: only what is added. Otherwise the dropped ones are taken away first, so that
    /// what is both added and dropped is there.
    pub fn adjusted(self, add: &[String], drop: &[String]) -> Result<Self, UnknownCapability> {
        let (add, drop) = (Named::parse(add)?, Named::parse(drop)?);
        Ok(Self(match (add.all, drop.all) {
            (true, _) => Self::all().0 & !drop.bits,
            (false, true) => add.bits,
            (false, false) => (self.0 & !drop.bits) | add.bits,
        }))
    }

    /// The names, `CAP_…`, in order of number.
    pub fn names(self) -> Vec<String> {
        let held = NAMES.iter().enumerate().filter(|(number, _)| self.0 & (1 << number) != 0);
        held.map(|(_, name)| format!("CAP_{name}")).collect()
    }

    /// The set of these names, at compile time: one that does not exist does not compile.
    ///
    /// # Panics
    /// There is no capability of such a name.
    #[must_use]
    pub const fn of(names: &[&str]) -> Self {
        let (mut bits, mut index) = (0, 0);
        while index < names.len() {
            bits |= 1 << number(names[index]);
            index += 1;
        }
        Self(bits)
    }
}

/// The capability's number; panics where there is none, and is for constants only.
const fn number(name: &str) -> usize {
    let mut number = 0;
    while !same(NAMES[number].as_bytes(), name.as_bytes()) {
        number += 1;
    }
    number
}

/// `==`, which is not const yet.
const fn same(left: &[u8], right: &[u8]) -> bool {
    let mut index = 0;
    while index < left.len() && index < right.len() && left[index] == right[index] {
        index += 1;
    }
    index == left.len() && index == right.len()
}

/// A list of names as typed: single ones, and whether `ALL` was among them.
struct Named {
    bits: u64,
    all: bool,
}

impl Named {
    fn parse(names: &[String]) -> Result<Self, UnknownCapability> {
        let mut named = Self { bits: 0, all: false };
        for typed in names {
            let name = bare(typed);
            match NAMES.iter().position(|known| *known == name) {
                Some(number) => named.bits |= 1 << number,
                None if name == "ALL" => named.all = true,
                None => return Err(UnknownCapability(typed.clone())),
            }
        }
        Ok(named)
    }
}

/// Upper case, without the prefix and surrounding blanks.
fn bare(typed: &str) -> String {
    let upper = typed.trim().to_ascii_uppercase();
    upper.strip_prefix("CAP_").map_or(upper.clone(), str::to_owned)
}

/// The capability whose name takes the fewest edits.
fn nearest(typed: &str) -> String {
    let typed = bare(typed);
    let name = NAMES.iter().min_by_key(|name| edits(&typed, name)).copied().unwrap_or_default();
    format!("CAP_{name}")
}

/// Levenshtein's distance, in bytes: how many of them to insert, delete or replace.
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, left) in from.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, right) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str) -> Vec<String> {
        list.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn names_are_in_order_of_numbers() {
        assert_eq!(CapabilitySet(1 << 21 | 1).names(), ["CAP_CHOWN", "CAP_SYS_ADMIN"]);
    }

    #[test]
    fn numbers_are_the_kernels() {
        use linux_raw_sys::general as kernel;
        for (name, number) in [
            ("CHOWN", kernel::CAP_CHOWN),
            ("NET_ADMIN", kernel::CAP_NET_ADMIN),
            ("SYS_ADMIN", kernel::CAP_SYS_ADMIN),
            ("SETFCAP", kernel::CAP_SETFCAP),
            ("SYSLOG", kernel::CAP_SYSLOG),
            ("CHECKPOINT_RESTORE", kernel::CAP_CHECKPOINT_RESTORE),
        ] {
            assert_eq!(CapabilitySet::of(&[name]).0, 1 << number, "{name}");
        }
        assert_eq!(NAMES.len() - 1, kernel::CAP_LAST_CAP as usize);
    }

    #[test]
    fn sets_are_adjusted_by_names() {
        let base = CapabilitySet::of(&["CHOWN", "KILL", "MKNOD"]);
        let all = CapabilitySet::all();
        let one = |name| CapabilitySet::of(&[name]).0;
        for (add, drop, expected) in [
            ("", "", base.0),
            ("sys_time", "", base.0 | one("SYS_TIME")),
            ("CAP_SYS_TIME cap_bpf", "MKNOD", (base.0 | one("SYS_TIME") | one("BPF")) & !one("MKNOD")),
            ("mknod", "MKNOD", base.0),
            ("", "mknod", base.0 & !one("MKNOD")),
            ("", "ALL", 0),
            ("chown", "all", one("CHOWN")),
            ("ALL", "", all.0),
            ("ALL", "CHOWN", all.0 & !one("CHOWN")),
            ("ALL", "ALL", all.0),
            ("CAP_ALL", "", all.0),
        ] {
            assert_eq!(base.adjusted(&names(add), &names(drop)).unwrap().0, expected, "add {add}, drop {drop}");
        }
    }

    #[test]
    fn all_is_what_the_kernel_says() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap().trim();
        let known = (1 << NAMES.len()) - 1;
        assert_eq!(CapabilitySet::all().0, u64::from_str_radix(bounding, 16).unwrap() & known);
    }

    #[test]
    fn unknown_names_are_refused_with_the_nearest() {
        for (typed, nearest) in [
            ("NET_ADMN", "CAP_NET_ADMIN"),
            ("cap_sysadmin", "CAP_SYS_ADMIN"),
            ("", "CAP_"),
            ("ptrace", "CAP_SYS_PTRACE"),
        ] {
            let error = CapabilitySet(0).adjusted(&[typed.to_owned()], &[]).unwrap_err().to_string();
            assert!(error.contains(&format!("`{typed}`")) && error.contains(nearest), "{error}");
        }
    }
}
