/* The streams that orders are about. There may be any number at the same time: each is kept until it has ended and no order is about it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.h"

static struct subject *subjects; /* the newest first */

struct subject *new_subject(p2pos_stream stream, int socket) {
    struct subject *subject = calloc(1, sizeof *subject);
    if (subject == NULL) {
        fprintf(stderr, "no memory for another stream\n");
        exit(1);
    }
    subject->stream = stream;
    subject->socket = socket;
    subject->next = subjects;
    subjects = subject;
    (void)p2pos_stream_info(client, stream, &subject->info);
    (void)p2pos_set_user(client, stream, subject);
    return subject;
}

struct subject *oldest_offer(enum p2pos_kind kind) {
    struct subject *oldest = NULL;
    for (struct subject *subject = subjects; subject != NULL; subject = subject->next) {
        /* Even ids are the daemon's: it was offered to us. */
        if (subject->stream.id % 2 == 0 && !subject->is_taken && subject->info.kind == kind) {
            oldest = oldest == NULL || subject->stream.id < oldest->stream.id ? subject : oldest;
        }
    }
    return oldest;
}

void drop_subject(struct subject *subject) {
    struct subject **at = &subjects;
    if (subject == NULL) {
        return;
    }
    while (*at != subject) {
        at = &(*at)->next;
    }
    *at = subject->next;
    if (subject->socket >= 0) {
        close(subject->socket);
    }
    p2pos_release(client, subject->stream);
    free(subject);
}

/* One that nobody has taken yet is still to be taken, however it ended. */
static void drop_if_done(struct subject *subject) {
    if (subject->is_closed && subject->is_taken && subject->holders == 0) {
        drop_subject(subject);
    }
}

void set_subject(struct order *order, struct subject *subject) {
    struct subject *earlier = order->subject;
    order->subject = subject;
    if (subject != NULL) {
        subject->is_taken = 1;
        subject->holders++;
    }
    if (earlier != NULL) {
        earlier->holders--;
        drop_if_done(earlier);
    }
}

void subject_closed(struct subject *subject, int code) {
    subject->is_closed = 1;
    subject->code = code;
    drop_if_done(subject);
}

/* A broken socket says nothing of why: the daemon's last word does, when it comes. */
static int truth(struct subject *subject) {
    p2pos_closed closed;
    int code = p2pos_wait_closed(client, subject->stream, &closed, 0);
    return code == P2POS_OK ? (closed.code != 0 ? closed.code : P2POS_ERR_PLUGIN_GONE) : code;
}

int subject_read(struct subject *subject, char *bytes, size_t size, size_t *moved) {
    if (subject->socket < 0) {
        return p2pos_read(client, subject->stream, bytes, size, moved, 0);
    }
    ssize_t count = recv(subject->socket, bytes, size, MSG_DONTWAIT);
    *moved = count > 0 ? (size_t)count : 0;
    /* A reset socket is an end like any other: `closed` has the truth. */
    return count < 0 && (errno == EAGAIN || errno == EINTR) ? P2POS_ERR_NOT_YET : P2POS_OK;
}

int subject_write(struct subject *subject, const char *bytes, size_t size, size_t *moved) {
    if (subject->socket < 0) {
        int code = p2pos_write(client, subject->stream, bytes, size, moved, 0);
        return code == P2POS_ERR_NOT_YET && *moved > 0 ? P2POS_OK : code;
    }
    ssize_t count = send(subject->socket, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    *moved = count > 0 ? (size_t)count : 0;
    if (count >= 0) {
        return P2POS_OK;
    }
    return errno == EAGAIN || errno == EINTR ? P2POS_ERR_NOT_YET : truth(subject);
}

int subject_finish(struct subject *subject) {
    size_t none;
    if (subject->socket >= 0) {
        return shutdown(subject->socket, SHUT_WR) == 0 ? P2POS_OK : truth(subject);
    }
    int code = p2pos_write(client, subject->stream, "", 0, &none, 0); /* says whether the stream still stands */
    return code == P2POS_OK ? p2pos_close_write(client, subject->stream) : code;
}
