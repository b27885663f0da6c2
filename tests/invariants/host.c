/* A busy host with many threads that runs containers through Locule, and checks that it is left
 * as it was: DESIGN.md, promise 1, item by item.
 *
 *     host VARIANT DIRECTORY [--break WHAT]
 *
 * DIRECTORY is empty, absolute and the host's own to fill. LOCULE_TEST_PLUGIN is a folder with the
 * component stamp.wasm, for the variant plugins; LOCULE_TEST_TREE one with the programs of a root
 * filesystem, for the variants with images. With --break the host itself does what the library
 * must not do, to show that the checks see it. LOCULE_CYCLES is how many containers are run. */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <locule.h>

#define RETRY(call) TEMP_FAILURE_RETRY(call)

enum { WORKERS = 4, ALLOCATORS = 2, WARM_UP = 8, REPORT_FD = 40 };

static const char *variant, *directory, *breaking;
static int cycles = 30;
static pid_t host_pid;

static int is(const char *name)
{
    return strcmp(variant, name) == 0;
}

static int breaks(const char *what)
{
    return breaking != NULL && strcmp(breaking, what) == 0;
}

static void die(const char *what)
{
    dprintf(REPORT_FD, "FAILED   c %s: the host itself: %s: %s\n", variant, what, strerror(errno));
    _exit(1);
}

/* --- Text ---------------------------------------------------------------------------------- */

struct text {
    char *bytes;
    size_t length, room;
};

static void add_bytes(struct text *text, const char *bytes, size_t length)
{
    if (text->length + length + 1 > text->room) {
        text->room = 2 * (text->length + length + 1);
        text->bytes = realloc(text->bytes, text->room);
        if (text->bytes == NULL)
            die("memory");
    }
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
    text->bytes[text->length] = '\0';
}

__attribute__((format(printf, 2, 3))) static void add(struct text *text, const char *format, ...)
{
    char line[8192];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    add_bytes(text, line, (size_t)length < sizeof line ? (size_t)length : sizeof line - 1);
}

/* This thread could not look for lack of a descriptor. */
static _Thread_local int blind;

static void add_file(struct text *text, const char *path)
{
    char bytes[4096];
    ssize_t length;
    int fd = RETRY(open(path, O_RDONLY | O_CLOEXEC));
    blind |= fd < 0 && errno == EMFILE;
    while (fd >= 0 && (length = RETRY(read(fd, bytes, sizeof bytes))) > 0)
        add_bytes(text, bytes, (size_t)length);
    if (fd < 0)
        add(text, "%s: %s\n", path, strerror(errno));
    else
        close(fd);
}

static void add_link(struct text *text, const char *path)
{
    char target[4096];
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length < 0)
        add(text, "%s: %s\n", path, strerror(errno));
    else
        add(text, "%s: %.*s\n", path, (int)length, target);
}

/* --- The report ---------------------------------------------------------------------------- */

static int failures;

static void report(int fine, const char *item, const char *format, ...)
{
    char detail[1024] = "";
    va_list arguments;
    va_start(arguments, format);
    if (format != NULL)
        vsnprintf(detail, sizeof detail, format, arguments);
    va_end(arguments);
    dprintf(REPORT_FD, "%s   c %s: %s%s%s\n", fine ? "ok    " : "FAILED", variant, item,
            detail[0] ? ": " : "", detail);
    failures += !fine;
}

/* The first thing that went wrong, told by any thread; reported at the end. */
struct complaint {
    atomic_int count;
    char first[900];
};

static struct complaint statuses, passing, attributes;

static void complain(struct complaint *complaint, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (atomic_fetch_add(&complaint->count, 1) == 0)
        vsnprintf(complaint->first, sizeof complaint->first, format, arguments);
    va_end(arguments);
}

static void report_complaint(struct complaint *complaint, const char *item, const char *fine)
{
    int count = atomic_load(&complaint->count);
    if (count == 0)
        report(1, item, "%s", fine);
    else
        report(0, item, "%d times, first: %s", count, complaint->first);
}

/* Writes the first line in which two texts differ. */
static void difference(char *out, size_t size, const char *before, const char *after)
{
    while (*before != '\0' && *before == *after) {
        const char *before_end = strchrnul(before, '\n'), *after_end = strchrnul(after, '\n');
        size_t length = (size_t)(before_end - before);
        if (length != (size_t)(after_end - after) || memcmp(before, after, length) != 0 ||
            *before_end == '\0')
            break;
        before = before_end + 1;
        after = after_end + 1;
    }
    snprintf(out, size, "was \"%.*s\", is \"%.*s\"", (int)(strchrnul(before, '\n') - before),
             before, (int)(strchrnul(after, '\n') - after), after);
}

/* --- Signals ------------------------------------------------------------------------------- */

static atomic_int received[65], handled_elsewhere;

static void on_signal(int number)
{
    int saved = errno;
    atomic_fetch_add(&received[number], 1);
    /* Between vfork and exec a child shares our memory: no handler may run in it. */
    if (syscall(SYS_getpid) != host_pid)
        atomic_fetch_add(&handled_elsewhere, 1);
    errno = saved;
}

static void install_handlers(void)
{
    static const int handled[] = {SIGALRM, SIGCHLD, SIGPIPE,  SIGHUP,  SIGUSR1,
                                  SIGURG,  SIGIO,   SIGWINCH, SIGCONT, SIGTERM};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_NODEFER};
    for (size_t index = 0; index < sizeof handled / sizeof *handled; index++)
        sigaction(handled[index], &action, NULL);
    action.sa_flags |= SA_RESTART;
    sigaddset(&action.sa_mask, SIGUSR1);
    sigaction(SIGRTMIN + 3, &action, NULL);
    signal(SIGUSR2, SIG_IGN);
    if (is("sigchld-ignored"))
        signal(SIGCHLD, SIG_IGN);
}

static void start_timer(int milliseconds)
{
    struct itimerval timer = {{0, milliseconds * 1000}, {0, milliseconds * 1000}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

/* --- What the process looks like ----------------------------------------------------------- */

static int is_number(const char *name)
{
    return *name >= '0' && *name <= '9';
}

/* Calls `look` with the id of every thread. */
static void each_thread(struct text *text, void (*look)(struct text *, int))
{
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *entry;
    if (tasks == NULL) {
        blind = 1;
        return;
    }
    while ((entry = readdir(tasks)) != NULL)
        if (is_number(entry->d_name))
            look(text, atoi(entry->d_name));
    closedir(tasks);
}

/* Those lines of a thread's status that start with one of the names. */
static void add_status(struct text *text, int thread, const char *const *names)
{
    struct text status = {0};
    char path[64], *line, *rest;
    snprintf(path, sizeof path, "/proc/self/task/%d/status", thread);
    add_file(&status, path);
    if (blind || status.bytes == NULL)
        return free(status.bytes);
    for (line = strtok_r(status.bytes, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        for (const char *const *name = names; *name != NULL; name++)
            if (strncmp(line, *name, strlen(*name)) == 0)
                add(text, "%d %s\n", thread, line);
    free(status.bytes);
}

static void take_umask(struct text *text)
{
    static const char *const names[] = {"Umask", NULL};
    add_status(text, host_pid, names);
}

static void place(struct text *text, int thread)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/cwd", thread);
    add_link(text, path);
    snprintf(path, sizeof path, "/proc/self/task/%d/root", thread);
    add_link(text, path);
}

static void take_directory(struct text *text)
{
    each_thread(text, place);
}

static void take_environment(struct text *text)
{
    add(text, "%p\n", (void *)environ);
    for (char **variable = environ; *variable != NULL; variable++)
        add(text, "%p %s\n", (void *)*variable, *variable);
}

static void masks(struct text *text, int thread)
{
    static const char *const names[] = {"SigBlk", NULL};
    add_status(text, thread, names);
}

static void take_masks(struct text *text)
{
    each_thread(text, masks);
}

static void take_dispositions(struct text *text)
{
    /* The kernel's own structure: libc hides two signals. */
    struct {
        void *handler;
        unsigned long flags;
        void *restorer;
        unsigned long mask;
    } action;
    for (int number = 1; number <= 64; number++) {
        memset(&action, 0, sizeof action);
        syscall(SYS_rt_sigaction, number, NULL, &action, 8);
        add(text, "%d: %p %lx %lx\n", number, action.handler, action.flags, action.mask);
    }
}

static void credentials(struct text *text, int thread)
{
    static const char *const names[] = {"Uid:",   "Gid:",   "Groups:",     "CapInh",  "CapPrm", "CapEff",
                                        "CapBnd", "CapAmb", "NoNewPrivs:", "Seccomp", NULL};
    add_status(text, thread, names);
}

static void take_credentials(struct text *text)
{
    each_thread(text, credentials);
}

static void namespaces(struct text *text, int thread)
{
    static const char *const names[] = {"cgroup", "ipc",  "mnt",  "net",  "pid", "pid_for_children",
                                        "time",   "user", "uts", NULL};
    char path[64];
    for (const char *const *name = names; *name != NULL; name++) {
        snprintf(path, sizeof path, "/proc/self/task/%d/ns/%s", thread, *name);
        add_link(text, path);
    }
}

static void take_namespaces(struct text *text)
{
    each_thread(text, namespaces);
}

static void cgroups(struct text *text, int thread)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/cgroup", thread);
    add(text, "%d\n", thread);
    add_file(text, path);
}

static void take_cgroups(struct text *text)
{
    each_thread(text, cgroups);
}

static void take_oom(struct text *text)
{
    add_file(text, "/proc/self/oom_score_adj");
}

static void take_flags(struct text *text)
{
    int subreaper = -1;
    prctl(PR_GET_CHILD_SUBREAPER, &subreaper);
    add(text, "dumpable %d, subreaper %d, huge pages off %d, io flusher %d\n",
        prctl(PR_GET_DUMPABLE), subreaper, prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0),
        prctl(57 /* PR_GET_IO_FLUSHER */, 0, 0, 0, 0));
    add_file(text, "/proc/self/coredump_filter");
}

static void take_session(struct text *text)
{
    struct text stat = {0};
    int group = 0, session = 0, terminal = 0, foreground = 0;
    add_file(&stat, "/proc/self/stat");
    char *end = strrchr(stat.bytes, ')');
    sscanf(end ? end : "", ") %*c %*d %d %d %d %d", &group, &session, &terminal, &foreground);
    add(text, "group %d, session %d, terminal %d, its foreground group %d\n", group, session,
        terminal, foreground);
    free(stat.bytes);
}

static void take_limits(struct text *text)
{
    add_file(text, "/proc/self/limits");
}

static void schedule(struct text *text, int thread)
{
    static const char *const names[] = {"Cpus_allowed:", "Mems_allowed:", NULL};
    struct sched_param parameter = {0};
    sched_getparam(thread, &parameter);
    add(text, "%d: policy %d, priority %d, nice %d, io %ld\n", thread, sched_getscheduler(thread),
        parameter.sched_priority, getpriority(PRIO_PROCESS, (id_t)thread),
        syscall(SYS_ioprio_get, 1, thread));
    add_status(text, thread, names);
}

static void take_schedule(struct text *text)
{
    each_thread(text, schedule);
}

static void thread_names(struct text *text, int thread)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/comm", thread);
    add(text, "%d ", thread);
    add_file(text, path);
}

static void take_threads(struct text *text)
{
    each_thread(text, thread_names);
}

static void take_descriptors(struct text *text)
{
    DIR *descriptors = opendir("/proc/self/fd");
    struct dirent *entry;
    if (descriptors == NULL)
        die("/proc/self/fd");
    while ((entry = readdir(descriptors)) != NULL) {
        int fd = atoi(entry->d_name);
        char path[64];
        if (!is_number(entry->d_name) || fd == dirfd(descriptors))
            continue;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        add_link(text, path);
        add(text, "%d: status %x, flags %x\n", fd, fcntl(fd, F_GETFL), fcntl(fd, F_GETFD));
    }
    closedir(descriptors);
}

static void take_mounts(struct text *text)
{
    add_file(text, "/proc/self/mountinfo");
}

static void take_timer(struct text *text)
{
    struct itimerval timer;
    for (int which = 0; which < 3; which++) {
        getitimer(which, &timer);
        add(text, "%d: every %ld us\n", which, (long)timer.it_interval.tv_usec);
    }
}

/* What only the thread itself can see. */
static void take_own(struct text *text)
{
    stack_t stack;
    int death_signal = -1;
    prctl(PR_GET_PDEATHSIG, &death_signal);
    sigaltstack(NULL, &stack);
    add(text, "keyrings: session %ld, process %ld, thread %ld\n",
        syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0),
        syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 0),
        syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_THREAD_KEYRING, 0));
    add(text, "signal stack: %p %zu %d\n", stack.ss_sp, stack.ss_size, stack.ss_flags);
    add(text, "death signal %d, timer slack %d, securebits %d, keepcaps %d, personality %lx\n",
        death_signal, prctl(PR_GET_TIMERSLACK), prctl(PR_GET_SECUREBITS), prctl(PR_GET_KEEPCAPS),
        syscall(SYS_personality, 0xffffffff));
    int policy = -1;
    syscall(SYS_get_mempolicy, &policy, NULL, 0, NULL, 0);
    add(text, "memory policy %d\n", policy);
}

static struct {
    const char *name;
    void (*take)(struct text *);
    int sampled; /* is to be so at every moment, not only in the end */
    struct text before;
} items[] = {
    {"umask", take_umask, 1, {0}},
    {"working directory and root of every thread", take_directory, 1, {0}},
    {"environment", take_environment, 1, {0}},
    {"signal mask of every thread", take_masks, 0, {0}},
    {"signal dispositions, all 64", take_dispositions, 1, {0}},
    {"credentials and capabilities of every thread", take_credentials, 1, {0}},
    {"namespaces of every thread", take_namespaces, 1, {0}},
    {"cgroup of every thread", take_cgroups, 1, {0}},
    {"keyrings", take_own, 0, {0}},
    {"oom_score_adj", take_oom, 1, {0}},
    {"dumpable and subreaper flags", take_flags, 1, {0}},
    {"session, process group and terminal", take_session, 1, {0}},
    {"resource limits", take_limits, 1, {0}},
    {"nice, scheduler, affinity of every thread", take_schedule, 1, {0}},
    {"threads: none added, none renamed", take_threads, 1, {0}},
    {"interval timers", take_timer, 1, {0}},
    {"descriptors", take_descriptors, 0, {0}},
    {"mounts", take_mounts, 0, {0}},
};
enum { ITEMS = sizeof items / sizeof *items };

/* --- Children and exit handlers ------------------------------------------------------------ */

/* In memory that children share, whatever they are. */
static struct shared {
    atomic_int exits, forks;
} *shared;

static void on_exit_of_host(void)
{
    atomic_fetch_add(&shared->exits, 1);
}

static void on_fork(void)
{
    atomic_fetch_add(&shared->forks, 1);
}

/* Says whether the host has a child, or had one that nobody has waited for. */
static int no_child(char *out, size_t size)
{
    int status = 0;
    pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid < 0 && errno == ECHILD)
        return 1;
    snprintf(out, size, "waitpid(-1) gave %d, status %x", pid, status);
    return 0;
}

/* --- The threads of the host --------------------------------------------------------------- */

static atomic_int stopping, samples, ready;
static pthread_mutex_t sampling = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t phase;
static struct complaint children;

static void nap(void)
{
    struct timespec moment = {0, 1000000};
    nanosleep(&moment, NULL);
}

/* Keeps the allocator's locks busy. */
static void *allocate(void *unused)
{
    void *blocks[64] = {NULL};
    unsigned seed = 1;
    prctl(PR_SET_NAME, "allocator");
    atomic_fetch_add(&ready, 1);
    while (!atomic_load(&stopping)) {
        for (int round = 0; round < 500; round++) {
            int index = rand_r(&seed) % 64;
            free(blocks[index]);
            blocks[index] = malloc((size_t)(rand_r(&seed) % 8192 + 1));
            memset(blocks[index], 0x5a, 1);
        }
        nap();
    }
    for (int index = 0; index < 64; index++)
        free(blocks[index]);
    return unused;
}

/* Has an odd signal mask and a low priority. */
static void *odd(void *unused)
{
    sigset_t mask;
    sigfillset(&mask);
    sigdelset(&mask, SIGUSR1);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    prctl(PR_SET_NAME, "odd one");
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 7);
    atomic_fetch_add(&ready, 1);
    while (!atomic_load(&stopping))
        nap();
    return unused;
}

/* Waits for whatever child there is, as init systems and test runners do. */
static void *reap(void *unused)
{
    int status = 0;
    prctl(PR_SET_NAME, "reaper");
    atomic_fetch_add(&ready, 1);
    while (!atomic_load(&stopping)) {
        for (int round = 0; round < 50; round++) {
            pid_t pid = RETRY(waitpid(-1, &status, 0));
            if (pid >= 0 || errno != ECHILD)
                complain(&children, "waitpid(-1) gave %d, status %x", pid, status);
        }
        sched_yield();
        nap();
    }
    return unused;
}

/* Every descriptor that was not there before is to be close-on-exec: a host that executes
 * something else at this moment must not hand it on. */
static void look_at_descriptors(void)
{
    DIR *descriptors = opendir("/proc/self/fd");
    struct dirent *entry;
    while (descriptors != NULL && (entry = readdir(descriptors)) != NULL) {
        int fd = atoi(entry->d_name), flags = fcntl(fd, F_GETFD);
        if (!is_number(entry->d_name) || flags < 0 || flags & FD_CLOEXEC)
            continue;
        char known[64];
        struct text now = {0};
        snprintf(known, sizeof known, "/proc/self/fd/%d", fd);
        add_link(&now, known);
        snprintf(known, sizeof known, "\n%d: status", fd);
        for (int index = 0; index < ITEMS; index++)
            if (items[index].take == take_descriptors &&
                strstr(items[index].before.bytes, known) == NULL)
                complain(&passing, "not close-on-exec: %s", now.bytes);
        free(now.bytes);
    }
    if (descriptors != NULL)
        closedir(descriptors);
}

/* Looks again and again while containers run: what is changed for a moment only is a change, too. */
static void *watch(void *unused)
{
    char text[512];
    prctl(PR_SET_NAME, "watcher");
    atomic_fetch_add(&ready, 1);
    while (!atomic_load(&stopping)) {
        pthread_mutex_lock(&sampling);
        for (int index = 0; index < ITEMS && !atomic_load(&stopping); index++) {
            struct text now = {0};
            if (!items[index].sampled || items[index].before.bytes == NULL)
                continue;
            blind = 0;
            items[index].take(&now);
            if (!blind && strcmp(now.bytes, items[index].before.bytes) != 0) {
                difference(text, sizeof text, items[index].before.bytes, now.bytes);
                complain(&passing, "%s: %s", items[index].name, text);
            }
            free(now.bytes);
        }
        if (items[ITEMS - 1].before.bytes != NULL && !atomic_load(&stopping)) {
            look_at_descriptors();
            if (!no_child(text, sizeof text))
                complain(&children, "%s", text);
            atomic_fetch_add(&samples, 1);
        }
        pthread_mutex_unlock(&sampling);
        nap();
    }
    return unused;
}

/* --- Plugins ------------------------------------------------------------------------------- */

static atomic_int calls, strange_calls;
static _Thread_local int is_worker;

/* A plugin of the host's own: a variable for every process. */
static int greet(locule_plugin_call *call, void *user)
{
    static const char greeting[] =
        "{\"adjust\": \"set-env\", \"name\": \"GREETING\", \"value\": \" greeted\"}";
    atomic_fetch_add(&calls, 1);
    if (!is_worker || user != &calls)
        atomic_fetch_add(&strange_calls, 1);
    return locule_plugin_call_adjust_json(call, greeting, strlen(greeting), NULL);
}

static int with_plugins(void)
{
    return is("plugins");
}

/* What a program says that the plugin has greeted. */
static const char *greeting(void)
{
    return with_plugins() ? " greeted" : "";
}

/* One that is a function, and one that is the Wasm component in `stamp`. */
static void load_plugins(const char *stamp, locule_plugin *loaded[2])
{
    static const char *const stages[] = {"create", "exec", NULL};
    char json[8192];
    locule_error *err = NULL;
    LOCULE_OPTS(locule_plugin_opts, own, .name = "greet", .stages = stages, .handle = greet, .user = &calls);
    snprintf(json, sizeof json,
             "{\"name\": \"stamp\", \"path\": \"%s/stamp.wasm\", \"config\": \"a host\", "
             "\"powers\": [\"adjust-annotations\", \"adjust-rlimits\"], \"cache\": \"%s/cache\"}",
             stamp, directory);
    if (locule_plugin_new(&own, &loaded[0], &err) < 0 ||
        locule_plugin_load(json, strlen(json), NULL, &loaded[1], &err) < 0) {
        report(0, "load the plugins", "%s", locule_error_message(err));
        _exit(1);
    }
}

/* --- Calls that have to work --------------------------------------------------------------- */

static locule_runtime *runtime;
static atomic_int next_cycle, next_id, refusals;

/* Returns 1, or complains and gives the error back, or returns -1: to be tried again. Where there
 * are few descriptors, the other threads may hold them all. */
static int works(int result, const char *what, locule_error *err)
{
    if (result >= 0)
        return 1;
    if (is("few-descriptors") && result == LOCULE_E_RESOURCE && atomic_fetch_add(&refusals, 1) < 100000) {
        locule_error_unref(err);
        nap();
        return -1;
    }
    complain(&statuses, "%s: %s", what, err ? locule_error_message(err) : "no error");
    locule_error_unref(err);
    return 0;
}
#define WORKS(call)                               \
    __extension__({                               \
        int works_;                               \
        do {                                      \
            locule_error *err = NULL;             \
            int result_ = (call);                 \
            works_ = works(result_, #call, err);  \
        } while (works_ < 0);                     \
        works_;                                   \
    })

/* --- Images -------------------------------------------------------------------------------- */

static locule_image_store *store;
static locule_image *image;
static atomic_int steps, strange_steps;

static int with_images(void)
{
    return is("images") || is("images-ordinary-user");
}

static int is_ordinary(void)
{
    return is("ordinary-user") || is("images-ordinary-user");
}

static int on_step(const struct locule_image_progress *progress, void *user)
{
    atomic_fetch_add(&steps, 1);
    if (!is_worker || user != &steps || progress->size == 0)
        atomic_fetch_add(&strange_steps, 1);
    return 0;
}

/* What has this name and number, in the host's directory. */
static const char *numbered(char path[4096], const char *name, int number)
{
    snprintf(path, 4096, "%s/%s-%d", directory, name, number);
    return path;
}

/* By `opendir`, as glibc's `nftw` has folders below the first open for a moment without close-on-exec,
 * which the watcher takes for the library's. */
static void remove_tree(const char *path)
{
    struct text inside = {0};
    DIR *entries = opendir(path);
    struct dirent *entry;
    while (entries != NULL && (entry = readdir(entries)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        inside.length = 0;
        add(&inside, "%s/%s", path, entry->d_name);
        if (entry->d_type == DT_DIR)
            remove_tree(inside.bytes);
        else if (unlink(inside.bytes) != 0)
            complain(&statuses, "remove %s: %s", inside.bytes, strerror(errno));
    }
    if (entries != NULL)
        closedir(entries);
    free(inside.bytes);
    if (remove(path) != 0)
        complain(&statuses, "remove %s: %s", path, strerror(errno));
}

/* Opens the store, and makes the image of which containers are created. */
static void open_store(const char *tree)
{
    static const char config[] = "{\"Env\": [\"PATH=/bin\"], \"Cmd\": [\"/bin/sh\"]}";
    char path[4096];
    locule_error *err = NULL;
    snprintf(path, sizeof path, "%s/images", directory);
    LOCULE_OPTS(locule_image_store_opts, where, .path = path);
    LOCULE_OPTS(locule_image_opts, opts, .name = "host", .config_json = config,
                .config_json_len = strlen(config));
    if (locule_image_store_open(&where, &store, &err) < 0 ||
        locule_image_store_import(store, tree, &opts, &image, &err) < 0) {
        report(0, "import an image", "%s", locule_error_message(err));
        _exit(1);
    }
}

/* What is done with images while other threads do the same, and have containers of one. */
static void handle_images(int number)
{
    char path[4096], name[64];
    locule_image *other;
    locule_buf text;
    LOCULE_OPTS(locule_image_opts, opts, .progress = on_step, .progress_user = &steps);
    snprintf(name, sizeof name, "localhost/loaded:%d", number);
    switch (number % 4) {
    case 0: /* out to a layout or an archive, and in again */
    case 1:
        numbered(path, "saved", number);
        if (number % 4 == 1)
            strcat(path, ".tar");
        if (!WORKS(locule_image_save(image, path, &opts, &err)))
            return;
        opts.name = name;
        if (WORKS(locule_image_store_load(store, path, &opts, &other, &err))) {
            if (strcmp(locule_image_digest(other), locule_image_digest(image)) != 0)
                complain(&statuses, "another image was loaded than was saved");
            WORKS(locule_image_store_remove(store, name, &err));
            locule_image_unref(other);
        }
        remove_tree(path);
        break;
    case 2:
        if (WORKS(locule_image_unpack(image, numbered(path, "tree", number), &opts, &err)))
            remove_tree(path);
        break;
    default:
        if (WORKS(locule_image_store_prune_json(store, NULL, &text, &err)))
            locule_buf_free(&text);
        if (WORKS(locule_image_store_list_json(store, &text, &err)))
            locule_buf_free(&text);
        if (locule_image_store_load(store, "/no/such/archive", &opts, &other, NULL) >= 0 || other != NULL)
            complain(&statuses, "an archive that is not there was loaded");
    }
}

/* Makes an image of what a container that has stopped has changed. */
static void commit(locule_container *container, int number)
{
    locule_image *committed;
    locule_buf text;
    char name[64];
    snprintf(name, sizeof name, "localhost/committed:%d", number);
    LOCULE_OPTS(locule_image_opts, opts, .name = name, .progress = on_step, .progress_user = &steps,
                .compression = number % 2 ? LOCULE_COMPRESSION_ZSTD : LOCULE_COMPRESSION_GZIP);
    if (!WORKS(locule_image_store_commit(store, container, &opts, &committed, &err)))
        return;
    if (WORKS(locule_image_inspect_json(committed, &text, &err)))
        locule_buf_free(&text);
    WORKS(locule_image_store_remove(store, name, &err));
    locule_image_unref(committed);
}

/* Nothing stays in a store of which no image is needed any more. */
static void check_store(void)
{
    static const char *const parts[] = {"blobs/sha256", "layers", "uses", "drafts"};
    struct text left = {0};
    locule_buf text;
    locule_image_unref(image);
    LOCULE_OPTS(locule_image_opts, all, .flags = LOCULE_PRUNE_ALL);
    if (WORKS(locule_image_store_prune_json(store, &all, &text, &err)))
        locule_buf_free(&text);
    for (size_t index = 0; index < sizeof parts / sizeof *parts; index++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", locule_image_store_path(store), parts[index]);
        DIR *entries = opendir(path);
        struct dirent *entry;
        while (entries != NULL && (entry = readdir(entries)) != NULL)
            if (entry->d_name[0] != '.')
                add(&left, "%s/%s ", parts[index], entry->d_name);
        if (entries != NULL)
            closedir(entries);
    }
    report(left.length == 0, "nothing is left of images", "%s", left.length ? left.bytes : "");
    free(left.bytes);
    locule_image_store_unref(store);
}

/* --- Containers ---------------------------------------------------------------------------- */

/* An ordinary user whom the files of its program, or who started it, gave capabilities: what it
 * does with them has to work without a user namespace. */
static int is_capable(void)
{
    return is("file-capabilities") || is("ambient-capabilities");
}

/* How the ids of the host's containers begin. */
static char ids[32];

/* Makes a container of the image; with a directory for its changes if that is not NULL. */
static int make_of_image(const char *const *args, const char *changes, locule_container **container,
                         locule_error **err)
{
    char id[64], overrides[1024];
    snprintf(overrides, sizeof overrides, "{\"args\": [\"%s\", \"%s\", \"%s\"]}", args[0], args[1],
             args[2]);
    snprintf(id, sizeof id, "%s%d", ids, atomic_fetch_add(&next_id, 1));
    LOCULE_OPTS(locule_create_opts, opts, .id = id, .image = image, .image_overrides_json = overrides,
                .image_overrides_json_len = strlen(overrides), .changes = changes,
                .stdio = {{LOCULE_STDIO_PIPE, 0}, {LOCULE_STDIO_PIPE, 0}});
    return locule_container_create(runtime, &opts, container, err);
}

static int make(const char *const *args, const char *rootfs, locule_container **container,
                locule_error **err)
{
    static const char *const env[] = {"PATH=/usr/bin:/bin", NULL};
    locule_buf spec;
    LOCULE_OPTS(locule_spec_opts, choices, .args = args, .env = env, .rootfs = rootfs,
                .flags = is_capable() ? 0 : LOCULE_SPEC_ROOTLESS_AUTO);
    int result = locule_spec_generate(&choices, &spec, err);
    char id[64];
    if (result < 0)
        return result;
    snprintf(id, sizeof id, "%s%d", ids, atomic_fetch_add(&next_id, 1));
    LOCULE_OPTS(locule_create_opts, opts, .id = id, .spec_json = spec.data, .spec_json_len = spec.len,
                .flags = LOCULE_CREATE_ROOTFS_OVERLAY,
                .stdio = {{LOCULE_STDIO_PIPE, 0}, {LOCULE_STDIO_PIPE, 0}});
    result = locule_container_create(runtime, &opts, container, err);
    locule_buf_free(&spec);
    return result;
}

static void expect_end(locule_process *process, const char *what, uint32_t kind, int number)
{
    LOCULE_OPTS(locule_exit, end, .kind = 99);
    if (!WORKS(locule_process_wait(process, 30000, NULL, &end, &err)))
        return;
    if (end.kind != kind || (kind == LOCULE_EXIT_CODE ? end.code : end.signal) != number)
        complain(&statuses, "%s: kind %u, code %d, signal %d", what, end.kind, end.code, end.signal);
}

static void expect_output(int fd, const char *what, const char *expected)
{
    char bytes[64];
    size_t length = 0;
    ssize_t count;
    while ((count = RETRY(read(fd, bytes + length, sizeof bytes - 1 - length))) > 0)
        length += (size_t)count;
    bytes[length] = '\0';
    close(fd);
    if (strcmp(bytes, expected) != 0)
        complain(&statuses, "%s: output \"%s\"", what, bytes);
}

/* Runs a second process in a container: its output and its exit code come back. With a terminal
 * for good measure: a host without one must not get it. */
static void exec_in(locule_container *container, int number, int terminal)
{
    char json[256], expected[32];
    locule_process *process;
    snprintf(json, sizeof json,
             "{\"args\": [\"/bin/sh\", \"-c\", \"echo exec %d$GREETING; exit %d\"], \"terminal\": %s}", number,
             number % 200, terminal ? "true" : "false");
    snprintf(expected, sizeof expected, "exec %d%s%s\n", number, greeting(), terminal ? "\r" : "");
    LOCULE_OPTS(locule_exec_opts, opts, .process_json = json, .process_json_len = strlen(json),
                .stdio = {[1] = {terminal ? LOCULE_STDIO_NULL : LOCULE_STDIO_PIPE, 0}});
    if (!WORKS(locule_container_exec(container, &opts, &process, &err)))
        return;
    int fd = -1;
    if (WORKS(fd = terminal ? locule_process_take_terminal(process, &err)
                            : locule_process_take_pipe(process, 1, &err)))
        expect_output(fd, "exec", expected);
    expect_end(process, "exec", LOCULE_EXIT_CODE, number % 200);
    locule_process_unref(process);
}

/* Nobody but the first process is in the container, or will be in a moment: a second one of which
 * the host was told that it could not be had must not run. */
static void expect_alone(locule_container *container)
{
    locule_buf pids = {0};
    if (is_ordinary())
        return; /* no cgroup to ask */
    for (int patience = 10000; patience > 0; patience--) {
        if (!WORKS(locule_container_pids_json(container, &pids, &err)))
            return;
        int alone = strchr(pids.data, ',') == NULL;
        if (!alone && patience == 1)
            complain(&statuses, "processes are left behind: %s", pids.data);
        locule_buf_free(&pids);
        if (alone)
            return;
        nap();
    }
}

/* Whether the component has been called. */
static void expect_stamp(locule_container *container)
{
    locule_buf state;
    if (!WORKS(locule_container_state_json(container, &state, &err)))
        return;
    if (strstr(state.data, "\"org.locule.stamp\":\"a host\"") == NULL)
        complain(&statuses, "no stamp in the state: %s", state.data);
    locule_buf_free(&state);
}

static void run_container(int number)
{
    /* It ends by itself, with what it is told; or is killed; or is never started. */
    static const char *const tells[] = {"/bin/sh", "-c", "echo ready$GREETING; read code; exit $code", NULL};
    static const char *const sleeps[] = {"/bin/sh", "-c", "echo ready$GREETING; exec sleep 600", NULL};
    enum { TOLD, KILLED, NEVER_STARTED } fate = (number % 5 == 4) ? NEVER_STARTED : number % 2;
    locule_container *container;
    locule_process *init;
    int in, out;

    char changes[4096];
    int commits = with_images() && fate == TOLD;
    if (with_images())
        handle_images(number);
    if (commits)
        numbered(changes, "changes", number);
    if (!WORKS(with_images() ? make_of_image(fate == KILLED ? sleeps : tells, commits ? changes : NULL,
                                             &container, &err)
                             : make(fate == KILLED ? sleeps : tells, "/", &container, &err)))
        return;
    if (!WORKS(locule_container_init(container, &init, &err)))
        return;
    if (with_plugins())
        expect_stamp(container);
    if (fate == NEVER_STARTED) {
        locule_container *impossible;
        if (make(tells, "/no/such/root", &impossible, NULL) >= 0)
            complain(&statuses, "a container without a root was created");
        if (impossible != NULL)
            complain(&statuses, "a call that failed has set *out");
        WORKS(locule_container_delete(container, LOCULE_DELETE_FORCE, &err));
        locule_process_unref(init);
        locule_container_unref(container);
        return;
    }

    WORKS(locule_container_start(container, NULL, &err));
    exec_in(container, number, number % 3 == 0);
    expect_alone(container);
    if (WORKS(in = locule_process_take_pipe(init, 0, &err))) {
        char told[16];
        snprintf(told, sizeof told, "%d\n", number % 200);
        if (fate == KILLED)
            WORKS(locule_container_signal(container, SIGKILL, LOCULE_SIGNAL_ALL, &err));
        else if (RETRY(write(in, told, strlen(told))) < 0)
            complain(&statuses, "write to a container: %s", strerror(errno));
        close(in);
    }
    if (fate == KILLED)
        expect_end(init, "killed container", LOCULE_EXIT_SIGNAL, SIGKILL);
    else
        expect_end(init, "container", LOCULE_EXIT_CODE, number % 200);
    if (WORKS(out = locule_process_take_pipe(init, 1, &err))) {
        if (fate == TOLD) /* a killed one may not have come so far */
            expect_output(out, "container", with_plugins() ? "ready greeted\n" : "ready\n");
        else
            close(out);
    }
    if (commits)
        commit(container, number);
    WORKS(locule_container_delete(container, 0, &err));
    locule_process_unref(init);
    locule_container_unref(container);
}

/* --- What --break does --------------------------------------------------------------------- */

static void *sleep_on(void *unused)
{
    while (!atomic_load(&stopping))
        nap();
    return unused;
}

static void misbehave(void)
{
    if (breaks("umask"))
        umask(0);
    else if (breaks("umask-for-a-moment")) {
        mode_t old = umask(0);
        for (int seen = atomic_load(&samples); atomic_load(&samples) < seen + 2;)
            nap();
        umask(old);
    } else if (breaks("child")) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(3);
    } else if (breaks("fd")) {
        if (open("/dev/null", O_RDONLY) < 0)
            die("/dev/null");
    } else if (breaks("thread")) {
        pthread_t thread;
        pthread_create(&thread, NULL, sleep_on, NULL);
    } else if (breaks("directory")) {
        if (chdir("/") != 0)
            die("chdir");
    } else if (breaks("environment"))
        setenv("LOCULE_WAS_HERE", "1", 1);
    else if (breaks("mask")) {
        sigset_t mask;
        sigemptyset(&mask);
        sigaddset(&mask, SIGUSR2);
        pthread_sigmask(SIG_BLOCK, &mask, NULL);
    } else if (breaks("handler"))
        signal(SIGPIPE, SIG_IGN);
    else if (breaks("output"))
        dprintf(1, "hello\n");
    else if (breaks("subreaper"))
        prctl(PR_SET_CHILD_SUBREAPER, 1);
    else if (breaks("namespace")) {
        if (unshare(CLONE_NEWUTS) != 0)
            die("unshare");
    } else if (breaks("keyring"))
        syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
    else if (breaks("oom")) {
        int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
        if (write(fd, "5", 1) != 1)
            die("oom_score_adj");
        close(fd);
    } else if (breaks("limit")) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
    } else if (breaks("memory")) {
        volatile char *bytes = malloc(64 << 20);
        for (size_t at = 0; at < 64 << 20; at += 4096)
            bytes[at] = 1;
    } else if (breaks("address-space")) {
        if (mmap(NULL, (size_t)1 << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) ==
            MAP_FAILED)
            die("mmap");
    } else
        die("unknown --break");
}

/* --- The workers --------------------------------------------------------------------------- */

static void work_until(int last)
{
    for (;;) {
        int number = atomic_load(&next_cycle);
        if (number >= last)
            return;
        if (atomic_compare_exchange_strong(&next_cycle, &number, number + 1))
            run_container(number);
    }
}

static void meet(void)
{
    pthread_barrier_wait(&phase);
}

static void *work(void *argument)
{
    int number = (int)(size_t)argument;
    struct text before = {0}, after = {0};
    char stack[32 * 1024], text[512];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    prctl(PR_SET_NAME, "worker");
    is_worker = 1;
    sigaltstack(&alternate, NULL);
    if (number == 1) {
        sigset_t mask;
        sigemptyset(&mask);
        sigaddset(&mask, SIGINT);
        sigaddset(&mask, SIGCHLD);
        sigaddset(&mask, SIGRTMIN + 5);
        pthread_sigmask(SIG_SETMASK, &mask, NULL);
        prctl(PR_SET_TIMERSLACK, 77777);
    }
    take_own(&before);
    atomic_fetch_add(&ready, 1);
    meet(); /* everything is as it shall stay */
    meet(); /* the first look is done, the runtime open */
    work_until(WARM_UP);
    meet(); /* whatever is made once is made */
    meet(); /* the look at the memory is done */
    if (number == 0 && breaking != NULL)
        misbehave();
    work_until(WARM_UP + cycles);
    take_own(&after);
    if (strcmp(before.bytes, after.bytes) != 0) {
        difference(text, sizeof text, before.bytes, after.bytes);
        complain(&attributes, "%s", text);
    }
    meet(); /* all containers are gone */
    meet(); /* the last look is done */
    alternate.ss_flags = SS_DISABLE;
    sigaltstack(&alternate, NULL);
    free(before.bytes);
    free(after.bytes);
    return NULL;
}

/* --- Memory -------------------------------------------------------------------------------- */

static long from_status(const char *name)
{
    struct text status = {0};
    add_file(&status, "/proc/self/status");
    char *line = strstr(status.bytes, name);
    long value = line ? atol(line + strlen(name)) : -1;
    free(status.bytes);
    return value;
}

static long mappings(void)
{
    struct text maps = {0};
    long lines = 0;
    add_file(&maps, "/proc/self/maps");
    for (const char *at = maps.bytes; (at = strchr(at, '\n')) != NULL; at++)
        lines++;
    free(maps.bytes);
    return lines;
}

/* --- The variants -------------------------------------------------------------------------- */

static void refuse_clone3(void)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof program / sizeof *program, program};
    if (geteuid() != 0)
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) != 0)
        die("seccomp");
    if (syscall(SYS_clone3, NULL, 0) != -1 || errno != ENOSYS)
        die("the seccomp filter has no effect");
}

static void be_resident(void)
{
    size_t size = (size_t)2 << 30;
    char *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED)
        die("2 GiB");
    madvise(bytes, size, MADV_NOHUGEPAGE);
    for (size_t at = 0; at < size; at += 4096)
        bytes[at] = 1;
}

static void be_ordinary(void)
{
    enum { UID = 64123 };
    if (chown(directory, UID, UID) != 0 || setgroups(0, NULL) != 0 || setgid(UID) != 0 ||
        setuid(UID) != 0)
        die("become an ordinary user");
    prctl(PR_SET_DUMPABLE, 1);
}

/* What is seen of the standard streams from their other ends. */
static int other_end[3] = {-1, -1, -1};

/* Moves a descriptor out of the way of 0 to 3, which have their own parts. */
static int move_up(int fd)
{
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, REPORT_FD + 1);
    if (moved < 0)
        die("F_DUPFD");
    close(fd);
    return moved;
}

static void set_up_streams(void)
{
    for (int number = 0; number < 3; number++) {
        int pair[2];
        if (is("closed-stdio")) {
            close(number);
            continue;
        }
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
            die("socketpair");
        other_end[number] = move_up(pair[0]);
        pair[1] = move_up(pair[1]);
        dup2(pair[1], number);
        close(pair[1]);
    }
    if (is("closed-stdio")) {
        int fd = open("/dev/zero", O_RDONLY);
        dup2(fd, 3);
        close(fd);
    } else if (write(other_end[0], "input", 5) != 5)
        die("write");
}

static void check_streams(void)
{
    int waiting[4] = {0};
    if (is("closed-stdio"))
        return; /* the descriptors say that they are still closed */
    for (int number = 0; number < 3; number++)
        ioctl(other_end[number], FIONREAD, &waiting[number]);
    ioctl(0, FIONREAD, &waiting[3]);
    report(waiting[0] + waiting[1] + waiting[2] == 0 && waiting[3] == 5,
           "nothing written to descriptors 0 to 2, nothing read",
           "%d, %d, %d bytes written, %d of 5 to read", waiting[0], waiting[1], waiting[2],
           waiting[3]);
}

/* An environment, a directory and the rest as hosts seldom have them. */
static void be_odd(void)
{
    static char *odd_environment[] = {"TMPDIR=/no/such/directory", "LC_ALL=xx_YY.nonsense", "HOME=",
                                      "no equals sign",            "TWICE=1",               "TWICE=2",
                                      "LD_LIBRARY_PATH=/nowhere",  NULL};
    struct rlimit descriptors;
    char path[4096];

    setsid();
    snprintf(path, sizeof path, "%s/a \"directory\"\n with an \xff odd name", directory);
    if (mkdir(path, 0755) != 0 || chdir(path) != 0)
        die(path);
    environ = odd_environment;
    umask(0137);
    install_handlers();
    prctl(PR_SET_NAME, "host");

    getrlimit(RLIMIT_NOFILE, &descriptors);
    descriptors.rlim_cur = is("few-descriptors") ? 64 : 777;
    setrlimit(RLIMIT_NOFILE, &descriptors);
}

/* --- The whole ----------------------------------------------------------------------------- */

static struct text cgroups_left;

static int is_left(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status;
    if (type == FTW_D && strncmp(path + where->base, ids, strlen(ids)) == 0)
        add(&cgroups_left, "%s ", path);
    return 0;
}

static void check_left(const char *state_dir)
{
    locule_buf list;
    locule_error *err = NULL;
    int result = locule_runtime_list_json(runtime, &list, &err);
    report(result >= 0 && strcmp(list.data, "[]") == 0, "no container is left", "%s",
           result < 0 ? locule_error_message(err) : list.data);
    locule_error_unref(err);
    locule_buf_free(&list);

    struct text left = {0};
    DIR *entries = opendir(state_dir);
    struct dirent *entry;
    struct stat status;
    while (entries != NULL && (entry = readdir(entries)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            fstatat(dirfd(entries), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISDIR(status.st_mode))
            add(&left, "%s ", entry->d_name);
    if (entries != NULL)
        closedir(entries);
    report(left.length == 0, "no directory of a container is left", "%s",
           left.length ? left.bytes : "");
    free(left.bytes);

    nftw("/sys/fs/cgroup", is_left, 8, FTW_PHYS);
    report(cgroups_left.length == 0, "no cgroup is left", "%s",
           cgroups_left.length ? cgroups_left.bytes : "");
}

int main(int argc, char **argv)
{
    char state_dir[4096], text[768];
    pthread_t threads[WORKERS + ALLOCATORS + 3];
    int count = 0, signals = 0;
    locule_error *err = NULL;
    locule_plugin *plugins[2] = {NULL, NULL};
    /* In an environment that goes away. */
    const char *components = getenv("LOCULE_TEST_PLUGIN"), *tree = getenv("LOCULE_TEST_TREE");

    if (argc != 3 && (argc != 5 || strcmp(argv[3], "--break") != 0))
        return 2;
    variant = argv[1];
    directory = argv[2];
    breaking = argc == 5 ? argv[4] : NULL;
    if (getenv("LOCULE_CYCLES") != NULL)
        cycles = atoi(getenv("LOCULE_CYCLES"));
    host_pid = getpid();
    if (dup3(1, REPORT_FD, O_CLOEXEC) < 0)
        return 2;
    snprintf(ids, sizeof ids, "invariants-%d-", host_pid);
    snprintf(state_dir, sizeof state_dir, "%s/state", directory);

    mallopt(M_ARENA_MAX, 2); /* threads meet at the locks, and the memory stays comparable */
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    atexit(on_exit_of_host);
    pthread_atfork(on_fork, NULL, NULL);

    if (is_ordinary())
        be_ordinary();
    if (is("no-clone3"))
        refuse_clone3();
    if (is("resident-2g"))
        be_resident();
    set_up_streams();
    be_odd();
    /* Text in a buffer that only the host may write out. */
    static char buffer[4096];
    if (!is("closed-stdio")) {
        setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
        fputs("not yet to be written", stdout);
    }

    pthread_barrier_init(&phase, NULL, WORKERS + 1);
    for (size_t number = 0; number < WORKERS; number++)
        pthread_create(&threads[count++], NULL, work, (void *)number);
    for (int number = 0; number < ALLOCATORS; number++)
        pthread_create(&threads[count++], NULL, allocate, NULL);
    pthread_create(&threads[count++], NULL, odd, NULL);
    pthread_create(&threads[count++], NULL, watch, NULL);
    if (is("foreign-reaper"))
        pthread_create(&threads[count++], NULL, reap, NULL);
    start_timer(2);

    meet();
    while (atomic_load(&ready) < count)
        nap(); /* until every thread has its name and mask */
    pthread_mutex_lock(&sampling);
    for (int index = 0; index < ITEMS; index++)
        items[index].take(&items[index].before);
    pthread_mutex_unlock(&sampling);

    long size_of_host = from_status("VmSize:");
    if (with_plugins())
        load_plugins(components, plugins);
    LOCULE_OPTS(locule_runtime_opts, opts, .state_dir = state_dir, .plugins = plugins,
                .plugin_count = with_plugins() ? 2 : 0);
    if (locule_runtime_new(&opts, &runtime, &err) < 0) {
        report(0, "open the runtime", "%s", locule_error_message(err));
        _exit(1);
    }
    locule_plugin_unref(plugins[0]);
    locule_plugin_unref(plugins[1]);
    if (with_images())
        open_store(tree);
    meet();
    meet();
    long mappings_before = mappings(), resident_before = from_status("VmRSS:"),
         size_before = from_status("VmSize:");
    meet();
    meet();
    long mappings_after = mappings(), resident_after = from_status("VmRSS:"),
         size_after = from_status("VmSize:");

    /* Everything has run. */
    pthread_mutex_lock(&sampling); /* what the host itself does from here on is not watched */
    check_left(state_dir);
    if (with_images())
        check_store();
    locule_runtime_unref(runtime);
    for (int index = 0; index < ITEMS; index++) {
        struct text after = {0};
        items[index].take(&after);
        int same = strcmp(items[index].before.bytes, after.bytes) == 0;
        if (!same)
            difference(text, sizeof text, items[index].before.bytes, after.bytes);
        report(same, items[index].name, same ? NULL : "%s", text);
        free(after.bytes);
    }
    report_complaint(&attributes,
                     "keyrings, timer slack, signal stack, memory policy of every worker", "");
    snprintf(text, sizeof text, "looked %d times", atomic_load(&samples));
    report_complaint(&passing, "nor for a moment; descriptors are close-on-exec", text);

    if (no_child(text, sizeof text) && waitpid(-1, NULL, __WALL | WNOHANG) == -1 && errno == ECHILD)
        report_complaint(&children, "no child, at no time", "");
    else
        report(0, "no child, at no time", "%s", text);
    for (int number = 1; number <= 64; number++)
        if (number != SIGALRM && atomic_load(&received[number]) > 0)
            signals = number;
    if (signals == 0)
        report(1, is("sigchld-ignored") ? "no signal from a container"
                                        : "no SIGCHLD, no other signal from a container",
               "%d of the host's own", atomic_load(&received[SIGALRM]));
    else
        report(0, "no SIGCHLD, no other signal from a container", "%d times signal %d",
               atomic_load(&received[signals]), signals);
    report(atomic_load(&handled_elsewhere) == 0, "no handler of the host ran in a child", "%d",
           atomic_load(&handled_elsewhere));
    report(atomic_load(&shared->forks) == 0, "no fork of the host", "%d",
           atomic_load(&shared->forks));
    report(atomic_load(&shared->exits) == 0, "no exit handler of the host ran", "%d",
           atomic_load(&shared->exits));
    check_streams();
    report(mappings_after - mappings_before <= 16, "mappings do not grow", "%ld, then %ld",
           mappings_before, mappings_after);
    report(size_after - size_before <= 16 * 1024, "address space does not grow",
           "%ld kB, then %ld kB", size_before, size_after);
    long most = from_status("VmPeak:");
    report(most - size_of_host < 256 * 1024, "address space stays bounded, at every moment",
           "%ld kB, at most %ld kB", size_of_host, most);
    if (with_plugins())
        report(atomic_load(&calls) > cycles && atomic_load(&strange_calls) == 0,
               "plugins are called on threads of the host", "%d calls, %d elsewhere",
               atomic_load(&calls), atomic_load(&strange_calls));
    if (with_images())
        report(atomic_load(&steps) > cycles && atomic_load(&strange_steps) == 0,
               "progress is told on threads of the host", "%d times, %d elsewhere", atomic_load(&steps),
               atomic_load(&strange_steps));
    report(resident_after - resident_before <= 8 * 1024, "resident memory does not grow",
           "%ld kB, then %ld kB", resident_before, resident_after);
    snprintf(text, sizeof text, "%d containers%s", WARM_UP + cycles,
             atomic_load(&refusals) ? ", some calls refused for want of descriptors" : "");
    report_complaint(&statuses, "containers work, outputs and exit statuses are right", text);
    atomic_store(&stopping, 1); /* before anybody looks at threads that end */
    pthread_mutex_unlock(&sampling);

    meet();
    for (int index = 0; index < count; index++)
        pthread_join(threads[index], NULL);
    return failures != 0;
}
