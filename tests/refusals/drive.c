/* Drives the C API for the table of refusals: see drivers.py for the words it is given and the
 * answer it gives. It uses the public header only, and judges nothing. */

#define _GNU_SOURCE
#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "locule.h"

enum { RUNNER = 3, WORDS = 16, CONTAINERS = 4 };

struct step {
    const char *verb;
    const char *keys[WORDS];
    const char *values[WORDS];
};

struct scene {
    locule_runtime *runtime;
    locule_image_store *store;
    locule_image *image;
    locule_container *containers[CONTAINERS];
    int count;
};

static void unescape(char *text)
{
    char *to = text;
    for (char *from = text; *from != '\0'; from++) {
        if (*from == '%') {
            char digits[] = {from[1], from[2], '\0'};
            *to++ = (char)strtoul(digits, NULL, 16);
            from += 2;
        } else {
            *to++ = *from;
        }
    }
    *to = '\0';
}

static struct step parse(char *text)
{
    struct step step = {0};
    char *rest;
    step.verb = strtok_r(text, " ", &rest);
    for (int i = 0; i < WORDS; i++) {
        char *word = strtok_r(NULL, " ", &rest);
        if (word == NULL)
            break;
        char *value = strchr(word, '=');
        *value++ = '\0';
        unescape(value);
        step.keys[i] = word;
        step.values[i] = value;
    }
    return step;
}

static const char *word(const struct step *step, const char *key)
{
    for (int i = 0; i < WORDS && step->keys[i] != NULL; i++)
        if (strcmp(step->keys[i], key) == 0)
            return step->values[i];
    return NULL;
}

static uint32_t number(const struct step *step, const char *key)
{
    const char *value = word(step, key);
    return value != NULL ? (uint32_t)atoi(value) : 0;
}

static void streams(const struct step *step, struct locule_stdio stdio[3])
{
    static const char *const names[] = {"stdin", "stdout", "stderr"};
    for (int i = 0; i < 3; i++) {
        const char *value = word(step, names[i]);
        if (value == NULL)
            continue;
        if (strcmp(value, "inherit") == 0) {
            stdio[i].kind = LOCULE_STDIO_INHERIT;
        } else {
            stdio[i].kind = LOCULE_STDIO_FD;
            stdio[i].fd = atoi(value);
        }
    }
}

static int open_runtime(struct scene *scene, const struct step *step, locule_error **err)
{
    LOCULE_OPTS(locule_runtime_opts, opts, .state_dir = word(step, "state"),
                .keeper_path = word(step, "keeper"));
    if (word(step, "no_cgroups") != NULL)
        opts.flags = LOCULE_RUNTIME_NO_CGROUPS;
    return locule_runtime_new(&opts, &scene->runtime, err);
}

static int create(struct scene *scene, const struct step *step, locule_error **err)
{
    int pass = (int)number(step, "pass");
    LOCULE_OPTS(locule_create_opts, opts, .id = word(step, "id"), .bundle = word(step, "bundle"),
                .timeout_ms = number(step, "timeout"), .parentage = number(step, "parentage"),
                .changes = word(step, "changes"));
    streams(step, opts.stdio);
    if (word(step, "image") != NULL)
        opts.image = scene->image;
    if (word(step, "overrides") != NULL) {
        opts.image_overrides_json = word(step, "overrides");
        opts.image_overrides_json_len = strlen(word(step, "overrides"));
    }
    if (word(step, "spec") != NULL) {
        opts.spec_json = word(step, "spec");
        opts.spec_json_len = strlen(word(step, "spec"));
    }
    if (word(step, "pass") != NULL) {
        opts.pass_fds = &pass;
        opts.pass_fd_count = 1;
    }
    if (word(step, "overlay") != NULL)
        opts.flags = LOCULE_CREATE_ROOTFS_OVERLAY;
    if (word(step, "cancel") != NULL && locule_cancel_new(&opts.cancel, err) == 0)
        locule_cancel_trigger(opts.cancel);
    locule_container *made;
    int result = locule_container_create(scene->runtime, &opts, &made, err);
    if (made != NULL)
        scene->containers[scene->count++] = made;
    locule_cancel_unref(opts.cancel);
    return result;
}

static int load(struct scene *scene, const struct step *step, locule_error **err)
{
    locule_container *opened;
    int result = locule_container_open(scene->runtime, word(step, "id"), &opened, err);
    if (opened != NULL)
        scene->containers[scene->count++] = opened;
    return result;
}

static int execute(locule_container *container, const struct step *step, locule_error **err)
{
    const char *json = word(step, "json");
    LOCULE_OPTS(locule_exec_opts, opts, .process_json = json, .process_json_len = strlen(json),
                .timeout_ms = number(step, "timeout"));
    streams(step, opts.stdio);
    locule_process *process;
    int result = locule_container_exec(container, &opts, &process, err);
    locule_process_unref(process);
    return result;
}

/* Waits for the first process, which has to exit with 0. */
static int await(locule_container *container, locule_error **err)
{
    locule_process *init;
    LOCULE_OPTS(locule_exit, end, .kind = LOCULE_EXIT_NONE);
    int result = locule_container_init(container, &init, err);
    if (result == 0)
        result = locule_process_wait(init, 10000, NULL, &end, err);
    locule_process_unref(init);
    return result == 1 && end.kind == LOCULE_EXIT_CODE && end.code == 0 ? 0 : -1;
}

static int open_store(struct scene *scene, const struct step *step, locule_error **err)
{
    LOCULE_OPTS(locule_image_store_opts, opts, .path = word(step, "path"));
    if (word(step, "read_only") != NULL)
        opts.flags = LOCULE_IMAGE_STORE_READ_ONLY;
    locule_image_store_unref(scene->store);
    return locule_image_store_open(&opts, &scene->store, err);
}

/* A call for images. What it gives takes the place of the image that there was. */
static int call_for_image(struct scene *scene, const struct step *step, locule_error **err)
{
    const char *call = word(step, "call"), *path = word(step, "path");
    const char *name = word(step, "name"), *config = word(step, "config");
    locule_container *container = scene->count > 0 ? scene->containers[scene->count - 1] : NULL;
    LOCULE_OPTS(locule_image_opts, opts, .name = name, .from = word(step, "from"),
                .platform = word(step, "platform"), .compression = number(step, "compression"),
                .username = word(step, "username"), .password = word(step, "password"),
                .config_json = config, .config_json_len = config != NULL ? strlen(config) : 0,
                .created = word(step, "created"), .max_bytes = number(step, "max_bytes"),
                .max_entries = number(step, "max_entries"),
                .max_ratio = number(step, "max_ratio"), .owner = number(step, "owner"));
    if (word(step, "cancel") != NULL && locule_cancel_new(&opts.cancel, err) == 0)
        locule_cancel_trigger(opts.cancel);
    locule_image *made = NULL;
    locule_buf buf = {NULL, 0};
    int result;
    if (strcmp(call, "load") == 0)
        result = locule_image_store_load(scene->store, path, &opts, &made, err);
    else if (strcmp(call, "import") == 0)
        result = locule_image_store_import(scene->store, path, &opts, &made, err);
    else if (strcmp(call, "pull") == 0)
        result = locule_image_store_pull(scene->store, path, &opts, &made, err);
    else if (strcmp(call, "commit") == 0)
        result = locule_image_store_commit(scene->store, container, &opts, &made, err);
    else if (strcmp(call, "get") == 0)
        result = locule_image_store_get(scene->store, name, &made, err);
    else if (strcmp(call, "tag") == 0)
        result = locule_image_tag(scene->image, name, err);
    else if (strcmp(call, "remove") == 0)
        result = locule_image_store_remove(scene->store, name, err);
    else if (strcmp(call, "prune") == 0)
        result = locule_image_store_prune_json(scene->store, &opts, &buf, err);
    else if (strcmp(call, "save") == 0)
        result = locule_image_save(scene->image, path, &opts, err);
    else if (strcmp(call, "push") == 0)
        result = locule_image_push(scene->image, path, &opts, err);
    else if (strcmp(call, "prepare") == 0)
        result = locule_image_prepare(scene->image, config, config != NULL ? strlen(config) : 0, NULL, err);
    else
        result = locule_image_unpack(scene->image, path, &opts, err);
    locule_buf_free(&buf);
    locule_cancel_unref(opts.cancel);
    if (made != NULL) {
        locule_image_unref(scene->image);
        scene->image = made;
    }
    return result;
}

static int ask(locule_container *container, const char *what, locule_error **err)
{
    locule_buf buf;
    int result = strcmp(what, "stats") == 0   ? locule_container_stats_json(container, &buf, err)
                 : strcmp(what, "pids") == 0  ? locule_container_pids_json(container, &buf, err)
                                              : locule_container_state_json(container, &buf, err);
    locule_buf_free(&buf);
    return result;
}

static int perform(struct scene *scene, const struct step *step, locule_error **err)
{
    const char *verb = step->verb;
    locule_container *container = scene->count > 0 ? scene->containers[scene->count - 1] : NULL;
    *err = NULL;
    if (strcmp(verb, "open") == 0)
        return open_runtime(scene, step, err);
    if (strcmp(verb, "create") == 0)
        return create(scene, step, err);
    if (strcmp(verb, "store") == 0)
        return open_store(scene, step, err);
    if (strcmp(verb, "image") == 0)
        return call_for_image(scene, step, err);
    if (strcmp(verb, "load") == 0)
        return load(scene, step, err);
    if (strcmp(verb, "start") == 0)
        return locule_container_start(container, NULL, err);
    if (strcmp(verb, "exec") == 0)
        return execute(container, step, err);
    if (strcmp(verb, "wait") == 0)
        return await(container, err);
    if (strcmp(verb, "signal") == 0)
        return locule_container_signal(container, (int)number(step, "number"),
                                       word(step, "all") != NULL ? LOCULE_SIGNAL_ALL : 0, err);
    if (strcmp(verb, "pause") == 0)
        return locule_container_pause(container, err);
    if (strcmp(verb, "resume") == 0)
        return locule_container_resume(container, err);
    if (strcmp(verb, "update") == 0)
        return locule_container_update_json(container, word(step, "json"),
                                            strlen(word(step, "json")), err);
    if (strcmp(verb, "delete") == 0)
        return locule_container_delete(container,
                                       word(step, "force") != NULL ? LOCULE_DELETE_FORCE : 0, err);
    return ask(container, verb, err);
}

static void say(FILE *answer, const char *key, const char *text)
{
    fprintf(answer, " %s=", key);
    for (; text != NULL && *text != '\0'; text++)
        if (isalnum((unsigned char)*text))
            fputc(*text, answer);
        else
            fprintf(answer, "%%%02x", (unsigned char)*text);
}

/* What the error object says. The macro's name is what a program compares the result with. */
static void report(FILE *answer, int at, int result, const locule_error *err)
{
    char natural[32] = "LOCULE_E_";
    const char *name = locule_category_name(result);
    size_t length = strlen(natural);
    for (; *name != '\0'; name++)
        natural[length++] = *name == '-' ? '_' : (char)toupper((unsigned char)*name);
    fprintf(answer, "refused at=%d errno=%d", at, locule_error_errno(err));
    say(answer, "category", locule_category_name(locule_error_code(err)));
    say(answer, "natural", natural);
    say(answer, "stage", locule_error_stage_name(err));
    say(answer, "pointer", locule_error_pointer(err));
    say(answer, "id", locule_error_container_id(err));
    say(answer, "message", locule_error_message(err));
    say(answer, "hint", locule_error_hint(err));
}

/* The status that the last container has now. */
static void report_status(FILE *answer, locule_container *container)
{
    static const char *const all[] = {"creating", "created", "running", "paused", "stopped"};
    locule_buf state;
    if (locule_container_state_json(container, &state, NULL) < 0)
        return;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char quoted[32];
        snprintf(quoted, sizeof quoted, "\"status\":\"%s\"", all[i]);
        if (strstr(state.data, quoted) != NULL)
            say(answer, "status", all[i]);
    }
    locule_buf_free(&state);
}

static void run(char *line, FILE *answer)
{
    struct scene scene = {0};
    locule_error *err = NULL;
    char *rest, *text = strtok_r(line, "\t", &rest);
    int at = 0, result = 0;
    for (; text != NULL && result >= 0; text = strtok_r(NULL, "\t", &rest), at++) {
        struct step step = parse(text);
        result = perform(&scene, &step, &err);
    }
    if (result < 0)
        report(answer, at - 1, result, err);
    else
        fprintf(answer, "fine");
    locule_error_unref(err);
    if (scene.count > 0)
        report_status(answer, scene.containers[scene.count - 1]);
    for (int i = 0; i < scene.count; i++) {
        locule_container_delete(scene.containers[i], LOCULE_DELETE_FORCE, NULL);
        locule_container_unref(scene.containers[i]);
    }
    locule_image_unref(scene.image);
    locule_image_store_unref(scene.store);
    locule_runtime_unref(scene.runtime);
    fputc('\n', answer);
}

int main(void)
{
    /* Not to a number below: where a standard stream is closed, it would become one. */
    int copy = fcntl(RUNNER, F_DUPFD_CLOEXEC, RUNNER);
    FILE *requests = fdopen(RUNNER, "r"), *answers = fdopen(copy, "w");
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    while ((length = getline(&line, &room, requests)) > 0) {
        line[length - 1] = '\0';
        run(line, answers);
        fflush(answers);
    }
    free(line);
    return 0;
}
