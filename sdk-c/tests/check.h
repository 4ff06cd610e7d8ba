/* The smallest test runner that serves: CHECK says where it fails and goes on, a test is a function, main lists them. */
#ifndef P2POS_TESTS_CHECK_H
#define P2POS_TESTS_CHECK_H

#include <stdio.h>

static int check_failures;

#define CHECK(condition)                                                         \
    do {                                                                         \
        if (!(condition)) {                                                      \
            check_failures++;                                                    \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
        }                                                                        \
    } while (0)

#define RUN(test)                                                      \
    do {                                                               \
        int before = check_failures;                                   \
        test();                                                        \
        printf("%s %s\n", check_failures == before ? "ok  " : "FAIL", #test); \
    } while (0)

#endif
