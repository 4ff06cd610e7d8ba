/* The p2pOS SDK for C: programs that open a protocol at a person, read and write.
 *
 *     p2pos_client *client;
 *     p2pos_stream stream;
 *     if (p2pos_connect(NULL, &client, NULL) != 0) return 78;
 *     p2pos_register(client, "/echo/1", NULL, P2POS_FOREVER);
 *     while (p2pos_accept(client, "/echo/1", &stream, NULL, P2POS_FOREVER) == 0) {
 *         char bytes[4096];
 *         size_t got;
 *         while (p2pos_read(client, stream, bytes, sizeof bytes, &got, P2POS_FOREVER) == 0 && got > 0)
 *             p2pos_write(client, stream, bytes, got, NULL, P2POS_FOREVER);
 *         p2pos_release(client, stream);
 *     }
 *     p2pos_close(client, 1000);
 *
 * The twelve calls of every p2pOS SDK: connect, register, accept, open, read, write, close_write, reset, send_datagram, subscribe,
 * log, wait_shutdown. docs/tutorial.md is the way in.
 *
 * OWNERSHIP. A client belongs to whoever called p2pos_connect, until p2pos_close. Streams and flows are small values, named by a
 * number that is never used twice in a session: copy them freely, and give them back with p2pos_release. What you pass in is yours
 * again when the call returns. Text that a call returns belongs to the client unless a comment says otherwise.
 *
 * BLOCKING. Calls with `timeout_ms` wait so long at most: 0 never waits, P2POS_FOREVER never gives up. While one waits, the whole
 * session goes on: bytes of other streams arrive in their buffers, the daemon's questions are answered. Outside of calls nothing
 * happens, since the library has no thread: a program that is busy with something else calls p2pos_process every few seconds, or
 * whenever p2pos_fd is readable. After 45 s of silence the daemon may take the plugin for dead.
 *
 * THREADS. One client at a time in one thread: calls with the same client must not overlap, but may come from different threads one
 * after the other. Different clients do not know each other. p2pos_interrupt may be called at any time, also in a signal handler.
 *
 * FORKS. All descriptors are close-on-exec. After fork, use a client in one of the two processes only.
 *
 * LIMITS. Nothing that the daemon or a peer sends makes a client grow without bound. A stream keeps at most its window of unread
 * bytes (256 KiB), a flow 256 KiB of datagrams, a client 1,024 changes, 2 MiB of control frames and one frame (1 MiB). */
#ifndef P2POS_P2POS_H
#define P2POS_P2POS_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

#ifdef __cplusplus
extern "C" {
#endif

#define P2POS_VERSION_MAJOR 0
#define P2POS_VERSION_MINOR 1
#define P2POS_VERSION_PATCH 0
#define P2POS_VERSION_TEXT "0.1.0"

#define P2POS_FOREVER (-1)           /* a timeout that never ends */
#define P2POS_PEER_BYTES 64          /* a PeerId and its zero byte */
#define P2POS_PROTOCOL_BYTES_MAX 129 /* the longest ProtocolName and its zero byte */
#define P2POS_PETNAME_BYTES_MAX 257  /* the longest petname (64 characters) and its zero byte */
#define P2POS_READ_BYTES 65536       /* a good size for the memory that p2pos_read fills: a whole Data frame */

/* The session with the daemon. */
typedef struct p2pos_client p2pos_client;

/* A stream: bytes in order, both ways, to one plugin of one peer. {0} is none. */
typedef struct p2pos_stream {
    uint32_t id;
} p2pos_stream;

/* A flow: unreliable messages, each whole or not at all, to one plugin of one peer. {0} is none. */
typedef struct p2pos_flow {
    uint32_t id;
} p2pos_flow;

/* Where memory comes from. `alloc` gives `size` bytes aligned for anything, or NULL; `free` never gets NULL. Called in the thread of
 * the call that needs it. Must outlive the client. */
typedef struct p2pos_allocator {
    void *(*alloc)(void *context, size_t size);
    void (*free)(void *context, void *memory);
    void *context;
} p2pos_allocator;

/* How to connect. Make it with p2pos_options_init; what is 0 or NULL has the default. */
typedef struct p2pos_options {
    size_t size;                      /* set by p2pos_options_init */
    const char *endpoint;             /* "unix:/path" or "tcp:127.0.0.1:PORT"; default: P2POS_ENDPOINT of the environment */
    const char *token;                /* default: P2POS_TOKEN of the environment */
    const char *endpoint_file;        /* the daemon's endpoint.json: for tools that no daemon started */
    const p2pos_allocator *allocator; /* default: malloc and free */
    const char *program;              /* name and version of your program, for the daemon's log; at most 100 bytes */
    uint32_t frame_bytes_max;         /* largest frame taken, 4,096 to 16,777,215 bytes; default: 1 MiB */
    uint32_t stream_window_bytes;     /* unread bytes kept for a stream, at most 16 MiB; default: 256 KiB */
    int timeout_ms;                   /* for connecting and the handshake; default: 5,000 */
    int ignores_stdin;                /* 1: do not read stdin to its end, whatever P2POS_EXIT_ON_STDIN_CLOSE says */
} p2pos_options;

enum p2pos_kind { P2POS_KIND_STREAM = 1, P2POS_KIND_FLOW = 2, P2POS_KIND_DETACHED = 3 };
enum p2pos_path { P2POS_PATH_UNKNOWN = 0, P2POS_PATH_DIRECT = 1, P2POS_PATH_LAN = 2, P2POS_PATH_LOOPBACK = 3, P2POS_PATH_RELAYED = 4 };
enum p2pos_level { P2POS_DEBUG = 1, P2POS_INFO = 2, P2POS_WARN = 3, P2POS_ERROR = 4 };
enum p2pos_health { P2POS_HEALTH_OK = 1, P2POS_HEALTH_DEGRADED = 2, P2POS_HEALTH_WAITING_NETWORK = 3 };

/* Who is at the other end, and how it was reached when it was opened. */
typedef struct p2pos_info {
    enum p2pos_kind kind;
    enum p2pos_path path;
    int is_contact;                          /* 1: the peer is in the user's address book; 0 on streams that we opened */
    uint32_t datagram_max;                   /* flows: bytes that one datagram may have */
    char peer[P2POS_PEER_BYTES];             /* the other side's PeerId; compare it as text */
    char protocol[P2POS_PROTOCOL_BYTES_MAX]; /* what both sides agreed on */
    char petname[P2POS_PETNAME_BYTES_MAX];   /* the user's own name for the peer; may be empty */
} p2pos_info;

enum p2pos_cause { P2POS_CAUSE_UNKNOWN = 0, P2POS_FINISHED = 1, P2POS_RESET_BY_US = 2, P2POS_RESET_BY_THEM = 3 };

/* How a stream truly ended: the daemon's last word. */
typedef struct p2pos_closed {
    enum p2pos_cause cause; /* P2POS_FINISHED: both sides called close_write, and every byte was handed over */
    int code;               /* else why */
    uint32_t app_code;      /* with P2POS_ERR_APP: the plugin's own number */
    uint64_t bytes_in;
    uint64_t bytes_out;
} p2pos_closed;

/* How p2pos_register serves. NULL or zeros: streams, from contacts, as many as the session allows. */
typedef struct p2pos_serve {
    enum p2pos_kind kind;    /* 0: P2POS_KIND_STREAM */
    int is_for_anyone;       /* 1: peers who are no contacts may open it, too */
    uint32_t concurrent_max; /* streams at once; 0: the session's limit */
} p2pos_serve;

/* --- the session --- */

/* Fills in the defaults; `size` is sizeof(p2pos_options). Call it before you set anything.
 *
 * Ownership: the caller's struct; its texts and allocator must live until p2pos_connect returns, the allocator as long as the client.
 * Blocking: never. Threads: any. Limits: none. Since: 0.1. */
P2POS_API void p2pos_options_init(p2pos_options *options, size_t size);

/* Connects to the daemon that started this program, and says Hello. NULL options: all from the environment. `problem` may be NULL;
 * it tells more, also about success. P2POS_ERR_LAUNCH: no daemon started us (exit with 78, sysexits' EX_CONFIG);
 * P2POS_ERR_CONNECT: nobody answers; P2POS_ERR_AUTH, P2POS_ERR_VERSION and other 1xx: the daemon refused.
 *
 * Ownership: `*client` is the caller's, to be given to p2pos_close; NULL after a failure.
 * Blocking: up to options->timeout_ms. Threads: any. Limits: one session per launch token. Since: 0.1. */
P2POS_API int p2pos_connect(const p2pos_options *options, p2pos_client **client, p2pos_problem *problem);

/* Ends the session and frees the client, all streams included; what was written still goes out within `linger_ms`. NULL is fine.
 *
 * Ownership: takes the client. Blocking: up to linger_ms. Threads: the client's. Limits: none. Since: 0.1. */
P2POS_API void p2pos_close(p2pos_client *client, int linger_ms);

/* Serves protocols from now on: all of them or none. `protocols` is one ProtocolName, or several with a space between; `how` may be
 * NULL. P2POS_ERR_ALREADY_REGISTERED, P2POS_ERR_PERMISSION_DENIED, P2POS_ERR_LIMIT; P2POS_ERR_TIMEOUT after timeout_ms.
 * With timeout_ms 0 it does not wait for the answer: a no comes as P2POS_EVENT_COMPLAINT.
 *
 * Ownership: keeps nothing of what is passed. Blocking: up to timeout_ms. Threads: the client's.
 * Limits: 64 protocols a session. Since: 0.1. */
P2POS_API int p2pos_register(p2pos_client *client, const char *protocols, const p2pos_serve *how, int timeout_ms);

/* Serves protocols no longer; streams that run go on. P2POS_ERR_NOT_REGISTERED. timeout_ms as in p2pos_register.
 *
 * Ownership: keeps nothing of what is passed. Blocking: up to timeout_ms. Threads: the client's. Limits: 64 names. Since: 0.1. */
P2POS_API int p2pos_unregister(p2pos_client *client, const char *protocols, int timeout_ms);

/* Says that start-up is over. The first accept, peek_offer, open or wait_shutdown says it by itself.
 *
 * Ownership: none passes. Blocking: never. Threads: the client's. Limits: said once. Since: 0.1. */
P2POS_API int p2pos_ready(p2pos_client *client);

/* Writes a line (or several) into the plugin's log. P2POS_ERR_LIMIT: too much waits to be sent, the line is lost.
 *
 * Ownership: copies the text. Blocking: never. Threads: the client's. Limits: 64 KiB a line, longer ones are cut. Since: 0.1. */
P2POS_API int p2pos_log(p2pos_client *client, enum p2pos_level level, const char *text);

/* Tells the user how it goes, in one line of `p2pos plugins list`.
 *
 * Ownership: copies the text. Blocking: never. Threads: the client's. Limits: 64 KiB. Since: 0.1. */
P2POS_API int p2pos_status(p2pos_client *client, enum p2pos_health health, const char *text);

/* Waits until the daemon, or the end of stdin, asks the plugin to end; `deadline_ms` (may be NULL) says how soon, 0: at once. Also 0
 * when the session is over for no bad reason; any other end is returned. P2POS_ERR_NOT_YET after timeout_ms.
 *
 * Ownership: none passes. Blocking: up to timeout_ms. Threads: the client's. Limits: none. Since: 0.1. */
P2POS_API int p2pos_wait_shutdown(p2pos_client *client, uint32_t *deadline_ms, int timeout_ms);

/* Returns the user's own PeerId; this plugin's id; the directory that outlives updates ("" if the environment names none).
 *
 * Ownership: the client's, until p2pos_close. Blocking: never. Threads: the client's. Limits: none. Since: 0.1. */
P2POS_API const char *p2pos_peer_id(const p2pos_client *client);
/* Ownership: the client's, until p2pos_close. Blocking: never. Threads: the client's. Limits: none. Since: 0.1. */
P2POS_API const char *p2pos_plugin_id(const p2pos_client *client);
/* Ownership: the client's, until p2pos_close. Blocking: never. Threads: the client's. Limits: none. Since: 0.1. */
P2POS_API const char *p2pos_data_dir(const p2pos_client *client);

/* Returns what the user allowed, one by one from index 0, like "net.open:/chat/1"; NULL behind the last.
 *
 * Ownership: the client's, until p2pos_close. Blocking: never. Threads: the client's. Limits: none. Since: 0.1. */
P2POS_API const char *p2pos_grant(const p2pos_client *client, size_t index);

/* Returns what is known about the last error that a call with this client returned.
 *
 * Ownership: the client's, until the next call with it. Blocking: never. Threads: the client's. Limits: see the struct. Since: 0.1. */
P2POS_API const p2pos_problem *p2pos_last_problem(const p2pos_client *client);

/* Returns the version of the library that runs, like "0.1.0".
 *
 * Ownership: a constant. Blocking: never. Threads: any. Limits: none. Since: 0.1. */
P2POS_API const char *p2pos_version(void);

/* --- streams --- */

/* Waits for a stream that a peer opens, and takes it. `protocol` NULL: any that we serve. `info` may be NULL.
 * P2POS_ERR_SHUTTING_DOWN: the plugin was asked to end, or the session is over; P2POS_ERR_NOT_YET after timeout_ms.
 *
 * Ownership: the stream is the caller's, until p2pos_release. Blocking: up to timeout_ms. Threads: the client's.
 * Limits: an offer waits 10 s; 256 streams at once. Since: 0.1. */
P2POS_API int p2pos_accept(p2pos_client *client, const char *protocol, p2pos_stream *stream, p2pos_info *info, int timeout_ms);

/* Looks at the oldest offer (stream, flow or detached: `info->kind` says which) without an answer. Then take it with the accept call
 * of its kind and protocol, or refuse it. Results as of p2pos_accept.
 *
 * Ownership: the offer stays the client's. Blocking: up to timeout_ms. Threads: the client's.
 * Limits: an offer waits 10 s. Since: 0.1. */
P2POS_API int p2pos_peek_offer(p2pos_client *client, const char *protocol, p2pos_stream *offer, p2pos_info *info, int timeout_ms);

/* Refuses an offer: the peer gets P2POS_ERR_REFUSED, or P2POS_ERR_NOT_READY if `code` is that.
 *
 * Ownership: copies the reason; the offer is gone. Blocking: never. Threads: the client's. Limits: 1,024 bytes. Since: 0.1. */
P2POS_API int p2pos_refuse(p2pos_client *client, p2pos_stream offer, int code, const char *reason);

/* Opens a stream to a peer's plugin. `protocols` is one name, or several with a space between, the best first. `flags` is 0 or
 * P2POS_NO_RELAY. `info` may be NULL. 3xx says why the peer could not be reached, and p2pos_last_problem what was tried;
 * P2POS_ERR_PERMISSION_DENIED, P2POS_ERR_STREAM_LIMIT; P2POS_ERR_TIMEOUT after timeout_ms (it was given up).
 *
 * Ownership: the stream is the caller's, until p2pos_release; none after a failure. Blocking: up to timeout_ms (not 0), and 1 s for the
 * daemon's answer. Threads: the client's. Limits: 16 names, 256 streams at once. Since: 0.1. */
P2POS_API int p2pos_open(p2pos_client *client, const char *peer, const char *protocols, unsigned flags, p2pos_stream *stream,
                         p2pos_info *info, int timeout_ms);
#define P2POS_NO_RELAY 1u

/* Begins to open a stream, flow or detached stream (`kind`) and does not wait: P2POS_EVENT_OPENED or P2POS_EVENT_CLOSED tells how it
 * went. What is written before is lost if it fails. A flow's handle is {stream.id}; a detached stream then needs p2pos_attach.
 *
 * Ownership: the stream is the caller's, until p2pos_release, also when the opening fails later. Blocking: never.
 * Threads: the client's. Limits: as p2pos_open. Since: 0.1. */
P2POS_API int p2pos_open_start(p2pos_client *client, const char *peer, const char *protocols, unsigned flags, enum p2pos_kind kind,
                               p2pos_stream *stream);

/* Reads what is there, at most `size` bytes and one at least; waits while there is nothing. `*got` 0 with P2POS_OK: the other side
 * wrote its last byte. A reset is its code, after what had arrived was read.
 *
 * Ownership: fills the caller's memory. Blocking: up to timeout_ms, then P2POS_ERR_NOT_YET. Threads: the client's.
 * Limits: a window of unread bytes waits. Since: 0.1. */
P2POS_API int p2pos_read(p2pos_client *client, p2pos_stream stream, void *bytes, size_t size, size_t *got, int timeout_ms);

/* Reads exactly `size` bytes. P2POS_ERR_NOT_FOUND: the other side wrote its last byte before; `*got` (may be NULL) says how many came.
 *
 * Ownership: fills the caller's memory. Blocking: up to timeout_ms, then P2POS_ERR_NOT_YET: go on at bytes + *got.
 * Threads: the client's. Limits: none. Since: 0.1. */
P2POS_API int p2pos_read_exactly(p2pos_client *client, p2pos_stream stream, void *bytes, size_t size, size_t *got, int timeout_ms);

/* Writes all bytes; waits while the other side has no room. `*written` (may be NULL) says how many were taken, also after a failure.
 * P2POS_ERR_NOT_YET after timeout_ms: write the rest later; P2POS_EVENT_WRITABLE tells when. P2POS_ERR_STOPPED: nobody reads it.
 *
 * Ownership: the bytes are the caller's again on return. Blocking: up to timeout_ms. Threads: the client's.
 * Limits: the other side's window, 256 KiB. Since: 0.1. */
P2POS_API int p2pos_write(p2pos_client *client, p2pos_stream stream, const void *bytes, size_t size, size_t *written, int timeout_ms);

/* Writes no more (half close): the other side reads its end after the last byte. Reading goes on. Harmless if done already.
 *
 * Ownership: none passes. Blocking: never. Threads: the client's. Limits: none. Since: 0.1. */
P2POS_API int p2pos_close_write(p2pos_client *client, p2pos_stream stream);

/* Ends both directions at once, and tells the other side `app_code`; bytes on their way may be lost.
 *
 * Ownership: the stream stays the caller's. Blocking: never. Threads: the client's. Limits: none. Since: 0.1. */
P2POS_API int p2pos_reset(p2pos_client *client, p2pos_stream stream, uint32_t app_code);

/* Reads no more: the other side's writing fails with `app_code`, ours goes on.
 *
 * Ownership: the stream stays the caller's. Blocking: never. Threads: the client's. Limits: none. Since: 0.1. */
P2POS_API int p2pos_stop(p2pos_client *client, p2pos_stream stream, uint32_t app_code);

/* Waits for the daemon's last word: how the stream truly ended. It comes when both directions were ended by somebody.
 *
 * Ownership: fills the caller's struct. Blocking: up to timeout_ms, then P2POS_ERR_NOT_YET. Threads: the client's.
 * Limits: none. Since: 0.1. */
P2POS_API int p2pos_wait_closed(p2pos_client *client, p2pos_stream stream, p2pos_closed *closed, int timeout_ms);

/* Tells who is at the other end; works for flows as {flow.id}, too.
 *
 * Ownership: fills the caller's struct. Blocking: never. Threads: the client's. Limits: none. Since: 0.1. */
P2POS_API int p2pos_stream_info(p2pos_client *client, p2pos_stream stream, p2pos_info *info);

/* Gives the stream back. If it is not over, it ends well: we write no more, and read no more. An offer is refused. Afterwards the handle
 * is good for nothing. Harmless on {0} and twice.
 *
 * Ownership: takes the stream. Blocking: never. Threads: the client's. Limits: none. Since: 0.1. */
P2POS_API void p2pos_release(p2pos_client *client, p2pos_stream stream);

/* Hangs a pointer of yours on a stream or flow, and finds it again (NULL if none). For event loops.
 *
 * Ownership: the pointer stays the caller's. Blocking: never. Threads: the client's. Limits: one pointer. Since: 0.1. */
P2POS_API int p2pos_set_user(p2pos_client *client, p2pos_stream stream, void *user);
/* Ownership: the pointer stays the caller's. Blocking: never. Threads: the client's. Limits: one pointer. Since: 0.1. */
P2POS_API void *p2pos_user(p2pos_client *client, p2pos_stream stream);

/* --- datagrams --- */

/* As p2pos_open and p2pos_accept, for flows; info->datagram_max is the largest payload.
 *
 * Ownership: the flow is the caller's, until p2pos_release_flow. Blocking: up to timeout_ms. Threads: the client's.
 * Limits: as p2pos_open. Since: 0.1. */
P2POS_API int p2pos_open_flow(p2pos_client *client, const char *peer, const char *protocols, unsigned flags, p2pos_flow *flow,
                              p2pos_info *info, int timeout_ms);
/* Ownership: the flow is the caller's, until p2pos_release_flow. Blocking: up to timeout_ms. Threads: the client's.
 * Limits: an offer waits 10 s. Since: 0.1. */
P2POS_API int p2pos_accept_flow(p2pos_client *client, const char *protocol, p2pos_flow *flow, p2pos_info *info, int timeout_ms);

/* Sends one message; it arrives whole or not at all, and nobody says which. P2POS_ERR_TOO_BIG over info->datagram_max.
 *
 * Ownership: the bytes are the caller's again on return. Blocking: never; what the socket does not take waits, and the oldest go.
 * Threads: the client's. Limits: 256 KiB wait for each flow. Since: 0.1. */
P2POS_API int p2pos_send_datagram(p2pos_client *client, p2pos_flow flow, const void *bytes, size_t size);

/* Takes the oldest message. P2POS_ERR_ROOM: it has `*got` bytes, and still waits. `*dropped` (may be NULL) counts the messages that had
 * no room on our side, in and out, since the flow began.
 *
 * Ownership: fills the caller's memory. Blocking: up to timeout_ms, then P2POS_ERR_NOT_YET. Threads: the client's.
 * Limits: 256 KiB wait for each flow, the oldest go. Since: 0.1. */
P2POS_API int p2pos_read_datagram(p2pos_client *client, p2pos_flow flow, void *bytes, size_t size, size_t *got, uint64_t *dropped,
                                  int timeout_ms);

/* Ends the flow and gives it back. Harmless on {0} and twice.
 *
 * Ownership: takes the flow. Blocking: never. Threads: the client's. Limits: none. Since: 0.1. */
P2POS_API void p2pos_release_flow(p2pos_client *client, p2pos_flow flow);

/* --- detached streams: a socket of their own, for speed or for another program --- */

/* As p2pos_open, but `*socket` is the stream: a blocking socket for read, write, shutdown(SHUT_WR) (which is close_write), close. End of
 * file does not tell a good end from a bad one: p2pos_wait_closed does. To break it off, p2pos_reset first, then close. Writing to it
 * after its end raises SIGPIPE, as with any socket: send() with MSG_NOSIGNAL does not.
 *
 * Ownership: socket and stream are the caller's: close the one, p2pos_release the other. Blocking: up to timeout_ms, and 5 s for the
 * second socket. Threads: the client's; the socket is free of the client. Limits: as p2pos_open. Since: 0.1. */
P2POS_API int p2pos_open_detached(p2pos_client *client, const char *peer, const char *protocols, unsigned flags, p2pos_stream *stream,
                                  int *socket, p2pos_info *info, int timeout_ms);

/* Makes the socket of a stream that p2pos_open_start opened with P2POS_KIND_DETACHED, once P2POS_EVENT_OPENED has come, within 10 s.
 * After a failure the stream is reset and gone.
 *
 * Ownership: the socket is the caller's, to be closed. Blocking: up to 5 s. Threads: the client's; the socket is free of the client.
 * Limits: once for each stream. Since: 0.1. */
P2POS_API int p2pos_attach(p2pos_client *client, p2pos_stream stream, int *socket);

/* As p2pos_accept, for protocols that were registered with P2POS_KIND_DETACHED.
 *
 * Ownership: as p2pos_open_detached. Blocking: up to timeout_ms, and 5 s for the second socket. Threads: the client's; the socket is free
 * of the client. Limits: an offer waits 10 s. Since: 0.1. */
P2POS_API int p2pos_accept_detached(p2pos_client *client, const char *protocol, p2pos_stream *stream, int *socket, p2pos_info *info,
                                    int timeout_ms);

/* --- people --- */

enum p2pos_change_kind { P2POS_CHANGE_PEER = 1, P2POS_CHANGE_CONTACT = 2, P2POS_CHANGE_PATH = 4 };

/* Something changed with a person. */
typedef struct p2pos_change {
    int kind;        /* p2pos_change_kind; 0: one of a later version */
    uint32_t missed; /* changes lost just before this one, because nobody took them: subscribe again for what is */
    char what[32];   /* "connected", "disconnected"; "added", "renamed", "removed"; "direct", "lan", "loopback", "relayed" */
    char peer[P2POS_PEER_BYTES];
    char petname[P2POS_PETNAME_BYTES_MAX];
} p2pos_change;

/* Hears of changes from now on: first what is, then what changes. `kinds` is a sum of p2pos_change_kind; 0: no more.
 * timeout_ms as in p2pos_register.
 *
 * Ownership: none passes. Blocking: up to timeout_ms. Threads: the client's. Limits: none. Since: 0.1. */
P2POS_API int p2pos_subscribe(p2pos_client *client, unsigned kinds, int timeout_ms);

/* Takes the oldest change.
 *
 * Ownership: fills the caller's struct. Blocking: up to timeout_ms, then P2POS_ERR_NOT_YET. Threads: the client's.
 * Limits: 1,024 wait, then the oldest go and `missed` counts them. Since: 0.1. */
P2POS_API int p2pos_next_change(p2pos_client *client, p2pos_change *change, int timeout_ms);

/* Tells `each` of every contact of the user. It must not call anything with this client.
 *
 * Ownership: the texts are good within `each` only. Blocking: up to timeout_ms, then P2POS_ERR_TIMEOUT. Threads: the client's.
 * Limits: what fits one frame (options->frame_bytes_max). Since: 0.1. */
P2POS_API int p2pos_contacts(p2pos_client *client, void (*each)(void *context, const char *peer, const char *petname, int is_connected),
                             void *context, int timeout_ms);

/* --- event loops --- */

enum p2pos_event_kind {
    P2POS_EVENT_NONE = 0,
    P2POS_EVENT_OFFER = 1,     /* p2pos_peek_offer or an accept call has something */
    P2POS_EVENT_OPENED = 2,    /* a p2pos_open_start went well */
    P2POS_EVENT_READABLE = 3,  /* read `stream` until P2POS_ERR_NOT_YET or its end; for flows, read datagrams */
    P2POS_EVENT_WRITABLE = 4,  /* after a p2pos_write that did not take all: there is room again */
    P2POS_EVENT_CLOSED = 5,    /* the daemon's last word about `stream`: p2pos_wait_closed has it; `code` 0 or why it failed */
    P2POS_EVENT_CHANGE = 6,    /* p2pos_next_change has something */
    P2POS_EVENT_COMPLAINT = 7, /* the daemon says no to something that did not wait for its answer: p2pos_last_problem tells */
    P2POS_EVENT_SHUTDOWN = 8,  /* the plugin is asked to end: p2pos_wait_shutdown tells how soon */
    P2POS_EVENT_ENDED = 9      /* the session is over; `code` says why. Comes again and again */
};

typedef struct p2pos_event {
    enum p2pos_event_kind kind;
    int code;
    p2pos_stream stream; /* for flows: {flow.id} */
} p2pos_event;

/* Returns a descriptor for poll and its kin: readable whenever p2pos_process has something to do, or events wait. Do nothing else with it.
 *
 * Ownership: the client's, until p2pos_close. Blocking: never. Threads: the client's. Limits: one descriptor. Since: 0.1. */
P2POS_API int p2pos_fd(const p2pos_client *client);

/* Does what can be done now: reads, answers, writes what waits. 0, or why the session is over. Then take the events until there is none.
 *
 * Ownership: none passes. Blocking: never. Threads: the client's. Limits: about 1 MiB a call, so that it cannot last. Since: 0.1. */
P2POS_API int p2pos_process(p2pos_client *client);

/* Takes the next event; its kind is P2POS_EVENT_NONE if there is none. A stream has at most one event of a kind waiting.
 *
 * Ownership: fills the caller's struct. Blocking: never. Threads: the client's. Limits: bounded by the streams. Since: 0.1. */
P2POS_API p2pos_event p2pos_next_event(p2pos_client *client);

/* Lets the call that waits now, or the next one that would wait, return P2POS_ERR_INTERRUPTED.
 *
 * Ownership: none passes. Blocking: never. Threads: any, and signal handlers. Limits: counts once. Since: 0.1. */
P2POS_API void p2pos_interrupt(p2pos_client *client);

#ifdef __cplusplus
}
#endif

#endif
