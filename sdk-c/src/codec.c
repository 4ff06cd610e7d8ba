/* Frames and messages (SPEC.md sections 1 and 3), on nanopb and the generated code in pb/.
 *
 * The frame itself is taken apart by hand, for three reasons: Data and Datagram are found and written around their payload, so
 * that no payload is ever copied here; a body that comes in parts is merged, and another body takes its place [S-MSG-1] [S-MSG-3];
 * and `register` is no name for a member in C. */
#include "codec.h"

#include <string.h>

#include <pb_decode.h>
#include <pb_encode.h>

/* Bytes of the longest varint. */
#define VARINT_BYTES_MAX 10

struct kind {
    const char *name;
    const pb_msgdesc_t *fields;
    bool is_daemons;
};

/* By number; the hole at 23 is for ever. is_daemons: a daemon may say it after the handshake. */
static const struct kind kinds[] = {
    [P2POS_BODY_DATA] = {"Data", p2pos_pb_Data_fields, true},
    [P2POS_BODY_WINDOW] = {"Window", p2pos_pb_Window_fields, true},
    [P2POS_BODY_DATAGRAM] = {"Datagram", p2pos_pb_Datagram_fields, true},
    [P2POS_BODY_RESET] = {"Reset", p2pos_pb_Reset_fields, true},
    [P2POS_BODY_STOP_SENDING] = {"StopSending", p2pos_pb_StopSending_fields, true},
    [P2POS_BODY_STREAM_CLOSED] = {"StreamClosed", p2pos_pb_StreamClosed_fields, true},
    [P2POS_BODY_OPEN] = {"Open", p2pos_pb_Open_fields, false},
    [P2POS_BODY_OPENED] = {"Opened", p2pos_pb_Opened_fields, true},
    [P2POS_BODY_INCOMING] = {"Incoming", p2pos_pb_Incoming_fields, true},
    [P2POS_BODY_ACCEPT] = {"Accept", p2pos_pb_Accept_fields, false},
    [P2POS_BODY_REJECT] = {"Reject", p2pos_pb_Reject_fields, false},
    [P2POS_BODY_PING] = {"Ping", p2pos_pb_Ping_fields, true},
    [P2POS_BODY_PONG] = {"Pong", p2pos_pb_Pong_fields, true},
    [P2POS_BODY_ERROR] = {"Error", p2pos_pb_Error_fields, true},
    [P2POS_BODY_HELLO] = {"Hello", p2pos_pb_Hello_fields, false},
    [P2POS_BODY_WELCOME] = {"Welcome", p2pos_pb_Welcome_fields, false},
    [P2POS_BODY_CHALLENGE] = {"Challenge", p2pos_pb_Challenge_fields, false},
    [P2POS_BODY_AUTH_PROOF] = {"AuthProof", p2pos_pb_AuthProof_fields, false},
    [P2POS_BODY_REFUSED] = {"Refused", p2pos_pb_Refused_fields, false},
    [P2POS_BODY_ATTACH] = {"Attach", p2pos_pb_Attach_fields, false},
    [P2POS_BODY_ATTACHED] = {"Attached", p2pos_pb_Attached_fields, false},
    [P2POS_BODY_DONE] = {"Done", p2pos_pb_Done_fields, true},
    [P2POS_BODY_REGISTER] = {"Register", p2pos_pb_Register_fields, false},
    [P2POS_BODY_UNREGISTER] = {"Unregister", p2pos_pb_Unregister_fields, false},
    [P2POS_BODY_CANCEL] = {"Cancel", p2pos_pb_Cancel_fields, false},
    [P2POS_BODY_READY] = {"Ready", p2pos_pb_Ready_fields, false},
    [P2POS_BODY_STATUS] = {"Status", p2pos_pb_Status_fields, false},
    [P2POS_BODY_LOG] = {"Log", p2pos_pb_Log_fields, false},
    [P2POS_BODY_SUBSCRIBE] = {"Subscribe", p2pos_pb_Subscribe_fields, false},
    [P2POS_BODY_EVENT] = {"Event", p2pos_pb_Event_fields, true},
    [P2POS_BODY_CONTACT_LIST] = {"ContactList", p2pos_pb_ContactList_fields, false},
    [P2POS_BODY_CONTACTS] = {"Contacts", p2pos_pb_Contacts_fields, true},
    [P2POS_BODY_GO_AWAY] = {"GoAway", p2pos_pb_GoAway_fields, true},
    [P2POS_BODY_SHUTDOWN] = {"Shutdown", p2pos_pb_Shutdown_fields, true},
};

static const struct kind *kind_of(uint64_t number) {
    if (number >= sizeof kinds / sizeof kinds[0] || kinds[number].name == NULL) {
        return NULL;
    }
    return &kinds[number];
}

const char *p2pos_body_name(enum p2pos_body body) {
    const struct kind *kind = kind_of((uint64_t)body);
    return kind == NULL ? "a frame" : kind->name;
}

bool p2pos_body_is_daemons(enum p2pos_body body) {
    const struct kind *kind = kind_of((uint64_t)body);
    return kind != NULL && kind->is_daemons;
}

struct p2pos_view p2pos_text(const char *text) {
    struct p2pos_view view = {(const uint8_t *)text, strlen(text)};
    return view;
}

int p2pos_measure(const uint8_t *bytes, size_t size, uint32_t frame_bytes_max, size_t *length, bool *is_whole) {
    *length = 0;
    *is_whole = false;
    if (size > 0 && bytes[0] != 0) {
        return P2POS_ERR_FRAME_TOO_LARGE;
    }
    if (size < P2POS_PREFIX_BYTES) {
        return P2POS_OK;
    }
    uint32_t told = (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
    if (told == 0) {
        return P2POS_ERR_PROTOCOL;
    }
    if (told > frame_bytes_max) {
        return P2POS_ERR_FRAME_TOO_LARGE;
    }
    *length = told;
    *is_whole = size - P2POS_PREFIX_BYTES >= told;
    return P2POS_OK;
}

/* --- reading --- */

struct cursor {
    const uint8_t *at;
    const uint8_t *end;
};

static bool read_varint(struct cursor *cursor, uint64_t *value) {
    *value = 0;
    for (unsigned shift = 0; shift < 7 * VARINT_BYTES_MAX && cursor->at < cursor->end; shift += 7) {
        uint8_t byte = *cursor->at++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            return true;
        }
    }
    return false;
}

static bool read_span(struct cursor *cursor, struct p2pos_view *span) {
    uint64_t length;
    if (!read_varint(cursor, &length) || length > (uint64_t)(cursor->end - cursor->at)) {
        return false;
    }
    span->data = cursor->at;
    span->size = (size_t)length;
    cursor->at += length;
    return true;
}

/* Steps over a field from the future; its own shape must be right. */
static bool skip(struct cursor *cursor, unsigned wire_type) {
    uint64_t number;
    struct p2pos_view span;
    size_t fixed = wire_type == PB_WT_64BIT ? 8 : 4;
    switch (wire_type) {
    case PB_WT_VARINT:
        return read_varint(cursor, &number);
    case PB_WT_STRING:
        return read_span(cursor, &span);
    case PB_WT_64BIT:
    case PB_WT_32BIT:
        if ((size_t)(cursor->end - cursor->at) < fixed) {
            return false;
        }
        cursor->at += fixed;
        return true;
    default:
        return false;
    }
}

static bool read_body(const struct kind *kind, struct p2pos_view span, void *message) {
    struct p2pos_pb_reader reader = {span.data};
    pb_istream_t stream = p2pos_pb_stream(&reader, span.size);
    return pb_decode_ex(&stream, kind->fields, message, PB_DECODE_NOINIT);
}

bool p2pos_decode(const uint8_t *bytes, size_t size, struct p2pos_frame *frame, p2pos_prepare prepare, void *context) {
    struct cursor cursor = {bytes, bytes + size};
    memset(frame, 0, sizeof *frame);
    while (cursor.at < cursor.end) {
        uint64_t tag;
        if (!read_varint(&cursor, &tag) || tag >> 3 == 0) {
            return false;
        }
        const struct kind *kind = kind_of(tag >> 3);
        uint64_t number;
        struct p2pos_view span;
        if (kind != NULL) {
            if ((tag & 7) != PB_WT_STRING || !read_span(&cursor, &span)) {
                return false;
            }
            if ((uint64_t)frame->body != tag >> 3) {
                memset(&frame->message, 0, sizeof frame->message);
                frame->body = (enum p2pos_body)(tag >> 3);
                if (prepare != NULL) {
                    prepare(context, frame);
                }
            }
            if (!read_body(kind, span, &frame->message)) {
                return false;
            }
        } else if (tag >> 3 == 1) {
            if ((tag & 7) != PB_WT_VARINT || !read_varint(&cursor, &number)) {
                return false;
            }
            frame->rid = (uint32_t)number;
        } else if (!skip(&cursor, (unsigned)(tag & 7))) {
            return false;
        }
    }
    return true;
}

/* A varint that fits 32 bits in at most five bytes; whatever is longer is for p2pos_decode. */
static bool read_small(struct cursor *cursor, uint64_t *value) {
    const uint8_t *start = cursor->at;
    return read_varint(cursor, value) && cursor->at - start <= 5 && *value <= UINT32_MAX;
}

static bool read_byte(struct cursor *cursor, uint8_t wanted) {
    if (cursor->at == cursor->end || *cursor->at != wanted) {
        return false;
    }
    cursor->at++;
    return true;
}

bool p2pos_decode_data(const uint8_t *bytes, size_t size, struct p2pos_data_frame *frame) {
    struct cursor cursor = {bytes, bytes + size};
    uint64_t inner;
    uint64_t stream;
    memset(frame, 0, sizeof *frame);
    if (!read_byte(&cursor, 0x12) || !read_small(&cursor, &inner) || inner != (uint64_t)(cursor.end - cursor.at) ||
        !read_byte(&cursor, 0x08) || !read_small(&cursor, &stream)) {
        return false;
    }
    frame->stream = (uint32_t)stream;
    if (read_byte(&cursor, 0x12) && !read_span(&cursor, &frame->payload)) {
        return false;
    }
    frame->fin = read_byte(&cursor, 0x18);
    if (frame->fin && !read_byte(&cursor, 1)) {
        return false;
    }
    return cursor.at == cursor.end;
}

/* --- writing --- */

static size_t varint_bytes(uint32_t value) {
    size_t bytes = 1;
    for (; value >= 0x80; value >>= 7) {
        bytes++;
    }
    return bytes;
}

static uint8_t *put_varint(uint8_t *at, uint32_t value) {
    for (; value >= 0x80; value >>= 7) {
        *at++ = (uint8_t)(value | 0x80);
    }
    *at++ = (uint8_t)value;
    return at;
}

static uint8_t *put_prefix(uint8_t *at, uint32_t length) {
    *at++ = (uint8_t)(length >> 24);
    *at++ = (uint8_t)(length >> 16);
    *at++ = (uint8_t)(length >> 8);
    *at++ = (uint8_t)length;
    return at;
}

size_t p2pos_encoded_size(enum p2pos_body body, const void *message, uint32_t rid) {
    const struct kind *kind = kind_of((uint64_t)body);
    size_t inner;
    if (kind == NULL || !pb_get_encoded_size(&inner, kind->fields, message) || inner > P2POS_FRAME_BYTES_HARD_MAX) {
        return 0;
    }
    size_t head = rid == 0 ? 0 : 1 + varint_bytes(rid);
    return head + varint_bytes((uint32_t)body << 3) + varint_bytes((uint32_t)inner) + inner;
}

bool p2pos_encode(const p2pos_allocator *allocator, struct p2pos_buffer *out, enum p2pos_body body, const void *message,
                  uint32_t rid) {
    size_t length = p2pos_encoded_size(body, message, rid);
    if (length == 0 || length > P2POS_FRAME_BYTES_HARD_MAX ||
        !p2pos_buffer_reserve(allocator, out, P2POS_PREFIX_BYTES + length)) {
        return false;
    }
    const struct kind *kind = kind_of((uint64_t)body);
    size_t inner = 0;
    uint8_t *at = put_prefix(out->data + out->end, (uint32_t)length);
    if (rid != 0) {
        *at++ = 0x08;
        at = put_varint(at, rid);
    }
    if (!pb_get_encoded_size(&inner, kind->fields, message)) {
        return false;
    }
    at = put_varint(at, (uint32_t)body << 3 | PB_WT_STRING);
    at = put_varint(at, (uint32_t)inner);
    pb_ostream_t stream = pb_ostream_from_buffer(at, inner);
    if (!pb_encode(&stream, kind->fields, message)) {
        return false;
    }
    out->end += P2POS_PREFIX_BYTES + length;
    return true;
}

const uint8_t p2pos_data_tail[2] = {0x18, 1};

static size_t put_head(uint8_t *head, uint8_t tag, uint32_t id, uint32_t payload_bytes, uint32_t tail_bytes) {
    uint32_t payload_field = payload_bytes == 0 ? 0 : (uint32_t)(1 + varint_bytes(payload_bytes)) + payload_bytes;
    uint32_t inner = (uint32_t)(1 + varint_bytes(id)) + payload_field + tail_bytes;
    uint8_t *at = put_prefix(head, (uint32_t)(1 + varint_bytes(inner)) + inner);
    *at++ = tag;
    at = put_varint(at, inner);
    *at++ = 0x08;
    at = put_varint(at, id);
    if (payload_bytes > 0) {
        *at++ = 0x12;
        at = put_varint(at, payload_bytes);
    }
    return (size_t)(at - head);
}

size_t p2pos_put_data_head(uint8_t head[P2POS_DATA_HEAD_BYTES_MAX], uint32_t stream, uint32_t payload_bytes, bool fin) {
    return put_head(head, 0x12, stream, payload_bytes, fin ? 2 : 0);
}

size_t p2pos_put_datagram_head(uint8_t head[P2POS_DATA_HEAD_BYTES_MAX], uint32_t flow, uint32_t payload_bytes) {
    return put_head(head, 0x22, flow, payload_bytes, 0);
}
