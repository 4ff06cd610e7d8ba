/* The allocator, growing buffers, and copying text into fields of fixed size. It knows no protocol. */
#include "buffer.h"

#include <stdlib.h>
#include <string.h>

/* First allocation of a buffer, in bytes: a few control frames fit, and small streams stay small. */
#define BUFFER_BYTES_FIRST 512

static void *system_alloc(void *context, size_t size) {
    (void)context;
    return malloc(size);
}

static void system_free(void *context, void *memory) {
    (void)context;
    free(memory);
}

const p2pos_allocator p2pos_system_allocator = {system_alloc, system_free, NULL};

void *p2pos_alloc(const p2pos_allocator *allocator, size_t size) {
    void *memory = allocator->alloc(allocator->context, size);
    if (memory != NULL) {
        memset(memory, 0, size);
    }
    return memory;
}

void p2pos_free(const p2pos_allocator *allocator, void *memory) {
    if (memory != NULL) {
        allocator->free(allocator->context, memory);
    }
}

char *p2pos_copy_text(const p2pos_allocator *allocator, const void *text, size_t size) {
    char *copy = allocator->alloc(allocator->context, size + 1);
    if (copy != NULL) {
        if (size > 0) {
            memcpy(copy, text, size);
        }
        copy[size] = '\0';
    }
    return copy;
}

size_t p2pos_buffer_used(const struct p2pos_buffer *buffer) {
    return buffer->end - buffer->start;
}

bool p2pos_buffer_reserve(const p2pos_allocator *allocator, struct p2pos_buffer *buffer, size_t size) {
    size_t used = p2pos_buffer_used(buffer);
    if (buffer->capacity - buffer->end >= size) {
        return true;
    }
    if (buffer->capacity - used >= size && buffer->start >= used) {
        /* The front is free and at least as large as what moves: each byte moves once on average. */
        memmove(buffer->data, buffer->data + buffer->start, used);
        buffer->start = 0;
        buffer->end = used;
        return true;
    }
    size_t wanted = buffer->capacity < BUFFER_BYTES_FIRST ? BUFFER_BYTES_FIRST : buffer->capacity;
    while (wanted - used < size) {
        if (wanted > SIZE_MAX / 2) {
            return false;
        }
        wanted *= 2;
    }
    uint8_t *data = allocator->alloc(allocator->context, wanted);
    if (data == NULL) {
        return false;
    }
    if (used > 0) {
        memcpy(data, buffer->data + buffer->start, used);
    }
    p2pos_free(allocator, buffer->data);
    buffer->data = data;
    buffer->capacity = wanted;
    buffer->start = 0;
    buffer->end = used;
    return true;
}

bool p2pos_buffer_put(const p2pos_allocator *allocator, struct p2pos_buffer *buffer, const void *data, size_t size) {
    if (size == 0) {
        return true;
    }
    if (!p2pos_buffer_reserve(allocator, buffer, size)) {
        return false;
    }
    memcpy(buffer->data + buffer->end, data, size);
    buffer->end += size;
    return true;
}

void p2pos_buffer_drop(struct p2pos_buffer *buffer, size_t size) {
    buffer->start += size;
    if (buffer->start == buffer->end) {
        buffer->start = buffer->end = 0;
    }
}

void p2pos_buffer_shrink(const p2pos_allocator *allocator, struct p2pos_buffer *buffer, size_t keep) {
    if (buffer->start == buffer->end && buffer->capacity > keep) {
        p2pos_buffer_free(allocator, buffer);
    }
}

void p2pos_buffer_free(const p2pos_allocator *allocator, struct p2pos_buffer *buffer) {
    p2pos_free(allocator, buffer->data);
    memset(buffer, 0, sizeof *buffer);
}

void p2pos_text_into(char *field, size_t room, const void *text, size_t size) {
    const char *from = text;
    if (size >= room) {
        size = room - 1;
        while (size > 0 && ((unsigned char)from[size] & 0xc0) == 0x80) {
            size--;
        }
    }
    for (size_t i = 0; i < size; i++) {
        field[i] = from[i] == '\0' ? ' ' : from[i];
    }
    field[size] = '\0';
}
