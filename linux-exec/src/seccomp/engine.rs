//! Which system calls a program needs that an engine in the process itself runs: files, memory, time, threads.

use super::{
    Sockets,
    table::{Check, Table, Verdict},
};
use linux_raw_sys::general::*;

/// MSG_FASTOPEN of `linux/socket.h`: a TCP socket that is not connected connects as it sends.
const FAST_OPEN: u32 = 0x2000_0000;

/// What any descriptor can be asked, and nothing of networks: TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX (ioctl_tty(2)).
const PLAIN_REQUESTS: &[u32] = &[0x5401, 0x5413, 0x541b, 0x5421, 0x5450, 0x5451];

/// AF_INET and AF_INET6 (`linux/socket.h`).
const INTERNET: &[u32] = &[2, 10];

/// SOCK_STREAM and SOCK_DGRAM, each with and without SOCK_NONBLOCK and SOCK_CLOEXEC: no packets that the kernel does not make.
const TRANSPORTS: &[u32] = &[1, 2, 0x801, 0x802, 0x8_0001, 0x8_0002, 0x8_0801, 0x8_0802];

/// The verdict on each call.
pub(super) const fn table(sockets: Sockets) -> Table {
    let table = Table::refusing().with(ALLOWED, Verdict::Allow).with(ALLOWED_HERE, Verdict::Allow);
    let table = match sockets {
        Sockets::None => table,
        Sockets::Accepted => table
            .with(SERVING, Verdict::Allow)
            .with(&[__NR_sendto], Verdict::AllowIf(3, Check::NoBit(FAST_OPEN)))
            .with(&[__NR_ioctl], Verdict::AllowIf(1, Check::OneOf(PLAIN_REQUESTS))),
        Sockets::Outbound => internet(table),
        Sockets::All => internet(table).with(&[__NR_listen], Verdict::Allow),
    };
    table.with(&[__NR_clone], Verdict::AllowIf(0, Check::AnyBit(CLONE_THREAD))).with(&[__NR_clone3], Verdict::Unknown)
}

/// Sockets of TCP and UDP, and what it takes to connect by them.
const fn internet(table: Table) -> Table {
    table
        .with(SERVING, Verdict::Allow)
        .with(CONNECTING, Verdict::Allow)
        .with(&[__NR_socket], Verdict::AllowIfBoth((0, INTERNET), (1, Check::OneOf(TRANSPORTS))))
        .with(&[__NR_ioctl], Verdict::AllowIf(1, Check::OneOf(PLAIN_REQUESTS)))
}

/// What WASI's files, clocks, random numbers and polling, the engine's memory and the C library's threads come down to. No
/// program is executed, no process made or signalled, no identity, mode or owner changed, nothing mounted.
///
/// Calls that do no more than their neighbours by number are here too: each gap takes instructions, and putting a filter of
/// two hundred of them in place takes a twentieth of a start.
#[rustfmt::skip]
const ALLOWED: &[u32] = &[
    __NR_brk, __NR_chdir, __NR_clock_getres, __NR_clock_gettime, __NR_clock_nanosleep, __NR_close, __NR_close_range,
    __NR_copy_file_range, __NR_dup, __NR_dup3, __NR_epoll_create1, __NR_epoll_ctl, __NR_epoll_pwait, __NR_eventfd2,
    __NR_exit, __NR_exit_group, __NR_faccessat, __NR_faccessat2, __NR_fadvise64, __NR_fallocate, __NR_fchdir,
    __NR_fcntl, __NR_fdatasync, __NR_flock, __NR_fstat, __NR_fsync, __NR_ftruncate, __NR_futex, __NR_getcwd,
    __NR_getdents64, __NR_getitimer, __NR_getpid, __NR_getrandom, __NR_getrlimit, __NR_getrusage, __NR_gettid,
    __NR_gettimeofday, __NR_ioctl, __NR_linkat, __NR_lseek, __NR_madvise, __NR_membarrier, __NR_memfd_create,
    __NR_mincore, __NR_mkdirat, __NR_mlock2, __NR_mmap, __NR_mprotect, __NR_mremap, __NR_msync, __NR_munmap,
    __NR_nanosleep, __NR_newfstatat, __NR_openat, __NR_openat2, __NR_pipe2, __NR_ppoll, __NR_pread64, __NR_preadv,
    __NR_preadv2, __NR_pselect6, __NR_pwrite64, __NR_pwritev, __NR_pwritev2, __NR_read, __NR_readlinkat,
    __NR_readv, __NR_renameat, __NR_renameat2, __NR_restart_syscall, __NR_rseq, __NR_rt_sigaction,
    __NR_rt_sigprocmask, __NR_rt_sigreturn, __NR_sched_getaffinity, __NR_sched_yield, __NR_sendfile,
    __NR_set_robust_list, __NR_setitimer, __NR_sigaltstack, __NR_signalfd4, __NR_statx, __NR_symlinkat,
    __NR_sysinfo, __NR_tgkill, __NR_timerfd_create, __NR_timerfd_gettime, __NR_timerfd_settime, __NR_times,
    __NR_truncate, __NR_unlinkat, __NR_utimensat, __NR_write, __NR_writev,
];

/// The calls that newer ones replace.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_HERE: &[u32] = &[
    __NR_access, __NR_alarm, __NR_creat, __NR_dup2, __NR_epoll_wait, __NR_eventfd, __NR_getdents, __NR_link,
    __NR_lstat, __NR_mkdir, __NR_open, __NR_pause, __NR_pipe, __NR_poll, __NR_readlink, __NR_rename, __NR_rmdir,
    __NR_select, __NR_signalfd, __NR_stat, __NR_symlink, __NR_unlink,
];
#[cfg(target_arch = "aarch64")]
const ALLOWED_HERE: &[u32] = &[];

/// What it takes to accept at a socket that somebody else opened, and to talk to who came. A socket of these can be made to lead
/// elsewhere in one way only, which is judged: shut down, it is as new, and then connects as it sends. What else a socket can be
/// asked for by ioctl, of the devices and addresses of its network, is none of a server's business.
const SERVING: &[u32] =
    &[__NR_accept4, __NR_getpeername, __NR_getsockname, __NR_getsockopt, __NR_recvfrom, __NR_shutdown];

/// What it takes to connect, and to ask a name server, besides what it takes to serve. Nothing that hands over descriptors, and nothing
/// that listens.
const CONNECTING: &[u32] = &[__NR_bind, __NR_connect, __NR_sendto, __NR_setsockopt];
