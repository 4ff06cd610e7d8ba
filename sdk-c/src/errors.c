/* The registry of error codes (SPEC.md section 10) and the texts of problems. It decides nothing.
 *
 * tests/check_papers.py compares the table with SPEC.md. */
#include "errors.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct row {
    int code;
    const char *name;
    const char *text;
    const char *hint;
};

static const struct row rows[] = {
    {P2POS_OK, "OK", "all is well", ""},
    {P2POS_ERR_MISUSE, "MISUSE", "the program used the library wrongly", "p2pos_last_problem says how"},
    {P2POS_ERR_MEMORY, "MEMORY", "there is no memory", "free some, and try again"},
    {P2POS_ERR_NOT_YET, "NOT_YET", "nothing came in time", "call again, or wait longer"},
    {P2POS_ERR_LAUNCH, "LAUNCH", "no daemon started this program",
     "start it through p2pos; while you write it: p2pos plugins run DIR"},
    {P2POS_ERR_CONNECT, "CONNECT", "no daemon answers", "does `p2pos up` run?"},
    {P2POS_ERR_SYSTEM, "SYSTEM", "a system call failed", ""},
    {P2POS_ERR_INTERRUPTED, "INTERRUPTED", "the wait was interrupted", "p2pos_interrupt was called"},
    {P2POS_ERR_NO_STREAM, "NO_STREAM", "there is no such stream", "it was released before, or is another client's"},
    {P2POS_ERR_STOPPED, "STOPPED", "the other side reads no more", "what it writes can still be read"},
    {P2POS_ERR_ROOM, "ROOM", "the memory given is too small", "give more; nothing is lost"},
    {100, "PROTOCOL", "a rule of the plugin protocol was broken",
     "the sender broke a rule of the plugin protocol; SPEC.md names the rule"},
    {101, "VERSION", "daemon and plugin have no version in common", "update whichever of plugin and daemon is older"},
    {102, "AUTH", "the daemon does not let us in",
     "start the plugin through p2pos, or take a fresh token with `p2pos plugins run`"},
    {103, "FRAME_TOO_LARGE", "a frame was too large", "send smaller frames; Welcome.limits tells the largest"},
    {104, "HANDSHAKE_TIMEOUT", "the handshake took too long", "send Hello within 5 seconds of connecting"},
    {105, "SHUTTING_DOWN", "the session is over", "nothing is wrong: the other side ends"},
    {106, "SLOW_CONSUMER", "too much waits for a side that does not read",
     "read from the socket all the time, also while you write"},
    {107, "REVOKED", "the user withdrew the permission", "the user withdrew the plugin's permission to run"},
    {200, "BAD_REQUEST", "the request is wrong", "a field of the request is wrong; the message names it"},
    {201, "UNKNOWN_METHOD", "the daemon does not know the request",
     "this daemon is older than the request; look at Welcome.features"},
    {202, "PERMISSION_DENIED", "the user has not granted this",
     "the plugin's manifest must ask for it and the user must grant it"},
    {203, "PERMISSION_PENDING", "the user has not answered yet", "the user has not answered yet; see `p2pos plugins list`"},
    {204, "ALREADY_REGISTERED", "the protocol is served already",
     "another plugin serves this protocol; stop one of the two"},
    {205, "NOT_REGISTERED", "the protocol is not registered", "register the protocol first"},
    {206, "LIMIT", "too many at once", "wait until earlier requests are done; Welcome.limits tells how many fit"},
    {207, "TIMEOUT", "the answer did not come in time", "nothing came in time; try again later"},
    {208, "CANCELLED", "the request was given up", "nothing is wrong: the request was given up"},
    {209, "NOT_FOUND", "there is no such thing", "there is no such thing; look at the spelling"},
    {210, "TOO_BIG", "too much in one piece", "send less in one piece; the message tells the limit"},
    {300, "UNKNOWN", "no address of the peer is known",
     "no address of this peer is known; add one with `p2pos contacts add PEER --addr HOST:PORT`"},
    {301, "OFFLINE", "the peer is offline", "the peer's daemon does not run, or has no network"},
    {302, "UNREACHABLE", "no way to the peer worked",
     "no way to the peer worked; the details tell what was tried, `p2pos ping PEER` tries again"},
    {303, "NEEDS_RELAY", "only a relay would reach the peer",
     "only a relay would reach the peer, and none is allowed; `p2pos contacts relay PEER auto` allows them"},
    {304, "PROTOCOL_NOT_SUPPORTED", "the peer does not serve the protocol",
     "no plugin of the peer serves it; the details tell what it serves"},
    {305, "REFUSED", "the peer refused", "the peer's plugin does not want this stream"},
    {306, "NOT_READY", "the peer's plugin is not running", "the peer's plugin is not running just now; try again later"},
    {307, "IDENTITY_MISMATCH", "somebody else is at the peer's address",
     "reserved, never sent: whoever else is at the peer's address stays silent, which is 302"},
    {308, "LOCAL_OFFLINE", "this machine has no network", "this machine has no network"},
    {400, "APP", "the other plugin reset the stream", "the other plugin's own code; see app_code"},
    {401, "STREAM_LIMIT", "too many streams at once",
     "close streams before opening more; Welcome.limits tells how many fit"},
    {402, "FLOW_CONTROL", "more was sent than credit was given", "send no more than the credit that was given"},
    {403, "PLUGIN_GONE", "the other plugin ended", "the other plugin ended; it may come back"},
    {404, "PATH_LOST", "the connection to the peer broke", "the connection to the peer broke; open the stream again"},
    {405, "IDLE", "nothing moved on the stream for too long", "nothing moved on the stream for too long"},
    {500, "INTERNAL", "the daemon has a fault", "a fault of the daemon; please report it with `p2pos plugins logs ID`"},
};

static const struct row *find(int code) {
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (rows[i].code == code) {
            return &rows[i];
        }
    }
    return NULL;
}

const char *p2pos_error_name(int code) {
    const struct row *row = find(code);
    return row == NULL ? "UNKNOWN_CODE" : row->name;
}

const char *p2pos_error_text(int code) {
    const struct row *row = find(code);
    if (row != NULL) {
        return row->text;
    }
    switch (code / 100) {
    case 1:
        return "the session is over";
    case 2:
        return "the daemon said no";
    case 3:
        return "the peer could not be reached";
    case 4:
        return "the stream is over";
    default:
        return "the daemon has a fault";
    }
}

const char *p2pos_error_hint(int code) {
    const struct row *row = find(code);
    return row == NULL ? "" : row->hint;
}

const char *p2pos_version(void) {
    return P2POS_VERSION_TEXT;
}

int p2pos_problem_set(p2pos_problem *problem, int code, const char *format, ...) {
    char message[sizeof problem->message];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    size = size < 0 ? 0 : size >= (int)sizeof message ? (int)sizeof message - 1 : size;
    memset(problem, 0, sizeof *problem);
    problem->code = code;
    p2pos_text_into(problem->message, sizeof problem->message, message, (size_t)size);
    const char *hint = p2pos_error_hint(code);
    p2pos_text_into(problem->hint, sizeof problem->hint, hint, strlen(hint));
    return code;
}

/* A daemon's code as an int: what is no code is its own fault. */
static int sane(uint64_t code) {
    return code >= 100 && code <= 999 ? (int)code : P2POS_ERR_INTERNAL;
}

int p2pos_problem_read(p2pos_problem *problem, uint64_t code, struct p2pos_view message, struct p2pos_view hint,
                       uint64_t retry_after_ms) {
    int known = sane(code);
    p2pos_problem_set(problem, known, "%s", p2pos_error_text(known));
    problem->retry_after_ms = (uint32_t)retry_after_ms;
    if (message.size > 0) {
        p2pos_text_into(problem->message, sizeof problem->message, message.data, message.size);
    }
    if (hint.size > 0) {
        p2pos_text_into(problem->hint, sizeof problem->hint, hint.data, hint.size);
    }
    return known;
}

void p2pos_problem_add_detail(void *context, const void *item) {
    p2pos_problem *problem = context;
    const struct p2pos_view *line = item;
    size_t used = strlen(problem->details);
    size_t mark = used > 0 ? 1 : 0;
    if (line->size + mark >= sizeof problem->details - used) {
        return;
    }
    if (mark == 1) {
        problem->details[used] = '\n';
    }
    p2pos_text_into(problem->details + used + mark, sizeof problem->details - used - mark, line->data, line->size);
}
