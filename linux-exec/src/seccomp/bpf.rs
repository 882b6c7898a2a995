//! From a table to BPF: a binary search over the ranges of numbers that share a verdict.
//!
//! A call costs the architecture's check and about seven comparisons; the kernel remembers the numbers that are allowed
//! whatever their arguments and does not run the filter for them at all (since Linux 5.11).

use super::{
    Filter, StandsFor,
    profile::Architecture,
    table::{Check, Table, Verdict},
};
use linux_raw_sys::{
    errno,
    ptrace::{BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_LD, BPF_RET},
};
use std::borrow::Cow;

/// More than Docker's table takes with any set of capabilities.
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

/// `linux/seccomp.h`.
const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
pub(super) const ENOSYS: u32 = ERRNO | errno::ENOSYS;
const REFUSE: u32 = ERRNO | errno::EPERM;
const ALLOW: u32 = 0x7fff_0000;

/// The filter that a [`Table`] describes, put together at compile time where it is a constant.
///
/// It ends the process for calls in another architecture's convention: an errno there would leave a 32-bit program looping in its
/// own `exit`. Numbers above the table's are answered with ENOSYS, so that a C library that looks for a newer call falls back to
/// an older one.
pub struct Compiled {
    words: [u64; CAPACITY],
    len: usize,
}

/// The first number of each range; a range ends where the next one starts.
struct Ranges {
    starts: [u32; CAPACITY],
    verdicts: [Verdict; CAPACITY],
    len: usize,
}

impl Compiled {
    /// Puts the filter together.
    ///
    /// # Panics
    /// It takes more than 320 instructions.
    #[must_use]
    pub const fn new(table: &Table) -> Self {
        let ranges = Ranges::of(table);
        let mut program = Self { words: [0; CAPACITY], len: 0 };
        program.push(LOAD, 0, 0, ARCHITECTURE);
        program.push(IF_EQUAL, 1, 0, AUDIT_ARCH);
        program.push(RETURN, 0, 0, KILL_PROCESS);
        program.push(LOAD, 0, 0, NUMBER);
        program.search(&ranges, 0, ranges.len);
        program
    }

    /// The filter, which lies where this does.
    #[must_use]
    pub fn filter(&'static self) -> Filter {
        self.standing_for(StandsFor::default())
    }

    /// A filter with instructions of its own.
    #[must_use]
    pub fn to_filter(&self) -> Filter {
        Filter { program: Cow::Owned(self.words().to_vec()), flags: 0, stands_for: StandsFor::default() }
    }

    pub(super) fn standing_for(&'static self, stands_for: StandsFor) -> Filter {
        Filter { program: Cow::Borrowed(self.words()), flags: 0, stands_for }
    }

    fn words(&self) -> &[u64] {
        &self.words[..self.len]
    }

    /// Finds the range among `from..to`.
    const fn search(&mut self, ranges: &Ranges, from: usize, to: usize) {
        if to - from == 1 {
            return self.act(ranges.verdicts[from]);
        }
        let middle = from + (to - from) / 2;
        let branch = self.push(IF_AT_LEAST, 0, 0, ranges.starts[middle]);
        self.search(ranges, from, middle);
        let skipped = self.len - branch - 1;
        assert!(skipped < 256, "a conditional jump reaches 255 instructions");
        self.words[branch] |= (skipped as u64) << 16;
        self.search(ranges, middle, to);
    }

    const fn act(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Refuse => self.answer(REFUSE),
            Verdict::Unknown => self.answer(ENOSYS),
            Verdict::Allow => self.answer(ALLOW),
            Verdict::AllowIf(argument, check) => self.judge(argument, check),
            Verdict::AllowIfBoth((argument, values), (other, check)) => {
                self.demand(argument, values);
                self.judge(other, check);
            }
        }
    }

    /// Looks at the low half of an argument: the kernel looks at no more of those that are judged here, and a bit above would let a
    /// value pass that the kernel then reads as another.
    const fn judge(&mut self, argument: u8, check: Check) {
        self.load(argument);
        match check {
            Check::OneOf(values) => self.compare(IF_EQUAL, values, [ALLOW, REFUSE]),
            Check::UpTo(last, refused) => {
                // Past the comparisons and the answer that allows.
                self.push(IF_AT_LEAST, refused.len() + 1, 0, last + 1);
                self.compare(IF_EQUAL, refused, [REFUSE, ALLOW]);
            }
            Check::AnyBit(bits) => self.compare(IF_ANY_BIT, &[bits], [ALLOW, REFUSE]),
            Check::NoBit(bits) => self.compare(IF_ANY_BIT, &[bits], [REFUSE, ALLOW]),
        }
    }

    /// Refuses unless an argument has one of these values.
    const fn demand(&mut self, argument: u8, values: &[u32]) {
        self.load(argument);
        self.jump(IF_EQUAL, values);
        self.answer(REFUSE);
    }

    const fn load(&mut self, argument: u8) {
        assert!(argument < 6, "a system call has six arguments");
        self.push(LOAD, 0, 0, ARGUMENTS + 8 * argument as u32);
    }

    /// Compares with each value: one answer when one of them holds, another when none does.
    const fn compare(&mut self, condition: u32, values: &[u32], [held, otherwise]: [u32; 2]) {
        self.jump(condition, values);
        self.answer(otherwise);
        self.answer(held);
    }

    /// Past the next instruction if one of them holds.
    const fn jump(&mut self, condition: u32, values: &[u32]) {
        let mut index = 0;
        while index < values.len() {
            self.push(condition, values.len() - index, 0, values[index]);
            index += 1;
        }
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
    const fn of(table: &Table) -> Self {
        let table = table.verdicts();
        let mut ranges = Self { starts: [0; CAPACITY], verdicts: [Verdict::Unknown; CAPACITY], len: 0 };
        let mut number = 0;
        while number < table.len() {
            if number == 0 || !are_same(table[number], table[number - 1]) {
                ranges.push(number as u32, table[number]);
            }
            number += 1;
        }
        ranges.push(table.len() as u32, Verdict::Unknown);
        ranges
    }

    const fn push(&mut self, start: u32, verdict: Verdict) {
        self.starts[self.len] = start;
        self.verdicts[self.len] = verdict;
        self.len += 1;
    }
}

/// Whether two neighbours can share a range. Comparisons of arguments are few, and get one each.
const fn are_same(left: Verdict, right: Verdict) -> bool {
    matches!(
        (left, right),
        (Verdict::Refuse, Verdict::Refuse) | (Verdict::Unknown, Verdict::Unknown) | (Verdict::Allow, Verdict::Allow)
    )
}
