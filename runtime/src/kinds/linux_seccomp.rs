//! Docker's default seccomp profile: which system calls a container may make, and which capability opens which.
//!
//! The filter for Docker's default set of capabilities, and for all that open no other calls, is put together by the compiler. For other
//! sets that is done at run time, by the same code, in some microseconds.
//!
//! What is answered to what is not allowed:
//! - EPERM, as in Docker, to system calls that the profile knows of and refuses;
//! - ENOSYS to numbers above the newest one in the profile, so that a libc probing for a newer call falls back to an older
//!   one, and with them to every x32 call (their numbers start at 2³⁰); and to `clone3`, whose flags a filter cannot see;
//! - the end of the process, by SIGSYS, to calls in another architecture's convention (`int 0x80` on x86-64, 32-bit programs):
//!   an errno there would leave a 32-bit program looping in its own `exit`.
//!
//! Names that exist on 32-bit machines only are left out. Numbers come from the kernel's headers by way of `linux_raw_sys`.
//!
//! Source: moby's default profile (`github.com/moby/profiles`, seccomp/default.json, 2026).

use linux_exec::{
    capabilities::CapabilitySet,
    seccomp::{Check, Compiled, Filter, Table, Verdict},
};
use linux_raw_sys::general::*;

use crate::spec::capabilities::DOCKER_DEFAULT;

static PRECOMPILED: Compiled = Compiled::new(&table(DOCKER_DEFAULT));

/// The filter for a container with these capabilities.
pub(super) fn filter(capabilities: CapabilitySet) -> Filter {
    if (capabilities.0 ^ DOCKER_DEFAULT.0) & OPENING.0 == 0 { PRECOMPILED.filter() } else { compiled(capabilities) }
}

/// Apart from `filter`, whose callers would pay for these tables' room on the stack otherwise.
#[cold]
#[inline(never)]
fn compiled(capabilities: CapabilitySet) -> Filter {
    Compiled::new(&table(capabilities)).to_filter()
}

const fn table(capabilities: CapabilitySet) -> Table {
    let mut table = Table::refusing()
        .with(ALLOWED, Verdict::Allow)
        .with(ALLOWED_HERE, Verdict::Allow)
        .with(&[__NR_socket], Verdict::AllowIf(0, Check::UpTo(NEWEST_FAMILY, REFUSED_FAMILIES)))
        .with(&[__NR_personality], Verdict::AllowIf(0, Check::OneOf(PERSONALITIES)))
        .with(&[__NR_clone], Verdict::AllowIf(0, Check::NoBit(NAMESPACES)))
        .with(&[__NR_clone3], Verdict::Unknown);
    let mut index = 0;
    while index < OPENED.len() {
        let (capability, numbers) = OPENED[index];
        if capabilities.0 & capability.0 != 0 {
            table = table.with(numbers, Verdict::Allow);
        }
        index += 1;
    }
    table
}

/// The capabilities that open any system call.
const OPENING: CapabilitySet = {
    let (mut bits, mut index) = (0, 0);
    while index < OPENED.len() {
        bits |= OPENED[index].0.0;
        index += 1;
    }
    CapabilitySet(bits)
};

/// What moby's list of socket families leaves out (commit 02e898b of its profiles, 2026): those of which most kernels are rid, AF_NFC, AF_ALG,
/// the kernel's own ciphers with their record of holes, and AF_VSOCK, which reaches the host of a virtual machine past every network
/// namespace. `linux/socket.h` has the numbers.
const REFUSED_FAMILIES: &[u32] = &[12, 19, 20, 23, 25, 34, 37, 38, 40];

/// AF_MCTP, the last one in that list.
const NEWEST_FAMILY: u32 = 45;

/// PER_LINUX and PER_LINUX32, each with and without UNAME26, and the question which one it is.
const PERSONALITIES: &[u32] = &[0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// `clone`'s flags for new namespaces.
const NAMESPACES: u32 =
    CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP;

/// What each capability opens; a call that several of them open is listed with each.
const OPENED: &[(CapabilitySet, &[u32])] = &[
    (CapabilitySet::of(&["DAC_READ_SEARCH"]), &[__NR_open_by_handle_at]),
    (CapabilitySet::of(&["SYS_ADMIN"]), OPENED_BY_SYS_ADMIN),
    (CapabilitySet::of(&["SYS_BOOT"]), &[__NR_reboot]),
    (CapabilitySet::of(&["SYS_CHROOT"]), &[__NR_chroot]),
    (CapabilitySet::of(&["SYS_MODULE"]), &[__NR_delete_module, __NR_init_module, __NR_finit_module]),
    (CapabilitySet::of(&["SYS_PACCT"]), &[__NR_acct]),
    (CapabilitySet::of(&["SYS_PTRACE"]), &[__NR_kcmp, __NR_pidfd_getfd, __NR_process_madvise]),
    (CapabilitySet::of(&["SYS_RAWIO"]), OPENED_BY_SYS_RAWIO),
    (CapabilitySet::of(&["SYS_TIME"]), &[__NR_settimeofday, __NR_clock_settime]),
    (CapabilitySet::of(&["SYS_TTY_CONFIG"]), &[__NR_vhangup]),
    (CapabilitySet::of(&["SYS_NICE"]), OPENED_BY_SYS_NICE),
    (CapabilitySet::of(&["SYSLOG"]), &[__NR_syslog]),
    (CapabilitySet::of(&["BPF"]), &[__NR_bpf]),
    (CapabilitySet::of(&["PERFMON"]), &[__NR_perf_event_open]),
];

const OPENED_BY_SYS_ADMIN: &[u32] = &[
    __NR_bpf,
    __NR_clone,
    __NR_clone3,
    __NR_fanotify_init,
    __NR_fsconfig,
    __NR_fsmount,
    __NR_fsopen,
    __NR_fspick,
    __NR_lookup_dcookie,
    __NR_lsm_get_self_attr,
    __NR_lsm_list_modules,
    __NR_lsm_set_self_attr,
    __NR_mount,
    __NR_mount_setattr,
    __NR_move_mount,
    __NR_open_tree,
    __NR_perf_event_open,
    __NR_quotactl,
    __NR_quotactl_fd,
    __NR_setdomainname,
    __NR_sethostname,
    __NR_setns,
    __NR_syslog,
    __NR_umount2,
    __NR_unshare,
];

/// Ports are an affair of x86.
#[cfg(target_arch = "x86_64")]
const OPENED_BY_SYS_RAWIO: &[u32] = &[__NR_iopl, __NR_ioperm];
#[cfg(target_arch = "aarch64")]
const OPENED_BY_SYS_RAWIO: &[u32] = &[];

const OPENED_BY_SYS_NICE: &[u32] = &[__NR_get_mempolicy, __NR_mbind, __NR_set_mempolicy, __NR_set_mempolicy_home_node];

/// Allowed whatever the arguments, on every architecture. (ptrace and its kin would be refused on kernels before 4.8, where they
/// could step around the filter; those cannot run this program anyway.)
#[rustfmt::skip]
const ALLOWED: &[u32] = &[
    __NR_accept, __NR_accept4, __NR_adjtimex, __NR_bind, __NR_brk, __NR_cachestat, __NR_capget, __NR_capset,
    __NR_chdir, __NR_clock_adjtime, __NR_clock_getres, __NR_clock_gettime, __NR_clock_nanosleep, __NR_close,
    __NR_close_range, __NR_connect, __NR_copy_file_range, __NR_dup, __NR_dup3, __NR_epoll_create1, __NR_epoll_ctl,
    __NR_epoll_pwait, __NR_epoll_pwait2, __NR_eventfd2, __NR_execve, __NR_execveat, __NR_exit, __NR_exit_group,
    __NR_faccessat, __NR_faccessat2, __NR_fadvise64, __NR_fallocate, __NR_fanotify_mark, __NR_fchdir, __NR_fchmod,
    __NR_fchmodat, __NR_fchmodat2, __NR_fchown, __NR_fchownat, __NR_fcntl, __NR_fdatasync, __NR_fgetxattr,
    __NR_flistxattr, __NR_flock, __NR_fremovexattr, __NR_fsetxattr, __NR_fstat, __NR_fstatfs, __NR_fsync,
    __NR_ftruncate, __NR_futex, __NR_futex_requeue, __NR_futex_wait, __NR_futex_waitv, __NR_futex_wake,
    __NR_get_robust_list, __NR_getcpu, __NR_getcwd, __NR_getdents64, __NR_getegid, __NR_geteuid, __NR_getgid,
    __NR_getgroups, __NR_getitimer, __NR_getpeername, __NR_getpgid, __NR_getpid, __NR_getppid, __NR_getpriority,
    __NR_getrandom, __NR_getresgid, __NR_getresuid, __NR_getrlimit, __NR_getrusage, __NR_getsid, __NR_getsockname,
    __NR_getsockopt, __NR_gettid, __NR_gettimeofday, __NR_getuid, __NR_getxattr, __NR_getxattrat,
    __NR_inotify_add_watch, __NR_inotify_init1, __NR_inotify_rm_watch, __NR_io_cancel, __NR_io_destroy,
    __NR_io_getevents, __NR_io_pgetevents, __NR_io_setup, __NR_io_submit, __NR_ioctl, __NR_ioprio_get,
    __NR_ioprio_set, __NR_kill, __NR_landlock_add_rule, __NR_landlock_create_ruleset, __NR_landlock_restrict_self,
    __NR_lgetxattr, __NR_linkat, __NR_listen, __NR_listmount, __NR_listxattr, __NR_listxattrat, __NR_llistxattr,
    __NR_lremovexattr, __NR_lseek, __NR_lsetxattr, __NR_madvise, __NR_map_shadow_stack, __NR_membarrier,
    __NR_memfd_create, __NR_memfd_secret, __NR_mincore, __NR_mkdirat, __NR_mknodat, __NR_mlock, __NR_mlock2,
    __NR_mlockall, __NR_mmap, __NR_mprotect, __NR_mq_getsetattr, __NR_mq_notify, __NR_mq_open,
    __NR_mq_timedreceive, __NR_mq_timedsend, __NR_mq_unlink, __NR_mremap, __NR_mseal, __NR_msgctl, __NR_msgget,
    __NR_msgrcv, __NR_msgsnd, __NR_msync, __NR_munlock, __NR_munlockall, __NR_munmap, __NR_name_to_handle_at,
    __NR_nanosleep, __NR_newfstatat, __NR_openat, __NR_openat2, __NR_pidfd_open, __NR_pidfd_send_signal,
    __NR_pipe2, __NR_pkey_alloc, __NR_pkey_free, __NR_pkey_mprotect, __NR_ppoll, __NR_prctl, __NR_pread64,
    __NR_preadv, __NR_preadv2, __NR_prlimit64, __NR_process_mrelease, __NR_process_vm_readv,
    __NR_process_vm_writev, __NR_pselect6, __NR_ptrace, __NR_pwrite64, __NR_pwritev, __NR_pwritev2, __NR_read,
    __NR_readahead, __NR_readlinkat, __NR_readv, __NR_recvfrom, __NR_recvmmsg, __NR_recvmsg,
    __NR_remap_file_pages, __NR_removexattr, __NR_removexattrat, __NR_renameat, __NR_renameat2,
    __NR_restart_syscall, __NR_rseq, __NR_rt_sigaction, __NR_rt_sigpending, __NR_rt_sigprocmask,
    __NR_rt_sigqueueinfo, __NR_rt_sigreturn, __NR_rt_sigsuspend, __NR_rt_sigtimedwait, __NR_rt_tgsigqueueinfo,
    __NR_sched_get_priority_max, __NR_sched_get_priority_min, __NR_sched_getaffinity, __NR_sched_getattr,
    __NR_sched_getparam, __NR_sched_getscheduler, __NR_sched_rr_get_interval, __NR_sched_setaffinity,
    __NR_sched_setattr, __NR_sched_setparam, __NR_sched_setscheduler, __NR_sched_yield, __NR_seccomp, __NR_semctl,
    __NR_semget, __NR_semop, __NR_semtimedop, __NR_sendfile, __NR_sendmmsg, __NR_sendmsg, __NR_sendto,
    __NR_set_robust_list, __NR_set_tid_address, __NR_setfsgid, __NR_setfsuid, __NR_setgid, __NR_setgroups,
    __NR_setitimer, __NR_setpgid, __NR_setpriority, __NR_setregid, __NR_setresgid, __NR_setresuid, __NR_setreuid,
    __NR_setrlimit, __NR_setsid, __NR_setsockopt, __NR_setuid, __NR_setxattr, __NR_setxattrat, __NR_shmat,
    __NR_shmctl, __NR_shmdt, __NR_shmget, __NR_shutdown, __NR_sigaltstack, __NR_signalfd4, __NR_socketpair,
    __NR_splice, __NR_statfs, __NR_statmount, __NR_statx, __NR_symlinkat, __NR_sync, __NR_sync_file_range,
    __NR_syncfs, __NR_sysinfo, __NR_tee, __NR_tgkill, __NR_timer_create, __NR_timer_delete, __NR_timer_getoverrun,
    __NR_timer_gettime, __NR_timer_settime, __NR_timerfd_create, __NR_timerfd_gettime, __NR_timerfd_settime,
    __NR_times, __NR_tkill, __NR_truncate, __NR_umask, __NR_uname, __NR_unlinkat, __NR_utimensat, __NR_vmsplice,
    __NR_wait4, __NR_waitid, __NR_write, __NR_writev,
];

/// Allowed on this architecture: on x86-64 the calls that newer ones replace.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_HERE: &[u32] = &[
    __NR_access, __NR_alarm, __NR_arch_prctl, __NR_chmod, __NR_chown, __NR_creat, __NR_dup2, __NR_epoll_create,
    __NR_epoll_ctl_old, __NR_epoll_wait, __NR_epoll_wait_old, __NR_eventfd, __NR_fork, __NR_futimesat,
    __NR_get_thread_area, __NR_getdents, __NR_getpgrp, __NR_inotify_init, __NR_lchown, __NR_link, __NR_lstat,
    __NR_mkdir, __NR_mknod, __NR_modify_ldt, __NR_open, __NR_pause, __NR_pipe, __NR_poll, __NR_readlink,
    __NR_rename, __NR_rmdir, __NR_select, __NR_set_thread_area, __NR_signalfd, __NR_stat, __NR_symlink, __NR_time,
    __NR_unlink, __NR_uretprobe, __NR_utime, __NR_utimes, __NR_vfork,
];
#[cfg(target_arch = "aarch64")]
const ALLOWED_HERE: &[u32] = &[];

#[cfg(test)]
mod tests {
    use linux_exec::seccomp::profile::Architecture;
    use linux_raw_sys::ptrace::{AUDIT_ARCH_ARM, AUDIT_ARCH_I386};
    use test_inputs::seccomp::{Data, run};

    use super::*;

    const ALLOW: u32 = 0x7fff_0000;
    const KILL: u32 = 0x8000_0000;
    const EPERM: u32 = 0x0005_0001;
    const ENOSYS: u32 = 0x0005_0026;
    const HERE: u32 = Architecture::NATIVE.audit();

    fn judge(filter: &Filter, number: u32, argument: u64) -> u32 {
        run(&filter.program, &Data { number, arch: HERE, arguments: [argument, 0, 0, 0, 0, 0] }).0
    }

    fn with(names: &[&str]) -> Filter {
        filter(CapabilitySet(DOCKER_DEFAULT.0 | CapabilitySet::of(names).0))
    }

    #[test]
    fn what_programs_need_is_allowed_and_little_else() {
        let filter = with(&[]);
        for number in
            [__NR_read, __NR_write, __NR_execve, __NR_openat, __NR_futex, __NR_ptrace, __NR_chroot, __NR_setxattrat]
        {
            assert_eq!(judge(&filter, number, 0), ALLOW, "{number}");
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
            (__NR_socket, 1, ALLOW),
            (__NR_socket, 39, ALLOW),
            (__NR_socket, 41, ALLOW),
            (__NR_socket, 38, EPERM),
            (__NR_socket, 40, EPERM),
            (__NR_socket, 40 | high, EPERM),
            (__NR_socket, 11, ALLOW),
            (__NR_socket, 12, EPERM),
            (__NR_socket, 45, ALLOW),
            (__NR_socket, 46, EPERM),
            (__NR_socket, 0xffff_ffff, EPERM),
            (__NR_personality, 0, ALLOW),
            (__NR_personality, 8, ALLOW),
            (__NR_personality, 0x20008, ALLOW),
            (__NR_personality, 0xffff_ffff, ALLOW),
            (__NR_personality, 0x0040_0000, EPERM), // ADDR_NO_RANDOMIZE
            (__NR_clone, 17, ALLOW),
            (__NR_clone, 0x003d_0f00, ALLOW), // what a thread is made with
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
            assert_ne!(judge(&with(&[]), number, 0), ALLOW, "{number} by default");
            assert_eq!(judge(&with(names), number, 0), ALLOW, "{number} with {names:?}");
        }
        let namespaces = u64::from(CLONE_NEWUSER);
        assert_eq!(judge(&with(&["SYS_ADMIN"]), __NR_clone, namespaces), ALLOW);
        assert_eq!(judge(&filter(CapabilitySet(0)), __NR_chroot, 0), EPERM);
    }

    #[test]
    fn unknown_numbers_and_foreign_conventions() {
        let filter = with(&[]);
        for number in [__NR_removexattrat + 1, 1000, 0x4000_0000, 0x4000_0001, u32::MAX] {
            assert_eq!(judge(&filter, number, 0), ENOSYS, "{number:#x}");
        }
        for arch in [AUDIT_ARCH_I386, AUDIT_ARCH_ARM, 0] {
            assert_eq!(run(&filter.program, &Data { number: __NR_read, arch, arguments: [0; 6] }).0, KILL, "{arch:#x}");
        }
    }

    #[test]
    fn every_set_of_capabilities_fits() {
        let opening = OPENING.0;
        let mut set = opening;
        while set != 0 {
            assert!(!filter(CapabilitySet(set)).program.is_empty());
            set = (set - 1) & opening;
        }
    }

    #[test]
    fn precompiled_serves_what_it_can() {
        let net_admin = with(&["NET_ADMIN"]);
        assert!(matches!(net_admin.program, std::borrow::Cow::Borrowed(_)), "NET_ADMIN opens no system call");
        assert!(matches!(with(&["SYS_ADMIN"]).program, std::borrow::Cow::Owned(_)));
    }
}
