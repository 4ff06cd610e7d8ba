/* What the parts of the agent share: the streams that orders are about (subjects.c), the orders (orders.c), and the loop around them (agent.c). */
#ifndef P2POS_CONFORMANCE_AGENT_H
#define P2POS_CONFORMANCE_AGENT_H

#include <stddef.h>

#include <p2pos/p2pos.h>

#define LINE_BYTES_MAX 1001
#define ANSWER_BYTES_MAX 60000
#define WORDS_MAX 8
#define PIECE_BYTES 16384
#define REQUEST_MS 15000
#define PATTERN_PERIOD 251

enum progress { WAITS, ANSWERED };

/* A stream that orders are or may be about. */
struct subject {
    p2pos_stream stream;
    int socket; /* of a detached one; else -1 */
    int is_taken;
    int is_opened;
    int is_closed;
    int code;         /* if it was closed before it was opened */
    unsigned holders; /* orders that are about it */
    p2pos_info info;
    struct subject *next;
};

struct order {
    p2pos_stream stream; /* {0}: the place is free */
    char line[LINE_BYTES_MAX + 1];
    size_t line_bytes;
    int is_busy; /* the line is whole, its answer is owed */
    char *words[WORDS_MAX];
    size_t word_count;
    char rest[LINE_BYTES_MAX + 1]; /* what stands behind the second word, as it stood */
    struct subject *subject;
    struct subject *opening;
    unsigned long done; /* bytes of this order */
    unsigned long a, b; /* its sum so far */
    char piece[PIECE_BYTES]; /* of an echo, not yet written */
    size_t from, to;
    int is_over; /* of an echo: the other side has finished */
    char answer[ANSWER_BYTES_MAX];
    size_t answer_bytes, answered;
};

extern p2pos_client *client;
extern int is_leaving;

/* A subject for this stream, in the list until it is dropped. Ends the process if there is no memory. */
struct subject *new_subject(p2pos_stream stream, int socket);

/* The offer of this kind that came first and that nobody has taken, or NULL. */
struct subject *oldest_offer(enum p2pos_kind kind);

/* The order is about this subject (NULL: about none) from now on; what it was about before is dropped once that has ended. */
void set_subject(struct order *order, struct subject *subject);

/* The daemon has said its last word about the subject. */
void subject_closed(struct subject *subject, int code);

/* Closes its socket, releases its stream, forgets it. NULL: nothing. */
void drop_subject(struct subject *subject);

/* Bytes of a subject of either sort: P2POS_OK with *moved, P2POS_ERR_NOT_YET, or how it ended. None of them waits. */
int subject_read(struct subject *subject, char *bytes, size_t size, size_t *moved);
int subject_write(struct subject *subject, const char *bytes, size_t size, size_t *moved);
int subject_finish(struct subject *subject);

/* Word `index` of the order, or "". */
const char *word(const struct order *order, size_t index);

/* Does what the order's words say, as far as that goes without waiting. */
enum progress obey(struct order *order);

#endif
