/* Loading the library and opening a runtime changes nothing in the process: no thread, no
 * signal handler or mask, no descriptor, nothing in the environment; and closing it again
 * (dlclose) keeps it, as unloading Rust code is not safe. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "locule.h"

#define SIGNALS 65

struct host {
    int entries_of_task, entries_of_fd, umask, subreaper, dumpable;
    struct sigaction actions[SIGNALS];
    sigset_t mask;
    char cwd[4096], environment[65536];
};

static int count(const char *path)
{
    int entries = 0;
    DIR *dir = opendir(path);
    if (dir == NULL)
        return -errno;
    while (readdir(dir) != NULL)
        entries++;
    closedir(dir);
    return entries;
}

static void look(struct host *host)
{
    extern char **environ;
    memset(host, 0, sizeof *host);
    host->entries_of_task = count("/proc/self/task");
    host->entries_of_fd = count("/proc/self/fd");
    host->umask = umask(0);
    umask(host->umask);
    prctl(PR_GET_CHILD_SUBREAPER, &host->subreaper);
    host->dumpable = prctl(PR_GET_DUMPABLE);
    for (int signal = 1; signal < SIGNALS; signal++)
        sigaction(signal, NULL, &host->actions[signal]);
    sigprocmask(SIG_SETMASK, NULL, &host->mask);
    if (getcwd(host->cwd, sizeof host->cwd) == NULL)
        exit(2);
    for (char **variable = environ; *variable != NULL; variable++)
        strncat(host->environment, *variable,
                sizeof host->environment - strlen(host->environment) - 1);
}

static void compare(const struct host *before)
{
    static struct host now;
    look(&now);
    CHECK(now.entries_of_task == before->entries_of_task);
    CHECK(now.entries_of_fd == before->entries_of_fd);
    CHECK(now.umask == before->umask);
    CHECK(now.subreaper == before->subreaper);
    CHECK(now.dumpable == before->dumpable);
    CHECK(memcmp(&now.mask, &before->mask, sizeof now.mask) == 0);
    CHECK(strcmp(now.cwd, before->cwd) == 0);
    CHECK(strcmp(now.environment, before->environment) == 0);
    for (int signal = 1; signal < SIGNALS; signal++)
        CHECK(now.actions[signal].sa_handler == before->actions[signal].sa_handler);
}

int main(int argc, char **argv)
{
    static struct host before;
    if (argc != 3)
        return 2;
    look(&before);

    void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        printf("%s\n", dlerror());
        return 1;
    }
    compare(&before);

    int (*runtime_new)(const struct locule_runtime_opts *, locule_runtime **, locule_error **);
    void (*runtime_unref)(locule_runtime *);
    const char *(*version)(void);
    *(void **)&runtime_new = dlsym(library, "locule_runtime_new");
    *(void **)&runtime_unref = dlsym(library, "locule_runtime_unref");
    *(void **)&version = dlsym(library, "locule_version");

    LOCULE_OPTS(locule_runtime_opts, opts, .state_dir = argv[2]);
    locule_runtime *runtime = NULL;
    CHECK(runtime_new(&opts, &runtime, NULL) == 0);
    runtime_unref(runtime);
    compare(&before);

    CHECK(dlclose(library) == 0);
    CHECK(version()[0] != '\0');
    return failures != 0;
}
