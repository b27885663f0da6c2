/*
 * Runs a container from C, the whole way round:
 *
 *     cc run.c $(pkg-config --cflags --libs locule) -o run
 *     ./run                   a shell that sees this machine's files, in a private overlay
 *     ./run BUNDLE            an OCI bundle: a directory with config.json and its files
 *
 * It creates the container, starts it, runs a second process inside, sends the first one some
 * input through a pipe, prints what both write, says how the first one ended, and deletes the
 * container. Root is not needed where user namespaces are allowed.
 */

#include <locule.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Everything an error knows, and then the error given back. */
static void report(const char *what, locule_error *err)
{
    fprintf(stderr, "run: %s: %s\n", what, locule_error_message(err));
    fprintf(stderr, "  category  %s\n", locule_category_name(locule_error_code(err)));
    fprintf(stderr, "  stage     %s\n", locule_error_stage_name(err));
    if (locule_error_errno(err) != 0)
        fprintf(stderr, "  errno     %d (%s)\n", locule_error_errno(err),
                strerror(locule_error_errno(err)));
    if (locule_error_pointer(err) != NULL)
        fprintf(stderr, "  at        %s in config.json\n", locule_error_pointer(err));
    if (locule_error_step(err) != NULL)
        fprintf(stderr, "  step      %s\n", locule_error_step(err));
    if (locule_error_hint(err) != NULL)
        fprintf(stderr, "  hint      %s\n", locule_error_hint(err));
    locule_error_unref(err);
}

/* Prints what comes from a descriptor until its end, and closes it. */
static void print_all(int fd)
{
    char bytes[4096];
    ssize_t count;
    fflush(stdout);
    while ((count = read(fd, bytes, sizeof bytes)) > 0)
        fwrite(bytes, 1, (size_t)count, stdout);
    fflush(stdout);
    close(fd);
}

/* Creates the container: from a bundle, or from the default spec with the root of this
 * machine under an overlay, so that nothing it writes lands here. */
static int create(locule_runtime *runtime, const char *bundle, locule_container **container,
                  locule_error **err)
{
    static const char *const args[] = {
        "/bin/sh", "-c", "echo \"I am process $$ on $(uname -n)\"; tr a-z A-Z", NULL};
    locule_buf spec = {NULL, 0};
    LOCULE_OPTS(locule_create_opts, opts, .bundle = bundle,
                .stdio = {{LOCULE_STDIO_PIPE, 0},       /* we write to its input */
                          {LOCULE_STDIO_PIPE, 0},       /* we read its output */
                          {LOCULE_STDIO_INHERIT, 0}});  /* its errors go where ours go */
    int result;

    if (bundle == NULL) {
        LOCULE_OPTS(locule_spec_opts, choices, .args = args, .rootfs = "/",
                    .hostname = "locule", .flags = LOCULE_SPEC_ROOTLESS_AUTO);
        result = locule_spec_generate(&choices, &spec, err);
        if (result < 0)
            return result;
        opts.spec_json = spec.data;
        opts.spec_json_len = spec.len;
        opts.flags = LOCULE_CREATE_ROOTFS_OVERLAY;
    }
    result = locule_container_create(runtime, &opts, container, err);
    locule_buf_free(&spec);
    return result;
}

/* Runs another process in the container and prints its output. */
static int look_around(locule_container *container, locule_error **err)
{
    static const char process_json[] =
        "{\"args\": [\"/bin/sh\", \"-c\","
        " \"echo \\\"I am process $$ on $(uname -n), and my mounts begin with\\\";"
        "  head -n 4 /proc/mounts\"]}";
    LOCULE_OPTS(locule_exec_opts, opts, .process_json = process_json,
                .process_json_len = strlen(process_json),
                .stdio = {{LOCULE_STDIO_NULL, 0}, {LOCULE_STDIO_PIPE, 0},
                          {LOCULE_STDIO_INHERIT, 0}});
    locule_process *process;
    int result = locule_container_exec(container, &opts, &process, err);
    if (result < 0)
        return result;

    result = locule_process_take_pipe(process, STDOUT_FILENO, err);
    if (result >= 0) {
        print_all(result);
        result = locule_process_wait(process, -1, NULL, NULL, err);
    }
    locule_process_unref(process);
    return result;
}

/* Sends the first process its input, and prints its output. */
static int converse(locule_process *init, locule_error **err)
{
    static const char input[] = "these words went through a pipe\n";
    int in, out;

    in = locule_process_take_pipe(init, STDIN_FILENO, err);
    if (in < 0)
        return in;
    if (write(in, input, strlen(input)) < 0)
        perror("run: write to the container");
    close(in); /* the end of its input */

    out = locule_process_take_pipe(init, STDOUT_FILENO, err);
    if (out < 0)
        return out;
    print_all(out);
    return 0;
}

int main(int argc, char **argv)
{
    locule_error *err = NULL;
    locule_runtime *runtime = NULL;
    locule_container *container = NULL;
    locule_process *init = NULL;
    LOCULE_OPTS(locule_exit, end, .kind = LOCULE_EXIT_NONE);
    const char *failed = NULL;

    /* A container that ends early must not end us. That is the host's to decide: the library
     * touches no signal. */
    signal(SIGPIPE, SIG_IGN);

    if (locule_runtime_new(NULL, &runtime, &err) < 0)
        failed = "open the runtime";
    else if (create(runtime, argc > 1 ? argv[1] : NULL, &container, &err) < 0)
        failed = "create the container";
    else if (locule_container_init(container, &init, &err) < 0 ||
             locule_container_start(container, NULL, &err) < 0)
        failed = "start the container";
    else {
        printf("container %s runs as process %d\n", locule_container_id(container),
               locule_process_pid(init));
        if (look_around(container, &err) < 0)
            failed = "run a second process";
        else if (converse(init, &err) < 0)
            failed = "talk to the first process";
        else if (locule_process_wait(init, -1, NULL, &end, &err) < 0)
            failed = "wait for the first process";
    }
    if (failed != NULL)
        report(failed, err);
    else if (end.kind == LOCULE_EXIT_CODE)
        printf("it exited with status %d\n", end.code);
    else if (end.kind == LOCULE_EXIT_SIGNAL)
        printf("signal %d ended it\n", end.signal);
    else
        printf("it has ended, but nobody knows how\n");

    /* After a failure it may still run: force kills it. What this does not remove would be
     * removed when this process ends. */
    if (container != NULL &&
        locule_container_delete(container, LOCULE_DELETE_FORCE, &err) < 0) {
        report("delete the container", err);
        failed = "delete the container";
    }
    locule_process_unref(init);
    locule_container_unref(container);
    locule_runtime_unref(runtime);
    return failed != NULL;
}
