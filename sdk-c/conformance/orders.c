/* The orders of tools/conformance/ORDERS.md. Each is tried, with calls that do not wait, until it is answered. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.h"

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

const char *word(const struct order *order, size_t index) {
    return index < order->word_count ? order->words[index] : "";
}

static unsigned long number(const struct order *order, size_t index) {
    return strtoul(word(order, index), NULL, 10);
}

static enum progress do_hello(struct order *order) {
    char text[64];
    snprintf(text, sizeof text, "ok libp2pos %s", p2pos_version());
    return answer(order, text);
}

static enum progress take_subject(struct order *order, struct subject *subject, int with_peer) {
    char text[400];
    const p2pos_info *info = &subject->info;
    set_subject(order, subject);
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
    struct subject *oldest = oldest_offer(kind_of(word(order, 1)));
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

enum progress obey(struct order *order) {
    for (size_t i = 0; i < sizeof book / sizeof book[0]; i++) {
        if (strcmp(word(order, 0), book[i].name) == 0) {
            return book[i].needs_subject && order->subject == NULL ? answer(order, "unsupported") : book[i].obey(order);
        }
    }
    return answer(order, "unsupported");
}
