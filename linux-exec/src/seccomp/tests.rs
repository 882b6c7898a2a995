//! Runs tables and the built-in filters in a small interpreter.

use super::*;
use linux_raw_sys::{general::*, ptrace::*};
use test_inputs::{
    Random,
    seccomp::{self as interpreter, Data},
    setting,
};

const EPERM: Answer = Answer::Errno(1);
const ENOSYS: Answer = Answer::Errno(38);
const HERE: u32 = profile::Architecture::NATIVE.audit();

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Allow,
    Errno(u32),
    Kill,
}

/// The kernel's answer to a call, and how many instructions it takes to find.
fn run(filter: &Filter, arch: u32, number: u32, argument: u64) -> (Answer, usize) {
    let data = Data { number, arch, arguments: [argument, 0, 0, 0, 0, 0] };
    let (operand, steps) = interpreter::run(&filter.program, &data);
    (answer(operand), steps)
}

fn answer(operand: u32) -> Answer {
    match operand {
        0x7fff_0000 => Answer::Allow,
        0x8000_0000 => Answer::Kill,
        errno if errno & 0xffff_0000 == 0x0005_0000 => Answer::Errno(errno & 0xffff),
        other => panic!("unexpected answer {other:#x}"),
    }
}

fn judge(filter: &Filter, number: u32, argument: u64) -> Answer {
    run(filter, HERE, number, argument).0
}

#[test]
fn an_engine_may_do_little() {
    let files_memory_time_and_threads =
        [__NR_read, __NR_write, __NR_openat, __NR_mmap, __NR_futex, __NR_clock_gettime, __NR_ppoll, __NR_getrandom];
    let sockets = [__NR_connect, __NR_bind, __NR_setsockopt, __NR_listen];
    let never = [
        __NR_execve,
        __NR_execveat,
        __NR_kill,
        __NR_ptrace,
        __NR_process_vm_writev,
        __NR_pidfd_getfd,
        __NR_mount,
        __NR_unshare,
        __NR_setns,
        __NR_setuid,
        __NR_prctl,
        __NR_chroot,
        __NR_mknodat,
        __NR_fchmodat,
        __NR_shmget,
        __NR_mq_open,
        __NR_io_uring_setup,
        __NR_bpf,
        __NR_socketpair,
        __NR_sendmsg,
        __NR_recvmsg,
    ];
    for sockets_of in [Sockets::None, Sockets::Accepted, Sockets::Outbound, Sockets::All] {
        let filter = engine(sockets_of);
        for number in files_memory_time_and_threads {
            assert_eq!(judge(&filter, number, 0), Answer::Allow, "{number}");
        }
        for number in sockets {
            let allowed = match sockets_of {
                Sockets::None | Sockets::Accepted => false,
                Sockets::Outbound => number != __NR_listen,
                Sockets::All => true,
            };
            assert_eq!(judge(&filter, number, 2), if allowed { Answer::Allow } else { EPERM }, "{number}");
        }
        for number in never {
            assert_eq!(judge(&filter, number, 0), EPERM, "{number}");
        }
        for family in [1, 16, 17, 38, 40] {
            assert_eq!(
                judge(&filter, __NR_socket, family),
                EPERM,
                "neither the kernel's own networks, nor ciphers: {family}"
            );
        }
        assert_eq!(judge(&filter, __NR_clone, u64::from(CLONE_THREAD | CLONE_VM)), Answer::Allow);
        assert_eq!(judge(&filter, __NR_clone, 17), EPERM, "a process");
        assert_eq!(judge(&filter, __NR_clone3, 0), ENOSYS, "a C library then uses clone");
    }
}

#[test]
fn an_engine_that_connects_has_sockets_of_the_internet_alone_and_listens_at_none() {
    has_sockets_of_the_internet_alone(&engine(Sockets::Outbound), EPERM);
}

#[test]
fn an_engine_on_a_network_has_sockets_of_the_internet_alone() {
    has_sockets_of_the_internet_alone(&engine(Sockets::All), Answer::Allow);
}

fn has_sockets_of_the_internet_alone(filter: &Filter, listens: Answer) {
    let judge = |number, first, second| {
        let data = Data { number, arch: HERE, arguments: [first, second, 0, 0, 0, 0] };
        answer(interpreter::run(&filter.program, &data).0)
    };
    let (non_blocking, close_on_exec, high) = (0x800, 0x8_0000, 1 << 32);
    let (unix, ipv4, ipv6, netlink, packet, vsock) = (1, 2, 10, 16, 17, 40);
    let (stream, datagram, raw, sequenced) = (1, 2, 3, 5);
    for family in [ipv4, ipv6] {
        for transport in [stream, datagram] {
            for flags in [0, non_blocking, close_on_exec, non_blocking | close_on_exec] {
                assert_eq!(
                    judge(__NR_socket, family, transport | flags),
                    Answer::Allow,
                    "{family} {transport} {flags}"
                );
            }
        }
        for other in [raw, raw | close_on_exec, sequenced, 10, 0] {
            assert_eq!(judge(__NR_socket, family, other), EPERM, "{family} {other}");
        }
    }
    for family in [unix, netlink, packet, vsock, 0] {
        assert_eq!(judge(__NR_socket, family, stream), EPERM, "{family}");
    }
    // The kernel reads the low half of both.
    assert_eq!(judge(__NR_socket, ipv4 | high, raw | high), EPERM);
    assert_eq!(judge(__NR_socket, unix | high, stream), EPERM);
    for number in [__NR_connect, __NR_bind, __NR_sendto, __NR_recvfrom, __NR_setsockopt, __NR_accept4] {
        assert_eq!(judge(number, 0, 0), Answer::Allow, "{number}");
    }
    assert_eq!(judge(__NR_listen, 0, 0), listens);
    for number in [__NR_sendmsg, __NR_recvmsg, __NR_sendmmsg, __NR_socketpair] {
        assert_eq!(judge(number, 0, 0), EPERM, "{number}");
    }
    let interfaces = 0x8912;
    assert_eq!(judge(__NR_ioctl, 9, interfaces), EPERM);
}

#[test]
fn an_engine_that_serves_talks_to_who_came_and_to_nobody_else() {
    let filter = engine(Sockets::Accepted);
    let judge = |number, arguments: [u64; 4]| {
        let [first, second, third, fourth] = arguments;
        let data = Data { number, arch: HERE, arguments: [first, second, third, fourth, 0, 0] };
        answer(interpreter::run(&filter.program, &data).0)
    };
    for number in [__NR_accept4, __NR_recvfrom, __NR_shutdown, __NR_getsockopt] {
        assert_eq!(judge(number, [0; 4]), Answer::Allow, "{number}");
        assert_eq!(self::judge(&engine(Sockets::None), number, 0), EPERM, "{number}");
    }
    for number in [__NR_socket, __NR_bind, __NR_connect, __NR_listen, __NR_sendmsg, __NR_sendmmsg, __NR_setsockopt] {
        assert_eq!(judge(number, [1, 0, 0, 0]), EPERM, "{number}");
    }
    let (no_signal, fast_open) = (0x4000, 0x2000_0000);
    assert_eq!(judge(__NR_sendto, [9, 0, 1, no_signal]), Answer::Allow);
    assert_eq!(judge(__NR_sendto, [9, 0, 1, no_signal | fast_open]), EPERM);
    assert_eq!(judge(__NR_sendto, [9, 0, 1, fast_open | 1 << 32]), EPERM);
    let (non_blocking, set_address, interfaces) = (0x5421, 0x8916, 0x8912);
    assert_eq!(judge(__NR_ioctl, [9, non_blocking, 0, 0]), Answer::Allow);
    assert_eq!(judge(__NR_ioctl, [9, set_address, 0, 0]), EPERM);
    assert_eq!(judge(__NR_ioctl, [9, interfaces | 1 << 32, 0, 0]), EPERM);
}

#[test]
fn unknown_numbers_and_foreign_conventions() {
    let filter = Compiled::new(&Table::refusing().with(&[__NR_read], Verdict::Allow)).to_filter();
    for number in [__NR_removexattrat + 1, 1000, 0x4000_0000, 0x4000_0001, u32::MAX] {
        assert_eq!(judge(&filter, number, 0), ENOSYS, "{number:#x}");
    }
    for arch in [AUDIT_ARCH_I386, AUDIT_ARCH_ARM, 0] {
        assert_eq!(run(&filter, arch, __NR_read, 0).0, Answer::Kill, "{arch:#x}");
    }
}

/// What the table says of a call, worked out without the filter.
fn expected(verdict: Verdict, arguments: [u64; 6]) -> Answer {
    let holds = match verdict {
        Verdict::Allow => true,
        Verdict::Refuse => false,
        Verdict::Unknown => return ENOSYS,
        Verdict::AllowIf(argument, check) => does_hold(check, arguments[usize::from(argument)]),
        Verdict::AllowIfBoth((first, values), (second, check)) => {
            does_hold(Check::OneOf(values), arguments[usize::from(first)])
                && does_hold(check, arguments[usize::from(second)])
        }
    };
    if holds { Answer::Allow } else { EPERM }
}

fn does_hold(check: Check, argument: u64) -> bool {
    let value = u32::try_from(argument & 0xffff_ffff).unwrap();
    match check {
        Check::OneOf(values) => values.contains(&value),
        Check::UpTo(last, refused) => value <= last && !refused.contains(&value),
        Check::AnyBit(bits) => value & bits != 0,
        Check::NoBit(bits) => value & bits == 0,
    }
}

/// A filter as seccomp(2) takes it: at most 4096 instructions, all jumps within it, a return at the end of every path.
fn check_form(filter: &Filter) {
    assert!(filter.program.len() <= 4096);
    for (at, word) in filter.program.iter().enumerate() {
        let (code, when_true, when_false) = (word & 0xffff, word >> 16 & 0xff, word >> 24 & 0xff);
        let farthest = if code == 0x06 { 0 } else { 1 + usize::try_from(when_true.max(when_false)).unwrap() };
        assert!(at + farthest < filter.program.len(), "instruction {at} leads out of the filter");
    }
}

/// A table of some dozens of ranges.
fn random_table(random: &mut Random) -> Table {
    const VALUES: [&[u32]; 4] = [&[], &[3], &[0, 8, 0x2_0000, 0xffff_ffff], &[12, 19, 20, 23, 25, 34, 37, 38, 40]];
    let mut table = Table::refusing();
    for _ in 0..random.below(30) {
        let check = match random.below(4) {
            0 => Check::OneOf(VALUES[random.within(VALUES.len())]),
            1 => Check::UpTo(45, VALUES[random.within(VALUES.len())]),
            2 => Check::AnyBit(1 << random.below(32)),
            _ => Check::NoBit(1 << random.below(32) | 1 << random.below(32)),
        };
        let (verdict, most) = match random.below(9) {
            0 => (Verdict::AllowIf(u8::try_from(random.below(6)).unwrap(), check), 1),
            1 => {
                let [first, second] = [(); 2].map(|()| u8::try_from(random.below(6)).unwrap());
                let values = VALUES[random.within(VALUES.len())];
                (Verdict::AllowIfBoth((first, values), (second, check)), 1)
            }
            2 => (Verdict::Unknown, 3),
            _ => (Verdict::Allow, 30),
        };
        let first = random.within(table.verdicts().len());
        let numbers = first..(first + 1 + random.within(most)).min(table.verdicts().len());
        let numbers: Vec<u32> = numbers.map(|number| u32::try_from(number).unwrap()).collect();
        table = table.with(&numbers, verdict);
    }
    table
}

#[test]
fn random_tables_and_calls_get_what_the_table_says() {
    let (first, count) =
        (setting("AMPHORA_TEST_SEED").unwrap_or(0), setting("AMPHORA_TEST_CASES").unwrap_or(200_000) / 1000 + 1);
    for seed in first..first + count {
        let mut random = Random::new(seed);
        let table = match seed {
            0 => engine::table(Sockets::None),
            1 => engine::table(Sockets::Accepted),
            2 => engine::table(Sockets::All),
            _ => random_table(&mut random),
        };
        let filter = Compiled::new(&table).to_filter();
        check_form(&filter);
        for _ in 0..1000 {
            let number = random.within(table.verdicts().len() + 8);
            let arguments = [(); 6].map(|()| match random.below(3) {
                0 => random.below(64),
                1 => 1 << random.below(64) | 1 << random.below(32),
                _ => random.next(),
            });
            let verdict = table.verdicts().get(number).copied().unwrap_or(Verdict::Unknown);
            let data = Data { number: u32::try_from(number).unwrap(), arch: HERE, arguments };
            let (operand, steps) = interpreter::run(&filter.program, &data);
            assert_eq!(answer(operand), expected(verdict, arguments), "{data:x?}, AMPHORA_TEST_SEED={seed}");
            assert!(steps <= 26, "{data:x?} takes {steps} instructions");
        }
    }
}
