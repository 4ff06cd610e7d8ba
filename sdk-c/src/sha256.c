/* SHA-256 as in FIPS 180-4, HMAC as in RFC 2104. Only the handshake of tools needs it, some hundred bytes once per session: it is
 * written to be read, not to be fast. */
#include "sha256.h"

#include <string.h>

/* The first 32 bits of the fractions of the cube roots of the first 64 primes. */
static const uint32_t rounds[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t turn(uint32_t value, unsigned bits) {
    return value >> bits | value << (32 - bits);
}

static void mix(struct p2pos_sha256 *hash, const uint8_t *block) {
    uint32_t words[64];
    uint32_t s[8];
    for (size_t i = 0; i < 16; i++) {
        words[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
                   block[4 * i + 3];
    }
    for (size_t i = 16; i < 64; i++) {
        uint32_t a = words[i - 15];
        uint32_t b = words[i - 2];
        words[i] = words[i - 16] + words[i - 7] + (turn(a, 7) ^ turn(a, 18) ^ a >> 3) + (turn(b, 17) ^ turn(b, 19) ^ b >> 10);
    }
    memcpy(s, hash->state, sizeof s);
    for (size_t i = 0; i < 64; i++) {
        uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
        uint32_t majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
        uint32_t first = s[7] + (turn(s[4], 6) ^ turn(s[4], 11) ^ turn(s[4], 25)) + choice + rounds[i] + words[i];
        uint32_t second = (turn(s[0], 2) ^ turn(s[0], 13) ^ turn(s[0], 22)) + majority;
        memmove(s + 1, s, 7 * sizeof s[0]);
        s[4] += first;
        s[0] = first + second;
    }
    for (size_t i = 0; i < 8; i++) {
        hash->state[i] += s[i];
    }
    p2pos_wipe(words, sizeof words);
}

void p2pos_sha256_begin(struct p2pos_sha256 *hash) {
    static const uint32_t first[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memset(hash, 0, sizeof *hash);
    memcpy(hash->state, first, sizeof first);
}

void p2pos_sha256_add(struct p2pos_sha256 *hash, const void *data, size_t size) {
    const uint8_t *at = data;
    while (size > 0) {
        size_t used = (size_t)(hash->bytes % P2POS_SHA256_BLOCK);
        size_t count = P2POS_SHA256_BLOCK - used < size ? P2POS_SHA256_BLOCK - used : size;
        memcpy(hash->block + used, at, count);
        hash->bytes += count;
        at += count;
        size -= count;
        if (hash->bytes % P2POS_SHA256_BLOCK == 0) {
            mix(hash, hash->block);
        }
    }
}

void p2pos_sha256_end(struct p2pos_sha256 *hash, uint8_t digest[P2POS_SHA256_BYTES]) {
    static const uint8_t padding[P2POS_SHA256_BLOCK] = {0x80};
    uint64_t bits = hash->bytes * 8;
    uint8_t length[8];
    for (size_t i = 0; i < 8; i++) {
        length[i] = (uint8_t)(bits >> (56 - 8 * i));
    }
    size_t used = (size_t)(hash->bytes % P2POS_SHA256_BLOCK);
    p2pos_sha256_add(hash, padding, used < 56 ? 56 - used : 120 - used);
    p2pos_sha256_add(hash, length, sizeof length);
    for (size_t i = 0; i < P2POS_SHA256_BYTES; i++) {
        digest[i] = (uint8_t)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
    }
    p2pos_wipe(hash, sizeof *hash);
}

void p2pos_hmac_begin(struct p2pos_hmac *hmac, const void *key, size_t size) {
    uint8_t inner_key[P2POS_SHA256_BLOCK] = {0};
    if (size > P2POS_SHA256_BLOCK) {
        p2pos_sha256_begin(&hmac->inner);
        p2pos_sha256_add(&hmac->inner, key, size);
        p2pos_sha256_end(&hmac->inner, inner_key);
    } else if (size > 0) {
        memcpy(inner_key, key, size);
    }
    for (size_t i = 0; i < P2POS_SHA256_BLOCK; i++) {
        hmac->outer_key[i] = inner_key[i] ^ 0x5c;
        inner_key[i] ^= 0x36;
    }
    p2pos_sha256_begin(&hmac->inner);
    p2pos_sha256_add(&hmac->inner, inner_key, sizeof inner_key);
    p2pos_wipe(inner_key, sizeof inner_key);
}

void p2pos_hmac_add(struct p2pos_hmac *hmac, const void *data, size_t size) {
    p2pos_sha256_add(&hmac->inner, data, size);
}

void p2pos_hmac_end(struct p2pos_hmac *hmac, uint8_t digest[P2POS_SHA256_BYTES]) {
    struct p2pos_sha256 outer;
    p2pos_sha256_end(&hmac->inner, digest);
    p2pos_sha256_begin(&outer);
    p2pos_sha256_add(&outer, hmac->outer_key, sizeof hmac->outer_key);
    p2pos_sha256_add(&outer, digest, P2POS_SHA256_BYTES);
    p2pos_sha256_end(&outer, digest);
    p2pos_wipe(hmac, sizeof *hmac);
}

bool p2pos_is_equal(const uint8_t *one, const uint8_t *other, size_t size) {
    unsigned difference = 0;
    for (size_t i = 0; i < size; i++) {
        difference |= (unsigned)(one[i] ^ other[i]);
    }
    return difference == 0;
}

void p2pos_wipe(void *memory, size_t size) {
    volatile uint8_t *at = memory;
    while (size-- > 0) {
        *at++ = 0;
    }
}
