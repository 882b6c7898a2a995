/* The floor: what starting a container costs if a program does nothing else.
 *
 *     floor LOWER SCRATCH PROGRAM [ARGUMENT…]
 *
 * Makes a writable overlay over LOWER (its upper directory fresh, in SCRATCH), clones into new pid, mount, uts, ipc,
 * network and cgroup namespaces, mounts what Docker mounts, masks what Docker masks, pivots, executes PROGRAM, waits,
 * and removes the overlay's directories. No cgroup, no capabilities, no seccomp, no state, no checks: it is not a
 * runtime, only a measure for one. Exits as PROGRAM does, 125 if something else fails. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAMESPACES (CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP)
#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static char merged[4096], upper[4096], work[4096], options[16384];
static char **program;

static void check(int result, const char *what) {
    if (result == 0)
        return;
    dprintf(2, "floor: %s: %s\n", what, strerror(errno));
    _exit(125);
}

static void mount_at(const char *type, const char *target, unsigned long flags, const char *data) {
    mkdir(target, 0755);
    check(mount(type, target, type, flags, data), target);
}

static void make_devices(void) {
    static const struct {
        const char *path;
        int major, minor;
    } devices[] = {{"dev/null", 1, 3},   {"dev/zero", 1, 5},    {"dev/full", 1, 7},
                   {"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0}};
    static const char *const links[][2] = {{"/proc/self/fd", "dev/fd"},
                                           {"/proc/self/fd/0", "dev/stdin"},
                                           {"/proc/self/fd/1", "dev/stdout"},
                                           {"/proc/self/fd/2", "dev/stderr"},
                                           {"pts/ptmx", "dev/ptmx"}};
    for (size_t i = 0; i < COUNT(devices); i++)
        check(mknod(devices[i].path, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)), devices[i].path);
    for (size_t i = 0; i < COUNT(links); i++)
        check(symlink(links[i][0], links[i][1]), links[i][1]);
}

/* What does not exist on this kernel needs no mask. */
static void mask(void) {
    static const char *const folders[] = {"proc/acpi", "proc/asound", "proc/scsi", "sys/firmware",
                                          "sys/devices/virtual/powercap"};
    static const char *const files[] = {"proc/interrupts", "proc/kcore",      "proc/keys",       "proc/latency_stats",
                                        "proc/timer_list", "proc/timer_stats", "proc/sched_debug"};
    static const char *const read_only[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};
    for (size_t i = 0; i < COUNT(folders); i++)
        mount("tmpfs", folders[i], "tmpfs", MS_RDONLY, "size=0k");
    for (size_t i = 0; i < COUNT(files); i++)
        mount("dev/null", files[i], NULL, MS_BIND, NULL);
    for (size_t i = 0; i < COUNT(read_only); i++) {
        if (mount(read_only[i], read_only[i], NULL, MS_BIND | MS_REC, NULL) == 0)
            mount(NULL, read_only[i], NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    }
}

static int child(void *unused) {
    (void)unused;
    check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "/");
    check(mount("overlay", merged, "overlay", 0, options), "overlay");
    check(chdir(merged), merged);
    mount_at("proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_at("sysfs", "sys", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL);
    mount_at("tmpfs", "dev", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
    make_devices();
    mount_at("devpts", "dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
    mount_at("tmpfs", "dev/shm", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=65536k");
    mount_at("mqueue", "dev/mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mask();
    check(sethostname("floor", 5), "hostname");
    check((int)syscall(SYS_pivot_root, ".", "."), "pivot_root");
    check(umount2(".", MNT_DETACH), "the old root");
    check(chdir("/"), "/");
    char *environment[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL};
    execve(program[0], program, environment);
    check(-1, program[0]);
    return 125;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *where) {
    (void)status, (void)type, (void)where;
    return remove(path);
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fputs("usage: floor LOWER SCRATCH PROGRAM [ARGUMENT…]\n", stderr);
        return 125;
    }
    program = argv + 3;
    snprintf(merged, sizeof merged, "%s/merged", argv[2]);
    snprintf(upper, sizeof upper, "%s/upper", argv[2]);
    snprintf(work, sizeof work, "%s/work", argv[2]);
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s,volatile", argv[1], upper, work);
    check(mkdir(argv[2], 0700), argv[2]);
    check(mkdir(merged, 0755) || mkdir(upper, 0755) || mkdir(work, 0755), argv[2]);

    static char stack[64 * 1024] __attribute__((aligned(16)));
    int pid = clone(child, stack + sizeof stack, NAMESPACES | CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
    check(pid < 0, "clone");
    int status;
    check(waitpid(pid, &status, 0) != pid, "waitpid");
    check(nftw(argv[2], remove_entry, 16, FTW_DEPTH | FTW_PHYS), argv[2]);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
