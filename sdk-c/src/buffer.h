/* Memory: the caller's allocator, and a buffer of bytes that grows within a limit and forgets from its front.
 *
 * All allocations of the SDK go through here, so that a test can let each of them fail. */
#ifndef P2POS_BUFFER_H
#define P2POS_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "p2pos/p2pos.h"

/* Bytes `start..end` of `data` are in use. Zero it before its first use. */
struct p2pos_buffer {
    uint8_t *data;
    size_t capacity;
    size_t start;
    size_t end;
};

/* The allocator that a client uses if its options name none: malloc and free. */
extern const p2pos_allocator p2pos_system_allocator;

/* Zeroed memory, or NULL. */
void *p2pos_alloc(const p2pos_allocator *allocator, size_t size);
/* NULL is fine. */
void p2pos_free(const p2pos_allocator *allocator, void *memory);
/* A copy of `size` bytes with a zero byte behind them, or NULL. */
char *p2pos_copy_text(const p2pos_allocator *allocator, const void *text, size_t size);

size_t p2pos_buffer_used(const struct p2pos_buffer *buffer);
/* Room for `size` bytes behind what is in use; false: no memory, nothing changed. */
bool p2pos_buffer_reserve(const p2pos_allocator *allocator, struct p2pos_buffer *buffer, size_t size);
/* Appends; false: no memory, nothing changed. */
bool p2pos_buffer_put(const p2pos_allocator *allocator, struct p2pos_buffer *buffer, const void *data, size_t size);
/* Forgets `size` bytes at the front. */
void p2pos_buffer_drop(struct p2pos_buffer *buffer, size_t size);
/* Gives the memory back if nothing is in use and it is more than `keep` bytes. */
void p2pos_buffer_shrink(const p2pos_allocator *allocator, struct p2pos_buffer *buffer, size_t keep);
void p2pos_buffer_free(const p2pos_allocator *allocator, struct p2pos_buffer *buffer);

/* Copies text into a field of `room` bytes, cut between UTF-8 characters if it is too long, with a zero byte behind it; zero bytes
 * within the text become spaces. */
void p2pos_text_into(char *field, size_t room, const void *text, size_t size);

#endif
