/* The agent of the conformance kit, with the C SDK: obeys orders that come on streams, one line each, and answers each with one line.
 *
 * One loop and no thread: every order stream has at most one order that waits, and whenever anything has happened each of them is tried again with
 * calls that do not wait. It never judges; it says what the library told it. Here are the order streams and the loop. */
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "agent.h"

#define ORDERS_PROTOCOL "/p2pos/conformance/1"
#define STREAM_PROTOCOL "/p2pos/conformance-stream/1"
#define REFUSED_PROTOCOL "/p2pos/conformance-refused/1"
#define DETACHED_PROTOCOL "/p2pos/conformance-detached/1"
#define DATAGRAM_PROTOCOL "/p2pos/conformance-datagram/1"
#define ORDERS_MAX 16

p2pos_client *client;
int is_leaving;

static struct order orders[ORDERS_MAX];

/* --- order streams --- */

/* Cuts the whole line into words. */
static void begin_order(struct order *order) {
    char *at = order->line;
    order->word_count = 0;
    order->rest[0] = '\0';
    while (at != NULL && order->word_count < WORDS_MAX) {
        char *space = strchr(at, ' ');
        if (order->word_count == 2) {
            snprintf(order->rest, sizeof order->rest, "%s", at);
        }
        order->words[order->word_count++] = at;
        if (space != NULL) {
            *space++ = '\0';
        }
        at = space;
    }
    order->is_busy = 1;
    order->done = order->b = 0;
    order->a = 1;
    order->from = order->to = 0;
    order->is_over = 0;
}

static void end_order_stream(struct order *order) {
    p2pos_release(client, order->stream);
    set_subject(order, NULL);
    order->stream.id = 0;
}

/* Reads one order, byte by byte, so that nothing of the next one is taken. Returns 1 if it is whole. */
static int read_order(struct order *order) {
    size_t got;
    while (order->line_bytes < LINE_BYTES_MAX) {
        int code = p2pos_read(client, order->stream, order->line + order->line_bytes, 1, &got, 0);
        if (code == P2POS_ERR_NOT_YET) {
            return 0;
        }
        if (code != P2POS_OK || got == 0) {
            end_order_stream(order);
            return 0;
        }
        if (order->line[order->line_bytes] == '\n') {
            order->line[order->line_bytes] = '\0';
            order->line_bytes = 0;
            begin_order(order);
            return 1;
        }
        order->line_bytes++;
    }
    end_order_stream(order);
    return 0;
}

/* Goes on with one order stream until it has to wait. */
static void progress(struct order *order) {
    while (order->stream.id != 0 && !is_leaving) {
        if (order->answered < order->answer_bytes) {
            size_t moved;
            int code = p2pos_write(client, order->stream, order->answer + order->answered, order->answer_bytes - order->answered, &moved, 0);
            order->answered += moved;
            if (code == P2POS_ERR_NOT_YET) {
                return;
            }
            if (code != P2POS_OK) {
                end_order_stream(order);
                return;
            }
        } else if (order->is_busy) {
            if (obey(order) == WAITS) {
                return;
            }
            order->is_busy = 0;
        } else if (!read_order(order)) {
            return;
        }
    }
}

static void take_offers(void) {
    p2pos_stream stream;
    p2pos_flow flow;
    p2pos_info info;
    int socket;
    while (p2pos_peek_offer(client, NULL, &stream, &info, 0) == P2POS_OK) {
        if (strcmp(info.protocol, REFUSED_PROTOCOL) == 0) {
            (void)p2pos_refuse(client, stream, P2POS_ERR_REFUSED, "told to refuse");
        } else if (info.kind == P2POS_KIND_FLOW) {
            if (p2pos_accept_flow(client, info.protocol, &flow, NULL, 0) == P2POS_OK) {
                (void)new_subject((p2pos_stream){flow.id}, -1);
            }
        } else if (info.kind == P2POS_KIND_DETACHED) {
            if (p2pos_accept_detached(client, info.protocol, &stream, &socket, NULL, 0) == P2POS_OK) {
                (void)new_subject(stream, socket);
            }
        } else if (p2pos_accept(client, info.protocol, &stream, NULL, 0) != P2POS_OK) {
            return;
        } else if (strcmp(info.protocol, ORDERS_PROTOCOL) != 0) {
            (void)new_subject(stream, -1);
        } else {
            size_t i = 0;
            while (i < ORDERS_MAX && orders[i].stream.id != 0) {
                i++;
            }
            if (i == ORDERS_MAX) {
                p2pos_release(client, stream);
                continue;
            }
            memset(&orders[i], 0, sizeof orders[i]);
            orders[i].stream = stream;
        }
    }
}

/* --- the loop --- */

/* Returns why it ends. */
static int serve(void) {
    for (;;) {
        struct pollfd waits[1 + ORDERS_MAX];
        p2pos_event event;
        nfds_t count = 1;
        (void)p2pos_process(client);
        while ((event = p2pos_next_event(client)).kind != P2POS_EVENT_NONE) {
            struct subject *subject = p2pos_user(client, event.stream);
            if (event.kind == P2POS_EVENT_SHUTDOWN || event.kind == P2POS_EVENT_ENDED) {
                return event.kind == P2POS_EVENT_SHUTDOWN ? P2POS_OK : event.code;
            }
            if (event.kind == P2POS_EVENT_OFFER) {
                take_offers();
            } else if (subject != NULL && event.kind == P2POS_EVENT_OPENED) {
                subject->is_opened = 1;
            } else if (subject != NULL && event.kind == P2POS_EVENT_CLOSED) {
                subject_closed(subject, event.code);
            }
        }
        for (size_t i = 0; i < ORDERS_MAX; i++) {
            progress(&orders[i]);
            struct subject *subject = orders[i].subject;
            if (orders[i].stream.id != 0 && orders[i].is_busy && subject != NULL && subject->socket >= 0) {
                int is_read = strcmp(word(&orders[i], 0), "write") != 0 && orders[i].from == orders[i].to;
                waits[count++] = (struct pollfd){subject->socket, is_read ? POLLIN : POLLOUT, 0};
            }
        }
        if (is_leaving) {
            return P2POS_OK;
        }
        waits[0] = (struct pollfd){p2pos_fd(client), POLLIN, 0};
        (void)poll(waits, count, -1);
    }
}

int main(void) {
    p2pos_problem problem;
    p2pos_serve detached = {P2POS_KIND_DETACHED, 0, 0};
    p2pos_serve datagram = {P2POS_KIND_FLOW, 0, 0};
    p2pos_options options;
    p2pos_options_init(&options, sizeof options);
    options.program = "conformance agent";
    if (p2pos_connect(&options, &client, &problem) != P2POS_OK) {
        fprintf(stderr, "error: %s\n", problem.message);
        return problem.code == P2POS_ERR_LAUNCH ? 78 : 1;
    }
    int code = p2pos_register(client, ORDERS_PROTOCOL " " STREAM_PROTOCOL " " REFUSED_PROTOCOL, NULL, REQUEST_MS);
    code = code != P2POS_OK ? code : p2pos_register(client, DETACHED_PROTOCOL, &detached, REQUEST_MS);
    code = code != P2POS_OK ? code : p2pos_register(client, DATAGRAM_PROTOCOL, &datagram, REQUEST_MS);
    if (code == P2POS_OK) {
        p2pos_ready(client);
        code = serve();
    }
    if (code != P2POS_OK && code != P2POS_ERR_SHUTTING_DOWN) {
        fprintf(stderr, "ended: %s\n", p2pos_last_problem(client)->message);
    }
    p2pos_close(client, 1000);
    return 0;
}
