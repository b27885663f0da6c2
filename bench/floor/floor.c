/* The floor: what a start of the default bundle costs when nothing but the system calls is left.

   One small static process (glibc, for its headers more than its code) makes the same container
   as the runtimes beside it, once per iteration: cgroup with its device filter, state directory,
   namespaces, mounts, devices, protected paths, pivot_root, limits, capabilities, no_new_privs,
   execve; then it waits and takes everything away. It reads no JSON, has no engine between the
   calls, and what can be done once for all iterations (parsing the table, loading the device
   filter) it does once. It is no runtime: it checks nothing but errors.

   usage: floor [-g] ROOTFS CGROUP STATE COUNT
     ROOTFS  root of the container, with /true and the directories proc, dev and sys
     CGROUP  directory in a cgroup v2 hierarchy, STATE  directory; both stay empty
     COUNT   how many iterations, or `-` to read counts from standard input, one a line
     -g      stop at a gate between create and start, as the runtime-spec's two steps do
   Prints the nanoseconds of each iteration, one line per count. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/bpf_common.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* <sys/mount.h> does not go with <linux/mount.h> in the glibc of Debian 12. */
enum { PRIVATE = 1 << 18, RECURSIVE = 1 << 14, DETACH = 2 };
#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif

enum { MOST_OPTIONS = 8, LAST_CAPABILITY = 40, STACK = 64 * 1024 };

struct mount {
    const char *target, *fstype, *source;
    uint64_t attributes;
    struct { const char *key, *value; } options[MOST_OPTIONS];
};

/* The table, once per kind of line. */
#define HOSTNAME(name)
#define NAMESPACE(name, flag)
#define CAPABILITY(name, number)
#define RLIMIT(name, number, value)
#define MOUNT(target, fstype, source, options)
#define MASKED(path)
#define READONLY(path)

#undef MOUNT
#define MOUNT(target, fstype, source, options) {target, fstype, source, options},
static const struct { const char *target, *fstype, *source, *options; } mount_table[] = {
#include "../bundle/default.def"
};
#undef MOUNT
#define MOUNT(target, fstype, source, options)

#undef MASKED
#define MASKED(path) path + 1,
static const char *const masked[] = {
#include "../bundle/default.def"
};
#undef MASKED
#define MASKED(path)

#undef READONLY
#define READONLY(path) path + 1,
static const char *const read_only[] = {
#include "../bundle/default.def"
};
#undef READONLY
#define READONLY(path)

#undef HOSTNAME
#define HOSTNAME(name) static const char hostname[] = name;
#include "../bundle/default.def"
#undef HOSTNAME
#define HOSTNAME(name)

#undef CAPABILITY
#define CAPABILITY(name, number) | 1ULL << number
static const uint64_t capabilities = 0
#include "../bundle/default.def"
    ;
#undef CAPABILITY
#define CAPABILITY(name, number)

#undef RLIMIT
#define RLIMIT(name, number, value) {number, {value, value}},
static const struct { int resource; struct rlimit limit; } limits[] = {
#include "../bundle/default.def"
};

enum { MOUNTS = sizeof mount_table / sizeof *mount_table };
#define COUNT(array) (sizeof(array) / sizeof *(array))

static struct mount mounts[MOUNTS];
static char state[3000]; /* about what a runtime keeps: the configuration and a few facts */
static int cgroup_parent, state_parent, filter;
static const char *rootfs;
static int with_gate, gate[2];
static _Alignas(16) char stack[STACK];

/* Written by the child, which shares the memory. */
static const char *volatile failed_step;
static volatile int failed_errno;

static void die(const char *step) {
    fprintf(stderr, "floor: %s: %s\n", step, strerror(errno));
    exit(1);
}

static long check(long result, const char *step) {
    if (result < 0) die(step);
    return result;
}

/* In the child: leave a note and go. */
static long need(long result, const char *step) {
    if (result < 0) {
        failed_errno = errno;
        failed_step = step;
        _exit(127);
    }
    return result;
}

static void parse_mounts(void) {
    static const struct { const char *name; uint64_t bit; } attributes[] = {
        {"nosuid", MOUNT_ATTR_NOSUID}, {"nodev", MOUNT_ATTR_NODEV},
        {"noexec", MOUNT_ATTR_NOEXEC}, {"ro", MOUNT_ATTR_RDONLY},
        {"strictatime", MOUNT_ATTR_STRICTATIME}, {"relatime", MOUNT_ATTR_RELATIME},
    };
    for (int i = 0; i < MOUNTS; i++) {
        struct mount *mount = &mounts[i];
        int cgroup = strcmp(mount_table[i].fstype, "cgroup") == 0;
        mount->target = mount_table[i].target + 1;
        mount->fstype = cgroup ? "cgroup2" : mount_table[i].fstype;
        mount->source = mount_table[i].source;
        int next = 0;
        char *save, *text = strdup(mount_table[i].options);
        for (char *word = strtok_r(text, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
            size_t known = 0;
            while (known < COUNT(attributes) && strcmp(attributes[known].name, word)) known++;
            if (known < COUNT(attributes)) {
                mount->attributes |= attributes[known].bit;
                continue;
            }
            char *value = strchr(word, '=');
            if (value) *value++ = 0;
            mount->options[next].key = word;
            mount->options[next++].value = value;
        }
    }
}

/* Allows what every container may use and denies the rest, as the runtimes compile the bundle's
   rule; the kernel wants each container's cgroup to have one attached. */
static int load_device_filter(void) {
    enum { WORD = BPF_LDX | BPF_MEM | BPF_W, EQUAL_NOT = BPF_JMP | BPF_JNE | BPF_K };
    static const struct { int type, major, minor; } allowed[] = {
        {2, 1, 3}, {2, 1, 8}, {2, 1, 7}, {2, 5, 0}, {2, 1, 5}, {2, 1, 9},
        {2, 136, -1}, {2, 5, 2}, {2, 10, 200},
    };
    struct bpf_insn program[64], *next = program;
    *next++ = (struct bpf_insn){WORD, 2, 1, 0, 0};             /* type and access */
    *next++ = (struct bpf_insn){BPF_ALU | BPF_MOV | BPF_X, 3, 2, 0, 0};
    *next++ = (struct bpf_insn){BPF_ALU | BPF_AND | BPF_K, 2, 0, 0, 0xffff};
    *next++ = (struct bpf_insn){BPF_ALU | BPF_RSH | BPF_K, 3, 0, 0, 16};
    *next++ = (struct bpf_insn){WORD, 4, 1, 4, 0};             /* major */
    *next++ = (struct bpf_insn){WORD, 5, 1, 8, 0};             /* minor */
    *next++ = (struct bpf_insn){EQUAL_NOT, 3, 0, 2, 1};        /* mknod of anything */
    *next++ = (struct bpf_insn){BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1};
    *next++ = (struct bpf_insn){BPF_JMP | BPF_EXIT, 0, 0, 0, 0};
    for (size_t i = 0; i < COUNT(allowed); i++) {
        short skip = allowed[i].minor < 0 ? 3 : 4;
        *next++ = (struct bpf_insn){EQUAL_NOT, 2, 0, skip, allowed[i].type};
        *next++ = (struct bpf_insn){EQUAL_NOT, 4, 0, skip - 1, allowed[i].major};
        if (allowed[i].minor >= 0)
            *next++ = (struct bpf_insn){EQUAL_NOT, 5, 0, 2, allowed[i].minor};
        *next++ = (struct bpf_insn){BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1};
        *next++ = (struct bpf_insn){BPF_JMP | BPF_EXIT, 0, 0, 0, 0};
    }
    *next++ = (struct bpf_insn){BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0};
    *next++ = (struct bpf_insn){BPF_JMP | BPF_EXIT, 0, 0, 0, 0};
    union bpf_attr load = {
        .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
        .insns = (uintptr_t)program,
        .insn_cnt = (uint32_t)(next - program),
        .license = (uintptr_t) "Apache-2.0",
    };
    return (int)check(syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load), "load device filter");
}

/* ---- in the container -------------------------------------------------------------------- */

/* A path in the root, without following anything out of it. */
static int in_root(int root, const char *path) {
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
    return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

static void attach(int tree, int target, const char *step) {
    need(syscall(SYS_move_mount, tree, "", target, "",
                 MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH), step);
}

static int filesystem(const struct mount *mount) {
    int context = (int)need(syscall(SYS_fsopen, mount->fstype, FSOPEN_CLOEXEC), "fsopen");
    need(syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "source", mount->source, 0), "source");
    for (int i = 0; i < MOST_OPTIONS && mount->options[i].key; i++) {
        const char *key = mount->options[i].key, *value = mount->options[i].value;
        int command = value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG;
        need(syscall(SYS_fsconfig, context, command, key, value, 0), key);
    }
    need(syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0), mount->fstype);
    return (int)need(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, mount->attributes), "fsmount");
}

static int copy_tree(int fd, const char *path, unsigned flags) {
    flags |= OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH;
    return (int)need(syscall(SYS_open_tree, fd, path, flags), "open_tree");
}

static void set_read_only(int tree, unsigned flags) {
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY};
    need(syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | flags, &attributes,
                 sizeof attributes), "mount_setattr");
}

static void loopback_up(void) {
    struct ifreq request = {.ifr_name = "lo"};
    int socket_fd = (int)need(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    need(ioctl(socket_fd, SIOCSIFFLAGS, &request), "loopback");
}

static void devices(int root) {
    static const struct { const char *path; int major, minor; } nodes[] = {
        {"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7},
        {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
    };
    static const struct { const char *path, *target; } links[] = {
        {"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
        {"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"},
    };
    int dev = (int)need(in_root(root, "dev"), "open /dev");
    for (size_t i = 0; i < COUNT(nodes); i++) {
        dev_t device = makedev(nodes[i].major, nodes[i].minor);
        need(mknodat(dev, nodes[i].path, S_IFCHR | 0666, device), nodes[i].path);
    }
    for (size_t i = 0; i < COUNT(links); i++)
        need(symlinkat(links[i].target, dev, links[i].path), links[i].path);
}

static void protect(int root) {
    for (size_t i = 0; i < COUNT(read_only); i++) {
        int target = in_root(root, read_only[i]);
        if (target < 0) continue;
        int tree = copy_tree(target, "", AT_RECURSIVE);
        set_read_only(tree, AT_RECURSIVE);
        attach(tree, target, read_only[i]);
    }
    int empty = -1;
    for (size_t i = 0; i < COUNT(masked); i++) {
        int target = in_root(root, masked[i]);
        if (target < 0) continue;
        struct statx status;
        need(statx(target, "", AT_EMPTY_PATH, STATX_TYPE, &status), "statx");
        int tree;
        if (!S_ISDIR(status.stx_mode)) {
            tree = copy_tree(root, "dev/null", 0);
        } else if (empty < 0) {
            static const struct mount nothing = {
                .fstype = "tmpfs", .source = "tmpfs", .attributes = MOUNT_ATTR_RDONLY};
            tree = empty = filesystem(&nothing);
        } else {
            tree = copy_tree(empty, "", 0);
        }
        attach(tree, target, masked[i]);
    }
}

static void drop_privileges(void) {
    for (unsigned capability = 0; capability <= LAST_CAPABILITY; capability++)
        if (!(capabilities >> capability & 1))
            need(prctl(PR_CAPBSET_DROP, capability), "bounding set");
    need(syscall(SYS_setgroups, 0, NULL), "setgroups");
    need(syscall(SYS_setresgid, 0, 0, 0), "setresgid");
    need(syscall(SYS_setresuid, 0, 0, 0), "setresuid");
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    uint32_t low = (uint32_t)capabilities, high = (uint32_t)(capabilities >> 32);
    struct __user_cap_data_struct sets[2] = {{low, low, 0}, {high, high, 0}};
    need(syscall(SYS_capset, &header, sets), "capset");
}

__attribute__((noreturn, used)) static void container(void) {
    for (size_t i = 0; i < COUNT(limits); i++)
        need(setrlimit(limits[i].resource, &limits[i].limit), "setrlimit");
    need(syscall(SYS_unshare, CLONE_NEWCGROUP), "unshare");
    need(setsid(), "setsid");
    need(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "_ses.floor"), "keyring");
    loopback_up();
    umask(0);

    need(syscall(SYS_mount, NULL, "/", NULL, PRIVATE | RECURSIVE, NULL), "private mounts");
    int target = (int)need(open(rootfs, O_PATH | O_CLOEXEC), "open rootfs");
    int root = copy_tree(target, "", AT_RECURSIVE);
    attach(root, target, "root");
    for (int i = 0; i < MOUNTS; i++) {
        int tree = filesystem(&mounts[i]);
        target = in_root(root, mounts[i].target);
        if (target < 0) {
            need(mkdirat(root, mounts[i].target, 0755), mounts[i].target);
            target = (int)need(in_root(root, mounts[i].target), mounts[i].target);
        }
        attach(tree, target, mounts[i].target);
    }
    devices(root);
    protect(root);
    set_read_only(root, 0);
    need(fchdir(root), "fchdir");
    need(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    need(syscall(SYS_umount2, ".", DETACH), "umount2");
    need(chdir("/"), "chdir");

    need(sethostname(hostname, sizeof hostname - 1), "sethostname");
    need(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    drop_privileges();
    umask(022);
    if (with_gate) {
        char byte = 0;
        need(write(gate[1], &byte, 1), "created");
        need(read(gate[1], &byte, 1), "start");
    }
    char *const arguments[] = {"/true", NULL};
    char *const environment[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", NULL};
    need(execve("/true", arguments, environment), "execve");
    __builtin_unreachable();
}

/* ---- outside ----------------------------------------------------------------------------- */

/* clone3 into `container` on the stack in `arguments`: sharing the memory spares the copy of the
   page tables and the faults after it. */
static long spawn(struct clone_args *arguments) {
    long result;
#if defined(__x86_64__)
    register void (*entry)(void) __asm__("r12") = container;
    __asm__ volatile("syscall\n\ttest %%rax, %%rax\n\tjnz 1f\n\txor %%ebp, %%ebp\n\tcall *%%r12\n1:"
                     : "=a"(result)
                     : "a"(SYS_clone3), "D"(arguments), "S"(sizeof *arguments), "r"(entry)
                     : "rcx", "r11", "memory");
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = SYS_clone3, x0 __asm__("x0") = (long)arguments,
                  x1 __asm__("x1") = sizeof *arguments;
    __asm__ volatile("svc 0\n\tcbnz x0, 1f\n\tmov x29, xzr\n\tbl container\n1:"
                     : "+r"(x0) : "r"(x8), "r"(x1) : "x30", "memory");
    result = x0;
#else
#error "x86-64 and aarch64 only"
#endif
    if (result < 0) errno = (int)-result;
    return result < 0 ? -1 : result;
}

static void once(void) {
    check(mkdirat(cgroup_parent, "floor", 0755), "create cgroup");
    int cgroup = (int)check(openat(cgroup_parent, "floor", O_DIRECTORY | O_CLOEXEC), "open cgroup");
    union bpf_attr attachment = {
        .target_fd = (uint32_t)cgroup,
        .attach_bpf_fd = (uint32_t)filter,
        .attach_type = BPF_CGROUP_DEVICE,
        .attach_flags = BPF_F_ALLOW_MULTI,
    };
    check(syscall(SYS_bpf, BPF_PROG_ATTACH, &attachment, sizeof attachment), "attach filter");
    check(mkdirat(state_parent, "floor", 0700), "create state");
    int file = (int)check(openat(state_parent, "floor/state.json",
                                 O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), "open state");
    check(write(file, state, sizeof state), "write state");
    close(file);

    if (with_gate) check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, gate), "socketpair");
    int pidfd = -1;
    struct clone_args arguments = {
        .flags = CLONE_VM | CLONE_PIDFD | CLONE_INTO_CGROUP | CLONE_NEWPID | CLONE_NEWNET |
                 CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS,
        .pidfd = (uintptr_t)&pidfd,
        .exit_signal = SIGCHLD,
        .stack = (uintptr_t)stack,
        .stack_size = sizeof stack,
        .cgroup = (uint64_t)cgroup,
    };
    check(spawn(&arguments), "clone3");
    if (with_gate) {
        char byte;
        close(gate[1]);
        if (read(gate[0], &byte, 1) == 1 && write(gate[0], &byte, 1) == 1)
            check(read(gate[0], &byte, 1), "started"); /* end of file: execve closed it */
        close(gate[0]);
    }
    siginfo_t status = {0};
    check(waitid(P_PIDFD, (id_t)pidfd, &status, WEXITED), "waitid");
    close(pidfd);
    close(cgroup);
    /* A task leaves its cgroup a moment after it became a zombie. */
    while (unlinkat(cgroup_parent, "floor", AT_REMOVEDIR) < 0)
        if (errno != EBUSY) die("remove cgroup");
    check(unlinkat(state_parent, "floor/state.json", 0), "remove state.json");
    check(unlinkat(state_parent, "floor", AT_REMOVEDIR), "remove state");
    if (failed_step || status.si_code != CLD_EXITED || status.si_status != 0) {
        fprintf(stderr, "floor: %s: %s\n", failed_step ? failed_step : "the program",
                failed_step ? strerror(failed_errno) : "did not exit with 0");
        exit(1);
    }
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000ULL + (uint64_t)time.tv_nsec;
}

static void repeat(long count) {
    for (long i = 0; i < count; i++) {
        uint64_t begin = now();
        once();
        printf(i ? " %llu" : "%llu", (unsigned long long)(now() - begin));
    }
    putchar('\n');
    fflush(stdout);
}

int main(int argc, char **argv) {
    with_gate = argc > 1 && strcmp(argv[1], "-g") == 0;
    argv += with_gate;
    if (argc - with_gate != 5) {
        fputs("usage: floor [-g] ROOTFS CGROUP STATE COUNT|-\n", stderr);
        return 2;
    }
    rootfs = argv[1];
    cgroup_parent = (int)check(open(argv[2], O_DIRECTORY | O_CLOEXEC), argv[2]);
    state_parent = (int)check(open(argv[3], O_DIRECTORY | O_CLOEXEC), argv[3]);
    memset(state, ' ', sizeof state);
    parse_mounts();
    filter = load_device_filter();
    if (strcmp(argv[4], "-") != 0) {
        repeat(atol(argv[4]));
        return 0;
    }
    char line[32];
    while (fgets(line, sizeof line, stdin)) repeat(atol(line));
    return 0;
}
