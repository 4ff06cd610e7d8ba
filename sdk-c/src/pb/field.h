/* What the generated structs hold where nanopb would hold a callback: views into somebody else's memory, and lists.
 *
 * Owns the two types and the one function that nanopb calls for them. It knows no message. */
#ifndef P2POS_PB_FIELD_H
#define P2POS_PB_FIELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <pb.h>

/* Text or bytes. Decoded: it points into the frame, and is good as long as that. */
struct p2pos_view {
    const uint8_t *data;
    size_t size;
};

/* A repeated field.
 *
 * To be written: `items` are `count` values of `item_size` bytes each: views, messages, or uint64_t for enums.
 * Decoded: `count` says how many came; those that fit into `room` are at `items`, and `each` (if set) is told of all. */
struct p2pos_list {
    size_t count;
    size_t room;
    size_t item_size;
    void *items;
    void (*each)(void *context, const void *item);
    void *context;
};

/* Reads or writes one such field; nanopb calls it. */
bool p2pos_pb_field(pb_istream_t *in, pb_ostream_t *out, const pb_field_iter_t *field);

/* Where the input stream's memory is; `state` of every stream that these fields are read from. */
struct p2pos_pb_reader {
    const uint8_t *at;
};

/* A stream over `size` bytes at `reader->at`. */
pb_istream_t p2pos_pb_stream(struct p2pos_pb_reader *reader, size_t size);

/* How many bytes the UTF-8 character at `at` has; 0: it is none (RFC 3629: no surrogates, nothing over-long). */
size_t p2pos_utf8_bytes(const uint8_t *at, size_t left);

#endif
