/* Reads and writes the fields of variable length (SPEC.md section 3): text, bytes, lists.
 *
 * nanopb does the wire; this file lends out where the bytes are instead of copying them, and refuses text that is not
 * UTF-8 and a field of the wrong wire type [S-MSG-4]. It allocates nothing. */
#include "field.h"

#include <string.h>

#include <pb_decode.h>
#include <pb_encode.h>

/* The largest message that stands in a list, in bytes of its struct: Protocol. Checked where it is used. */
#define ITEM_BYTES_MAX 64

static bool take(pb_istream_t *stream, pb_byte_t *buffer, size_t count) {
    struct p2pos_pb_reader *reader = stream->state;
    if (buffer != NULL) {
        memcpy(buffer, reader->at, count);
    }
    reader->at += count;
    return true;
}

pb_istream_t p2pos_pb_stream(struct p2pos_pb_reader *reader, size_t size) {
    pb_istream_t stream;
    memset(&stream, 0, sizeof stream);
    stream.callback = take;
    stream.state = reader;
    stream.bytes_left = size;
    return stream;
}

size_t p2pos_utf8_bytes(const uint8_t *at, size_t left) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint8_t first = at[0];
    if (first < 0x80) {
        return 1;
    }
    size_t size = (first & 0xe0) == 0xc0 ? 2 : (first & 0xf0) == 0xe0 ? 3 : (first & 0xf8) == 0xf0 ? 4 : 0;
    if (size == 0 || size > left) {
        return 0;
    }
    uint32_t value = first & (0xffu >> (size + 1));
    for (size_t i = 1; i < size; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0;
        }
        value = value << 6 | (at[i] & 0x3fu);
    }
    bool is_good = value >= least[size] && value <= 0x10ffff && (value < 0xd800 || value > 0xdfff);
    return is_good ? size : 0;
}

static bool is_text(struct p2pos_view view) {
    for (size_t at = 0; at < view.size;) {
        size_t size = p2pos_utf8_bytes(view.data + at, view.size - at);
        if (size == 0) {
            return false;
        }
        at += size;
    }
    return true;
}

/* The rest of the stream as a view. False for a field of the wrong wire type: nanopb hands those over in a buffer of its own. */
static bool lend(pb_istream_t *in, const pb_field_iter_t *field, struct p2pos_view *view) {
    if (in->callback != take) {
        return false;
    }
    struct p2pos_pb_reader *reader = in->state;
    view->data = reader->at;
    view->size = in->bytes_left;
    reader->at += in->bytes_left;
    in->bytes_left = 0;
    return PB_LTYPE(field->type) != PB_LTYPE_STRING || is_text(*view);
}

static void keep(struct p2pos_list *list, const void *item, size_t size) {
    if (list->count < list->room && list->item_size == size) {
        memcpy((uint8_t *)list->items + list->count * size, item, size);
    }
    list->count++;
    if (list->each != NULL) {
        list->each(list->context, item);
    }
}

static bool read_item(pb_istream_t *in, const pb_field_iter_t *field, struct p2pos_list *list) {
    if (PB_LTYPE_IS_SUBMSG(field->type)) {
        union {
            uint64_t aligned[ITEM_BYTES_MAX / 8];
            void *pointer;
        } item;
        memset(&item, 0, sizeof item);
        if (in->callback != take || list->item_size > sizeof item) {
            return false;
        }
        if (!pb_decode(in, field->submsg_desc, &item)) {
            return false;
        }
        keep(list, &item, list->item_size);
        return true;
    }
    if (PB_LTYPE(field->type) == PB_LTYPE_UVARINT) {
        uint64_t number;
        if (in->bytes_left == 0) {
            return true; /* an empty packed list */
        }
        if (!pb_decode_varint(in, &number)) {
            return false;
        }
        keep(list, &number, sizeof number);
        return true;
    }
    struct p2pos_view view;
    if (!lend(in, field, &view)) {
        return false;
    }
    keep(list, &view, sizeof view);
    return true;
}

static bool write_numbers(pb_ostream_t *out, const pb_field_iter_t *field, const struct p2pos_list *list) {
    const uint64_t *numbers = list->items;
    pb_ostream_t sizing = PB_OSTREAM_SIZING;
    if (list->count == 0) {
        return true;
    }
    for (size_t i = 0; i < list->count; i++) {
        if (!pb_encode_varint(&sizing, numbers[i])) {
            return false;
        }
    }
    if (!pb_encode_tag(out, PB_WT_STRING, field->tag) || !pb_encode_varint(out, sizing.bytes_written)) {
        return false;
    }
    for (size_t i = 0; i < list->count; i++) {
        if (!pb_encode_varint(out, numbers[i])) {
            return false;
        }
    }
    return true;
}

static bool write_list(pb_ostream_t *out, const pb_field_iter_t *field, const struct p2pos_list *list) {
    if (PB_LTYPE(field->type) == PB_LTYPE_UVARINT) {
        return write_numbers(out, field, list);
    }
    for (size_t i = 0; i < list->count; i++) {
        const void *item = (const uint8_t *)list->items + i * list->item_size;
        const struct p2pos_view *view = item;
        bool is_message = PB_LTYPE_IS_SUBMSG(field->type);
        if (!pb_encode_tag(out, PB_WT_STRING, field->tag)) {
            return false;
        }
        if (is_message ? !pb_encode_submessage(out, field->submsg_desc, item)
                       : !pb_encode_string(out, view->data, view->size)) {
            return false;
        }
    }
    return true;
}

bool p2pos_pb_field(pb_istream_t *in, pb_ostream_t *out, const pb_field_iter_t *field) {
    bool is_list = PB_HTYPE(field->type) == PB_HTYPE_REPEATED;
    bool is_choice = PB_HTYPE(field->type) == PB_HTYPE_ONEOF;
    if (in != NULL) {
        if (is_list) {
            return read_item(in, field, field->pData);
        }
        if (is_choice) {
            *(pb_size_t *)field->pSize = field->tag;
        }
        return lend(in, field, field->pData);
    }
    if (is_list) {
        return write_list(out, field, field->pData);
    }
    const struct p2pos_view *view = field->pData;
    if (view->size == 0 && !is_choice) {
        return true; /* a default is left out */
    }
    return pb_encode_tag(out, PB_WT_STRING, field->tag) && pb_encode_string(out, view->data, view->size);
}
