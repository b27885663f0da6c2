/*
 * Locule: a container runtime that lives inside another program.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Generated from ffi/src by `make header`; do not edit.
 *
 * THREADS. Every function may be called from any thread, at the same time as any other and on the
 * same handle: the library locks for itself, and a call that waits never blocks another. Locule
 * starts no thread and calls the host's code only inside calls of the host, on the thread that
 * made them: events inside locule_runtime_dispatch, plugins inside what leads to the stage that
 * they are for, progress inside the call for an image. After fork() the child must not use
 * handles it inherited; after exec there are none, for every descriptor is close-on-exec.
 *
 * OWNERSHIP. Handles (locule_runtime, _container, _process, _plugin, _image_store, _image,
 * _cancel, _error) are counted. A function that stores one in *out gives the caller a reference;
 * each reference is given back once with _unref. Giving back the last one frees the handle and
 * nothing else: containers and processes go on. A `const char *` or a descriptor called
 * "borrowed" belongs to its handle and lives as long. Bytes in a locule_buf are freed with
 * locule_buf_free. What the host passes in (strings, bytes, structs, arrays, descriptors) stays
 * the host's: Locule has copied or duplicated what it keeps before the call returns. Only a
 * plugin's callbacks, and what they get, have to live until its `release` is called.
 *
 * ERRORS. Functions that can fail return 0 or more, or a category below -4096, one of
 * LOCULE_E_*, and take `locule_error **err`. `err` may be NULL. Otherwise *err is always
 * written: NULL, or an error that the caller gives back. There is no "last error". When a call
 * fails, *out is NULL, or the buffer empty. A required argument that is NULL gives
 * LOCULE_E_INVALID; a handle in the wrong state gives LOCULE_E_STATE.
 *
 * OPTIONS. A struct that starts with `size` has to be zeroed and given its size, which
 * LOCULE_OPTS does. 0 is the default of every field. Flags, kinds and later fields which the
 * library that runs does not know are refused with LOCULE_E_UNSUPPORTED, never ignored.
 *
 * STRINGS end in NUL. Paths are bytes; everything else is UTF-8.
 *
 * THE HOST is left as it is: no fork of it, no signal handlers, no SIGCHLD (but see
 * LOCULE_PARENTAGE_CHILD), no change of its umask, directory, environment, signal mask or
 * namespaces; nothing is written to its standard streams; a defect in Locule becomes
 * LOCULE_E_BUG, not an abort. Unloading with dlclose does nothing: the library stays.
 */

#ifndef LOCULE_H
#define LOCULE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct locule_runtime locule_runtime;
typedef struct locule_container locule_container;
typedef struct locule_process locule_process;
typedef struct locule_cancel locule_cancel;
typedef struct locule_error locule_error;
typedef struct locule_event locule_event;
typedef struct locule_plugin locule_plugin;
typedef struct locule_plugin_call locule_plugin_call;
typedef struct locule_image_store locule_image_store;
typedef struct locule_image locule_image;
typedef struct locule_buf locule_buf;
struct locule_create_opts;
struct locule_exit;

/**
 * Declares a variable that is a struct with a size, ready for use:
 *
 *     LOCULE_OPTS(locule_create_opts, opts, .bundle = "/var/lib/bundles/web");
 *
 * In C++ and where only the size is to be set: LOCULE_OPTS(locule_create_opts, opts);
 */
#ifdef __cplusplus
#define LOCULE_OPTS(type, name) \
    struct type name = {};      \
    name.size = sizeof(struct type)
#else
#define LOCULE_OPTS(...) LOCULE_OPTS_(__VA_ARGS__, )
#define LOCULE_OPTS_(type, name, ...) \
    struct type name = {.size = sizeof(struct type), __VA_ARGS__}
#endif

/* ==========================================================================================
 * Version: which library runs, and what it can do
 * ========================================================================================== */

/**
 * The version of this header. Within one LOCULE_VERSION_MAJOR.LOCULE_VERSION_MINOR below 1.0,
 * and within one major version from 1.0 on, programs built with an older header go on working.
 */
#define LOCULE_VERSION_MAJOR 0
/** See LOCULE_VERSION_MAJOR. */
#define LOCULE_VERSION_MINOR 1
/** See LOCULE_VERSION_MAJOR. */
#define LOCULE_VERSION_PATCH 0

/**
 * The version of the library that runs, such as "0.1.0": it may be later than the header. A
 * constant.
 *
 * Any thread. Does not block. Since 0.1.
 */
const char *locule_version(void);

/**
 * Returns 1 if the library that runs has this feature, else 0, also for NULL. In 0.1:
 * "cancel", "container", "detach", "events", "exec", "explain", "parentage", "pass-fds",
 * "plugins", "rootfs-layers", "rootfs-overlay", "seccomp-listener", "spec", "systemd", "terminal",
 * "watch"; and if the library was built with it "images", "registry", "wasm-plugins". What this
 * machine can do says locule_runtime_features_json.
 *
 * Any thread. Does not block. Since 0.1.
 */
int locule_has(const char *feature);

/* ==========================================================================================
 * Errors: what failed, where in a container's life, and where in config.json
 * ========================================================================================== */

/** An argument of the call is wrong. */
#define LOCULE_E_INVALID (-4097)
/** config.json, or another OCI document, is wrong. */
#define LOCULE_E_SPEC (-4098)
/** No such container, process, image or file. */
#define LOCULE_E_NOT_FOUND (-4099)
/** The id is in use, or a directory is not empty that has to be. */
#define LOCULE_E_EXISTS (-4100)
/** The container is in a state that does not allow the call, or the image store is only read. */
#define LOCULE_E_STATE (-4101)
/** The system refused for lack of privilege. */
#define LOCULE_E_PERMISSION (-4102)
/** The kernel, this machine or this version of Locule cannot do it. */
#define LOCULE_E_UNSUPPORTED (-4103)
/** Something is in use that must not be. */
#define LOCULE_E_BUSY (-4104)
/** The deadline passed. */
#define LOCULE_E_TIMEOUT (-4105)
/** The call was cancelled. */
#define LOCULE_E_CANCELLED (-4106)
/** A resource ran out: memory, disk, descriptors, processes. */
#define LOCULE_E_RESOURCE (-4107)
/** A system call failed for another reason. */
#define LOCULE_E_SYSTEM (-4108)
/** The program could not be executed. */
#define LOCULE_E_PROGRAM (-4109)
/** A hook failed. */
#define LOCULE_E_HOOK (-4110)
/** The container's keeper is gone or does not answer as it should. */
#define LOCULE_E_KEEPER (-4111)
/** A plugin refused or failed. */
#define LOCULE_E_PLUGIN (-4112)
/** A callback of the host asked to stop. */
#define LOCULE_E_CALLBACK (-4113)
/** A defect in Locule. */
#define LOCULE_E_BUG (-4114)

/** Checking the arguments of a call. */
#define LOCULE_STAGE_ARGUMENTS 1
/** Reading and checking config.json. */
#define LOCULE_STAGE_VALIDATE 2
/** Compiling the plan. */
#define LOCULE_STAGE_COMPILE 3
/** The state directory. */
#define LOCULE_STAGE_STATE 4
/** Cgroups and resource limits. */
#define LOCULE_STAGE_CGROUP 5
/** Starting the keeper or the process. */
#define LOCULE_STAGE_SPAWN 6
/** Creating or joining namespaces, mapping ids. */
#define LOCULE_STAGE_NAMESPACES 7
/** The root filesystem. */
#define LOCULE_STAGE_ROOTFS 8
/** Mounts, masked and read-only paths. */
#define LOCULE_STAGE_MOUNTS 9
/** Device nodes. */
#define LOCULE_STAGE_DEVICES 10
/** Hostname, sysctl and other settings of the namespaces. */
#define LOCULE_STAGE_SETTINGS 11
/** User, groups, capabilities, limits, labels of the process. */
#define LOCULE_STAGE_PROCESS 12
/** The terminal and standard streams. */
#define LOCULE_STAGE_STDIO 13
/** The seccomp filter. */
#define LOCULE_STAGE_SECCOMP 14
/** Hooks. */
#define LOCULE_STAGE_HOOK 15
/** Finding and executing the program. */
#define LOCULE_STAGE_EXEC 16
/** Letting the program run. */
#define LOCULE_STAGE_START 17
/** Signals, freezing, waiting. */
#define LOCULE_STAGE_CONTROL 18
/** Deleting the container. */
#define LOCULE_STAGE_DELETE 19
/** Writing a checkpoint, and restoring a container from one. */
#define LOCULE_STAGE_CHECKPOINT 20
/** Plugins. */
#define LOCULE_STAGE_PLUGIN 21
/** Images: reading, unpacking, keeping, writing and moving them. */
#define LOCULE_STAGE_IMAGE 22

/**
 * Takes another reference and returns the error. NULL gives NULL.
 *
 * Any thread. Does not block. Since 0.1.
 */
locule_error *locule_error_ref(locule_error *error);

/**
 * Gives a reference back; the last one frees the error and the strings borrowed from it.
 * NULL is ignored.
 *
 * Any thread. Does not block. Since 0.1.
 */
void locule_error_unref(locule_error *error);

/**
 * The category, one of LOCULE_E_*: what the failed call returned. 0 for NULL.
 *
 * Any thread. Does not block. Since 0.1.
 */
int locule_error_code(const locule_error *error);

/**
 * The errno of the system call that failed; 0 if it was none, and for NULL.
 *
 * Any thread. Does not block. Since 0.1.
 */
int locule_error_errno(const locule_error *error);

/**
 * Where in a container's life it happened, one of LOCULE_STAGE_*. 0 for NULL. A later
 * version of the library may return numbers that this header does not name.
 *
 * Any thread. Does not block. Since 0.1.
 */
uint32_t locule_error_stage(const locule_error *error);

/**
 * The stage in words, such as "mounts". Borrowed from the error. NULL for NULL.
 *
 * Any thread. Does not block. Since 0.1.
 */
const char *locule_error_stage_name(const locule_error *error);

/**
 * The whole text on one line: what was attempted, from the widest to the narrowest, the
 * errno in words, the place in config.json. Borrowed from the error. NULL for NULL.
 *
 * Any thread. Does not block. Since 0.1.
 */
const char *locule_error_message(const locule_error *error);

/**
 * The JSON pointer of the field to blame in the document the caller gave, such as
 * "/mounts/3". Borrowed from the error. NULL if there is none.
 *
 * Any thread. Does not block. Since 0.1.
 */
const char *locule_error_pointer(const locule_error *error);

/**
 * The id of the container. Borrowed from the error. NULL if there is none.
 *
 * Any thread. Does not block. Since 0.1.
 */
const char *locule_error_container_id(const locule_error *error);

/**
 * The step of the plan that failed, as locule_runtime_explain prints it. Borrowed from the
 * error. NULL if it was none.
 *
 * Any thread. Does not block. Since 0.1.
 */
const char *locule_error_step(const locule_error *error);

/**
 * What can be done about it. Borrowed from the error. NULL if nothing is known.
 *
 * Any thread. Does not block. Since 0.1.
 */
const char *locule_error_hint(const locule_error *error);

/**
 * The name of a category, such as "not-found" for LOCULE_E_NOT_FOUND. A constant; never
 * NULL: "ok" for 0 and above, "unknown" for a number that is no category.
 *
 * Any thread. Does not block. Since 0.1.
 */
const char *locule_category_name(int code);

/* ==========================================================================================
 * Buffers: bytes that Locule hands out
 * ========================================================================================== */

/**
 * Bytes made by Locule: JSON or text. The caller owns them and frees them with
 * locule_buf_free, never with free().
 */
struct locule_buf {
    /** The bytes, followed by a NUL byte that `len` does not count. NULL if empty. */
    char *data;
    /** How many bytes there are. Not to be changed before locule_buf_free. */
    size_t len;
};

/**
 * Frees what a buffer holds and empties it. NULL and an empty buffer are ignored.
 *
 * Any thread, but one at a time for one buffer. Does not block. Since 0.1.
 */
void locule_buf_free(locule_buf *buf);

/* ==========================================================================================
 * Cancelling: tokens that stop waiting calls
 * ========================================================================================== */

/**
 * Makes a token that has not been triggered, and stores it in *out; the caller owns that
 * reference. One token may be given to any number of calls.
 *
 * Any thread. Does not block. Fails with LOCULE_E_INVALID, LOCULE_E_RESOURCE. Since 0.1.
 */
int locule_cancel_new(locule_cancel **out, locule_error **err);

/**
 * Makes every call that was given this token, now or later, return LOCULE_E_CANCELLED. It
 * cannot be undone. NULL is ignored.
 *
 * Any thread, but not a signal handler. Does not block. Since 0.1.
 */
void locule_cancel_trigger(locule_cancel *cancel);

/**
 * The token's descriptor: readable once it has been triggered. Borrowed: it is closed with
 * the token, and must only be polled. LOCULE_E_INVALID for NULL.
 *
 * Any thread. Does not block. Since 0.1.
 */
int locule_cancel_fd(const locule_cancel *cancel);

/**
 * Takes another reference and returns the token. NULL gives NULL.
 *
 * Any thread. Does not block. Since 0.1.
 */
locule_cancel *locule_cancel_ref(locule_cancel *cancel);

/**
 * Gives a reference back; the last one closes the token without triggering it. NULL is
 * ignored.
 *
 * Any thread. Does not block. Since 0.1.
 */
void locule_cancel_unref(locule_cancel *cancel);

/* ==========================================================================================
 * Runtime: the place where containers are kept
 * ========================================================================================== */

/** Do not touch cgroups at all. */
#define LOCULE_RUNTIME_NO_CGROUPS 1

/**
 * Leave annotations alone that change what is done. With LOCULE_CGROUPS_SYSTEMD
 * org.systemd.property.NAME sets any property of the container's unit: who may write annotations
 * could do so.
 */
#define LOCULE_RUNTIME_IGNORE_ANNOTATIONS 2

/** The library makes the containers' cgroups itself, with directories in every hierarchy. */
#define LOCULE_CGROUPS_CGROUPFS 0

/**
 * systemd makes them, with a scope for each container: that of the machine for root, the user's
 * own for an ordinary user. Needs cgroup v2 alone.
 */
#define LOCULE_CGROUPS_SYSTEMD 1

/** For who looks for a fault. */
#define LOCULE_LOG_DEBUG 0
/** What goes on. */
#define LOCULE_LOG_INFO 1
/** What is not as it should be. */
#define LOCULE_LOG_WARN 2
/** What has failed. */
#define LOCULE_LOG_ERROR 3

/** The plan as text for people, a line a step. */
#define LOCULE_EXPLAIN_TEXT 0
/** The plan as JSON. */
#define LOCULE_EXPLAIN_JSON 1

/**
 * Hears a line that a Wasm plugin says, or that is said of a plugin: how much it matters, one of
 * LOCULE_LOG_*, the plugin's name, the container's id, and the line, without a line end. All of it
 * lives until the callback returns. It is called on the thread on which the plugin is, and must
 * return: no longjmp, no exception.
 */
typedef void (*locule_plugin_log_fn)(uint32_t level,
                                     const char *plugin,
                                     const char *container_id,
                                     const char *message,
                                     void *user);

/** How a runtime is opened. */
struct locule_runtime_opts {
    /** sizeof(struct locule_runtime_opts). */
    size_t size;
    /** LOCULE_RUNTIME_*. */
    uint64_t flags;
    /**
     * The directory where containers are kept; made if missing. NULL: /run/locule for root,
     * else $XDG_RUNTIME_DIR/locule, else /tmp/locule-UID.
     */
    const char *state_dir;
    /** The keeper executable. NULL: the one inside this library, else an installed one. */
    const char *keeper_path;
    /**
     * Who makes the containers' cgroups, one of LOCULE_CGROUPS_*; 0 with
     * LOCULE_RUNTIME_NO_CGROUPS.
     */
    uint32_t cgroup_manager;
    /** 0. */
    uint32_t reserved;
    /**
     * What is called at stages of the containers' lives, in any order: `priority` decides. The
     * runtime takes a reference of its own to each. Feature "plugins".
     */
    locule_plugin *const *plugins;
    /** How many there are. */
    size_t plugin_count;
    /**
     * A folder with further plugins: a file NAME.json for each Wasm plugin, as for
     * locule_plugin_load, and perhaps rules.json, as `plugin_rules_json`. NULL: none. Feature
     * "wasm-plugins".
     */
    const char *plugin_dir;
    /**
     * JSON with what holds for all plugins: {"required": [NAME...], "forbid": [WHAT...]}. Without
     * a plugin that is required, present and not disabled, no container is created. Forbidden can
     * be to change "hooks", "namespaces", "seccomp", "capabilities", "confinement", "sysctl",
     * "devices", or in the case of walls to take them away. NULL: none.
     */
    const void *plugin_rules_json;
    /** Its length in bytes. */
    size_t plugin_rules_json_len;
    /**
     * Hears what Wasm plugins say, and warnings about plugins: one that was skipped, a fault at a
     * stage that cannot be refused. NULL: nobody does.
     */
    locule_plugin_log_fn plugin_log;
    /** What `plugin_log` gets. */
    void *plugin_log_user;
    /**
     * Called with `plugin_log_user` once nothing will use it any more, on the thread that gave back
     * the last reference to the runtime and what belongs to it; also when this call fails, unless
     * the struct itself is refused. May be NULL.
     */
    void (*plugin_log_release)(void *user);
};

/**
 * Gets an event from locule_runtime_dispatch, on the thread that called it. `event` lives
 * until the callback returns. Returns 0 to go on; anything else makes the dispatch return
 * LOCULE_E_CALLBACK. It may call Locule, but must return: no longjmp, no exception.
 */
typedef int (*locule_event_fn)(const locule_event *event, void *user);

/**
 * Opens a runtime and stores it in *out; the caller owns that reference. NULL for `opts` takes
 * every default. A process may open any number, of one state directory too.
 *
 * Any thread. Does not block, but for the filesystem and, with `plugin_dir`, to load plugins.
 * Fails with LOCULE_E_INVALID, LOCULE_E_UNSUPPORTED, LOCULE_E_PERMISSION, LOCULE_E_RESOURCE,
 * LOCULE_E_SYSTEM, and with `plugin_dir` as locule_plugin_load. Since 0.1.
 */
int locule_runtime_new(const struct locule_runtime_opts *opts,
                       locule_runtime **out,
                       locule_error **err);

/**
 * The state directory. Borrowed from the runtime. NULL for NULL.
 *
 * Any thread. Does not block. Since 0.1.
 */
const char *locule_runtime_state_dir(const locule_runtime *runtime);

/**
 * One descriptor for everything that this runtime's handles wait for: readable while
 * locule_runtime_dispatch has an event to give. Borrowed: it is closed with the runtime, and
 * must only be polled. LOCULE_E_INVALID for NULL.
 *
 * Any thread. Does not block. Since 0.1.
 */
int locule_runtime_fd(const locule_runtime *runtime);

/**
 * Waits up to `timeout_ms` milliseconds (negative: no limit; 0: only looks) for the processes
 * that were created or opened through this runtime handle, and gives the end of each to
 * `callback`, with `user`, on this thread. Returns how many there were; 0 after the timeout.
 * Each end is given once, and only while the host holds a handle to the process or its
 * container.
 *
 * Any thread. Blocks up to the timeout. Fails with LOCULE_E_INVALID, LOCULE_E_SYSTEM, and
 * with LOCULE_E_CALLBACK as soon as the callback returns anything but 0. Since 0.1.
 */
int locule_runtime_dispatch(locule_runtime *runtime,
                            int timeout_ms,
                            locule_event_fn callback,
                            void *user,
                            locule_error **err);

/**
 * Stores in *out a JSON array with the state document of every container in the state
 * directory, whoever created it, in the order of their ids. The caller frees it with
 * locule_buf_free.
 *
 * Any thread. Does not block, but for the filesystem. Fails with LOCULE_E_INVALID,
 * LOCULE_E_PERMISSION, LOCULE_E_SYSTEM. Since 0.1.
 */
int locule_runtime_list_json(locule_runtime *runtime, locule_buf *out, locule_error **err);

/**
 * Stores in *out the features document (runtime-spec, features.md): what this library can do
 * on this machine. The caller frees it with locule_buf_free.
 *
 * Any thread. Does not block. Fails with LOCULE_E_INVALID. Since 0.1.
 */
int locule_runtime_features_json(locule_runtime *runtime, locule_buf *out, locule_error **err);

/**
 * Stores in *out the plugins of the runtime, in the order in which they are called: a JSON array
 * of what locule_plugin_describe_json gives of each, with `disabled`. The caller frees it with
 * locule_buf_free.
 *
 * Any thread. Does not block. Fails with LOCULE_E_INVALID. Since 0.1.
 */
int locule_runtime_plugins_json(locule_runtime *runtime,
                                locule_buf *out,
                                locule_error **err);

/**
 * Stores in *out what locule_container_create would do with these options, without doing it:
 * every step, in order. `format` is one of LOCULE_EXPLAIN_*. Plugins are called at "create", and
 * what they change is shown. Needs no privilege. Of an image, whose files say what its names of
 * users mean, what is not unpacked yet is. The caller frees the result with locule_buf_free.
 *
 * Any thread. Does not block, but for the filesystem and plugins, and as locule_image_prepare.
 * Fails with LOCULE_E_INVALID, LOCULE_E_SPEC, LOCULE_E_UNSUPPORTED, LOCULE_E_NOT_FOUND,
 * LOCULE_E_PLUGIN, with an image like locule_image_prepare. Since 0.1.
 */
int locule_runtime_explain(locule_runtime *runtime,
                           const struct locule_create_opts *opts,
                           uint32_t format,
                           locule_buf *out,
                           locule_error **err);

/**
 * Takes another reference and returns the runtime. NULL gives NULL.
 *
 * Any thread. Does not block. Since 0.1.
 */
locule_runtime *locule_runtime_ref(locule_runtime *runtime);

/**
 * Gives a reference back; the last one closes the runtime. Containers go on, and so do their
 * handles. NULL is ignored.
 *
 * Any thread. Does not block. Since 0.1.
 */
void locule_runtime_unref(locule_runtime *runtime);

/* ==========================================================================================
 * Spec: the default config.json
 * ========================================================================================== */

/** The root filesystem is read-only. */
#define LOCULE_SPEC_READONLY 1

/**
 * If the calling process is not root, or root of a user namespace without other ids: add a
 * user namespace that maps its user and group, and leave out what needs root. Without effect
 * for root.
 */
#define LOCULE_SPEC_ROOTLESS_AUTO 2
/** Share the network of the calling process. */
#define LOCULE_SPEC_NETWORK_HOST 4
/** The program gets a terminal. */
#define LOCULE_SPEC_TERMINAL 8

/** The choices for a default config.json. */
struct locule_spec_opts {
    /** sizeof(struct locule_spec_opts). */
    size_t size;
    /** LOCULE_SPEC_*. */
    uint64_t flags;
    /** The program and its arguments, ending with NULL. Default: "sh". */
    const char *const *args;
    /**
     * The environment as "NAME=value", ending with NULL. A usual PATH is added if it has none,
     * and with a terminal TERM.
     */
    const char *const *env;
    /** The working directory in the container. Default: "/". */
    const char *cwd;
    /** The host name in the container; "" for this machine's own. Default: "locule". */
    const char *hostname;
    /** The root filesystem, absolute or from the bundle. Default: "rootfs". */
    const char *rootfs;
    /** The user id of the program in the container. */
    uint32_t uid;
    /** The group id of the program in the container. */
    uint32_t gid;
    /** The most memory the container may use, in bytes. 0: no limit. */
    uint64_t memory_bytes;
    /** The most processor time it may use, in thousandths of one processor. 0: no limit. */
    uint32_t cpu_milli;
    /** The most processes it may have. 0: no limit. */
    uint32_t pids;
};

/**
 * Stores in *out a config.json that suits most containers, with these choices: namespaces,
 * the usual mounts, masked paths, capabilities and seccomp profile. It may be changed and
 * given to locule_container_create. NULL for `opts` takes every default. The caller frees
 * it with locule_buf_free.
 *
 * Any thread. Does not block. Fails with LOCULE_E_INVALID, LOCULE_E_SPEC,
 * LOCULE_E_UNSUPPORTED. Since 0.1.
 */
int locule_spec_generate(const struct locule_spec_opts *opts,
                         locule_buf *out,
                         locule_error **err);

/* ==========================================================================================
 * Standard streams
 * ========================================================================================== */

/** /dev/null. */
#define LOCULE_STDIO_NULL 0

/**
 * The stream of the same number of the calling process; /dev/null if it has none, that is, none
 * that a program it executes would have.
 */
#define LOCULE_STDIO_INHERIT 1
/** The descriptor in `fd`. */
#define LOCULE_STDIO_FD 2
/** A new pipe; the host takes its end with locule_process_take_pipe. */
#define LOCULE_STDIO_PIPE 3

/** A standard stream of a process. Ignored if the process has a terminal. */
struct locule_stdio {
    /** One of LOCULE_STDIO_*. */
    uint32_t kind;
    /** With LOCULE_STDIO_FD: the descriptor; borrowed for the call. Else 0. */
    int fd;
};

/* ==========================================================================================
 * Containers
 * ========================================================================================== */

/**
 * Take `root.path` as the read-only lower layer of a private overlay: what the container
 * changes there vanishes with it, unless `changes` keeps it. With "/" it sees the host's own files.
 */
#define LOCULE_CREATE_ROOTFS_OVERLAY 1

/**
 * Let the container live on when this process ends. Without the flag it is killed then and
 * everything of it is removed.
 */
#define LOCULE_CREATE_DETACH 2

/** The parent of the first process is a keeper, which stays as long as the container. */
#define LOCULE_PARENTAGE_KEEPER 0

/**
 * The parent is the nearest subreaper, or pid 1. The keeper leaves once the container is
 * created, so that the container lives on when this process ends.
 */
#define LOCULE_PARENTAGE_ORPHAN 1
/** The parent is the calling process: it gets SIGCHLD and may wait for it. The keeper leaves. */
#define LOCULE_PARENTAGE_CHILD 2

/** The container ran out of memory: LOCULE_EVENT_OOM. */
#define LOCULE_WATCH_OOM 1

/**
 * Its processes had to wait for a resource too long: LOCULE_EVENT_PRESSURE. Needs cgroup v2
 * alone.
 */
#define LOCULE_WATCH_PRESSURE 2

/** A processor. */
#define LOCULE_RESOURCE_CPU 1
/** Memory. */
#define LOCULE_RESOURCE_MEMORY 2
/** Block devices. */
#define LOCULE_RESOURCE_IO 3

/**
 * Count the time in which all processes that could run had to wait at once; else that in which
 * at least one had to.
 */
#define LOCULE_WATCH_FULL 1

/** Send the signal to every process of the container. */
#define LOCULE_SIGNAL_ALL 1

/** Kill the container first if it is not stopped. */
#define LOCULE_DELETE_FORCE 1

/** How a container is created. One of `bundle`, `spec_json` and `image` has to be set. */
struct locule_create_opts {
    /** sizeof(struct locule_create_opts). */
    size_t size;
    /** LOCULE_CREATE_*. */
    uint64_t flags;
    /** The id: letters, digits and any of _+-. , at most 1024. NULL: one is invented. */
    const char *id;
    /**
     * The bundle: a directory with config.json. With `spec_json` only the directory from
     * which relative paths are taken; NULL is then the current directory.
     */
    const char *bundle;
    /** The text of config.json, in place of the bundle's. */
    const void *spec_json;
    /** Its length in bytes. */
    size_t spec_json_len;
    /** Standard input, output and error. Default: /dev/null. */
    struct locule_stdio stdio[3];
    /** One of LOCULE_PARENTAGE_*. */
    uint32_t parentage;
    /**
     * How long creation may take, in milliseconds. 0: 60 seconds, beside what unpacking an image
     * takes.
     */
    uint32_t timeout_ms;
    /** Descriptors that become 3, 4, ... in the program; borrowed for the call. */
    const int *pass_fds;
    /** How many there are. */
    size_t pass_fd_count;
    /** Stops the call. May be NULL. */
    locule_cancel *cancel;
    /**
     * NULL, or a connected AF_UNIX socket, borrowed for the call, over which the listener of the
     * seccomp filter goes to the caller instead of to `listenerPath`, in one message with the
     * container process state. Its other end has to be served while this call and the start block:
     * what they wait for may be the answer to a notification. Feature "seccomp-listener".
     */
    const int *seccomp_listener;
    /**
     * With LOCULE_CREATE_ROOTFS_OVERLAY: further read-only layers beneath `root.path`, the topmost
     * first; at most 499. They are layers as overlayfs has them, where a character device 0, 0
     * hides what has its name further down. Feature "rootfs-layers".
     */
    const char *const *lower;
    /** How many there are. */
    size_t lower_count;
    /**
     * With LOCULE_CREATE_ROOTFS_OVERLAY: NULL, or a directory that takes the container's changes,
     * in its `upper`, and keeps them when the container is deleted; a container that is created
     * with it again finds them. Made if missing, as the container's root's own. It has to be on a
     * filesystem that can take an overlay's changes, which an overlay cannot, and is for one
     * container at a time: what two see that share it is undefined. Feature "rootfs-layers".
     */
    const char *changes;
    /**
     * NULL, or an image in place of a bundle: its configuration becomes a config.json, its layers,
     * unpacked once, the root, below a private overlay. `bundle` and `spec_json` are NULL then.
     * The store keeps what the container needs, unless it was opened read-only. What is not
     * unpacked yet, which locule_image_prepare sees to, is first. Feature "images".
     */
    const locule_image *image;
    /**
     * With `image`: what is to be other than the image has it, a JSON object; docs/images.md has
     * its members, such as {"args": ["ls"], "env": ["A=1"]}. NULL: nothing.
     */
    const void *image_overrides_json;
    /** Its length in bytes. */
    size_t image_overrides_json_len;
};

/** How another process is run in a container. */
struct locule_exec_opts {
    /** sizeof(struct locule_exec_opts). */
    size_t size;
    /** None yet: 0. */
    uint64_t flags;
    /**
     * JSON of a `process` object as in config.json. Only `args` is required; what is absent
     * is as for the container's first process.
     */
    const void *process_json;
    /** Its length in bytes. */
    size_t process_json_len;
    /** Standard input, output and error. Default: /dev/null. */
    struct locule_stdio stdio[3];
    /** How long the start may take, in milliseconds. 0: 60 seconds. */
    uint32_t timeout_ms;
    /** 0. */
    uint32_t reserved;
    /** Descriptors that become 3, 4, ... in the program; borrowed for the call. */
    const int *pass_fds;
    /** How many there are. */
    size_t pass_fd_count;
    /** Stops the call. May be NULL. */
    locule_cancel *cancel;
    /**
     * NULL, or a connected AF_UNIX socket, borrowed for the call, over which the listener of the
     * seccomp filter goes to the caller instead of to `listenerPath`, in one message with the
     * container process state. Its other end has to be served while this call blocks:
     * what it waits for may be the answer to a notification. Feature "seccomp-listener".
     */
    const int *seccomp_listener;
};

/** What to be told of. All but `size` and `kind` are for LOCULE_WATCH_PRESSURE and else 0. */
struct locule_watch_opts {
    /** sizeof(struct locule_watch_opts). */
    size_t size;
    /** 0 or LOCULE_WATCH_FULL. */
    uint64_t flags;
    /** One of LOCULE_WATCH_*. */
    uint32_t kind;
    /** What they wait for: one of LOCULE_RESOURCE_*. */
    uint32_t resource;
    /** How long is too long: the time of waiting within a window, added up, in microseconds. */
    uint64_t stall_us;
    /**
     * The window, 500,000 to 10,000,000 microseconds. For an ordinary user a multiple of two
     * seconds. There is one event in a window at most.
     */
    uint64_t window_us;
};

/**
 * Creates a container and stores it in *out; the caller owns that reference. Everything is
 * set up and the program waits for locule_container_start. A call that fails leaves nothing
 * behind.
 *
 * Any thread. Blocks until the container is set up, its hooks included, and before that until its
 * image is unpacked, if it is not yet. Fails with any category; the error names the stage, the
 * step and the place in config.json. Since 0.1.
 */
int locule_container_create(locule_runtime *runtime,
                            const struct locule_create_opts *opts,
                            locule_container **out,
                            locule_error **err);

/**
 * Opens the container with this id, created by whichever process, and stores it in *out; the
 * caller owns that reference.
 *
 * Any thread. Does not block. Fails with LOCULE_E_INVALID, LOCULE_E_NOT_FOUND,
 * LOCULE_E_PERMISSION, LOCULE_E_SYSTEM. Since 0.1.
 */
int locule_container_open(locule_runtime *runtime,
                          const char *id,
                          locule_container **out,
                          locule_error **err);

/**
 * The container's id. Borrowed from the container. NULL for NULL.
 *
 * Any thread. Does not block. Since 0.1.
 */
const char *locule_container_id(const locule_container *container);

/**
 * Stores the container's first process in *out; the caller owns that reference.
 *
 * Any thread. Does not block. Fails with LOCULE_E_INVALID. Since 0.1.
 */
int locule_container_init(const locule_container *container,
                          locule_process **out,
                          locule_error **err);

/**
 * Lets the program run. Returns once it has been executed. `cancel` may be NULL.
 *
 * Any thread. Blocks until the program has been executed. Fails with LOCULE_E_INVALID,
 * LOCULE_E_STATE if it is not waiting for this, LOCULE_E_PROGRAM, LOCULE_E_HOOK,
 * LOCULE_E_CANCELLED, LOCULE_E_KEEPER, LOCULE_E_SYSTEM. Since 0.1.
 */
int locule_container_start(locule_container *container,
                           locule_cancel *cancel,
                           locule_error **err);

/**
 * Runs another process in the container and stores it in *out; the caller owns that
 * reference. Returns once its program has been executed.
 *
 * Any thread. Blocks until the program has been executed. Fails with LOCULE_E_INVALID,
 * LOCULE_E_SPEC, LOCULE_E_STATE if the container does not run, LOCULE_E_PROGRAM,
 * LOCULE_E_TIMEOUT, LOCULE_E_CANCELLED, LOCULE_E_KEEPER, LOCULE_E_SYSTEM. Since 0.1.
 */
int locule_container_exec(locule_container *container,
                          const struct locule_exec_opts *opts,
                          locule_process **out,
                          locule_error **err);

/**
 * Sends a signal to the container's first process, or with LOCULE_SIGNAL_ALL in `flags` to
 * every process in it.
 *
 * Any thread. Does not block. Fails with LOCULE_E_INVALID, LOCULE_E_UNSUPPORTED,
 * LOCULE_E_STATE if it is stopped, LOCULE_E_PERMISSION, LOCULE_E_SYSTEM. Since 0.1.
 */
int locule_container_signal(locule_container *container,
                            int signal,
                            uint64_t flags,
                            locule_error **err);

/**
 * Freezes every process of the container. Needs a cgroup with a freezer.
 *
 * Any thread. Blocks until all are frozen. Fails with LOCULE_E_INVALID, LOCULE_E_STATE,
 * LOCULE_E_UNSUPPORTED, LOCULE_E_PERMISSION, LOCULE_E_SYSTEM. Since 0.1.
 */
int locule_container_pause(locule_container *container, locule_error **err);

/**
 * Thaws what locule_container_pause froze.
 *
 * Any thread. Blocks until all are thawed. Fails like locule_container_pause. Since 0.1.
 */
int locule_container_resume(locule_container *container, locule_error **err);

/**
 * Changes the container's resource limits: `json` is `len` bytes of a `linux.resources`
 * object as in config.json; what is absent stays as it is.
 *
 * Any thread. Does not block, but for systemd's answer with LOCULE_CGROUPS_SYSTEMD. Fails with
 * LOCULE_E_INVALID, LOCULE_E_SPEC, LOCULE_E_STATE, LOCULE_E_UNSUPPORTED, LOCULE_E_PERMISSION,
 * LOCULE_E_SYSTEM. Since 0.1.
 */
int locule_container_update_json(locule_container *container,
                                 const void *json,
                                 size_t len,
                                 locule_error **err);

/**
 * Has locule_runtime_dispatch of the container's runtime tell, from now on, when this happens,
 * until the container is gone or the host has given back its last reference to this handle.
 * What is watched for already is not told twice.
 *
 * Any thread. Does not block. Fails with LOCULE_E_INVALID, LOCULE_E_NOT_FOUND,
 * LOCULE_E_UNSUPPORTED, LOCULE_E_PERMISSION, LOCULE_E_RESOURCE, LOCULE_E_SYSTEM. Since 0.1.
 */
int locule_container_watch(locule_container *container,
                           const struct locule_watch_opts *opts,
                           locule_error **err);

/**
 * Stores in *out what the container uses, as a JSON object. The caller frees it with
 * locule_buf_free.
 *
 * Any thread. Does not block. Fails with LOCULE_E_INVALID, LOCULE_E_STATE,
 * LOCULE_E_UNSUPPORTED, LOCULE_E_SYSTEM. Since 0.1.
 */
int locule_container_stats_json(locule_container *container,
                                locule_buf *out,
                                locule_error **err);

/**
 * Stores in *out a JSON array of the pids of every process in the container, as the calling
 * process sees them. The caller frees it with locule_buf_free.
 *
 * Any thread. Does not block. Fails with LOCULE_E_INVALID, LOCULE_E_STATE,
 * LOCULE_E_UNSUPPORTED, LOCULE_E_SYSTEM. Since 0.1.
 */
int locule_container_pids_json(locule_container *container,
                               locule_buf *out,
                               locule_error **err);

/**
 * Stores in *out the state document (runtime-spec, runtime.md) as JSON, with runc's `rootfs`,
 * `created` and `owner`. The caller frees it with locule_buf_free.
 *
 * Any thread. Does not block. Fails with LOCULE_E_INVALID, LOCULE_E_NOT_FOUND if the
 * container has been deleted, LOCULE_E_SYSTEM. Since 0.1.
 */
int locule_container_state_json(locule_container *container,
                                locule_buf *out,
                                locule_error **err);

/**
 * Deletes a container that is stopped or has never been started; with LOCULE_DELETE_FORCE in
 * `flags` in any state. The handle stays valid, for its id and to be given back.
 *
 * Any thread. Blocks until all of it is gone. Fails with LOCULE_E_INVALID,
 * LOCULE_E_UNSUPPORTED, LOCULE_E_STATE if it runs, LOCULE_E_NOT_FOUND, LOCULE_E_BUSY,
 * LOCULE_E_SYSTEM. Since 0.1.
 */
int locule_container_delete(locule_container *container, uint64_t flags, locule_error **err);

/**
 * Takes another reference and returns the container. NULL gives NULL.
 *
 * Any thread. Does not block. Since 0.1.
 */
locule_container *locule_container_ref(locule_container *container);

/**
 * Gives a reference back; the last one frees the handle. The container itself goes on: see
 * locule_container_delete and LOCULE_CREATE_DETACH. NULL is ignored.
 *
 * Any thread. Does not block. Since 0.1.
 */
void locule_container_unref(locule_container *container);

/* ==========================================================================================
 * Processes: waiting, signals, pipes, terminals
 * ========================================================================================== */

/** The process has not ended. */
#define LOCULE_EXIT_NONE 0
/** The process exited: see `code`. */
#define LOCULE_EXIT_CODE 1
/** A signal killed the process: see `signal` and `core_dumped`. */
#define LOCULE_EXIT_SIGNAL 2

/**
 * The process is gone and nobody could collect its status: its keeper was killed, or it has
 * no keeper and is not the caller's child.
 */
#define LOCULE_EXIT_UNKNOWN 3

/** How a process ended. */
struct locule_exit {
    /** sizeof(struct locule_exit), set by the caller. */
    size_t size;
    /** One of LOCULE_EXIT_*. */
    uint32_t kind;
    /** With LOCULE_EXIT_CODE: the exit code, 0 to 255. Else 0. */
    int32_t code;
    /** With LOCULE_EXIT_SIGNAL: the signal. Else 0. */
    int32_t signal;
    /** With LOCULE_EXIT_SIGNAL: 1 if it left a core dump. Else 0. */
    uint32_t core_dumped;
};

/**
 * The pid as the calling process sees it: above 0, also after the process has ended.
 * LOCULE_E_INVALID for NULL.
 *
 * Any thread. Does not block. Since 0.1.
 */
int locule_process_pid(const locule_process *process);

/**
 * The descriptor to poll: readable from the moment on which the exit status is there, and it
 * stays so. Borrowed: it is closed with the process handle, and must only be polled.
 * LOCULE_E_INVALID for NULL.
 *
 * Any thread. Does not block. Since 0.1.
 */
int locule_process_fd(const locule_process *process);

/**
 * Waits until the process has ended. Returns 1 and fills *out, or returns 0 after
 * `timeout_ms` milliseconds (negative: no limit; 0: only looks). It may be called again, and
 * by several threads. `cancel` and `out` may be NULL.
 *
 * Any thread. Blocks up to the timeout. Fails with LOCULE_E_INVALID, LOCULE_E_CANCELLED,
 * LOCULE_E_SYSTEM. Since 0.1.
 */
int locule_process_wait(locule_process *process,
                        int timeout_ms,
                        locule_cancel *cancel,
                        struct locule_exit *out,
                        locule_error **err);

/**
 * Sends the process a signal.
 *
 * Any thread. Does not block. Fails with LOCULE_E_INVALID, LOCULE_E_STATE if it has ended,
 * LOCULE_E_PERMISSION. Since 0.1.
 */
int locule_process_signal(locule_process *process, int signal, locule_error **err);

/**
 * Returns the host's end of the pipe to standard stream `number` (0 to 2), made with
 * LOCULE_STDIO_PIPE. The caller owns the descriptor and closes it; closing the end of stream
 * 0 is the end of the program's input. Each can be taken once.
 *
 * Any thread. Does not block. Fails with LOCULE_E_INVALID, and with LOCULE_E_NOT_FOUND if the
 * stream is no pipe or its end has been taken. Since 0.1.
 */
int locule_process_take_pipe(locule_process *process, uint32_t number, locule_error **err);

/**
 * Returns the master of the process's terminal (`"terminal": true` in its JSON). The caller
 * owns the descriptor and closes it. It can be taken once.
 *
 * Any thread. Does not block. Fails with LOCULE_E_INVALID, and with LOCULE_E_NOT_FOUND if
 * the process has no terminal or its master has been taken. Since 0.1.
 */
int locule_process_take_terminal(locule_process *process, locule_error **err);

/**
 * Tells the process's terminal its size in characters, whether or not its master has been
 * taken.
 *
 * Any thread. Does not block. Fails with LOCULE_E_INVALID, LOCULE_E_STATE, LOCULE_E_SYSTEM.
 * Since 0.1.
 */
int locule_process_resize(locule_process *process,
                          uint16_t rows,
                          uint16_t columns,
                          locule_error **err);

/**
 * Takes another reference and returns the process. NULL gives NULL.
 *
 * Any thread. Does not block. Since 0.1.
 */
locule_process *locule_process_ref(locule_process *process);

/**
 * Gives a reference back; the last one frees the handle, its descriptor and pipe ends that
 * were not taken. The process itself goes on. NULL is ignored.
 *
 * Any thread. Does not block. Since 0.1.
 */
void locule_process_unref(locule_process *process);

/* ==========================================================================================
 * Events: what locule_runtime_dispatch reports
 * ========================================================================================== */

/** A process has ended. */
#define LOCULE_EVENT_EXITED 1
/** A container that is watched for it ran out of memory. */
#define LOCULE_EVENT_OOM 2
/** Processes of a container that is watched for it had to wait too long. */
#define LOCULE_EVENT_PRESSURE 3

/**
 * What happened, one of LOCULE_EVENT_*. 0 for NULL. A callback returns 0 for a kind that it
 * does not know: later versions may add some.
 *
 * Only in the callback. Does not block. Since 0.1.
 */
uint32_t locule_event_kind(const locule_event *event);

/**
 * The id of the container. Borrowed from the event. NULL for NULL.
 *
 * Only in the callback. Does not block. Since 0.1.
 */
const char *locule_event_container_id(const locule_event *event);

/**
 * The process. Borrowed from the event: to keep it, take a reference with
 * locule_process_ref. The handle is another one than the host has from locule_container_exec
 * or locule_container_init; the container's id and the pid tell which process it is. NULL for
 * NULL, and for an event that is not LOCULE_EVENT_EXITED.
 *
 * Only in the callback. Does not block. Since 0.1.
 */
locule_process *locule_event_process(const locule_event *event);

/**
 * Stores in *out how the process ended.
 *
 * Only in the callback. Does not block. Fails with LOCULE_E_INVALID, also for an event that is
 * not LOCULE_EVENT_EXITED. Since 0.1.
 */
int locule_event_exit(const locule_event *event, struct locule_exit *out, locule_error **err);

/**
 * How many processes of the container the kernel has killed for want of memory by now. With
 * cgroup v1 the kernel reports that memory ran out before it kills. 0 for NULL, and for an event
 * that is not LOCULE_EVENT_OOM.
 *
 * Only in the callback. Does not block. Since 0.1.
 */
uint64_t locule_event_oom_kills(const locule_event *event);

/**
 * Stores in *out what a LOCULE_EVENT_PRESSURE was watched for, as it was given to
 * locule_container_watch.
 *
 * Only in the callback. Does not block. Fails with LOCULE_E_INVALID, also for another event.
 * Since 0.1.
 */
int locule_event_pressure(const locule_event *event,
                          struct locule_watch_opts *out,
                          locule_error **err);

/* ==========================================================================================
 * Image options: how images are fetched, made, written and unpacked
 * ========================================================================================== */

/** Also the images that no container uses, named or not. */
#define LOCULE_PRUNE_ALL 1

/** gzip, which everything can read. */
#define LOCULE_COMPRESSION_GZIP 0
/** zstd: smaller and faster. Docker 23, podman and containerd 1.5 read it. */
#define LOCULE_COMPRESSION_ZSTD 1
/** None. */
#define LOCULE_COMPRESSION_NONE 2

/**
 * Unpacked files belong to whom the image says; for an ordinary user, who can have no others, to
 * the caller.
 */
#define LOCULE_OWNER_AUTO 0
/** They belong to whom the image says. */
#define LOCULE_OWNER_IMAGE 1
/** They belong to the caller. */
#define LOCULE_OWNER_CALLER 2

/** It comes into the store. */
#define LOCULE_IMAGE_STEP_FETCH 1
/** It is unpacked. The digest is the layer's, the numbers are of its compressed bytes. */
#define LOCULE_IMAGE_STEP_UNPACK 2
/** It is written to a layout or an archive. */
#define LOCULE_IMAGE_STEP_SAVE 3
/** It goes to a registry. */
#define LOCULE_IMAGE_STEP_PUSH 4
/** A layer is made of a container's changes or of a tree. */
#define LOCULE_IMAGE_STEP_PACK 5

/** How far a call is with one blob. What is there already is told once, as finished. */
struct locule_image_progress {
    /** What the library that runs has for this struct. */
    size_t size;
    /**
     * What is being done, one of LOCULE_IMAGE_STEP_*. A later version of the library may know
     * further ones.
     */
    uint32_t step;
    /** 1 when this blob is finished, else 0. */
    uint32_t finished;
    /** Its digest; empty while a layer is being made. */
    const char *digest;
    /** Bytes done. */
    uint64_t done;
    /** Bytes in all; 0 where that is not known. */
    uint64_t total;
};

/**
 * Is told how far a call is: of each blob the beginning and the end, and between them at most
 * ten times a second, on the thread that made the call. `progress` lives until the callback
 * returns. Returns 0 to go on; anything else makes the call fail with LOCULE_E_CALLBACK. It may
 * call Locule, but for images of the same store, and must return: no longjmp, no exception.
 */
typedef int (*locule_image_progress_fn)(const struct locule_image_progress *progress, void *user);

/**
 * What calls for images can be told. Each looks at the fields that name it and at those for all;
 * with another one set it fails with LOCULE_E_INVALID.
 */
struct locule_image_opts {
    /** sizeof(struct locule_image_opts). */
    size_t size;
    /** prune: 0 or LOCULE_PRUNE_ALL. Others: 0. */
    uint64_t flags;
    /**
     * The name that the image gets. load, pull: NULL takes the one that it has there; import,
     * commit: it has none; save: the name in the layout, NULL being the one by which it was
     * found.
     */
    const char *name;
    /** load: which image of several, by the name that it has there. NULL: the only one. */
    const char *from;
    /** load, pull: which of an index, as os/architecture[/variant]. NULL: this machine's. */
    const char *platform;
    /** All: is told how far it is, but by prune, which has nothing to tell. NULL: nobody is. */
    locule_image_progress_fn progress;
    /** What `progress` gets. */
    void *progress_user;
    /** All: stops the call. May be NULL. */
    locule_cancel *cancel;
    /** All: how long it may take, in milliseconds. 0: as long as it takes. */
    uint32_t timeout_ms;
    /** import, commit: of the new layer, one of LOCULE_COMPRESSION_*. */
    uint32_t compression;
    /** pull, push: the user. With a password alone that is a token. */
    const char *username;
    /** pull, push: the password. NULL: credentials are looked for in `auth_file`. */
    const char *password;
    /**
     * pull, push: where credentials are. NULL: in $REGISTRY_AUTH_FILE, then in the usual places
     * of podman and Docker.
     */
    const char *auth_file;
    /** pull, push: a file in PEM with certificates to trust beside the system's. */
    const char *ca_file;
    /**
     * pull, push: mirrors and policy, see docs/images.md. NULL: /etc/locule/registries.json, if
     * it is there.
     */
    const char *registries_file;
    /**
     * import, commit: a JSON merge patch (RFC 7396) for `config` of the image configuration, such
     * as {"Cmd": ["sh"]}.
     */
    const void *config_json;
    /** Its length in bytes. */
    size_t config_json_len;
    /** import, commit: who made it. */
    const char *author;
    /** import, commit: a remark, for its history. */
    const char *comment;
    /**
     * import, commit: when it was made, in RFC 3339, in UTC. NULL: the latest modification time
     * in its layer, so that the same input gives the same image.
     */
    const char *created;
    /** unpack: the most bytes of a layer, uncompressed. 0: 128 GiB. */
    uint64_t max_bytes;
    /** unpack: the most entries of a layer. 0: 4,000,000. */
    uint64_t max_entries;
    /**
     * unpack: how many times larger than compressed a layer may be, beyond its first 64 MiB. 0:
     * 1024.
     */
    uint64_t max_ratio;
    /** unpack: whom the files belong to, one of LOCULE_OWNER_*. */
    uint32_t owner;
    /** 0. */
    uint32_t reserved;
};

/* ==========================================================================================
 * Images: a store of them, what comes into it and what goes out
 * ========================================================================================== */

/** Change nothing: use what is there. Root may open another user's store so. */
#define LOCULE_IMAGE_STORE_READ_ONLY 1

/** How a store is opened. */
struct locule_image_store_opts {
    /** sizeof(struct locule_image_store_opts). */
    size_t size;
    /** LOCULE_IMAGE_STORE_*. */
    uint64_t flags;
    /**
     * Its directory; made if missing. NULL: /var/lib/locule/images for root, else
     * $XDG_DATA_HOME/locule/images, else ~/.local/share/locule/images.
     */
    const char *path;
};

/**
 * Opens a store and stores it in *out; the caller owns that reference. NULL for `opts` takes
 * every default. Any number of processes may use one store at once. Feature "images".
 *
 * Any thread. Does not block, but for the filesystem. Fails with LOCULE_E_INVALID,
 * LOCULE_E_NOT_FOUND, LOCULE_E_PERMISSION, LOCULE_E_RESOURCE, LOCULE_E_SYSTEM, and with
 * LOCULE_E_UNSUPPORTED where the library was built without images. Since 0.1.
 */
int locule_image_store_open(const struct locule_image_store_opts *opts,
                            locule_image_store **out,
                            locule_error **err);

/**
 * The store's directory. Borrowed from the store. NULL for NULL.
 *
 * Any thread. Does not block. Since 0.1.
 */
const char *locule_image_store_path(const locule_image_store *store);

/**
 * Takes an image from an OCI layout, a directory or a tar file, or from a docker-archive, and
 * stores it in *out; the caller owns that reference. Nothing of it is used before its digest and
 * size were found right. NULL for `opts` takes every default. Feature "images".
 *
 * Any thread. Blocks until it is in the store. Fails with LOCULE_E_INVALID, LOCULE_E_SPEC if it
 * is wrong, naming the blob, LOCULE_E_NOT_FOUND, LOCULE_E_UNSUPPORTED, LOCULE_E_STATE if the store
 * was opened read-only, LOCULE_E_CALLBACK, LOCULE_E_CANCELLED, LOCULE_E_TIMEOUT, LOCULE_E_BUSY,
 * LOCULE_E_PERMISSION, LOCULE_E_RESOURCE, LOCULE_E_SYSTEM. Since 0.1.
 */
int locule_image_store_load(locule_image_store *store,
                            const char *path,
                            const struct locule_image_opts *opts,
                            locule_image **out,
                            locule_error **err);

/**
 * Fetches an image from a registry and stores it in *out; the caller owns that reference.
 * "alpine" is "docker.io/library/alpine:latest". What the store has of it already is not fetched
 * again. NULL for `opts` takes every default. Feature "registry".
 *
 * Any thread. Blocks until it is in the store. Fails like locule_image_store_load, with
 * LOCULE_E_PERMISSION also where the registry refuses. Since 0.1.
 */
int locule_image_store_pull(locule_image_store *store,
                            const char *reference,
                            const struct locule_image_opts *opts,
                            locule_image **out,
                            locule_error **err);

/**
 * Makes an image of one layer of a root filesystem, a directory or a tar file, and stores it in
 * *out; the caller owns that reference. NULL for `opts` takes every default. Feature "images".
 *
 * Any thread. Blocks until it is in the store. Fails like locule_image_store_load. Since 0.1.
 */
int locule_image_store_import(locule_image_store *store,
                              const char *path,
                              const struct locule_image_opts *opts,
                              locule_image **out,
                              locule_error **err);

/**
 * Makes an image of the one that a stopped container was made from and what it has changed, and
 * stores it in *out; the caller owns that reference. The container must have been created with
 * `changes`. NULL for `opts` takes every default. Feature "images".
 *
 * Any thread. Blocks until it is in the store. Fails like locule_image_store_load, with
 * LOCULE_E_STATE if the container has not stopped, its changes were not kept or it was made from
 * no image, and with LOCULE_E_NOT_FOUND if that is not in this store. Since 0.1.
 */
int locule_image_store_commit(locule_image_store *store,
                              locule_container *container,
                              const struct locule_image_opts *opts,
                              locule_image **out,
                              locule_error **err);

/**
 * Stores in *out the image of this name, or with this digest, of which the first twelve
 * hexadecimal digits do; the caller owns that reference. It goes on meaning the same image when
 * its names are given to another one. Feature "images".
 *
 * Any thread. Does not block, but for the filesystem. Fails with LOCULE_E_INVALID,
 * LOCULE_E_NOT_FOUND, LOCULE_E_SPEC if it is damaged, LOCULE_E_UNSUPPORTED, LOCULE_E_SYSTEM.
 * Since 0.1.
 */
int locule_image_store_get(locule_image_store *store,
                           const char *name,
                           locule_image **out,
                           locule_error **err);

/**
 * Stores in *out all images, in the order of their names, those without one last: a JSON array of
 * objects with `digest`, `names`, `size` in bytes, compressed as they are, `mediaType`, `platform`,
 * such as "linux/amd64", and `created`, which may be null. One that is damaged is left out. The
 * caller frees it with locule_buf_free. Feature "images".
 *
 * Any thread. Does not block, but for the filesystem. Fails with LOCULE_E_INVALID,
 * LOCULE_E_PERMISSION, LOCULE_E_SYSTEM. Since 0.1.
 */
int locule_image_store_list_json(locule_image_store *store,
                                 locule_buf *out,
                                 locule_error **err);

/**
 * Takes a name away, or with a digest an image with all its names. Its blobs and layers go with
 * locule_image_store_prune_json, once no container needs them. Feature "images".
 *
 * Any thread. Does not block, but for the filesystem, and up to half a minute for something to be
 * removed from the store. Fails with LOCULE_E_INVALID, LOCULE_E_NOT_FOUND, LOCULE_E_STATE if the
 * store was opened read-only, LOCULE_E_BUSY, LOCULE_E_SYSTEM. Since 0.1.
 */
int locule_image_store_remove(locule_image_store *store,
                              const char *name,
                              locule_error **err);

/**
 * Removes images without a name, and what no image and no container needs. Stores in *out what
 * was removed: a JSON object with `images`, their digests, the numbers of `blobs` and of unpacked
 * `layers`, and `bytes`, those of the blobs. What a call that was stopped has left the next one
 * removes. NULL for `opts` takes every default. The caller frees *out with locule_buf_free.
 * Feature "images".
 *
 * Any thread. Blocks until it is removed, and before that up to half a minute for those who are
 * making something. Fails with LOCULE_E_INVALID, LOCULE_E_UNSUPPORTED, LOCULE_E_BUSY if they take
 * longer, LOCULE_E_STATE if the store was opened read-only, LOCULE_E_CANCELLED, LOCULE_E_TIMEOUT,
 * LOCULE_E_PERMISSION, LOCULE_E_SYSTEM. Since 0.1.
 */
int locule_image_store_prune_json(locule_image_store *store,
                                  const struct locule_image_opts *opts,
                                  locule_buf *out,
                                  locule_error **err);

/**
 * Takes another reference and returns the store. NULL gives NULL.
 *
 * Any thread. Does not block. Since 0.1.
 */
locule_image_store *locule_image_store_ref(locule_image_store *store);

/**
 * Gives a reference back; the last one frees the handle. Images from it go on. NULL is ignored.
 *
 * Any thread. Does not block. Since 0.1.
 */
void locule_image_store_unref(locule_image_store *store);

/**
 * The digest of the image's manifest, such as "sha256:9f86...". Borrowed from the image. NULL for
 * NULL.
 *
 * Any thread. Does not block. Since 0.1.
 */
const char *locule_image_digest(const locule_image *image);

/**
 * Stores in *out what the image is: a JSON object with `digest`, `names` as they were when it was
 * looked up, `size`, `mediaType`, `platform`, `created`, `layers` (each with `digest`, `size`,
 * `mediaType` and `diffId`), `config`, which is the image configuration, and `manifest`. The
 * caller frees it with locule_buf_free.
 *
 * Any thread. Does not block, but for the filesystem. Fails with LOCULE_E_INVALID,
 * LOCULE_E_NOT_FOUND if it has been pruned, LOCULE_E_SPEC if it is damaged, LOCULE_E_SYSTEM.
 * Since 0.1.
 */
int locule_image_inspect_json(const locule_image *image,
                              locule_buf *out,
                              locule_error **err);

/**
 * Gives the image a further name, taking that from the image that has it.
 *
 * Any thread. Does not block, but for the filesystem, and up to half a minute for something to be
 * removed from the store. Fails with LOCULE_E_INVALID,
 * LOCULE_E_NOT_FOUND if it has been pruned, LOCULE_E_STATE if the store was opened read-only,
 * LOCULE_E_BUSY, LOCULE_E_RESOURCE, LOCULE_E_SYSTEM. Since 0.1.
 */
int locule_image_tag(locule_image *image,
                     const char *name,
                     locule_error **err);

/**
 * Writes the image to an OCI layout: a tar file if `path` ends with ".tar", else a directory, to
 * whose images it is added. NULL for `opts` takes every default.
 *
 * Any thread. Blocks until it is written. Fails with LOCULE_E_INVALID, LOCULE_E_NOT_FOUND,
 * LOCULE_E_SPEC if it or the layout is damaged, LOCULE_E_CALLBACK, LOCULE_E_CANCELLED,
 * LOCULE_E_TIMEOUT, LOCULE_E_BUSY, LOCULE_E_PERMISSION, LOCULE_E_RESOURCE, LOCULE_E_SYSTEM.
 * Since 0.1.
 */
int locule_image_save(locule_image *image,
                      const char *path,
                      const struct locule_image_opts *opts,
                      locule_error **err);

/**
 * Sends the image to a registry, under this name there. What the registry has of it already is
 * not sent again. NULL for `opts` takes every default. Feature "registry".
 *
 * Any thread. Blocks until the registry has it. Fails like locule_image_save, with
 * LOCULE_E_PERMISSION also where the registry refuses, and with LOCULE_E_UNSUPPORTED where the
 * library was built without registries. Since 0.1.
 */
int locule_image_push(locule_image *image,
                      const char *reference,
                      const struct locule_image_opts *opts,
                      locule_error **err);

/**
 * Unpacks the image to a new or empty directory, as a plain tree. Nothing of it leaves that
 * directory. What fails may leave a part of it there. NULL for `opts` takes every default. A
 * container needs no such tree: see `image` of struct locule_create_opts.
 *
 * Any thread. Blocks until it is unpacked. Fails like locule_image_save, with LOCULE_E_EXISTS if
 * the directory is not empty, and with LOCULE_E_RESOURCE also beyond a limit, which the message
 * names. Since 0.1.
 */
int locule_image_unpack(locule_image *image,
                        const char *dir,
                        const struct locule_image_opts *opts,
                        locule_error **err);

/**
 * Unpacks into the image's store what a container of it needs, so that its creation need not.
 * `overrides_json` is what locule_container_create will get as `image_overrides_json`, as layers
 * are unpacked for each user namespace of their own, and without an overlay not at all; NULL:
 * nothing. What is there already is left as it is. NULL for `opts` takes every default.
 *
 * Any thread. Blocks until it is unpacked. Fails like locule_image_save, with LOCULE_E_RESOURCE
 * also beyond a limit, which the message names. Since 0.1.
 */
int locule_image_prepare(locule_image *image,
                         const void *overrides_json,
                         size_t overrides_json_len,
                         const struct locule_image_opts *opts,
                         locule_error **err);

/**
 * Takes another reference and returns the image. NULL gives NULL.
 *
 * Any thread. Does not block. Since 0.1.
 */
locule_image *locule_image_ref(locule_image *image);

/**
 * Gives a reference back; the last one frees the handle. The image stays in its store: see
 * locule_image_store_remove. NULL is ignored.
 *
 * Any thread. Does not block. Since 0.1.
 */
void locule_image_unref(locule_image *image);

/* ==========================================================================================
 * Plugins: what sees, changes or refuses a container at stages of its life
 * ========================================================================================== */

/** The plugin may change what plugins before it have changed. Otherwise that is refused. */
#define LOCULE_PLUGIN_OVERRIDE 1
/** No container is created while the plugin is disabled, and none for which it fails. */
#define LOCULE_PLUGIN_REQUIRED 2

/**
 * When the plugin fails, so does what it was called for, where it can be refused; elsewhere as
 * LOCULE_ON_FAILURE_SKIP.
 */
#define LOCULE_ON_FAILURE_FAIL 0

/**
 * When the plugin fails, it is as if it had not been called: what it has changed in that call is
 * undone.
 */
#define LOCULE_ON_FAILURE_SKIP 1
/** As LOCULE_ON_FAILURE_SKIP, and the runtime does not call it again. */
#define LOCULE_ON_FAILURE_DISABLE 2

/**
 * Gets a call at a stage of a container's life, on the thread that made the call of Locule
 * which led to it. `call` lives until the callback returns. Returns 0 to agree, after it has
 * perhaps asked for adjustments; for anything else the container's stage is refused, with what
 * locule_plugin_call_refuse was given. locule_plugin_call_fail says that the plugin has failed
 * instead, which means what `on_failure` says. Either counts whatever is returned.
 *
 * It may call Locule, for other containers than that of the call, but must return: no longjmp, no
 * exception. What it waits for, the caller waits for.
 */
typedef int (*locule_plugin_fn)(locule_plugin_call *call, void *user);

/** A plugin that is a callback of the host. `handle` or `judge` has to be set, or both. */
struct locule_plugin_opts {
    /** sizeof(struct locule_plugin_opts). */
    size_t size;
    /** LOCULE_PLUGIN_*. */
    uint64_t flags;
    /** Its name: letters, digits and any of _.- , at most 64. No two of a runtime have the same. */
    const char *name;
    /**
     * The stages at which `handle` is called, ending with NULL: "create", "created", "start",
     * "started", "exec", "update", "pause", "resume", "kill", "stopped", "delete". Adjustments
     * are for "create", "exec" and "update". "create", "start", "exec", "update", "pause" and
     * "resume" can be refused; elsewhere what the callback says changes nothing.
     */
    const char *const *stages;
    /**
     * Plugins with lower ones are called first; of equal ones the names decide. At "created",
     * "started", "stopped" and "delete" the order is the other way round.
     */
    int32_t priority;
    /** What becomes of a container when the plugin fails, one of LOCULE_ON_FAILURE_*. */
    uint32_t on_failure;
    /** Called at `stages`. */
    locule_plugin_fn handle;
    /**
     * Called when all plugins have adjusted a container that is about to be created: what it
     * refuses is not created. A plugin with it may adjust nothing.
     */
    locule_plugin_fn judge;
    /** What the callbacks get. They may be called on several threads at once, if the host is. */
    void *user;
    /**
     * Called with `user` once nothing will use it any more, on the thread that gave back the last
     * reference to the plugin, or to a runtime with it and what belongs to that. May be NULL.
     */
    void (*release)(void *user);
};

/**
 * Makes a plugin of a callback and stores it in *out; the caller owns that reference. It is
 * called by the runtimes it is given to. Once `opts` is not NULL and its size is right, `release`
 * is called exactly once, also when this call fails. Feature "plugins".
 *
 * Any thread. Does not block. Fails with LOCULE_E_INVALID, LOCULE_E_UNSUPPORTED. Since 0.1.
 */
int locule_plugin_new(const struct locule_plugin_opts *opts,
                      locule_plugin **out,
                      locule_error **err);

/**
 * Loads a Wasm plugin and stores it in *out; the caller owns that reference. `json` says which
 * file, what the plugin may do and how it is to be called; docs/plugins.md has its members.
 * Relative paths in it are taken from `base_dir`, NULL being the current directory. Feature
 * "wasm-plugins".
 *
 * Any thread. Blocks while the component is compiled, which is done once for each. Fails with
 * LOCULE_E_INVALID, LOCULE_E_NOT_FOUND, LOCULE_E_PERMISSION, LOCULE_E_PLUGIN, LOCULE_E_RESOURCE,
 * LOCULE_E_SYSTEM, and with LOCULE_E_UNSUPPORTED where the library was built without Wasm.
 * Since 0.1.
 */
int locule_plugin_load(const void *json,
                       size_t json_len,
                       const char *base_dir,
                       locule_plugin **out,
                       locule_error **err);

/**
 * Stores in *out what the Wasm component in this file is, without running it: JSON with its
 * digest, its size, the powers it asks for and what it offers. The caller frees it with
 * locule_buf_free. Feature "wasm-plugins".
 *
 * Any thread. Does not block, but for the filesystem. Fails with LOCULE_E_INVALID,
 * LOCULE_E_NOT_FOUND, LOCULE_E_PERMISSION, LOCULE_E_PLUGIN, LOCULE_E_SYSTEM, and with
 * LOCULE_E_UNSUPPORTED where the library was built without Wasm. Since 0.1.
 */
int locule_plugin_inspect_json(const char *path, locule_buf *out, locule_error **err);

/**
 * Stores in *out what a plugin is: a JSON object with `name`, `stages`, `judges`, `priority`,
 * `onFailure`, `onFailureAt`, `override` and `required`. The caller frees it with
 * locule_buf_free.
 *
 * Any thread. Does not block. Fails with LOCULE_E_INVALID. Since 0.1.
 */
int locule_plugin_describe_json(const locule_plugin *plugin,
                                locule_buf *out,
                                locule_error **err);

/**
 * Takes another reference and returns the plugin. NULL gives NULL.
 *
 * Any thread. Does not block. Since 0.1.
 */
locule_plugin *locule_plugin_ref(locule_plugin *plugin);

/**
 * Gives a reference back. Runtimes that were given the plugin keep theirs. NULL is ignored.
 *
 * Any thread. Does not block, but for `release`. Since 0.1.
 */
void locule_plugin_unref(locule_plugin *plugin);

/* ==========================================================================================
 * Plugin calls: what a plugin's callback can learn and ask for
 * ========================================================================================== */

/**
 * The stage: "create", "exec" and so on. For `judge` it is "create". Borrowed from the call. NULL
 * for NULL.
 *
 * Only in the callback. Does not block. Since 0.1.
 */
const char *locule_plugin_call_stage(const locule_plugin_call *call);

/**
 * The id of the container. Borrowed from the call. NULL for NULL.
 *
 * Only in the callback. Does not block. Since 0.1.
 */
const char *locule_plugin_call_container_id(const locule_plugin_call *call);

/**
 * The directory of the container's bundle, absolute. Borrowed from the call. NULL for NULL.
 *
 * Only in the callback. Does not block. Since 0.1.
 */
const char *locule_plugin_call_bundle(const locule_plugin_call *call);

/**
 * The pid of the container's first process as the host sees it; 0 while there is none, and for
 * NULL.
 *
 * Only in the callback. Does not block. Since 0.1.
 */
int locule_plugin_call_pid(const locule_plugin_call *call);

/**
 * What is special about the stage, by name: at "kill" "signal" and "all" ("true" or "false"), at
 * "stopped" "exit-code" or "signal", at "exec" "container-pid". Borrowed from the call. NULL if
 * there is none of this name.
 *
 * Only in the callback. Does not block. Since 0.1.
 */
const char *locule_plugin_call_detail(const locule_plugin_call *call,
                                      const char *name);

/**
 * Stores in *out a part of the container's configuration, as the plugins so far have made it:
 * JSON of what is at `pointer`, a JSON pointer such as "/process/env"; "" for all of it. At
 * "exec" "/process" is the process to run, at "update" "/linux/resources" are the new limits.
 * The caller frees it with locule_buf_free.
 *
 * Only in the callback. Does not block. Fails with LOCULE_E_INVALID, and with LOCULE_E_NOT_FOUND
 * if nothing is there. Since 0.1.
 */
int locule_plugin_call_get_json(const locule_plugin_call *call,
                                const char *pointer,
                                locule_buf *out,
                                locule_error **err);

/**
 * Stores in *out what plugins have changed so far in this stage: a JSON array of objects with
 * `plugin`, `stage`, `adjustment`, `pointer`, and `before` and `after` where something was or is
 * there. The caller frees it with locule_buf_free.
 *
 * Only in the callback. Does not block. Fails with LOCULE_E_INVALID. Since 0.1.
 */
int locule_plugin_call_changes_json(const locule_plugin_call *call,
                                    locule_buf *out,
                                    locule_error **err);

/**
 * Changes the configuration: {"adjust": "set-env", "name": "HOME", "value": "/root"}.
 * docs/plugins.md has all adjustments and their members. It takes effect if every plugin and the
 * configuration as a whole agree.
 *
 * Only in the callback. Does not block. Changes nothing if it fails: with LOCULE_E_BUSY where
 * another plugin has changed the same place and this one may not override that; with
 * LOCULE_E_STATE where this stage, or a plugin that judges, may not change it; with
 * LOCULE_E_INVALID for what is no adjustment or makes no sense. Since 0.1.
 */
int locule_plugin_call_adjust_json(locule_plugin_call *call,
                                   const void *json,
                                   size_t json_len,
                                   locule_error **err);

/**
 * Refuses the stage. `code` is a number of the plugin's own, or 0; `message` says for people what
 * is wrong. Returns 1, or LOCULE_E_INVALID if `call` is NULL, so that the callback can return
 * what this returns.
 *
 * Only in the callback. Does not block. Since 0.1.
 */
int locule_plugin_call_refuse(locule_plugin_call *call,
                              uint32_t code,
                              const char *message);

/**
 * Says that the plugin itself has failed; `message` says for people how. Returns what
 * locule_plugin_call_refuse does.
 *
 * Only in the callback. Does not block. Since 0.1.
 */
int locule_plugin_call_fail(locule_plugin_call *call, const char *message);

#ifdef __cplusplus
}
#endif

#endif /* LOCULE_H */
