/* The client: a session machine on a socket. Shared by the files that make the calls of p2pos.h. */
#ifndef P2POS_CLIENT_H
#define P2POS_CLIENT_H

#include "launch.h"
#include "names.h"
#include "session.h"
#include "socket.h"

struct p2pos_client {
    p2pos_allocator allocator;
    struct p2pos_session session;
    struct p2pos_poller poller;
    int socket;           /* -1: closed */
    bool is_broken;       /* writing failed; what the daemon still said is read */
    bool is_full;         /* the socket took less than it was given */
    bool has_fd_user;     /* p2pos_fd was called: somebody waits at the descriptor */
    bool is_woken;        /* the descriptor was made readable because events wait */
    bool is_interrupted;  /* p2pos_interrupt was noticed, and nobody was told */
    bool is_in_callback;  /* a function of the program runs within a call */
    char *endpoint;       /* for detached streams */
    char *data_dir;
    p2pos_problem problem;
};

/* A moment on p2pos_now_ms's clock; UINT64_MAX: never. */
typedef uint64_t p2pos_moment;
p2pos_moment p2pos_deadline(int timeout_ms);

/* --- client.c --- */

/* Writes what waits, as far as the socket takes it. */
void p2pos_client_flush(struct p2pos_client *client);
/* Waits until something happened, and lets the session take it. Returns 0 to look again, P2POS_ERR_NOT_YET after the deadline,
 * P2POS_ERR_INTERRUPTED. It looks at the socket once even if the deadline is over. */
int p2pos_client_wait(struct p2pos_client *client, p2pos_moment deadline);
/* At the end of every call: whoever waits at the descriptor hears of events. Returns `code`. */
int p2pos_client_done(struct p2pos_client *client, int code);

/* --- calls.c: what the calls share --- */

/* Sets the client's last problem. Returns the code. */
int p2pos_client_fail(struct p2pos_client *client, int code, const char *format, ...) P2POS_PRINTF(3, 4);
/* Why no call goes now: MISUSE within a callback, or the end of the session; 0 if all is well. */
int p2pos_client_check(struct p2pos_client *client);
/* The entry, or NULL with the last problem set. */
struct p2pos_entry *p2pos_client_entry(struct p2pos_client *client, uint32_t id);
/* The last problem says how the entry ended. Returns `code`. */
int p2pos_client_entry_failed(struct p2pos_client *client, const struct p2pos_entry *entry, int code, const char *while_what);
/* Splits "a b c" into views; -1: over `room`, or a name that is none. */
int p2pos_split_names(struct p2pos_client *client, const char *names, struct p2pos_view *views, size_t room);
/* A copy in which every byte that is not UTF-8 is a question mark, at most `most` bytes. NULL: no memory. */
char *p2pos_clean_text(const p2pos_allocator *allocator, const char *text, size_t most);

#endif
