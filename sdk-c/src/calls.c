/* The calls that concern the session, and what all calls share: checks, the last problem, requests. */
#include "client.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NAMES_MAX 64u
#define REASON_BYTES_MAX 1024u
#define STATUS_BYTES_MAX 65536u

int p2pos_client_fail(struct p2pos_client *client, int code, const char *format, ...) {
    char message[sizeof client->problem.message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return p2pos_problem_set(&client->problem, code, "%s", message);
}

int p2pos_client_check(struct p2pos_client *client) {
    if (client->is_in_callback) {
        return p2pos_client_fail(client, P2POS_ERR_MISUSE, "no call with this client from within p2pos_contacts");
    }
    if (client->session.ended != 0) {
        client->problem = client->session.end_problem;
    }
    return client->session.ended;
}

struct p2pos_entry *p2pos_client_entry(struct p2pos_client *client, uint32_t id) {
    struct p2pos_entry *entry = client->is_in_callback ? NULL : p2pos_session_find(&client->session, id);
    if (entry == NULL || entry->is_released) {
        p2pos_client_fail(client, P2POS_ERR_NO_STREAM, "there is no stream %u; it was released, or never was", (unsigned)id);
        return NULL;
    }
    return entry;
}

int p2pos_client_entry_failed(struct p2pos_client *client, const struct p2pos_entry *entry, int code, const char *while_what) {
    if (code == P2POS_ERR_MISUSE) {
        return p2pos_client_fail(client, code, "%s after p2pos_close_write", while_what);
    }
    if (code == P2POS_ERR_STOPPED) {
        p2pos_client_fail(client, code, "the other side reads no more; its own code is %u", (unsigned)entry->stop.app_code);
        client->problem.app_code = entry->stop.app_code;
        return code;
    }
    if (entry->problem != NULL) {
        client->problem = *entry->problem;
        return code;
    }
    if (entry->end.source == P2POS_SOURCE_SESSION) {
        client->problem = client->session.end_problem;
        return code;
    }
    if (entry->end.source != P2POS_SOURCE_NONE) {
        return p2pos_end_describe(&entry->end, while_what, &client->problem);
    }
    return p2pos_client_fail(client, code, "the stream is over: %s", p2pos_error_text(code));
}

int p2pos_split_names(struct p2pos_client *client, const char *names, struct p2pos_view *views, size_t room) {
    size_t count = 0;
    while (*names == ' ') {
        names++;
    }
    while (*names != '\0') {
        size_t length = strcspn(names, " ");
        if (count == room) {
            p2pos_client_fail(client, P2POS_ERR_BAD_REQUEST, "more than %zu protocol names", room);
            return -1;
        }
        if (!p2pos_is_protocol_name(names, length)) {
            p2pos_client_fail(client, P2POS_ERR_BAD_REQUEST, "\"%.*s\" is no protocol name: it must look like /chat/1",
                              length > 140 ? 140 : (int)length, names);
            return -1;
        }
        views[count].data = (const uint8_t *)names;
        views[count++].size = length;
        names += length;
        names += strspn(names, " ");
    }
    if (count == 0) {
        p2pos_client_fail(client, P2POS_ERR_BAD_REQUEST, "there is no protocol name");
        return -1;
    }
    return (int)count;
}

char *p2pos_clean_text(const p2pos_allocator *allocator, const char *text, size_t most) {
    size_t size = strlen(text);
    char *copy = p2pos_copy_text(allocator, text, size < most ? size : most);
    if (copy == NULL) {
        return NULL;
    }
    size_t end = size < most ? size : most;
    while (end > 0 && end < size && ((unsigned char)text[end] & 0xc0) == 0x80) {
        end--; /* not within a character */
    }
    copy[end] = '\0';
    for (size_t at = 0; at < end;) {
        size_t bytes = p2pos_utf8_bytes((const uint8_t *)copy + at, end - at);
        if (bytes == 0) {
            copy[at] = '?';
            bytes = 1;
        }
        at += bytes;
    }
    return copy;
}

/* --- requests --- */

/* Waits for the answer of the request that was asked with the result `code`. */
static int wait_answer(p2pos_client *client, enum p2pos_body body, int code, int timeout_ms) {
    struct p2pos_session *session = &client->session;
    struct p2pos_request *request = &session->request;
    p2pos_moment deadline = p2pos_deadline(timeout_ms);
    while (code == P2POS_OK && !request->is_answered && session->ended == 0) {
        code = p2pos_client_wait(client, deadline);
    }
    if (request->is_answered) {
        code = request->problem.code;
        client->problem = code != P2POS_OK ? request->problem : client->problem;
    } else if (session->ended != 0) {
        code = p2pos_client_check(client);
    } else if (code == P2POS_ERR_NOT_YET) {
        code = p2pos_client_fail(client, P2POS_ERR_TIMEOUT, "the daemon did not answer %s within %d ms", p2pos_body_name(body),
                                 timeout_ms);
    } else {
        p2pos_client_fail(client, code, "%s was interrupted, and given up", p2pos_body_name(body));
    }
    p2pos_session_give_up(session);
    return p2pos_client_done(client, code);
}

/* Asks, and waits for the answer. With timeout_ms 0 it asks with rid 0, and nobody waits. */
static int ask(p2pos_client *client, enum p2pos_body body, const void *message, int timeout_ms) {
    if (timeout_ms == 0) {
        int code = p2pos_session_say(&client->session, body, message, 0) ? P2POS_OK : p2pos_client_check(client);
        return p2pos_client_done(client, code);
    }
    return wait_answer(client, body, p2pos_session_ask(&client->session, body, message), timeout_ms);
}

int p2pos_register(p2pos_client *client, const char *protocols, const p2pos_serve *how, int timeout_ms) {
    p2pos_pb_Protocol items[NAMES_MAX];
    struct p2pos_view names[NAMES_MAX];
    p2pos_pb_Register registration;
    int code = p2pos_client_check(client);
    if (code != P2POS_OK) {
        return code;
    }
    int count = p2pos_split_names(client, protocols, names, NAMES_MAX);
    if (count < 0) {
        return client->problem.code;
    }
    memset(items, 0, sizeof items);
    for (int i = 0; i < count; i++) {
        items[i].name = names[i];
        items[i].kind = how != NULL && how->kind == P2POS_KIND_FLOW ? p2pos_pb_Kind_DATAGRAM : p2pos_pb_Kind_STREAM;
        items[i].trust = how != NULL && how->is_for_anyone != 0 ? p2pos_pb_Trust_ANYONE : p2pos_pb_Trust_CONTACTS;
        items[i].concurrent_max = how != NULL ? how->concurrent_max : 0;
        items[i].attachment =
            how != NULL && how->kind == P2POS_KIND_DETACHED ? p2pos_pb_Attachment_SOCKET : p2pos_pb_Attachment_MUX;
    }
    memset(&registration, 0, sizeof registration);
    registration.protocols.items = items;
    registration.protocols.item_size = sizeof items[0];
    registration.protocols.count = (size_t)count;
    return ask(client, P2POS_BODY_REGISTER, &registration, timeout_ms);
}

int p2pos_unregister(p2pos_client *client, const char *protocols, int timeout_ms) {
    struct p2pos_view names[NAMES_MAX];
    p2pos_pb_Unregister unregister;
    int code = p2pos_client_check(client);
    if (code != P2POS_OK) {
        return code;
    }
    int count = p2pos_split_names(client, protocols, names, NAMES_MAX);
    if (count < 0) {
        return client->problem.code;
    }
    memset(&unregister, 0, sizeof unregister);
    unregister.names.items = names;
    unregister.names.item_size = sizeof names[0];
    unregister.names.count = (size_t)count;
    return ask(client, P2POS_BODY_UNREGISTER, &unregister, timeout_ms);
}

int p2pos_subscribe(p2pos_client *client, unsigned kinds, int timeout_ms) {
    uint64_t items[3];
    p2pos_pb_Subscribe subscribe;
    int code = p2pos_client_check(client);
    if (code != P2POS_OK) {
        return code;
    }
    if ((kinds & ~7u) != 0) {
        return p2pos_client_fail(client, P2POS_ERR_MISUSE, "%u is no sum of p2pos_change_kind", kinds);
    }
    memset(&subscribe, 0, sizeof subscribe);
    subscribe.kinds.items = items;
    subscribe.kinds.item_size = sizeof items[0];
    for (unsigned i = 0; i < 3; i++) {
        if ((kinds & 1u << i) != 0) {
            items[subscribe.kinds.count++] = i + 1;
        }
    }
    return ask(client, P2POS_BODY_SUBSCRIBE, &subscribe, timeout_ms);
}

struct contacts_call {
    p2pos_client *client;
    void (*each)(void *context, const char *peer, const char *petname, int is_connected);
    void *context;
};

static void tell_contact(void *context, const char *peer, const char *petname, int is_connected) {
    struct contacts_call *call = context;
    call->client->is_in_callback = true;
    call->each(call->context, peer, petname, is_connected);
    call->client->is_in_callback = false;
}

int p2pos_contacts(p2pos_client *client, void (*each)(void *context, const char *peer, const char *petname, int is_connected),
                   void *context, int timeout_ms) {
    struct p2pos_session *session = &client->session;
    struct contacts_call call = {client, each, context};
    p2pos_pb_ContactList list = {0};
    int code = p2pos_client_check(client);
    if (code != P2POS_OK) {
        return code;
    }
    code = p2pos_session_ask(session, P2POS_BODY_CONTACT_LIST, &list);
    session->request.each = tell_contact;
    session->request.context = &call;
    return wait_answer(client, P2POS_BODY_CONTACT_LIST, code, timeout_ms);
}

/* --- notices --- */

int p2pos_ready(p2pos_client *client) {
    int code = p2pos_client_check(client);
    if (code == P2POS_OK) {
        p2pos_session_say_ready(&client->session);
        code = p2pos_client_check(client);
    }
    return p2pos_client_done(client, code);
}

/* Says a text message, unless too much waits already. */
static int tell(p2pos_client *client, enum p2pos_body body, uint64_t number, const char *text, size_t most) {
    int code = p2pos_client_check(client);
    if (code != P2POS_OK) {
        return code;
    }
    p2pos_client_flush(client);
    if (p2pos_buffer_used(&client->session.out) > P2POS_LOG_BACKLOG_BYTES_MAX) {
        return p2pos_client_fail(client, P2POS_ERR_LIMIT, "%zu bytes wait for the daemon; the line is lost",
                                 p2pos_buffer_used(&client->session.out));
    }
    char *clean = p2pos_clean_text(&client->allocator, text, most);
    if (clean == NULL) {
        return p2pos_client_fail(client, P2POS_ERR_MEMORY, "no memory for a line");
    }
    p2pos_pb_Log log = {number, p2pos_text(clean)};
    p2pos_pb_Status status = {number, p2pos_text(clean)};
    const void *message = body == P2POS_BODY_LOG ? (const void *)&log : (const void *)&status;
    p2pos_session_say(&client->session, body, message, 0);
    p2pos_free(&client->allocator, clean);
    return p2pos_client_done(client, p2pos_client_check(client));
}

int p2pos_log(p2pos_client *client, enum p2pos_level level, const char *text) {
    if (level < P2POS_DEBUG || level > P2POS_ERROR) {
        return p2pos_client_fail(client, P2POS_ERR_MISUSE, "%d is no p2pos_level", (int)level);
    }
    return tell(client, P2POS_BODY_LOG, (uint64_t)level, text, client->session.log_line_max);
}

int p2pos_status(p2pos_client *client, enum p2pos_health health, const char *text) {
    if (health < P2POS_HEALTH_OK || health > P2POS_HEALTH_WAITING_NETWORK) {
        return p2pos_client_fail(client, P2POS_ERR_MISUSE, "%d is no p2pos_health", (int)health);
    }
    size_t most = client->session.log_line_max < STATUS_BYTES_MAX ? client->session.log_line_max : STATUS_BYTES_MAX;
    return tell(client, P2POS_BODY_STATUS, (uint64_t)health, text, most);
}

int p2pos_refuse(p2pos_client *client, p2pos_stream offer, int code, const char *reason) {
    struct p2pos_entry *entry = p2pos_client_entry(client, offer.id);
    if (entry == NULL) {
        return client->problem.code;
    }
    if (entry->stage != P2POS_STAGE_OFFERED) {
        return p2pos_client_fail(client, P2POS_ERR_MISUSE, "stream %u was taken already; reset it", (unsigned)offer.id);
    }
    char *clean = p2pos_clean_text(&client->allocator, reason == NULL ? "" : reason, REASON_BYTES_MAX);
    if (clean == NULL) {
        return p2pos_client_fail(client, P2POS_ERR_MEMORY, "no memory for a reason");
    }
    p2pos_session_reject(&client->session, entry, code, clean);
    p2pos_free(&client->allocator, clean);
    return p2pos_client_done(client, p2pos_client_check(client));
}

/* --- waiting for what concerns no stream --- */

int p2pos_wait_shutdown(p2pos_client *client, uint32_t *deadline_ms, int timeout_ms) {
    struct p2pos_session *session = &client->session;
    p2pos_moment deadline = p2pos_deadline(timeout_ms);
    int code = P2POS_OK;
    if (client->is_in_callback) {
        return p2pos_client_check(client);
    }
    p2pos_session_say_ready(session);
    while (code == P2POS_OK && session->ended == 0 && !session->is_asked_to_end) {
        code = p2pos_client_wait(client, deadline);
    }
    if (session->is_asked_to_end || session->ended == P2POS_ERR_SHUTTING_DOWN) {
        if (deadline_ms != NULL) {
            *deadline_ms = session->is_asked_to_end ? session->end_deadline_ms : 0;
        }
        return p2pos_client_done(client, P2POS_OK);
    }
    return p2pos_client_done(client, session->ended != 0 ? p2pos_client_check(client)
                                                         : p2pos_client_fail(client, code, "%s", p2pos_error_text(code)));
}

int p2pos_next_change(p2pos_client *client, p2pos_change *change, int timeout_ms) {
    struct p2pos_session *session = &client->session;
    p2pos_moment deadline = p2pos_deadline(timeout_ms);
    int code = P2POS_OK;
    if (client->is_in_callback) {
        return p2pos_client_check(client);
    }
    while (code == P2POS_OK && session->ended == 0 && session->first_change == NULL) {
        code = p2pos_client_wait(client, deadline);
    }
    struct p2pos_change_node *node = session->first_change;
    if (node == NULL) {
        return p2pos_client_done(client, session->ended != 0 ? p2pos_client_check(client)
                                                             : p2pos_client_fail(client, code, "%s", p2pos_error_text(code)));
    }
    session->first_change = node->next;
    if (session->first_change == NULL) {
        session->last_change = NULL;
    } else {
        p2pos_session_note(session, P2POS_EVENT_CHANGE);
    }
    session->changes--;
    *change = node->change;
    change->missed += session->changes_missed;
    session->changes_missed = 0;
    p2pos_free(&client->allocator, node);
    return p2pos_client_done(client, P2POS_OK);
}

/* --- facts --- */

const char *p2pos_peer_id(const p2pos_client *client) {
    return client->session.peer_id;
}

const char *p2pos_plugin_id(const p2pos_client *client) {
    return client->session.plugin_id;
}

const char *p2pos_data_dir(const p2pos_client *client) {
    return client->data_dir;
}

const char *p2pos_grant(const p2pos_client *client, size_t index) {
    const struct p2pos_buffer *grants = &client->session.grants;
    size_t at = grants->start;
    while (at < grants->end && index > 0) {
        at += strlen((const char *)grants->data + at) + 1;
        index--;
    }
    return at < grants->end ? (const char *)grants->data + at : NULL;
}

const p2pos_problem *p2pos_last_problem(const p2pos_client *client) {
    return &client->problem;
}
