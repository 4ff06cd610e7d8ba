/* The calls of streams and flows: accept, open, read, write, the ends, datagrams. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "client.h"
#include "open.h"

/* Names in one Open. */
#define OPEN_NAMES_MAX 16u
/* Frames that one system call takes: a default window's worth. */
#define FRAMES_MAX 4
/* The daemon keeps the time of an Open; this is for its answer, in milliseconds. */
#define ANSWER_MS 1000

/* --- offers --- */

/* The oldest offer of the protocol (NULL: of any), or NULL. */
static struct p2pos_entry *oldest(struct p2pos_session *session, const char *protocol) {
    struct p2pos_entry *entry = session->first_offer;
    while (entry != NULL && protocol != NULL && strcmp(entry->info.protocol, protocol) != 0) {
        entry = entry->next_offer;
    }
    return entry;
}

int p2pos_take_offer(p2pos_client *client, const char *protocol, enum p2pos_kind kind, struct p2pos_entry **taken, int timeout_ms) {
    struct p2pos_session *session = &client->session;
    p2pos_moment deadline = p2pos_deadline(timeout_ms);
    int code = P2POS_OK;
    *taken = NULL;
    if (client->is_in_callback) {
        return p2pos_client_check(client);
    }
    p2pos_session_say_ready(session);
    while (session->ended == 0 && !session->is_asked_to_end) {
        struct p2pos_entry *entry = oldest(session, protocol);
        if (entry != NULL && (kind == 0 || entry->info.kind == kind)) {
            *taken = entry;
            return P2POS_OK;
        }
        if (entry != NULL) {
            p2pos_session_reject(session, entry, P2POS_ERR_REFUSED, "the plugin serves the other kind");
        } else if (code != P2POS_OK) {
            return p2pos_client_fail(client, code, "%s", p2pos_error_text(code));
        } else {
            code = p2pos_client_wait(client, deadline);
        }
    }
    if (session->ended != 0) {
        return p2pos_client_check(client);
    }
    return p2pos_client_fail(client, P2POS_ERR_SHUTTING_DOWN, "the plugin is asked to end");
}

static int accept_kind(p2pos_client *client, const char *protocol, enum p2pos_kind kind, uint32_t *id, p2pos_info *info,
                       int timeout_ms) {
    struct p2pos_entry *entry;
    *id = 0;
    int code = p2pos_take_offer(client, protocol, kind, &entry, timeout_ms);
    if (code == P2POS_OK) {
        *id = entry->id;
        if (info != NULL) {
            *info = entry->info;
        }
        p2pos_session_accept(&client->session, entry);
    }
    return p2pos_client_done(client, code);
}

int p2pos_accept(p2pos_client *client, const char *protocol, p2pos_stream *stream, p2pos_info *info, int timeout_ms) {
    return accept_kind(client, protocol, P2POS_KIND_STREAM, &stream->id, info, timeout_ms);
}

int p2pos_accept_flow(p2pos_client *client, const char *protocol, p2pos_flow *flow, p2pos_info *info, int timeout_ms) {
    return accept_kind(client, protocol, P2POS_KIND_FLOW, &flow->id, info, timeout_ms);
}

int p2pos_peek_offer(p2pos_client *client, const char *protocol, p2pos_stream *offer, p2pos_info *info, int timeout_ms) {
    struct p2pos_entry *entry;
    offer->id = 0;
    int code = p2pos_take_offer(client, protocol, (enum p2pos_kind)0, &entry, timeout_ms);
    if (code == P2POS_OK) {
        offer->id = entry->id;
        if (info != NULL) {
            *info = entry->info;
        }
    }
    return p2pos_client_done(client, code);
}

/* --- opening --- */

static int start(p2pos_client *client, const char *peer, const char *protocols, unsigned flags, enum p2pos_kind kind, int timeout_ms,
                 struct p2pos_entry **entry) {
    struct p2pos_view names[OPEN_NAMES_MAX];
    char canonical[P2POS_PEER_BYTES];
    p2pos_pb_Open open;
    int code = p2pos_client_check(client);
    if (code != P2POS_OK) {
        return code;
    }
    const char *wrong = p2pos_check_peer_id(peer, canonical);
    if (wrong != NULL) {
        return p2pos_client_fail(client, P2POS_ERR_BAD_REQUEST, "%s", wrong);
    }
    if ((flags & ~P2POS_NO_RELAY) != 0 || kind < P2POS_KIND_STREAM || kind > P2POS_KIND_DETACHED) {
        return p2pos_client_fail(client, P2POS_ERR_MISUSE, "unknown flags or kind");
    }
    int count = p2pos_split_names(client, protocols, names, OPEN_NAMES_MAX);
    if (count < 0) {
        return client->problem.code;
    }
    memset(&open, 0, sizeof open);
    open.peer = p2pos_text(canonical);
    open.protocols.items = names;
    open.protocols.item_size = sizeof names[0];
    open.protocols.count = (size_t)count;
    open.timeout_ms = timeout_ms > 0 ? (uint64_t)timeout_ms : 0;
    open.relay = (flags & P2POS_NO_RELAY) != 0 ? p2pos_pb_RelayUse_RELAY_NEVER : p2pos_pb_RelayUse_RELAY_ALLOW;
    p2pos_session_say_ready(&client->session);
    code = p2pos_session_open(&client->session, &open, kind, entry);
    if (code == P2POS_ERR_STREAM_LIMIT) {
        return p2pos_client_fail(client, code, "%u streams are open and %u are not released; the limit is %u",
                                 (unsigned)client->session.live, (unsigned)(client->session.entries - client->session.live),
                                 (unsigned)client->session.streams_max);
    }
    if (code == P2POS_ERR_MEMORY) {
        return p2pos_client_fail(client, code, "no memory for a stream");
    }
    return code != P2POS_OK ? p2pos_client_check(client) : P2POS_OK;
}

int p2pos_open_kind(p2pos_client *client, const char *peer, const char *protocols, unsigned flags, enum p2pos_kind kind,
                    struct p2pos_entry **opened, p2pos_info *info, int timeout_ms) {
    struct p2pos_entry *entry = NULL;
    *opened = NULL;
    if (timeout_ms == 0) {
        return p2pos_client_fail(client, P2POS_ERR_MISUSE, "opening takes time; p2pos_open_start does not wait");
    }
    int code = start(client, peer, protocols, flags, kind, timeout_ms, &entry);
    if (code != P2POS_OK) {
        return code;
    }
    p2pos_moment deadline = timeout_ms < 0 ? UINT64_MAX : p2pos_deadline(timeout_ms) + ANSWER_MS;
    while (code == P2POS_OK && entry->stage == P2POS_STAGE_OPENING && !entry->is_closed) {
        code = p2pos_client_wait(client, deadline);
    }
    if (entry->is_closed || entry->end.source != P2POS_SOURCE_NONE) {
        code = entry->end.source != P2POS_SOURCE_NONE ? entry->end.code : P2POS_ERR_PATH_LOST;
        p2pos_client_entry_failed(client, entry, code, "it was opened");
    } else if (entry->stage == P2POS_STAGE_OPEN) {
        entry->events &= ~(1u << P2POS_EVENT_OPENED);
        *opened = entry;
        if (info != NULL) {
            *info = entry->info;
        }
        return P2POS_OK;
    } else if (code == P2POS_ERR_NOT_YET) {
        code = p2pos_client_fail(client, P2POS_ERR_TIMEOUT, "the daemon did not open it within %d ms", timeout_ms);
    } else {
        p2pos_client_fail(client, code, "the opening was interrupted, and given up");
    }
    p2pos_session_release(&client->session, entry);
    return code;
}

int p2pos_open(p2pos_client *client, const char *peer, const char *protocols, unsigned flags, p2pos_stream *stream, p2pos_info *info,
               int timeout_ms) {
    struct p2pos_entry *entry;
    int code = p2pos_open_kind(client, peer, protocols, flags, P2POS_KIND_STREAM, &entry, info, timeout_ms);
    stream->id = code == P2POS_OK ? entry->id : 0;
    return p2pos_client_done(client, code);
}

int p2pos_open_flow(p2pos_client *client, const char *peer, const char *protocols, unsigned flags, p2pos_flow *flow, p2pos_info *info,
                    int timeout_ms) {
    struct p2pos_entry *entry;
    int code = p2pos_open_kind(client, peer, protocols, flags, P2POS_KIND_FLOW, &entry, info, timeout_ms);
    flow->id = code == P2POS_OK ? entry->id : 0;
    return p2pos_client_done(client, code);
}

int p2pos_open_start(p2pos_client *client, const char *peer, const char *protocols, unsigned flags, enum p2pos_kind kind,
                     p2pos_stream *stream) {
    struct p2pos_entry *entry = NULL;
    stream->id = 0;
    int code = start(client, peer, protocols, flags, kind, 0, &entry);
    if (code == P2POS_OK) {
        stream->id = entry->id;
    }
    return p2pos_client_done(client, code);
}

/* --- streams --- */

/* The entry if it is a stream of this socket; else NULL with the last problem set. */
static struct p2pos_entry *stream_entry(p2pos_client *client, p2pos_stream stream) {
    struct p2pos_entry *entry = p2pos_client_entry(client, stream.id);
    if (entry != NULL && (entry->info.kind != P2POS_KIND_STREAM || entry->stage == P2POS_STAGE_OFFERED)) {
        p2pos_client_fail(client, P2POS_ERR_MISUSE, "%u is a flow, a detached stream, or an offer", (unsigned)stream.id);
        return NULL;
    }
    return entry;
}

/* Waits once for bytes of the entry, which may come straight into `bytes`. */
static int wait_bytes(p2pos_client *client, struct p2pos_entry *entry, void *bytes, size_t size, size_t *got, p2pos_moment deadline) {
    struct p2pos_direct *direct = &client->session.direct;
    direct->entry = entry;
    direct->bytes = bytes;
    direct->size = size;
    direct->got = 0;
    int code = p2pos_client_wait(client, deadline);
    direct->entry = NULL;
    *got = direct->got;
    return code;
}

int p2pos_read(p2pos_client *client, p2pos_stream stream, void *bytes, size_t size, size_t *got, int timeout_ms) {
    p2pos_moment deadline = p2pos_deadline(timeout_ms);
    *got = 0;
    struct p2pos_entry *entry = stream_entry(client, stream);
    if (entry == NULL) {
        return client->problem.code;
    }
    if (size == 0 || entry->stop_sent) {
        return p2pos_client_fail(client, P2POS_ERR_MISUSE, size == 0 ? "a read of 0 bytes" : "a read after p2pos_stop");
    }
    int waited = P2POS_OK;
    int code;
    while ((code = p2pos_entry_read(&client->allocator, entry, bytes, size, got)) == P2POS_ERR_NOT_YET && waited == P2POS_OK) {
        waited = wait_bytes(client, entry, bytes, size, got, deadline);
        if (*got > 0) {
            code = P2POS_OK;
            break;
        }
    }
    if (code == P2POS_OK) {
        if (*got > 0) {
            p2pos_session_after_read(&client->session, entry);
        }
    } else if (code == P2POS_ERR_NOT_YET) {
        code = p2pos_client_fail(client, waited, "%s", p2pos_error_text(waited));
    } else {
        p2pos_client_entry_failed(client, entry, code, "reading");
    }
    return p2pos_client_done(client, code);
}

int p2pos_read_exactly(p2pos_client *client, p2pos_stream stream, void *bytes, size_t size, size_t *got, int timeout_ms) {
    p2pos_moment deadline = p2pos_deadline(timeout_ms);
    size_t have = 0;
    int code = P2POS_OK;
    while (code == P2POS_OK && have < size) {
        size_t count;
        uint64_t now = p2pos_now_ms();
        int left = timeout_ms < 0 ? P2POS_FOREVER : deadline <= now ? 0 : (int)(deadline - now);
        code = p2pos_read(client, stream, (uint8_t *)bytes + have, size - have, &count, left);
        have += count;
        if (code == P2POS_OK && count == 0) {
            code = p2pos_client_fail(client, P2POS_ERR_NOT_FOUND, "the other side wrote its last byte after %zu of %zu", have, size);
        }
    }
    if (got != NULL) {
        *got = have;
    }
    return code;
}

/* What of the frames the socket took: whole ones are done, the rest of a cut one waits in `out`. Returns payload bytes. */
static size_t account(p2pos_client *client, const struct iovec *parts, size_t frames, size_t sent) {
    struct p2pos_buffer *out = &client->session.out;
    size_t done = 0;
    for (size_t i = 0; i < frames && sent > 0; i++) {
        const struct iovec *head = &parts[2 * i];
        const struct iovec *body = &parts[2 * i + 1];
        done += body->iov_len;
        if (sent >= head->iov_len + body->iov_len) {
            sent -= head->iov_len + body->iov_len;
            continue;
        }
        /* There is room: it was reserved before anything was sent. */
        size_t head_sent = sent < head->iov_len ? sent : head->iov_len;
        size_t body_sent = sent - head_sent;
        (void)p2pos_buffer_put(&client->allocator, out, (uint8_t *)head->iov_base + head_sent, head->iov_len - head_sent);
        (void)p2pos_buffer_put(&client->allocator, out, (uint8_t *)body->iov_base + body_sent, body->iov_len - body_sent);
        sent = 0;
    }
    return done;
}

/* Writes frames around the caller's bytes, as many as one system call takes. Only with nothing in `out`. */
static int send_frames(p2pos_client *client, struct p2pos_entry *entry, const uint8_t *bytes, size_t size, size_t *done) {
    uint8_t heads[FRAMES_MAX][P2POS_DATA_HEAD_BYTES_MAX];
    struct iovec parts[2 * FRAMES_MAX];
    struct msghdr message;
    size_t frames = 0;
    size_t total = 0;
    uint32_t data_max = client->session.data_max;
    *done = 0;
    if (!p2pos_buffer_reserve(&client->allocator, &client->session.out, data_max + P2POS_DATA_HEAD_BYTES_MAX)) {
        return p2pos_client_fail(client, P2POS_ERR_MEMORY, "no memory for a frame");
    }
    for (size_t at = 0; frames < FRAMES_MAX && at < size; frames++) {
        size_t count = size - at < data_max ? size - at : data_max;
        parts[2 * frames].iov_base = heads[frames];
        parts[2 * frames].iov_len = p2pos_put_data_head(heads[frames], entry->id, (uint32_t)count, false);
        parts[2 * frames + 1].iov_base = (void *)(uintptr_t)(bytes + at);
        parts[2 * frames + 1].iov_len = count;
        total += parts[2 * frames].iov_len + count;
        at += count;
    }
    memset(&message, 0, sizeof message);
    message.msg_iov = parts;
    message.msg_iovlen = 2 * frames;
    ssize_t sent;
    do {
        sent = sendmsg(client->socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        client->is_full = errno == EAGAIN || errno == EWOULDBLOCK;
        client->is_broken = client->is_broken || !client->is_full;
        return P2POS_OK;
    }
    client->is_full = (size_t)sent < total;
    *done = account(client, parts, frames, (size_t)sent);
    entry->credit -= *done;
    entry->bytes_out += *done;
    return P2POS_OK;
}

int p2pos_write(p2pos_client *client, p2pos_stream stream, const void *bytes, size_t size, size_t *written, int timeout_ms) {
    p2pos_moment deadline = p2pos_deadline(timeout_ms);
    size_t have = 0;
    size_t unused;
    size_t *told = written == NULL ? &unused : written;
    *told = 0;
    struct p2pos_entry *entry = stream_entry(client, stream);
    if (entry == NULL) {
        return client->problem.code;
    }
    int waited = P2POS_OK;
    int code;
    for (;;) {
        uint64_t room;
        size_t done = 0;
        code = p2pos_entry_capacity(entry, &room);
        if (code != P2POS_OK) {
            p2pos_client_entry_failed(client, entry, code, "writing");
            break;
        }
        bool is_free = !client->is_full && !client->is_broken && client->socket >= 0 && p2pos_buffer_used(&client->session.out) == 0;
        if (have < size && room > 0 && is_free) {
            size_t most = size - have < room ? size - have : (size_t)room;
            code = send_frames(client, entry, (const uint8_t *)bytes + have, most, &done);
            have += done;
        }
        if (code != P2POS_OK || have == size) {
            break;
        }
        if (done > 0) {
            continue;
        }
        if (waited != P2POS_OK) {
            code = p2pos_client_fail(client, waited, "%zu of %zu bytes were written: %s", have, size, p2pos_error_text(waited));
            break;
        }
        p2pos_session_wants_room(&client->session, entry, true);
        waited = p2pos_client_wait(client, deadline);
    }
    if (code != P2POS_ERR_NOT_YET && code != P2POS_ERR_INTERRUPTED) {
        p2pos_session_wants_room(&client->session, entry, false);
    } else {
        p2pos_session_wants_room(&client->session, entry, true);
    }
    *told = have;
    return p2pos_client_done(client, code);
}

int p2pos_close_write(p2pos_client *client, p2pos_stream stream) {
    struct p2pos_entry *entry = stream_entry(client, stream);
    if (entry == NULL) {
        return client->problem.code;
    }
    p2pos_session_close_write(&client->session, entry);
    return p2pos_client_done(client, P2POS_OK);
}

int p2pos_reset(p2pos_client *client, p2pos_stream stream, uint32_t app_code) {
    struct p2pos_entry *entry = p2pos_client_entry(client, stream.id);
    if (entry == NULL) {
        return client->problem.code;
    }
    if (entry->stage == P2POS_STAGE_OFFERED) {
        return p2pos_client_fail(client, P2POS_ERR_MISUSE, "%u is an offer: take it, or refuse it", (unsigned)stream.id);
    }
    p2pos_session_reset(&client->session, entry, P2POS_ERR_APP, app_code);
    return p2pos_client_done(client, P2POS_OK);
}

int p2pos_stop(p2pos_client *client, p2pos_stream stream, uint32_t app_code) {
    struct p2pos_entry *entry = stream_entry(client, stream);
    if (entry == NULL) {
        return client->problem.code;
    }
    p2pos_session_stop(&client->session, entry, app_code);
    return p2pos_client_done(client, P2POS_OK);
}

int p2pos_wait_closed(p2pos_client *client, p2pos_stream stream, p2pos_closed *closed, int timeout_ms) {
    p2pos_moment deadline = p2pos_deadline(timeout_ms);
    struct p2pos_entry *entry = p2pos_client_entry(client, stream.id);
    if (entry == NULL) {
        return client->problem.code;
    }
    if (entry->stage == P2POS_STAGE_OFFERED) {
        return p2pos_client_fail(client, P2POS_ERR_MISUSE, "%u is an offer: take it, or refuse it", (unsigned)stream.id);
    }
    int code = P2POS_OK;
    while (code == P2POS_OK && !entry->is_closed) {
        code = p2pos_client_wait(client, deadline);
    }
    if (entry->is_closed) {
        *closed = entry->closed;
        return p2pos_client_done(client, P2POS_OK);
    }
    return p2pos_client_done(client, p2pos_client_fail(client, code, "%s", p2pos_error_text(code)));
}

int p2pos_stream_info(p2pos_client *client, p2pos_stream stream, p2pos_info *info) {
    struct p2pos_entry *entry = p2pos_client_entry(client, stream.id);
    if (entry == NULL) {
        return client->problem.code;
    }
    *info = entry->info;
    return P2POS_OK;
}

void p2pos_release(p2pos_client *client, p2pos_stream stream) {
    struct p2pos_entry *entry = client->is_in_callback ? NULL : p2pos_session_find(&client->session, stream.id);
    if (entry != NULL && !entry->is_released) {
        p2pos_session_release(&client->session, entry);
    }
    (void)p2pos_client_done(client, P2POS_OK);
}

int p2pos_set_user(p2pos_client *client, p2pos_stream stream, void *user) {
    struct p2pos_entry *entry = p2pos_client_entry(client, stream.id);
    if (entry == NULL) {
        return client->problem.code;
    }
    entry->user = user;
    return P2POS_OK;
}

void *p2pos_user(p2pos_client *client, p2pos_stream stream) {
    struct p2pos_entry *entry = p2pos_session_find(&client->session, stream.id);
    return entry == NULL || entry->is_released ? NULL : entry->user;
}
