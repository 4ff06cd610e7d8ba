/* What the program wants of a session (SPEC.md sections 4 to 8): requests, and the ways to end a stream.
 *
 * An entry must not be touched after a p2pos_session_say that failed, unless it is one that the program holds. */
#include "session.h"

#include <string.h>

static uint32_t next_rid(struct p2pos_session *session) {
    session->rid++;
    if (session->rid == 0) {
        session->rid = 1;
    }
    return session->rid;
}

int p2pos_session_ask(struct p2pos_session *session, enum p2pos_body body, const void *message) {
    uint32_t rid = next_rid(session);
    memset(&session->request, 0, sizeof session->request);
    if (!p2pos_session_say(session, body, message, rid)) {
        return session->ended;
    }
    session->request.rid = rid;
    session->request.wants_contacts = body == P2POS_BODY_CONTACT_LIST;
    return P2POS_OK;
}

void p2pos_session_give_up(struct p2pos_session *session) {
    p2pos_pb_Cancel cancel = {session->request.rid};
    if (session->request.rid != 0 && !session->request.is_answered) {
        p2pos_session_say(session, P2POS_BODY_CANCEL, &cancel, 0);
    }
    session->request.rid = 0;
}

void p2pos_session_say_ready(struct p2pos_session *session) {
    p2pos_pb_Ready ready = {0};
    if (!session->is_ready) {
        session->is_ready = true;
        p2pos_session_say(session, P2POS_BODY_READY, &ready, 0);
    }
}

int p2pos_session_open(struct p2pos_session *session, p2pos_pb_Open *open, enum p2pos_kind kind, struct p2pos_entry **made) {
    uint32_t id = session->highest_own == 0 ? 1 : session->highest_own + 2;
    *made = NULL;
    if (session->ended != 0) {
        return session->ended;
    }
    if (session->live >= session->streams_max || session->entries >= P2POS_ENTRIES_MAX || id < session->highest_own) {
        return P2POS_ERR_STREAM_LIMIT;
    }
    struct p2pos_entry *entry = p2pos_session_new_entry(session, id, kind);
    if (entry == NULL) {
        return P2POS_ERR_MEMORY;
    }
    open->stream = id;
    open->kind = kind == P2POS_KIND_FLOW ? p2pos_pb_Kind_DATAGRAM : p2pos_pb_Kind_STREAM;
    open->attachment = kind == P2POS_KIND_DETACHED ? p2pos_pb_Attachment_SOCKET : p2pos_pb_Attachment_MUX;
    session->highest_own = id;
    entry->stage = P2POS_STAGE_OPENING;
    entry->rid = next_rid(session);
    p2pos_text_into(entry->info.peer, sizeof entry->info.peer, open->peer.data, open->peer.size);
    if (!p2pos_session_say(session, P2POS_BODY_OPEN, open, entry->rid)) {
        p2pos_session_remove_entry(session, entry);
        return session->ended;
    }
    *made = entry;
    return P2POS_OK;
}

void p2pos_session_accept(struct p2pos_session *session, struct p2pos_entry *entry) {
    p2pos_pb_Accept accept = {entry->id};
    uint32_t rid = entry->rid;
    p2pos_session_drop_offer(session, entry);
    entry->stage = P2POS_STAGE_OPEN;
    entry->rid = 0;
    if (session->first_offer != NULL) {
        p2pos_session_note(session, P2POS_EVENT_OFFER);
    }
    if (p2pos_session_say(session, P2POS_BODY_ACCEPT, &accept, rid) && p2pos_entry_is_readable(entry)) {
        p2pos_session_note_entry(session, entry, P2POS_EVENT_READABLE);
    }
}

void p2pos_session_reject(struct p2pos_session *session, struct p2pos_entry *entry, int code, const char *reason) {
    p2pos_pb_Reject reject;
    memset(&reject, 0, sizeof reject);
    reject.stream = entry->id;
    reject.code = (uint64_t)(code == P2POS_ERR_NOT_READY ? code : P2POS_ERR_REFUSED);
    reject.reason = p2pos_text(reason);
    uint32_t rid = entry->rid;
    p2pos_session_remove_entry(session, entry);
    if (session->first_offer != NULL) {
        p2pos_session_note(session, P2POS_EVENT_OFFER);
    }
    p2pos_session_say(session, P2POS_BODY_REJECT, &reject, rid);
}

void p2pos_session_after_read(struct p2pos_session *session, struct p2pos_entry *entry) {
    uint32_t told = p2pos_entry_credit_to_give(entry);
    p2pos_pb_Window window = {entry->id, told};
    if (told > 0 && !p2pos_session_say(session, P2POS_BODY_WINDOW, &window, 0)) {
        return;
    }
    if (p2pos_entry_is_readable(entry)) {
        p2pos_session_note_entry(session, entry, P2POS_EVENT_READABLE);
    }
}

static bool is_over(const struct p2pos_session *session, const struct p2pos_entry *entry) {
    return session->ended != 0 || entry->is_closed || entry->end.source != P2POS_SOURCE_NONE;
}

void p2pos_session_close_write(struct p2pos_session *session, struct p2pos_entry *entry) {
    if (is_over(session, entry) || entry->fin_sent || entry->stop.source != P2POS_SOURCE_NONE) {
        entry->fin_sent = true;
        return;
    }
    p2pos_pb_Data fin;
    memset(&fin, 0, sizeof fin);
    fin.stream = entry->id;
    fin.fin = true;
    entry->fin_sent = true;
    p2pos_session_say(session, P2POS_BODY_DATA, &fin, 0);
}

void p2pos_session_reset(struct p2pos_session *session, struct p2pos_entry *entry, int code, uint32_t app_code) {
    if (is_over(session, entry)) {
        return;
    }
    p2pos_pb_Reset reset = {entry->id, (uint64_t)(code < 100 ? P2POS_ERR_APP : code), app_code};
    struct p2pos_end end = {P2POS_SOURCE_LOCAL, code, app_code};
    p2pos_entry_finish(session->allocator, entry, end);
    if (!p2pos_session_say(session, P2POS_BODY_RESET, &reset, 0)) {
        return;
    }
    p2pos_session_note_entry(session, entry, P2POS_EVENT_READABLE);
    if (entry->wants_room) {
        p2pos_session_wants_room(session, entry, false);
        p2pos_session_note_entry(session, entry, P2POS_EVENT_WRITABLE);
    }
}

void p2pos_session_stop(struct p2pos_session *session, struct p2pos_entry *entry, uint32_t app_code) {
    bool is_told = is_over(session, entry) || entry->stop_sent || entry->fin_received;
    p2pos_pb_StopSending stop = {entry->id, P2POS_ERR_APP, app_code};
    entry->stop_sent = true;
    p2pos_entry_forget_input(session->allocator, entry);
    if (!is_told) {
        p2pos_session_say(session, P2POS_BODY_STOP_SENDING, &stop, 0);
    }
}

void p2pos_session_release(struct p2pos_session *session, struct p2pos_entry *entry) {
    if (entry->stage == P2POS_STAGE_OFFERED) {
        p2pos_session_reject(session, entry, P2POS_ERR_REFUSED, "the plugin does not want it");
        return;
    }
    if (entry->stage == P2POS_STAGE_OPENING && !entry->is_closed && !entry->is_given_up) {
        p2pos_pb_Cancel cancel = {entry->rid};
        entry->is_given_up = true;
        p2pos_session_say(session, P2POS_BODY_CANCEL, &cancel, 0);
    } else if (p2pos_entry_is_flow(entry)) {
        p2pos_session_reset(session, entry, P2POS_ERR_APP, 0);
    } else if (!p2pos_entry_is_detached(entry)) {
        p2pos_session_close_write(session, entry);
        p2pos_session_stop(session, entry, 0);
    }
    if (entry->is_closed || session->ended != 0) {
        p2pos_session_remove_entry(session, entry);
        return;
    }
    /* It stays until the daemon's last word, and costs no more than its struct. */
    entry->is_released = true;
    entry->user = NULL;
    p2pos_session_wants_room(session, entry, false);
    p2pos_entry_forget_input(session->allocator, entry);
}

/* One datagram of each flow that has some; false: none had any, or there is no more room. */
static bool frame_round(struct p2pos_session *session, size_t bytes_max) {
    bool is_any = false;
    for (size_t i = 0; i < P2POS_BUCKETS; i++) {
        for (struct p2pos_entry *entry = session->buckets[i]; entry != NULL; entry = entry->next) {
            if (entry->packets_out.first == NULL) {
                continue;
            }
            if (p2pos_buffer_used(&session->out) >= bytes_max) {
                return false;
            }
            struct p2pos_packet *packet = p2pos_entry_unqueue(&entry->packets_out);
            p2pos_pb_Datagram datagram = {entry->id, {packet->bytes, packet->size}};
            entry->bytes_out += packet->size;
            bool is_said = p2pos_session_say(session, P2POS_BODY_DATAGRAM, &datagram, 0);
            p2pos_free(session->allocator, packet);
            if (!is_said) {
                return false;
            }
            is_any = true;
        }
    }
    session->has_packets = is_any;
    return is_any;
}

void p2pos_session_frame_datagrams(struct p2pos_session *session, size_t bytes_max) {
    while (session->has_packets && session->ended == 0 && frame_round(session, bytes_max)) {
        /* round after round, so that flows take turns */
    }
}
