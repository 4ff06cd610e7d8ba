/* How the calls wait, against the daemon of scenario.py: timeouts, interrupts, the one descriptor, descriptors that must not leak.
 *
 *     waits FILE plain */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <p2pos/p2pos.h>

#include "check.h"

#define WAIT_MS 20000

static p2pos_client *client;
static char bo[P2POS_PEER_BYTES];

static long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void note_contact(void *context, const char *peer, const char *petname, int is_connected) {
    size_t got;
    p2pos_stream none = {1};
    (void)context;
    (void)is_connected;
    if (strcmp(petname, "bo") == 0) {
        strcpy(bo, peer);
    }
    /* Nothing may be called from here, and nothing bad comes of it. */
    CHECK(p2pos_ready(client) == P2POS_ERR_MISUSE);
    CHECK(p2pos_read(client, none, bo, 1, &got, 0) != P2POS_OK);
    CHECK(p2pos_process(client) == P2POS_ERR_MISUSE);
    p2pos_release(client, none);
    p2pos_close(client, 0);
}

static void interrupt(int signal) {
    (void)signal;
    p2pos_interrupt(client);
}

static void nothing(int signal) {
    (void)signal;
}

/* Sends the signal to this process soon. */
static void soon(int signal, void (*handler)(int), long after_ms) {
    struct sigaction action;
    struct sigevent event;
    struct itimerspec time;
    timer_t timer;
    memset(&action, 0, sizeof action);
    memset(&event, 0, sizeof event);
    memset(&time, 0, sizeof time);
    action.sa_handler = handler;
    sigaction(signal, &action, NULL);
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = signal;
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    time.it_value.tv_nsec = after_ms * 1000000;
    CHECK(timer_settime(timer, 0, &time, NULL) == 0);
}

static int is_readable(void) {
    struct pollfd wait = {p2pos_fd(client), POLLIN, 0};
    return poll(&wait, 1, 0) == 1;
}

static void drain(void) {
    (void)p2pos_process(client);
    while (p2pos_next_event(client).kind != P2POS_EVENT_NONE) {
    }
}

static void a_wait_ends_in_time(void) {
    p2pos_stream stream;
    long before = now_ms();
    CHECK(p2pos_accept(client, NULL, &stream, NULL, 50) == P2POS_ERR_NOT_YET && stream.id == 0);
    CHECK(now_ms() - before >= 45 && now_ms() - before < 5000);
    before = now_ms();
    CHECK(p2pos_accept(client, NULL, &stream, NULL, 0) == P2POS_ERR_NOT_YET && now_ms() - before < 1000);
}

static void a_signal_does_not_end_a_wait_and_an_interrupt_does(void) {
    p2pos_stream stream;
    long before = now_ms();
    soon(SIGUSR1, nothing, 10);
    CHECK(p2pos_accept(client, NULL, &stream, NULL, 60) == P2POS_ERR_NOT_YET && now_ms() - before >= 55);
    soon(SIGUSR2, interrupt, 20);
    CHECK(p2pos_accept(client, NULL, &stream, NULL, WAIT_MS) == P2POS_ERR_INTERRUPTED);
    CHECK(now_ms() - before < WAIT_MS / 2);
    CHECK(p2pos_accept(client, NULL, &stream, NULL, 10) == P2POS_ERR_NOT_YET);
    p2pos_interrupt(client); /* before the wait begins */
    CHECK(p2pos_wait_shutdown(client, NULL, WAIT_MS) == P2POS_ERR_INTERRUPTED);
}

static void the_descriptor_is_quiet_until_there_is_something(void) {
    p2pos_stream stream;
    char byte;
    size_t got;
    drain();
    CHECK(!is_readable());
    CHECK(p2pos_open(client, bo, "/echo/1", 0, &stream, NULL, WAIT_MS) == P2POS_OK);
    drain();
    CHECK(!is_readable());
    CHECK(p2pos_write(client, stream, "x", 1, NULL, WAIT_MS) == P2POS_OK);
    struct pollfd wait = {p2pos_fd(client), POLLIN, 0};
    CHECK(poll(&wait, 1, WAIT_MS) == 1);
    (void)p2pos_process(client);
    p2pos_event event = p2pos_next_event(client);
    CHECK(event.kind == P2POS_EVENT_READABLE && event.stream.id == stream.id);
    CHECK(p2pos_read(client, stream, &byte, 1, &got, 0) == P2POS_OK && got == 1 && byte == 'x');
    drain();
    CHECK(!is_readable());
    p2pos_release(client, stream);
}

static void what_came_in_during_another_call_makes_the_descriptor_readable(void) {
    p2pos_stream stream;
    p2pos_stream other;
    char byte;
    size_t got;
    CHECK(p2pos_open(client, bo, "/echo/1", 0, &stream, NULL, WAIT_MS) == P2POS_OK);
    CHECK(p2pos_open(client, bo, "/echo/1", 0, &other, NULL, WAIT_MS) == P2POS_OK);
    drain();
    (void)p2pos_fd(client);
    CHECK(p2pos_write(client, stream, "x", 1, NULL, WAIT_MS) == P2POS_OK);
    /* The answer arrives while we wait for something else, and nothing of it is left in the socket. */
    CHECK(p2pos_read(client, other, &byte, 1, &got, 300) == P2POS_ERR_NOT_YET);
    CHECK(is_readable());
    int seen = 0;
    p2pos_event event;
    while ((event = p2pos_next_event(client)).kind != P2POS_EVENT_NONE) {
        seen += event.kind == P2POS_EVENT_READABLE && event.stream.id == stream.id;
    }
    CHECK(seen == 1 && !is_readable());
    CHECK(p2pos_read(client, stream, &byte, 1, &got, 0) == P2POS_OK);
    p2pos_release(client, stream);
    p2pos_release(client, other);
}

static void a_write_without_room_is_taken_up_later(void) {
    static char bytes[1 << 20];
    p2pos_stream stream;
    size_t count;
    size_t total = 0;
    int writable = 0;
    CHECK(p2pos_open(client, bo, "/sink/1", 0, &stream, NULL, WAIT_MS) == P2POS_OK);
    int code = p2pos_write(client, stream, bytes, sizeof bytes, &count, 200);
    CHECK(code == P2POS_ERR_NOT_YET && count == 256 * 1024); /* the other side does not read: one window */
    total = count;
    CHECK(p2pos_write(client, stream, bytes, 1, &count, 0) == P2POS_ERR_NOT_YET && count == 0);
    /* Half a second later it reads. */
    struct pollfd wait = {p2pos_fd(client), POLLIN, 0};
    while (total < sizeof bytes && poll(&wait, 1, WAIT_MS) == 1) {
        p2pos_event event;
        (void)p2pos_process(client);
        while ((event = p2pos_next_event(client)).kind != P2POS_EVENT_NONE) {
            if (event.kind == P2POS_EVENT_WRITABLE && event.stream.id == stream.id) {
                writable++;
                code = p2pos_write(client, stream, bytes, sizeof bytes - total, &count, 0);
                CHECK(code == P2POS_OK || code == P2POS_ERR_NOT_YET);
                total += count;
            }
        }
    }
    CHECK(total == sizeof bytes && writable > 0);
    CHECK(p2pos_close_write(client, stream) == P2POS_OK && p2pos_close_write(client, stream) == P2POS_OK);
    CHECK(p2pos_write(client, stream, "x", 1, NULL, 0) == P2POS_ERR_MISUSE);
    p2pos_release(client, stream);
}

static void a_request_that_nobody_waits_for_complains(void) {
    p2pos_event event;
    drain();
    CHECK(p2pos_unregister(client, "/never/1", 0) == P2POS_OK);
    for (int i = 0; i < 400; i++) {
        (void)p2pos_process(client);
        event = p2pos_next_event(client);
        if (event.kind == P2POS_EVENT_COMPLAINT) {
            break;
        }
        (void)p2pos_wait_shutdown(client, NULL, 5);
    }
    CHECK(event.kind == P2POS_EVENT_COMPLAINT && event.code == P2POS_ERR_NOT_REGISTERED);
    CHECK(p2pos_last_problem(client)->code == P2POS_ERR_NOT_REGISTERED && p2pos_last_problem(client)->hint[0] != '\0');
}

static void misuse_is_told_and_changes_nothing(void) {
    p2pos_stream none = {12345};
    p2pos_flow no_flow = {0};
    p2pos_stream stream;
    p2pos_closed closed;
    p2pos_info info;
    char byte;
    size_t got;
    CHECK(p2pos_read(client, none, &byte, 1, &got, 0) == P2POS_ERR_NO_STREAM && p2pos_write(client, none, "x", 1, NULL, 0) == P2POS_ERR_NO_STREAM);
    CHECK(p2pos_close_write(client, none) == P2POS_ERR_NO_STREAM && p2pos_reset(client, none, 1) == P2POS_ERR_NO_STREAM);
    CHECK(p2pos_stop(client, none, 1) == P2POS_ERR_NO_STREAM && p2pos_wait_closed(client, none, &closed, 0) == P2POS_ERR_NO_STREAM);
    CHECK(p2pos_stream_info(client, none, &info) == P2POS_ERR_NO_STREAM && p2pos_user(client, none) == NULL);
    CHECK(p2pos_set_user(client, none, &byte) == P2POS_ERR_NO_STREAM && p2pos_refuse(client, none, 305, "") == P2POS_ERR_NO_STREAM);
    CHECK(p2pos_send_datagram(client, no_flow, "x", 1) == P2POS_ERR_NO_STREAM);
    p2pos_release(client, none);
    p2pos_release_flow(client, no_flow);
    CHECK(p2pos_register(client, "", NULL, WAIT_MS) == P2POS_ERR_BAD_REQUEST && p2pos_register(client, "no name", NULL, 0) == P2POS_ERR_BAD_REQUEST);
    CHECK(p2pos_open(client, bo, "/echo/1", 77, &stream, NULL, WAIT_MS) == P2POS_ERR_MISUSE && stream.id == 0);
    CHECK(p2pos_open(client, bo, "/echo/1", 0, &stream, NULL, 0) == P2POS_ERR_MISUSE);
    CHECK(p2pos_subscribe(client, 64, 0) == P2POS_ERR_MISUSE && p2pos_log(client, (enum p2pos_level)9, "x") == P2POS_ERR_MISUSE);
    CHECK(p2pos_status(client, (enum p2pos_health)0, "x") == P2POS_ERR_MISUSE);
    CHECK(p2pos_open(client, bo, "/echo/1", 0, &stream, NULL, WAIT_MS) == P2POS_OK);
    CHECK(p2pos_read(client, stream, &byte, 0, &got, 0) == P2POS_ERR_MISUSE);
    no_flow.id = stream.id;
    CHECK(p2pos_read_datagram(client, no_flow, &byte, 1, &got, NULL, 0) == P2POS_ERR_MISUSE);
    CHECK(p2pos_stop(client, stream, 0) == P2POS_OK && p2pos_read(client, stream, &byte, 1, &got, 0) == P2POS_ERR_MISUSE);
    CHECK(p2pos_reset(client, stream, 5) == P2POS_OK && p2pos_reset(client, stream, 6) == P2POS_OK);
    CHECK(p2pos_write(client, stream, "x", 1, NULL, 0) == P2POS_ERR_APP && p2pos_last_problem(client)->app_code == 5);
    p2pos_release(client, stream);
    CHECK(p2pos_read(client, stream, &byte, 1, &got, 0) == P2POS_ERR_NO_STREAM);
}

static void every_descriptor_is_closed_on_exec(void) {
    for (int descriptor = 3; descriptor < 64; descriptor++) {
        int flags = fcntl(descriptor, F_GETFD);
        CHECK(flags < 0 || (flags & FD_CLOEXEC) != 0);
    }
}

static int open_descriptors(void) {
    int count = 0;
    for (int descriptor = 0; descriptor < 256; descriptor++) {
        count += fcntl(descriptor, F_GETFD) >= 0;
    }
    return count;
}

static void connecting_fails_with_words(const char *file) {
    p2pos_options options;
    p2pos_problem problem;
    p2pos_client *none;
    int before = open_descriptors();
    p2pos_options_init(&options, sizeof options);
    options.endpoint_file = "/nowhere/endpoint.json";
    CHECK(p2pos_connect(&options, &none, &problem) == P2POS_ERR_LAUNCH && none == NULL && strstr(problem.message, "/nowhere/") != NULL);
    options.endpoint_file = NULL;
    options.token = "wrong";
    static const char *const bad[] = {"http://x", "unix:relative", "tcp:10.0.0.1:5", "tcp:127.0.0.1:", "tcp:127.0.0.1:99999", "tcp:127.0.0.1:5x"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        options.endpoint = bad[i];
        CHECK(p2pos_connect(&options, &none, &problem) == P2POS_ERR_LAUNCH && none == NULL);
    }
    options.endpoint = "unix:/nowhere/plugin.sock";
    CHECK(p2pos_connect(&options, &none, NULL) == P2POS_ERR_CONNECT && none == NULL);
    options.frame_bytes_max = 100;
    CHECK(p2pos_connect(&options, &none, &problem) == P2POS_ERR_MISUSE);
    CHECK(p2pos_connect(NULL, &none, &problem) == P2POS_ERR_LAUNCH && strstr(problem.hint, "p2pos plugins run") != NULL);
    CHECK(open_descriptors() == before);
    (void)file;
}

int main(int argc, char **argv) {
    p2pos_options options;
    p2pos_problem problem;
    if (argc < 2) {
        return 2;
    }
    int before = open_descriptors();
    connecting_fails_with_words(argv[1]);
    p2pos_options_init(&options, sizeof options);
    options.endpoint_file = argv[1];
    CHECK(p2pos_connect(&options, &client, &problem) == P2POS_OK);
    if (client == NULL) {
        fprintf(stderr, "%s\n", problem.message);
        return 1;
    }
    CHECK(p2pos_contacts(client, note_contact, NULL, WAIT_MS) == P2POS_OK && bo[0] != '\0');
    RUN(a_wait_ends_in_time);
    RUN(a_signal_does_not_end_a_wait_and_an_interrupt_does);
    RUN(the_descriptor_is_quiet_until_there_is_something);
    RUN(what_came_in_during_another_call_makes_the_descriptor_readable);
    RUN(a_write_without_room_is_taken_up_later);
    RUN(a_request_that_nobody_waits_for_complains);
    RUN(misuse_is_told_and_changes_nothing);
    RUN(every_descriptor_is_closed_on_exec);
    p2pos_close(client, 500);
    CHECK(open_descriptors() == before);
    return check_failures == 0 ? 0 : 1;
}
