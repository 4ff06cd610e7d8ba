/* A chat in the terminal that talks with plugins/chat: what you type goes to PEER, what anybody says is shown.
 *
 *     p2pos plugins run DIR -- chat PEER
 *
 * What to learn here: an acknowledgement is a promise. /chat/1 is lines of JSON; {"ack": 7} says that message 7 is on the other side's disk.
 * So we write a message to received.jsonl and fsync it, and only then acknowledge it; and we keep what we said until its ack came, and say it
 * again on the next stream. (plugins/chat keeps it over restarts, too; this one does not.) */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <p2pos/p2pos.h>

#include "json.h"

#define PROTOCOL "/chat/1"
#define EXIT_CONFIG 78
#define WAITING_MAX 32     /* messages that wait for their ack; then typing waits */
#define TEXT_BYTES_MAX 1000 /* of one message typed here */
#define LINE_BYTES_MAX 131072
#define RETRY_MS 1000

struct message {
    unsigned long number;
    char text[TEXT_BYTES_MAX + 1];
};

/* The bytes of a stream that are no whole line yet; all of them are in a list, to be freed at the end. */
struct lines {
    struct lines *next;
    size_t used;
    char bytes[LINE_BYTES_MAX];
};

struct chat {
    p2pos_client *client;
    const char *peer;
    char store[32];      /* who we are in the acks: new for each run */
    int file;            /* received.jsonl */
    p2pos_stream out;    /* towards the peer; {0}: none now */
    int is_open;
    double retry_at;
    unsigned long last_number;
    struct message waiting[WAITING_MAX];
    size_t waiting_count;
    size_t said;         /* so many of them were said on `out` */
    struct lines typed;
    struct lines *all;
    int is_typed_out;    /* stdin has ended */
    char last_from[65];  /* of the message before, to drop what comes twice */
    unsigned long last_heard;
};

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1000 + (double)now.tv_nsec / 1e6;
}

/* Gives a stream the memory for its lines. */
static void begin(struct chat *chat, p2pos_stream stream) {
    struct lines *lines = calloc(1, sizeof *lines);
    if (lines == NULL || p2pos_set_user(chat->client, stream, lines) != P2POS_OK) {
        fprintf(stderr, "error: no memory\n");
        exit(1);
    }
    lines->next = chat->all;
    chat->all = lines;
}

static void leave(struct chat *chat, p2pos_stream stream) {
    struct lines **at = &chat->all;
    struct lines *lines = p2pos_user(chat->client, stream);
    while (*at != lines) {
        at = &(*at)->next;
    }
    *at = lines->next;
    free(lines);
    p2pos_release(chat->client, stream);
    if (stream.id == chat->out.id) {
        chat->out.id = 0;
        chat->retry_at = now_ms() + RETRY_MS;
    }
}

/* --- towards the peer --- */

static void say_waiting(struct chat *chat) {
    if (chat->waiting_count == 0) {
        return;
    }
    if (chat->out.id == 0) {
        if (now_ms() >= chat->retry_at &&
            p2pos_open_start(chat->client, chat->peer, PROTOCOL, 0, P2POS_KIND_STREAM, &chat->out) == P2POS_OK) {
            chat->said = 0;
            chat->is_open = 0;
            begin(chat, chat->out);
        }
        return;
    }
    while (chat->is_open && chat->said < chat->waiting_count) {
        const struct message *message = &chat->waiting[chat->said];
        char text[6 * TEXT_BYTES_MAX + 1];
        char line[6 * TEXT_BYTES_MAX + 256];
        json_write_string(message->text, text, sizeof text);
        int size = snprintf(line, sizeof line, "{\"from\": \"%s\", \"n\": %lu, \"at\": %llu, \"text\": %s}\n", chat->store,
                            message->number, (unsigned long long)time(NULL) * 1000, text);
        /* Lines are short beside the window: the wait is for a peer that has stopped reading. */
        if (p2pos_write(chat->client, chat->out, line, (size_t)size, NULL, 5000) != P2POS_OK) {
            p2pos_reset(chat->client, chat->out, 0);
            return;
        }
        chat->said++;
    }
}

static void on_ack(struct chat *chat, const char *line) {
    unsigned long number;
    size_t done = 0;
    if (!json_number(line, "ack", &number)) {
        return;
    }
    while (done < chat->said && chat->waiting[done].number <= number) {
        printf("(arrived: %s)\n", chat->waiting[done++].text);
    }
    chat->said -= done;
    chat->waiting_count -= done;
    memmove(chat->waiting, chat->waiting + done, chat->waiting_count * sizeof chat->waiting[0]);
}

/* --- from anybody --- */

static int keep(struct chat *chat, const char *line) {
    size_t size = strlen(line);
    return write(chat->file, line, size) == (ssize_t)size && write(chat->file, "\n", 1) == 1 && fsync(chat->file) == 0;
}

/* Returns 0 if it is no line of chat. */
static int on_message(struct chat *chat, p2pos_stream stream, const char *line) {
    static char text[LINE_BYTES_MAX];
    char from[65];
    char ack[64];
    unsigned long number;
    p2pos_info info;
    if (!json_number(line, "n", &number) || !json_string(line, "from", from, sizeof from) ||
        !json_string(line, "text", text, sizeof text) || p2pos_stream_info(chat->client, stream, &info) != P2POS_OK) {
        return 0;
    }
    int is_new = strcmp(from, chat->last_from) != 0 || number > chat->last_heard;
    if (is_new && !keep(chat, line)) {
        fprintf(stderr, "error: cannot keep a message: %s\n", strerror(errno));
        return 0; /* no ack: it will be said again */
    }
    strcpy(chat->last_from, from);
    chat->last_heard = number;
    int size = snprintf(ack, sizeof ack, "{\"ack\": %lu}\n", number);
    if (p2pos_write(chat->client, stream, ack, (size_t)size, NULL, 5000) != P2POS_OK) {
        return 0;
    }
    if (is_new) {
        json_make_harmless(text);
        printf("%s: %s\n", info.petname[0] != '\0' ? info.petname : info.peer, text);
    }
    return 1;
}

/* Hands every whole line to its reader; 0: the stream is not worth reading on. */
static int take_lines(struct chat *chat, p2pos_stream stream, struct lines *lines) {
    char *start = lines->bytes;
    char *end;
    while ((end = memchr(start, '\n', lines->used - (size_t)(start - lines->bytes))) != NULL) {
        *end = '\0';
        if (stream.id == chat->out.id) {
            on_ack(chat, start);
        } else if (!on_message(chat, stream, start)) {
            return 0;
        }
        start = end + 1;
    }
    lines->used -= (size_t)(start - lines->bytes);
    memmove(lines->bytes, start, lines->used);
    return lines->used < sizeof lines->bytes;
}

static void read_stream(struct chat *chat, p2pos_stream stream) {
    struct lines *lines = p2pos_user(chat->client, stream);
    size_t got;
    if (lines == NULL) {
        return;
    }
    int code = p2pos_read(chat->client, stream, lines->bytes + lines->used, sizeof lines->bytes - lines->used, &got, 0);
    lines->used += got;
    if (code == P2POS_ERR_NOT_YET) {
        return;
    }
    if (code != P2POS_OK || got == 0 || !take_lines(chat, stream, lines)) {
        if (stream.id == chat->out.id && code != P2POS_OK) {
            fprintf(stderr, "(%zu wait: %s)\n", chat->waiting_count, p2pos_last_problem(chat->client)->message);
        }
        leave(chat, stream);
    }
}

/* --- the person --- */

static void read_typed(struct chat *chat) {
    struct lines *typed = &chat->typed;
    ssize_t count = read(0, typed->bytes + typed->used, sizeof typed->bytes - typed->used);
    if (count <= 0) {
        chat->is_typed_out = 1;
        return;
    }
    typed->used += (size_t)count;
}

/* Makes messages of whole lines, while there is room for them. */
static void take_typed(struct chat *chat) {
    struct lines *typed = &chat->typed;
    char *end;
    while (chat->waiting_count < WAITING_MAX && (end = memchr(typed->bytes, '\n', typed->used)) != NULL) {
        size_t size = (size_t)(end - typed->bytes);
        struct message *message = &chat->waiting[chat->waiting_count];
        size_t kept = size < TEXT_BYTES_MAX ? size : TEXT_BYTES_MAX;
        if (kept > 0) {
            memcpy(message->text, typed->bytes, kept);
            message->text[kept] = '\0';
            message->number = ++chat->last_number;
            chat->waiting_count++;
        }
        typed->used -= size + 1;
        memmove(typed->bytes, end + 1, typed->used);
    }
    if (typed->used == sizeof typed->bytes) {
        typed->used = 0; /* a line of 128 KiB is nothing that somebody typed */
    }
}

/* --- the loop --- */

static void handle(struct chat *chat, p2pos_event event) {
    p2pos_stream stream;
    switch (event.kind) {
    case P2POS_EVENT_OFFER:
        if (p2pos_accept(chat->client, PROTOCOL, &stream, NULL, 0) == P2POS_OK) {
            begin(chat, stream);
        }
        break;
    case P2POS_EVENT_OPENED:
        chat->is_open = 1;
        break;
    case P2POS_EVENT_READABLE:
        read_stream(chat, event.stream);
        break;
    default: /* a stream that is closed is readable, too */
        break;
    }
}

static int talk(struct chat *chat) {
    for (;;) {
        struct pollfd waits[2] = {{p2pos_fd(chat->client), POLLIN, 0}, {chat->is_typed_out ? -1 : 0, POLLIN, 0}};
        p2pos_event event;
        (void)p2pos_process(chat->client);
        while ((event = p2pos_next_event(chat->client)).kind != P2POS_EVENT_NONE) {
            if (event.kind == P2POS_EVENT_ENDED || event.kind == P2POS_EVENT_SHUTDOWN) {
                return event.kind == P2POS_EVENT_ENDED ? event.code : P2POS_ERR_SHUTTING_DOWN;
            }
            handle(chat, event);
        }
        take_typed(chat);
        say_waiting(chat);
        fflush(stdout);
        if (chat->is_typed_out && chat->waiting_count == 0) {
            return P2POS_OK;
        }
        if (chat->waiting_count == WAITING_MAX) {
            waits[1].fd = -1;
        }
        (void)poll(waits, 2, chat->out.id == 0 && chat->waiting_count > 0 ? RETRY_MS / 4 : -1);
        if ((waits[1].revents & (POLLIN | POLLHUP)) != 0) {
            read_typed(chat);
        }
    }
}

int main(int argc, char **argv) {
    static struct chat chat;
    p2pos_options options;
    p2pos_problem problem;
    char path[4096];
    if (argc != 2) {
        fprintf(stderr, "usage: chat PEER\n");
        return 2;
    }
    p2pos_options_init(&options, sizeof options);
    options.ignores_stdin = 1; /* it is ours */
    int code = p2pos_connect(&options, &chat.client, &problem);
    if (code != P2POS_OK) {
        fprintf(stderr, "error: %s\n  try: %s\n", problem.message, problem.hint);
        return code == P2POS_ERR_LAUNCH ? EXIT_CONFIG : 1;
    }
    const char *folder = p2pos_data_dir(chat.client);
    snprintf(path, sizeof path, "%s/received.jsonl", folder[0] == '\0' ? "." : folder);
    chat.peer = argv[1];
    chat.file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    snprintf(chat.store, sizeof chat.store, "c-%lx-%lx", (unsigned long)time(NULL), (unsigned long)getpid());
    code = chat.file < 0 ? P2POS_ERR_SYSTEM : p2pos_register(chat.client, PROTOCOL, NULL, P2POS_FOREVER);
    if (code == P2POS_OK) {
        p2pos_ready(chat.client);
        code = talk(&chat);
    }
    if (code != P2POS_OK && code != P2POS_ERR_SHUTTING_DOWN) {
        fprintf(stderr, "error: %s\n", chat.file < 0 ? path : p2pos_last_problem(chat.client)->message);
    }
    while (chat.all != NULL) {
        struct lines *lines = chat.all;
        chat.all = lines->next;
        free(lines);
    }
    p2pos_close(chat.client, 1000);
    return code == P2POS_OK || code == P2POS_ERR_SHUTTING_DOWN ? 0 : 1;
}
