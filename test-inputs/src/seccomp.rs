//! The kernel's part of seccomp: runs a filter's instructions, each as a word of `code | jt << 16 | jf << 24 | k << 32`.

/// What a filter looks at: `struct seccomp_data` of linux/seccomp.h.
#[derive(Debug, Clone, Copy)]
pub struct Data {
    /// Of the system call.
    pub number: u32,
    /// `AUDIT_ARCH_…` of linux/audit.h.
    pub arch: u32,
    /// All of them, with their high halves.
    pub arguments: [u64; 6],
}

impl Data {
    /// The word at a multiple of four.
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    fn word(&self, offset: u32) -> u32 {
        assert_eq!(offset % 4, 0);
        match offset {
            0 => self.number,
            4 => self.arch,
            8 | 12 => 0,
            _ => (self.arguments[offset as usize / 8 - 2] >> (offset % 8 * 8)) as u32,
        }
    }
}

/// The answer, and how many instructions it takes to find.
///
/// # Panics
/// The program has an instruction that no filter here needs, or leads out of itself.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "fields of an instruction")]
pub fn run(program: &[u64], data: &Data) -> (u32, usize) {
    let (mut accumulator, mut at) = (0u32, 0);
    for steps in 1.. {
        let word = program[at];
        let (code, when_true, when_false, operand) =
            (word & 0xffff, word >> 16 & 0xff, word >> 24 & 0xff, (word >> 32) as u32);
        at += 1;
        let holds = match code {
            0x06 => return (operand, steps),
            0x20 => {
                accumulator = data.word(operand);
                continue;
            }
            0x54 => {
                accumulator &= operand;
                continue;
            }
            0x05 => {
                at += operand as usize;
                continue;
            }
            0x15 => accumulator == operand,
            0x25 => accumulator > operand,
            0x35 => accumulator >= operand,
            0x45 => accumulator & operand != 0,
            other => panic!("unexpected instruction {other:#x}"),
        };
        at += if holds { when_true } else { when_false } as usize;
    }
    unreachable!()
}
