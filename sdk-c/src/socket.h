/* Sockets to the daemon, and one descriptor to wait at (Linux: epoll, timerfd, eventfd). Knows no protocol and allocates nothing. */
#ifndef P2POS_SOCKET_H
#define P2POS_SOCKET_H

#include <sys/types.h>
#include <sys/uio.h>

#include "errors.h"

/* Connects to "unix:/path" or "tcp:127.0.0.1:PORT" within timeout_ms. Returns the blocking socket, close-on-exec; -1 with the
 * problem filled in. */
int p2pos_dial(const char *endpoint, int timeout_ms, p2pos_problem *problem);
/* Reading and writing fail after this time; 0: never. */
bool p2pos_set_timeouts(int socket, int timeout_ms);
bool p2pos_set_blocking(int socket, bool is_blocking);

/* Milliseconds of a clock that never goes back. */
uint64_t p2pos_now_ms(void);
/* Random bytes of the system. */
bool p2pos_random(uint8_t *bytes, size_t size);

/* --- waiting --- */

enum {
    P2POS_READY_IN = 1,    /* the socket has bytes, or is broken */
    P2POS_READY_OUT = 2,   /* the socket takes bytes */
    P2POS_READY_STDIN = 4, /* stdin has bytes, or its end */
    P2POS_READY_WAKE = 8,  /* p2pos_poller_wake or p2pos_poller_interrupt was called */
    P2POS_READY_TIMER = 16
};

struct p2pos_poller {
    int descriptor; /* of the epoll; the rest is in it */
    int socket;
    int timer;
    int event;
    bool waits_for_out;
    bool watches_stdin;
    uint64_t armed_ms;
};

/* Watches the socket, and stdin if asked. False: errno says why. `stdin_is_over`: there is nothing to watch, it has ended. */
bool p2pos_poller_open(struct p2pos_poller *poller, int socket, bool watches_stdin, bool *stdin_is_over);
void p2pos_poller_close(struct p2pos_poller *poller);
/* Forgets the socket, which is about to be closed. */
void p2pos_poller_forget_socket(struct p2pos_poller *poller);
void p2pos_poller_forget_stdin(struct p2pos_poller *poller);
void p2pos_poller_want_out(struct p2pos_poller *poller, bool wants);
/* Makes the descriptor readable at that time, for those who wait elsewhere. */
void p2pos_poller_arm(struct p2pos_poller *poller, uint64_t at_ms);
/* Waits up to timeout_ms (-1: for ever); returns what is ready, 0 after the time. A signal ends the wait early. */
unsigned p2pos_poller_wait(struct p2pos_poller *poller, int timeout_ms);
/* Makes the descriptor readable; safe in signal handlers. */
void p2pos_poller_wake(const struct p2pos_poller *poller);
void p2pos_poller_interrupt(const struct p2pos_poller *poller);
/* Takes both back; true if p2pos_poller_interrupt was called. */
bool p2pos_poller_calm(const struct p2pos_poller *poller);

#endif
