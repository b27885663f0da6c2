/* A program such as a user would have: compiled with the oldest header, linked with the newest
 * library, through pkg-config, CMake or the static library. Needs no privilege. */

#include <poll.h>
#include <string.h>

#include "check.h"
#include "locule.h"

static int readable(int fd)
{
    struct pollfd poller = {fd, POLLIN, 0};
    return poll(&poller, 1, 0) == 1;
}

static int on_event(const locule_event *event, void *user)
{
    (void)event;
    ++*(int *)user;
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    locule_error *err = NULL;
    LOCULE_OPTS(locule_runtime_opts, opts, .state_dir = argv[1]);
    locule_runtime *runtime = NULL;
    if (locule_runtime_new(&opts, &runtime, &err) < 0) {
        printf("open a runtime: %s\n", locule_error_message(err));
        locule_error_unref(err);
        return 1;
    }
    CHECK(locule_has("container") == 1 && locule_has("no such feature") == 0);
    CHECK(strcmp(locule_runtime_state_dir(runtime), argv[1]) == 0);

    /* Two references, given back twice. */
    CHECK(locule_runtime_ref(runtime) == runtime);
    locule_runtime_unref(runtime);

    locule_buf buf = {NULL, 0};
    CHECK(locule_runtime_list_json(runtime, &buf, &err) == 0);
    CHECK(buf.len == 2 && strcmp(buf.data, "[]") == 0);
    locule_buf_free(&buf);
    CHECK(locule_runtime_features_json(runtime, &buf, &err) == 0);
    CHECK(buf.len > 2 && buf.data[0] == '{' && buf.data[buf.len] == '\0');
    locule_buf_free(&buf);
    CHECK(buf.data == NULL);
    locule_buf_free(&buf);

    locule_container *container = (locule_container *)&buf;
    CHECK(locule_container_open(runtime, "no-such", &container, &err) == LOCULE_E_NOT_FOUND);
    CHECK(container == NULL && err != NULL);
    CHECK(strcmp(locule_category_name(locule_error_code(err)), "not-found") == 0);
    CHECK(locule_error_container_id(err) != NULL &&
          strcmp(locule_error_container_id(err), "no-such") == 0);
    CHECK(locule_error_ref(err) == err);
    locule_error_unref(err);
    locule_error_unref(err);

    static const char broken[] = "{\"ociVersion\": 7}";
    LOCULE_OPTS(locule_create_opts, create, .spec_json = broken,
                .spec_json_len = sizeof broken - 1);
    CHECK(locule_container_create(runtime, &create, &container, &err) == LOCULE_E_SPEC);
    CHECK(locule_error_pointer(err) != NULL &&
          strcmp(locule_error_pointer(err), "/ociVersion") == 0);
    locule_error_unref(err);

    /* The default spec, and what would be done with it. */
    static const char *const args[] = {"/bin/true", NULL};
    LOCULE_OPTS(locule_spec_opts, choices, .args = args, .rootfs = "/", .memory_bytes = 1 << 26,
                .flags = LOCULE_SPEC_ROOTLESS_AUTO);
    CHECK(locule_spec_generate(&choices, &buf, &err) == 0);
    CHECK(buf.data != NULL && strstr(buf.data, "67108864") != NULL);
    create.spec_json = buf.data;
    create.spec_json_len = buf.len;
    create.flags = LOCULE_CREATE_ROOTFS_OVERLAY;
    locule_buf plan = {NULL, 0};
    if (locule_runtime_explain(runtime, &create, LOCULE_EXPLAIN_JSON, &plan, &err) < 0) {
        printf("explain: %s\n", locule_error_message(err));
        locule_error_unref(err);
        failures++;
    }
    CHECK(plan.len > 2);
    locule_buf_free(&plan);
    locule_buf_free(&buf);

    int events = 0;
    CHECK(!readable(locule_runtime_fd(runtime)));
    CHECK(locule_runtime_dispatch(runtime, 0, on_event, &events, &err) == 0);
    CHECK(events == 0);

    locule_cancel *cancel = NULL;
    CHECK(locule_cancel_new(&cancel, &err) == 0);
    CHECK(!readable(locule_cancel_fd(cancel)));
    locule_cancel_trigger(cancel);
    CHECK(readable(locule_cancel_fd(cancel)));
    locule_cancel_unref(cancel);

    locule_runtime_unref(runtime);
    return failures != 0;
}
