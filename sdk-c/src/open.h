/* Opening and taking of any kind, for the calls of streams, flows and detached streams. */
#ifndef P2POS_OPEN_H
#define P2POS_OPEN_H

#include "client.h"

/* Opens and waits. The entry is the program's; after a failure there is none. */
int p2pos_open_kind(p2pos_client *client, const char *peer, const char *protocols, unsigned flags, enum p2pos_kind kind,
                    struct p2pos_entry **opened, p2pos_info *info, int timeout_ms);

/* Waits for the oldest offer; one of another kind is refused (kind 0: any will do). It is not accepted yet. */
int p2pos_take_offer(p2pos_client *client, const char *protocol, enum p2pos_kind kind, struct p2pos_entry **taken, int timeout_ms);

#endif
