//! The system calls that no safe wrapper covers, each behind a safe function.
//!
//! This is the only module of the crate with `unsafe`. Nothing in here allocates but [`ExecStrings::new`] and
//! [`Stack::new`], so all of it may be called between clone and exec.
#![allow(unsafe_code, reason = "raw system calls: clone3, execve, seccomp, mount_setattr, and signal dispositions")]

mod interface;

pub(crate) use interface::{bring_loopback_up, make_tap};

use nix::libc;
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    io::{Errno, Result},
    mount::{MountAttrFlags, MountPropagationFlags},
};
use std::{
    ffi::{CStr, CString, c_char, c_int, c_long, c_void},
    mem::size_of,
    ptr,
    sync::atomic::Ordering,
    time::Duration,
};

/// The result of a call of the C library as an [`Errno`].
fn check(result: c_long) -> Result<c_long> {
    if result >= 0 {
        return Ok(result);
    }
    // Holds the number only: nothing is allocated.
    Err(Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)))
}

// --- clone3(2) -------------------------------------------------------------------------------------------------

/// `struct clone_args` of linux/sched.h, version 2.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// New namespaces of a process: the CLONE_NEW… bits of clone(2) and unshare(2), and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct NewNamespaces(c_int);

impl NewNamespaces {
    pub(crate) const MOUNT: Self = Self(libc::CLONE_NEWNS);
    pub(crate) const PID: Self = Self(libc::CLONE_NEWPID);
    pub(crate) const NETWORK: Self = Self(libc::CLONE_NEWNET);
    pub(crate) const IPC: Self = Self(libc::CLONE_NEWIPC);
    pub(crate) const UTS: Self = Self(libc::CLONE_NEWUTS);
    pub(crate) const CGROUP: Self = Self(libc::CLONE_NEWCGROUP);
    pub(crate) const TIME: Self = Self(0x80);
    pub(crate) const USER: Self = Self(libc::CLONE_NEWUSER);

    pub(crate) const fn and(self, other: Self, wanted: bool) -> Self {
        if wanted { Self(self.0 | other.0) } else { self }
    }
}

/// What a child is born into.
#[derive(Clone, Copy, Default)]
pub(crate) struct Birth<'a> {
    pub(crate) namespaces: NewNamespaces,
    /// A cgroup v2 directory.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// Whether it is a child of this process's parent, and not of this process.
    pub(crate) as_sibling: bool,
    /// Whether it opens and closes descriptors of this process.
    pub(crate) shares_descriptors: bool,
}

/// Whose memory a child sees.
pub(crate) enum Memory<'a> {
    /// This process's own, on another stack, while the calling thread waits for its exec or exit: nothing is copied.
    Shared(&'a mut Stack),
    /// A copy.
    Copied,
}

/// A child's pid as its parent counts, and a pidfd (close-on-exec).
pub(crate) struct Cloned {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

/// clone3(2); the child runs `child` and exits with what it returns.
///
/// With [`Memory::Shared`] the call returns when the child has executed a program or has ended. `child` should take no lock and allocate nothing: in a copy of a process
/// with several threads a lock can be held for ever.
pub(crate) fn clone(birth: Birth<'_>, memory: Memory<'_>, mut child: &mut dyn FnMut() -> u8) -> Result<Cloned> {
    let mut pidfd: c_int = -1;
    let mut args = CloneArgs {
        flags: flag(birth.namespaces.0 | libc::CLONE_PIDFD),
        pidfd: ptr::from_mut(&mut pidfd).expose_provenance() as u64,
        // A sibling has the caller's own (clone3(2): with CLONE_PARENT it must be 0).
        exit_signal: if birth.as_sibling { 0 } else { flag(libc::SIGCHLD) },
        ..CloneArgs::default()
    };
    args.flags |= if birth.as_sibling { flag(libc::CLONE_PARENT) } else { 0 };
    args.flags |= if birth.shares_descriptors { flag(libc::CLONE_FILES) } else { 0 };
    if let Memory::Shared(stack) = memory {
        args.flags |= flag(libc::CLONE_VM | libc::CLONE_VFORK);
        args.stack = stack.base.expose_provenance() as u64;
        args.stack_size = Stack::SIZE as u64;
    }
    if let Some(directory) = birth.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = flag(directory.as_raw_fd());
    }
    let argument = ptr::from_mut(&mut child).cast::<c_void>();
    // SAFETY: `args` is a valid clone_args whose pointers live on this frame. A child that shares memory gets a stack
    // of its own, which the exclusive borrow in `Memory::Shared` keeps alive and unused by others, and CLONE_VFORK
    // keeps this frame (with `child`) alive and this thread suspended until the child is done with both; so `child`
    // runs as if this thread had called it. A child with a copy has copies of all of that. `enter` never returns.
    let pid = unsafe { clone3(&args, enter, argument) };
    if pid < 0 {
        return Err(Errno::from_raw_os_error(i32::try_from(-pid).unwrap_or(libc::EINVAL)));
    }
    // SAFETY: clone3 succeeded with CLONE_PIDFD, so `pidfd` is a new descriptor that nothing else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned { pid: i32::try_from(pid).unwrap_or_default(), pidfd })
}

/// Not in `libc` as a flag of clone3 on every target (linux/sched.h).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A small non-negative C integer as the kernel's u64.
const fn flag(value: c_int) -> u64 {
    value.cast_unsigned() as u64
}

/// Where a child begins: `argument` points to a `&mut dyn FnMut() -> u8`.
extern "C" fn enter(argument: *mut c_void) -> ! {
    // SAFETY: `clone` passes the address of such a reference, and nothing else uses it while the child runs.
    let child = unsafe { &mut *argument.cast::<&mut dyn FnMut() -> u8>() };
    exit_now(child())
}

/// clone3, and in the child a call of `entry(argument)`, on the new stack if `args` names one. Returns the pid or
/// -errno.
///
/// # Safety
/// `args` must be valid for the kernel to read, `argument` must be what `entry` expects, and a stack in `args` must be
/// unused by anything else until the child has executed a program or ended.
unsafe fn clone3(args: &CloneArgs, entry: extern "C" fn(*mut c_void) -> !, argument: *mut c_void) -> c_long {
    let result: c_long;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as this function's contract says. The kernel keeps all registers but rax, rcx and r11; the child has its
    // stack pointer set by the kernel to the (16-byte aligned) top of the stack, or keeps a copy of this one, which is
    // aligned here, and never comes back from `entry`.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            // The child's frames end here, for who looks back along them (a backtrace of an error): what is above is another stack's.
            ".cfi_remember_state",
            ".cfi_undefined rip",
            "xor ebp, ebp",
            "and rsp, -16",
            "mov rdi, {argument}",
            "call {entry}",
            "ud2",
            ".cfi_restore_state",
            "2:",
            argument = in(reg) argument,
            entry = in(reg) entry,
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") ptr::from_ref(args),
            in("rsi") size_of::<CloneArgs>(),
            // Not `lateout`: these are lost before `entry` and `argument` are read.
            out("rcx") _,
            out("r11") _,
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above; the kernel keeps all registers but x0.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            ".cfi_remember_state",
            ".cfi_undefined x30",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, {argument}",
            "blr {entry}",
            "brk 1",
            ".cfi_restore_state",
            "2:",
            argument = in(reg) argument,
            entry = in(reg) entry,
            in("x8") libc::SYS_clone3,
            inlateout("x0") ptr::from_ref(args).expose_provenance() as c_long => result,
            in("x1") size_of::<CloneArgs>(),
        );
    }
    result
}

/// A stack for one child at a time, with a page below it that faults.
pub(crate) struct Stack {
    /// The lowest usable byte.
    base: *mut c_void,
}

impl Stack {
    /// Usable bytes; only what is touched costs memory.
    const SIZE: usize = 64 * 1024;
    /// At least a page of every architecture that runs Linux with 64 KiB pages too.
    const GUARD: usize = 64 * 1024;

    /// Maps a stack.
    pub(crate) fn new() -> Result<Self> {
        let length = Self::GUARD + Self::SIZE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_NONE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(check(-1).err().unwrap_or(Errno::NOMEM));
        }
        // SAFETY: GUARD is less than the mapping's length.
        let stack = Self { base: unsafe { start.byte_add(Self::GUARD) } };
        // SAFETY: the range is the upper part of the mapping made above, which nobody uses yet.
        check(unsafe { libc::mprotect(stack.base, Self::SIZE, libc::PROT_READ | libc::PROT_WRITE) }.into())?;
        Ok(stack)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: `new` mapped GUARD bytes below `base` in the same mapping.
        let start = unsafe { self.base.byte_sub(Self::GUARD) };
        // SAFETY: exactly the mapping of `new`; no child runs on it, as `clone` holds the borrow until it is done.
        unsafe { libc::munmap(start, Self::GUARD + Self::SIZE) };
    }
}

// --- exec and exit ---------------------------------------------------------------------------------------------

/// Strings in the form that execve(2) wants, made before the clone.
pub(crate) struct ExecStrings {
    /// What `pointers` point into. Never changed, so the heap blocks stay where they are.
    _strings: Vec<CString>,
    /// Ends with null.
    pointers: Vec<*const c_char>,
}

impl ExecStrings {
    /// Takes the strings.
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Self { _strings: strings, pointers }
    }
}

/// execveat(2) of the file that a descriptor is open on; comes back only with the reason why not.
pub(crate) fn execveat(program: BorrowedFd<'_>, argv: &ExecStrings, env: &ExecStrings) -> Errno {
    // SAFETY: all pointers are to strings that live as long as their owners, and both arrays end with null.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    check(result).err().unwrap_or(Errno::INVAL)
}

/// Ends this process without running any destructor or exit handler.
pub(crate) fn exit_now(code: u8) -> ! {
    // SAFETY: _exit has no precondition.
    unsafe { libc::_exit(code.into()) }
}

// --- signals ---------------------------------------------------------------------------------------------------

/// The kernel's signal set: bit n-1 for signal n.
type SignalSet = u64;

/// The highest signal number (asm/signal.h).
const LAST_SIGNAL: c_int = 64;

/// All signals of this thread are blocked while it lives, those that the C library keeps for itself too.
pub(crate) struct SignalsBlocked(SignalSet);

impl SignalsBlocked {
    /// Blocks them.
    pub(crate) fn new() -> Result<Self> {
        set_signal_mask(!0).map(Self)
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // Fails only for bad addresses.
        let _ = set_signal_mask(self.0);
    }
}

/// Replaces this thread's signal mask and returns what it was.
fn set_signal_mask(mask: SignalSet) -> Result<SignalSet> {
    let mut old: SignalSet = 0;
    // SAFETY: both pointers are to sets of the size that the last argument says.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            ptr::from_ref(&mask),
            ptr::from_mut(&mut old),
            size_of::<SignalSet>(),
        )
    };
    check(result).map(|_| old)
}

/// Blocks all signals, for a process that waits for them one by one.
pub(crate) fn block_all_signals() -> Result<()> {
    set_signal_mask(!0).map(drop)
}

/// Lets all signals through.
pub(crate) fn unblock_all_signals() -> Result<()> {
    set_signal_mask(0).map(drop)
}

/// `struct sigaction` as the kernel (not the C library) has it; long enough for every architecture, zero is SIG_DFL.
#[repr(C)]
struct KernelSigaction([u64; 4]);

/// Gives every signal its default action. In a child only: handlers of this process are lost.
pub(crate) fn reset_signal_actions() {
    let default = KernelSigaction([0; 4]);
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: `default` is as long as any architecture's kernel sigaction, and all zero means SIG_DFL with no
        // flags. SIGKILL and SIGSTOP are refused with EINVAL, which is what is wanted.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                ptr::from_ref(&default),
                ptr::null_mut::<KernelSigaction>(),
                size_of::<SignalSet>(),
            )
        };
    }
}

/// From now on each of `signals` ends this process with exit code 128 + n. The first process of a pid namespace would
/// ignore them otherwise (pid_namespaces(7)).
pub(crate) fn exit_on_signals(signals: &[c_int]) -> Result<()> {
    extern "C" fn on_signal(signal: c_int) {
        exit_now(u8::try_from(128 + signal).unwrap_or(u8::MAX));
    }
    for &signal in signals {
        // SAFETY: all zero is a valid sigaction: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = (on_signal as extern "C" fn(c_int)) as usize;
        // SAFETY: the handler only calls _exit, which is async-signal-safe.
        check(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) }.into())?;
    }
    Ok(())
}

/// From now on the first of `signals` to come sets [`crate::interrupt::CAME`]; each later one of the same kind does what it does by
/// default.
pub(crate) fn note_signals(signals: &[c_int]) -> Result<()> {
    extern "C" fn on_signal(_: c_int) {
        crate::interrupt::CAME.store(true, Ordering::Relaxed);
    }
    for &signal in signals {
        // SAFETY: all zero is a valid sigaction: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = (on_signal as extern "C" fn(c_int)) as usize;
        action.sa_flags = libc::SA_RESETHAND;
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        check(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) }.into())?;
    }
    Ok(())
}

/// pidfd_send_signal(2) with a number.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: c_int) -> Result<()> {
    // SAFETY: takes no pointers but the null one, which means the default siginfo.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, ptr::null::<()>(), 0) };
    check(result).map(drop)
}

/// What wait4(2) tells of a child and its children.
pub(crate) struct Waited {
    pub(crate) status: c_int,
    pub(crate) peak_rss_kib: u64,
    /// User and system time.
    pub(crate) cpu: Duration,
}

/// wait4(2) for one child, which is left alone (None) as long as it runs or a tracer holds it.
pub(crate) fn wait_if_ended(pid: i32) -> Result<Option<Waited>> {
    let mut status: c_int = 0;
    // SAFETY: rusage is plain numbers, for which zero is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live variables of the right types.
    let found = check(unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) }.into())?;
    Ok((found != 0).then(|| Waited {
        status,
        peak_rss_kib: u64::try_from(usage.ru_maxrss).unwrap_or_default(),
        cpu: duration(usage.ru_utime) + duration(usage.ru_stime),
    }))
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or_default())
}

// --- mounts and namespaces -------------------------------------------------------------------------------------

/// What mount_setattr(2) changes.
#[derive(Clone, Copy)]
pub(crate) struct MountChange<'a> {
    pub(crate) set: MountAttrFlags,
    pub(crate) clear: MountAttrFlags,
    pub(crate) propagation: MountPropagationFlags,
    /// A user namespace, for an idmapped mount.
    pub(crate) ids_of: Option<BorrowedFd<'a>>,
    /// On all mounts below as well.
    pub(crate) recursive: bool,
}

impl MountChange<'_> {
    /// Sets attributes on one mount.
    pub(crate) const fn set(set: MountAttrFlags) -> Self {
        let propagation = MountPropagationFlags::empty();
        Self { set, clear: MountAttrFlags::empty(), propagation, ids_of: None, recursive: false }
    }
}

/// mount_setattr(2) on the mount at `path` (relative to `directory`; empty for `directory` itself).
pub(crate) fn mount_setattr(directory: BorrowedFd<'_>, path: &CStr, change: MountChange<'_>) -> Result<()> {
    let ids = change.ids_of.map_or(0, |_| libc::MOUNT_ATTR_IDMAP);
    let attr = libc::mount_attr {
        attr_set: u64::from(change.set.bits()) | ids,
        attr_clr: change.clear.bits().into(),
        propagation: change.propagation.bits().into(),
        userns_fd: change.ids_of.map_or(0, |fd| flag(fd.as_raw_fd())),
    };
    let flags = libc::AT_EMPTY_PATH | if change.recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `path` ends with NUL, and `attr` is a mount_attr of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory.as_raw_fd(),
            path.as_ptr(),
            flags,
            ptr::from_ref(&attr),
            size_of::<libc::mount_attr>(),
        )
    };
    check(result).map(drop)
}

/// unshare(2) of namespaces. The cgroup that this process is in now becomes the root that it sees in a new cgroup namespace; a new time
/// namespace is entered by the next exec.
pub(crate) fn unshare(namespaces: NewNamespaces) -> Result<()> {
    // SAFETY: no memory or descriptors are concerned, as only bits of namespaces can be given.
    check(unsafe { libc::unshare(namespaces.0) }.into()).map(drop)
}

/// keyctl(2), KEYCTL_JOIN_SESSION_KEYRING without a name: a new session keyring.
pub(crate) fn new_session_keyring() -> Result<()> {
    const JOIN_SESSION_KEYRING: c_long = 1;
    // SAFETY: without a name nothing is read; only this process's credentials change.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, ptr::null::<u8>()) }).map(drop)
}

// --- limits and descriptors ------------------------------------------------------------------------------------

/// setrlimit(2) with a resource's number; u64::MAX is unlimited.
pub(crate) fn set_resource_limit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is what prlimit64 reads, and it writes nothing as the last argument is null.
    let result = unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, ptr::from_ref(&limit), ptr::null_mut::<libc::rlimit64>())
    };
    check(result).map(drop)
}

/// close_range(2) from `first` to `last`. In a child only: what owns these descriptors must not use them any more.
pub(crate) fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: called in a child, right before the code that replaces it and owns none of them; see `Entry::Call`.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Marks all descriptors above standard error close-on-exec, whoever opened them.
pub(crate) fn close_all_on_exec() -> Result<()> {
    // SAFETY: changes a flag that matters only to exec.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }).map(drop)
}

// --- seccomp ---------------------------------------------------------------------------------------------------

/// seccomp(2) SECCOMP_SET_MODE_FILTER with its flags. Each word of `program` is a `struct sock_filter` in memory order.
pub(crate) fn install_seccomp_filter(program: &[u64], flags: u32) -> Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::INVAL)?,
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: `filter` points to `len` words of eight bytes, the size of sock_filter, with a greater alignment; the
    // kernel copies and verifies them.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, ptr::from_ref(&program)) };
    // With TSYNC, the id of a thread that has other filters.
    if check(result)? > 0 { Err(Errno::BUSY) } else { Ok(()) }
}

/// bpf(2): loads a program of type BPF_PROG_TYPE_CGROUP_DEVICE, each word a `struct bpf_insn` in memory order, and attaches it to
/// a cgroup v2 directory, beside those that are there; it goes with the cgroup.
pub(crate) fn restrict_devices(cgroup: BorrowedFd<'_>, program: &[u64]) -> Result<()> {
    const PROG_LOAD: c_int = 5;
    const PROG_ATTACH: c_int = 8;
    const CGROUP_DEVICE_PROGRAM: u32 = 15;
    const CGROUP_DEVICE: u32 = 6;
    const ALLOW_MULTI: u32 = 2;
    /// The first fields of `union bpf_attr` for BPF_PROG_LOAD (linux/bpf.h).
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log: [u64; 2],
        version_and_flags: [u32; 2],
    }
    let load = Load {
        kind: CGROUP_DEVICE_PROGRAM,
        count: u32::try_from(program.len()).map_err(|_| Errno::TOOBIG)?,
        instructions: program.as_ptr().expose_provenance() as u64,
        license: c"".as_ptr().expose_provenance() as u64,
        log: [0; 2],
        version_and_flags: [0; 2],
    };
    // SAFETY: `load` is the beginning of a bpf_attr of the size given, and what it points to outlives the call.
    let loaded = check(unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, ptr::from_ref(&load), size_of::<Load>()) })?;
    // SAFETY: a new descriptor that nothing else owns.
    let loaded = unsafe { OwnedFd::from_raw_fd(i32::try_from(loaded).unwrap_or(-1)) };
    let attach = [cgroup.as_raw_fd().cast_unsigned(), loaded.as_raw_fd().cast_unsigned(), CGROUP_DEVICE, ALLOW_MULTI];
    // SAFETY: BPF_PROG_ATTACH reads four words of 32 bits.
    check(unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, attach.as_ptr(), size_of_val(&attach)) }).map(drop)
}

/// The inode number of the initial user namespace (PROC_USER_INIT_INO of linux/proc_ns.h).
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// Whether this process is in a user namespace other than the initial one.
pub(crate) fn in_user_namespace() -> bool {
    rustix::fs::stat(c"/proc/self/ns/user").is_ok_and(|stat| stat.st_ino != INITIAL_USER_NAMESPACE)
}

/// Duplicates a descriptor to one above standard error, close-on-exec.
pub(crate) fn above_stdio(fd: OwnedFd) -> Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), 3)
}
