//! From a table of actions to BPF: a binary search over the ranges of numbers that share an action.
//!
//! A call costs the architecture's check and about seven comparisons; the kernel remembers the numbers that are allowed
//! whatever their arguments and does not run the filter for them at all (since Linux 5.11).

use super::{
    profile::Architecture,
    table::{Action, FAST_OPEN, NAMESPACES, NEWEST_FAMILY, PERSONALITIES, PLAIN_REQUESTS, REFUSED_FAMILIES, TABLE_LEN},
};
use linux_raw_sys::{
    errno,
    general::CLONE_THREAD,
    ptrace::{BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_LD, BPF_RET},
};

/// More than the profile takes with any set of capabilities (a test tries all of them).
const CAPACITY: usize = 320;

/// The codes of the instructions used, all on 32-bit words and constants (BPF_W and BPF_K are zero).
pub(super) const LOAD: u32 = BPF_LD | BPF_ABS;
pub(super) const IF_EQUAL: u32 = BPF_JMP | BPF_JEQ;
pub(super) const IF_AT_LEAST: u32 = BPF_JMP | BPF_JGE;
pub(super) const IF_ANY_BIT: u32 = BPF_JMP | BPF_JSET;
pub(super) const RETURN: u32 = BPF_RET;

const AUDIT_ARCH: u32 = Architecture::NATIVE.audit();

/// Where things lie in `struct seccomp_data`; `linux/seccomp.h`.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;
pub(super) const ARGUMENTS: u32 = 16;
/// The low half of an argument: the kernel looks at no more of the ones that are judged here, so neither does the
/// filter, or a bit set above would let a value pass that the kernel then reads as another.
const FIRST_ARGUMENT: u32 = ARGUMENTS;
const SECOND_ARGUMENT: u32 = ARGUMENTS + 8;
const FOURTH_ARGUMENT: u32 = ARGUMENTS + 24;

/// `linux/seccomp.h`.
const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
pub(super) const ENOSYS: u32 = ERRNO | errno::ENOSYS;
const REFUSE: u32 = ERRNO | errno::EPERM;
const ALLOW: u32 = 0x7fff_0000;

/// A filter of at most [`CAPACITY`] instructions.
pub(super) struct Program {
    words: [u64; CAPACITY],
    len: usize,
}

/// The first number of each range; a range ends where the next one starts.
struct Ranges {
    starts: [u32; CAPACITY],
    actions: [Action; CAPACITY],
    len: usize,
}

impl Program {
    /// The instructions.
    pub(super) fn words(&self) -> &[u64] {
        &self.words[..self.len]
    }

    /// Puts the filter together; what is above the table is answered with ENOSYS.
    pub(super) const fn compile(table: &[Action; TABLE_LEN]) -> Self {
        let ranges = Ranges::of(table);
        let mut program = Self { words: [0; CAPACITY], len: 0 };
        program.push(LOAD, 0, 0, ARCHITECTURE);
        program.push(IF_EQUAL, 1, 0, AUDIT_ARCH);
        program.push(RETURN, 0, 0, KILL_PROCESS);
        program.push(LOAD, 0, 0, NUMBER);
        program.search(&ranges, 0, ranges.len);
        program
    }

    /// Finds the range among `from..to`.
    const fn search(&mut self, ranges: &Ranges, from: usize, to: usize) {
        if to - from == 1 {
            return self.act(ranges.actions[from]);
        }
        let middle = from + (to - from) / 2;
        let branch = self.push(IF_AT_LEAST, 0, 0, ranges.starts[middle]);
        self.search(ranges, from, middle);
        let skipped = self.len - branch - 1;
        assert!(skipped < 256, "a conditional jump reaches 255 instructions");
        self.words[branch] |= (skipped as u64) << 16;
        self.search(ranges, middle, to);
    }

    const fn act(&mut self, action: Action) {
        match action {
            Action::Refuse => self.answer(REFUSE),
            Action::Unknown => self.answer(ENOSYS),
            Action::Allow => self.answer(ALLOW),
            Action::AllowFamilies => self.judge_family(),
            Action::AllowPersonalities => self.judge(FIRST_ARGUMENT, IF_EQUAL, &PERSONALITIES, [ALLOW, REFUSE]),
            Action::AllowThread => self.judge(FIRST_ARGUMENT, IF_ANY_BIT, &[CLONE_THREAD], [ALLOW, REFUSE]),
            Action::AllowWithoutNamespaces => self.judge(FIRST_ARGUMENT, IF_ANY_BIT, &[NAMESPACES], [REFUSE, ALLOW]),
            Action::AllowPlainSend => self.judge(FOURTH_ARGUMENT, IF_ANY_BIT, &[FAST_OPEN], [REFUSE, ALLOW]),
            Action::AllowPlainRequests => self.judge(SECOND_ARGUMENT, IF_EQUAL, &PLAIN_REQUESTS, [ALLOW, REFUSE]),
        }
    }

    /// The first argument of `socket`.
    const fn judge_family(&mut self) {
        self.push(LOAD, 0, 0, FIRST_ARGUMENT);
        // Past the comparisons and the answer that allows.
        self.push(IF_AT_LEAST, REFUSED_FAMILIES.len() + 1, 0, NEWEST_FAMILY + 1);
        self.compare(IF_EQUAL, &REFUSED_FAMILIES, [REFUSE, ALLOW]);
    }

    /// Compares an argument with each value: one answer when one of them holds, another when none does.
    const fn judge(&mut self, argument: u32, condition: u32, values: &[u32], answers: [u32; 2]) {
        self.push(LOAD, 0, 0, argument);
        self.compare(condition, values, answers);
    }

    const fn compare(&mut self, condition: u32, values: &[u32], [held, otherwise]: [u32; 2]) {
        let mut index = 0;
        while index < values.len() {
            let to_held = values.len() - index;
            self.push(condition, to_held, 0, values[index]);
            index += 1;
        }
        self.answer(otherwise);
        self.answer(held);
    }

    const fn answer(&mut self, answer: u32) {
        self.push(RETURN, 0, 0, answer);
    }

    /// Appends an instruction and returns its index; jumps count from the one after it.
    const fn push(&mut self, code: u32, when_true: usize, when_false: usize, operand: u32) -> usize {
        let index = self.len;
        self.words[index] = code as u64 | (when_true as u64) << 16 | (when_false as u64) << 24 | (operand as u64) << 32;
        self.len += 1;
        index
    }
}

impl Ranges {
    #[expect(clippy::cast_possible_truncation, reason = "an index into a table of some hundred entries")]
    const fn of(table: &[Action; TABLE_LEN]) -> Self {
        let mut ranges = Self { starts: [0; CAPACITY], actions: [Action::Unknown; CAPACITY], len: 0 };
        let mut number = 0;
        while number < TABLE_LEN {
            if number == 0 || table[number] as u8 != table[number - 1] as u8 {
                ranges.push(number as u32, table[number]);
            }
            number += 1;
        }
        ranges.push(TABLE_LEN as u32, Action::Unknown);
        ranges
    }

    const fn push(&mut self, start: u32, action: Action) {
        self.starts[self.len] = start;
        self.actions[self.len] = action;
        self.len += 1;
    }
}
