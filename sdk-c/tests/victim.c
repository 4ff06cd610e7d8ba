/* A busy plugin that hostile.py attacks: victim ENDPOINT SESSIONS. It serves, opens, asks, and does so again when its session has ended,
 * whatever the daemon did. It must never crash, hang, or leak; it says how each session ended. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <p2pos/p2pos.h>

#define PEER "p2p1q6adfsqvzky9t042tlmfujeq88g8wzuhnm2nzxfd0qgdx3ac82ydqvcayly"
#define ROUNDS_MAX 20000
#define IDLE_MS 2000 /* a daemon that does nothing for so long has nothing more to do */

static void ignore_contact(void *context, const char *peer, const char *petname, int is_connected) {
    *(size_t *)context += strlen(peer) + strlen(petname) + (size_t)is_connected;
}

/* Touches every byte of an answer, so that the sanitizers see it. */
static size_t weigh(const void *bytes, size_t size) {
    size_t sum = 0;
    for (size_t i = 0; i < size; i++) {
        sum += ((const unsigned char *)bytes)[i];
    }
    return sum;
}

static void answer_offer(p2pos_client *client, size_t *sum) {
    p2pos_stream stream;
    p2pos_flow flow;
    p2pos_info info;
    int socket;
    while (p2pos_peek_offer(client, NULL, &stream, &info, 0) == P2POS_OK) {
        *sum += weigh(&info.peer, strlen(info.peer)) + strlen(info.protocol) + strlen(info.petname);
        if (stream.id % 8 == 0) {
            (void)p2pos_refuse(client, stream, 305, "not today");
        } else if (info.kind == P2POS_KIND_FLOW) {
            (void)p2pos_accept_flow(client, NULL, &flow, NULL, 0);
        } else if (info.kind == P2POS_KIND_DETACHED) {
            if (p2pos_accept_detached(client, NULL, &stream, &socket, NULL, 0) == P2POS_OK) {
                close(socket);
            }
        } else {
            (void)p2pos_accept(client, NULL, &stream, NULL, 0);
        }
    }
}

static void read_all(p2pos_client *client, p2pos_stream stream, size_t *sum) {
    static char bytes[P2POS_READ_BYTES];
    p2pos_flow flow = {stream.id};
    p2pos_info info;
    size_t got = 0;
    if (p2pos_stream_info(client, stream, &info) != P2POS_OK) {
        return;
    }
    for (int i = 0; i < 4; i++) {
        int code = info.kind == P2POS_KIND_FLOW ? p2pos_read_datagram(client, flow, bytes, sizeof bytes, &got, NULL, 0)
                                                : p2pos_read(client, stream, bytes, sizeof bytes, &got, 0);
        *sum += weigh(bytes, got > sizeof bytes ? 0 : got);
        if (code == P2POS_OK && got > 0) {
            (void)(info.kind == P2POS_KIND_FLOW ? p2pos_send_datagram(client, flow, bytes, got)
                                                : p2pos_write(client, stream, bytes, got, NULL, 0));
        } else if (code != P2POS_OK && code != P2POS_ERR_NOT_YET) {
            p2pos_release(client, stream);
            return;
        } else {
            return;
        }
    }
}

static int live(p2pos_client *client, size_t *sum) {
    struct pollfd wait = {p2pos_fd(client), POLLIN, 0};
    p2pos_stream stream;
    p2pos_change change;
    for (unsigned round = 0; round < ROUNDS_MAX; round++) {
        p2pos_event event;
        (void)p2pos_process(client);
        while ((event = p2pos_next_event(client)).kind != P2POS_EVENT_NONE) {
            switch (event.kind) {
            case P2POS_EVENT_OFFER:
                answer_offer(client, sum);
                break;
            case P2POS_EVENT_OPENED:
                (void)p2pos_write(client, event.stream, "hello", 5, NULL, 0);
                break;
            case P2POS_EVENT_READABLE:
            case P2POS_EVENT_WRITABLE:
                read_all(client, event.stream, sum);
                break;
            case P2POS_EVENT_CLOSED:
                p2pos_release(client, event.stream);
                break;
            case P2POS_EVENT_CHANGE:
                while (p2pos_next_change(client, &change, 0) == P2POS_OK) {
                    *sum += strlen(change.peer) + strlen(change.petname) + strlen(change.what);
                }
                break;
            case P2POS_EVENT_ENDED:
                return event.code;
            default:
                *sum += strlen(p2pos_last_problem(client)->message);
            }
        }
        if (round % 64 == 3) {
            (void)p2pos_open_start(client, PEER, "/a/1 /b/1", 0, round % 128 < 64 ? P2POS_KIND_STREAM : P2POS_KIND_FLOW, &stream);
            (void)p2pos_log(client, P2POS_INFO, "still here");
        }
        if (poll(&wait, 1, IDLE_MS) == 0) {
            return P2POS_ERR_IDLE;
        }
    }
    return P2POS_ERR_LIMIT;
}

static int session(const char *endpoint, size_t *sum) {
    p2pos_options options;
    p2pos_client *client;
    p2pos_problem problem;
    p2pos_options_init(&options, sizeof options);
    options.endpoint = endpoint;
    options.token = "b3f1c2d4e5968778695a4b3c2d1e0ff0b3f1c2d4e5968778695a4b3c2d1e0ff0";
    options.timeout_ms = 2000;
    int code = p2pos_connect(&options, &client, &problem);
    *sum += strlen(problem.message) + strlen(problem.hint) + strlen(problem.details);
    if (code != P2POS_OK) {
        return code;
    }
    p2pos_stream stream;
    (void)p2pos_register(client, "/a/1", NULL, 0);
    (void)p2pos_ready(client);
    (void)p2pos_subscribe(client, 7, 0);
    (void)p2pos_open_start(client, PEER, "/a/1", 0, P2POS_KIND_STREAM, &stream);
    (void)p2pos_contacts(client, ignore_contact, sum, 50);
    code = live(client, sum);
    *sum += strlen(p2pos_last_problem(client)->message);
    p2pos_close(client, 100);
    return code;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        return 2;
    }
    size_t sum = 0;
    for (long left = strtol(argv[2], NULL, 10); left > 0; left--) {
        printf("%d\n", session(argv[1], &sum));
        fflush(stdout);
    }
    fprintf(stderr, "sum %zu\n", sum);
    return 0;
}
