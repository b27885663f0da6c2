/*
 * From an image to a running container, in C:
 *
 *     cc image.c $(pkg-config --cflags --libs locule) -o image
 *     ./image alpine                        pulls it from its registry, if the store has it not
 *     ./image ./layout                      an OCI layout, or an archive of `docker save`
 *     ./image alpine ls -l /etc             another command than the image's
 *
 * Nothing else is needed: no daemon, no other tool. The image goes to the default store, and its
 * layers are unpacked once. What the container writes vanishes with it. Root is not needed where
 * user namespaces are allowed.
 */

#include <locule.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One line on the terminal, written over again. */
static int show(const struct locule_image_progress *progress, void *user)
{
    const char *what = progress->step == LOCULE_IMAGE_STEP_FETCH    ? "fetch"
                       : progress->step == LOCULE_IMAGE_STEP_UNPACK ? "unpack"
                                                                    : "work on";
    (void)user;
    fprintf(stderr, "\r%s %.19s: %llu of %llu bytes%s", what, progress->digest,
            (unsigned long long)progress->done, (unsigned long long)progress->total,
            progress->finished ? "\n" : "");
    return 0; /* anything else would stop the call */
}

/* An image of a file or directory, or by its name: from the store, else from its registry. */
static int find(locule_image_store *store, const char *name, locule_image **image,
                locule_error **err)
{
    LOCULE_OPTS(locule_image_opts, opts, .progress = show);
    int result;
    if (name[0] == '/' || name[0] == '.')
        return locule_image_store_load(store, name, &opts, image, err);
    result = locule_image_store_get(store, name, image, err);
    if (result != LOCULE_E_NOT_FOUND)
        return result;
    locule_error_unref(*err);
    return locule_image_store_pull(store, name, &opts, image, err);
}

/* {"args": ["ls", "-l"]}, or NULL for the image's own command. */
static char *overrides_of(int argc, char **argv)
{
    char *json, *end;
    size_t room = 64;
    int index;
    if (argc == 0)
        return NULL;
    for (index = 0; index < argc; index++)
        room += 6 * strlen(argv[index]) + 4;
    json = end = malloc(room);
    if (json == NULL)
        abort();
    end += sprintf(end, "{\"args\": [");
    for (index = 0; index < argc; index++) {
        const unsigned char *byte = (const unsigned char *)argv[index];
        end += sprintf(end, "%s\"", index > 0 ? ", " : "");
        for (; *byte != '\0'; byte++)
            if (*byte == '"' || *byte == '\\' || *byte < ' ')
                end += sprintf(end, "\\u%04x", *byte);
            else
                *end++ = (char)*byte;
        *end++ = '"';
    }
    sprintf(end, "]}");
    return json;
}

int main(int argc, char **argv)
{
    locule_error *err = NULL;
    locule_image_store *store = NULL;
    locule_image *image = NULL;
    locule_runtime *runtime = NULL;
    locule_container *container = NULL;
    locule_process *init = NULL;
    LOCULE_OPTS(locule_exit, end, .kind = LOCULE_EXIT_NONE);
    const char *failed = NULL;
    char *overrides;

    if (argc < 2) {
        fprintf(stderr, "usage: image NAME|PATH [COMMAND...]\n");
        return 2;
    }
    overrides = overrides_of(argc - 2, argv + 2);
    LOCULE_OPTS(locule_create_opts, opts, .image_overrides_json = overrides,
                .image_overrides_json_len = overrides != NULL ? strlen(overrides) : 0,
                .stdio = {{LOCULE_STDIO_INHERIT, 0}, {LOCULE_STDIO_INHERIT, 0},
                          {LOCULE_STDIO_INHERIT, 0}});

    if (locule_image_store_open(NULL, &store, &err) < 0)
        failed = "open the store";
    else if (find(store, argv[1], &image, &err) < 0)
        failed = "find the image";
    else if (locule_runtime_new(NULL, &runtime, &err) < 0)
        failed = "open the runtime";
    else {
        opts.image = image;
        if (locule_container_create(runtime, &opts, &container, &err) < 0)
            failed = "create the container";
        else if (locule_container_init(container, &init, &err) < 0 ||
                 locule_container_start(container, NULL, &err) < 0 ||
                 locule_process_wait(init, -1, NULL, &end, &err) < 0)
            failed = "run it";
    }
    if (failed != NULL) {
        fprintf(stderr, "image: %s: %s\n", failed, locule_error_message(err));
        if (locule_error_hint(err) != NULL)
            fprintf(stderr, "  hint      %s\n", locule_error_hint(err));
        locule_error_unref(err);
    }
    if (container != NULL)
        locule_container_delete(container, LOCULE_DELETE_FORCE, NULL);
    locule_process_unref(init);
    locule_container_unref(container);
    locule_runtime_unref(runtime);
    locule_image_unref(image);
    locule_image_store_unref(store);
    free(overrides);
    if (failed != NULL)
        return 125;
    return end.kind == LOCULE_EXIT_CODE ? end.code : 128 + end.signal;
}
