//! From a profile to BPF, for profiles that are known only at run time.
//!
//! Instructions are put together from the last one to the first: a conditional jump reaches at most 255 instructions ahead, and
//! this way each knows how far its targets are. One that is too far gets an unconditional jump in between, which reaches any.

use super::{
    Filter, StandsFor,
    bpf::{ARCHITECTURE, ARGUMENTS, ENOSYS, IF_ANY_BIT, IF_AT_LEAST, IF_EQUAL, LOAD, NUMBER, RETURN},
    profile::{Action, Architecture, Call, Comparison, Condition, Profile, ProfileError, Rule},
};
use linux_raw_sys::ptrace::{BPF_ALU, BPF_AND, BPF_JA, BPF_JGT, BPF_JMP};
use std::{borrow::Cow, collections::BTreeMap};

const JUMP: u32 = BPF_JMP | BPF_JA;
const IF_MORE: u32 = BPF_JMP | BPF_JGT;
const AND: u32 = BPF_ALU | BPF_AND;

/// What the kernel takes (BPF_MAXINSNS of linux/bpf_common.h).
const MOST_INSTRUCTIONS: usize = 4096;

/// How far a conditional jump reaches, less the two jumps in between that may come before it.
const REACH: usize = 253;

/// Set in the numbers of x32 calls (__X32_SYSCALL_BIT of asm/unistd.h).
const X32_BIT: u32 = 0x4000_0000;

/// A number that no call has: a tracer's, to skip one.
const SKIPPED: u32 = u32::MAX;

/// What a filter returns for an action; linux/seccomp.h.
fn answer(action: Action) -> u32 {
    match action {
        Action::Allow => 0x7fff_0000,
        Action::Log => 0x7ffc_0000,
        Action::Errno(errno) => 0x0005_0000 | u32::from(errno),
        Action::Trace(message) => 0x7ff0_0000 | u32::from(message),
        Action::Trap => 0x0003_0000,
        Action::KillThread => 0,
        Action::KillProcess => 0x8000_0000,
    }
}

/// Conditions that must all hold, and the answer if they do.
type Clause = (Vec<Condition>, u32);

/// What is done for one number: the first clause that holds, else the last answer.
#[derive(Debug, Clone, PartialEq)]
struct Judgement {
    clauses: Vec<Clause>,
    otherwise: u32,
}

/// Where an instruction lies, counted from the end.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Label(usize);

/// Instructions in reverse.
#[derive(Default)]
struct Assembler {
    words: Vec<u64>,
}

pub(super) fn compile(profile: &Profile, native: Architecture) -> Result<Filter, ProfileError> {
    let mut listed: Vec<Architecture> = vec![native];
    listed.extend(profile.architectures.iter().filter(|architecture| architecture.runs_on(native)));
    let foreign = answer(Action::KillThread);

    let mut assembler = Assembler::default();
    let mut next = assembler.answer(foreign);
    for architecture in [native, Architecture::X86, Architecture::Arm] {
        if listed.contains(&architecture) {
            let x32 = listed.contains(&Architecture::X32);
            let ranges = ranges(profile, architecture, native, if x32 { None } else { Some(foreign) });
            let search = assembler.search(&ranges);
            let found = assembler.load(NUMBER, search);
            next = assembler.branch(IF_EQUAL, architecture.audit(), found, next);
        }
    }
    assembler.load(ARCHITECTURE, next);

    let mut words = assembler.words;
    if words.len() > MOST_INSTRUCTIONS {
        return Err(ProfileError::TooLong(words.len()));
    }
    words.reverse();
    Ok(Filter { program: Cow::Owned(words), flags: profile.flags.0, stands_for: StandsFor::default() })
}

/// What is done from each number on, up to the next one listed. `x32` is the answer to all x32 calls; None: the rules say.
fn ranges(profile: &Profile, of: Architecture, native: Architecture, x32: Option<u32>) -> Vec<(u32, Judgement)> {
    let default = Judgement { clauses: Vec::new(), otherwise: answer(profile.default) };
    let unknown = Judgement { otherwise: ENOSYS, ..default.clone() };
    let after = if profile.newer_are_unknown { &unknown } else { &default };
    let mut ranges = Vec::new();
    push_rules(&mut ranges, profile, of, native, 0, after);
    if of == Architecture::X86_64 {
        match x32 {
            Some(otherwise) => push(&mut ranges, X32_BIT, &Judgement { otherwise, ..default.clone() }),
            None => push_rules(&mut ranges, profile, Architecture::X32, native, X32_BIT, after),
        }
    }
    push(&mut ranges, SKIPPED, &default);
    ranges
}

fn push_rules(
    ranges: &mut Vec<(u32, Judgement)>,
    profile: &Profile,
    of: Architecture,
    native: Architecture,
    bit: u32,
    after: &Judgement,
) {
    let default = Judgement { clauses: Vec::new(), otherwise: answer(profile.default) };
    push(ranges, bit, &default);
    let rules = rules_by_number(profile, of, native);
    // A profile that names no call does not tell how new it is.
    let after = if rules.is_empty() { &default } else { after };
    let mut end = bit;
    for (number, rules) in rules {
        // A number of the native architecture may lie where x32's are, or at the end.
        if number >= X32_BIT {
            continue;
        }
        push(ranges, bit | number, &judgement(profile.default, &rules));
        end = (bit | number) + 1;
        push(ranges, end, &default);
    }
    push(ranges, end, after);
}

/// Whether no arguments at all let this call of the native architecture go ahead.
pub(super) fn never_goes_ahead(profile: &Profile, name: &str, native: Architecture) -> bool {
    let goes_ahead = |found: u32| [Action::Allow, Action::Log].map(answer).contains(&found);
    let number = Call::Name(name.to_owned()).number(native, native);
    let mut rules = rules_by_number(profile, native, native);
    let judgement = judgement(profile.default, &number.and_then(|number| rules.remove(&number)).unwrap_or_default());
    !goes_ahead(judgement.otherwise) && !judgement.clauses.iter().any(|(_, found)| goes_ahead(*found))
}

/// Later ones at the same number take the place of earlier ones.
fn push(ranges: &mut Vec<(u32, Judgement)>, start: u32, judgement: &Judgement) {
    ranges.pop_if(|last| last.0 == start);
    if ranges.last().is_none_or(|last| last.1 != *judgement) {
        ranges.push((start, judgement.clone()));
    }
}

/// Those of the default action are among them, as they tell how new the profile is.
fn rules_by_number(profile: &Profile, of: Architecture, native: Architecture) -> BTreeMap<u32, Vec<&Rule>> {
    let mut all: BTreeMap<u32, Vec<&Rule>> = BTreeMap::new();
    for rule in &profile.rules {
        for number in rule.calls.iter().filter_map(|call| call.number(of, native)) {
            all.entry(number).or_default().push(rule);
        }
    }
    all
}

fn judgement(default: Action, rules: &[&Rule]) -> Judgement {
    let mut rules = rules.iter().filter(|rule| rule.action != default);
    if let Some(always) = rules.clone().find(|rule| rule.conditions.is_empty()) {
        return Judgement { clauses: Vec::new(), otherwise: answer(always.action) };
    }
    let mut clauses = Vec::new();
    rules.by_ref().for_each(|rule| clauses.extend(alternatives(rule)));
    Judgement { clauses, otherwise: answer(default) }
}

fn alternatives(rule: &Rule) -> Vec<Clause> {
    let answer = answer(rule.action);
    let twice =
        |condition: &Condition| rule.conditions.iter().filter(|other| other.index == condition.index).count() > 1;
    if rule.conditions.iter().any(twice) {
        return rule.conditions.iter().map(|condition| (vec![*condition], answer)).collect();
    }
    vec![(rule.conditions.clone(), answer)]
}

impl Assembler {
    fn push(&mut self, code: u32, when_true: usize, when_false: usize, operand: u32) -> Label {
        let word = code as u64 | (when_true as u64) << 16 | (when_false as u64) << 24 | u64::from(operand) << 32;
        self.words.push(word);
        Label(self.words.len())
    }

    /// How many instructions lie between the next one and `label`.
    fn distance(&self, label: Label) -> usize {
        self.words.len() - label.0
    }

    fn answer(&mut self, answer: u32) -> Label {
        self.push(RETURN, 0, 0, answer)
    }

    #[expect(clippy::cast_possible_truncation, reason = "a filter that is too long is refused in the end")]
    fn jump(&mut self, to: Label) -> Label {
        let distance = self.distance(to);
        self.push(JUMP, 0, 0, distance as u32)
    }

    /// A place from which a conditional jump that comes next reaches `label`.
    fn near(&mut self, label: Label) -> Label {
        if self.distance(label) > REACH { self.jump(label) } else { label }
    }

    fn branch(&mut self, condition: u32, operand: u32, when_true: Label, when_false: Label) -> Label {
        let (when_true, when_false) = (self.near(when_true), self.near(when_false));
        self.push(condition, self.distance(when_true), self.distance(when_false), operand)
    }

    /// An instruction without a jump, and then what is at `next`.
    fn then(&mut self, code: u32, operand: u32, next: Label) -> Label {
        if self.distance(next) != 0 {
            self.jump(next);
        }
        self.push(code, 0, 0, operand)
    }

    fn load(&mut self, offset: u32, next: Label) -> Label {
        self.then(LOAD, offset, next)
    }

    /// A binary search; what ranges share is there once, as near as it was needed last.
    fn search(&mut self, ranges: &[(u32, Judgement)]) -> Label {
        if let [(_, judgement)] = ranges {
            return self.judge(judgement);
        }
        let (below, above) = ranges.split_at(ranges.len() / 2);
        let above_label = self.search(above);
        let below_label = self.search(below);
        self.branch(IF_AT_LEAST, above[0].0, above_label, below_label)
    }

    fn judge(&mut self, judgement: &Judgement) -> Label {
        let mut next = self.answer(judgement.otherwise);
        for (conditions, answer) in judgement.clauses.iter().rev() {
            let mut held = self.answer(*answer);
            for condition in conditions.iter().rev() {
                held = self.compare(*condition, held, next);
            }
            next = held;
        }
        next
    }

    /// 64 bits in two halves, the upper one first.
    fn compare(&mut self, condition: Condition, held: Label, otherwise: Label) -> Label {
        use Comparison as C;
        match condition.comparison {
            C::Equal => self.equal(condition, u64::MAX, held, otherwise),
            C::NotEqual => self.equal(condition, u64::MAX, otherwise, held),
            C::MaskedEqual(mask) => self.equal(condition, mask, held, otherwise),
            C::GreaterOrEqual => self.above(condition, IF_AT_LEAST, held, otherwise),
            C::Greater => self.above(condition, IF_MORE, held, otherwise),
            C::Less => self.above(condition, IF_AT_LEAST, otherwise, held),
            C::LessOrEqual => self.above(condition, IF_MORE, otherwise, held),
        }
    }

    fn equal(&mut self, condition: Condition, mask: u64, held: Label, otherwise: Label) -> Label {
        let [(low_offset, low), (high_offset, high)] = halves(condition);
        let [(_, low_mask), (_, high_mask)] = halves(Condition { value: mask, ..condition });
        let low = self.equal_half(low_offset, low, low_mask, held, otherwise);
        self.equal_half(high_offset, high, high_mask, low, otherwise)
    }

    fn equal_half(&mut self, offset: u32, value: u32, mask: u32, held: Label, otherwise: Label) -> Label {
        match mask {
            0 => held,
            u32::MAX => {
                let branch = self.branch(IF_EQUAL, value, held, otherwise);
                self.load(offset, branch)
            }
            // No bit of the mask set is the commonest question.
            _ if value & mask == 0 => {
                let branch = self.branch(IF_ANY_BIT, mask, otherwise, held);
                self.load(offset, branch)
            }
            _ => {
                let branch = self.branch(IF_EQUAL, value & mask, held, otherwise);
                let masked = self.then(AND, mask, branch);
                self.load(offset, masked)
            }
        }
    }

    /// `condition` compares the lower half where the upper ones are equal.
    fn above(&mut self, of: Condition, condition: u32, held: Label, otherwise: Label) -> Label {
        let [(low_offset, low), (high_offset, high)] = halves(of);
        let branch = self.branch(condition, low, held, otherwise);
        let lower = self.load(low_offset, branch);
        let equal = self.branch(IF_EQUAL, high, lower, otherwise);
        let more = self.branch(IF_MORE, high, held, equal);
        self.load(high_offset, more)
    }
}

/// The offset and value of the lower and the upper half, on a little-endian machine.
#[expect(clippy::cast_possible_truncation, reason = "the two halves")]
fn halves(condition: Condition) -> [(u32, u32); 2] {
    let offset = ARGUMENTS + 8 * condition.index;
    [(offset, condition.value as u32), (offset + 4, (condition.value >> 32) as u32)]
}

#[cfg(test)]
mod tests;
