/* One stream or flow (SPEC.md sections 5 to 8): credit, buffers, half close, the ways to end. Pure.
 *
 * A direction ends by fin, by StopSending from its reader, or by Reset, which ends both. It never makes a frame; session.c does. */
#ifndef P2POS_ENTRY_H
#define P2POS_ENTRY_H

#include "errors.h"

/* Credit that a stream may have at most, in bytes [S-FLOW-4]. */
#define P2POS_CREDIT_BYTES_MAX (16u * 1024u * 1024u)
/* Bytes of datagrams that wait in a flow, for each direction; the oldest go first [S-DGRAM-1]. */
#define P2POS_DATAGRAM_QUEUE_BYTES_MAX (256u * 1024u)
/* What a waiting datagram counts on top of its payload, so that empty ones cannot pile up for ever. */
#define P2POS_DATAGRAM_OVERHEAD_BYTES 64u
#define P2POS_TICKET_BYTES 16

enum p2pos_source { P2POS_SOURCE_NONE = 0, P2POS_SOURCE_LOCAL, P2POS_SOURCE_REMOTE, P2POS_SOURCE_SESSION };

/* Why a stream, or one direction of it, ended early. */
struct p2pos_end {
    enum p2pos_source source; /* NONE: it did not */
    int code;
    uint32_t app_code;
};

/* A datagram that waits. */
struct p2pos_packet {
    struct p2pos_packet *next;
    size_t size;
    uint8_t bytes[];
};

struct p2pos_packets {
    struct p2pos_packet *first;
    struct p2pos_packet *last;
    size_t bytes; /* overhead included */
};

/* Where a stream stands with regard to its opening. */
enum p2pos_stage {
    P2POS_STAGE_OPENING, /* Open was sent, no answer yet */
    P2POS_STAGE_OFFERED, /* Incoming came, no answer yet */
    P2POS_STAGE_OPEN     /* both sides know of it */
};

struct p2pos_entry {
    struct p2pos_entry *next;       /* in its bucket of the table */
    struct p2pos_entry *next_event; /* in the queue of those with events */
    struct p2pos_entry *next_offer; /* in the queue of offers */
    uint32_t id;
    uint32_t rid; /* of its Open or Incoming, while that waits for its answer */
    enum p2pos_stage stage;
    unsigned events; /* bits: 1 << p2pos_event_kind */
    bool has_place;  /* it stands in the queue of events */
    bool is_given_up;
    bool is_released;
    p2pos_info info;
    void *user;

    uint64_t credit;    /* bytes that we may still send */
    uint64_t allowance; /* bytes that the other side may still send */
    uint64_t window;    /* what `allowance` began with */
    uint64_t consumed;  /* read by the program, and not told yet */
    struct p2pos_buffer input;
    bool fin_received;
    bool fin_sent;
    bool stop_sent;
    bool wants_room;            /* a write did not take all */
    struct p2pos_end stop;      /* the other side's StopSending */
    struct p2pos_end end;       /* Reset, from whichever side, or the end of the session */
    p2pos_problem *problem;     /* what the daemon said when it would not open; may be NULL */
    bool is_closed;             /* nothing more comes: StreamClosed, Error to Open, Reject sent */
    p2pos_closed closed;
    uint64_t bytes_in;
    uint64_t bytes_out;

    struct p2pos_packets packets_in;
    struct p2pos_packets packets_out;
    uint64_t packets_dropped;
    uint8_t ticket[P2POS_TICKET_BYTES];
    bool is_attached; /* the ticket was used */
};

bool p2pos_entry_is_flow(const struct p2pos_entry *entry);
bool p2pos_entry_is_detached(const struct p2pos_entry *entry);

/* Frees what the entry holds, and the entry. */
void p2pos_entry_free(const p2pos_allocator *allocator, struct p2pos_entry *entry);

/* Ends both directions. What arrived can still be read, unless we ended it ourselves. The first end counts. */
void p2pos_entry_finish(const p2pos_allocator *allocator, struct p2pos_entry *entry, struct p2pos_end end);

/* Drops what arrived: nobody will read it. */
void p2pos_entry_forget_input(const p2pos_allocator *allocator, struct p2pos_entry *entry);

/* Reads: 0 with *got, P2POS_ERR_NOT_YET, or why there is nothing more. */
int p2pos_entry_read(const p2pos_allocator *allocator, struct p2pos_entry *entry, void *bytes, size_t size, size_t *got);

/* True if a read would not say NOT_YET. */
bool p2pos_entry_is_readable(const struct p2pos_entry *entry);

/* How many bytes may be sent now; 0 with P2POS_OK: wait for credit. Otherwise why never. */
int p2pos_entry_capacity(const struct p2pos_entry *entry, uint64_t *capacity);

/* How many consumed bytes the other side should be told of now; 0: not yet worth a frame. Counts them as told. */
uint32_t p2pos_entry_credit_to_give(struct p2pos_entry *entry);

/* Queues a datagram; the oldest make room and are counted. False: no memory (it is lost, and counted). */
bool p2pos_entry_queue(const p2pos_allocator *allocator, struct p2pos_entry *entry, struct p2pos_packets *queue,
                       struct p2pos_view payload);
/* Takes the first one out; the caller frees it. NULL: there is none. */
struct p2pos_packet *p2pos_entry_unqueue(struct p2pos_packets *queue);

/* Describes an end for a person. Returns its code. */
int p2pos_end_describe(const struct p2pos_end *end, const char *while_what, p2pos_problem *problem);

#endif
