/* What stands in a p2pos_problem. */
#ifndef P2POS_ERRORS_H
#define P2POS_ERRORS_H

#include "codec.h"

#if defined(__GNUC__)
#define P2POS_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define P2POS_PRINTF(text, first)
#endif

/* Fills a problem in: code, message, the registry's hint. Returns the code. */
int p2pos_problem_set(p2pos_problem *problem, int code, const char *format, ...) P2POS_PRINTF(3, 4);

/* Fills a problem in from what a daemon said; `details` are collected by p2pos_problem_add_detail. Returns the code. */
int p2pos_problem_read(p2pos_problem *problem, uint64_t code, struct p2pos_view message, struct p2pos_view hint,
                       uint64_t retry_after_ms);

/* One line more in `details`, if it fits whole. `context` is a p2pos_problem, `item` a struct p2pos_view: fits p2pos_list.each. */
void p2pos_problem_add_detail(void *context, const void *item);

#endif
