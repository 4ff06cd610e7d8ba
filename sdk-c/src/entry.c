/* One stream or flow; see entry.h. */
#include "entry.h"

#include <string.h>

/* An input buffer of more bytes than this is given back when it is empty. */
#define INPUT_BYTES_KEPT 16384

bool p2pos_entry_is_flow(const struct p2pos_entry *entry) {
    return entry->info.kind == P2POS_KIND_FLOW;
}

bool p2pos_entry_is_detached(const struct p2pos_entry *entry) {
    return entry->info.kind == P2POS_KIND_DETACHED;
}

static void clear(const p2pos_allocator *allocator, struct p2pos_packets *queue) {
    struct p2pos_packet *packet;
    while ((packet = p2pos_entry_unqueue(queue)) != NULL) {
        p2pos_free(allocator, packet);
    }
}

void p2pos_entry_free(const p2pos_allocator *allocator, struct p2pos_entry *entry) {
    p2pos_buffer_free(allocator, &entry->input);
    clear(allocator, &entry->packets_in);
    clear(allocator, &entry->packets_out);
    p2pos_free(allocator, entry->problem);
    p2pos_free(allocator, entry);
}

void p2pos_entry_finish(const p2pos_allocator *allocator, struct p2pos_entry *entry, struct p2pos_end end) {
    if (entry->end.source == P2POS_SOURCE_NONE && !entry->is_closed) {
        entry->end = end;
    }
    clear(allocator, &entry->packets_out);
    if (end.source == P2POS_SOURCE_LOCAL) {
        p2pos_entry_forget_input(allocator, entry);
    }
}

void p2pos_entry_forget_input(const p2pos_allocator *allocator, struct p2pos_entry *entry) {
    p2pos_buffer_free(allocator, &entry->input);
    clear(allocator, &entry->packets_in);
}

/* Why nothing more will be read; NOT_YET: it may. */
static int read_end(const struct p2pos_entry *entry) {
    if (entry->end.source != P2POS_SOURCE_NONE) {
        return entry->end.code;
    }
    if (entry->is_closed) {
        return entry->closed.code != 0 ? entry->closed.code : P2POS_ERR_PATH_LOST;
    }
    return P2POS_ERR_NOT_YET;
}

int p2pos_entry_read(const p2pos_allocator *allocator, struct p2pos_entry *entry, void *bytes, size_t size, size_t *got) {
    size_t used = p2pos_buffer_used(&entry->input);
    *got = 0;
    if (used > 0) {
        *got = used < size ? used : size;
        memcpy(bytes, entry->input.data + entry->input.start, *got);
        p2pos_buffer_drop(&entry->input, *got);
        p2pos_buffer_shrink(allocator, &entry->input, INPUT_BYTES_KEPT);
        entry->consumed += *got;
        return P2POS_OK;
    }
    return entry->fin_received ? P2POS_OK : read_end(entry);
}

bool p2pos_entry_is_readable(const struct p2pos_entry *entry) {
    if (entry->packets_in.first != NULL || p2pos_buffer_used(&entry->input) > 0) {
        return true;
    }
    return entry->fin_received || read_end(entry) != P2POS_ERR_NOT_YET;
}

int p2pos_entry_capacity(const struct p2pos_entry *entry, uint64_t *capacity) {
    *capacity = 0;
    if (entry->fin_sent) {
        return P2POS_ERR_MISUSE;
    }
    if (entry->end.source != P2POS_SOURCE_NONE) {
        return entry->end.code;
    }
    if (entry->stop.source != P2POS_SOURCE_NONE) {
        return P2POS_ERR_STOPPED;
    }
    if (entry->is_closed) {
        return entry->closed.code != 0 ? entry->closed.code : P2POS_ERR_PATH_LOST;
    }
    *capacity = entry->credit;
    return P2POS_OK;
}

uint32_t p2pos_entry_credit_to_give(struct p2pos_entry *entry) {
    if (entry->fin_received || entry->stop_sent || entry->is_closed || entry->end.source != P2POS_SOURCE_NONE ||
        entry->consumed * 2 < entry->window || entry->consumed == 0) {
        return 0;
    }
    uint32_t told = (uint32_t)entry->consumed; /* at most the window, which is under 16 MiB */
    entry->allowance += entry->consumed;
    entry->consumed = 0;
    return told;
}

bool p2pos_entry_queue(const p2pos_allocator *allocator, struct p2pos_entry *entry, struct p2pos_packets *queue,
                       struct p2pos_view payload) {
    struct p2pos_packet *packet = p2pos_alloc(allocator, sizeof *packet + payload.size);
    if (packet == NULL) {
        entry->packets_dropped++;
        return false;
    }
    packet->size = payload.size;
    if (payload.size > 0) {
        memcpy(packet->bytes, payload.data, payload.size);
    }
    if (queue->last == NULL) {
        queue->first = packet;
    } else {
        queue->last->next = packet;
    }
    queue->last = packet;
    queue->bytes += payload.size + P2POS_DATAGRAM_OVERHEAD_BYTES;
    while (queue->bytes > P2POS_DATAGRAM_QUEUE_BYTES_MAX) {
        p2pos_free(allocator, p2pos_entry_unqueue(queue));
        entry->packets_dropped++;
    }
    return true;
}

struct p2pos_packet *p2pos_entry_unqueue(struct p2pos_packets *queue) {
    struct p2pos_packet *packet = queue->first;
    if (packet == NULL) {
        return NULL;
    }
    queue->first = packet->next;
    if (queue->first == NULL) {
        queue->last = NULL;
    }
    queue->bytes -= packet->size + P2POS_DATAGRAM_OVERHEAD_BYTES;
    packet->next = NULL;
    return packet;
}

int p2pos_end_describe(const struct p2pos_end *end, const char *while_what, p2pos_problem *problem) {
    const char *text = p2pos_error_text(end->code);
    switch (end->source) {
    case P2POS_SOURCE_SESSION:
        p2pos_problem_set(problem, end->code, "the session ended while %s: %s", while_what, text);
        break;
    case P2POS_SOURCE_LOCAL:
        p2pos_problem_set(problem, end->code, "the stream was reset by this side before %s", while_what);
        break;
    default:
        if (end->code == P2POS_ERR_APP) {
            p2pos_problem_set(problem, end->code, "the other plugin reset the stream while %s; its own code is %u", while_what,
                              (unsigned)end->app_code);
        } else {
            p2pos_problem_set(problem, end->code, "the stream ended while %s: %s", while_what, text);
        }
    }
    problem->app_code = end->app_code;
    return end->code;
}
