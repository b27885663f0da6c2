/* Every function, called with NULL and with nonsense where C can check it: it refuses with the
 * right category, writes its results anyway, and never crashes. The runner makes sure that no
 * function is missing here. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "locule.h"

/* Runs a call twice: with an error object, which has to fit the result, and without. */
#define REFUSED(category, call)                                   \
    do {                                                          \
        locule_error *err = (locule_error *)&failures;            \
        int result = (call);                                      \
        if (result != (category) || err == NULL)                  \
            printf("%s gives %d, \"%s\"\n", #call, result,        \
                   err != NULL ? locule_error_message(err) : ""); \
        CHECK(result == (category));                              \
        CHECK(err != NULL && locule_error_code(err) == (category)); \
        CHECK(strlen(locule_error_message(err)) > 0);             \
        CHECK(strlen(locule_error_stage_name(err)) > 0);          \
        CHECK(locule_error_stage(err) > 0);                       \
        locule_error_unref(err);                                  \
    } while (0)

#define INVALID(call) REFUSED(LOCULE_E_INVALID, call)
#define UNSUPPORTED(call) REFUSED(LOCULE_E_UNSUPPORTED, call)

#define NONSENSE(type) ((type *)(uintptr_t)0x10)

static int never(const locule_event *event, void *user)
{
    (void)event;
    (void)user;
    CHECK(!"the callback is not called");
    return 0;
}

static int agree(locule_plugin_call *call, void *user)
{
    (void)call;
    (void)user;
    return 0;
}

static void count(void *user)
{
    ++*(int *)user;
}

static void nonsense_in_plugins(void)
{
    static const char *const create[] = {"create", NULL};
    static const char *const later[] = {"create", "rain", NULL};
    int released = 0;
    locule_plugin *plugin;

    /* Nothing is released while it is not known where. */
    LOCULE_OPTS(locule_plugin_opts, opts, .user = &released, .release = count);
    opts.size = 8;
    INVALID(locule_plugin_new(&opts, &plugin, &err));
    CHECK(released == 0);
    opts.size = sizeof opts;
    INVALID(locule_plugin_new(&opts, NULL, &err));
    INVALID(locule_plugin_new(&opts, &plugin, &err)); /* no name */
    opts.name = "policy";
    INVALID(locule_plugin_new(&opts, &plugin, &err)); /* no callback */
    opts.handle = agree;
    INVALID(locule_plugin_new(&opts, &plugin, &err)); /* no stages */
    opts.stages = later;
    UNSUPPORTED(locule_plugin_new(&opts, &plugin, &err));
    opts.stages = create;
    opts.name = "a policy";
    INVALID(locule_plugin_new(&opts, &plugin, &err));
    opts.name = "policy";
    opts.on_failure = 3;
    UNSUPPORTED(locule_plugin_new(&opts, &plugin, &err));
    opts.on_failure = 0;
    opts.flags = UINT64_C(1) << 50;
    UNSUPPORTED(locule_plugin_new(&opts, &plugin, &err));
    opts.flags = 0;
    opts.handle = NULL;
    opts.judge = agree;
    INVALID(locule_plugin_new(&opts, &plugin, &err)); /* stages for nobody */
    CHECK(plugin == NULL);
    CHECK(released == 9);
}

static void everything_null(void)
{
    locule_runtime *runtime = NONSENSE(locule_runtime);
    locule_container *container = NONSENSE(locule_container);
    locule_process *process = NONSENSE(locule_process);
    locule_plugin *plugin = NONSENSE(locule_plugin);
    locule_image_store *store = NONSENSE(locule_image_store);
    locule_image *image = NONSENSE(locule_image);
    locule_buf buf = {NONSENSE(char), 7};
    LOCULE_OPTS(locule_exit, status, .kind = 77);

    INVALID(locule_cancel_new(NULL, &err));
    INVALID(locule_runtime_new(NULL, NULL, &err));
    INVALID(locule_runtime_dispatch(NULL, 0, never, NULL, &err));
    INVALID(locule_runtime_list_json(NULL, &buf, &err));
    CHECK(buf.data == NULL && buf.len == 0);
    INVALID(locule_runtime_features_json(NULL, &buf, &err));
    INVALID(locule_runtime_explain(NULL, NULL, LOCULE_EXPLAIN_TEXT, &buf, &err));
    INVALID(locule_spec_generate(NULL, NULL, &err));
    INVALID(locule_container_create(NULL, NULL, &container, &err));
    CHECK(container == NULL);
    INVALID(locule_container_create(NULL, NULL, NULL, &err));
    INVALID(locule_container_open(NULL, NULL, &container, &err));
    INVALID(locule_container_init(NULL, &process, &err));
    CHECK(process == NULL);
    INVALID(locule_container_start(NULL, NULL, &err));
    INVALID(locule_container_exec(NULL, NULL, &process, &err));
    INVALID(locule_container_signal(NULL, 15, 0, &err));
    INVALID(locule_container_pause(NULL, &err));
    INVALID(locule_container_resume(NULL, &err));
    INVALID(locule_container_update_json(NULL, NULL, 0, &err));
    INVALID(locule_container_watch(NULL, NULL, &err));
    INVALID(locule_container_stats_json(NULL, &buf, &err));
    INVALID(locule_container_pids_json(NULL, &buf, &err));
    INVALID(locule_container_state_json(NULL, &buf, &err));
    INVALID(locule_container_state_json(NULL, NULL, &err));
    INVALID(locule_container_delete(NULL, 0, &err));
    INVALID(locule_process_wait(NULL, 0, NULL, &status, &err));
    CHECK(status.kind == LOCULE_EXIT_NONE && status.size == sizeof status);
    INVALID(locule_process_wait(NULL, 0, NULL, NULL, &err));
    INVALID(locule_process_signal(NULL, 15, &err));
    INVALID(locule_process_take_pipe(NULL, 0, &err));
    INVALID(locule_process_take_terminal(NULL, &err));
    INVALID(locule_process_resize(NULL, 24, 80, &err));
    INVALID(locule_event_exit(NULL, &status, &err));
    INVALID(locule_event_exit(NULL, NULL, &err));
    INVALID(locule_event_pressure(NULL, NULL, &err));
    INVALID(locule_runtime_plugins_json(NULL, &buf, &err));
    INVALID(locule_plugin_new(NULL, &plugin, &err));
    INVALID(locule_plugin_load(NULL, 0, NULL, &plugin, &err));
    INVALID(locule_plugin_load("{}", 2, NULL, NULL, &err));
    INVALID(locule_plugin_inspect_json(NULL, &buf, &err));
    INVALID(locule_plugin_describe_json(NULL, &buf, &err));
    INVALID(locule_image_store_open(NULL, NULL, &err));
    INVALID(locule_image_store_load(NULL, "/", NULL, &image, &err));
    CHECK(image == NULL);
    INVALID(locule_image_store_pull(NULL, "alpine", NULL, &image, &err));
    INVALID(locule_image_store_import(NULL, "/", NULL, &image, &err));
    INVALID(locule_image_store_commit(NULL, NULL, NULL, &image, &err));
    INVALID(locule_image_store_get(NULL, "alpine", &image, &err));
    INVALID(locule_image_store_list_json(NULL, &buf, &err));
    INVALID(locule_image_store_remove(NULL, "alpine", &err));
    INVALID(locule_image_store_prune_json(NULL, NULL, &buf, &err));
    INVALID(locule_image_inspect_json(NULL, &buf, &err));
    INVALID(locule_image_tag(NULL, "alpine", &err));
    INVALID(locule_image_save(NULL, "/", NULL, &err));
    INVALID(locule_image_push(NULL, "alpine", NULL, &err));
    INVALID(locule_image_unpack(NULL, "/", NULL, &err));
    INVALID(locule_image_prepare(NULL, NULL, 0, NULL, &err));
    INVALID(locule_plugin_call_get_json(NULL, "", &buf, &err));
    INVALID(locule_plugin_call_changes_json(NULL, &buf, &err));
    INVALID(locule_plugin_call_adjust_json(NULL, "{}", 2, &err));

    /* The same without a place for the error. */
    CHECK(locule_container_start(NULL, NULL, NULL) == LOCULE_E_INVALID);
    CHECK(locule_runtime_new(NULL, NULL, NULL) == LOCULE_E_INVALID);

    CHECK(locule_runtime_fd(NULL) == LOCULE_E_INVALID);
    CHECK(locule_cancel_fd(NULL) == LOCULE_E_INVALID);
    CHECK(locule_process_fd(NULL) == LOCULE_E_INVALID);
    CHECK(locule_process_pid(NULL) == LOCULE_E_INVALID);
    CHECK(locule_runtime_state_dir(NULL) == NULL);
    CHECK(locule_container_id(NULL) == NULL);
    CHECK(locule_image_store_path(NULL) == NULL);
    CHECK(locule_image_digest(NULL) == NULL);
    CHECK(locule_event_kind(NULL) == 0);
    CHECK(locule_event_oom_kills(NULL) == 0);
    CHECK(locule_event_container_id(NULL) == NULL);
    CHECK(locule_event_process(NULL) == NULL);
    CHECK(locule_plugin_call_stage(NULL) == NULL);
    CHECK(locule_plugin_call_container_id(NULL) == NULL);
    CHECK(locule_plugin_call_bundle(NULL) == NULL);
    CHECK(locule_plugin_call_pid(NULL) == 0);
    CHECK(locule_plugin_call_detail(NULL, "signal") == NULL);
    CHECK(locule_plugin_call_refuse(NULL, 0, "no") == LOCULE_E_INVALID);
    CHECK(locule_plugin_call_fail(NULL, "oh") == LOCULE_E_INVALID);
    CHECK(locule_error_code(NULL) == 0);
    CHECK(locule_error_errno(NULL) == 0);
    CHECK(locule_error_stage(NULL) == 0);
    CHECK(locule_error_stage_name(NULL) == NULL);
    CHECK(locule_error_message(NULL) == NULL);
    CHECK(locule_error_pointer(NULL) == NULL);
    CHECK(locule_error_container_id(NULL) == NULL);
    CHECK(locule_error_step(NULL) == NULL);
    CHECK(locule_error_hint(NULL) == NULL);
    CHECK(locule_has(NULL) == 0);
    CHECK(locule_has("\xff\xfe") == 0);

    CHECK(locule_runtime_ref(NULL) == NULL);
    CHECK(locule_container_ref(NULL) == NULL);
    CHECK(locule_process_ref(NULL) == NULL);
    CHECK(locule_cancel_ref(NULL) == NULL);
    CHECK(locule_plugin_ref(NULL) == NULL);
    CHECK(locule_image_store_ref(NULL) == NULL);
    CHECK(locule_image_ref(NULL) == NULL);
    CHECK(locule_error_ref(NULL) == NULL);
    locule_runtime_unref(NULL);
    locule_container_unref(NULL);
    locule_process_unref(NULL);
    locule_cancel_unref(NULL);
    locule_plugin_unref(NULL);
    locule_image_store_unref(NULL);
    locule_image_unref(NULL);
    locule_cancel_trigger(NULL);
    locule_error_unref(NULL);
    locule_buf_free(NULL);
    locule_buf_free(&buf);

    /* Option structs are looked at before the runtime is opened. */
    struct locule_runtime_opts opts = {0};
    INVALID(locule_runtime_new(&opts, &runtime, &err));
    CHECK(runtime == NULL);
    opts.size = 8;
    INVALID(locule_runtime_new(&opts, &runtime, &err));
    opts.size = SIZE_MAX;
    INVALID(locule_runtime_new(&opts, &runtime, &err));
    opts.size = sizeof opts;
    opts.flags = UINT64_C(1) << 63;
    UNSUPPORTED(locule_runtime_new(&opts, &runtime, &err));
    opts.flags = 0;
    opts.cgroup_manager = 9;
    UNSUPPORTED(locule_runtime_new(&opts, &runtime, &err));
    opts.cgroup_manager = LOCULE_CGROUPS_SYSTEMD;
    opts.flags = LOCULE_RUNTIME_NO_CGROUPS;
    INVALID(locule_runtime_new(&opts, &runtime, &err));
    opts.flags = 0;
    opts.reserved = 1;
    UNSUPPORTED(locule_runtime_new(&opts, &runtime, &err));
    opts.reserved = 0;
    opts.plugin_count = 1;
    INVALID(locule_runtime_new(&opts, &runtime, &err));
    locule_plugin *const no_plugin[] = {NULL};
    opts.plugins = no_plugin;
    INVALID(locule_runtime_new(&opts, &runtime, &err));
    opts.plugin_count = 0;
    opts.plugin_rules_json = "{\"forbid\": [\"rain\"]}";
    opts.plugin_rules_json_len = strlen(opts.plugin_rules_json);
    INVALID(locule_runtime_new(&opts, &runtime, &err));
    opts.plugin_rules_json_len--;
    INVALID(locule_runtime_new(&opts, &runtime, &err));
    nonsense_in_plugins();

    struct locule_image_store_opts place = {0};
    INVALID(locule_image_store_open(&place, &store, &err));
    CHECK(store == NULL);
    place.size = sizeof place;
    place.flags = 2;
    UNSUPPORTED(locule_image_store_open(&place, &store, &err));

    LOCULE_OPTS(locule_spec_opts, spec, .flags = UINT64_C(1) << 40);
    UNSUPPORTED(locule_spec_generate(&spec, &buf, &err));
    const char *const not_utf8[] = {"sh", "\xff", NULL};
    spec.flags = 0;
    spec.args = not_utf8;
    INVALID(locule_spec_generate(&spec, &buf, &err));
    const char *const no_program[] = {NULL};
    spec.args = no_program;
    INVALID(locule_spec_generate(&spec, &buf, &err));
    CHECK(buf.data == NULL);
}

static void constants(void)
{
    CHECK(strcmp(locule_category_name(0), "ok") == 0);
    CHECK(strcmp(locule_category_name(LOCULE_E_BUG), "bug") == 0);
    CHECK(strcmp(locule_category_name(-1), "unknown") == 0);
    CHECK(strcmp(locule_version(), VERSION_OF_THE_BUILD) == 0);
}

static void nonsense_in_options(locule_runtime *runtime)
{
    locule_container *container;
    locule_buf buf;
    const int not_open[] = {0, 900000};

    INVALID(locule_runtime_dispatch(runtime, 0, NULL, NULL, &err));
    INVALID(locule_container_create(runtime, NULL, &container, &err));
    INVALID(locule_container_open(runtime, NULL, &container, &err));
    INVALID(locule_container_open(runtime, "\xff", &container, &err));

    LOCULE_OPTS(locule_create_opts, opts);
    INVALID(locule_container_create(runtime, &opts, &container, &err));
    opts.spec_json_len = 5;
    INVALID(locule_container_create(runtime, &opts, &container, &err));
    opts.spec_json = "{}";
    opts.spec_json_len = SIZE_MAX;
    INVALID(locule_container_create(runtime, &opts, &container, &err));
    opts.spec_json_len = 2;

    opts.image_overrides_json = "{}";
    INVALID(locule_container_create(runtime, &opts, &container, &err)); /* of no image */
    opts.image_overrides_json = NULL;
    opts.image_overrides_json_len = 2;
    INVALID(locule_container_create(runtime, &opts, &container, &err));
    opts.image_overrides_json_len = 0;

    opts.flags = UINT64_C(1) << 60;
    UNSUPPORTED(locule_container_create(runtime, &opts, &container, &err));
    opts.flags = 0;
    opts.parentage = 3;
    UNSUPPORTED(locule_container_create(runtime, &opts, &container, &err));
    opts.parentage = 0;
    opts.stdio[1].kind = 4;
    UNSUPPORTED(locule_container_create(runtime, &opts, &container, &err));
    opts.stdio[1].kind = LOCULE_STDIO_FD;
    opts.stdio[1].fd = 900000;
    INVALID(locule_container_create(runtime, &opts, &container, &err));
    opts.stdio[1].kind = LOCULE_STDIO_NULL;
    INVALID(locule_container_create(runtime, &opts, &container, &err));
    opts.stdio[1].fd = 0;
    opts.pass_fd_count = 2;
    INVALID(locule_container_create(runtime, &opts, &container, &err));
    opts.pass_fds = not_open;
    INVALID(locule_container_create(runtime, &opts, &container, &err));
    opts.pass_fd_count = SIZE_MAX;
    INVALID(locule_container_create(runtime, &opts, &container, &err));
    opts.pass_fd_count = 0;
    const char *const layers[] = {"/layer", NULL};
    opts.lower = layers;
    opts.lower_count = 1;
    INVALID(locule_container_create(runtime, &opts, &container, &err));
    opts.flags = LOCULE_CREATE_ROOTFS_OVERLAY;
    opts.lower_count = 2;
    INVALID(locule_container_create(runtime, &opts, &container, &err));
    opts.lower_count = SIZE_MAX;
    INVALID(locule_container_create(runtime, &opts, &container, &err));
    opts.lower = NULL;
    opts.lower_count = 1;
    INVALID(locule_container_create(runtime, &opts, &container, &err));
    opts.lower_count = 0;
    opts.flags = 0;
    opts.changes = "/changes";
    INVALID(locule_container_create(runtime, &opts, &container, &err));
    opts.changes = NULL;
    UNSUPPORTED(locule_runtime_explain(runtime, &opts, 9, &buf, &err));

    /* A struct of a later version: accepted while its new fields are 0. */
    struct {
        struct locule_create_opts known;
        uint64_t later;
    } newer = {opts, 1};
    newer.known.size = sizeof newer;
    UNSUPPORTED(locule_container_create(runtime, &newer.known, &container, &err));
    newer.later = 0;
    REFUSED(LOCULE_E_SPEC, locule_container_create(runtime, &newer.known, &container, &err));
}

/* A field of the options that is for another function. */
#define NOT_FOR(call, field, value)                    \
    do {                                               \
        LOCULE_OPTS(locule_image_opts, opts);          \
        opts.field = value;                            \
        INVALID(call);                                 \
    } while (0)

static void nonsense_in_images(const char *dir)
{
    char path[4096];
    locule_image_store *store;
    locule_image *image;
    locule_buf buf;
    locule_error *err;
    snprintf(path, sizeof path, "%s/images", dir);
    LOCULE_OPTS(locule_image_store_opts, place, .path = path);
    if (!locule_has("images")) {
        UNSUPPORTED(locule_image_store_open(&place, &store, &err));
        CHECK(!locule_has("registry"));
        return;
    }
    if (locule_image_store_open(&place, &store, &err) < 0) {
        printf("open a store: %s\n", locule_error_message(err));
        locule_error_unref(err);
        failures++;
        return;
    }
    LOCULE_OPTS(locule_image_opts, opts);
    INVALID(locule_image_store_load(store, NULL, NULL, &image, &err));
    INVALID(locule_image_store_load(store, "/", NULL, NULL, &err));
    INVALID(locule_image_store_pull(store, NULL, NULL, &image, &err));
    INVALID(locule_image_store_pull(store, "\xff", NULL, &image, &err));
    INVALID(locule_image_store_import(store, NULL, NULL, &image, &err));
    INVALID(locule_image_store_commit(store, NULL, NULL, &image, &err));
    INVALID(locule_image_store_get(store, NULL, &image, &err));
    INVALID(locule_image_store_get(store, "\xff", &image, &err));
    INVALID(locule_image_store_list_json(store, NULL, &err));
    INVALID(locule_image_store_remove(store, NULL, &err));
    opts.flags = 2;
    UNSUPPORTED(locule_image_store_prune_json(store, &opts, &buf, &err));
    CHECK(buf.data == NULL);
    opts.flags = LOCULE_PRUNE_ALL;
    UNSUPPORTED(locule_image_store_load(store, "/", &opts, &image, &err));
    opts.flags = 0;

    NOT_FOR(locule_image_store_load(store, "/", &opts, &image, &err), author, "me");
    NOT_FOR(locule_image_store_load(store, "/", &opts, &image, &err), password, "secret");
    NOT_FOR(locule_image_store_pull(store, "a", &opts, &image, &err), from, "b");
    NOT_FOR(locule_image_store_pull(store, "a", &opts, &image, &err), max_bytes, 1);
    NOT_FOR(locule_image_store_import(store, "/", &opts, &image, &err), platform, "linux/arm");
    NOT_FOR(locule_image_store_import(store, "/", &opts, &image, &err), owner, 1);

    opts.size = 8;
    INVALID(locule_image_store_load(store, "/", &opts, &image, &err));
    opts.size = sizeof opts;
    opts.flags = 1;
    UNSUPPORTED(locule_image_store_load(store, "/", &opts, &image, &err));
    opts.flags = 0;
    opts.reserved = 1;
    UNSUPPORTED(locule_image_store_load(store, "/", &opts, &image, &err));
    opts.reserved = 0;
    opts.name = "\xff";
    INVALID(locule_image_store_load(store, "/", &opts, &image, &err));
    opts.name = NULL;
    opts.compression = 3;
    UNSUPPORTED(locule_image_store_import(store, "/", &opts, &image, &err));
    opts.compression = 0;
    opts.config_json_len = 2;
    INVALID(locule_image_store_import(store, "/", &opts, &image, &err));
    opts.config_json = "{]";
    INVALID(locule_image_store_import(store, "/", &opts, &image, &err));
    opts.config_json = NULL;
    opts.config_json_len = 0;
    opts.username = "me";
    INVALID(locule_image_store_pull(store, "a", &opts, &image, &err));
    CHECK(image == NULL);
    locule_image_store_unref(store);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    everything_null();
    constants();
    nonsense_in_images(argv[1]);

    LOCULE_OPTS(locule_runtime_opts, opts, .state_dir = argv[1]);
    locule_runtime *runtime;
    locule_error *err;
    if (locule_runtime_new(&opts, &runtime, &err) < 0) {
        printf("open a runtime: %s\n", locule_error_message(err));
        locule_error_unref(err);
        return 1;
    }
    nonsense_in_options(runtime);
    locule_runtime_unref(runtime);
    return failures != 0;
}
