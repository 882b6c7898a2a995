/* The demo's program: one source, made into a Linux executable (by ../build.rs) and a Wasm module (vessel.wat).
 *
 *   vessel             says hello, and which of the two it is
 *   vessel hog         takes memory until it is stopped
 *   vessel spin        computes until it is stopped
 *   vessel wait        says so, and waits until it is stopped
 *   vessel args A B…   prints its arguments, one a line
 *
 * It needs no library: the Linux one makes system calls, the Wasm one calls what WASI's first preview has.
 */

typedef unsigned long word;

#define STDOUT 1
#define STDERR 2
#define MEBIBYTE (1024 * 1024)
#define PAGE 4096
/* A function of its own, so that a backtrace names it. */
#define NAMED __attribute__((noinline))

/* What differs between the two: its name, writing, ending, waiting a while, and one more mebibyte. */
static void write_all(int descriptor, const char *text, word length);
static _Noreturn void end(int code);
static void wait_long(void);
static char *more_memory(void); /* NULL when there is no more */

#ifdef __wasm__

#define KIND "Wasm"
#define IMPORT(function) __attribute__((import_module("wasi_snapshot_preview1"), import_name(function)))

struct slice {
    const char *bytes;
    word length;
};

IMPORT("fd_write") int fd_write(int descriptor, const struct slice *slices, word count, word *written);
IMPORT("args_sizes_get") int args_sizes_get(word *count, word *bytes);
IMPORT("args_get") int args_get(char **arguments, char *bytes);
/* Of a clock; what stays 0 is of no interest. */
struct subscription {
    unsigned long long user_data, tag;
    unsigned long long clock, nanoseconds, precision, flags;
};

struct event {
    unsigned long long words[4];
};

IMPORT("poll_oneoff")
int poll_oneoff(const struct subscription *subscriptions, struct event *events, word count, word *happened);
IMPORT("proc_exit") _Noreturn void proc_exit(int code);

static void write_all(int descriptor, const char *text, word length) {
    while (length > 0) {
        struct slice slice = {text, length};
        word written = 0;
        if (fd_write(descriptor, &slice, 1, &written) != 0)
            end(1);
        text += written;
        length -= written;
    }
}

static _Noreturn void end(int code) { proc_exit(code); }

static void wait_long(void) {
    /* A day, of the monotonic clock. Static, as there is no memset to clear it with. */
    static const struct subscription until = {0, 0, 1, 86400ull * 1000 * 1000 * 1000, 0, 0};
    static struct event event;
    word happened;
    if (poll_oneoff(&until, &event, 1, &happened) != 0)
        end(1);
}

static char *more_memory(void) {
    const word wasm_page = 65536;
    word old = __builtin_wasm_memory_grow(0, MEBIBYTE / wasm_page);
    return old == (word)-1 ? 0 : (char *)(old * wasm_page);
}

#else

#define KIND "Linux"
#define MAP_FAILED_FROM ((word)-4095)

#include "../../linux-exec/launcher/freestanding.h"

#if defined(__x86_64__)
enum { SYS_WRITE = 1, SYS_MMAP = 9, SYS_EXIT_GROUP = 231, SYS_PPOLL = 271 };
#else
enum { SYS_WRITE = 64, SYS_MMAP = 222, SYS_EXIT_GROUP = 94, SYS_PPOLL = 73 };
#endif

static void write_all(int descriptor, const char *text, word length) {
    while (length > 0) {
        long written = call(SYS_WRITE, (word)descriptor, (word)text, length, 0, 0, 0);
        if (written <= 0)
            end(1);
        text += written;
        length -= (word)written;
    }
}

static _Noreturn void end(int code) {
    for (;;)
        call(SYS_EXIT_GROUP, (word)code, 0, 0, 0, 0, 0);
}

/* Until a signal comes. */
static void wait_long(void) { call(SYS_PPOLL, 0, 0, 0, 0, 0, 0); }

static char *more_memory(void) {
    const word read_write = 1 | 2, private_anonymous = 2 | 32, no_descriptor = (word)-1;
    word address = (word)call(SYS_MMAP, 0, MEBIBYTE, read_write, private_anonymous, no_descriptor, 0);
    return address >= MAP_FAILED_FROM ? 0 : (char *)address;
}

#endif

static void print(int descriptor, const char *text) {
    word length = 0;
    while (text[length] != 0)
        length++;
    write_all(descriptor, text, length);
}

static int is(const char *text, const char *other) {
    while (*text != 0 && *text == *other) {
        text++;
        other++;
    }
    return *text == *other;
}

/* Touches each page, as memory that nobody wrote to costs nothing. Ends as a program does whose malloc has failed and
 * which did not expect it: by a trap. */
static NAMED _Noreturn void hog(void) {
    for (;;) {
        volatile char *memory = more_memory();
        if (memory == 0) {
            print(STDERR, "vessel: no more memory\n");
            __builtin_trap();
        }
        for (word at = 0; at < MEBIBYTE; at += PAGE)
            memory[at] = 1;
    }
}

static NAMED _Noreturn void spin(void) {
    volatile word turns = 0;
    for (;;)
        turns++;
}

static int vessel(word count, char *const *arguments) {
    if (count < 2) {
        print(STDOUT, "Hello from a vessel of " KIND " code.\n");
        return 0;
    }
    if (is(arguments[1], "hog"))
        hog();
    if (is(arguments[1], "spin"))
        spin();
    if (is(arguments[1], "wait")) {
        print(STDOUT, "waiting\n");
        for (;;)
            wait_long();
    }
    if (is(arguments[1], "args")) {
        for (word index = 2; index < count; index++) {
            print(STDOUT, arguments[index]);
            print(STDOUT, "\n");
        }
        return 0;
    }
    print(STDERR, "usage: vessel [hog | spin | wait | args ARGUMENT...]\n");
    return 2;
}

#ifdef __wasm__

static char *arguments[256];
static char argument_bytes[16384];

void _start(void) {
    word count, bytes;
    if (args_sizes_get(&count, &bytes) != 0 || count > sizeof arguments / sizeof *arguments ||
        bytes > sizeof argument_bytes || args_get(arguments, argument_bytes) != 0) {
        print(STDERR, "vessel: too many arguments\n");
        end(2);
    }
    end(vessel(count, arguments));
}

#else

__attribute__((used)) _Noreturn void begin(const word *stack) { end(vessel(stack[0], (char *const *)(stack + 1))); }

#endif
