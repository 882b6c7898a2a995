/* Run in a container with CAP_SYS_ADMIN on cgroup v2: tries to take away, replace or overrule the program that says which
 * devices it may open, on the cgroup that it sees as the root. Says which devices it could try to open afterwards: with the rules in
 * place the kernel refuses by EPERM before it looks whether there is such a device. */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static int bpf(int command, union bpf_attr *attr) { return (int)syscall(SYS_bpf, command, attr, sizeof *attr); }

/* return 1: everything is allowed */
static int allow_all(void) {
    struct bpf_insn program[] = {
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 1},
        {.code = BPF_JMP | BPF_EXIT},
    };
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    attr.insn_cnt = 2;
    attr.insns = (unsigned long)program;
    attr.license = (unsigned long)"GPL";
    return bpf(BPF_PROG_LOAD, &attr);
}

static void detach(int group, int program, unsigned flags) {
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.target_fd = (unsigned)group;
    attr.attach_bpf_fd = program < 0 ? 0 : (unsigned)program;
    attr.attach_type = BPF_CGROUP_DEVICE;
    attr.attach_flags = flags;
    if (bpf(BPF_PROG_DETACH, &attr) == 0)
        printf("detached\n");
}

static void attach(int group, int program, int replaced, unsigned flags) {
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.target_fd = (unsigned)group;
    attr.attach_bpf_fd = (unsigned)program;
    attr.attach_type = BPF_CGROUP_DEVICE;
    attr.attach_flags = flags;
    attr.replace_bpf_fd = replaced < 0 ? 0 : (unsigned)replaced;
    if (bpf(BPF_PROG_ATTACH, &attr) == 0 && replaced >= 0)
        printf("replaced\n");
}

/* The next of all programs of the machine; 0 after the last one. */
static unsigned next(unsigned id) {
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.start_id = id;
    return bpf(BPF_PROG_GET_NEXT_ID, &attr) == 0 ? attr.next_id : 0;
}

static int program_of(unsigned id) {
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.prog_id = id;
    return bpf(BPF_PROG_GET_FD_BY_ID, &attr);
}

static void lift(int group) {
    int own = allow_all();
    const unsigned flags[] = {0, BPF_F_ALLOW_OVERRIDE, BPF_F_ALLOW_MULTI};
    for (unsigned id = next(0); id; id = next(id)) {
        int program = program_of(id);
        if (program < 0)
            continue;
        attach(group, own, program, BPF_F_ALLOW_MULTI | BPF_F_REPLACE);
        detach(group, program, 0);
        close(program);
    }
    for (unsigned index = 0; index < 3; index++) {
        detach(group, -1, flags[index]);
        attach(group, own, -1, flags[index]);
    }
}

static void try(const char *name, mode_t kind, unsigned major, unsigned minor) {
    unlink("/nodes/node");
    if (mknod("/nodes/node", kind | 0666, makedev(major, minor)))
        printf("cannot make a node: %s\n", strerror(errno));
    else if (open("/nodes/node", O_RDONLY | O_NONBLOCK) >= 0 || errno != EPERM)
        printf("%s is within reach\n", name);
}

int main(void) {
    mkdir("/group", 0700);
    mkdir("/nodes", 0700);
    if (mount("none", "/group", "cgroup2", 0, NULL) || mount("none", "/nodes", "tmpfs", 0, NULL)) {
        printf("cannot mount: %s\n", strerror(errno));
        return 1;
    }
    int group = open("/group", O_RDONLY | O_DIRECTORY);
    lift(group);
    /* Limits and what else lies above. */
    if (access("/group/memory.max", F_OK) == 0 || access("/group/pids.max", F_OK) == 0)
        printf("its own limits are within reach\n");
    try("mem", S_IFCHR, 1, 1);
    try("kmsg", S_IFCHR, 1, 11);
    try("loop-control", S_IFCHR, 10, 237);
    try("a disk", S_IFBLK, 98, 0);
    try("nothing", S_IFCHR, 240, 1);
    printf("end\n");
    return 0;
}
