//! Programs in a small interpreter of the instructions that they use.

use super::*;

/// A use of a device, as `struct bpf_cgroup_dev_ctx` tells it.
#[derive(Debug, Clone, Copy)]
struct Asked {
    kind: u32,
    access: u32,
    major: u32,
    minor: u32,
}

fn run(program: &[u64], asked: Asked) -> bool {
    let context = [asked.access << 16 | asked.kind, asked.major, asked.minor];
    let (mut registers, mut at) = ([0u64; 11], 0usize);
    for _ in 0..=program.len() {
        let [code, pair, low, high, rest @ ..] = program[at].to_le_bytes();
        let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
        let jump = i16::from_le_bytes([low, high]);
        // Extended by its sign, as the kernel does.
        let value = i64::from(i32::from_le_bytes(rest)).cast_unsigned();
        at += 1;
        let holds = match code {
            0x61 => {
                registers[to] = u64::from(context[usize::try_from(jump).unwrap() / 4]);
                continue;
            }
            0xbf => {
                registers[to] = registers[from];
                continue;
            }
            0x77 => {
                registers[to] >>= value;
                continue;
            }
            0x57 => {
                registers[to] &= value;
                continue;
            }
            0xb7 => {
                registers[to] = value;
                continue;
            }
            0x95 => return registers[0] == 1,
            0x05 => true,
            0x15 => registers[to] == value,
            0x45 => registers[to] & value != 0,
            0x55 => registers[to] != value,
            0xb5 => registers[to] <= value,
            other => panic!("unexpected instruction {other:#x}"),
        };
        if holds {
            at += usize::try_from(jump).unwrap();
        }
    }
    panic!("no end");
}

/// As the type says it.
fn judge(rules: &[DeviceRule], asked: Asked) -> bool {
    let speaks = |rule: &&DeviceRule, bit: u32| {
        rule.kind.is_none_or(|kind| asked.kind == if kind == DeviceKind::Block { 1 } else { 2 })
            && rule.major.is_none_or(|major| major == asked.major)
            && rule.minor.is_none_or(|minor| minor == asked.minor)
            && rule.access.bits().cast_unsigned() & bit != 0
    };
    let allowed = |bit: u32| rules.iter().rev().find(|rule| speaks(rule, bit)).is_some_and(|rule| rule.allow);
    [1, 2, 4].into_iter().filter(|bit| asked.access & bit != 0).all(allowed)
}

fn all_uses() -> impl Iterator<Item = Asked> {
    let numbers = [0, 1, 2, 3, 5, 8, 9, 10, 136, 137, 229, 0xfffff];
    let uses = (1..=2).flat_map(|kind| (1..=7).map(move |access| (kind, access)));
    uses.flat_map(move |(kind, access)| {
        numbers.into_iter().flat_map(move |major| numbers.map(|minor| Asked { kind, access, major, minor }))
    })
}

#[test]
fn random_lists_are_judged_as_they_read() {
    let mut state = 0x00de_71ce_u64;
    let mut below = |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    };
    for _ in 0..500 {
        let rules: Vec<DeviceRule> = (0..below(9))
            .map(|_| DeviceRule {
                allow: below(3) > 0,
                kind: [None, Some(DeviceKind::Block), Some(DeviceKind::Character)][usize::try_from(below(3)).unwrap()],
                major: [None, Some(1), Some(136), Some(10)][usize::try_from(below(4)).unwrap()],
                minor: [None, Some(3), Some(5), Some(229)][usize::try_from(below(4)).unwrap()],
                access: Access { read: below(2) == 0, write: below(2) == 0, make: below(2) == 0 },
            })
            .collect();
        let program = compile(&rules);
        for asked in all_uses() {
            assert_eq!(run(&program, asked), judge(&rules, asked), "{rules:?} {asked:?}");
        }
    }
}

#[test]
fn the_default_list_is_what_was_written_by_hand() {
    let access = |text: &str| Access { read: text.contains('r'), write: text.contains('w'), make: text.contains('m') };
    let rule = |line: &str| {
        let (kind, rest) = line.split_once(' ').unwrap();
        let (numbers, uses) = rest.split_once(' ').unwrap();
        let (major, minor) = numbers.split_once(':').unwrap();
        let kind = Some(if kind == "b" { DeviceKind::Block } else { DeviceKind::Character });
        DeviceRule { allow: true, kind, major: major.parse().ok(), minor: minor.parse().ok(), access: access(uses) }
    };
    let rules: Vec<DeviceRule> = ALLOWED.iter().chain(&["c 5:1 rwm"]).map(|line| rule(line)).collect();
    let lines: Vec<String> = rules.iter().flat_map(DeviceRule::lines).collect();
    assert_eq!(lines[..ALLOWED.len()], ALLOWED);
    let program = compile(&rules);
    for asked in all_uses() {
        assert_eq!(run(&program, asked), run(&PROGRAM, asked), "{asked:?}");
    }
}

#[test]
fn both_kinds_are_two_lines() {
    let rule = DeviceRule {
        allow: false,
        kind: None,
        major: Some(7),
        minor: None,
        access: Access { read: true, ..Access::default() },
    };
    assert_eq!(rule.lines().collect::<Vec<_>>(), ["b 7:* r", "c 7:* r"]);
}

#[test]
fn v1_gets_what_is_allowed_in_the_end_or_a_refusal() {
    let all = Access { read: true, write: true, make: true };
    let write = Access { write: true, ..Access::default() };
    let rule =
        |allow, major, minor, access| DeviceRule { allow, kind: Some(DeviceKind::Character), major, minor, access };
    let any = DeviceRule { allow: false, kind: None, major: None, minor: None, access: all };
    let lines =
        |rules: &[DeviceRule]| exceptions(rules).unwrap().iter().flat_map(DeviceRule::lines).collect::<Vec<_>>();
    let (null, zero) = (rule(true, Some(1), Some(3), all), rule(true, Some(1), Some(5), all));
    assert_eq!(lines(&[any, null, zero, rule(false, Some(1), Some(5), write)]), ["c 1:3 rwm", "c 1:5 rm"]);
    assert_eq!(lines(&[null, zero, rule(false, None, Some(3), all)]), ["c 1:5 rwm"]);
    assert!(lines(&[null, any]).is_empty());
    let error = exceptions(&[rule(true, Some(1), None, all), rule(false, Some(1), Some(5), write)]).unwrap_err();
    assert!(error.to_string().contains("cannot refuse `c 1:5 w` out of `c 1:* rwm`"), "{error}");
}
