/* A session on a socket: connecting, reading, writing, waiting, the end. No call of this file knows what a stream is for. */
#include "client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sha256.h"

#define CONNECT_TIMEOUT_MS 5000
/* Bytes that one round reads at most, so that a fast daemon cannot keep a call for ever. */
#define ROUND_BYTES_MAX (1024u * 1024u)
/* Bytes of waiting datagrams that are framed at once. */
#define DATAGRAM_BATCH_BYTES 65536u
#define PROGRAM_BYTES_MAX 100u
#define OUTPUT_BYTES_KEPT 131072u

p2pos_moment p2pos_deadline(int timeout_ms) {
    return timeout_ms < 0 ? UINT64_MAX : p2pos_now_ms() + (uint64_t)timeout_ms;
}

/* --- the socket --- */

/* Reads what is there, in one round. */
static void fill(struct p2pos_client *client) {
    struct p2pos_session *session = &client->session;
    size_t total = 0;
    while (client->socket >= 0 && session->ended == 0 && total < ROUND_BYTES_MAX) {
        size_t size;
        uint8_t *room = p2pos_session_room(session, &size);
        if (room == NULL) {
            return;
        }
        ssize_t count = recv(client->socket, room, size, MSG_DONTWAIT);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return;
        }
        if (count <= 0) {
            p2pos_session_eof(session);
            return;
        }
        p2pos_session_received(session, (size_t)count, p2pos_now_ms());
        total += (size_t)count;
        if ((size_t)count < size) {
            return; /* that was all; another read would only say so */
        }
    }
}

/* Sends until nothing waits or the socket takes no more. */
static void send_out(struct p2pos_client *client) {
    struct p2pos_session *session = &client->session;
    struct p2pos_buffer *out = &session->out;
    while (client->socket >= 0 && !client->is_broken) {
        if (p2pos_buffer_used(out) == 0) {
            p2pos_session_frame_datagrams(session, DATAGRAM_BATCH_BYTES);
        }
        size_t size = p2pos_buffer_used(out);
        if (size == 0) {
            return;
        }
        ssize_t count = send(client->socket, out->data + out->start, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count >= 0) {
            p2pos_buffer_drop(out, (size_t)count);
            client->is_full = p2pos_buffer_used(out) > 0;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            client->is_full = true;
            return;
        } else if (errno != EINTR) {
            /* What the daemon still said is read first; then its end shows as end of file. */
            client->is_broken = true;
        }
    }
}

void p2pos_client_flush(struct p2pos_client *client) {
    struct p2pos_session *session = &client->session;
    struct p2pos_buffer *out = &session->out;
    send_out(client);
    if (client->is_broken || client->socket < 0) {
        p2pos_buffer_drop(out, p2pos_buffer_used(out));
    }
    p2pos_buffer_shrink(session->allocator, out, OUTPUT_BYTES_KEPT);
    if (client->socket >= 0) {
        p2pos_poller_want_out(&client->poller, client->is_full && !client->is_broken);
    }
    if (p2pos_buffer_used(out) == 0 && !client->is_full) {
        p2pos_session_tell_writable(session);
    }
    if (session->ended != 0 && client->socket >= 0 && (p2pos_buffer_used(out) == 0 || client->is_broken)) {
        p2pos_poller_forget_socket(&client->poller);
        close(client->socket);
        client->socket = -1;
    }
}

static void drain_stdin(struct p2pos_client *client) {
    char bytes[4096];
    ssize_t count = read(0, bytes, sizeof bytes);
    if (count == 0 || (count < 0 && errno != EINTR && errno != EAGAIN)) {
        p2pos_poller_forget_stdin(&client->poller);
        p2pos_session_ask_to_end(&client->session, 0);
    }
}

/* Does what is ready, and what time asks for. */
static void turn(struct p2pos_client *client, unsigned ready) {
    if ((ready & P2POS_READY_STDIN) != 0) {
        drain_stdin(client);
    }
    if ((ready & P2POS_READY_WAKE) != 0) {
        client->is_woken = false;
        client->is_interrupted = p2pos_poller_calm(&client->poller) || client->is_interrupted;
    }
    if ((ready & P2POS_READY_OUT) != 0) {
        client->is_full = false;
    }
    if ((ready & P2POS_READY_IN) != 0) {
        fill(client);
    }
    p2pos_session_tick(&client->session, p2pos_now_ms());
    p2pos_client_flush(client);
}

int p2pos_client_wait(struct p2pos_client *client, p2pos_moment deadline) {
    bool had_output = p2pos_buffer_used(&client->session.out) > 0;
    p2pos_client_flush(client);
    if (had_output && p2pos_buffer_used(&client->session.out) == 0 && !client->is_full && client->session.ended == 0) {
        return P2POS_OK; /* a writer waited for just that, and no descriptor will tell it */
    }
    if (client->session.ended != 0 && client->socket < 0) {
        return P2POS_ERR_NOT_YET;
    }
    uint64_t now = p2pos_now_ms();
    uint64_t until = client->session.phase == P2POS_PHASE_OPEN ? p2pos_session_deadline(&client->session) : UINT64_MAX;
    bool is_last = deadline <= now;
    uint64_t at = deadline < until ? deadline : until;
    uint64_t left = at <= now ? 0 : at - now;
    unsigned ready = 0;
    if (!client->is_interrupted || is_last) {
        ready = p2pos_poller_wait(&client->poller, at == UINT64_MAX ? -1 : left > 3600000 ? 3600000 : (int)left);
    }
    turn(client, ready);
    if (client->is_interrupted && !is_last) {
        client->is_interrupted = false;
        return P2POS_ERR_INTERRUPTED;
    }
    return is_last ? P2POS_ERR_NOT_YET : P2POS_OK;
}

/* Whoever waits at the descriptor is woken for the next Ping, too. */
static void arm(struct p2pos_client *client) {
    if (client->has_fd_user && client->session.ended == 0 && client->poller.armed_ms == 0) {
        p2pos_poller_arm(&client->poller, p2pos_session_deadline(&client->session));
    }
}

int p2pos_client_done(struct p2pos_client *client, int code) {
    p2pos_client_flush(client);
    arm(client);
    if (client->has_fd_user && !client->is_woken && p2pos_session_has_events(&client->session)) {
        client->is_woken = true;
        p2pos_poller_wake(&client->poller);
    }
    return code;
}

/* --- event loops --- */

int p2pos_fd(const p2pos_client *client) {
    /* Noting that somebody waits there changes nothing that a caller can see. */
    struct p2pos_client *noted = (p2pos_client *)(uintptr_t)client;
    noted->has_fd_user = true;
    (void)p2pos_client_done(noted, P2POS_OK);
    return client->poller.descriptor;
}

int p2pos_process(p2pos_client *client) {
    if (client->is_in_callback) {
        return P2POS_ERR_MISUSE;
    }
    p2pos_client_flush(client);
    turn(client, p2pos_poller_wait(&client->poller, 0));
    arm(client);
    if (client->session.ended != 0) {
        client->problem = client->session.end_problem;
    }
    return client->session.ended;
}

p2pos_event p2pos_next_event(p2pos_client *client) {
    p2pos_event event = p2pos_session_next_event(&client->session);
    if (event.kind == P2POS_EVENT_COMPLAINT) {
        client->problem = client->session.complaint;
    }
    if (event.kind == P2POS_EVENT_NONE && client->is_woken) {
        client->is_woken = false;
        client->is_interrupted = p2pos_poller_calm(&client->poller) || client->is_interrupted;
    }
    return event;
}

void p2pos_interrupt(p2pos_client *client) {
    p2pos_poller_interrupt(&client->poller);
}

/* --- the beginning and the end --- */

void p2pos_options_init(p2pos_options *options, size_t size) {
    memset(options, 0, size);
    options->size = size;
}

/* The caller's options in today's shape: an older program knows fewer fields. */
static bool read_options(const p2pos_options *given, p2pos_options *options) {
    memset(options, 0, sizeof *options);
    if (given != NULL) {
        if (given->size < sizeof given->size || given->size > sizeof *options) {
            return false;
        }
        memcpy(options, given, given->size);
    }
    if (options->timeout_ms == 0) {
        options->timeout_ms = CONNECT_TIMEOUT_MS;
    }
    uint32_t frame = options->frame_bytes_max;
    return (frame == 0 || (frame >= 4096 && frame <= P2POS_FRAME_BYTES_HARD_MAX)) &&
           options->stream_window_bytes <= P2POS_CREDIT_BYTES_MAX && options->timeout_ms > 0;
}

static void destroy(p2pos_client *client) {
    p2pos_allocator allocator = client->allocator;
    if (client->socket >= 0) {
        close(client->socket);
    }
    p2pos_poller_close(&client->poller);
    p2pos_session_free(&client->session);
    p2pos_wipe(client->session.secret, sizeof client->session.secret);
    p2pos_free(&allocator, client->endpoint);
    p2pos_free(&allocator, client->data_dir);
    p2pos_free(&allocator, client);
}

/* A client with its memory and no socket; NULL: no memory. */
static p2pos_client *make(const p2pos_allocator *allocator, const char *endpoint) {
    const char *data_dir = getenv("P2POS_DATA_DIR");
    data_dir = data_dir == NULL ? "" : data_dir;
    p2pos_client *client = p2pos_alloc(allocator, sizeof *client);
    if (client == NULL) {
        return NULL;
    }
    client->allocator = *allocator;
    client->socket = client->poller.descriptor = client->poller.timer = client->poller.event = -1;
    p2pos_session_init(&client->session, &client->allocator);
    client->endpoint = p2pos_copy_text(allocator, endpoint, strlen(endpoint));
    client->data_dir = p2pos_copy_text(allocator, data_dir, strlen(data_dir));
    if (client->endpoint == NULL || client->data_dir == NULL) {
        destroy(client);
        return NULL;
    }
    return client;
}

static bool say_hello(p2pos_client *client, const p2pos_options *options, const struct p2pos_launch *launch) {
    uint8_t nonce[P2POS_NONCE_BYTES];
    char *program = p2pos_clean_text(&client->allocator, options->program == NULL ? "" : options->program, PROGRAM_BYTES_MAX);
    if (program == NULL || !p2pos_random(nonce, sizeof nonce)) {
        p2pos_session_fail(&client->session, program == NULL ? P2POS_ERR_MEMORY : P2POS_ERR_SYSTEM, "cannot make a Hello");
        p2pos_free(&client->allocator, program);
        return false;
    }
    bool is_said = p2pos_session_hello(&client->session, launch->token, launch->has_secret ? launch->secret : NULL, nonce, program,
                                       options->frame_bytes_max, options->stream_window_bytes);
    p2pos_free(&client->allocator, program);
    return is_said;
}

/* Hello on a fresh socket, until Welcome. Returns 0, or why not with the problem filled in. */
static int greet(p2pos_client *client, const p2pos_options *options, const struct p2pos_launch *launch, p2pos_problem *problem) {
    struct p2pos_session *session = &client->session;
    p2pos_moment deadline = p2pos_deadline(options->timeout_ms);
    bool stdin_is_over;
    client->socket = p2pos_dial(launch->endpoint, options->timeout_ms, problem);
    if (client->socket < 0) {
        return problem->code;
    }
    if (!p2pos_set_blocking(client->socket, false) ||
        !p2pos_poller_open(&client->poller, client->socket, launch->exits_with_stdin, &stdin_is_over)) {
        client->poller.descriptor = client->poller.timer = client->poller.event = -1;
        return p2pos_problem_set(problem, P2POS_ERR_SYSTEM, "cannot wait for the daemon: %s", strerror(errno));
    }
    if (stdin_is_over) {
        p2pos_session_ask_to_end(session, 0);
    }
    if (say_hello(client, options, launch)) {
        while (session->phase != P2POS_PHASE_OPEN && session->ended == 0) {
            if (p2pos_client_wait(client, deadline) == P2POS_ERR_NOT_YET && session->phase != P2POS_PHASE_OPEN &&
                session->ended == 0) {
                return p2pos_problem_set(problem, P2POS_ERR_CONNECT, "the daemon did not answer Hello within %d ms",
                                         options->timeout_ms);
            }
        }
    }
    if (session->phase != P2POS_PHASE_OPEN) {
        *problem = session->end_problem;
        if (problem->code == P2POS_ERR_SHUTTING_DOWN) {
            return p2pos_problem_set(problem, P2POS_ERR_CONNECT, "the daemon closed the connection during the handshake");
        }
        return problem->code;
    }
    return P2POS_OK;
}

int p2pos_connect(const p2pos_options *given, p2pos_client **client, p2pos_problem *told) {
    p2pos_problem unused;
    p2pos_problem *problem = told == NULL ? &unused : told;
    p2pos_options options;
    struct p2pos_launch launch;
    *client = NULL;
    if (!read_options(given, &options)) {
        return p2pos_problem_set(problem, P2POS_ERR_MISUSE, "the options are out of range, or not from p2pos_options_init");
    }
    const p2pos_allocator *allocator = options.allocator != NULL ? options.allocator : &p2pos_system_allocator;
    int code = p2pos_launch_find(&options, allocator, &launch, problem);
    p2pos_client *made = NULL;
    if (code == P2POS_OK) {
        made = make(allocator, launch.endpoint);
        code = made == NULL ? p2pos_problem_set(problem, P2POS_ERR_MEMORY, "no memory for a client")
                            : greet(made, &options, &launch, problem);
    }
    p2pos_wipe(&launch, sizeof launch);
    if (code != P2POS_OK) {
        if (made != NULL) {
            destroy(made);
        }
        return code;
    }
    *client = made;
    return p2pos_problem_set(problem, P2POS_OK, "connected");
}

void p2pos_close(p2pos_client *client, int linger_ms) {
    if (client == NULL || client->is_in_callback) {
        return; /* within a callback the call around it still needs the client */
    }
    p2pos_moment deadline = p2pos_deadline(linger_ms < 0 ? 0 : linger_ms);
    /* What was written before goes out first; then our last word. */
    while (client->session.ended == 0 && client->socket >= 0 &&
           (p2pos_buffer_used(&client->session.out) > 0 || client->session.has_packets)) {
        if (p2pos_client_wait(client, deadline) == P2POS_ERR_NOT_YET) {
            break;
        }
    }
    p2pos_session_close(&client->session);
    p2pos_client_flush(client);
    while (client->socket >= 0 && p2pos_client_wait(client, deadline) != P2POS_ERR_NOT_YET) {
        /* flush closes the socket once all is written */
    }
    destroy(client);
}
