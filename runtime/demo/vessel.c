/* The demo's program: one source, made into a Linux executable (by ../build.rs) and a Wasm module (vessel.wat).
 *
 *   vessel             says hello, and which of the two it is
 *   vessel hog         takes memory until it is stopped
 *   vessel spin        computes until it is stopped
 *   vessel wait        says so, and waits until it is stopped
 *   vessel args A B…   prints its arguments, one a line
 *   vessel serve PORT [all]
 *                      answers HTTP requests at 127.0.0.1, or at all addresses; ends when /end is asked for. Linux only
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
#ifndef __wasm__
static int serve(const char *port, int at_all_addresses); /* Its exit code. */
#endif
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
enum { SYS_READ = 0, SYS_WRITE = 1, SYS_CLOSE = 3, SYS_MMAP = 9, SYS_EXIT_GROUP = 231, SYS_PPOLL = 271 };
enum { SYS_SOCKET = 41, SYS_BIND = 49, SYS_LISTEN = 50, SYS_SETSOCKOPT = 54, SYS_ACCEPT4 = 288 };
#else
enum { SYS_READ = 63, SYS_WRITE = 64, SYS_CLOSE = 57, SYS_MMAP = 222, SYS_EXIT_GROUP = 94, SYS_PPOLL = 73 };
enum { SYS_SOCKET = 198, SYS_BIND = 200, SYS_LISTEN = 201, SYS_SETSOCKOPT = 208, SYS_ACCEPT4 = 242 };
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

#define ANSWER                                                                                                         \
    "HTTP/1.1 200 OK\r\nContent-Length: 35\r\nConnection: close\r\n\r\n"                                               \
    "Hello from a vessel of Linux code.\n"

/* As the kernel has it: port and address with their highest byte first. */
struct address {
    unsigned short family;
    unsigned char port[2], host[4], rest[8];
};

/* Reads the head of a request; whether it asks for the end. */
static int asks_for_end(int connection) {
    static const char wanted[] = "GET /end ";
    char head[2048];
    word length = 0, same = 0;
    int is_whole = 0;
    while (!is_whole && length < sizeof head) {
        long got = call(SYS_READ, (word)connection, (word)(head + length), sizeof head - length, 0, 0, 0);
        if (got <= 0)
            break;
        length += (word)got;
        const char *last = head + length - 4;
        is_whole = length >= 4 && last[0] == '\r' && last[1] == '\n' && last[2] == '\r' && last[3] == '\n';
    }
    while (same < sizeof wanted - 1 && same < length && head[same] == wanted[same])
        same++;
    return same == sizeof wanted - 1;
}

static NAMED int serve(const char *port, int at_all_addresses) {
    const word inet = 2, stream_close_on_exec = 1 | 02000000, of_sockets = 1, reuse_address = 2;
    struct address address = {2, {0, 0}, {127, 0, 0, 1}, {0}};
    word number = 0;
    int one = 1, is_over = 0;
    for (; *port >= '0' && *port <= '9'; port++)
        number = number * 10 + (word)(*port - '0');
    address.port[0] = (unsigned char)(number >> 8);
    address.port[1] = (unsigned char)number;
    if (at_all_addresses)
        address.host[0] = address.host[3] = 0;
    long listener = call(SYS_SOCKET, inet, stream_close_on_exec, 0, 0, 0, 0);
    if (listener < 0 || call(SYS_SETSOCKOPT, (word)listener, of_sockets, reuse_address, (word)&one, sizeof one, 0) < 0 ||
        call(SYS_BIND, (word)listener, (word)&address, sizeof address, 0, 0, 0) < 0 ||
        call(SYS_LISTEN, (word)listener, 128, 0, 0, 0, 0) < 0)
        return 1;
    while (!is_over) {
        long connection = call(SYS_ACCEPT4, (word)listener, 0, 0, 02000000, 0, 0);
        if (connection < 0)
            continue;
        is_over = asks_for_end((int)connection);
        /* Whoever went away is no reason to end: not by write_all. */
        call(SYS_WRITE, (word)connection, (word)ANSWER, sizeof ANSWER - 1, 0, 0, 0);
        call(SYS_CLOSE, (word)connection, 0, 0, 0, 0, 0);
    }
    return 0;
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
#ifndef __wasm__
    if (is(arguments[1], "serve") && count > 2)
        return serve(arguments[2], count > 3 && is(arguments[3], "all"));
#endif
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
