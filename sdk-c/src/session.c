/* The life of a session: input cut into frames, the table of streams, output, events, the end; see session.h. */
#include "session.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void p2pos_session_init(struct p2pos_session *session, const p2pos_allocator *allocator) {
    memset(session, 0, sizeof *session);
    session->allocator = allocator;
    session->frame_in_max = session->frame_out_max = P2POS_FRAME_BYTES_MAX;
    session->data_max = 65536;
    session->window_in = session->window_out = 256 * 1024;
    session->streams_max = 256;
    session->protocols_max = 64;
    session->log_line_max = 65536;
}

void p2pos_session_free(struct p2pos_session *session) {
    const p2pos_allocator *allocator = session->allocator;
    for (size_t i = 0; i < P2POS_BUCKETS; i++) {
        while (session->buckets[i] != NULL) {
            struct p2pos_entry *entry = session->buckets[i];
            session->buckets[i] = entry->next;
            p2pos_entry_free(allocator, entry);
        }
    }
    while (session->first_change != NULL) {
        struct p2pos_change_node *node = session->first_change;
        session->first_change = node->next;
        p2pos_free(allocator, node);
    }
    p2pos_buffer_free(allocator, &session->in);
    p2pos_buffer_free(allocator, &session->out);
    p2pos_buffer_free(allocator, &session->grants);
    p2pos_free(allocator, session->plugin_id);
}

/* --- input --- */

uint8_t *p2pos_session_room(struct p2pos_session *session, size_t *size) {
    size_t length = 0;
    bool is_whole;
    size_t used = p2pos_buffer_used(&session->in);
    size_t wanted = P2POS_INPUT_BYTES;
    p2pos_buffer_shrink(session->allocator, &session->in, 4 * P2POS_INPUT_BYTES);
    if (used > 0 && p2pos_measure(session->in.data + session->in.start, used, session->frame_in_max, &length, &is_whole) == 0 &&
        length + P2POS_PREFIX_BYTES > used + wanted) {
        wanted = length + P2POS_PREFIX_BYTES - used;
    }
    if (!p2pos_buffer_reserve(session->allocator, &session->in, wanted)) {
        p2pos_session_fail(session, P2POS_ERR_MEMORY, "no memory for %zu bytes of input", wanted);
        return NULL;
    }
    *size = session->in.capacity - session->in.end;
    return session->in.data + session->in.end;
}

void p2pos_session_received(struct p2pos_session *session, size_t size, uint64_t now_ms) {
    struct p2pos_buffer *in = &session->in;
    in->end += size;
    session->heard_ms = session->pinged_ms = now_ms;
    while (session->ended == 0) {
        size_t length;
        bool is_whole;
        const uint8_t *bytes = in->data + in->start;
        int code = p2pos_measure(bytes, p2pos_buffer_used(in), session->frame_in_max, &length, &is_whole);
        if (code != 0) {
            p2pos_session_fail(session, code, "a frame whose length is 0 or over %u bytes [S-FRAME-2]",
                               (unsigned)session->frame_in_max);
            return;
        }
        if (!is_whole) {
            return;
        }
        if (session->phase == P2POS_PHASE_OPEN) {
            p2pos_session_frame(session, bytes + P2POS_PREFIX_BYTES, length);
        } else {
            p2pos_session_greet(session, bytes + P2POS_PREFIX_BYTES, length);
        }
        p2pos_buffer_drop(in, P2POS_PREFIX_BYTES + length);
    }
}

void p2pos_session_eof(struct p2pos_session *session) {
    if (session->ended == 0) {
        p2pos_problem problem;
        p2pos_problem_set(&problem, P2POS_ERR_SHUTTING_DOWN, "the daemon closed the connection");
        p2pos_session_end(session, &problem);
    }
}

void p2pos_session_tick(struct p2pos_session *session, uint64_t now_ms) {
    if (session->ended != 0 || session->phase != P2POS_PHASE_OPEN) {
        return;
    }
    if (now_ms >= session->heard_ms + P2POS_DEAD_AFTER_MS) {
        p2pos_session_fail(session, P2POS_ERR_SHUTTING_DOWN, "the daemon said nothing for %u s", P2POS_DEAD_AFTER_MS / 1000);
    } else if (now_ms >= session->pinged_ms + P2POS_PING_AFTER_MS) {
        p2pos_pb_Ping ping = {now_ms};
        session->pinged_ms = now_ms;
        p2pos_session_say(session, P2POS_BODY_PING, &ping, 0);
    }
}

uint64_t p2pos_session_deadline(const struct p2pos_session *session) {
    uint64_t ping = session->pinged_ms + P2POS_PING_AFTER_MS;
    uint64_t dead = session->heard_ms + P2POS_DEAD_AFTER_MS;
    return ping < dead ? ping : dead;
}

/* --- output --- */

bool p2pos_session_say(struct p2pos_session *session, enum p2pos_body body, const void *message, uint32_t rid) {
    if (session->ended != 0) {
        return false;
    }
    p2pos_problem problem;
    if (!p2pos_encode(session->allocator, &session->out, body, message, rid)) {
        p2pos_problem_set(&problem, P2POS_ERR_MEMORY, "no memory for %s", p2pos_body_name(body));
        p2pos_session_end(session, &problem);
        return false;
    }
    if (p2pos_buffer_used(&session->out) > P2POS_CONTROL_BYTES_MAX) {
        p2pos_problem_set(&problem, P2POS_ERR_SLOW_CONSUMER, "the daemon asks and does not read the answers");
        p2pos_session_end(session, &problem);
        return false;
    }
    return true;
}

void p2pos_session_fail(struct p2pos_session *session, int code, const char *format, ...) {
    if (session->ended != 0) {
        return;
    }
    p2pos_problem problem;
    char text[sizeof problem.message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    p2pos_problem_set(&problem, code, "%s", text);
    if (session->phase == P2POS_PHASE_OPEN && code >= 100) {
        p2pos_pb_Error error;
        memset(&error, 0, sizeof error);
        error.code = (uint64_t)code;
        error.name = p2pos_text(p2pos_error_name(code));
        error.message = p2pos_text(problem.message);
        error.hint = p2pos_text(problem.hint);
        p2pos_session_say(session, P2POS_BODY_ERROR, &error, 0);
    }
    p2pos_session_end(session, &problem);
}

void p2pos_session_end(struct p2pos_session *session, const p2pos_problem *problem) {
    if (session->ended != 0) {
        return;
    }
    session->ended = problem->code;
    session->end_problem = *problem;
    struct p2pos_end end = {P2POS_SOURCE_SESSION, problem->code, 0};
    for (size_t i = 0; i < P2POS_BUCKETS; i++) {
        struct p2pos_entry *next;
        for (struct p2pos_entry *entry = session->buckets[i]; entry != NULL; entry = next) {
            next = entry->next;
            if (entry->is_closed) {
                continue;
            }
            p2pos_entry_finish(session->allocator, entry, end);
            entry->closed.code = entry->end.code;
            entry->closed.app_code = entry->end.app_code;
            entry->closed.bytes_in = entry->bytes_in;
            entry->closed.bytes_out = entry->bytes_out;
            p2pos_session_close_entry(session, entry);
        }
    }
    session->first_offer = session->last_offer = NULL;
}

void p2pos_session_close(struct p2pos_session *session) {
    p2pos_pb_GoAway go_away;
    memset(&go_away, 0, sizeof go_away);
    go_away.code = P2POS_ERR_SHUTTING_DOWN;
    if (session->phase == P2POS_PHASE_OPEN) {
        p2pos_session_say(session, P2POS_BODY_GO_AWAY, &go_away, 0);
    }
    p2pos_problem problem;
    p2pos_problem_set(&problem, P2POS_ERR_SHUTTING_DOWN, "the session was closed by this side");
    p2pos_session_end(session, &problem);
}

void p2pos_session_ask_to_end(struct p2pos_session *session, uint32_t deadline_ms) {
    if (!session->is_asked_to_end) {
        session->is_asked_to_end = true;
        session->end_deadline_ms = deadline_ms;
        p2pos_session_note(session, P2POS_EVENT_SHUTDOWN);
    }
}

/* --- the table --- */

static struct p2pos_entry **bucket_of(struct p2pos_session *session, uint32_t id) {
    return &session->buckets[(id >> 1) % P2POS_BUCKETS];
}

struct p2pos_entry *p2pos_session_find(struct p2pos_session *session, uint32_t id) {
    struct p2pos_entry *entry = *bucket_of(session, id);
    while (entry != NULL && entry->id != id) {
        entry = entry->next;
    }
    return entry;
}

struct p2pos_entry *p2pos_session_new_entry(struct p2pos_session *session, uint32_t id, enum p2pos_kind kind) {
    if (session->entries >= P2POS_ENTRIES_MAX) {
        return NULL;
    }
    struct p2pos_entry *entry = p2pos_alloc(session->allocator, sizeof *entry);
    if (entry == NULL) {
        return NULL;
    }
    struct p2pos_entry **bucket = bucket_of(session, id);
    entry->id = id;
    entry->info.kind = kind;
    entry->credit = session->window_out;
    entry->allowance = entry->window = session->window_in;
    entry->next = *bucket;
    *bucket = entry;
    session->entries++;
    session->live++;
    return entry;
}

static void leave_events(struct p2pos_session *session, struct p2pos_entry *entry) {
    struct p2pos_entry *before = NULL;
    if (!entry->has_place) {
        return;
    }
    for (struct p2pos_entry *at = session->first_event; at != entry; at = at->next_event) {
        before = at;
    }
    if (before == NULL) {
        session->first_event = entry->next_event;
    } else {
        before->next_event = entry->next_event;
    }
    if (session->last_event == entry) {
        session->last_event = before;
    }
    entry->has_place = false;
    entry->next_event = NULL;
}

void p2pos_session_drop_offer(struct p2pos_session *session, struct p2pos_entry *entry) {
    struct p2pos_entry *before = NULL;
    struct p2pos_entry *at = session->first_offer;
    while (at != NULL && at != entry) {
        before = at;
        at = at->next_offer;
    }
    if (at == NULL) {
        return;
    }
    if (before == NULL) {
        session->first_offer = entry->next_offer;
    } else {
        before->next_offer = entry->next_offer;
    }
    if (session->last_offer == entry) {
        session->last_offer = before;
    }
    entry->next_offer = NULL;
}

void p2pos_session_remove_entry(struct p2pos_session *session, struct p2pos_entry *entry) {
    struct p2pos_entry **at = bucket_of(session, entry->id);
    while (*at != entry) {
        at = &(*at)->next;
    }
    *at = entry->next;
    leave_events(session, entry);
    p2pos_session_drop_offer(session, entry);
    p2pos_session_wants_room(session, entry, false);
    if (!entry->is_closed) {
        session->live--;
    }
    if (session->direct.entry == entry) {
        session->direct.entry = NULL;
    }
    session->entries--;
    p2pos_entry_free(session->allocator, entry);
}

void p2pos_session_close_entry(struct p2pos_session *session, struct p2pos_entry *entry) {
    if (!entry->is_closed) {
        entry->is_closed = true;
        session->live--;
    }
    entry->rid = 0;
    if (entry->is_released) {
        p2pos_session_remove_entry(session, entry);
        return;
    }
    if (entry->stage == P2POS_STAGE_OFFERED) {
        /* Nobody has seen it yet, and nobody will. */
        p2pos_session_remove_entry(session, entry);
        return;
    }
    p2pos_session_note_entry(session, entry, P2POS_EVENT_READABLE);
    p2pos_session_note_entry(session, entry, P2POS_EVENT_CLOSED);
}

/* --- events --- */

void p2pos_session_note(struct p2pos_session *session, enum p2pos_event_kind kind) {
    session->events |= 1u << kind;
}

void p2pos_session_note_entry(struct p2pos_session *session, struct p2pos_entry *entry, enum p2pos_event_kind kind) {
    if (entry->is_released || entry->stage == P2POS_STAGE_OFFERED ||
        (p2pos_entry_is_detached(entry) && kind == P2POS_EVENT_READABLE)) {
        return;
    }
    entry->events |= 1u << kind;
    if (entry->has_place) {
        return;
    }
    entry->has_place = true;
    if (session->last_event == NULL) {
        session->first_event = entry;
    } else {
        session->last_event->next_event = entry;
    }
    session->last_event = entry;
}

bool p2pos_session_has_events(const struct p2pos_session *session) {
    return session->events != 0 || session->first_event != NULL || session->ended != 0;
}

/* Takes one bit, the lowest kind first: opened, readable, writable, closed. */
static enum p2pos_event_kind take_bit(unsigned *bits) {
    for (unsigned kind = 1; kind < 31; kind++) {
        if ((*bits & 1u << kind) != 0) {
            *bits &= ~(1u << kind);
            return (enum p2pos_event_kind)kind;
        }
    }
    return P2POS_EVENT_NONE;
}

p2pos_event p2pos_session_next_event(struct p2pos_session *session) {
    p2pos_event event = {P2POS_EVENT_NONE, 0, {0}};
    if (session->events != 0) {
        event.kind = take_bit(&session->events);
        event.code = event.kind == P2POS_EVENT_COMPLAINT ? session->complaint.code : 0;
        return event;
    }
    while (session->first_event != NULL) {
        struct p2pos_entry *entry = session->first_event;
        if (entry->events == 0) {
            leave_events(session, entry);
            continue;
        }
        event.kind = take_bit(&entry->events);
        event.stream.id = entry->id;
        if (event.kind == P2POS_EVENT_CLOSED) {
            event.code = entry->closed.code;
        }
        if (entry->events == 0) {
            leave_events(session, entry);
        }
        return event;
    }
    if (session->ended != 0) {
        event.kind = P2POS_EVENT_ENDED;
        event.code = session->ended;
    }
    return event;
}

void p2pos_session_wants_room(struct p2pos_session *session, struct p2pos_entry *entry, bool wants) {
    if (entry->wants_room != wants) {
        entry->wants_room = wants;
        session->wanting = wants ? session->wanting + 1 : session->wanting - 1;
    }
}

void p2pos_session_tell_writable(struct p2pos_session *session) {
    for (size_t i = 0; i < P2POS_BUCKETS && session->wanting > 0; i++) {
        for (struct p2pos_entry *entry = session->buckets[i]; entry != NULL; entry = entry->next) {
            uint64_t room;
            if (entry->wants_room && (p2pos_entry_capacity(entry, &room) != 0 || room > 0)) {
                p2pos_session_wants_room(session, entry, false);
                p2pos_session_note_entry(session, entry, P2POS_EVENT_WRITABLE);
            }
        }
    }
}
