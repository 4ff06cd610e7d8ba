/* The calls of flows, and of streams with a socket of their own. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"
#include "open.h"

/* The second socket and its handshake may take so long, as a Hello may. */
#define ATTACH_TIMEOUT_MS 5000
/* The daemon's answer to Attach, in bytes. */
#define ANSWER_BYTES_MAX 4096

/* --- flows --- */

static struct p2pos_entry *flow_entry(p2pos_client *client, p2pos_flow flow) {
    struct p2pos_entry *entry = p2pos_client_entry(client, flow.id);
    if (entry != NULL && (!p2pos_entry_is_flow(entry) || entry->stage == P2POS_STAGE_OFFERED)) {
        p2pos_client_fail(client, P2POS_ERR_MISUSE, "%u is no flow, or an offer", (unsigned)flow.id);
        return NULL;
    }
    return entry;
}

/* Straight to the socket, if nothing waits before it. False: it has to wait in the queue. */
static bool send_now(p2pos_client *client, struct p2pos_entry *flow, const void *bytes, size_t size) {
    uint8_t head[P2POS_DATA_HEAD_BYTES_MAX];
    struct p2pos_buffer *out = &client->session.out;
    struct msghdr message;
    if (client->is_full || client->is_broken || client->socket < 0 || p2pos_buffer_used(out) > 0 || client->session.has_packets) {
        return false;
    }
    size_t head_size = p2pos_put_datagram_head(head, flow->id, (uint32_t)size);
    struct iovec parts[2] = {{head, head_size}, {(void *)(uintptr_t)bytes, size}};
    if (!p2pos_buffer_reserve(&client->allocator, out, head_size + size)) {
        return false;
    }
    memset(&message, 0, sizeof message);
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    ssize_t sent = sendmsg(client->socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent <= 0) {
        client->is_full = sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
        return false;
    }
    size_t head_sent = (size_t)sent < head_size ? (size_t)sent : head_size;
    size_t body_sent = (size_t)sent - head_sent;
    client->is_full = (size_t)sent < head_size + size;
    /* There is room: it was reserved before. */
    (void)p2pos_buffer_put(&client->allocator, out, head + head_sent, head_size - head_sent);
    (void)p2pos_buffer_put(&client->allocator, out, (const uint8_t *)bytes + body_sent, size - body_sent);
    flow->bytes_out += size;
    return true;
}

int p2pos_send_datagram(p2pos_client *client, p2pos_flow flow, const void *bytes, size_t size) {
    struct p2pos_entry *entry = flow_entry(client, flow);
    if (entry == NULL) {
        return client->problem.code;
    }
    if (entry->end.source != P2POS_SOURCE_NONE || entry->is_closed) {
        int code = entry->end.source != P2POS_SOURCE_NONE ? entry->end.code : P2POS_ERR_PATH_LOST;
        return p2pos_client_entry_failed(client, entry, code, "sending a datagram");
    }
    uint32_t most = entry->info.datagram_max != 0 ? entry->info.datagram_max : client->session.data_max;
    if (size > most) {
        return p2pos_client_fail(client, P2POS_ERR_TOO_BIG, "a datagram of %zu bytes, this path takes %u", size, (unsigned)most);
    }
    p2pos_client_flush(client);
    if (!send_now(client, entry, bytes, size)) {
        struct p2pos_view payload = {bytes, size};
        if (!p2pos_entry_queue(&client->allocator, entry, &entry->packets_out, payload)) {
            return p2pos_client_fail(client, P2POS_ERR_MEMORY, "no memory for a datagram");
        }
        client->session.has_packets = true;
    }
    return p2pos_client_done(client, P2POS_OK);
}

static int flow_end(const struct p2pos_entry *entry) {
    if (entry->end.source != P2POS_SOURCE_NONE) {
        return entry->end.code;
    }
    return entry->is_closed ? P2POS_ERR_PATH_LOST : P2POS_OK;
}

int p2pos_read_datagram(p2pos_client *client, p2pos_flow flow, void *bytes, size_t size, size_t *got, uint64_t *dropped,
                        int timeout_ms) {
    p2pos_moment deadline = p2pos_deadline(timeout_ms);
    *got = 0;
    struct p2pos_entry *entry = flow_entry(client, flow);
    if (entry == NULL) {
        return client->problem.code;
    }
    int waited = P2POS_OK;
    while (waited == P2POS_OK && entry->packets_in.first == NULL && flow_end(entry) == P2POS_OK) {
        waited = p2pos_client_wait(client, deadline);
    }
    if (dropped != NULL) {
        *dropped = entry->packets_dropped;
    }
    int code = flow_end(entry);
    struct p2pos_packet *packet = entry->packets_in.first;
    if (packet == NULL && code != P2POS_OK) {
        p2pos_client_entry_failed(client, entry, code, "reading a datagram");
    } else if (packet == NULL) {
        code = p2pos_client_fail(client, waited, "%s", p2pos_error_text(waited));
    } else if (packet->size > size) {
        *got = packet->size;
        code = p2pos_client_fail(client, P2POS_ERR_ROOM, "the datagram has %zu bytes", packet->size);
    } else {
        packet = p2pos_entry_unqueue(&entry->packets_in);
        *got = packet->size;
        if (packet->size > 0) {
            memcpy(bytes, packet->bytes, packet->size);
        }
        p2pos_free(&client->allocator, packet);
        code = P2POS_OK;
        if (p2pos_entry_is_readable(entry)) {
            p2pos_session_note_entry(&client->session, entry, P2POS_EVENT_READABLE);
        }
    }
    return p2pos_client_done(client, code);
}

void p2pos_release_flow(p2pos_client *client, p2pos_flow flow) {
    p2pos_stream stream = {flow.id};
    p2pos_release(client, stream);
}

/* --- detached streams --- */

static bool read_all(int socket, uint8_t *bytes, size_t size) {
    size_t have = 0;
    while (have < size) {
        ssize_t count = recv(socket, bytes + have, size - have, 0);
        if (count == 0 || (count < 0 && errno != EINTR)) {
            errno = count == 0 ? ECONNRESET : errno;
            return false;
        }
        have += count > 0 ? (size_t)count : 0;
    }
    return true;
}

static bool write_all(int socket, const uint8_t *bytes, size_t size) {
    size_t have = 0;
    while (have < size) {
        ssize_t count = send(socket, bytes + have, size - have, MSG_NOSIGNAL);
        if (count < 0 && errno != EINTR) {
            return false;
        }
        have += count > 0 ? (size_t)count : 0;
    }
    return true;
}

/* Says Attach on a fresh socket and reads the answer, and not a byte too many. */
static int exchange(p2pos_client *client, int socket, const uint8_t *ticket) {
    struct p2pos_buffer out;
    uint8_t bytes[ANSWER_BYTES_MAX];
    struct p2pos_frame frame;
    p2pos_pb_Attach attach = {{ticket, P2POS_TICKET_BYTES}};
    memset(&out, 0, sizeof out);
    if (!p2pos_encode(&client->allocator, &out, P2POS_BODY_ATTACH, &attach, 1)) {
        return p2pos_client_fail(client, P2POS_ERR_MEMORY, "no memory for Attach");
    }
    size_t length = 0;
    bool is_whole;
    bool is_done = write_all(socket, out.data + out.start, p2pos_buffer_used(&out)) && read_all(socket, bytes, P2POS_PREFIX_BYTES);
    p2pos_buffer_free(&client->allocator, &out);
    if (is_done && p2pos_measure(bytes, P2POS_PREFIX_BYTES, ANSWER_BYTES_MAX, &length, &is_whole) != P2POS_OK) {
        return p2pos_client_fail(client, P2POS_ERR_CONNECT, "the daemon answered Attach with something else");
    }
    if (!is_done || !read_all(socket, bytes, length)) {
        return p2pos_client_fail(client, P2POS_ERR_CONNECT, "attaching the stream broke off: %s", strerror(errno));
    }
    if (!p2pos_decode(bytes, length, &frame, NULL, NULL)) {
        return p2pos_client_fail(client, P2POS_ERR_CONNECT, "the daemon answered Attach with no message");
    }
    if (frame.body == P2POS_BODY_REFUSED) {
        const p2pos_pb_Refused *refused = &frame.message.refused;
        return p2pos_problem_read(&client->problem, refused->code, refused->message, refused->hint, 0);
    }
    if (frame.body != P2POS_BODY_ATTACHED) {
        return p2pos_client_fail(client, P2POS_ERR_CONNECT, "the daemon answered Attach with %s", p2pos_body_name(frame.body));
    }
    return P2POS_OK;
}

/* Turns the entry's ticket into a socket; after a failure the stream is reset and gone. */
static int attach_entry(p2pos_client *client, struct p2pos_entry *entry, p2pos_stream *stream, int *made) {
    p2pos_client_flush(client);
    entry->is_attached = true;
    int socket = p2pos_dial(client->endpoint, ATTACH_TIMEOUT_MS, &client->problem);
    int code = socket < 0 ? client->problem.code : exchange(client, socket, entry->ticket);
    if (code == P2POS_OK && !p2pos_set_timeouts(socket, 0)) {
        code = p2pos_client_fail(client, P2POS_ERR_SYSTEM, "cannot prepare the stream's socket: %s", strerror(errno));
    }
    if (code != P2POS_OK) {
        p2pos_session_reset(&client->session, entry, P2POS_ERR_APP, 0);
        p2pos_session_release(&client->session, entry);
        if (socket >= 0) {
            close(socket);
        }
        return code;
    }
    stream->id = entry->id;
    *made = socket;
    return P2POS_OK;
}

int p2pos_attach(p2pos_client *client, p2pos_stream stream, int *socket) {
    p2pos_stream made;
    *socket = -1;
    struct p2pos_entry *entry = p2pos_client_entry(client, stream.id);
    if (entry == NULL) {
        return client->problem.code;
    }
    if (!p2pos_entry_is_detached(entry) || entry->stage != P2POS_STAGE_OPEN || entry->is_attached) {
        return p2pos_client_fail(client, P2POS_ERR_MISUSE, "%u is no detached stream, not opened yet, or attached already",
                                 (unsigned)stream.id);
    }
    if (entry->end.source != P2POS_SOURCE_NONE) {
        return p2pos_client_entry_failed(client, entry, entry->end.code, "attaching");
    }
    return p2pos_client_done(client, attach_entry(client, entry, &made, socket));
}

int p2pos_open_detached(p2pos_client *client, const char *peer, const char *protocols, unsigned flags, p2pos_stream *stream,
                        int *socket, p2pos_info *info, int timeout_ms) {
    struct p2pos_entry *entry;
    stream->id = 0;
    *socket = -1;
    int code = p2pos_open_kind(client, peer, protocols, flags, P2POS_KIND_DETACHED, &entry, info, timeout_ms);
    if (code == P2POS_OK) {
        code = attach_entry(client, entry, stream, socket);
    }
    return p2pos_client_done(client, code);
}

int p2pos_accept_detached(p2pos_client *client, const char *protocol, p2pos_stream *stream, int *socket, p2pos_info *info,
                          int timeout_ms) {
    struct p2pos_entry *entry;
    stream->id = 0;
    *socket = -1;
    int code = p2pos_take_offer(client, protocol, P2POS_KIND_DETACHED, &entry, timeout_ms);
    if (code == P2POS_OK) {
        if (info != NULL) {
            *info = entry->info;
        }
        p2pos_session_accept(&client->session, entry);
        code = attach_entry(client, entry, stream, socket);
    }
    return p2pos_client_done(client, code);
}
