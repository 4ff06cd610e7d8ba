/* The two kinds of name on the wire (SPEC.md section 3). Pure text rules. */
#ifndef P2POS_NAMES_H
#define P2POS_NAMES_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of a ProtocolName, and characters of a PeerId. */
#define P2POS_PROTOCOL_NAME_BYTES_MAX 128
#define P2POS_PEER_ID_CHARS 63

/* "/name/.../version" of [a-z0-9._-], at most 128 bytes. */
bool p2pos_is_protocol_name(const char *name, size_t size);

/* Writes the PeerId in lower case. NULL: it is good; else what is wrong, for a person. */
const char *p2pos_check_peer_id(const char *text, char peer[P2POS_PEER_ID_CHARS + 1]);

#endif
