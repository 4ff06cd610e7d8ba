/* Everything that a client can do, once, against the daemon of scenario.py; with three ways to make it hard:
 *
 *     scenario FILE plain        as it is
 *     scenario FILE short SEED   the system takes and gives one byte at a time, or nothing, or is interrupted
 *     scenario FILE oom          again and again, with the 1st, 2nd, 3rd ... allocation failing, until none fails
 *
 * FILE is the daemon's endpoint.json. The program exits with 0 if all went as it should. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <p2pos/p2pos.h>

#include "check.h"

#define WAIT_MS wait_ms
#define BIG 300000

/* --- the system calls of the library, as the linker's --wrap gives them to us --- */

static int wait_ms = 20000;
static int is_short;
static unsigned chance;

static unsigned draw(void) {
    chance = chance * 1103515245u + 12345u;
    return chance >> 16;
}

/* How much of `size` this call may move; -1 with errno: nothing. */
static ssize_t share(size_t size) {
    if (!is_short || size == 0) {
        return (ssize_t)size;
    }
    switch (draw() % 8) {
    case 0:
        errno = EINTR;
        return -1;
    case 1:
        errno = EAGAIN;
        return -1;
    default:
        return (ssize_t)(size < 600 ? 1 : size / 2 + 1);
    }
}

ssize_t __real_recv(int socket, void *bytes, size_t size, int flags);
ssize_t __wrap_recv(int socket, void *bytes, size_t size, int flags);
ssize_t __wrap_recv(int socket, void *bytes, size_t size, int flags) {
    ssize_t part = share(size);
    if (part < 0 && (flags & MSG_DONTWAIT) == 0) {
        errno = EINTR;
    }
    return part < 0 ? -1 : __real_recv(socket, bytes, is_short && draw() % 4 == 0 ? 1 : (size_t)part, flags);
}

ssize_t __real_send(int socket, const void *bytes, size_t size, int flags);
ssize_t __wrap_send(int socket, const void *bytes, size_t size, int flags);
ssize_t __wrap_send(int socket, const void *bytes, size_t size, int flags) {
    ssize_t part = share(size);
    if (part < 0 && (flags & MSG_DONTWAIT) == 0) {
        errno = EINTR;
    }
    return part < 0 ? -1 : __real_send(socket, bytes, (size_t)part, flags);
}

ssize_t __real_sendmsg(int socket, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int socket, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int socket, const struct msghdr *message, int flags) {
    ssize_t part = share(message->msg_iov[0].iov_len + 2);
    if (part < 0 || !is_short) {
        return part < 0 ? -1 : __real_sendmsg(socket, message, flags);
    }
    /* A cut within the head, or behind the first bytes of the payload. */
    size_t head = message->msg_iov[0].iov_len;
    size_t most = (size_t)part < head ? (size_t)part : head;
    return __real_send(socket, message->msg_iov[0].iov_base, most, flags);
}

/* --- the allocator --- */

static long allocations; /* made in this run */
static long fail_at;     /* 0: none fails */
static long living;

static void *count_alloc(void *context, size_t size) {
    (void)context;
    allocations++;
    if (fail_at != 0 && allocations == fail_at) {
        return NULL;
    }
    void *memory = malloc(size);
    living += memory != NULL;
    return memory;
}

static void count_free(void *context, void *memory) {
    (void)context;
    living--;
    free(memory);
}

static const p2pos_allocator allocator = {count_alloc, count_free, NULL};

/* --- the steps; each returns the first code that is not 0 --- */

static char big[BIG];
static char back[BIG];
static char bo[P2POS_PEER_BYTES];

#define TRY(call)                 \
    do {                          \
        int try_code = (call);    \
        if (try_code != P2POS_OK) \
            return try_code;      \
    } while (0)

static void note_contact(void *context, const char *peer, const char *petname, int is_connected) {
    (void)is_connected;
    if (strcmp(petname, "bo") == 0) {
        strcpy(bo, peer);
    }
    ++*(int *)context;
}

/* The daemon may not have noticed that the session before is over. */
static int serve_protocol(p2pos_client *client) {
    int code = P2POS_ERR_ALREADY_REGISTERED;
    for (int i = 0; i < 1000 && code == P2POS_ERR_ALREADY_REGISTERED; i++) {
        (void)p2pos_wait_shutdown(client, NULL, i == 0 ? 0 : 5);
        code = p2pos_register(client, "/scenario/1", NULL, WAIT_MS);
    }
    return code;
}

/* The peer opens a stream, writes, and finishes; we send it back. */
static int serve_stream(p2pos_client *client) {
    p2pos_stream stream;
    p2pos_info info;
    p2pos_closed closed;
    size_t got;
    size_t total = 0;
    TRY(p2pos_open(client, bo, "/visit/1", 0, &stream, NULL, WAIT_MS)); /* which bo takes as a wish to be visited */
    p2pos_release(client, stream);
    TRY(p2pos_accept(client, "/scenario/1", &stream, &info, WAIT_MS));
    CHECK(strcmp(info.petname, "bo") == 0 && strcmp(info.protocol, "/scenario/1") == 0 && info.is_contact == 1);
    for (;;) {
        char bytes[20000];
        TRY(p2pos_read(client, stream, bytes, sizeof bytes, &got, WAIT_MS));
        if (got == 0) {
            break;
        }
        total += got;
        TRY(p2pos_write(client, stream, bytes, got, NULL, WAIT_MS));
    }
    CHECK(total == BIG);
    TRY(p2pos_close_write(client, stream));
    TRY(p2pos_wait_closed(client, stream, &closed, WAIT_MS));
    CHECK(closed.code != 0 || (closed.cause == P2POS_FINISHED && closed.bytes_in == BIG && closed.bytes_out == BIG));
    p2pos_release(client, stream);
    return closed.code;
}

static int use_stream(p2pos_client *client) {
    p2pos_stream stream;
    p2pos_info info;
    size_t at = 0;
    size_t have = 0;
    TRY(p2pos_open(client, bo, "/nothing/1 /echo/1", P2POS_NO_RELAY, &stream, &info, WAIT_MS));
    CHECK(strcmp(info.protocol, "/echo/1") == 0);
    while (have < BIG) {
        size_t count;
        int code = P2POS_OK;
        if (at < BIG) {
            code = p2pos_write(client, stream, big + at, BIG - at, &count, 0);
            at += count;
            if (at == BIG) {
                TRY(p2pos_close_write(client, stream));
            }
        }
        if (code != P2POS_OK && code != P2POS_ERR_NOT_YET) {
            return code;
        }
        code = p2pos_read(client, stream, back + have, BIG - have, &count, at == BIG ? WAIT_MS : 5);
        if (code != P2POS_OK && code != P2POS_ERR_NOT_YET) {
            return code;
        }
        have += count;
    }
    CHECK(memcmp(big, back, BIG) == 0);
    TRY(p2pos_read(client, stream, back, 1, &have, WAIT_MS));
    CHECK(have == 0);
    p2pos_release(client, stream);
    p2pos_release(client, stream); /* harmless */
    return P2POS_OK;
}

static int use_flow(p2pos_client *client) {
    p2pos_flow flow;
    p2pos_info info;
    char bytes[100];
    size_t got;
    uint64_t dropped;
    TRY(p2pos_open_flow(client, bo, "/mirror/1", 0, &flow, &info, WAIT_MS));
    CHECK(info.datagram_max > 0);
    int code = p2pos_send_datagram(client, flow, big, info.datagram_max + 1);
    CHECK(code == P2POS_ERR_TOO_BIG || p2pos_last_problem(client)->code == code);
    TRY(p2pos_send_datagram(client, flow, "look", 4));
    code = p2pos_read_datagram(client, flow, bytes, 2, &got, &dropped, WAIT_MS);
    CHECK(code != P2POS_ERR_ROOM || got == 4);
    TRY(p2pos_read_datagram(client, flow, bytes, sizeof bytes, &got, &dropped, code == P2POS_ERR_ROOM ? WAIT_MS : 500));
    CHECK(got == 4 && memcmp(bytes, "look", 4) == 0);
    p2pos_release_flow(client, flow);
    return P2POS_OK;
}

static int use_detached(p2pos_client *client, int waits) {
    p2pos_stream stream;
    p2pos_closed closed;
    p2pos_event event;
    int socket;
    if (waits) {
        TRY(p2pos_open_detached(client, bo, "/echo/1", 0, &stream, &socket, NULL, WAIT_MS));
    } else {
        TRY(p2pos_open_start(client, bo, "/echo/1", 0, P2POS_KIND_DETACHED, &stream));
        CHECK(p2pos_attach(client, stream, &socket) == P2POS_ERR_MISUSE);
        for (;;) {
            event = p2pos_next_event(client);
            if (event.kind == P2POS_EVENT_OPENED && event.stream.id == stream.id) {
                break;
            }
            if (event.kind == P2POS_EVENT_ENDED || (event.kind == P2POS_EVENT_CLOSED && event.stream.id == stream.id)) {
                return event.code;
            }
            if (event.kind == P2POS_EVENT_NONE) {
                (void)p2pos_wait_shutdown(client, NULL, 1);
            }
        }
        TRY(p2pos_attach(client, stream, &socket));
        CHECK(p2pos_attach(client, stream, &(int){0}) == P2POS_ERR_MISUSE);
    }
    CHECK(write(socket, "alone", 5) == 5 && shutdown(socket, SHUT_WR) == 0);
    char bytes[6] = {0};
    size_t have = 0;
    ssize_t count = 1;
    while (count > 0 && have < 5) {
        count = read(socket, bytes + have, 5 - have);
        have += count > 0 ? (size_t)count : 0;
    }
    CHECK(strcmp(bytes, "alone") == 0);
    count = read(socket, bytes, 1);
    CHECK(count == 0);
    close(socket);
    TRY(p2pos_wait_closed(client, stream, &closed, WAIT_MS));
    p2pos_release(client, stream);
    return closed.code;
}

/* Small calls, and the ways that things fail. */
static int use_rest(p2pos_client *client) {
    p2pos_stream stream;
    p2pos_info info;
    p2pos_change change;
    size_t got;
    char byte;
    int contacts = 0;
    TRY(p2pos_contacts(client, note_contact, &contacts, WAIT_MS));
    CHECK(contacts == 2);
    TRY(p2pos_subscribe(client, P2POS_CHANGE_CONTACT | P2POS_CHANGE_PEER, WAIT_MS));
    TRY(p2pos_next_change(client, &change, WAIT_MS));
    CHECK(change.kind == P2POS_CHANGE_CONTACT || change.kind == P2POS_CHANGE_PEER);
    TRY(p2pos_log(client, P2POS_INFO, "a line with \xff in it"));
    TRY(p2pos_status(client, P2POS_HEALTH_OK, "all is well"));
    int code = p2pos_open(client, bo, "/unknown/1", 0, &stream, &info, WAIT_MS);
    CHECK(code != P2POS_OK && stream.id == 0);
    CHECK(code != P2POS_ERR_PROTOCOL_NOT_SUPPORTED || fail_at != 0 || strstr(p2pos_last_problem(client)->details, "/echo/1") != NULL);
    CHECK(p2pos_open(client, "p2p1qnobody", "/echo/1", 0, &stream, NULL, WAIT_MS) != P2POS_OK);
    CHECK(p2pos_read(client, stream, &byte, 1, &got, 0) == P2POS_ERR_NO_STREAM);
    TRY(p2pos_open_start(client, bo, "/echo/1", 0, P2POS_KIND_STREAM, &stream));
    TRY(p2pos_write(client, stream, "early", 5, NULL, WAIT_MS));
    TRY(p2pos_read_exactly(client, stream, back, 5, &got, WAIT_MS));
    TRY(p2pos_stop(client, stream, 3));
    TRY(p2pos_reset(client, stream, 4));
    p2pos_release(client, stream);
    TRY(p2pos_unregister(client, "/scenario/1", WAIT_MS));
    return P2POS_OK;
}

static int run(const char *file) {
    p2pos_options options;
    p2pos_client *client;
    p2pos_problem problem;
    p2pos_options_init(&options, sizeof options);
    options.endpoint_file = file;
    options.allocator = &allocator;
    options.program = "scenario 1.0";
    options.timeout_ms = WAIT_MS;
    int code = p2pos_connect(&options, &client, &problem);
    CHECK((code == P2POS_OK) == (client != NULL) && problem.code == code);
    if (code != P2POS_OK) {
        return code;
    }
    int contacts = 0;
    code = p2pos_contacts(client, note_contact, &contacts, WAIT_MS);
    code = code != 0 ? code : serve_protocol(client);
    code = code != 0 ? code : serve_stream(client);
    code = code != 0 ? code : use_stream(client);
    code = code != 0 ? code : use_flow(client);
    code = code != 0 ? code : use_detached(client, 1);
    code = code != 0 ? code : use_detached(client, 0);
    code = code != 0 ? code : use_rest(client);
    CHECK(p2pos_peer_id(client)[0] == 'p' && p2pos_plugin_id(client)[0] != '\0' && p2pos_grant(client, 0) != NULL);
    CHECK(p2pos_grant(client, 9999) == NULL);
    while (p2pos_next_event(client).kind != P2POS_EVENT_NONE && code == 0) {
    }
    p2pos_close(client, 500);
    return code;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: scenario FILE plain|short|oom [SEED]\n");
        return 2;
    }
    for (size_t i = 0; i < BIG; i++) {
        big[i] = (char)(i * 7 + i / 251);
    }
    is_short = strcmp(argv[2], "short") == 0;
    chance = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 1;
    int code = run(argv[1]);
    CHECK(code == P2POS_OK && living == 0);
    if (code != P2POS_OK) {
        fprintf(stderr, "the scenario ended with %d %s\n", code, p2pos_error_name(code));
    }
    if (strcmp(argv[2], "oom") == 0) {
        wait_ms = 2000;
        for (fail_at = 1;; fail_at++) {
            allocations = 0;
            code = run(argv[1]);
            CHECK(living == 0);
            if (allocations < fail_at) {
                CHECK(code == P2POS_OK);
                if (code != P2POS_OK) {
                    fprintf(stderr, "without a failure: %d %s\n", code, p2pos_error_name(code));
                }
                break;
            }
            /* A lost change or datagram is counted, and no error; whatever else fails says so. */
            CHECK(code == P2POS_OK || code == P2POS_ERR_MEMORY || code == P2POS_ERR_NOT_YET);
            if (code != P2POS_OK && code != P2POS_ERR_MEMORY) {
                printf("     allocation %ld: %d %s\n", fail_at, code, p2pos_error_name(code));
            }
        }
        printf("ok   %ld allocations failed, one after the other\n", fail_at - 1);
    }
    return check_failures == 0 ? 0 : 1;
}
