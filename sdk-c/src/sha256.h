/* SHA-256 (FIPS 180-4) and HMAC (RFC 2104), for the handshake of tools alone. */
#ifndef P2POS_SHA256_H
#define P2POS_SHA256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define P2POS_SHA256_BYTES 32
#define P2POS_SHA256_BLOCK 64

struct p2pos_sha256 {
    uint32_t state[8];
    uint64_t bytes;
    uint8_t block[P2POS_SHA256_BLOCK];
};

void p2pos_sha256_begin(struct p2pos_sha256 *hash);
void p2pos_sha256_add(struct p2pos_sha256 *hash, const void *data, size_t size);
void p2pos_sha256_end(struct p2pos_sha256 *hash, uint8_t digest[P2POS_SHA256_BYTES]);

struct p2pos_hmac {
    struct p2pos_sha256 inner;
    uint8_t outer_key[P2POS_SHA256_BLOCK];
};

void p2pos_hmac_begin(struct p2pos_hmac *hmac, const void *key, size_t size);
void p2pos_hmac_add(struct p2pos_hmac *hmac, const void *data, size_t size);
void p2pos_hmac_end(struct p2pos_hmac *hmac, uint8_t digest[P2POS_SHA256_BYTES]);

/* Takes the same time whatever it finds. */
bool p2pos_is_equal(const uint8_t *one, const uint8_t *other, size_t size);
/* Overwrites in a way that no compiler leaves out. */
void p2pos_wipe(void *memory, size_t size);

#endif
