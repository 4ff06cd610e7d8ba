/* PeerId and ProtocolName (SPEC.md section 3), so that a typo is found before it travels. A PeerId is the bech32m text (BIP 350) of a
 * public key: prefix "p2p", version symbol "q", 32 bytes, checksum. Whether the key is a good key only the daemon knows. */
#include "names.h"

#include <stdint.h>
#include <string.h>

#define BECH32M 0x2bc830a3u
#define START "p2p1q"

bool p2pos_is_protocol_name(const char *name, size_t size) {
    static const char symbols[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t segments = 0;
    size_t length = 1; /* of the segment; a slash needs one before it */
    if (size == 0 || size > P2POS_PROTOCOL_NAME_BYTES_MAX || name[0] != '/') {
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        if (name[i] == '/') {
            if (length == 0) {
                return false;
            }
            segments++;
            length = 0;
        } else if (name[i] == '\0' || strchr(symbols, name[i]) == NULL) {
            return false;
        } else {
            length++;
        }
    }
    return segments >= 2 && length > 0;
}

static uint32_t add_symbol(uint32_t state, unsigned symbol) {
    static const uint32_t generators[] = {0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3};
    uint32_t top = state >> 25;
    state = (state & 0x1ffffff) << 5 ^ symbol;
    for (unsigned i = 0; i < 5; i++) {
        if ((top >> i & 1) != 0) {
            state ^= generators[i];
        }
    }
    return state;
}

const char *p2pos_check_peer_id(const char *text, char peer[P2POS_PEER_ID_CHARS + 1]) {
    static const char alphabet[] = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    static const unsigned prefix[] = {'p' >> 5, '2' >> 5, 'p' >> 5, 0, 'p' & 31, '2' & 31, 'p' & 31};
    bool has_lower = false;
    bool has_upper = false;
    uint32_t state = 1;
    unsigned padding = 0;
    if (strlen(text) != P2POS_PEER_ID_CHARS) {
        return "a PeerId has 63 characters";
    }
    for (size_t i = 0; i < P2POS_PEER_ID_CHARS; i++) {
        bool is_upper = text[i] >= 'A' && text[i] <= 'Z';
        has_upper = has_upper || is_upper;
        has_lower = has_lower || (text[i] >= 'a' && text[i] <= 'z');
        peer[i] = is_upper ? (char)(text[i] + ('a' - 'A')) : text[i];
    }
    peer[P2POS_PEER_ID_CHARS] = '\0';
    if (has_lower && has_upper) {
        return "a PeerId is written in lower case or in upper case, not both";
    }
    if (strncmp(peer, START, strlen(START)) != 0) {
        return "a PeerId starts with " START;
    }
    for (size_t i = 0; i < sizeof prefix / sizeof prefix[0]; i++) {
        state = add_symbol(state, prefix[i]);
    }
    for (size_t i = strlen(START) - 1; i < P2POS_PEER_ID_CHARS; i++) {
        const char *place = strchr(alphabet, peer[i]);
        if (place == NULL) {
            return "a PeerId has no letters b, i, o and no 1 after its start";
        }
        unsigned symbol = (unsigned)(place - alphabet);
        if (i == P2POS_PEER_ID_CHARS - 7) {
            padding = symbol & 0x0f;
        }
        state = add_symbol(state, symbol);
    }
    return state == BECH32M && padding == 0 ? NULL : "the PeerId has a typo: its checksum does not fit";
}
