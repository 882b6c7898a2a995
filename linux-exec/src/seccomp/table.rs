//! What a filter does with each system call, as a table by number.

use linux_raw_sys::general::__NR_removexattrat;

/// One more than the newest number that a table knows.
const LEN: usize = __NR_removexattrat as usize + 1;

/// What a filter does with a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// EPERM.
    Refuse,
    /// ENOSYS, as of a kernel that is older than the call.
    Unknown,
    /// Goes ahead.
    Allow,
    /// Goes ahead if the argument of this index, of which the kernel reads the low 32 bits, is so; else EPERM.
    AllowIf(u8, Check),
    /// The same of two arguments, the first of which is one of these values.
    AllowIfBoth((u8, &'static [u32]), (u8, Check)),
}

/// What is asked of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// It is one of these.
    OneOf(&'static [u32]),
    /// It is at most that, and none of these.
    UpTo(u32, &'static [u32]),
    /// It has any of these bits.
    AnyBit(u32),
    /// It has none of these bits.
    NoBit(u32),
}

/// A verdict for each system call of this architecture. Those with newer numbers are unknown.
#[derive(Clone)]
pub struct Table([Verdict; LEN]);

impl Table {
    /// Refuses all that it knows.
    #[must_use]
    pub const fn refusing() -> Self {
        Self([Verdict::Refuse; LEN])
    }

    /// With one verdict for these numbers (`__NR_…` of asm/unistd.h).
    ///
    /// # Panics
    /// The table ends before one of them.
    #[must_use]
    pub const fn with(mut self, numbers: &[u32], verdict: Verdict) -> Self {
        let mut index = 0;
        while index < numbers.len() {
            self.0[numbers[index] as usize] = verdict;
            index += 1;
        }
        self
    }

    /// In order of numbers, from 0.
    #[must_use]
    pub const fn verdicts(&self) -> &[Verdict] {
        &self.0
    }
}
