/* The session machine: bytes in, events and bytes out; no socket, no clock, no environment (SPEC.md sections 2 to 8).
 *
 * It owns the frames, the requests, the table of streams and flows, and the queue of what the program has not taken yet. How to drive
 * it: read into p2pos_session_room, tell p2pos_session_received, write what is in `out`, call p2pos_session_tick at
 * p2pos_session_deadline. Every call may make new output. A broken rule of the daemon queues an Error, sets `ended`, and nothing is
 * read any more. */
#ifndef P2POS_SESSION_H
#define P2POS_SESSION_H

#include "entry.h"

/* Silence in milliseconds after which a Ping asks whether the daemon lives, and after which it counts as dead [S-PING-1]. */
#define P2POS_PING_AFTER_MS 15000u
#define P2POS_DEAD_AFTER_MS 45000u
/* Bytes of control frames that may wait to be sent; the daemon fills this only by asking and not reading the answers. At half, a burst
 * of 1,024 long answers would not fit; at double, one deaf daemon costs more memory than a stalled stream does. */
#define P2POS_CONTROL_BYTES_MAX (2u * 1024u * 1024u)
/* Above this, a log line is lost rather than queued, in bytes: what must be said still has room. */
#define P2POS_LOG_BACKLOG_BYTES_MAX (P2POS_CONTROL_BYTES_MAX / 2)
/* Changes that wait for a program that does not take them. */
#define P2POS_CHANGES_MAX 1024u
/* Streams and flows that are remembered, over or not: four times what a daemon allows at once, for programs that release late. */
#define P2POS_ENTRIES_MAX 1024u
/* Buckets of the table of streams: a power of two near the number of streams that a session has at most. */
#define P2POS_BUCKETS 256u
/* Bytes of one read from the socket: several full Data frames, and it stays in the processor's cache. */
#define P2POS_INPUT_BYTES 65536u
#define P2POS_NONCE_BYTES 32

enum p2pos_phase {
    P2POS_PHASE_HELLO,      /* Hello was said */
    P2POS_PHASE_CHALLENGED, /* AuthProof was said */
    P2POS_PHASE_OPEN        /* Welcome came */
};

/* The one request that a caller waits for. */
struct p2pos_request {
    uint32_t rid; /* 0: none */
    bool is_answered;
    bool wants_contacts;
    p2pos_problem problem; /* the answer, if it was an Error; code 0 if it was not */
    void (*each)(void *context, const char *peer, const char *petname, int is_connected);
    void *context;
};

struct p2pos_change_node {
    struct p2pos_change_node *next;
    p2pos_change change;
};

/* Where payload of one stream goes at once, while a reader waits for it. */
struct p2pos_direct {
    struct p2pos_entry *entry; /* NULL: nobody waits */
    uint8_t *bytes;
    size_t size;
    size_t got;
};

struct p2pos_session {
    const p2pos_allocator *allocator;
    enum p2pos_phase phase;
    struct p2pos_buffer in;
    struct p2pos_buffer out;
    uint64_t heard_ms;
    uint64_t pinged_ms;
    uint64_t unknown_frames;

    /* The handshake: see handshake.c. */
    uint8_t secret[P2POS_NONCE_BYTES];
    uint8_t client_nonce[P2POS_NONCE_BYTES];
    bool has_secret;

    /* What Hello and Welcome agreed on. */
    uint32_t frame_in_max;
    uint32_t frame_out_max;
    uint32_t data_max;
    uint32_t window_in;
    uint32_t window_out;
    uint32_t streams_max;
    uint32_t protocols_max;
    uint32_t log_line_max;
    char peer_id[P2POS_PEER_BYTES];
    char *plugin_id;
    struct p2pos_buffer grants; /* texts, each with a zero byte behind it */

    struct p2pos_entry *buckets[P2POS_BUCKETS];
    uint32_t entries; /* all that are remembered */
    uint32_t live;    /* those that are not closed */
    uint32_t released;
    uint32_t highest_own;
    uint32_t highest_theirs;
    uint32_t rid;
    uint32_t wanting; /* entries with wants_room */
    struct p2pos_entry *first_offer;
    struct p2pos_entry *last_offer;
    struct p2pos_request request;
    struct p2pos_direct direct;

    /* What the program has not taken. */
    unsigned events; /* bits of events that concern no stream */
    struct p2pos_entry *first_event;
    struct p2pos_entry *last_event;
    struct p2pos_change_node *first_change;
    struct p2pos_change_node *last_change;
    uint32_t changes;
    uint32_t changes_missed;
    p2pos_problem complaint;
    bool has_packets; /* some flow has datagrams that wait to be sent */
    bool is_ready;
    bool is_asked_to_end;
    uint32_t end_deadline_ms;

    int ended; /* 0, or why nothing goes any more */
    p2pos_problem end_problem;
};

/* --- session.c: life, table, output, events --- */

void p2pos_session_init(struct p2pos_session *session, const p2pos_allocator *allocator);
void p2pos_session_free(struct p2pos_session *session);

/* Room for the next read; NULL: no memory, the session has ended. */
uint8_t *p2pos_session_room(struct p2pos_session *session, size_t *size);
/* `size` bytes are in the room. */
void p2pos_session_received(struct p2pos_session *session, size_t size, uint64_t now_ms);
/* The daemon closed its end, or the socket broke. */
void p2pos_session_eof(struct p2pos_session *session);
/* Asks after 15 s of silence, gives up after 45 s. */
void p2pos_session_tick(struct p2pos_session *session, uint64_t now_ms);
uint64_t p2pos_session_deadline(const struct p2pos_session *session);
/* We end: GoAway, and nothing more. */
void p2pos_session_close(struct p2pos_session *session);
/* The environment (stdin) wants us to end. */
void p2pos_session_ask_to_end(struct p2pos_session *session, uint32_t deadline_ms);

/* The daemon broke a rule, or something failed that we cannot do without: says it and ends. */
void p2pos_session_fail(struct p2pos_session *session, int code, const char *format, ...) P2POS_PRINTF(3, 4);
/* Ends without a word; the problem was filled in. */
void p2pos_session_end(struct p2pos_session *session, const p2pos_problem *problem);

/* Queues a frame. False: no memory, or too long; the session has ended. */
bool p2pos_session_say(struct p2pos_session *session, enum p2pos_body body, const void *message, uint32_t rid);

struct p2pos_entry *p2pos_session_find(struct p2pos_session *session, uint32_t id);
/* NULL: no memory, or too many are remembered. */
struct p2pos_entry *p2pos_session_new_entry(struct p2pos_session *session, uint32_t id, enum p2pos_kind kind);
/* Nothing more comes for it; a released one is freed. */
void p2pos_session_close_entry(struct p2pos_session *session, struct p2pos_entry *entry);
/* Out of the table, and freed. */
void p2pos_session_remove_entry(struct p2pos_session *session, struct p2pos_entry *entry);
void p2pos_session_drop_offer(struct p2pos_session *session, struct p2pos_entry *entry);

void p2pos_session_note(struct p2pos_session *session, enum p2pos_event_kind kind);
void p2pos_session_note_entry(struct p2pos_session *session, struct p2pos_entry *entry, enum p2pos_event_kind kind);
bool p2pos_session_has_events(const struct p2pos_session *session);
p2pos_event p2pos_session_next_event(struct p2pos_session *session);
void p2pos_session_wants_room(struct p2pos_session *session, struct p2pos_entry *entry, bool wants);
/* There is room in the socket: tells those who wait for it. */
void p2pos_session_tell_writable(struct p2pos_session *session);

/* --- handshake.c --- */

/* Queues Hello. With `secret` and `nonce` the two-way proof, else `token`. `program`: at most 100 bytes of UTF-8. */
bool p2pos_session_hello(struct p2pos_session *session, const char *token, const uint8_t *secret, const uint8_t *nonce,
                         const char *program, uint32_t frame_bytes_max, uint32_t stream_window_bytes);
/* Takes a frame before Welcome. */
void p2pos_session_greet(struct p2pos_session *session, const uint8_t *bytes, size_t size);
/* HMAC of the handshake: "p2pOS daemon v1" or "p2pOS plugin v1", and both nonces [S-HELLO-4]. */
void p2pos_proof(const uint8_t secret[32], const char *who, const uint8_t client_nonce[32], const uint8_t server_nonce[32],
                 uint8_t proof[32]);

/* --- session_in.c: what the daemon says --- */

void p2pos_session_frame(struct p2pos_session *session, const uint8_t *bytes, size_t size);

/* --- session_out.c: what the program wants --- */

/* Sends a request and takes the request slot. Returns 0 or why not. */
int p2pos_session_ask(struct p2pos_session *session, enum p2pos_body body, const void *message);
/* Gives the request in the slot up. */
void p2pos_session_give_up(struct p2pos_session *session);
void p2pos_session_say_ready(struct p2pos_session *session);
/* Opens; `protocols` was checked. */
int p2pos_session_open(struct p2pos_session *session, p2pos_pb_Open *open, enum p2pos_kind kind, struct p2pos_entry **entry);
void p2pos_session_accept(struct p2pos_session *session, struct p2pos_entry *entry);
void p2pos_session_reject(struct p2pos_session *session, struct p2pos_entry *entry, int code, const char *reason);
/* Tells of consumed bytes, and that there is more to read. */
void p2pos_session_after_read(struct p2pos_session *session, struct p2pos_entry *entry);
void p2pos_session_close_write(struct p2pos_session *session, struct p2pos_entry *entry);
void p2pos_session_reset(struct p2pos_session *session, struct p2pos_entry *entry, int code, uint32_t app_code);
void p2pos_session_stop(struct p2pos_session *session, struct p2pos_entry *entry, uint32_t app_code);
void p2pos_session_release(struct p2pos_session *session, struct p2pos_entry *entry);
/* Moves waiting datagrams of all flows to `out`, in turn, up to `bytes_max`. */
void p2pos_session_frame_datagrams(struct p2pos_session *session, size_t bytes_max);

#endif
