/* How a plugin finds its daemon (SPEC.md sections 2 and 11): the launch environment, or the endpoint file. Opens no socket. */
#ifndef P2POS_LAUNCH_H
#define P2POS_LAUNCH_H

#include "errors.h"

/* "unix:" and the longest path that a unix socket can have, or "tcp:127.0.0.1:PORT". */
#define P2POS_ENDPOINT_BYTES_MAX 128
#define P2POS_TOKEN_BYTES_MAX 1024
#define P2POS_SECRET_BYTES 32

struct p2pos_launch {
    char endpoint[P2POS_ENDPOINT_BYTES_MAX];
    char token[P2POS_TOKEN_BYTES_MAX]; /* wipe it after use */
    uint8_t secret[P2POS_SECRET_BYTES];
    bool has_secret;
    bool exits_with_stdin;
};

/* Options first, then the environment. Returns 0, P2POS_ERR_LAUNCH, P2POS_ERR_MISUSE or P2POS_ERR_MEMORY, and fills the problem in. */
int p2pos_launch_find(const p2pos_options *options, const p2pos_allocator *allocator, struct p2pos_launch *launch,
                      p2pos_problem *problem);

/* Takes the first endpoint and the secret out of the text of an endpoint.json. */
bool p2pos_launch_parse(const char *text, size_t size, struct p2pos_launch *launch);

#endif
