/* What the C programs of this folder share: a check that says what it expected, and exit
 * status 1 at the end if one failed; and a call without which the rest makes no sense. */

#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>

static int failures;

#define CHECK(condition)                                                  \
    do {                                                                  \
        if (!(condition)) {                                               \
            printf("%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            failures++;                                                   \
        }                                                                 \
    } while (0)

/* Ends the program if the call fails, which stores its error in `err`. */
#define NEEDS(call)                                                                     \
    do {                                                                                \
        locule_error *err;                                                              \
        if ((call) < 0) {                                                               \
            printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, locule_error_message(err)); \
            exit(1);                                                                    \
        }                                                                               \
    } while (0)

#endif
