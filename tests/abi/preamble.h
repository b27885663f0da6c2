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
