/* The agent of the conformance kit, with the C SDK: obeys orders that come on streams, one line each, and answers each with one line.
 *
 * One loop and no thread: every order stream has at most one order that waits, and whenever anything has happened each of them is tried again with
 * calls that do not wait. It never judges; it says what the library told it. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <p2pos/p2pos.h>

#define ORDERS_PROTOCOL "/p2pos/conformance/1"
#define STREAM_PROTOCOL "/p2pos/conformance-stream/1"
#define REFUSED_PROTOCOL "/p2pos/conformance-refused/1"
#define DETACHED_PROTOCOL "/p2pos/conformance-detached/1"
#define DATAGRAM_PROTOCOL "/p2pos/conformance-datagram/1"
#define ORDERS_MAX 16
#define SUBJECTS_MAX 256
#define LINE_BYTES_MAX 1001
#define ANSWER_BYTES_MAX 60000
#define WORDS_MAX 8
#define PIECE_BYTES 16384
#define REQUEST_MS 15000
#define PATTERN_PERIOD 251

enum progress { WAITS, ANSWERED };

/* A stream that orders are about. */
struct subject {
    p2pos_stream stream; /* {0}: the place is free */
    int socket;          /* of a detached one; else -1 */
    int is_taken;
    int is_opened;
    int is_closed;
    int code; /* if it was closed before it was opened */
    p2pos_info info;
};

struct order {
    p2pos_stream stream; /* {0}: the place is free */
    char line[LINE_BYTES_MAX + 1];
    size_t line_bytes;
    int is_busy; /* the line is whole, its answer is owed */
    char *words[WORDS_MAX];
    size_t word_count;
    char rest[LINE_BYTES_MAX + 1]; /* what stands behind the second word, as it stood */
    struct subject *subject;
    struct subject *opening;
    unsigned long done; /* bytes of this order */
    unsigned long a, b; /* its sum so far */
    char piece[PIECE_BYTES]; /* of an echo, not yet written */
    size_t from, to;
    int is_over; /* of an echo: the other side has finished */
    char answer[ANSWER_BYTES_MAX];
    size_t answer_bytes, answered;
};

static p2pos_client *client;
static struct order orders[ORDERS_MAX];
static struct subject subjects[SUBJECTS_MAX];
static int is_leaving;

/* --- small things --- */

static enum progress answer(struct order *order, const char *text) {
    order->answer_bytes = (size_t)snprintf(order->answer, sizeof order->answer, "%.59000s\n", text);
    order->answered = 0;
    return ANSWERED;
}

static enum progress answer_code(struct order *order, int code) {
    char text[64];
    if (code == P2POS_OK) {
        return answer(order, "ok");
    }
    snprintf(text, sizeof text, "error %d", code);
    return answer(order, text);
}

/* The subject is over, as the call that said so left it in the last problem. */
static enum progress answer_ended(struct order *order, int code) {
    char text[64];
    const p2pos_problem *problem = p2pos_last_problem(client);
    snprintf(text, sizeof text, "ended %d %u", code == P2POS_ERR_STOPPED ? P2POS_ERR_APP : code,
             code / 100 == 1 ? 0 : (unsigned)problem->app_code);
    return answer(order, text);
}

static struct subject *new_subject(p2pos_stream stream, int socket) {
    for (size_t i = 0; i < SUBJECTS_MAX; i++) {
        if (subjects[i].stream.id == 0) {
            memset(&subjects[i], 0, sizeof subjects[i]);
            subjects[i].stream = stream;
            subjects[i].socket = socket;
            (void)p2pos_stream_info(client, stream, &subjects[i].info);
            (void)p2pos_set_user(client, stream, &subjects[i]);
            return &subjects[i];
        }
    }
    fprintf(stderr, "more than %d subjects\n", SUBJECTS_MAX);
    exit(1);
}

static void drop_subject(struct subject *subject) {
    if (subject != NULL) {
        if (subject->socket >= 0) {
            close(subject->socket);
        }
        p2pos_release(client, subject->stream);
        subject->stream.id = 0;
    }
}

static void sum_up(struct order *order, const char *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) {
        order->a = (order->a + (unsigned char)bytes[i]) % 65521;
        order->b = (order->b + order->a) % 65521;
    }
    order->done += size;
}

static enum progress answer_read(struct order *order, const char *how) {
    char text[96];
    snprintf(text, sizeof text, "ok %lu %lu %s", order->done, order->b * 65536 + order->a, how);
    return answer(order, text);
}

static const char *word(const struct order *order, size_t index) {
    return index < order->word_count ? order->words[index] : "";
}

static unsigned long number(const struct order *order, size_t index) {
    return strtoul(word(order, index), NULL, 10);
}

/* --- bytes of the subject, of either sort: 0 with *moved, NOT_YET, or how it ended --- */

/* A broken socket says nothing of why: the daemon's last word does, when it comes. */
static int truth(struct subject *subject) {
    p2pos_closed closed;
    int code = p2pos_wait_closed(client, subject->stream, &closed, 0);
    return code == P2POS_OK ? (closed.code != 0 ? closed.code : P2POS_ERR_PLUGIN_GONE) : code;
}

static int subject_read(struct subject *subject, char *bytes, size_t size, size_t *moved) {
    if (subject->socket < 0) {
        return p2pos_read(client, subject->stream, bytes, size, moved, 0);
    }
    ssize_t count = recv(subject->socket, bytes, size, MSG_DONTWAIT);
    *moved = count > 0 ? (size_t)count : 0;
    /* A reset socket is an end like any other: `closed` has the truth. */
    return count < 0 && (errno == EAGAIN || errno == EINTR) ? P2POS_ERR_NOT_YET : P2POS_OK;
}

static int subject_write(struct subject *subject, const char *bytes, size_t size, size_t *moved) {
    if (subject->socket < 0) {
        int code = p2pos_write(client, subject->stream, bytes, size, moved, 0);
        return code == P2POS_ERR_NOT_YET && *moved > 0 ? P2POS_OK : code;
    }
    ssize_t count = send(subject->socket, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    *moved = count > 0 ? (size_t)count : 0;
    if (count >= 0) {
        return P2POS_OK;
    }
    return errno == EAGAIN || errno == EINTR ? P2POS_ERR_NOT_YET : truth(subject);
}

static int subject_finish(struct subject *subject) {
    size_t none;
    if (subject->socket >= 0) {
        return shutdown(subject->socket, SHUT_WR) == 0 ? P2POS_OK : truth(subject);
    }
    int code = p2pos_write(client, subject->stream, "", 0, &none, 0); /* says whether the stream still stands */
    return code == P2POS_OK ? p2pos_close_write(client, subject->stream) : code;
}

/* --- the orders; each is tried until it is answered --- */

static enum progress do_hello(struct order *order) {
    char text[64];
    snprintf(text, sizeof text, "ok libp2pos %s", p2pos_version());
    return answer(order, text);
}

static enum progress take_subject(struct order *order, struct subject *subject, int with_peer) {
    char text[400];
    const p2pos_info *info = &subject->info;
    subject->is_taken = 1;
    order->subject = subject;
    int size = snprintf(text, sizeof text, "ok %s%s%s", with_peer ? info->peer : "", with_peer ? " " : "", info->protocol);
    if (info->kind == P2POS_KIND_FLOW) {
        snprintf(text + size, sizeof text - (size_t)size, " %u", (unsigned)info->datagram_max);
    }
    return answer(order, text);
}

static enum p2pos_kind kind_of(const char *attribute) {
    return strcmp(attribute, "detached") == 0 ? P2POS_KIND_DETACHED : strcmp(attribute, "datagram") == 0 ? P2POS_KIND_FLOW : P2POS_KIND_STREAM;
}

static enum progress do_take(struct order *order) {
    struct subject *oldest = NULL;
    for (size_t i = 0; i < SUBJECTS_MAX; i++) {
        struct subject *subject = &subjects[i];
        if (subject->stream.id != 0 && subject->stream.id % 2 == 0 && !subject->is_taken &&
            subject->info.kind == kind_of(word(order, 1)) && (oldest == NULL || subject->stream.id < oldest->stream.id)) {
            oldest = subject;
        }
    }
    return oldest == NULL ? WAITS : take_subject(order, oldest, 1);
}

static enum progress do_open(struct order *order) {
    struct subject *subject = order->opening;
    if (subject == NULL) {
        p2pos_stream stream;
        int code = p2pos_open_start(client, word(order, 1), word(order, 2), 0, kind_of(word(order, 3)), &stream);
        if (code != P2POS_OK) {
            return answer_code(order, code);
        }
        order->opening = new_subject(stream, -1);
        return WAITS;
    }
    if (!subject->is_opened && !subject->is_closed) {
        return WAITS;
    }
    order->opening = NULL;
    if (!subject->is_opened) {
        int code = subject->code;
        drop_subject(subject);
        return answer_code(order, code != 0 ? code : P2POS_ERR_INTERNAL);
    }
    (void)p2pos_stream_info(client, subject->stream, &subject->info);
    if (subject->info.kind == P2POS_KIND_DETACHED) {
        int code = p2pos_attach(client, subject->stream, &subject->socket);
        if (code != P2POS_OK) {
            drop_subject(subject);
            return answer_code(order, code);
        }
    }
    return take_subject(order, subject, 0);
}

static enum progress do_write(struct order *order) {
    char pattern[PIECE_BYTES];
    unsigned long wanted = number(order, 1);
    unsigned long seed = number(order, 2);
    char text[64];
    while (order->done < wanted) {
        size_t size = wanted - order->done < sizeof pattern ? wanted - order->done : sizeof pattern;
        size_t moved = 0;
        for (size_t i = 0; i < size; i++) {
            pattern[i] = (char)((seed + order->done + i) % PATTERN_PERIOD);
        }
        int code = subject_write(order->subject, pattern, size, &moved);
        order->done += moved;
        if (code == P2POS_ERR_NOT_YET) {
            return WAITS;
        }
        if (code != P2POS_OK) {
            return answer_ended(order, code);
        }
    }
    snprintf(text, sizeof text, "ok %lu", order->done);
    return answer(order, text);
}

static enum progress do_read(struct order *order) {
    char bytes[PIECE_BYTES];
    int is_to_end = strcmp(word(order, 1), "end") == 0;
    unsigned long wanted = number(order, 1);
    while (is_to_end || order->done < wanted) {
        size_t size = is_to_end || wanted - order->done > sizeof bytes ? sizeof bytes : wanted - order->done;
        size_t moved;
        int code = subject_read(order->subject, bytes, size, &moved);
        if (code == P2POS_ERR_NOT_YET) {
            return WAITS;
        }
        if (code != P2POS_OK) {
            return answer_ended(order, code);
        }
        if (moved == 0) {
            return answer_read(order, "fin");
        }
        sum_up(order, bytes, moved);
    }
    return answer_read(order, "more");
}

static enum progress do_echo(struct order *order) {
    char text[64];
    int code = P2POS_OK;
    while (!order->is_over) {
        size_t moved = 0;
        if (order->from == order->to) {
            order->from = 0;
            code = subject_read(order->subject, order->piece, sizeof order->piece, &order->to);
            order->is_over = code == P2POS_OK && order->to == 0;
        } else {
            code = subject_write(order->subject, order->piece + order->from, order->to - order->from, &moved);
            order->from += moved;
            order->done += moved;
        }
        if (code != P2POS_OK) {
            return code == P2POS_ERR_NOT_YET ? WAITS : answer_ended(order, code);
        }
    }
    code = subject_finish(order->subject);
    if (code != P2POS_OK) {
        return code == P2POS_ERR_NOT_YET ? WAITS : answer_ended(order, code);
    }
    snprintf(text, sizeof text, "ok %lu", order->done);
    return answer(order, text);
}

static enum progress do_finish(struct order *order) {
    int code = subject_finish(order->subject);
    if (code == P2POS_ERR_NOT_YET) {
        return WAITS;
    }
    return code == P2POS_OK || code == P2POS_ERR_MISUSE ? answer(order, "ok") : answer_ended(order, code);
}

static enum progress do_reset(struct order *order) {
    (void)p2pos_reset(client, order->subject->stream, (uint32_t)number(order, 1));
    if (order->subject->socket >= 0) {
        (void)shutdown(order->subject->socket, SHUT_RDWR);
    }
    return answer(order, "ok");
}

static enum progress do_stop(struct order *order) {
    (void)p2pos_stop(client, order->subject->stream, (uint32_t)number(order, 1));
    return answer(order, "ok");
}

static enum progress do_closed(struct order *order) {
    static const char *const causes[] = {"unknown", "finished", "local", "remote"};
    char text[160];
    p2pos_closed closed;
    int code = p2pos_wait_closed(client, order->subject->stream, &closed, 0);
    if (code == P2POS_ERR_NOT_YET) {
        return WAITS;
    }
    if (code != P2POS_OK || closed.cause == P2POS_CAUSE_UNKNOWN) {
        return answer(order, "ended 105 0");
    }
    snprintf(text, sizeof text, "ok %s %d %u %llu %llu", causes[closed.cause], closed.code, (unsigned)closed.app_code,
             (unsigned long long)closed.bytes_in, (unsigned long long)closed.bytes_out);
    return answer(order, text);
}

static enum progress do_send(struct order *order) {
    static char bytes[1 << 17];
    unsigned long size = number(order, 1);
    p2pos_flow flow = {order->subject->stream.id};
    for (size_t i = 0; i < size && i < sizeof bytes; i++) {
        bytes[i] = (char)((number(order, 2) + i) % PATTERN_PERIOD);
    }
    int code = size > sizeof bytes ? P2POS_ERR_TOO_BIG : p2pos_send_datagram(client, flow, bytes, size);
    return code == P2POS_OK || code == P2POS_ERR_TOO_BIG ? answer_code(order, code) : answer_ended(order, code);
}

static enum progress do_receive(struct order *order) {
    static char bytes[1 << 20];
    char text[64];
    size_t got;
    p2pos_flow flow = {order->subject->stream.id};
    int code = p2pos_read_datagram(client, flow, bytes, sizeof bytes, &got, NULL, 0);
    if (code != P2POS_OK) {
        return code == P2POS_ERR_NOT_YET ? WAITS : answer_ended(order, code);
    }
    sum_up(order, bytes, got);
    snprintf(text, sizeof text, "ok %lu %lu", order->done, order->b * 65536 + order->a);
    return answer(order, text);
}

static enum progress do_register(struct order *order) {
    return answer_code(order, p2pos_register(client, word(order, 1), NULL, REQUEST_MS));
}

static enum progress do_unregister(struct order *order) {
    return answer_code(order, p2pos_unregister(client, word(order, 1), REQUEST_MS));
}

struct names {
    unsigned count;
    size_t used;
    char text[ANSWER_BYTES_MAX - 64];
};

static void add_name(void *context, const char *peer, const char *petname, int is_connected) {
    struct names *names = context;
    (void)peer;
    (void)is_connected;
    names->count++;
    size_t size = strlen(petname);
    if (names->used + size + 2 < sizeof names->text) {
        names->text[names->used++] = ' ';
        memcpy(names->text + names->used, petname, size + 1);
        names->used += size;
    }
}

static enum progress do_contacts(struct order *order) {
    static struct names names;
    static char text[ANSWER_BYTES_MAX];
    memset(&names, 0, sizeof names);
    int code = p2pos_contacts(client, add_name, &names, REQUEST_MS);
    if (code != P2POS_OK) {
        return answer_code(order, code);
    }
    snprintf(text, sizeof text, "ok %u%s", names.count, names.text);
    return answer(order, text);
}

static enum progress do_subscribe(struct order *order) {
    unsigned kinds = 0;
    for (size_t i = 1; i < order->word_count; i++) {
        const char *kind = word(order, i);
        kinds |= strcmp(kind, "peer") == 0 ? P2POS_CHANGE_PEER : strcmp(kind, "contact") == 0 ? P2POS_CHANGE_CONTACT : P2POS_CHANGE_PATH;
    }
    return answer_code(order, p2pos_subscribe(client, kinds, REQUEST_MS));
}

static enum progress do_event(struct order *order) {
    static const char *const kinds[] = {"unknown", "peer", "contact", "unknown", "path"};
    char text[400];
    p2pos_change change;
    if (p2pos_next_change(client, &change, 0) != P2POS_OK) {
        return WAITS;
    }
    snprintf(text, sizeof text, "ok %s %s %s %u", kinds[change.kind], change.what[0] != '\0' ? change.what : "-",
             change.petname[0] != '\0' ? change.petname : "-", (unsigned)change.missed);
    return answer(order, text);
}

static enum progress do_log(struct order *order) {
    static const char *const levels[] = {"", "debug", "info", "warn", "error"};
    for (int level = P2POS_DEBUG; level <= P2POS_ERROR; level++) {
        if (strcmp(word(order, 1), levels[level]) == 0) {
            (void)p2pos_log(client, (enum p2pos_level)level, order->rest);
        }
    }
    return answer(order, "ok");
}

static enum progress do_status(struct order *order) {
    static const char *const healths[] = {"", "ok", "degraded", "waiting-network"};
    for (int health = P2POS_HEALTH_OK; health <= P2POS_HEALTH_WAITING_NETWORK; health++) {
        if (strcmp(word(order, 1), healths[health]) == 0) {
            (void)p2pos_status(client, (enum p2pos_health)health, order->rest);
        }
    }
    return answer(order, "ok");
}

static enum progress do_leave(struct order *order) {
    (void)order;
    is_leaving = 1;
    return WAITS;
}

static enum progress do_exit(struct order *order) {
    _exit((int)number(order, 1));
}

static const struct {
    const char *name;
    enum progress (*obey)(struct order *order);
    int needs_subject;
} book[] = {
    {"hello", do_hello, 0},       {"take", do_take, 0},           {"open", do_open, 0},         {"write", do_write, 1},
    {"read", do_read, 1},         {"echo", do_echo, 1},           {"finish", do_finish, 1},     {"reset", do_reset, 1},
    {"stop", do_stop, 1},         {"closed", do_closed, 1},       {"send", do_send, 1},         {"receive", do_receive, 1},
    {"register", do_register, 0}, {"unregister", do_unregister, 0}, {"contacts", do_contacts, 0}, {"subscribe", do_subscribe, 0},
    {"event", do_event, 0},       {"log", do_log, 0},             {"status", do_status, 0},     {"leave", do_leave, 0},
    {"exit", do_exit, 0},
};

static enum progress obey(struct order *order) {
    for (size_t i = 0; i < sizeof book / sizeof book[0]; i++) {
        if (strcmp(word(order, 0), book[i].name) == 0) {
            return book[i].needs_subject && order->subject == NULL ? answer(order, "unsupported") : book[i].obey(order);
        }
    }
    return answer(order, "unsupported");
}

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
    drop_subject(order->subject);
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
                subject->is_closed = 1;
                subject->code = event.code;
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
