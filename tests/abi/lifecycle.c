/* The life of a container as C sees it: what the calls return, what the events say, and who
 * owns which descriptor. Needs root. */

#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "locule.h"

static locule_container *create(locule_runtime *runtime, const char *script)
{
    const char *const args[] = {"/bin/sh", "-c", script, NULL};
    locule_container *container;
    locule_buf spec;
    LOCULE_OPTS(locule_spec_opts, choices, .args = args, .rootfs = "/");
    NEEDS(locule_spec_generate(&choices, &spec, &err));
    LOCULE_OPTS(locule_create_opts, opts, .spec_json = spec.data, .spec_json_len = spec.len,
                .flags = LOCULE_CREATE_ROOTFS_OVERLAY, .stdio = {[1] = {LOCULE_STDIO_PIPE, 0}});
    NEEDS(locule_container_create(runtime, &opts, &container, &err));
    locule_buf_free(&spec);
    return container;
}

static int readable(int fd, int timeout_ms)
{
    struct pollfd poller = {fd, POLLIN, 0};
    return poll(&poller, 1, timeout_ms) == 1;
}

struct seen {
    int count, answer;
    struct locule_exit last;
    char container_id[128];
    locule_process *kept;
};

static int on_event(const locule_event *event, void *user)
{
    struct seen *seen = user;
    seen->count++;
    seen->last.size = sizeof seen->last;
    CHECK(locule_event_kind(event) == LOCULE_EVENT_EXITED);
    CHECK(locule_event_exit(event, &seen->last, NULL) == 0);
    snprintf(seen->container_id, sizeof seen->container_id, "%s",
             locule_event_container_id(event));
    if (seen->kept == NULL)
        seen->kept = locule_process_ref(locule_event_process(event));
    return seen->answer;
}

static void states_and_exit(locule_runtime *runtime)
{
    locule_container *container = create(runtime, "echo out; exit 7");
    locule_process *init;
    locule_buf state;
    LOCULE_OPTS(locule_exit, end, .kind = 99);
    char text[8] = "";

    NEEDS(locule_container_init(container, &init, &err));
    NEEDS(locule_container_state_json(container, &state, &err));
    CHECK(strstr(state.data, "\"created\"") != NULL);
    locule_buf_free(&state);

    CHECK(locule_process_wait(init, 0, NULL, &end, NULL) == 0);
    CHECK(end.kind == LOCULE_EXIT_NONE);
    CHECK(!readable(locule_process_fd(init), 0));
    NEEDS(locule_container_start(container, NULL, &err));
    CHECK(locule_process_wait(init, 10000, NULL, &end, NULL) == 1);
    CHECK(end.kind == LOCULE_EXIT_CODE && end.code == 7 && end.signal == 0);
    CHECK(readable(locule_process_fd(init), 0));
    CHECK(locule_container_start(container, NULL, NULL) == LOCULE_E_STATE);
    CHECK(locule_process_signal(init, SIGTERM, NULL) == LOCULE_E_STATE);

    int out = locule_process_take_pipe(init, 1, NULL);
    CHECK(out > 2 && read(out, text, sizeof text - 1) == 4 && strcmp(text, "out\n") == 0);
    close(out);
    CHECK(locule_process_take_pipe(init, 1, NULL) == LOCULE_E_NOT_FOUND);
    CHECK(locule_process_take_pipe(init, 0, NULL) == LOCULE_E_NOT_FOUND);
    CHECK(locule_process_take_pipe(init, 3, NULL) == LOCULE_E_INVALID);
    CHECK(locule_process_take_terminal(init, NULL) == LOCULE_E_NOT_FOUND);

    NEEDS(locule_container_delete(container, 0, &err));
    CHECK(locule_container_state_json(container, &state, NULL) == LOCULE_E_NOT_FOUND);
    CHECK(locule_container_id(container) != NULL);
    locule_process_unref(init);
    locule_container_unref(container);
}

static void signals_and_cancelling(locule_runtime *runtime)
{
    locule_container *container = create(runtime, "exec sleep 60"), *again;
    locule_process *init;
    locule_cancel *cancel;
    LOCULE_OPTS(locule_exit, end, .kind = 99);

    NEEDS(locule_container_init(container, &init, &err));
    NEEDS(locule_container_start(container, NULL, &err));
    CHECK(locule_container_delete(container, 0, NULL) == LOCULE_E_STATE);
    CHECK(locule_process_wait(init, 50, NULL, &end, NULL) == 0);

    NEEDS(locule_cancel_new(&cancel, &err));
    locule_cancel_trigger(cancel);
    CHECK(locule_process_wait(init, -1, cancel, &end, NULL) == LOCULE_E_CANCELLED);
    CHECK(end.kind == LOCULE_EXIT_NONE);
    locule_cancel_unref(cancel);

    NEEDS(locule_container_open(runtime, locule_container_id(container), &again, &err));
    NEEDS(locule_container_signal(again, SIGKILL, LOCULE_SIGNAL_ALL, &err));
    locule_container_unref(again);
    CHECK(locule_process_wait(init, 10000, NULL, &end, NULL) == 1);
    CHECK(end.kind == LOCULE_EXIT_SIGNAL && end.signal == SIGKILL && end.code == 0);
    NEEDS(locule_container_delete(container, LOCULE_DELETE_FORCE, &err));
    locule_process_unref(init);
    locule_container_unref(container);
}

static void events(locule_runtime *runtime)
{
    struct seen seen = {0};
    locule_container *containers[3];
    locule_process *processes[3];
    for (int index = 0; index < 3; index++) {
        containers[index] = create(runtime, "exit 3");
        NEEDS(locule_container_init(containers[index], &processes[index], &err));
        NEEDS(locule_container_start(containers[index], NULL, &err));
    }
    for (int index = 0; index < 3; index++)
        CHECK(readable(locule_process_fd(processes[index]), 10000));

    /* A callback that stops loses none of the events after its own. */
    CHECK(readable(locule_runtime_fd(runtime), 10000));
    seen.answer = -5;
    CHECK(locule_runtime_dispatch(runtime, 0, on_event, &seen, NULL) == LOCULE_E_CALLBACK);
    CHECK(seen.count == 1 && seen.last.kind == LOCULE_EXIT_CODE && seen.last.code == 3);
    CHECK(seen.kept != NULL && locule_process_pid(seen.kept) > 0);
    seen.answer = 0;
    CHECK(locule_runtime_dispatch(runtime, 1000, on_event, &seen, NULL) == 2);
    CHECK(seen.count == 3);
    CHECK(locule_runtime_dispatch(runtime, 0, on_event, &seen, NULL) == 0);
    CHECK(!readable(locule_runtime_fd(runtime), 0));

    locule_process_unref(seen.kept);
    for (int index = 0; index < 3; index++) {
        NEEDS(locule_container_delete(containers[index], 0, &err));
        locule_process_unref(processes[index]);
        locule_container_unref(containers[index]);
    }
}

static void exec_in_it(locule_runtime *runtime)
{
    static const char json[] = "{\"args\": [\"/bin/sh\", \"-c\", \"read line; exit $line\"]}";
    static const char missing[] = "{\"args\": [\"/no/such/program\"]}";
    locule_container *container = create(runtime, "exec sleep 60");
    locule_process *process;
    locule_buf pids;
    int input[2];
    LOCULE_OPTS(locule_exit, end, .kind = 99);

    NEEDS(locule_container_start(container, NULL, &err));
    if (pipe(input) != 0)
        exit(2);
    LOCULE_OPTS(locule_exec_opts, opts, .process_json = json, .process_json_len = strlen(json),
                .stdio = {{LOCULE_STDIO_FD, input[0]}});
    NEEDS(locule_container_exec(container, &opts, &process, &err));
    close(input[0]);
    NEEDS(locule_container_pids_json(container, &pids, &err));
    CHECK(pids.len > 2 && strchr(pids.data, ',') != NULL);
    locule_buf_free(&pids);
    CHECK(write(input[1], "42\n", 3) == 3);
    close(input[1]);
    CHECK(locule_process_wait(process, 10000, NULL, &end, NULL) == 1);
    CHECK(end.kind == LOCULE_EXIT_CODE && end.code == 42);
    locule_process_unref(process);

    opts.process_json = missing;
    opts.process_json_len = strlen(missing);
    opts.stdio[0].kind = LOCULE_STDIO_NULL;
    opts.stdio[0].fd = 0;
    locule_error *err;
    CHECK(locule_container_exec(container, &opts, &process, &err) == LOCULE_E_PROGRAM);
    CHECK(process == NULL && err != NULL && strcmp(locule_error_stage_name(err), "exec") == 0);
    locule_error_unref(err);

    NEEDS(locule_container_delete(container, LOCULE_DELETE_FORCE, &err));
    locule_container_unref(container);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    locule_runtime *runtime;
    locule_buf list;
    LOCULE_OPTS(locule_runtime_opts, opts, .state_dir = argv[1]);
    NEEDS(locule_runtime_new(&opts, &runtime, &err));
    states_and_exit(runtime);
    signals_and_cancelling(runtime);
    exec_in_it(runtime);
    events(runtime);
    NEEDS(locule_runtime_list_json(runtime, &list, &err));
    CHECK(strcmp(list.data, "[]") == 0);
    locule_buf_free(&list);
    locule_runtime_unref(runtime);
    return failures != 0;
}
