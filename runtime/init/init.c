/* The first process of a container with --init, or with a --ulimit that ends programs by a signal: the first process of
 * a pid namespace ignores such signals (pid_namespaces(7)), so there the program must be the second.
 *
 *   init REPORT PROGRAM ARGUMENTS…
 *
 * starts PROGRAM in a process group of its own, passes signals on to it, reaps whoever is left behind, and ends as the
 * program does: with its exit code, or with 128 + n for signal n. It writes which signal that was to the descriptor
 * REPORT, as {"signal":n}, or {"signal":null}.
 *
 * It needs no library. It is executed from a sealed file in memory, as /proc/1/exe leads to it from inside.
 */

#include "../freestanding.h"

typedef unsigned long long signal_set;

#define STDIN 0
#define STDERR 2
#define ALL_SIGNALS (~(signal_set)0)
#define SIG_BLOCK 0
#define SIG_SETMASK 2
#define SIGCHLD 17
#define WNOHANG 1
#define F_SETFD 2
#define FD_CLOEXEC 1
#define SFD_CLOEXEC 02000000
#define TIOCSPGRP 0x5410
#define PR_SET_NAME 15
#define ENOENT 2
#define NOT_FOUND 127
#define NOT_EXECUTABLE 126

#if defined(__x86_64__)
enum {
    SYS_READ = 0,
    SYS_WRITE = 1,
    SYS_RT_SIGPROCMASK = 14,
    SYS_IOCTL = 16,
    SYS_GETPID = 39,
    SYS_CLONE = 56,
    SYS_EXECVE = 59,
    SYS_WAIT4 = 61,
    SYS_KILL = 62,
    SYS_FCNTL = 72,
    SYS_SETPGID = 109,
    SYS_PRCTL = 157,
    SYS_EXIT_GROUP = 231,
    SYS_SIGNALFD4 = 289,
};

#else
enum {
    SYS_READ = 63,
    SYS_WRITE = 64,
    SYS_RT_SIGPROCMASK = 135,
    SYS_IOCTL = 29,
    SYS_GETPID = 172,
    SYS_CLONE = 220,
    SYS_EXECVE = 221,
    SYS_WAIT4 = 260,
    SYS_KILL = 129,
    SYS_FCNTL = 25,
    SYS_SETPGID = 154,
    SYS_PRCTL = 167,
    SYS_EXIT_GROUP = 94,
    SYS_SIGNALFD4 = 74,
};

#endif

static _Noreturn void end(int code) {
    for (;;)
        call(SYS_EXIT_GROUP, (word)code, 0, 0, 0, 0, 0);
}

static word length(const char *text) {
    word count = 0;
    while (text[count])
        count++;
    return count;
}

static void say(int descriptor, const char *text) { call(SYS_WRITE, (word)descriptor, (word)text, length(text), 0, 0, 0); }

static int number(const char *digits) {
    int value = 0;
    while (*digits)
        value = value * 10 + (*digits++ - '0');
    return value;
}

/* At most two digits, as there are 64 signals. */
static void report(int descriptor, int signal) {
    char text[] = "{\"signal\":00}";
    const word tens = sizeof "{\"signal\":" - 1;
    if (signal == 0) {
        say(descriptor, "{\"signal\":null}");
        return;
    }
    text[tens] = (char)(signal < 10 ? ' ' : '0' + signal / 10);
    text[tens + 1] = (char)('0' + signal % 10);
    say(descriptor, text);
}

static _Noreturn void become(char **words, char **environment) {
    const char *program = words[0];
    long error;
    call(SYS_SETPGID, 0, 0, 0, 0, 0, 0);
    int own = (int)call(SYS_GETPID, 0, 0, 0, 0, 0, 0);
    /* Fails where there is no terminal. SIGTTOU is blocked. */
    call(SYS_IOCTL, STDIN, TIOCSPGRP, (word)&own, 0, 0, 0);
    signal_set none = 0;
    call(SYS_RT_SIGPROCMASK, SIG_SETMASK, (word)&none, 0, sizeof none, 0, 0);
    error = -call(SYS_EXECVE, (word)program, (word)(words + 1), (word)environment, 0, 0, 0);
    say(STDERR, "amphora: cannot execute ");
    say(STDERR, program);
    say(STDERR, error == ENOENT ? ": the interpreter that it needs is missing\n" : ": it is not a program for this machine\n");
    end(error == ENOENT ? NOT_FOUND : NOT_EXECUTABLE);
}

/* Whether the program has ended; its status is stored then. */
static int reap(int program, int *status) {
    for (;;) {
        int found = 0;
        long pid = call(SYS_WAIT4, (word)-1, (word)&found, WNOHANG, 0, 0, 0);
        if (pid == program) {
            *status = found;
            return 1;
        }
        if (pid <= 0)
            return 0;
    }
}

__attribute__((used)) _Noreturn void begin(const word *stack) {
    char **arguments = (char **)(stack + 1);
    char **environment = arguments + stack[0] + 1;
    int descriptor = number(arguments[1]), status = 0;
    signal_set all = ALL_SIGNALS;
    /* struct signalfd_siginfo; the first number is the signal's. */
    unsigned information[32];

    /* Otherwise it would be that of the file in memory. */
    call(SYS_PRCTL, PR_SET_NAME, (word)arguments[0], 0, 0, 0, 0);
    call(SYS_FCNTL, (word)descriptor, F_SETFD, FD_CLOEXEC, 0, 0, 0);
    call(SYS_RT_SIGPROCMASK, SIG_BLOCK, (word)&all, 0, sizeof all, 0, 0);
    /* They stay blocked, which shows whoever looks from outside that they are not lost. */
    long signals = call(SYS_SIGNALFD4, (word)-1, (word)&all, sizeof all, SFD_CLOEXEC, 0, 0);
    long program = call(SYS_CLONE, SIGCHLD, 0, 0, 0, 0, 0);
    if (program == 0)
        become(arguments + 2, environment);
    if (program < 0 || signals < 0) {
        say(STDERR, "amphora: cannot start the program: too many processes, or too little memory\n");
        end(NOT_EXECUTABLE);
    }
    for (;;) {
        if (call(SYS_READ, (word)signals, (word)information, sizeof information, 0, 0, 0) != sizeof information)
            continue;
        if (information[0] != SIGCHLD)
            call(SYS_KILL, (word)program, information[0], 0, 0, 0, 0);
        else if (reap((int)program, &status))
            break;
    }
    int killed_by = status & 0x7f;
    report(descriptor, killed_by);
    end(killed_by ? 128 + killed_by : status >> 8 & 0xff);
}
