/* The last thing that a container's process is before it is the container's program. It is executed from a sealed file in
 * memory, so that the process never has a file of the host behind its /proc/PID/exe while it looks for the program: a
 * program that is, or becomes, a link to /proc/self/exe leads here and to nothing else (CVE-2019-5736).
 *
 *   "\n" MODE START STEP EXTRA HOLD COUNT PROGRAM… ARGUMENTS…
 *
 * MODE
 *   e      becomes the first of the COUNT programs that can be executed.
 *   i      stays the first process and starts the program as the second, in a process group of its own: the first one of a
 *          pid namespace ignores the signals of some limits (pid_namespaces(7)). It passes signals on, reaps whoever is left
 *          behind, and ends as the program does: with its exit code, or with 128 + n for signal n. It writes which signal
 *          that was to the descriptor EXTRA, as {"signal":n}, or {"signal":null}.
 *   j      starts the program as a sibling, and ends. The sibling is the first that the processes of the container can see,
 *          and is confined as they are. EXTRA is the sum of 1 if its standard input is a terminal that it is to control, and of 2
 *          if it dies with its parent.
 *
 * START is where failure is told, as two numbers of 32 bits: STEP and the errno, or STEP + 1 and the errno where no process
 * could be made; and in `j` the number -1 with the sibling's pid. It is closed when the program is executed.
 *
 * HOLD is 0, or a descriptor: the program begins when a byte can be read from it, and does not if that is at its end. The number -3
 * is told before.
 *
 * All signals are blocked where MODE is `i`, and none is in the other modes.
 *
 * It needs no library.
 */

#include "freestanding.h"

typedef unsigned long long signal_set;

#define STDIN 0
#define STDERR 2
#define ALL_SIGNALS (~(signal_set)0)
#define SIG_SETMASK 2
#define SIGKILL 9
#define SIGCHLD 17
#define WNOHANG 1
#define F_SETFD 2
#define FD_CLOEXEC 1
#define SFD_CLOEXEC 02000000
#define CLONE_PARENT 0x00008000
#define POLLIN 1
#define TIOCSCTTY 0x540e
#define TIOCSPGRP 0x5410
#define POLLERR 8
#define PR_SET_PDEATHSIG 1
#define PR_SET_DUMPABLE 4
#define PR_SET_NAME 15
#define ENOENT 2
#define EINTR 4
#define EAGAIN 11
#define EACCES 13
#define ENOTDIR 20
#define EPIPE 32
#define NOT_BEGUN 125
#define NOT_EXECUTABLE 126
#define TERMINAL 1
#define DIES_WITH_PARENT 2
/* The words before the programs. */
#define FIRST_PROGRAM 7

#if defined(__x86_64__)
enum {
    SYS_READ = 0,
    SYS_WRITE = 1,
    SYS_CLOSE = 3,
    SYS_RT_SIGPROCMASK = 14,
    SYS_IOCTL = 16,
    SYS_GETPID = 39,
    SYS_CLONE = 56,
    SYS_EXECVE = 59,
    SYS_WAIT4 = 61,
    SYS_KILL = 62,
    SYS_FCNTL = 72,
    SYS_SETPGID = 109,
    SYS_SETSID = 112,
    SYS_PRCTL = 157,
    SYS_EXIT_GROUP = 231,
    SYS_PPOLL = 271,
    SYS_SIGNALFD4 = 289,
};

#else
enum {
    SYS_READ = 63,
    SYS_WRITE = 64,
    SYS_CLOSE = 57,
    SYS_RT_SIGPROCMASK = 135,
    SYS_IOCTL = 29,
    SYS_GETPID = 172,
    SYS_CLONE = 220,
    SYS_EXECVE = 221,
    SYS_WAIT4 = 260,
    SYS_KILL = 129,
    SYS_FCNTL = 25,
    SYS_SETPGID = 154,
    SYS_SETSID = 157,
    SYS_PRCTL = 167,
    SYS_EXIT_GROUP = 94,
    SYS_PPOLL = 73,
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

/* What its words say. */
struct order {
    char mode;
    int start, step, extra, hold, count;
    char *words, **programs, **arguments, **environment;
};

static void tell(const struct order *order, int first, long second) {
    int message[2] = {first, (int)second};
    call(SYS_WRITE, (word)order->start, (word)message, sizeof message, 0, 0, 0);
}

static _Noreturn void fail(const struct order *order, int step, long error) {
    signal_set all = ALL_SIGNALS;
    /* Nobody may be there to be told. */
    call(SYS_RT_SIGPROCMASK, SIG_SETMASK, (word)&all, 0, sizeof all, 0, 0);
    tell(order, step, error);
    end(NOT_EXECUTABLE);
}

static void wait_for_word(const struct order *order) {
    struct {
        int descriptor;
        short wanted, found;
    } held = {order->hold, POLLIN, 0};
    char byte;
    long got;

    if (!order->hold)
        return;
    tell(order, -3, 0);
    do {
        call(SYS_PPOLL, (word)&held, 1, 0, 0, 0, 0);
        got = call(SYS_READ, (word)order->hold, (word)&byte, 1, 0, 0, 0);
    } while (got == -EAGAIN || got == -EINTR);
    if (got != 1)
        end(NOT_BEGUN);
}

/* One program after the other as execvp(3) does: one without permission is remembered, but another may do. */
static _Noreturn void become(const struct order *order) {
    long remembered = ENOENT;
    for (int index = 0; index < order->count; index++) {
        const char *program = order->programs[index];
        long error = -call(SYS_EXECVE, (word)program, (word)order->arguments, (word)order->environment, 0, 0, 0);
        if (error == EACCES)
            remembered = EACCES;
        else if ((error != ENOENT && error != ENOTDIR) || order->count == 1)
            fail(order, order->step, error);
    }
    fail(order, order->step, remembered);
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

/* The second process: its group is the terminal's. */
static _Noreturn void second(const struct order *order) {
    signal_set none = 0;
    call(SYS_SETPGID, 0, 0, 0, 0, 0, 0);
    int own = (int)call(SYS_GETPID, 0, 0, 0, 0, 0, 0);
    /* Fails where there is no terminal. SIGTTOU is blocked. */
    call(SYS_IOCTL, STDIN, TIOCSPGRP, (word)&own, 0, 0, 0);
    call(SYS_RT_SIGPROCMASK, SIG_SETMASK, (word)&none, 0, sizeof none, 0, 0);
    become(order);
}

/* All words lie one behind the other: the orders, which take more than that, become a name. */
static void rename_words(const struct order *order) {
    const char *name = "amphora-init";
    for (char *byte = order->words; byte < order->programs[0]; byte++)
        *byte = *name ? *name++ : 0;
}

static _Noreturn void init(const struct order *order) {
    signal_set all = ALL_SIGNALS;
    int status = 0;
    /* struct signalfd_siginfo; the first number is the signal's. */
    unsigned information[32];

    /* Otherwise it would be that of the file in memory, and the orders would be its arguments. */
    call(SYS_PRCTL, PR_SET_NAME, (word) "amphora-init", 0, 0, 0, 0);
    rename_words(order);
    /* The program, which may be root here too, must not get at its pipe by /proc/1/fd, nor trace it into a false end. It is
       executed, and by that has a memory of its own again. */
    call(SYS_PRCTL, PR_SET_DUMPABLE, 0, 0, 0, 0, 0);
    call(SYS_FCNTL, (word)order->extra, F_SETFD, FD_CLOEXEC, 0, 0, 0);
    /* They stay blocked, which shows whoever looks from outside that they are not lost. */
    long signals = call(SYS_SIGNALFD4, (word)-1, (word)&all, sizeof all, SFD_CLOEXEC, 0, 0);
    wait_for_word(order);
    long program = call(SYS_CLONE, SIGCHLD, 0, 0, 0, 0, 0);
    if (program == 0)
        second(order);
    if (program < 0 || signals < 0)
        fail(order, order->step + 1, program < 0 ? -program : -signals);
    call(SYS_CLOSE, (word)order->start, 0, 0, 0, 0, 0);
    for (;;) {
        if (call(SYS_READ, (word)signals, (word)information, sizeof information, 0, 0, 0) != sizeof information)
            continue;
        if (information[0] != SIGCHLD)
            call(SYS_KILL, (word)program, information[0], 0, 0, 0, 0);
        else if (reap((int)program, &status))
            break;
    }
    int killed_by = status & 0x7f;
    report(order->extra, killed_by);
    end(killed_by ? 128 + killed_by : status >> 8 & 0xff);
}

/* The parent's death after this is a SIGKILL; its death before this has closed the other end of START. */
static void die_with_parent(const struct order *order) {
    struct {
        int descriptor;
        short wanted, found;
    } other_end = {order->start, 0, 0};
    struct {
        long seconds, nanoseconds;
    } at_once = {0, 0};
    call(SYS_PRCTL, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0, 0);
    if (call(SYS_PPOLL, (word)&other_end, 1, (word)&at_once, 0, 0, 0) > 0 && other_end.found & POLLERR)
        fail(order, order->step, EPIPE);
}

static void take_terminal(const struct order *order) {
    long error = -call(SYS_IOCTL, STDIN, TIOCSCTTY, 0, 0, 0, 0);
    if (error > 0)
        fail(order, order->step + 1, error);
}

static _Noreturn void join(const struct order *order) {
    long program = call(SYS_CLONE, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0, 0);
    if (program == 0) {
        if (order->extra & DIES_WITH_PARENT)
            die_with_parent(order);
        call(SYS_SETSID, 0, 0, 0, 0, 0, 0);
        if (order->extra & TERMINAL)
            take_terminal(order);
        wait_for_word(order);
        become(order);
    }
    if (program < 0)
        fail(order, order->step + 1, -program);
    tell(order, -1, program);
    end(0);
}

/* Whoever else executes it has followed a link to the /proc/PID/exe of a process that is about to become a program. */
static _Noreturn void not_meant(void) {
    say(STDERR, "amphora: what is to be executed is a link to /proc/self/exe, which is no program here\n");
    end(NOT_EXECUTABLE);
}

__attribute__((used)) _Noreturn void begin(const word *stack) {
    char **words = (char **)(stack + 1);
    int have = (int)stack[0];
    struct order order;

    if (have <= FIRST_PROGRAM || words[0][0] != '\n')
        not_meant();
    order.words = words[0];
    order.mode = words[1][0];
    order.start = number(words[2]);
    order.step = number(words[3]);
    order.extra = number(words[4]);
    order.hold = number(words[5]);
    order.count = number(words[6]);
    order.programs = words + FIRST_PROGRAM;
    order.arguments = order.programs + order.count;
    order.environment = words + have + 1;
    if (order.count < 1 || order.count > have - FIRST_PROGRAM)
        not_meant();
    call(SYS_FCNTL, (word)order.start, F_SETFD, FD_CLOEXEC, 0, 0, 0);
    if (order.hold)
        call(SYS_FCNTL, (word)order.hold, F_SETFD, FD_CLOEXEC, 0, 0, 0);
    switch (order.mode) {
    case 'e':
        wait_for_word(&order);
        become(&order);
    case 'i':
        init(&order);
    case 'j':
        join(&order);
    default:
        not_meant();
    }
}
