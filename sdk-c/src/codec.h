/* Bytes of frames and messages (SPEC.md sections 1 and 3): finding a frame, taking it apart, writing one.
 *
 * Pure: no socket, no clock, and no heap but the output buffer. It does not know what a message means. */
#ifndef P2POS_CODEC_H
#define P2POS_CODEC_H

#include "buffer.h"
#include "pb/plugin.pb.h"

#define P2POS_PREFIX_BYTES 4
/* Most bytes of everything that stands before the payload of a Data frame. */
#define P2POS_DATA_HEAD_BYTES_MAX (P2POS_PREFIX_BYTES + 3 * (1 + 5))
/* Bytes of the largest frame by default, and of the largest that anybody may agree on [S-FRAME-2] [S-FRAME-3]. */
#define P2POS_FRAME_BYTES_MAX (1024u * 1024u)
#define P2POS_FRAME_BYTES_HARD_MAX ((1u << 24) - 1u)

/* The numbers of Frame.body. tests/check_pb.py compares them with the .proto. */
enum p2pos_body {
    P2POS_BODY_NONE = 0,
    P2POS_BODY_DATA = 2,
    P2POS_BODY_WINDOW = 3,
    P2POS_BODY_DATAGRAM = 4,
    P2POS_BODY_RESET = 5,
    P2POS_BODY_STOP_SENDING = 6,
    P2POS_BODY_STREAM_CLOSED = 7,
    P2POS_BODY_OPEN = 8,
    P2POS_BODY_OPENED = 9,
    P2POS_BODY_INCOMING = 10,
    P2POS_BODY_ACCEPT = 11,
    P2POS_BODY_REJECT = 12,
    P2POS_BODY_PING = 13,
    P2POS_BODY_PONG = 14,
    P2POS_BODY_ERROR = 15,
    P2POS_BODY_HELLO = 16,
    P2POS_BODY_WELCOME = 17,
    P2POS_BODY_CHALLENGE = 18,
    P2POS_BODY_AUTH_PROOF = 19,
    P2POS_BODY_REFUSED = 20,
    P2POS_BODY_ATTACH = 21,
    P2POS_BODY_ATTACHED = 22,
    P2POS_BODY_DONE = 24,
    P2POS_BODY_REGISTER = 25,
    P2POS_BODY_UNREGISTER = 26,
    P2POS_BODY_CANCEL = 27,
    P2POS_BODY_READY = 28,
    P2POS_BODY_STATUS = 29,
    P2POS_BODY_LOG = 30,
    P2POS_BODY_SUBSCRIBE = 31,
    P2POS_BODY_EVENT = 32,
    P2POS_BODY_CONTACT_LIST = 33,
    P2POS_BODY_CONTACTS = 34,
    P2POS_BODY_GO_AWAY = 35,
    P2POS_BODY_SHUTDOWN = 36
};

/* Any message. Text and bytes in it are views into the frame that it was read from. */
union p2pos_message {
    p2pos_pb_Data data;
    p2pos_pb_Window window;
    p2pos_pb_Datagram datagram;
    p2pos_pb_Reset reset;
    p2pos_pb_StopSending stop_sending;
    p2pos_pb_StreamClosed stream_closed;
    p2pos_pb_Open open;
    p2pos_pb_Opened opened;
    p2pos_pb_Incoming incoming;
    p2pos_pb_Accept accept;
    p2pos_pb_Reject reject;
    p2pos_pb_Ping ping;
    p2pos_pb_Pong pong;
    p2pos_pb_Error error;
    p2pos_pb_Hello hello;
    p2pos_pb_Welcome welcome;
    p2pos_pb_Challenge challenge;
    p2pos_pb_AuthProof auth_proof;
    p2pos_pb_Refused refused;
    p2pos_pb_Attach attach;
    p2pos_pb_Register registration;
    p2pos_pb_Unregister unregister;
    p2pos_pb_Cancel cancel;
    p2pos_pb_Status status;
    p2pos_pb_Log log;
    p2pos_pb_Subscribe subscribe;
    p2pos_pb_Event event;
    p2pos_pb_Contacts contacts;
    p2pos_pb_GoAway go_away;
    p2pos_pb_Shutdown shutdown;
    char empty;
};

/* A frame taken apart. */
struct p2pos_frame {
    uint32_t rid;
    enum p2pos_body body; /* P2POS_BODY_NONE: no known one is in it */
    union p2pos_message message;
};

/* What stands around the payload of a Data frame. */
struct p2pos_data_frame {
    uint32_t stream;
    struct p2pos_view payload;
    bool fin;
};

/* Sets up the lists of a message that is about to be read; may be NULL. */
typedef void (*p2pos_prepare)(void *context, struct p2pos_frame *frame);

/* Finds the first frame in `bytes`. Returns 0, P2POS_ERR_PROTOCOL or P2POS_ERR_FRAME_TOO_LARGE, as early as the bytes allow.
 * `length`: of the frame's message, 0 while the prefix is not whole. `is_whole`: prefix and message are there. */
int p2pos_measure(const uint8_t *bytes, size_t size, uint32_t frame_bytes_max, size_t *length, bool *is_whole);

/* Takes a frame's message apart. False: it is no protobuf of ours [S-MSG-4]. */
bool p2pos_decode(const uint8_t *bytes, size_t size, struct p2pos_frame *frame, p2pos_prepare prepare, void *context);

/* Recognises a Data frame with rid 0 as every sane encoder writes it. False does not mean that it is wrong, only that
 * p2pos_decode has to look at it. */
bool p2pos_decode_data(const uint8_t *bytes, size_t size, struct p2pos_data_frame *frame);

/* The length of a frame's message, without the prefix; 0 if it cannot be written. */
size_t p2pos_encoded_size(enum p2pos_body body, const void *message, uint32_t rid);

/* Appends one frame with its prefix, in canonical form. False: no memory, or over 2^24 - 1 bytes; nothing changed. */
bool p2pos_encode(const p2pos_allocator *allocator, struct p2pos_buffer *out, enum p2pos_body body, const void *message,
                  uint32_t rid);

/* Writes what stands before the payload of a Data frame; returns its size. With `fin`, the two bytes p2pos_data_tail follow the
 * payload. */
size_t p2pos_put_data_head(uint8_t head[P2POS_DATA_HEAD_BYTES_MAX], uint32_t stream, uint32_t payload_bytes, bool fin);
extern const uint8_t p2pos_data_tail[2];
/* The same for a Datagram frame; nothing follows its payload. */
size_t p2pos_put_datagram_head(uint8_t head[P2POS_DATA_HEAD_BYTES_MAX], uint32_t flow, uint32_t payload_bytes);

/* The name of a body for error messages, "Data" and so on; and whether a daemon may send it after the handshake. */
const char *p2pos_body_name(enum p2pos_body body);
bool p2pos_body_is_daemons(enum p2pos_body body);

/* Text as a view. */
struct p2pos_view p2pos_text(const char *text);

#endif
