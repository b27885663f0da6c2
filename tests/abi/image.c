/* Images as C sees them: made of a tree, listed, saved, loaded again, unpacked, run, changed and
 * committed; what stops a call, and what is refused. Needs root and a busybox without libraries. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "locule.h"

static const char *state_dir;

/* --- Helpers -------------------------------------------------------------------------------- */

/* A path below the state directory; it lives until the sixteenth call after this one. */
static const char *at(const char *name)
{
    static char paths[16][4096];
    static unsigned next;
    char *path = paths[next++ % 16];
    snprintf(path, sizeof paths[0], "%s/%s", state_dir, name);
    return path;
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

static void expect_file(const char *path, const char *expected)
{
    char text[1024] = "";
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        printf("%s is missing\n", path);
        failures++;
        return;
    }
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    if (strcmp(text, expected) != 0)
        printf("%s: \"%s\" is not \"%s\"\n", path, text, expected);
    CHECK(strcmp(text, expected) == 0);
}

/* A root filesystem of two programs and a file. */
static void make_tree(const char *busybox)
{
    char command[8192];
    CHECK(mkdir(at("tree"), 0755) == 0 && mkdir(at("tree/bin"), 0755) == 0 &&
          mkdir(at("tree/etc"), 0755) == 0);
    snprintf(command, sizeof command, "cp '%s' '%s'", busybox, at("tree/bin/sh"));
    CHECK(system(command) == 0);
    write_file(at("tree/etc/greeting"), "good day\n");
}

static locule_image_store *open_store(const char *name)
{
    locule_image_store *store;
    LOCULE_OPTS(locule_image_store_opts, opts, .path = at(name));
    NEEDS(locule_image_store_open(&opts, &store, &err));
    return store;
}

static char *list_of(locule_image_store *store)
{
    static char text[8192];
    locule_buf list;
    NEEDS(locule_image_store_list_json(store, &list, &err));
    snprintf(text, sizeof text, "%s", list.data);
    locule_buf_free(&list);
    return text;
}

/* That this call fails like this, saying all of these words. */
static void fails_(const char *call, int result, int category, locule_error *err, ...)
{
    va_list words;
    const char *word;
    if (result != category)
        printf("%s gives %s, not %s: %s\n", call, locule_category_name(result),
               locule_category_name(category), err != NULL ? locule_error_message(err) : "");
    CHECK(result == category);
    va_start(words, err);
    while (err != NULL && (word = va_arg(words, const char *)) != NULL)
        if (strstr(locule_error_message(err), word) == NULL) {
            printf("%s: \"%s\" lacks \"%s\"\n", call, locule_error_message(err), word);
            failures++;
        }
    va_end(words);
    locule_error_unref(err);
}

#define FAILS(category, call, ...)                               \
    do {                                                         \
        locule_error *err;                                       \
        int result_ = (call);                                    \
        fails_(#call, result_, category, err, __VA_ARGS__, NULL); \
    } while (0)

/* --- Progress ------------------------------------------------------------------------------- */

/* What a callback is to do, and what it has seen. */
struct watcher {
    int answer;       /* returned by each call */
    int delay_us;     /* before that */
    locule_cancel *cancel; /* triggered */
    unsigned steps;   /* a bit for each LOCULE_IMAGE_STEP_* */
    unsigned calls, finished;
    char digest[256]; /* of the last that has one */
};

static int on_progress(const struct locule_image_progress *progress, void *user)
{
    struct watcher *self = user;
    CHECK(progress->size >= sizeof *progress);
    CHECK(progress->step >= LOCULE_IMAGE_STEP_FETCH && progress->step <= LOCULE_IMAGE_STEP_PACK);
    CHECK(progress->total == 0 || progress->done <= progress->total);
    self->calls++;
    self->finished += progress->finished;
    self->steps |= 1u << progress->step;
    if (progress->digest[0] != '\0')
        snprintf(self->digest, sizeof self->digest, "%s", progress->digest);
    if (self->cancel != NULL)
        locule_cancel_trigger(self->cancel);
    usleep(self->delay_us);
    return self->answer;
}

#define HAS(watcher, step) (((watcher).steps >> LOCULE_IMAGE_STEP_##step & 1) != 0)

/* --- Coming in ------------------------------------------------------------------------------ */

static const char config[] = "{\"Cmd\": [\"/bin/sh\", \"-c\", \"echo $WORD\"],"
                             " \"Env\": [\"WORD=hello\", \"PATH=/bin\"]}";

static locule_image *import(locule_image_store *store, const char *name, const char *comment,
                            struct watcher *watcher)
{
    locule_image *image;
    LOCULE_OPTS(locule_image_opts, opts, .name = name, .config_json = config,
                .config_json_len = strlen(config), .author = "a test", .comment = comment,
                .progress = watcher != NULL ? on_progress : NULL, .progress_user = watcher);
    NEEDS(locule_image_store_import(store, at("tree"), &opts, &image, &err));
    return image;
}

static void a_tree_becomes_an_image(void)
{
    struct watcher watcher = {0};
    locule_image_store *store = open_store("images");
    locule_image *image, *same;
    locule_buf text;
    char digest[128];

    CHECK(strcmp(locule_image_store_path(store), at("images")) == 0);
    CHECK(strcmp(list_of(store), "[]") == 0);
    image = import(store, "greeter", "from a tree", &watcher);
    CHECK(HAS(watcher, PACK) && watcher.finished > 0 && watcher.calls > watcher.finished);
    snprintf(digest, sizeof digest, "%s", locule_image_digest(image));
    CHECK(strncmp(digest, "sha256:", 7) == 0 && strlen(digest) == 71);
    CHECK(locule_image_ref(image) == image);
    locule_image_unref(image);

    NEEDS(locule_image_inspect_json(image, &text, &err));
    CHECK(strstr(text.data, digest) != NULL);
    CHECK(strstr(text.data, "\"names\":[\"docker.io/library/greeter:latest\"]") != NULL);
    CHECK(strstr(text.data, "\"WORD=hello\"") != NULL);
    CHECK(strstr(text.data, "\"a test\"") != NULL && strstr(text.data, "\"from a tree\"") != NULL);
    CHECK(strstr(text.data, "\"diffId\":\"sha256:") != NULL);
    CHECK(strlen(text.data) == text.len);
    locule_buf_free(&text);

    /* The same input gives the same image. */
    same = import(store, "again", "from a tree", NULL);
    CHECK(strcmp(locule_image_digest(same), digest) == 0);
    locule_image_unref(same);

    NEEDS(locule_image_store_get(store, "greeter", &same, &err));
    CHECK(strcmp(locule_image_digest(same), digest) == 0);
    locule_image_unref(same);
    NEEDS(locule_image_store_get(store, digest, &same, &err));
    locule_image_unref(same);
    digest[7 + 12] = '\0';
    NEEDS(locule_image_store_get(store, digest + 7, &same, &err));
    locule_image_unref(same);
    FAILS(LOCULE_E_NOT_FOUND, locule_image_store_get(store, "nobody", &same, &err), "nobody");
    CHECK(same == NULL);

    /* A name more, and one less. */
    NEEDS(locule_image_tag(image, "localhost/other:1", &err));
    CHECK(strstr(list_of(store), "\"localhost/other:1\"") != NULL);
    CHECK(strstr(list_of(store), "\"docker.io/library/again:latest\"") != NULL);
    CHECK(strstr(list_of(store), "\"created\":\"") != NULL);
    NEEDS(locule_image_store_remove(store, "localhost/other:1", &err));
    CHECK(strstr(list_of(store), "\"localhost/other:1\"") == NULL);
    FAILS(LOCULE_E_NOT_FOUND, locule_image_store_remove(store, "localhost/other:1", &err), "other");
    FAILS(LOCULE_E_INVALID, locule_image_tag(image, "No Name", &err), "No Name");
    FAILS(LOCULE_E_INVALID, locule_image_store_get(store, "No Name", &same, &err), "No Name");

    CHECK(locule_image_store_ref(store) == store);
    locule_image_store_unref(store);
    locule_image_store_unref(store);
    /* The image needs no handle of its store. */
    NEEDS(locule_image_inspect_json(image, &text, &err));
    locule_buf_free(&text);
    locule_image_unref(image);
}

/* --- Going out and coming in again ---------------------------------------------------------- */

static void an_image_is_saved_and_loaded(void)
{
    static const char *const places[] = {"layout", "saved.tar"};
    locule_image_store *store = open_store("images");
    locule_image *image, *loaded;
    NEEDS(locule_image_store_get(store, "greeter", &image, &err));
    for (int index = 0; index < 2; index++) {
        struct watcher out = {0}, in = {0};
        LOCULE_OPTS(locule_image_opts, saving, .name = "localhost/greeter:1",
                    .progress = on_progress, .progress_user = &out);
        NEEDS(locule_image_save(image, at(places[index]), &saving, &err));
        CHECK(HAS(out, SAVE) && out.finished >= 2 && strncmp(out.digest, "sha256:", 7) == 0);

        char name[32];
        snprintf(name, sizeof name, "images-%d", index);
        locule_image_store *other = open_store(name);
        LOCULE_OPTS(locule_image_opts, loading, .progress = on_progress, .progress_user = &in);
        NEEDS(locule_image_store_load(other, at(places[index]), &loading, &loaded, &err));
        CHECK(HAS(in, FETCH) && in.finished >= 2);
        CHECK(strcmp(locule_image_digest(loaded), locule_image_digest(image)) == 0);
        CHECK(strstr(list_of(other), "\"names\":[\"localhost/greeter:1\"]") != NULL);
        locule_image_unref(loaded);
        locule_image_store_unref(other);
    }

    /* With a second one in the layout it has to be said which. */
    locule_image_unref(image);
    image = import(store, "localhost/second:1", "another", NULL);
    NEEDS(locule_image_save(image, at("layout"), NULL, &err));
    LOCULE_OPTS(locule_image_opts, opts, .name = "chosen");
    locule_image_store *other = open_store("images-2");
    opts.from = "localhost/second:1";
    NEEDS(locule_image_store_load(other, at("layout"), &opts, &loaded, &err));
    CHECK(strstr(list_of(other), "\"names\":[\"docker.io/library/chosen:latest\"]") != NULL);
    locule_image_unref(loaded);
    opts.from = "localhost/third:1";
    FAILS(LOCULE_E_NOT_FOUND, locule_image_store_load(other, at("layout"), &opts, &loaded, &err),
          "localhost/third:1");
    CHECK(loaded == NULL);
    opts.from = NULL;
    FAILS(LOCULE_E_INVALID, locule_image_store_load(other, at("layout"), &opts, &loaded, &err),
          "localhost/greeter:1", "localhost/second:1");
    opts.platform = "vax";
    FAILS(LOCULE_E_INVALID, locule_image_store_load(other, at("saved.tar"), &opts, &loaded, &err),
          "vax");
    FAILS(LOCULE_E_NOT_FOUND, locule_image_store_load(other, at("nothing"), NULL, &loaded, &err),
          "nothing");
    locule_image_store_unref(other);
    locule_image_unref(image);
    locule_image_store_unref(store);
}

/* A byte of the configuration in the layout is another one. */
static void a_wrong_blob_is_refused_by_its_name(void)
{
    locule_image_store *store = open_store("images"), *other = open_store("images-3");
    locule_image *image;
    locule_buf text;
    char path[256], *layers, *layer;
    NEEDS(locule_image_store_get(store, "greeter", &image, &err));
    NEEDS(locule_image_inspect_json(image, &text, &err));
    layers = strstr(text.data, "\"layers\":");
    layer = layers != NULL ? strstr(layers, "\"digest\":\"sha256:") : NULL;
    CHECK(layer != NULL);
    if (layer != NULL) {
        layer[17 + 64] = '\0';
        snprintf(path, sizeof path, "layout/blobs/sha256/%s", layer + 17);
        int fd = open(at(path), O_RDWR | O_CLOEXEC);
        CHECK(fd >= 0 && pwrite(fd, "\1", 1, 40) == 1 && close(fd) == 0);
        LOCULE_OPTS(locule_image_opts, opts, .from = "localhost/second:1");
        locule_image *loaded;
        FAILS(LOCULE_E_SPEC, locule_image_store_load(other, at("layout"), &opts, &loaded, &err),
              layer + 17);
        CHECK(strcmp(list_of(other), "[]") == 0);
    }
    locule_buf_free(&text);
    locule_image_unref(image);
    locule_image_store_unref(other);
    locule_image_store_unref(store);
}

static void an_image_is_unpacked(void)
{
    struct watcher watcher = {0};
    locule_image_store *store = open_store("images");
    locule_image *image;
    struct stat status;
    NEEDS(locule_image_store_get(store, "greeter", &image, &err));
    LOCULE_OPTS(locule_image_opts, opts, .progress = on_progress, .progress_user = &watcher);
    NEEDS(locule_image_unpack(image, at("unpacked"), &opts, &err));
    CHECK(HAS(watcher, UNPACK) && watcher.finished == 1);
    expect_file(at("unpacked/etc/greeting"), "good day\n");
    CHECK(stat(at("unpacked/bin/sh"), &status) == 0 && (status.st_mode & 07777) == 0755);
    CHECK(locule_image_unpack(image, at("unpacked"), NULL, NULL) < 0); /* it is not empty */

    LOCULE_OPTS(locule_image_opts, few, .max_entries = 2, .owner = LOCULE_OWNER_CALLER);
    FAILS(LOCULE_E_RESOURCE, locule_image_unpack(image, at("few"), &few, &err), "2");
    LOCULE_OPTS(locule_image_opts, small, .max_bytes = 2000);
    FAILS(LOCULE_E_RESOURCE, locule_image_unpack(image, at("small"), &small, &err), "");
    LOCULE_OPTS(locule_image_opts, dense, .max_ratio = UINT64_MAX);
    NEEDS(locule_image_unpack(image, at("dense"), &dense, &err));
    small.max_bytes = 0;
    small.owner = 3;
    FAILS(LOCULE_E_UNSUPPORTED, locule_image_unpack(image, at("small"), &small, &err), "owner");
    locule_image_unref(image);
    locule_image_store_unref(store);
}

static void an_image_is_unpacked_ahead_of_its_containers(void)
{
    static const char wrong[] = "{\"user\": 1}";
    struct watcher watcher = {0};
    locule_image_store *store = open_store("images");
    locule_image *image;
    NEEDS(locule_image_store_get(store, "greeter", &image, &err));
    LOCULE_OPTS(locule_image_opts, opts, .progress = on_progress, .progress_user = &watcher);
    FAILS(LOCULE_E_INVALID, locule_image_prepare(image, wrong, strlen(wrong), &opts, &err), "user");
    CHECK(!HAS(watcher, UNPACK));
    NEEDS(locule_image_prepare(image, NULL, 0, &opts, &err));
    CHECK(HAS(watcher, UNPACK) && watcher.finished == 1);
    watcher = (struct watcher){0};
    NEEDS(locule_image_prepare(image, NULL, 0, &opts, &err));
    CHECK(!HAS(watcher, UNPACK)); /* it is there */
    locule_image_unref(image);
    locule_image_store_unref(store);
}

/* --- Stopping ------------------------------------------------------------------------------- */

static void a_call_is_stopped(void)
{
    locule_image_store *store = open_store("stopped");
    locule_image *image;
    struct watcher watcher = {.answer = 7};
    LOCULE_OPTS(locule_image_opts, opts, .progress = on_progress, .progress_user = &watcher);
    FAILS(LOCULE_E_CALLBACK, locule_image_store_load(store, at("saved.tar"), &opts, &image, &err),
          "returned 7");
    CHECK(watcher.calls == 1 && image == NULL);

    struct watcher slow = {.delay_us = 20000};
    opts.progress_user = &slow;
    opts.timeout_ms = 1;
    FAILS(LOCULE_E_TIMEOUT, locule_image_store_load(store, at("saved.tar"), &opts, &image, &err),
          "deadline");
    opts.timeout_ms = 0;

    struct watcher regret = {0};
    NEEDS(locule_cancel_new(&regret.cancel, &err));
    opts.progress_user = &regret;
    opts.cancel = regret.cancel;
    FAILS(LOCULE_E_CANCELLED, locule_image_store_load(store, at("saved.tar"), &opts, &image, &err),
          "cancelled");
    FAILS(LOCULE_E_CANCELLED, locule_image_store_import(store, at("tree"), &opts, &image, &err),
          "cancelled");
    CHECK(image == NULL && strcmp(list_of(store), "[]") == 0);
    locule_cancel_unref(regret.cancel);

    /* And then it works. */
    NEEDS(locule_image_store_load(store, at("saved.tar"), NULL, &image, &err));
    locule_image_unref(image);
    locule_image_store_unref(store);
}

/* --- Registries ----------------------------------------------------------------------------- */

/* Nobody listens there. What a registry does is tested elsewhere. */
static void a_registry_that_is_not_there_is_named(void)
{
    static const char nobody[] = "127.0.0.1:1/greeter:1";
    locule_image_store *store = open_store("images");
    locule_image *image, *pulled;
    NEEDS(locule_image_store_get(store, "greeter", &image, &err));
    if (locule_has("registry")) {
        locule_error *err;
        CHECK(locule_image_store_pull(store, nobody, NULL, &pulled, &err) < 0 && pulled == NULL);
        CHECK(strstr(locule_error_message(err), "127.0.0.1:1") != NULL);
        locule_error_unref(err);
        CHECK(locule_image_push(image, nobody, NULL, &err) < 0);
        CHECK(strstr(locule_error_message(err), "127.0.0.1:1") != NULL);
        locule_error_unref(err);
        FAILS(LOCULE_E_INVALID, locule_image_push(image, "No Name", NULL, &err), "No Name");
    } else {
        FAILS(LOCULE_E_UNSUPPORTED, locule_image_store_pull(store, nobody, NULL, &pulled, &err),
              "registries");
        FAILS(LOCULE_E_UNSUPPORTED, locule_image_push(image, nobody, NULL, &err), "registries");
    }
    locule_image_unref(image);
    locule_image_store_unref(store);
}

/* --- Containers ----------------------------------------------------------------------------- */

static int create(locule_runtime *runtime, struct locule_create_opts *opts,
                  const locule_image *image, const char *overrides, locule_container **container,
                  locule_error **err)
{
    opts->image = image;
    opts->image_overrides_json = overrides;
    opts->image_overrides_json_len = overrides != NULL ? strlen(overrides) : 0;
    opts->stdio[1].kind = LOCULE_STDIO_PIPE;
    return locule_container_create(runtime, opts, container, err);
}

/* Runs a container of the image to its end, which has to print this. The container stays. */
static locule_container *run(locule_runtime *runtime, struct locule_create_opts *opts,
                             const locule_image *image, const char *overrides, const char *expected)
{
    locule_container *container;
    locule_process *init;
    char text[1024];
    size_t length = 0;
    ssize_t count;
    NEEDS(create(runtime, opts, image, overrides, &container, &err));
    NEEDS(locule_container_init(container, &init, &err));
    NEEDS(locule_container_start(container, NULL, &err));
    int fd = locule_process_take_pipe(init, 1, NULL);
    CHECK(fd >= 0);
    while ((count = read(fd, text + length, sizeof text - 1 - length)) > 0)
        length += count;
    close(fd);
    text[length] = '\0';
    if (strcmp(text, expected) != 0)
        printf("it prints \"%s\", not \"%s\"\n", text, expected);
    CHECK(strcmp(text, expected) == 0);
    CHECK(locule_process_wait(init, 10000, NULL, NULL, NULL) == 1);
    locule_process_unref(init);
    return container;
}

static void finish(locule_container *container)
{
    NEEDS(locule_container_delete(container, 0, &err));
    locule_container_unref(container);
}

static void a_container_is_made_of_an_image(void)
{
    locule_image_store *store = open_store("images");
    locule_runtime *runtime;
    locule_container *container;
    locule_image *image, *committed;
    locule_buf text;
    LOCULE_OPTS(locule_runtime_opts, where, .state_dir = at("state"));
    NEEDS(locule_runtime_new(&where, &runtime, &err));
    NEEDS(locule_image_store_get(store, "greeter", &image, &err));

    LOCULE_OPTS(locule_create_opts, opts);
    finish(run(runtime, &opts, image, NULL, "hello\n"));
    finish(run(runtime, &opts, image, "{\"env\": [\"WORD=bye\"]}", "bye\n"));
    finish(run(runtime, &opts, image, "{\"args\": [\"/bin/sh\", \"-c\", \"read x </etc/greeting;"
                                      " echo $x\"]}", "good day\n"));

    opts.image = image;
    NEEDS(locule_runtime_explain(runtime, &opts, LOCULE_EXPLAIN_JSON, &text, &err));
    CHECK(text.len > 0);
    locule_buf_free(&text);

    /* What it changes becomes an image, which knows more. */
    opts.changes = at("changes");
    container = run(runtime, &opts, image,
                    "{\"args\": [\"/bin/sh\", \"-c\", \"echo new >/etc/new; echo done\"]}",
                    "done\n");
    struct watcher watcher = {0};
    LOCULE_OPTS(locule_image_opts, how, .name = "changed", .compression = LOCULE_COMPRESSION_ZSTD,
                .progress = on_progress, .progress_user = &watcher);
    NEEDS(locule_image_store_commit(store, container, &how, &committed, &err));
    CHECK(HAS(watcher, PACK) && watcher.finished > 0);
    finish(container);
    opts.changes = NULL;
    finish(run(runtime, &opts, committed,
               "{\"args\": [\"/bin/sh\", \"-c\", \"read x </etc/new; echo $x\"]}", "new\n"));
    locule_image_unref(committed);

    /* Nothing is kept of a container without a directory for it. */
    container = run(runtime, &opts, image, NULL, "hello\n");
    FAILS(LOCULE_E_STATE, locule_image_store_commit(store, container, NULL, &committed, &err),
          "not kept");
    CHECK(committed == NULL);
    finish(container);

    FAILS(LOCULE_E_INVALID, create(runtime, &opts, NULL, "{}", &container, &err),
          "image_overrides_json");
    FAILS(LOCULE_E_INVALID, create(runtime, &opts, image, "[]", &container, &err),
          "image_overrides_json");
    FAILS(LOCULE_E_INVALID, create(runtime, &opts, image, "{\"argv\": []}", &container, &err),
          "argv");
    FAILS(LOCULE_E_INVALID, create(runtime, &opts, image, "{", &container, &err),
          "image_overrides_json");
    opts.spec_json = "{}";
    opts.spec_json_len = 2;
    FAILS(LOCULE_E_INVALID, create(runtime, &opts, image, NULL, &container, &err), "spec_json");
    CHECK(container == NULL);

    NEEDS(locule_runtime_list_json(runtime, &text, &err));
    CHECK(strcmp(text.data, "[]") == 0);
    locule_buf_free(&text);
    locule_image_unref(image);
    locule_runtime_unref(runtime);
    locule_image_store_unref(store);
}

/* --- Keeping -------------------------------------------------------------------------------- */

static void a_store_can_be_read_only(void)
{
    locule_image_store *store;
    locule_image *image;
    locule_error *err;
    LOCULE_OPTS(locule_image_store_opts, opts, .path = at("images"),
                .flags = LOCULE_IMAGE_STORE_READ_ONLY);
    NEEDS(locule_image_store_open(&opts, &store, &err));
    NEEDS(locule_image_store_get(store, "greeter", &image, &err));
    locule_image_unref(image);
    CHECK(locule_image_store_import(store, at("tree"), NULL, &image, &err) < 0 && image == NULL);
    CHECK(strstr(locule_error_message(err), "read-only") != NULL);
    locule_error_unref(err);
    CHECK(locule_image_store_remove(store, "greeter", &err) < 0);
    locule_error_unref(err);
    locule_image_store_unref(store);
    opts.path = at("no-store");
    CHECK(locule_image_store_open(&opts, &store, &err) < 0 && store == NULL);
    locule_error_unref(err);
}

static void what_nobody_needs_is_pruned(void)
{
    locule_image_store *store = open_store("images");
    locule_buf text;
    NEEDS(locule_image_store_prune_json(store, NULL, &text, &err));
    CHECK(strstr(text.data, "\"images\":[]") != NULL);
    locule_buf_free(&text);
    CHECK(strstr(list_of(store), "greeter") != NULL);
    LOCULE_OPTS(locule_image_opts, opts, .flags = LOCULE_PRUNE_ALL);
    NEEDS(locule_cancel_new(&opts.cancel, &err));
    locule_cancel_trigger(opts.cancel);
    FAILS(LOCULE_E_CANCELLED, locule_image_store_prune_json(store, &opts, &text, &err), "");
    locule_cancel_unref(opts.cancel);
    opts.cancel = NULL;
    NEEDS(locule_image_store_prune_json(store, &opts, &text, &err));
    CHECK(strstr(text.data, "\"images\":[\"sha256:") != NULL);
    CHECK(strstr(text.data, "\"bytes\":0") == NULL && strstr(text.data, "\"bytes\":") != NULL);
    locule_buf_free(&text);
    CHECK(strcmp(list_of(store), "[]") == 0);
    locule_image_store_unref(store);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    state_dir = argv[2];
    make_tree(argv[1]);
    a_tree_becomes_an_image();
    an_image_is_saved_and_loaded();
    a_wrong_blob_is_refused_by_its_name();
    an_image_is_unpacked();
    an_image_is_unpacked_ahead_of_its_containers();
    a_call_is_stopped();
    a_registry_that_is_not_there_is_named();
    a_container_is_made_of_an_image();
    a_store_can_be_read_only();
    what_nobody_needs_is_pruned();
    return failures != 0;
}
