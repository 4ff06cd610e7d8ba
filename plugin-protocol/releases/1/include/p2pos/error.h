/* Error codes of the p2pOS SDK for C. Included by <p2pos/p2pos.h>.
 *
 * Every function that can fail returns an int: 0 (P2POS_OK) or one of these. Numbers below 100 are this library's; the others are
 * the registry of the plugin protocol, where the hundred says what ended: 1xx the session, 2xx one request, 3xx the attempt to
 * reach a peer, 4xx one stream; 5xx is the daemon's own fault. A number of a later daemon is passed on as it is: treat it as its
 * hundred. */
#ifndef P2POS_ERROR_H
#define P2POS_ERROR_H

#include <stdint.h>

#if defined(P2POS_BUILD) && defined(__GNUC__)
#define P2POS_API __attribute__((visibility("default")))
#else
#define P2POS_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum p2pos_error {
    P2POS_OK = 0,
    P2POS_ERR_MISUSE = 1,      /* a mistake in the calling program; the message says which */
    P2POS_ERR_MEMORY = 2,      /* the allocator gave nothing; what was asked did not happen */
    P2POS_ERR_NOT_YET = 3,     /* nothing came, or no room, in the time you gave; nothing is lost, call again */
    P2POS_ERR_LAUNCH = 4,      /* the environment does not say where the daemon is */
    P2POS_ERR_CONNECT = 5,     /* no daemon answers there */
    P2POS_ERR_SYSTEM = 6,      /* a system call failed; the message says which and why */
    P2POS_ERR_INTERRUPTED = 7, /* p2pos_interrupt ended the wait */
    P2POS_ERR_NO_STREAM = 8,   /* there is no such stream or flow: it was released, or never was */
    P2POS_ERR_STOPPED = 9,     /* the other side reads no more; what it writes can still be read */
    P2POS_ERR_ROOM = 10,       /* the memory you gave is too small; nothing is lost */

    P2POS_ERR_PROTOCOL = 100,
    P2POS_ERR_VERSION = 101,
    P2POS_ERR_AUTH = 102,
    P2POS_ERR_FRAME_TOO_LARGE = 103,
    P2POS_ERR_HANDSHAKE_TIMEOUT = 104,
    P2POS_ERR_SHUTTING_DOWN = 105,
    P2POS_ERR_SLOW_CONSUMER = 106,
    P2POS_ERR_REVOKED = 107,
    P2POS_ERR_BAD_REQUEST = 200,
    P2POS_ERR_UNKNOWN_METHOD = 201,
    P2POS_ERR_PERMISSION_DENIED = 202,
    P2POS_ERR_PERMISSION_PENDING = 203,
    P2POS_ERR_ALREADY_REGISTERED = 204,
    P2POS_ERR_NOT_REGISTERED = 205,
    P2POS_ERR_LIMIT = 206,
    P2POS_ERR_TIMEOUT = 207, /* the daemon did not answer a request in time; the request was given up */
    P2POS_ERR_CANCELLED = 208,
    P2POS_ERR_NOT_FOUND = 209,
    P2POS_ERR_TOO_BIG = 210,
    P2POS_ERR_UNKNOWN = 300,
    P2POS_ERR_OFFLINE = 301,
    P2POS_ERR_UNREACHABLE = 302,
    P2POS_ERR_NEEDS_RELAY = 303,
    P2POS_ERR_PROTOCOL_NOT_SUPPORTED = 304,
    P2POS_ERR_REFUSED = 305,
    P2POS_ERR_NOT_READY = 306,
    P2POS_ERR_IDENTITY_MISMATCH = 307,
    P2POS_ERR_LOCAL_OFFLINE = 308,
    P2POS_ERR_APP = 400, /* the other plugin's own number is in p2pos_problem.app_code */
    P2POS_ERR_STREAM_LIMIT = 401,
    P2POS_ERR_FLOW_CONTROL = 402,
    P2POS_ERR_PLUGIN_GONE = 403,
    P2POS_ERR_PATH_LOST = 404,
    P2POS_ERR_IDLE = 405,
    P2POS_ERR_INTERNAL = 500
};

/* What is known about an error, for the log and for people. All texts end with a zero byte and are UTF-8, cut where they are too
 * long. Peers and daemons wrote some of them: print them as data. */
typedef struct p2pos_problem {
    int code;                /* what the function returned */
    uint32_t app_code;       /* with P2POS_ERR_APP and P2POS_ERR_STOPPED: the other plugin's own number */
    uint32_t retry_after_ms; /* when to try again; 0: nobody said */
    char message[512];       /* what happened */
    char hint[256];          /* what to do next; may be empty */
    char details[1024];      /* more facts, one a line: for 302 what was tried, for 304 what the peer serves */
} p2pos_problem;

/* Returns the registry's name of a code, like "REFUSED"; "UNKNOWN_CODE" for one of a later version.
 *
 * Ownership: a constant. Blocking: never. Threads: any. Limits: none. Since: 0.1. */
P2POS_API const char *p2pos_error_name(int code);

/* Returns one plain sentence about a code; never NULL. p2pos_last_problem knows more.
 *
 * Ownership: a constant. Blocking: never. Threads: any. Limits: none. Since: 0.1. */
P2POS_API const char *p2pos_error_text(int code);

/* Returns what a person can do about a code; "" if this version does not know.
 *
 * Ownership: a constant. Blocking: never. Threads: any. Limits: none. Since: 0.1. */
P2POS_API const char *p2pos_error_hint(int code);

#ifdef __cplusplus
}
#endif

#endif
