/* Links Locule's static library and another Rust one into one program. */

#include "locule.h"

int beside(void);

int main(void)
{
    locule_error *err;
    int result = locule_runtime_new(NULL, NULL, &err);
    locule_error_unref(err);
    return result == LOCULE_E_INVALID && beside() > 0 ? 0 : 1;
}
