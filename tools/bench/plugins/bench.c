/* The bench plugin on the C SDK, streams muxed and detached, at both ends.
 *
 *     bench mux|detached serve
 *     bench mux|detached drive PEER JOB AMOUNT      prints one JSON line
 *
 * What each job does on a stream stands in ../src/work.rs: its first byte names it, and the other side answers with a count of 8 bytes.
 * Written as an author would write it: one thread, calls that block, one buffer. */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <p2pos/p2pos.h>

#define MUX "/p2pos-bench/1"
#define DETACHED "/p2pos-bench-detached/1"
#define CHUNK_BYTES 65536
#define READ_BYTES 262144
#define MESSAGE_BYTES 64u
#define FRAMED_BYTES (4 + MESSAGE_BYTES)
#define BATCH_BYTES 8192
#define SETTLE_S 1.5 /* as long as every other driver waits before it begins */
#define LATE_MS 60000

/* A stream of either kind. */
struct link {
    p2pos_client *client;
    p2pos_stream stream;
    int socket; /* -1: muxed */
};

static void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static void check(p2pos_client *client, int code, const char *what) {
    if (code != P2POS_OK) {
        fprintf(stderr, "%s: %s\n", what, p2pos_last_problem(client)->message);
        exit(1);
    }
}

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static void put(struct link *link, const unsigned char *bytes, size_t size) {
    if (link->socket < 0) {
        check(link->client, p2pos_write(link->client, link->stream, bytes, size, NULL, LATE_MS), "write");
        return;
    }
    while (size > 0) {
        ssize_t sent = send(link->socket, bytes, size, MSG_NOSIGNAL);
        if (sent < 0) {
            struct pollfd room = {link->socket, POLLOUT, 0};
            if ((errno != EAGAIN && errno != EINTR) || poll(&room, 1, LATE_MS) == 0) {
                fail("the socket of the stream does not take more");
            }
            continue;
        }
        bytes += sent;
        size -= (size_t)sent;
    }
}

/* 0 at the end. */
static size_t get(struct link *link, unsigned char *bytes, size_t size) {
    size_t got = 0;
    if (link->socket < 0) {
        check(link->client, p2pos_read(link->client, link->stream, bytes, size, &got, LATE_MS), "read");
        return got;
    }
    for (;;) {
        ssize_t came = recv(link->socket, bytes, size, 0);
        struct pollfd some = {link->socket, POLLIN, 0};
        if (came >= 0) {
            return (size_t)came;
        }
        if ((errno != EAGAIN && errno != EINTR) || poll(&some, 1, LATE_MS) == 0) {
            fail("the socket of the stream gives nothing more");
        }
    }
}

static void end_writing(struct link *link) {
    if (link->socket < 0) {
        check(link->client, p2pos_close_write(link->client, link->stream), "close_write");
    } else {
        shutdown(link->socket, SHUT_WR);
    }
}

/* Messages with a length before each, however they are cut. */
struct messages {
    uint64_t count;
    uint32_t left;
    uint32_t length;
    unsigned have;
};

static void count_messages(struct messages *all, const unsigned char *bytes, size_t size) {
    while (size > 0) {
        if (all->left > 0) {
            size_t taken = size < all->left ? size : all->left;
            bytes += taken;
            size -= taken;
            all->left -= (uint32_t)taken;
            all->count += all->left == 0;
            continue;
        }
        all->length = all->length << 8 | *bytes++;
        size--;
        if (++all->have == 4) {
            all->left = all->length;
            all->have = 0;
            all->length = 0;
        }
    }
}

static void count(struct link *link) {
    static unsigned char bytes[READ_BYTES];
    unsigned char answer[8];
    struct messages all = {0, 0, 0, 0};
    uint64_t total = 0;
    size_t got = get(link, bytes, 1);
    unsigned char job = got == 1 ? bytes[0] : 0;
    while (got > 0 && (got = get(link, bytes, sizeof bytes)) > 0) {
        if (job == 'M') {
            count_messages(&all, bytes, got);
        } else {
            total += got;
        }
    }
    total = job == 'M' ? all.count : total;
    for (unsigned byte = 0; byte < 8; byte++) {
        answer[byte] = (unsigned char)(total >> (8 * (7 - byte)));
    }
    put(link, answer, sizeof answer);
    end_writing(link);
}

static void release(struct link *link) {
    if (link->socket >= 0) {
        close(link->socket);
    }
    p2pos_release(link->client, link->stream);
}

static int serve(p2pos_client *client, int is_detached) {
    p2pos_serve how = {0};
    how.kind = is_detached ? P2POS_KIND_DETACHED : P2POS_KIND_STREAM;
    check(client, p2pos_register(client, is_detached ? DETACHED : MUX, &how, LATE_MS), "register");
    check(client, p2pos_ready(client), "ready");
    for (;;) {
        struct link link = {client, {0}, -1};
        int code = is_detached ? p2pos_accept_detached(client, DETACHED, &link.stream, &link.socket, NULL, P2POS_FOREVER)
                               : p2pos_accept(client, MUX, &link.stream, NULL, P2POS_FOREVER);
        if (code == P2POS_ERR_SHUTTING_DOWN) {
            return 0;
        }
        check(client, code, "accept");
        count(&link);
        release(&link);
    }
}

static void drive(p2pos_client *client, int is_detached, const char *peer, const char *job, double amount) {
    static unsigned char chunk[CHUNK_BYTES];
    unsigned char answer[8];
    struct link link = {client, {0}, -1};
    int is_bulk = strcmp(job, "bulk") == 0;
    uint64_t done = 0, counted = 0, left = (uint64_t)amount;
    size_t per_batch = strcmp(job, "messages-batched") == 0 ? BATCH_BYTES / FRAMED_BYTES : 1;
    size_t have = 0, more;
    double begun;
    struct timespec settle = {(time_t)SETTLE_S, (long)((SETTLE_S - (double)(time_t)SETTLE_S) * 1e9)};
    check(client,
          is_detached ? p2pos_open_detached(client, peer, DETACHED, 0, &link.stream, &link.socket, NULL, LATE_MS)
                      : p2pos_open(client, peer, MUX, 0, &link.stream, NULL, LATE_MS),
          "open");
    for (size_t at = 0; !is_bulk && at < per_batch; at++) {
        chunk[at * FRAMED_BYTES + 3] = MESSAGE_BYTES;
    }
    nanosleep(&settle, NULL);
    begun = now();
    put(&link, (const unsigned char *)(is_bulk ? "S" : "M"), 1);
    while (is_bulk ? now() - begun < amount : left > 0) {
        size_t messages = left < per_batch ? (size_t)left : per_batch;
        size_t size = is_bulk ? sizeof chunk : messages * FRAMED_BYTES;
        put(&link, chunk, size);
        done += is_bulk ? size : messages;
        left -= is_bulk ? 0 : messages;
    }
    end_writing(&link);
    while (have < sizeof answer && (more = get(&link, answer + have, sizeof answer - have)) > 0) {
        have += more;
    }
    begun = now() - begun;
    for (unsigned byte = 0; byte < 8; byte++) {
        counted = counted << 8 | answer[byte];
    }
    if (have < sizeof answer || counted != done) {
        fail("the other side counted something else");
    }
    printf("{\"unit\":\"%s\",\"value\":%f,\"p99\":null}\n", is_bulk ? "mib_per_s" : "messages_per_s",
           (double)done / (is_bulk ? 1048576.0 : 1.0) / begun);
    release(&link);
}

int main(int count, char **words) {
    p2pos_client *client;
    p2pos_problem problem;
    int is_detached, result = 0;
    if (count < 3) {
        fail("bench mux|detached serve|drive ...");
    }
    is_detached = strcmp(words[1], "detached") == 0;
    if (p2pos_connect(NULL, &client, &problem) != P2POS_OK) {
        fail(problem.message);
    }
    if (strcmp(words[2], "serve") == 0) {
        result = serve(client, is_detached);
    } else if (count == 6) {
        drive(client, is_detached, words[3], words[4], strtod(words[5], NULL));
    } else {
        fail("bench mux|detached drive PEER JOB AMOUNT");
    }
    p2pos_close(client, 1000);
    return result;
}
