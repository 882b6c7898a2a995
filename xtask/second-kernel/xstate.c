/* Lets user-mode-linux 6.1 run on processors with AMX; loaded into it by LD_PRELOAD.
 *
 * UML keeps 2,696 bytes of a process's extended registers, all up to AVX-512 and protection keys. Where the processor
 * has more of them, the kernel takes only the whole state (PTRACE_SETREGSET, NT_X86_XSTATE: EFAULT for a shorter one),
 * and UML panics at its first process. Here the rest is filled up with what the process has: the AMX tiles, which no
 * guest can use. */
#define _GNU_SOURCE
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* Static, as UML calls from small stacks; it never calls from two threads at once. */
static char whole_state[64 * 1024];

static long set_extended_registers(pid_t process, void *kind, struct iovec *given) {
    struct iovec whole = {whole_state, sizeof whole_state};
    if (syscall(SYS_ptrace, PTRACE_GETREGSET, process, kind, &whole) != 0 || whole.iov_len <= given->iov_len)
        return syscall(SYS_ptrace, PTRACE_SETREGSET, process, kind, given);
    memcpy(whole_state, given->iov_base, given->iov_len);
    return syscall(SYS_ptrace, PTRACE_SETREGSET, process, kind, &whole);
}

long ptrace(enum __ptrace_request request, ...) {
    va_list arguments;
    va_start(arguments, request);
    pid_t process = va_arg(arguments, pid_t);
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);
    if (request == PTRACE_SETREGSET && address == (void *)NT_X86_XSTATE)
        return set_extended_registers(process, address, data);
    /* The three PEEK requests return what the system call writes, as in the C library's own wrapper. */
    if (request != PTRACE_PEEKTEXT && request != PTRACE_PEEKDATA && request != PTRACE_PEEKUSER)
        return syscall(SYS_ptrace, request, process, address, data);
    long word;
    return syscall(SYS_ptrace, request, process, address, &word) < 0 ? -1 : word;
}
