/* What the daemon says after Welcome (SPEC.md sections 3 to 8): each frame judged, and put where the program finds it.
 *
 * The daemon is not trusted with our memory: everything that it can make us keep has a limit, and what breaks a rule ends the session
 * with the rule's name. An entry must not be touched after a p2pos_session_say that failed, since the end of the session frees some. */
#include "session.h"

#include <string.h>

/* The stream, or NULL if it is closed; an id that was never opened ends the session [S-STREAM-9]. */
static struct p2pos_entry *find(struct p2pos_session *session, uint64_t id, const char *what) {
    uint32_t number = (uint32_t)id;
    struct p2pos_entry *entry = p2pos_session_find(session, number);
    if (entry == NULL) {
        uint32_t highest = number % 2 == 1 ? session->highest_own : session->highest_theirs;
        if (number == 0 || number > highest) {
            p2pos_session_fail(session, P2POS_ERR_PROTOCOL, "%s on stream %u, which was never opened [S-STREAM-9]", what,
                               (unsigned)number);
        }
        return NULL;
    }
    return entry->is_closed ? NULL : entry;
}

/* Puts payload where a reader waits for it, and the rest into the stream's buffer. False: no memory. */
static bool store(struct p2pos_session *session, struct p2pos_entry *entry, struct p2pos_view payload) {
    struct p2pos_direct *direct = &session->direct;
    if (payload.size == 0) {
        return true; /* fin alone */
    }
    if (direct->entry == entry && p2pos_buffer_used(&entry->input) == 0 && direct->got < direct->size) {
        size_t room = direct->size - direct->got;
        size_t count = payload.size < room ? payload.size : room;
        memcpy(direct->bytes + direct->got, payload.data, count);
        direct->got += count;
        entry->consumed += count;
        payload.data += count;
        payload.size -= count;
    }
    return p2pos_buffer_put(session->allocator, &entry->input, payload.data, payload.size);
}

static void on_data(struct p2pos_session *session, const struct p2pos_data_frame *data) {
    struct p2pos_entry *entry = find(session, data->stream, "Data");
    if (entry == NULL) {
        return;
    }
    if (entry->info.kind != P2POS_KIND_STREAM) {
        p2pos_session_fail(session, P2POS_ERR_PROTOCOL, "Data on %u, which is no stream of this socket [S-DGRAM-3] [S-ATTACH-4]",
                           (unsigned)entry->id);
        return;
    }
    if (entry->fin_received) {
        p2pos_session_fail(session, P2POS_ERR_PROTOCOL, "Data on stream %u after its fin [S-STREAM-5]", (unsigned)entry->id);
        return;
    }
    if (data->payload.size > session->data_max) {
        p2pos_session_fail(session, P2POS_ERR_FRAME_TOO_LARGE, "Data with %zu bytes, the limit is %u [S-STREAM-11]",
                           data->payload.size, (unsigned)session->data_max);
        return;
    }
    bool is_read = entry->end.source == P2POS_SOURCE_NONE && !entry->stop_sent;
    if (is_read && data->payload.size > entry->allowance) {
        p2pos_session_reset(session, entry, P2POS_ERR_FLOW_CONTROL, 0);
        return;
    }
    if (data->payload.size == 0 && !data->fin) {
        return;
    }
    entry->bytes_in += data->payload.size;
    entry->fin_received = data->fin;
    if (!is_read) {
        return;
    }
    entry->allowance -= data->payload.size;
    if (!store(session, entry, data->payload)) {
        p2pos_session_reset(session, entry, P2POS_ERR_MEMORY, 0);
        return;
    }
    p2pos_session_note_entry(session, entry, P2POS_EVENT_READABLE);
}

static void on_datagram(struct p2pos_session *session, const p2pos_pb_Datagram *datagram) {
    struct p2pos_entry *entry = find(session, datagram->flow, "Datagram");
    if (entry == NULL) {
        return;
    }
    if (!p2pos_entry_is_flow(entry)) {
        p2pos_session_fail(session, P2POS_ERR_PROTOCOL, "Datagram on stream %u [S-DGRAM-3]", (unsigned)entry->id);
        return;
    }
    if (entry->end.source != P2POS_SOURCE_NONE || entry->is_released) {
        return;
    }
    entry->bytes_in += datagram->payload.size;
    if (p2pos_entry_queue(session->allocator, entry, &entry->packets_in, datagram->payload)) {
        p2pos_session_note_entry(session, entry, P2POS_EVENT_READABLE);
    }
}

static void on_window(struct p2pos_session *session, const p2pos_pb_Window *window) {
    struct p2pos_entry *entry = find(session, window->stream, "Window");
    if (entry == NULL) {
        return;
    }
    if (entry->info.kind != P2POS_KIND_STREAM) {
        p2pos_session_fail(session, P2POS_ERR_PROTOCOL, "Window on %u, which counts no credit [S-DGRAM-3] [S-ATTACH-4]",
                           (unsigned)entry->id);
        return;
    }
    if (entry->end.source != P2POS_SOURCE_NONE) {
        return;
    }
    entry->credit += (uint32_t)window->bytes;
    if (entry->credit > P2POS_CREDIT_BYTES_MAX) {
        p2pos_session_reset(session, entry, P2POS_ERR_FLOW_CONTROL, 0);
    }
}

static void wake(struct p2pos_session *session, struct p2pos_entry *entry) {
    p2pos_session_note_entry(session, entry, P2POS_EVENT_READABLE);
    if (entry->wants_room) {
        p2pos_session_wants_room(session, entry, false);
        p2pos_session_note_entry(session, entry, P2POS_EVENT_WRITABLE);
    }
}

static void on_reset(struct p2pos_session *session, const p2pos_pb_Reset *reset) {
    struct p2pos_entry *entry = find(session, reset->stream, "Reset");
    if (entry == NULL) {
        return;
    }
    uint32_t code = (uint32_t)reset->code;
    struct p2pos_end end = {P2POS_SOURCE_REMOTE, code >= 100 && code <= 999 ? (int)code : P2POS_ERR_APP,
                            (uint32_t)reset->app_code};
    p2pos_entry_finish(session->allocator, entry, end);
    wake(session, entry);
}

static void on_stop(struct p2pos_session *session, const p2pos_pb_StopSending *stop) {
    struct p2pos_entry *entry = find(session, stop->stream, "StopSending");
    if (entry == NULL) {
        return;
    }
    if (entry->info.kind != P2POS_KIND_STREAM) {
        p2pos_session_fail(session, P2POS_ERR_PROTOCOL, "StopSending on %u [S-DGRAM-3] [S-ATTACH-4]", (unsigned)entry->id);
        return;
    }
    if (entry->stop.source == P2POS_SOURCE_NONE) {
        entry->stop.source = P2POS_SOURCE_REMOTE;
        entry->stop.code = P2POS_ERR_STOPPED;
        entry->stop.app_code = (uint32_t)stop->app_code;
    }
    if (entry->wants_room) {
        p2pos_session_wants_room(session, entry, false);
        p2pos_session_note_entry(session, entry, P2POS_EVENT_WRITABLE);
    }
}

static void on_closed(struct p2pos_session *session, const p2pos_pb_StreamClosed *closed) {
    struct p2pos_entry *entry = find(session, closed->stream, "StreamClosed");
    if (entry == NULL) {
        return;
    }
    uint32_t told = (uint32_t)closed->code;
    int code = told >= 100 && told <= 999 ? (int)told : P2POS_ERR_PATH_LOST;
    bool is_finished = closed->cause == p2pos_pb_StreamClosed_Cause_FINISHED;
    entry->closed.cause = closed->cause <= P2POS_RESET_BY_THEM ? (enum p2pos_cause)closed->cause : P2POS_CAUSE_UNKNOWN;
    entry->closed.code = is_finished ? 0 : code;
    entry->closed.app_code = (uint32_t)closed->app_code;
    entry->closed.bytes_in = closed->bytes_in;
    entry->closed.bytes_out = closed->bytes_out;
    if (!is_finished && !(entry->fin_received && entry->fin_sent)) {
        bool is_ours = closed->cause == p2pos_pb_StreamClosed_Cause_RESET_LOCAL;
        struct p2pos_end end = {is_ours ? P2POS_SOURCE_LOCAL : P2POS_SOURCE_REMOTE, code, entry->closed.app_code};
        /* What had arrived stays readable, whoever ended it: nobody here asked to forget it. */
        if (entry->end.source == P2POS_SOURCE_NONE) {
            entry->end = end;
        }
    }
    if (entry->wants_room) {
        p2pos_session_wants_room(session, entry, false);
        p2pos_session_note_entry(session, entry, P2POS_EVENT_WRITABLE);
    }
    p2pos_session_close_entry(session, entry);
}

static enum p2pos_path path_of(uint64_t path) {
    return path <= P2POS_PATH_RELAYED ? (enum p2pos_path)path : P2POS_PATH_UNKNOWN;
}

static bool fits(struct p2pos_view text, size_t room) {
    return text.size < room;
}

static void on_incoming(struct p2pos_session *session, uint32_t rid, const p2pos_pb_Incoming *incoming) {
    uint32_t id = (uint32_t)incoming->stream;
    if (id == 0 || id % 2 == 1 || id <= session->highest_theirs) {
        p2pos_session_fail(session, P2POS_ERR_PROTOCOL, "stream id %u is not the daemon's to take [S-STREAM-1]", (unsigned)id);
        return;
    }
    for (struct p2pos_entry *at = session->first_offer; at != NULL; at = at->next_offer) {
        if (at->rid == rid) {
            p2pos_session_fail(session, P2POS_ERR_PROTOCOL, "rid %u still waits for its answer [S-REQ-1]", (unsigned)rid);
            return;
        }
    }
    if (rid == 0 || !fits(incoming->peer, P2POS_PEER_BYTES) || !fits(incoming->protocol, P2POS_PROTOCOL_BYTES_MAX)) {
        p2pos_session_fail(session, P2POS_ERR_PROTOCOL, "Incoming without rid, or with names that are none [S-REQ-2]");
        return;
    }
    session->highest_theirs = id;
    bool is_flow = incoming->kind == p2pos_pb_Kind_DATAGRAM;
    bool is_detached = incoming->ticket.size == P2POS_TICKET_BYTES;
    enum p2pos_kind kind = is_flow ? P2POS_KIND_FLOW : is_detached ? P2POS_KIND_DETACHED : P2POS_KIND_STREAM;
    struct p2pos_entry *entry = p2pos_session_new_entry(session, id, kind);
    if (entry == NULL) {
        p2pos_pb_Reject reject;
        memset(&reject, 0, sizeof reject);
        reject.stream = id;
        reject.code = P2POS_ERR_NOT_READY;
        reject.reason = p2pos_text("the plugin has no room for another stream");
        p2pos_session_say(session, P2POS_BODY_REJECT, &reject, rid);
        return;
    }
    entry->stage = P2POS_STAGE_OFFERED;
    entry->rid = rid;
    entry->info.path = path_of(incoming->path);
    entry->info.is_contact = incoming->is_contact ? 1 : 0;
    entry->info.datagram_max = (uint32_t)incoming->datagram_max;
    p2pos_text_into(entry->info.peer, sizeof entry->info.peer, incoming->peer.data, incoming->peer.size);
    p2pos_text_into(entry->info.protocol, sizeof entry->info.protocol, incoming->protocol.data, incoming->protocol.size);
    p2pos_text_into(entry->info.petname, sizeof entry->info.petname, incoming->petname.data, incoming->petname.size);
    if (is_detached) {
        memcpy(entry->ticket, incoming->ticket.data, P2POS_TICKET_BYTES);
    }
    if (session->last_offer == NULL) {
        session->first_offer = entry;
    } else {
        session->last_offer->next_offer = entry;
    }
    session->last_offer = entry;
    p2pos_session_note(session, P2POS_EVENT_OFFER);
}

/* The open that waits for this answer, or NULL. */
static struct p2pos_entry *opening(struct p2pos_session *session, uint32_t rid) {
    for (size_t i = 0; rid != 0 && i < P2POS_BUCKETS; i++) {
        for (struct p2pos_entry *entry = session->buckets[i]; entry != NULL; entry = entry->next) {
            if (entry->stage == P2POS_STAGE_OPENING && entry->rid == rid && !entry->is_closed) {
                return entry;
            }
        }
    }
    return NULL;
}

static void on_opened(struct p2pos_session *session, uint32_t rid, const p2pos_pb_Opened *opened) {
    struct p2pos_entry *entry = find(session, opened->stream, "Opened");
    if (entry == NULL || entry->stage != P2POS_STAGE_OPENING || entry->rid != rid) {
        return;
    }
    entry->rid = 0;
    entry->stage = P2POS_STAGE_OPEN;
    entry->info.path = path_of(opened->path);
    entry->info.datagram_max = (uint32_t)opened->datagram_max;
    p2pos_text_into(entry->info.protocol, sizeof entry->info.protocol, opened->protocol.data, opened->protocol.size);
    bool has_ticket = opened->ticket.size == P2POS_TICKET_BYTES;
    if (has_ticket) {
        memcpy(entry->ticket, opened->ticket.data, P2POS_TICKET_BYTES);
    }
    if (entry->is_given_up) {
        p2pos_session_reset(session, entry, P2POS_ERR_APP, 0);
    } else if (p2pos_entry_is_detached(entry) && !has_ticket) {
        p2pos_session_reset(session, entry, P2POS_ERR_INTERNAL, 0);
    } else if (entry->end.source == P2POS_SOURCE_NONE) {
        p2pos_session_note_entry(session, entry, P2POS_EVENT_OPENED);
    }
}

/* The daemon would not open it: over with that answer [S-STREAM-10]. */
static void open_failed(struct p2pos_session *session, struct p2pos_entry *entry, const p2pos_problem *problem) {
    struct p2pos_end end = {P2POS_SOURCE_REMOTE, problem->code, 0};
    p2pos_entry_finish(session->allocator, entry, end);
    entry->closed.code = entry->end.code;
    if (!entry->is_released && entry->problem == NULL) {
        entry->problem = p2pos_alloc(session->allocator, sizeof *entry->problem);
        if (entry->problem != NULL) {
            *entry->problem = *problem;
        }
    }
    p2pos_session_close_entry(session, entry);
}

static void collect_details(void *context, struct p2pos_frame *frame) {
    if (frame->body == P2POS_BODY_ERROR) {
        frame->message.error.details.each = p2pos_problem_add_detail;
        frame->message.error.details.context = context;
    }
}

static void on_error(struct p2pos_session *session, const struct p2pos_frame *frame, const uint8_t *bytes, size_t size) {
    const p2pos_pb_Error *error = &frame->message.error;
    p2pos_problem problem;
    struct p2pos_frame again;
    p2pos_problem_read(&problem, error->code, error->message, error->hint, error->retry_after_ms);
    /* Once more for the details, whose lines go straight into the problem. It was good the first time. */
    if (error->details.count > 0) {
        p2pos_decode(bytes, size, &again, collect_details, &problem);
    }
    struct p2pos_entry *entry = opening(session, frame->rid);
    if (frame->rid == 0) {
        if (problem.code / 100 == 1) {
            p2pos_session_end(session, &problem);
            return;
        }
        session->complaint = problem;
        p2pos_session_note(session, P2POS_EVENT_COMPLAINT);
    } else if (frame->rid == session->request.rid) {
        session->request.is_answered = true;
        session->request.problem = problem;
    } else if (entry != NULL) {
        open_failed(session, entry, &problem);
    }
}

static void each_contact(void *context, const void *item) {
    const p2pos_pb_Contact *contact = item;
    const struct p2pos_request *request = context;
    char peer[P2POS_PEER_BYTES];
    char petname[P2POS_PETNAME_BYTES_MAX];
    p2pos_text_into(peer, sizeof peer, contact->peer.data, contact->peer.size);
    p2pos_text_into(petname, sizeof petname, contact->petname.data, contact->petname.size);
    request->each(request->context, peer, petname, contact->is_connected ? 1 : 0);
}

static void count_contacts(void *context, struct p2pos_frame *frame) {
    (void)context;
    if (frame->body == P2POS_BODY_CONTACTS) {
        frame->message.contacts.contacts.item_size = sizeof(p2pos_pb_Contact);
    }
}

static void tell_contacts(void *context, struct p2pos_frame *frame) {
    count_contacts(NULL, frame);
    if (frame->body == P2POS_BODY_CONTACTS) {
        frame->message.contacts.contacts.each = each_contact;
        frame->message.contacts.contacts.context = context;
    }
}

/* Done and Contacts: good answers of the request in the slot, or odd answers of an open. */
static void on_answer(struct p2pos_session *session, const struct p2pos_frame *frame, const uint8_t *bytes, size_t size) {
    struct p2pos_request *request = &session->request;
    struct p2pos_entry *entry = opening(session, frame->rid);
    if (frame->rid != 0 && frame->rid == request->rid && !request->is_answered) {
        request->is_answered = true;
        if (request->wants_contacts != (frame->body == P2POS_BODY_CONTACTS)) {
            p2pos_problem_set(&request->problem, P2POS_ERR_INTERNAL, "the daemon answered with %s", p2pos_body_name(frame->body));
        } else if (request->wants_contacts) {
            struct p2pos_frame again;
            p2pos_decode(bytes, size, &again, tell_contacts, request);
        }
    } else if (entry != NULL) {
        p2pos_problem problem;
        p2pos_problem_set(&problem, P2POS_ERR_INTERNAL, "the daemon answered Open with %s", p2pos_body_name(frame->body));
        open_failed(session, entry, &problem);
    }
}

static void on_event(struct p2pos_session *session, const p2pos_pb_Event *event) {
    struct p2pos_change_node *node = p2pos_alloc(session->allocator, sizeof *node);
    uint32_t missed = (uint32_t)event->missed;
    if (node == NULL) {
        session->changes_missed += missed + 1;
        return;
    }
    static const int kinds[] = {0, P2POS_CHANGE_PEER, P2POS_CHANGE_CONTACT, P2POS_CHANGE_PATH};
    node->change.kind = event->kind < 4 ? kinds[event->kind] : 0;
    node->change.missed = missed;
    p2pos_text_into(node->change.what, sizeof node->change.what, event->what.data, event->what.size);
    p2pos_text_into(node->change.peer, sizeof node->change.peer, event->peer.data, event->peer.size);
    p2pos_text_into(node->change.petname, sizeof node->change.petname, event->petname.data, event->petname.size);
    if (session->last_change == NULL) {
        session->first_change = node;
    } else {
        session->last_change->next = node;
    }
    session->last_change = node;
    session->changes++;
    if (session->changes > P2POS_CHANGES_MAX) {
        struct p2pos_change_node *oldest = session->first_change;
        session->first_change = oldest->next;
        session->changes_missed += oldest->change.missed + 1;
        session->changes--;
        p2pos_free(session->allocator, oldest);
    }
    p2pos_session_note(session, P2POS_EVENT_CHANGE);
}

static void on_unknown(struct p2pos_session *session, uint32_t rid) {
    session->unknown_frames++;
    if (rid != 0) {
        p2pos_pb_Error error;
        memset(&error, 0, sizeof error);
        error.code = P2POS_ERR_UNKNOWN_METHOD;
        error.name = p2pos_text("UNKNOWN_METHOD");
        error.message = p2pos_text("this version does not know the message");
        error.hint = p2pos_text(p2pos_error_hint(P2POS_ERR_UNKNOWN_METHOD));
        p2pos_session_say(session, P2POS_BODY_ERROR, &error, rid);
    }
}

static void on_message(struct p2pos_session *session, const struct p2pos_frame *frame, const uint8_t *bytes, size_t size) {
    const union p2pos_message *message = &frame->message;
    switch (frame->body) {
    case P2POS_BODY_DATA: {
        struct p2pos_data_frame data = {(uint32_t)message->data.stream, message->data.payload, message->data.fin};
        on_data(session, &data);
        break;
    }
    case P2POS_BODY_WINDOW:
        on_window(session, &message->window);
        break;
    case P2POS_BODY_DATAGRAM:
        on_datagram(session, &message->datagram);
        break;
    case P2POS_BODY_RESET:
        on_reset(session, &message->reset);
        break;
    case P2POS_BODY_STOP_SENDING:
        on_stop(session, &message->stop_sending);
        break;
    case P2POS_BODY_STREAM_CLOSED:
        on_closed(session, &message->stream_closed);
        break;
    case P2POS_BODY_OPENED:
        on_opened(session, frame->rid, &message->opened);
        break;
    case P2POS_BODY_INCOMING:
        on_incoming(session, frame->rid, &message->incoming);
        break;
    case P2POS_BODY_PING:
        p2pos_session_say(session, P2POS_BODY_PONG, &message->ping, frame->rid);
        break;
    case P2POS_BODY_ERROR:
        on_error(session, frame, bytes, size);
        break;
    case P2POS_BODY_DONE:
    case P2POS_BODY_CONTACTS:
        on_answer(session, frame, bytes, size);
        break;
    case P2POS_BODY_EVENT:
        on_event(session, &message->event);
        break;
    case P2POS_BODY_GO_AWAY:
        p2pos_session_ask_to_end(session, 0);
        break;
    case P2POS_BODY_SHUTDOWN:
        p2pos_session_ask_to_end(session, (uint32_t)message->shutdown.deadline_ms);
        break;
    default: /* Pong: that it came is all it says */
        break;
    }
}

void p2pos_session_frame(struct p2pos_session *session, const uint8_t *bytes, size_t size) {
    struct p2pos_data_frame data;
    struct p2pos_frame frame;
    if (p2pos_decode_data(bytes, size, &data)) {
        on_data(session, &data);
    } else if (!p2pos_decode(bytes, size, &frame, count_contacts, NULL)) {
        p2pos_session_fail(session, P2POS_ERR_PROTOCOL, "a frame that is no message [S-MSG-4]");
    } else if (frame.body == P2POS_BODY_NONE) {
        on_unknown(session, frame.rid);
    } else if (!p2pos_body_is_daemons(frame.body)) {
        p2pos_session_fail(session, P2POS_ERR_PROTOCOL, "%s may not come here [S-MSG-5]", p2pos_body_name(frame.body));
    } else {
        on_message(session, &frame, bytes, size);
    }
}
