/* See json.h. */
#include "json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *skip_space(const char *at) {
    return at + strspn(at, " \t\r");
}

/* Four hexadecimal digits; -1: they are none. */
static long read_hex(const char *at) {
    char digits[5] = {0};
    memcpy(digits, at, strnlen(at, 4));
    return strlen(digits) == 4 && strspn(digits, "0123456789abcdefABCDEF") == 4 ? strtol(digits, NULL, 16) : -1;
}

static size_t put_utf8(unsigned long point, char *out) {
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    size_t more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    static const unsigned marks[] = {0, 0xc0, 0xe0, 0xf0};
    out[0] = (char)(marks[more] | point >> (6 * more));
    for (size_t i = 1; i <= more; i++) {
        out[i] = (char)(0x80 | (point >> (6 * (more - i)) & 0x3f));
    }
    return more + 1;
}

/* An escape behind its backslash: writes it, returns how long it was; 0: it is none. */
static size_t read_escape(const char *at, char *out, size_t *written) {
    static const char from[] = "\"\\/bfnrt";
    static const char to[] = "\"\\/\b\f\n\r\t";
    const char *place = *at == '\0' ? NULL : strchr(from, *at);
    if (place != NULL) {
        out[0] = to[place - from];
        *written = 1;
        return 1;
    }
    long high = *at == 'u' ? read_hex(at + 1) : -1;
    if (high <= 0) {
        return 0;
    }
    long low = high >= 0xd800 && high < 0xdc00 && at[5] == '\\' && at[6] == 'u' ? read_hex(at + 7) : -1;
    if (low >= 0xdc00 && low < 0xe000) {
        *written = put_utf8(0x10000ul + (unsigned long)(high - 0xd800) * 0x400ul + (unsigned long)(low - 0xdc00), out);
        return 11;
    }
    *written = put_utf8(high >= 0xd800 && high < 0xe000 ? 0xfffdul : (unsigned long)high, out);
    return 5;
}

/* Reads a string at `at`; NULL: it is none. `text` may be NULL. Returns what stands behind it. */
static const char *read_string(const char *at, char *text, size_t room) {
    char piece[4];
    size_t used = 0;
    if (*at++ != '"') {
        return NULL;
    }
    while (*at != '"') {
        size_t size = 1;
        size_t length = 1;
        piece[0] = *at;
        if (*at == '\0' || (*at == '\\' && (length = 1 + read_escape(at + 1, piece, &size)) == 1)) {
            return NULL;
        }
        if (text != NULL) {
            if (used + size >= room) {
                return NULL;
            }
            memcpy(text + used, piece, size);
            used += size;
        }
        at += length;
    }
    if (text != NULL) {
        text[used] = '\0';
    }
    return at + 1;
}

/* Where the value of the member stands; NULL: there is no such member, or no flat object. */
static const char *find(const char *object, const char *name) {
    char key[32];
    const char *at = skip_space(object);
    if (*at++ != '{') {
        return NULL;
    }
    for (;;) {
        const char *behind = read_string(skip_space(at), key, sizeof key);
        if (behind == NULL || *(behind = skip_space(behind)) != ':') {
            return NULL;
        }
        const char *value = skip_space(behind + 1);
        if (strcmp(key, name) == 0) {
            return value;
        }
        behind = *value == '"' ? read_string(value, NULL, 0) : value + strcspn(value, ",}{[\"");
        if (behind == NULL || *(behind = skip_space(behind)) != ',') {
            return NULL;
        }
        at = behind + 1;
    }
}

int json_number(const char *object, const char *name, unsigned long *number) {
    const char *value = find(object, name);
    if (value == NULL || *value < '0' || *value > '9' || strspn(value, "0123456789") > 15) {
        return 0;
    }
    *number = strtoul(value, NULL, 10);
    return 1;
}

int json_string(const char *object, const char *name, char *text, size_t room) {
    const char *value = find(object, name);
    return value != NULL && read_string(value, text, room) != NULL;
}

void json_write_string(const char *text, char *out, size_t room) {
    size_t used = 0;
    out[used++] = '"';
    for (; *text != '\0' && used + 8 < room; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte == '"' || byte == '\\') {
            out[used++] = '\\';
            out[used++] = *text;
        } else if (byte < 0x20 || byte == 0x7f) {
            used += (size_t)snprintf(out + used, room - used, "\\u%04x", byte);
        } else {
            out[used++] = *text;
        }
    }
    out[used++] = '"';
    out[used] = '\0';
}

void json_make_harmless(char *text) {
    for (; *text != '\0'; text++) {
        unsigned char byte = (unsigned char)*text;
        /* Control characters of ASCII, and those of Latin 1, which UTF-8 writes as c2 80 to c2 9f. */
        if (byte < 0x20 || byte == 0x7f || (byte == 0xc2 && (unsigned char)text[1] >= 0x80 && (unsigned char)text[1] < 0xa0)) {
            *text = '?';
        }
    }
}
