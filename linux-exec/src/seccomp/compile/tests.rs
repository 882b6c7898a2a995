//! Profiles against a plain reading of their rules.

use super::*;
use crate::seccomp::{
    Check, Compiled, Sockets, Table, Verdict, engine, numbers,
    profile::{Call, Flags},
};
use test_inputs::seccomp::{Data, run};

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()].clone()
    }
}

const ACTIONS: [Action; 8] = [
    Action::Allow,
    Action::Log,
    Action::Errno(1),
    Action::Errno(4095),
    Action::Trace(7),
    Action::Trap,
    Action::KillThread,
    Action::KillProcess,
];
const NAMES: [&str; 12] = [
    "read",
    "write",
    "open",
    "socket",
    "clone",
    "clone3",
    "execve",
    "personality",
    "set_tls",
    "_llseek",
    "no_such_call",
    "file_setattr",
];
/// What lies beside each other where halves are compared wrongly.
const VALUES: [u64; 10] = [
    0,
    1,
    2,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0001,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX - 1,
    u64::MAX,
];
const ARCHITECTURES: [Architecture; 5] =
    [Architecture::X86_64, Architecture::X86, Architecture::X32, Architecture::Aarch64, Architecture::Arm];

fn random_profile(random: &mut Random) -> Profile {
    let rules = (0..random.below(12)).map(|_| random_rule(random)).collect();
    Profile {
        default: random.of(&ACTIONS),
        architectures: (0..random.below(4)).map(|_| random.of(&ARCHITECTURES)).collect(),
        rules,
        newer_are_unknown: random.below(2) == 0,
        flags: Flags::default(),
    }
}

fn random_rule(random: &mut Random) -> Rule {
    let call = |random: &mut Random| match random.below(3) {
        0 => Call::Number(u32::try_from(random.below(480)).unwrap()),
        _ => Call::Name(random.of(&NAMES).to_owned()),
    };
    let calls = (0..random.below(5)).map(|_| call(random)).collect();
    let conditions: Vec<_> = (0..random.below(4))
        .map(|_| Condition {
            index: u32::try_from(random.below(6)).unwrap(),
            comparison: match random.below(7) {
                0 => Comparison::Equal,
                1 => Comparison::NotEqual,
                2 => Comparison::Less,
                3 => Comparison::LessOrEqual,
                4 => Comparison::Greater,
                5 => Comparison::GreaterOrEqual,
                _ => Comparison::MaskedEqual(random.of(&VALUES) ^ random.below(4)),
            },
            value: random.of(&VALUES),
        })
        .collect();
    Rule { action: random.of(&ACTIONS), conditions, calls }
}

fn holds(condition: &Condition, data: &Data) -> bool {
    let (found, value) = (data.arguments[condition.index as usize], condition.value);
    match condition.comparison {
        Comparison::Equal => found == value,
        Comparison::NotEqual => found != value,
        Comparison::Less => found < value,
        Comparison::LessOrEqual => found <= value,
        Comparison::Greater => found > value,
        Comparison::GreaterOrEqual => found >= value,
        Comparison::MaskedEqual(mask) => found & mask == value & mask,
    }
}

/// As the module's text has it, word for word.
fn judge(profile: &Profile, native: Architecture, data: &Data) -> u32 {
    let of_x86_64 = data.arch == Architecture::X86_64.audit();
    let is_x32 = of_x86_64 && data.number >= X32_BIT && data.number != SKIPPED;
    let architecture = ARCHITECTURES.into_iter().find(|architecture| {
        architecture.audit() == data.arch && (!of_x86_64 || is_x32 == (*architecture == Architecture::X32))
    });
    let listed = |architecture: &Architecture| {
        *architecture == native || (profile.architectures.contains(architecture) && architecture.runs_on(native))
    };
    let Some(architecture) = architecture.filter(listed) else { return answer(Action::KillThread) };
    let number = if is_x32 { data.number & !X32_BIT } else { data.number };
    let numbers = |rule: &Rule| -> Vec<u32> {
        let number = |call: &Call| match call {
            Call::Name(name) => numbers::number(architecture, name),
            Call::Number(number) => (architecture == native).then_some(*number),
        };
        rule.calls.iter().filter_map(number).collect()
    };
    let of_this_call: Vec<_> =
        profile.rules.iter().filter(|rule| rule.action != profile.default && numbers(rule).contains(&number)).collect();
    if let Some(rule) = of_this_call.iter().find(|rule| rule.conditions.is_empty()) {
        return answer(rule.action);
    }
    for rule in of_this_call {
        let mut indexes: Vec<u32> = rule.conditions.iter().map(|condition| condition.index).collect();
        indexes.sort_unstable();
        let twice = indexes.windows(2).any(|pair| pair[0] == pair[1]);
        let mut conditions = rule.conditions.iter();
        let decides = |condition: &Condition| holds(condition, data);
        if if twice { conditions.any(decides) } else { conditions.all(decides) } {
            return answer(rule.action);
        }
    }
    let newest = profile.rules.iter().flat_map(numbers).max();
    let is_newer = newest.is_some_and(|newest| number > newest) && data.number != SKIPPED;
    if profile.newer_are_unknown && is_newer { ENOSYS } else { answer(profile.default) }
}

#[test]
fn random_profiles_judge_as_their_rules_read() {
    let mut random = Random(0x5ecc_0de5);
    for round in 0..6000 {
        let native = random.of(&[Architecture::X86_64, Architecture::Aarch64]);
        let profile = random_profile(&mut random);
        let filter = compile(&profile, native).unwrap();
        for _ in 0..60 {
            let named: Vec<&Call> = profile.rules.iter().flat_map(|rule| &rule.calls).collect();
            let architecture = random.of(&ARCHITECTURES);
            let mut number = match random.below(5) {
                0 => random.of(&[SKIPPED, X32_BIT, 500, 0, 0x8000_0000]),
                1 => u32::try_from(random.below(480)).unwrap(),
                _ if named.is_empty() => 1,
                _ => random.of(&named).number(architecture, native).unwrap_or(470),
            };
            if architecture == Architecture::X32 {
                number |= X32_BIT;
            }
            let arguments = std::array::from_fn(|_| random.of(&VALUES).wrapping_add(random.below(3)).wrapping_sub(1));
            let data = Data { number, arch: architecture.audit(), arguments };
            assert_eq!(run(&filter.program, &data).0, judge(&profile, native, &data), "{round}: {profile:?}\n{data:?}");
        }
    }
}

#[test]
fn targets_that_are_too_far_for_a_jump_are_reached() {
    let condition = |value| Condition { index: 1, comparison: Comparison::GreaterOrEqual, value };
    let rule = |number: u32| Rule {
        calls: vec![Call::Number(number)],
        action: Action::Errno(u16::try_from(number).unwrap()),
        conditions: vec![condition(u64::from(number) << 31), Condition { index: 2, ..condition(5) }],
    };
    let profile = Profile {
        default: Action::Allow,
        architectures: Vec::new(),
        rules: (1..300).chain((1..300).map(|_| 7)).map(rule).collect(),
        newer_are_unknown: false,
        flags: Flags::default(),
    };
    let filter = compile(&profile, Architecture::X86_64).unwrap_err();
    assert!(matches!(filter, ProfileError::TooLong(4097..)), "{filter:?}");
    let profile = Profile { rules: profile.rules[..200].to_vec(), ..profile };
    let mut profile = profile;
    profile.rules.extend((0..60).map(|_| rule(7)));
    let filter = compile(&profile, Architecture::X86_64).unwrap();
    for number in 0..210 {
        for second in [0, u64::from(number) << 31, u64::MAX] {
            let arguments = [0, second, 5, 0, 0, 0];
            let data = Data { number, arch: Architecture::X86_64.audit(), arguments };
            assert_eq!(run(&filter.program, &data).0, judge(&profile, Architecture::X86_64, &data), "{data:?}");
        }
    }
}

#[test]
fn what_the_kernel_would_change_is_refused() {
    let rule = |action, index| Rule {
        calls: vec![Call::Name("read".to_owned())],
        action,
        conditions: vec![Condition { index, comparison: Comparison::Equal, value: 0 }],
    };
    let compile = |rule| {
        let profile = Profile {
            default: Action::Allow,
            architectures: Vec::new(),
            rules: vec![rule],
            newer_are_unknown: false,
            flags: Flags::default(),
        };
        profile.compile().map(drop)
    };
    assert_eq!(compile(rule(Action::Errno(4096), 0)), Err(ProfileError::Errno(4096)));
    assert_eq!(compile(rule(Action::Trap, 6)), Err(ProfileError::Index(6)));
    assert_eq!(compile(rule(Action::Trace(u16::MAX), 5)), Ok(()));
}

/// A table as a profile.
fn profile_of(table: &Table) -> Profile {
    let mut rules = Vec::new();
    for (number, verdict) in table.verdicts().iter().enumerate() {
        let mut rule = |action, conditions| {
            let calls = vec![Call::Number(u32::try_from(number).unwrap())];
            rules.push(Rule { calls, action, conditions });
        };
        match *verdict {
            Verdict::Refuse => {}
            Verdict::Unknown => rule(Action::Errno(38), Vec::new()),
            Verdict::Allow => rule(Action::Allow, Vec::new()),
            // None of those that are compared here asks for two.
            Verdict::AllowIfBoth(..) => unreachable!(),
            Verdict::AllowIf(argument, check) => {
                let mut allow = |comparison, value: u32| {
                    let index = argument.into();
                    rule(Action::Allow, vec![Condition { index, comparison, value: value.into() }]);
                };
                match check {
                    Check::OneOf(values) => values.iter().for_each(|value| allow(Comparison::Equal, *value)),
                    // Two conditions on one argument would be alternatives.
                    Check::UpTo(last, refused) => (0..=last)
                        .filter(|value| !refused.contains(value))
                        .for_each(|value| allow(Comparison::Equal, value)),
                    Check::AnyBit(bits) => allow(Comparison::MaskedEqual(bits.into()), bits),
                    Check::NoBit(bits) => allow(Comparison::MaskedEqual(bits.into()), 0),
                }
            }
        }
    }
    Profile {
        default: Action::Errno(1),
        architectures: Vec::new(),
        rules,
        newer_are_unknown: true,
        flags: Flags::default(),
    }
}

/// But that a table ends the process for calls in other conventions, and x32 ones fail.
#[test]
fn a_table_and_its_profile_say_the_same() {
    const FAMILIES: u32 = 45;
    let docker_like = engine::table(Sockets::All)
        .with(&[linux_raw_sys::general::__NR_socket], Verdict::AllowIf(0, Check::UpTo(FAMILIES, &[12, 19, 38, 40])))
        .with(&[linux_raw_sys::general::__NR_clone], Verdict::AllowIf(0, Check::NoBit(0x7e02_0000)));
    for table in [docker_like, engine::table(Sockets::Accepted), engine::table(Sockets::None)] {
        // What is above the last call that a profile names is unknown.
        let table = table.with(&[linux_raw_sys::general::__NR_removexattrat], Verdict::Allow);
        let compiled = compile(&profile_of(&table), Architecture::NATIVE).unwrap();
        let precompiled = Compiled::new(&table).to_filter();
        for number in 0..1000 {
            for first in (0..64).chain([8, 0x2_0000, 0x2_0008, 0xffff_ffff, 1 << 25, 1 << 31]) {
                let arguments = [first, first, 0, first, 0, 0];
                let data = Data { number, arch: Architecture::NATIVE.audit(), arguments };
                let answers = [&compiled, &precompiled].map(|filter| run(&filter.program, &data).0);
                assert_eq!(answers[0], answers[1], "{data:?}");
            }
            let data = Data { number, arch: Architecture::NATIVE.audit(), arguments: [0; 6] };
            assert!(run(&compiled.program, &data).1 <= 24 + FAMILIES as usize * 2, "{number}");
        }
        let longest = precompiled.program.len() * 3 / 2 + FAMILIES as usize * 4;
        assert!(compiled.program.len() < longest, "{}", compiled.program.len());
    }
}
