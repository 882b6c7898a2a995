//! Which system calls Docker's default profile allows, and which capability opens which.
//!
//! Names that exist on 32-bit machines only are left out. Numbers come from the kernel's headers by way of `linux_raw_sys`.

use crate::capabilities::CapabilitySet;
use linux_raw_sys::general::*;

/// What a filter does with a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Action {
    /// EPERM.
    Refuse,
    /// ENOSYS.
    Unknown,
    /// Goes ahead.
    Allow,
    /// `socket`: goes ahead but for [`REFUSED_FAMILIES`] and what is newer than [`NEWEST_FAMILY`].
    AllowFamilies,
    /// `personality`: goes ahead for [`PERSONALITIES`].
    AllowPersonalities,
    /// `clone`: goes ahead where none of [`NAMESPACES`] is asked for.
    AllowWithoutNamespaces,
    /// `clone`: goes ahead for a thread, that is with CLONE_THREAD.
    AllowThread,
    /// `sendto`: goes ahead without [`FAST_OPEN`].
    AllowPlainSend,
    /// `ioctl`: goes ahead for [`PLAIN_REQUESTS`].
    AllowPlainRequests,
}

/// One more than the newest number that the profile knows.
pub(super) const TABLE_LEN: usize = __NR_removexattrat as usize + 1;

/// The default set as a constant.
pub(super) const DOCKER_DEFAULT: CapabilitySet = CapabilitySet::of(&crate::capabilities::DOCKER_DEFAULT);

/// The capabilities that open any system call.
pub(super) const OPENING: CapabilitySet = {
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
pub(super) const REFUSED_FAMILIES: [u32; 9] = [12, 19, 20, 23, 25, 34, 37, 38, 40];

/// AF_MCTP, the last one in that list.
pub(super) const NEWEST_FAMILY: u32 = 45;

/// PER_LINUX and PER_LINUX32, each with and without UNAME26, and the question which one it is.
pub(super) const PERSONALITIES: [u32; 5] = [0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// `clone`'s flags for new namespaces.
pub(super) const NAMESPACES: u32 =
    CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP;

/// MSG_FASTOPEN of `linux/socket.h`: a TCP socket that is not connected connects as it sends.
pub(super) const FAST_OPEN: u32 = 0x2000_0000;

/// What any descriptor can be asked, and nothing of networks: TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX (ioctl_tty(2)).
pub(super) const PLAIN_REQUESTS: [u32; 6] = [0x5401, 0x5413, 0x541b, 0x5421, 0x5450, 0x5451];

/// The action for each number, for a container with these capabilities.
pub(super) const fn actions(capabilities: CapabilitySet) -> [Action; TABLE_LEN] {
    let mut table = [Action::Refuse; TABLE_LEN];
    set(&mut table, ALLOWED, Action::Allow);
    set(&mut table, ALLOWED_HERE, Action::Allow);
    table[__NR_socket as usize] = Action::AllowFamilies;
    table[__NR_personality as usize] = Action::AllowPersonalities;
    table[__NR_clone as usize] = Action::AllowWithoutNamespaces;
    table[__NR_clone3 as usize] = Action::Unknown;
    let mut index = 0;
    while index < OPENED.len() {
        let (capability, numbers) = OPENED[index];
        if capabilities.0 & capability.0 != 0 {
            set(&mut table, numbers, Action::Allow);
        }
        index += 1;
    }
    table
}

pub(super) const fn set(table: &mut [Action; TABLE_LEN], numbers: &[u32], action: Action) {
    let mut index = 0;
    while index < numbers.len() {
        table[numbers[index] as usize] = action;
        index += 1;
    }
}

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
