/* The header compiles as strict C99 and as C++17, and may be included twice. */

#include "locule.h"
#include "locule.h"

int use_of_the_header(void)
{
    LOCULE_OPTS(locule_create_opts, create);
    LOCULE_OPTS(locule_exit, status);
#ifndef __cplusplus
    LOCULE_OPTS(locule_exec_opts, exec, .stdio = {{LOCULE_STDIO_PIPE, 0}}, .timeout_ms = 5);
    if (exec.size != sizeof exec || exec.stdio[1].kind != LOCULE_STDIO_NULL)
        return 1;
#endif
    create.flags = LOCULE_CREATE_DETACH | LOCULE_CREATE_ROOTFS_OVERLAY;
    return create.size == sizeof create && status.kind == 0 ? 0 : 2 - LOCULE_E_BUG;
}
