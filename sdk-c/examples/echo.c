/* Sends back what comes, on as many streams as peers open: a plugin with one loop and no thread.
 *
 * What to learn here: take events until there is none, then poll. A stream that cannot be written to is not read from: so a peer that does
 * not read its echo stops only itself, and we keep at most one buffer for each stream. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <p2pos/p2pos.h>

#define PROTOCOL "/echo-c/1"
#define EXIT_CONFIG 78 /* sysexits.h EX_CONFIG: starting again would not help */

/* What was read and not written back yet. All of them are in a list, to be freed at the end. */
struct echo {
    struct echo *next;
    struct echo **before;
    char bytes[P2POS_READ_BYTES];
    size_t from;
    size_t to;
};

static struct echo *all;

static struct echo *begin(void) {
    struct echo *echo = calloc(1, sizeof *echo);
    if (echo != NULL) {
        echo->next = all;
        echo->before = &all;
        if (all != NULL) {
            all->before = &echo->next;
        }
        all = echo;
    }
    return echo;
}

static void end(struct echo *echo) {
    *echo->before = echo->next;
    if (echo->next != NULL) {
        echo->next->before = echo->before;
    }
    free(echo);
}

/* Reads and writes until one of the two has to wait, or the stream is over. */
static void pump(p2pos_client *client, p2pos_stream stream, struct echo *echo) {
    for (;;) {
        size_t count = 0;
        int code;
        if (echo->from == echo->to) {
            echo->from = 0;
            code = p2pos_read(client, stream, echo->bytes, sizeof echo->bytes, &echo->to, 0);
        } else {
            code = p2pos_write(client, stream, echo->bytes + echo->from, echo->to - echo->from, &count, 0);
            echo->from += count;
        }
        if (code == P2POS_ERR_NOT_YET) {
            return; /* an event will tell when it goes on */
        }
        if (code != P2POS_OK || echo->to == 0) {
            end(echo);
            p2pos_release(client, stream); /* writes the end, if they wrote theirs */
            return;
        }
    }
}

static void take(p2pos_client *client) {
    p2pos_stream stream;
    while (p2pos_accept(client, PROTOCOL, &stream, NULL, 0) == P2POS_OK) {
        struct echo *echo = begin();
        if (echo == NULL) {
            p2pos_reset(client, stream, 1);
            p2pos_release(client, stream);
            continue;
        }
        p2pos_set_user(client, stream, echo);
        pump(client, stream, echo);
    }
}

/* Returns 0 to go on, or why not. */
static int handle(p2pos_client *client, p2pos_event event) {
    struct echo *echo = p2pos_user(client, event.stream);
    switch (event.kind) {
    case P2POS_EVENT_OFFER:
        take(client);
        return P2POS_OK;
    case P2POS_EVENT_READABLE:
    case P2POS_EVENT_WRITABLE:
        if (echo != NULL) {
            pump(client, event.stream, echo);
        }
        return P2POS_OK;
    case P2POS_EVENT_SHUTDOWN:
        return P2POS_ERR_SHUTTING_DOWN;
    case P2POS_EVENT_ENDED:
        return event.code;
    default:
        return P2POS_OK;
    }
}

static int serve(p2pos_client *client) {
    struct pollfd wait = {p2pos_fd(client), POLLIN, 0};
    for (;;) {
        p2pos_event event;
        (void)p2pos_process(client); /* its end comes as an event, too */
        while ((event = p2pos_next_event(client)).kind != P2POS_EVENT_NONE) {
            int code = handle(client, event);
            if (code != P2POS_OK) {
                return code;
            }
        }
        (void)poll(&wait, 1, -1);
    }
}

int main(void) {
    p2pos_client *client;
    p2pos_problem problem;
    int code = p2pos_connect(NULL, &client, &problem);
    if (code != P2POS_OK) {
        fprintf(stderr, "error: %s\n  try: %s\n", problem.message, problem.hint);
        return code == P2POS_ERR_LAUNCH ? EXIT_CONFIG : 1;
    }
    code = p2pos_register(client, PROTOCOL, NULL, P2POS_FOREVER);
    if (code == P2POS_OK) {
        p2pos_ready(client);
        code = serve(client);
    }
    if (code != P2POS_ERR_SHUTTING_DOWN) {
        fprintf(stderr, "error: %s\n", p2pos_last_problem(client)->message);
    }
    while (all != NULL) {
        end(all);
    }
    p2pos_close(client, 1000);
    return code == P2POS_ERR_SHUTTING_DOWN ? 0 : 1;
}
