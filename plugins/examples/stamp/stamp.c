/* Stamps containers: at `create` it writes its configuration, a string, into an annotation, and it
 * limits the files that the program may have open.
 *
 * What an import returns and what an export is given belongs to the plugin, which frees it; what an
 * export returns belongs to the host. */

#include <stdlib.h>
#include <string.h>

#include "gen/plugin.h"

typedef plugin_string_t string;
typedef exports_locule_plugin_lifecycle_registration_t registration;
typedef exports_locule_plugin_lifecycle_failure_t failure;
typedef exports_locule_plugin_lifecycle_stage_t stage;
typedef exports_locule_plugin_lifecycle_container_t container;
typedef locule_plugin_types_refusal_t refusal;

#define LITERAL(text) ((string){(uint8_t *)(text), sizeof(text) - 1})

static bool equal(string one, string other)
{
    return one.len == other.len && memcmp(one.ptr, other.ptr, one.len) == 0;
}

/* Both return false, which tells the host that there is a failure. */
static bool fail(failure *failure, string what, string why)
{
    failure->code = 0;
    failure->message.len = what.len + why.len;
    failure->message.ptr = malloc(failure->message.len);
    if (failure->message.ptr == NULL)
        abort();
    memcpy(failure->message.ptr, what.ptr, what.len);
    memcpy(failure->message.ptr + what.len, why.ptr, why.len);
    return false;
}

static bool fail_for(failure *failure, string what, refusal *refusal)
{
    switch (refusal->tag) {
    case LOCULE_PLUGIN_TYPES_REFUSAL_CONFLICT:
        fail(failure, what, LITERAL("another plugin has set it"));
        break;
    case LOCULE_PLUGIN_TYPES_REFUSAL_DENIED:
        fail(failure, what, refusal->val.denied);
        break;
    case LOCULE_PLUGIN_TYPES_REFUSAL_INVALID:
        fail(failure, what, refusal->val.invalid);
        break;
    }
    locule_plugin_types_refusal_free(refusal);
    return false;
}

/* The configuration, and the stamp, which is a part of it: the string's text, or `stamped` for null.
 * This plugin has no parser, and takes no string with escapes. */
static bool read_stamp(string *config, string *stamp, failure *failure)
{
    locule_plugin_config_get(config);
    if (equal(*config, LITERAL("null"))) {
        *stamp = LITERAL("stamped");
        return true;
    }
    if (config->len >= 2 && config->ptr[0] == '"' && config->ptr[config->len - 1] == '"'
        && memchr(config->ptr, '\\', config->len) == NULL) {
        *stamp = (string){config->ptr + 1, config->len - 2};
        return true;
    }
    plugin_string_free(config);
    return fail(failure, LITERAL("the configuration is "),
                LITERAL("neither null nor a string without escapes"));
}

static bool adjust(string stamp, failure *failure)
{
    refusal refusal;

    if (!locule_plugin_adjust_annotations_set(&LITERAL("org.locule.stamp"), &stamp, &refusal))
        return fail_for(failure, LITERAL("cannot set the annotation org.locule.stamp: "), &refusal);
    if (!locule_plugin_adjust_rlimits_set(&LITERAL("RLIMIT_NOFILE"), &LITERAL("1024"),
                                          &LITERAL("4096"), &refusal))
        return fail_for(failure, LITERAL("cannot set RLIMIT_NOFILE: "), &refusal);
    return true;
}

bool exports_locule_plugin_lifecycle_configure(registration *registration, failure *failure)
{
    string config, stamp;

    if (!read_stamp(&config, &stamp, failure))
        return false;
    plugin_string_free(&config);

    registration->stages.len = 1;
    registration->stages.ptr = malloc(sizeof(stage));
    if (registration->stages.ptr == NULL)
        abort();
    plugin_string_dup(registration->stages.ptr, "create");
    return true;
}

/* It is called for `create` alone, which is all that it has registered for. */
bool exports_locule_plugin_lifecycle_handle(stage *stage, container *container, failure *failure)
{
    string config, stamp;
    bool adjusted;

    locule_plugin_types_stage_free(stage);
    locule_plugin_types_container_free(container);
    if (!read_stamp(&config, &stamp, failure))
        return false;
    adjusted = adjust(stamp, failure);
    plugin_string_free(&config);
    return adjusted;
}

/* The bindings want an object that holds the type of the world. The linker reads that from wit/. */
void __component_type_object_force_link_plugin(void) {}
