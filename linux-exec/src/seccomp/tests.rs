//! Runs the built-in filters in a small interpreter.

use super::{interpreter::Data, *};
use linux_raw_sys::{general::*, ptrace::*};
use test_inputs::{Random, setting};

const EPERM: Answer = Answer::Errno(1);
const ENOSYS: Answer = Answer::Errno(38);
const HERE: u32 = profile::Architecture::NATIVE.audit();

#[derive(Debug, PartialEq, Eq)]
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

fn with(names: &[&str]) -> Filter {
    docker_default(CapabilitySet(table::DOCKER_DEFAULT.0 | CapabilitySet::of(names).0))
}

#[test]
fn docker_default_allows_and_refuses() {
    let filter = with(&[]);
    for number in
        [__NR_read, __NR_write, __NR_execve, __NR_openat, __NR_futex, __NR_ptrace, __NR_chroot, __NR_setxattrat]
    {
        assert_eq!(judge(&filter, number, 0), Answer::Allow, "{number}");
    }
    for number in [
        __NR_mount,
        __NR_umount2,
        __NR_unshare,
        __NR_setns,
        __NR_bpf,
        __NR_keyctl,
        __NR_add_key,
        __NR_io_uring_setup,
        __NR_userfaultfd,
        __NR_reboot,
        __NR_init_module,
        __NR_kexec_load,
        __NR_open_by_handle_at,
        __NR_pivot_root,
        __NR_perf_event_open,
        __NR_syslog,
        __NR_swapon,
        __NR_settimeofday,
        __NR_mbind,
        __NR_move_pages,
    ] {
        assert_eq!(judge(&filter, number, 0), EPERM, "{number}");
    }
}

#[test]
fn arguments_are_judged_by_what_the_kernel_reads() {
    let filter = with(&[]);
    let high = 1 << 32;
    for (number, argument, expected) in [
        (__NR_socket, 1, Answer::Allow),
        (__NR_socket, 39, Answer::Allow),
        (__NR_socket, 41, Answer::Allow),
        (__NR_socket, 38, EPERM),
        (__NR_socket, 40, EPERM),
        (__NR_socket, 40 | high, EPERM),
        (__NR_socket, 11, Answer::Allow),
        (__NR_socket, 12, EPERM),
        (__NR_socket, 45, Answer::Allow),
        (__NR_socket, 46, EPERM),
        (__NR_socket, 0xffff_ffff, EPERM),
        (__NR_personality, 0, Answer::Allow),
        (__NR_personality, 8, Answer::Allow),
        (__NR_personality, 0x20008, Answer::Allow),
        (__NR_personality, 0xffff_ffff, Answer::Allow),
        (__NR_personality, 0x0040_0000, EPERM), // ADDR_NO_RANDOMIZE
        (__NR_clone, 17, Answer::Allow),
        (__NR_clone, 0x003d_0f00, Answer::Allow), // what a thread is made with
        (__NR_clone, u64::from(CLONE_NEWUSER) | 17, EPERM),
        (__NR_clone, u64::from(CLONE_NEWNS), EPERM),
        (__NR_clone, u64::from(CLONE_NEWCGROUP), EPERM),
        (__NR_clone3, 0, ENOSYS),
    ] {
        assert_eq!(judge(&filter, number, argument), expected, "{number}({argument:#x})");
    }
}

#[test]
fn capabilities_open_their_calls() {
    for (names, number) in [
        (&["SYS_ADMIN"][..], __NR_mount),
        (&["SYS_ADMIN"], __NR_clone3),
        (&["SYS_ADMIN"], __NR_bpf),
        (&["BPF"], __NR_bpf),
        (&["PERFMON"], __NR_perf_event_open),
        (&["SYSLOG"], __NR_syslog),
        (&["SYS_BOOT"], __NR_reboot),
        (&["SYS_MODULE"], __NR_finit_module),
        (&["SYS_TIME"], __NR_clock_settime),
        (&["SYS_PTRACE"], __NR_kcmp),
        (&["SYS_NICE"], __NR_mbind),
        (&["SYS_PACCT"], __NR_acct),
        (&["SYS_TTY_CONFIG"], __NR_vhangup),
        (&["DAC_READ_SEARCH"], __NR_open_by_handle_at),
    ] {
        assert_ne!(judge(&with(&[]), number, 0), Answer::Allow, "{number} by default");
        assert_eq!(judge(&with(names), number, 0), Answer::Allow, "{number} with {names:?}");
    }
    let namespaces = u64::from(CLONE_NEWUSER);
    assert_eq!(judge(&with(&["SYS_ADMIN"]), __NR_clone, namespaces), Answer::Allow);
    assert_eq!(judge(&docker_default(CapabilitySet(0)), __NR_chroot, 0), EPERM);
}

#[test]
fn an_engine_may_do_little() {
    let files_memory_time_and_threads =
        [__NR_read, __NR_write, __NR_openat, __NR_mmap, __NR_futex, __NR_clock_gettime, __NR_ppoll, __NR_getrandom];
    let sockets = [__NR_socket, __NR_connect, __NR_socketpair, __NR_recvmsg];
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
    ];
    for sockets_of in [Sockets::None, Sockets::Accepted, Sockets::All] {
        let filter = engine(sockets_of);
        let with_sockets = sockets_of == Sockets::All;
        for number in files_memory_time_and_threads {
            assert_eq!(judge(&filter, number, 0), Answer::Allow, "{number}");
        }
        for number in sockets {
            assert_eq!(judge(&filter, number, 1), if with_sockets { Answer::Allow } else { EPERM }, "{number}");
        }
        for number in never {
            assert_eq!(judge(&filter, number, 0), EPERM, "{number}");
        }
        assert_eq!(judge(&filter, __NR_socket, 40), EPERM, "AF_VSOCK");
        assert_eq!(judge(&filter, __NR_clone, u64::from(CLONE_THREAD | CLONE_VM)), Answer::Allow);
        assert_eq!(judge(&filter, __NR_clone, 17), EPERM, "a process");
        assert_eq!(judge(&filter, __NR_clone3, 0), ENOSYS, "a C library then uses clone");
    }
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
        assert_eq!(super::tests::judge(&engine(Sockets::None), number, 0), EPERM, "{number}");
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
    let filter = with(&[]);
    for number in [__NR_removexattrat + 1, 1000, 0x4000_0000, 0x4000_0001, u32::MAX] {
        assert_eq!(judge(&filter, number, 0), ENOSYS, "{number:#x}");
    }
    for arch in [AUDIT_ARCH_I386, AUDIT_ARCH_ARM, 0] {
        assert_eq!(run(&filter, arch, __NR_read, 0).0, Answer::Kill, "{arch:#x}");
    }
}

#[test]
fn every_number_gets_what_the_table_says_in_few_steps() {
    for set in [0, table::DOCKER_DEFAULT.0, u64::MAX] {
        let filter = docker_default(CapabilitySet(set));
        for (number, action) in table::actions(CapabilitySet(set)).iter().enumerate() {
            let (answer, steps) = run(&filter, HERE, u32::try_from(number).unwrap(), u64::MAX);
            let expected = match action {
                table::Action::Allow | table::Action::AllowPersonalities | table::Action::AllowThread => Answer::Allow,
                table::Action::Refuse | table::Action::AllowFamilies | table::Action::AllowWithoutNamespaces => EPERM,
                table::Action::Unknown => ENOSYS,
                table::Action::AllowPlainSend | table::Action::AllowPlainRequests => {
                    panic!("an engine's, not Docker's")
                }
            };
            assert_eq!(answer, expected, "{number}");
            assert!(steps <= 18, "{number} takes {steps} instructions");
        }
    }
}

/// What the table says of a call, worked out without the filter.
fn expected(action: table::Action, argument: u32) -> Answer {
    let if_true = |holds| if holds { Answer::Allow } else { EPERM };
    match action {
        table::Action::Allow => Answer::Allow,
        table::Action::Refuse => EPERM,
        table::Action::Unknown => ENOSYS,
        table::Action::AllowFamilies => {
            if_true(argument <= table::NEWEST_FAMILY && !table::REFUSED_FAMILIES.contains(&argument))
        }
        table::Action::AllowPersonalities => if_true(table::PERSONALITIES.contains(&argument)),
        table::Action::AllowThread => if_true(argument & CLONE_THREAD != 0),
        table::Action::AllowWithoutNamespaces => if_true(argument & table::NAMESPACES == 0),
        table::Action::AllowPlainSend | table::Action::AllowPlainRequests => panic!("an engine's, not Docker's"),
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

#[test]
fn random_sets_and_calls_get_what_the_table_says() {
    let (first, count) =
        (setting("AMPHORA_TEST_SEED").unwrap_or(0), setting("AMPHORA_TEST_CASES").unwrap_or(200_000) / 1000 + 1);
    for seed in first..first + count {
        let mut random = Random::new(seed);
        let set = CapabilitySet(random.next() & random.next() & table::OPENING.0 | random.next() & !table::OPENING.0);
        let (filter, actions) = (docker_default(set), table::actions(set));
        check_form(&filter);
        for _ in 0..1000 {
            let number = random.within(table::TABLE_LEN + 8);
            let argument = match random.below(3) {
                0 => random.below(64),
                1 => 1 << random.below(64) | 1 << random.below(32),
                _ => random.next(),
            };
            let action = actions.get(number).copied().unwrap_or(table::Action::Unknown);
            let low = u32::try_from(argument & 0xffff_ffff).unwrap();
            let answer = judge(&filter, u32::try_from(number).unwrap(), argument);
            assert_eq!(answer, expected(action, low), "{number}({argument:#x}) with {set:?}, AMPHORA_TEST_SEED={seed}");
        }
    }
    [Sockets::None, Sockets::Accepted, Sockets::All].into_iter().for_each(|sockets| check_form(&engine(sockets)));
}

#[test]
fn every_set_of_capabilities_fits() {
    let opening = table::OPENING.0;
    let mut set = opening;
    while set != 0 {
        assert!(!docker_default(CapabilitySet(set)).program.is_empty());
        set = (set - 1) & opening;
    }
}

#[test]
fn precompiled_serves_what_it_can() {
    let net_admin = with(&["NET_ADMIN"]);
    assert!(matches!(net_admin.program, Cow::Borrowed(_)), "NET_ADMIN opens no system call");
    assert!(matches!(with(&["SYS_ADMIN"]).program, Cow::Owned(_)));
}
