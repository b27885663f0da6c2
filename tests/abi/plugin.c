/* Plugins as C sees them: callbacks that change a real container, refuse another, fail, and see
 * the stages of its life. Needs root. */

#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "locule.h"

static const char *const every_stage[] = {
    "create", "created", "start", "started", "exec", "update",
    "pause",  "resume",  "kill",  "stopped", "delete", NULL,
};

static const char *state_dir;

/* What a plugin of these tests does, and what it has seen. */
struct plugin {
    int (*does)(struct plugin *self, locule_plugin_call *call);
    const char *text;
    locule_runtime *runtime;
    int number, released;
    char seen[512];
};

static int on_call(locule_plugin_call *call, void *user)
{
    struct plugin *self = user;
    size_t used = strlen(self->seen);
    snprintf(self->seen + used, sizeof self->seen - used, "%s%s", used > 0 ? " " : "",
             locule_plugin_call_stage(call));
    return self->does != NULL ? self->does(self, call) : 0;
}

static void on_release(void *user)
{
    ((struct plugin *)user)->released++;
}

static struct locule_plugin_opts options(const char *name, struct plugin *plugin)
{
    LOCULE_OPTS(locule_plugin_opts, opts, .name = name, .stages = every_stage, .handle = on_call,
                .user = plugin, .release = on_release);
    return opts;
}

static locule_plugin *make(const struct locule_plugin_opts *opts)
{
    locule_plugin *plugin;
    NEEDS(locule_plugin_new(opts, &plugin, &err));
    return plugin;
}

/* A runtime with these plugins, whose handles it takes over. */
static locule_runtime *open_with(locule_plugin *const *plugins, size_t count, const char *rules)
{
    locule_runtime *runtime;
    LOCULE_OPTS(locule_runtime_opts, opts, .state_dir = state_dir, .plugins = plugins,
                .plugin_count = count, .plugin_rules_json = rules,
                .plugin_rules_json_len = rules != NULL ? strlen(rules) : 0);
    NEEDS(locule_runtime_new(&opts, &runtime, &err));
    for (size_t index = 0; index < count; index++)
        locule_plugin_unref(plugins[index]);
    return runtime;
}

static locule_runtime *open_one(const char *name, struct plugin *plugin)
{
    struct locule_plugin_opts opts = options(name, plugin);
    locule_plugin *made = make(&opts);
    return open_with(&made, 1, NULL);
}

static int create(locule_runtime *runtime, const char *script, locule_container **container,
                  locule_error **err)
{
    const char *const args[] = {"/bin/sh", "-c", script, NULL};
    locule_buf spec;
    LOCULE_OPTS(locule_spec_opts, choices, .args = args, .rootfs = "/");
    NEEDS(locule_spec_generate(&choices, &spec, &err));
    LOCULE_OPTS(locule_create_opts, opts, .spec_json = spec.data, .spec_json_len = spec.len,
                .flags = LOCULE_CREATE_ROOTFS_OVERLAY, .stdio = {[1] = {LOCULE_STDIO_PIPE, 0}});
    int result = locule_container_create(runtime, &opts, container, err);
    locule_buf_free(&spec);
    return result;
}

/* What a process prints until it closes its standard output. */
static char *output_of(locule_process *process)
{
    static char text[1024];
    size_t length = 0;
    ssize_t count;
    int fd = locule_process_take_pipe(process, 1, NULL);
    CHECK(fd >= 0);
    while ((count = read(fd, text + length, sizeof text - 1 - length)) > 0)
        length += count;
    close(fd);
    text[length] = '\0';
    return text;
}

static void wait_for(locule_process *process)
{
    LOCULE_OPTS(locule_exit, end);
    CHECK(locule_process_wait(process, 10000, NULL, &end, NULL) == 1);
}

static void expect(const char *text, const char *expected)
{
    if (strcmp(text, expected) != 0)
        printf("\"%s\" is not \"%s\"\n", text, expected);
    CHECK(strcmp(text, expected) == 0);
}

static int adjust(locule_plugin_call *call, const char *json, locule_error **err)
{
    return locule_plugin_call_adjust_json(call, json, strlen(json), err);
}

/* --- What a plugin changes is so in the container ------------------------------------------- */

static int change(struct plugin *self, locule_plugin_call *call)
{
    const char *stage = locule_plugin_call_stage(call);
    locule_buf json;
    (void)self;
    CHECK(strlen(locule_plugin_call_container_id(call)) > 0);
    CHECK(locule_plugin_call_bundle(call)[0] == '/');
    if (strcmp(stage, "create") == 0) {
        CHECK(locule_plugin_call_pid(call) == 0);
        CHECK(adjust(call, "{\"adjust\": \"set-env\", \"name\": \"STAMP\", \"value\": \"7\"}",
                     NULL) == 0);
        CHECK(adjust(call, "{\"adjust\": \"set-rlimit\", \"kind\": \"RLIMIT_NOFILE\","
                           " \"soft\": \"99\", \"hard\": \"199\"}", NULL) == 0);
        CHECK(adjust(call, "{\"adjust\": \"set-mount\", \"destination\": \"/mnt\","
                           " \"kind\": \"tmpfs\", \"source\": \"stamp\"}", NULL) == 0);
        CHECK(locule_plugin_call_get_json(call, "/process/rlimits/0/hard", &json, NULL) == 0);
        expect(json.data, "199");
        locule_buf_free(&json);
        CHECK(locule_plugin_call_changes_json(call, &json, NULL) == 0);
        CHECK(strstr(json.data, "/process/env/STAMP") != NULL);
        locule_buf_free(&json);

        CHECK(locule_plugin_call_get_json(call, "/no/such", &json, NULL) == LOCULE_E_NOT_FOUND);
        CHECK(locule_plugin_call_get_json(call, "process", &json, NULL) == LOCULE_E_INVALID);
        CHECK(json.data == NULL);
        CHECK(adjust(call, "{\"adjust\": \"set-env\"}", NULL) == LOCULE_E_INVALID);
        CHECK(adjust(call, "{\"adjust\": \"rain\"}", NULL) == LOCULE_E_INVALID);
        CHECK(adjust(call, "{\"adjust\": \"set-cwd\", \"path\": \"tmp\"}", NULL) ==
              LOCULE_E_INVALID);
    } else if (strcmp(stage, "exec") == 0) {
        CHECK(locule_plugin_call_pid(call) > 0);
        CHECK(atoi(locule_plugin_call_detail(call, "container-pid")) ==
              locule_plugin_call_pid(call));
        CHECK(locule_plugin_call_detail(call, "no such") == NULL);
        CHECK(adjust(call, "{\"adjust\": \"set-env\", \"name\": \"STAMP\", \"value\": \"8\"}",
                     NULL) == 0);
        locule_error *err;
        CHECK(adjust(call, "{\"adjust\": \"mask-path\", \"path\": \"/etc\"}", &err) ==
              LOCULE_E_STATE);
        CHECK(locule_error_stage(err) == LOCULE_STAGE_PLUGIN);
        CHECK(strcmp(locule_error_stage_name(err), "plugin") == 0);
        locule_error_unref(err);
    } else {
        CHECK(adjust(call, "{\"adjust\": \"set-cwd\", \"path\": \"/tmp\"}", NULL) ==
              LOCULE_E_STATE);
    }
    return 0;
}

static void a_plugin_changes_a_container(void)
{
    static const char json[] = "{\"args\": [\"/bin/sh\", \"-c\", \"echo $STAMP\"]}";
    struct plugin plugin = {.does = change};
    locule_runtime *runtime = open_one("stamp", &plugin);
    locule_container *container;
    locule_process *init, *process;
    locule_buf state;

    NEEDS(create(runtime, "echo $STAMP $(ulimit -Sn) $(ulimit -Hn) $(grep -c '^stamp /mnt '"
                          " /proc/mounts); exec >/dev/null; exec sleep 60", &container, &err));
    NEEDS(locule_container_start(container, NULL, &err));
    NEEDS(locule_container_init(container, &init, &err));
    expect(output_of(init), "7 99 199 1\n");
    LOCULE_OPTS(locule_exec_opts, opts, .process_json = json, .process_json_len = strlen(json),
                .stdio = {[1] = {LOCULE_STDIO_PIPE, 0}});
    NEEDS(locule_container_exec(container, &opts, &process, &err));
    expect(output_of(process), "8\n");
    wait_for(process);
    locule_process_unref(process);

    NEEDS(locule_container_state_json(container, &state, &err));
    CHECK(strstr(state.data, "\"changes\"") != NULL);
    CHECK(strstr(state.data, "\"/process/rlimits/RLIMIT_NOFILE\"") != NULL);
    CHECK(strstr(state.data, "\"stage\":\"exec\"") != NULL);
    locule_buf_free(&state);

    NEEDS(locule_container_signal(container, SIGKILL, 0, &err));
    wait_for(init);
    locule_process_unref(init);
    NEEDS(locule_container_delete(container, 0, &err));
    expect(plugin.seen, "create created start started exec kill stopped delete");
    locule_container_unref(container);
    CHECK(plugin.released == 0);
    locule_runtime_unref(runtime);
    CHECK(plugin.released == 1);
}

/* --- Who refuses and who fails -------------------------------------------------------------- */

static int refuse(struct plugin *self, locule_plugin_call *call)
{
    if (self->text == NULL)
        return self->number; /* without a word */
    return locule_plugin_call_refuse(call, self->number, self->text);
}

static int fail(struct plugin *self, locule_plugin_call *call)
{
    if (strcmp(locule_plugin_call_stage(call), "create") != 0)
        return 0;
    CHECK(adjust(call, "{\"adjust\": \"set-env\", \"name\": \"HALF\", \"value\": \"1\"}", NULL) ==
          0);
    locule_plugin_call_fail(call, self->text);
    return 0; /* what was said counts */
}

static void refused(locule_runtime *runtime, const char *message)
{
    locule_container *container;
    locule_error *err;
    locule_buf list;
    CHECK(create(runtime, "true", &container, &err) == LOCULE_E_PLUGIN);
    CHECK(container == NULL && locule_error_stage(err) == LOCULE_STAGE_PLUGIN);
    CHECK(locule_error_container_id(err) != NULL);
    if (strstr(locule_error_message(err), message) == NULL)
        printf("\"%s\" lacks \"%s\"\n", locule_error_message(err), message);
    CHECK(strstr(locule_error_message(err), message) != NULL);
    locule_error_unref(err);
    NEEDS(locule_runtime_list_json(runtime, &list, &err));
    CHECK(strcmp(list.data, "[]") == 0);
    locule_buf_free(&list);
}

/* As short as it gets: what an adjustment returns is what the callback returns. */
static int adjust_only(struct plugin *self, locule_plugin_call *call)
{
    (void)self;
    return adjust(call, "{\"adjust\": \"set-cwd\", \"path\": \"tmp\"}", NULL);
}

static void a_plugin_refuses_a_container(void)
{
    struct plugin plugin = {.does = refuse, .text = "not on a Friday", .number = 13};
    locule_runtime *runtime = open_one("policy", &plugin);
    refused(runtime, "plugin \"policy\" refused create with code 13: not on a Friday");
    plugin.text = NULL;
    refused(runtime, "returned 13 and gave no reason");
    plugin.number = -5;
    refused(runtime, "returned -5");
    plugin.text = "\xff";
    refused(runtime, "refused");
    plugin.does = adjust_only;
    refused(runtime, "returned -4097 after set-cwd: `path` \"tmp\" is not absolute");
    expect(plugin.seen, "create create create create create");
    locule_runtime_unref(runtime);
    CHECK(plugin.released == 1);
}

static void a_failure_is_what_the_options_say(void)
{
    locule_container *container;
    locule_process *process;
    locule_buf list;
    struct plugin plugin = {.does = fail, .text = "no memory"};
    locule_runtime *runtime = open_one("weak", &plugin);
    refused(runtime, "plugin \"weak\" failed at create: no memory");
    locule_runtime_unref(runtime);

    struct locule_plugin_opts opts = options("weak", &plugin);
    opts.on_failure = LOCULE_ON_FAILURE_DISABLE;
    locule_plugin *made = make(&opts);
    runtime = open_with(&made, 1, NULL);
    NEEDS(create(runtime, "echo ${HALF-none}", &container, &err));
    NEEDS(locule_container_start(container, NULL, &err));
    NEEDS(locule_container_init(container, &process, &err));
    expect(output_of(process), "none\n");
    wait_for(process);
    locule_process_unref(process);
    NEEDS(locule_container_delete(container, 0, &err));
    locule_container_unref(container);
    expect(plugin.seen, "create create");
    NEEDS(locule_runtime_plugins_json(runtime, &list, &err));
    CHECK(strstr(list.data, "\"disabled\":true") != NULL);
    locule_buf_free(&list);
    locule_runtime_unref(runtime);

    opts.flags = LOCULE_PLUGIN_REQUIRED;
    made = make(&opts);
    runtime = open_with(&made, 1, NULL);
    refused(runtime, "plugin \"weak\" failed at create: no memory");
    refused(runtime, "the required plugin \"weak\" has been disabled");
    locule_runtime_unref(runtime);
    CHECK(plugin.released == 3);
}

/* --- Several -------------------------------------------------------------------------------- */

static char order[256];

static int claim(struct plugin *self, locule_plugin_call *call)
{
    locule_error *err;
    strcat(order, self->text);
    if (strcmp(locule_plugin_call_stage(call), "create") != 0)
        return 0;
    char json[128];
    snprintf(json, sizeof json, "{\"adjust\": \"set-cwd\", \"path\": \"/%s\"}", self->text);
    self->number = adjust(call, json, &err);
    if (self->number == LOCULE_E_BUSY) {
        CHECK(strcmp(locule_error_pointer(err), "/process/cwd") == 0);
        CHECK(strstr(locule_error_message(err), "\"zero\"") != NULL);
    }
    locule_error_unref(err);
    return 0;
}

static int weigh(struct plugin *self, locule_plugin_call *call)
{
    locule_buf changes;
    CHECK(adjust(call, "{\"adjust\": \"set-cwd\", \"path\": \"/\"}", NULL) == LOCULE_E_STATE);
    CHECK(locule_plugin_call_changes_json(call, &changes, NULL) == 0);
    CHECK(strstr(changes.data, "\"plugin\":\"zero\"") != NULL);
    self->number = strstr(changes.data, "\"after\":\"/usr\"") != NULL;
    locule_buf_free(&changes);
    return self->number ? 0 : locule_plugin_call_refuse(call, 0, "not in /usr");
}

static void several_plugins_take_turns(void)
{
    struct plugin zero = {.does = claim, .text = "tmp"}, one = {.does = claim, .text = "usr"};
    struct plugin judge = {.does = weigh};
    struct locule_plugin_opts opts[] = {options("one", &one), options("zero", &zero),
                                        options("judge", &judge)};
    opts[1].priority = -1;
    opts[2].stages = NULL;
    opts[2].handle = NULL;
    opts[2].judge = on_call;
    locule_plugin *made[3] = {make(&opts[0]), make(&opts[1]), make(&opts[2])};
    locule_buf text;
    NEEDS(locule_plugin_describe_json(made[1], &text, &err));
    CHECK(strstr(text.data, "\"name\":\"zero\"") && strstr(text.data, "\"priority\":-1"));
    locule_buf_free(&text);
    CHECK(locule_plugin_ref(made[2]) == made[2]);
    locule_runtime *runtime = open_with(made, 3, "{\"required\": [\"zero\"]}");

    refused(runtime, "plugin \"judge\" refused create: not in /usr");
    expect(order, "tmpusr");
    CHECK(zero.number == 0 && one.number == LOCULE_E_BUSY);
    locule_runtime_unref(runtime);
    CHECK(zero.released == 1 && one.released == 1 && judge.released == 0);

    opts[0].flags = LOCULE_PLUGIN_OVERRIDE;
    made[0] = make(&opts[0]);
    made[1] = make(&opts[1]);
    runtime = open_with(made, 3, NULL);
    locule_container *container;
    order[0] = '\0';
    NEEDS(create(runtime, "true", &container, &err));
    expect(order, "tmpusrusrtmp"); /* create, and created the other way round */
    CHECK(one.number == 0 && judge.number == 1);
    NEEDS(locule_container_delete(container, LOCULE_DELETE_FORCE, &err));
    locule_container_unref(container);
    locule_runtime_unref(runtime);
    CHECK(judge.released == 1);

    locule_error *err;
    locule_plugin *twins[2] = {make(&opts[0]), make(&opts[0])};
    LOCULE_OPTS(locule_runtime_opts, twice, .state_dir = state_dir, .plugins = twins,
                .plugin_count = 2);
    CHECK(locule_runtime_new(&twice, &runtime, &err) == LOCULE_E_INVALID);
    locule_error_unref(err);
    locule_plugin_unref(twins[0]);
    locule_plugin_unref(twins[1]);

    locule_runtime *strict = open_with(NULL, 0, "{\"required\": [\"absent\"]}");
    refused(strict, "the required plugin \"absent\" is missing");
    locule_runtime_unref(strict);
}

/* A callback may use the library for other containers. */
static int run_another(struct plugin *self, locule_plugin_call *call)
{
    locule_container *container;
    if (self->number++ > 0 || strcmp(locule_plugin_call_stage(call), "create") != 0)
        return 0;
    NEEDS(create(self->runtime, "true", &container, &err));
    NEEDS(locule_container_delete(container, LOCULE_DELETE_FORCE, &err));
    locule_container_unref(container);
    return 0;
}

static void a_callback_may_use_the_library(void)
{
    struct plugin plugin = {.does = run_another};
    locule_container *container;
    plugin.runtime = open_one("nested", &plugin);
    NEEDS(create(plugin.runtime, "true", &container, &err));
    NEEDS(locule_container_delete(container, LOCULE_DELETE_FORCE, &err));
    locule_container_unref(container);
    expect(plugin.seen, "create create created stopped delete created stopped delete");
    locule_runtime_unref(plugin.runtime);
}

/* --- Other versions, other libraries --------------------------------------------------------- */

/* The struct as it was before it had plugins: what follows it is not looked at. */
static void a_program_that_knows_no_plugins_goes_on(void)
{
    locule_runtime *runtime;
    locule_buf list;
    struct locule_runtime_opts opts;
    memset(&opts, 0xff, sizeof opts);
    memset(&opts, 0, offsetof(struct locule_runtime_opts, plugins));
    opts.size = offsetof(struct locule_runtime_opts, plugins);
    opts.state_dir = state_dir;
    NEEDS(locule_runtime_new(&opts, &runtime, &err));
    NEEDS(locule_runtime_plugins_json(runtime, &list, &err));
    expect(list.data, "[]");
    locule_buf_free(&list);
    locule_runtime_unref(runtime);
}

static void wasm_is_there_or_is_said_to_be_missing(void)
{
    static const char json[] = "{\"path\": \"no-such.wasm\"}";
    int expected = locule_has("wasm-plugins") ? LOCULE_E_NOT_FOUND : LOCULE_E_UNSUPPORTED;
    locule_runtime *runtime;
    locule_plugin *plugin;
    locule_error *err;
    locule_buf buf;
    CHECK(locule_has("plugins") == 1);
    CHECK(locule_plugin_load(json, strlen(json), "/tmp", &plugin, &err) < 0 && plugin == NULL);
    CHECK(expected != LOCULE_E_UNSUPPORTED || locule_error_code(err) == expected);
    locule_error_unref(err);
    CHECK(locule_plugin_inspect_json("/no/such.wasm", &buf, &err) == expected);
    CHECK(expected != LOCULE_E_UNSUPPORTED || strstr(locule_error_hint(err), "plugins") != NULL);
    locule_error_unref(err);
    LOCULE_OPTS(locule_runtime_opts, opts, .state_dir = state_dir, .plugin_dir = "/no/such");
    CHECK(locule_runtime_new(&opts, &runtime, &err) == expected);
    locule_error_unref(err);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    state_dir = argv[1];
    a_plugin_changes_a_container();
    a_plugin_refuses_a_container();
    a_failure_is_what_the_options_say();
    several_plugins_take_turns();
    a_callback_may_use_the_library();
    a_program_that_knows_no_plugins_goes_on();
    wasm_is_there_or_is_said_to_be_missing();
    return failures != 0;
}
