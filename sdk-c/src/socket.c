/* Connecting, and waiting at one descriptor; see socket.h. */
#define _GNU_SOURCE
#include "socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* What one interrupt adds to the event's counter; a wake adds 1. */
#define INTERRUPT_COUNT (UINT64_C(1) << 32)

uint64_t p2pos_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

bool p2pos_random(uint8_t *bytes, size_t size) {
    size_t have = 0;
    while (have < size) {
        ssize_t count = getrandom(bytes + have, size - have, 0);
        if (count < 0 && errno != EINTR) {
            return false;
        }
        have += count > 0 ? (size_t)count : 0;
    }
    return true;
}

bool p2pos_set_timeouts(int socket, int timeout_ms) {
    struct timeval time = {timeout_ms / 1000, (timeout_ms % 1000) * 1000};
    return setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time) == 0 &&
           setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time) == 0;
}

bool p2pos_set_blocking(int socket, bool is_blocking) {
    int flags = fcntl(socket, F_GETFL);
    int wanted = is_blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK;
    return flags >= 0 && fcntl(socket, F_SETFL, wanted) == 0;
}

union address {
    struct sockaddr any;
    struct sockaddr_un local;
    struct sockaddr_in inet;
};

/* Reads an endpoint; 0: it is none. TCP goes to this machine only: a token must not leave it. */
static socklen_t parse(const char *endpoint, union address *address) {
    static const char local[] = "unix:/";
    static const char inet[] = "tcp:127.0.0.1:";
    memset(address, 0, sizeof *address);
    if (strncmp(endpoint, local, strlen(local)) == 0) {
        const char *path = endpoint + strlen("unix:");
        if (strlen(path) >= sizeof address->local.sun_path) {
            return 0;
        }
        address->local.sun_family = AF_UNIX;
        memcpy(address->local.sun_path, path, strlen(path) + 1);
        return sizeof address->local;
    }
    if (strncmp(endpoint, inet, strlen(inet)) == 0) {
        const char *digits = endpoint + strlen(inet);
        char *end;
        unsigned long port = strtoul(digits, &end, 10);
        if (strspn(digits, "0123456789") != strlen(digits) || *end != '\0' || port == 0 || port > 65535) {
            return 0;
        }
        address->inet.sin_family = AF_INET;
        address->inet.sin_port = htons((uint16_t)port);
        address->inet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return sizeof address->inet;
    }
    return 0;
}

/* connect(2), which a signal may interrupt: then it goes on by itself, and we wait for it. */
static int connect_in_time(int socket, const union address *address, socklen_t size, int timeout_ms) {
    if (connect(socket, &address->any, size) == 0) {
        return 0;
    }
    if (errno != EINTR) {
        return -1;
    }
    struct pollfd wait = {socket, POLLOUT, 0};
    int error = 0;
    socklen_t error_size = sizeof error;
    int count;
    do {
        count = poll(&wait, 1, timeout_ms);
    } while (count < 0 && errno == EINTR);
    if (count <= 0 || getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &error_size) != 0) {
        errno = count == 0 ? ETIMEDOUT : errno;
        return -1;
    }
    errno = error;
    return error == 0 ? 0 : -1;
}

int p2pos_dial(const char *endpoint, int timeout_ms, p2pos_problem *problem) {
    union address address;
    socklen_t size = parse(endpoint, &address);
    if (size == 0) {
        p2pos_problem_set(problem, P2POS_ERR_LAUNCH, "\"%s\" is no endpoint: unix:/PATH or tcp:127.0.0.1:PORT", endpoint);
        return -1;
    }
    int made = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (made < 0) {
        p2pos_problem_set(problem, P2POS_ERR_SYSTEM, "cannot make a socket: %s", strerror(errno));
        return -1;
    }
    int yes = 1;
    if (address.any.sa_family == AF_INET) {
        (void)setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes); /* it only would be slower */
    }
    if (!p2pos_set_timeouts(made, timeout_ms) || connect_in_time(made, &address, size, timeout_ms) != 0) {
        p2pos_problem_set(problem, P2POS_ERR_CONNECT, "no daemon answers at %s: %s", endpoint,
                          errno == EAGAIN || errno == EINPROGRESS ? "it took too long" : strerror(errno));
        close(made);
        return -1;
    }
    return made;
}

/* --- waiting --- */

static bool watch(struct p2pos_poller *poller, int descriptor, uint32_t events, unsigned bit) {
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.events = events;
    event.data.u32 = bit;
    return epoll_ctl(poller->descriptor, EPOLL_CTL_ADD, descriptor, &event) == 0;
}

bool p2pos_poller_open(struct p2pos_poller *poller, int socket, bool watches_stdin, bool *stdin_is_over) {
    memset(poller, 0, sizeof *poller);
    *stdin_is_over = false;
    poller->socket = socket;
    poller->descriptor = epoll_create1(EPOLL_CLOEXEC);
    poller->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    poller->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (poller->descriptor < 0 || poller->timer < 0 || poller->event < 0 || !watch(poller, socket, EPOLLIN, P2POS_READY_IN) ||
        !watch(poller, poller->timer, EPOLLIN, P2POS_READY_TIMER) || !watch(poller, poller->event, EPOLLIN, P2POS_READY_WAKE)) {
        int error = errno;
        p2pos_poller_close(poller);
        errno = error;
        return false;
    }
    if (watches_stdin) {
        /* What cannot be watched is a file or /dev/null: it has its end already. */
        poller->watches_stdin = watch(poller, 0, EPOLLIN, P2POS_READY_STDIN);
        *stdin_is_over = !poller->watches_stdin;
    }
    return true;
}

void p2pos_poller_close(struct p2pos_poller *poller) {
    int all[] = {poller->descriptor, poller->timer, poller->event};
    for (size_t i = 0; i < 3; i++) {
        if (all[i] >= 0) {
            close(all[i]);
        }
    }
}

void p2pos_poller_forget_socket(struct p2pos_poller *poller) {
    epoll_ctl(poller->descriptor, EPOLL_CTL_DEL, poller->socket, NULL);
}

void p2pos_poller_forget_stdin(struct p2pos_poller *poller) {
    if (poller->watches_stdin) {
        poller->watches_stdin = false;
        epoll_ctl(poller->descriptor, EPOLL_CTL_DEL, 0, NULL);
    }
}

void p2pos_poller_want_out(struct p2pos_poller *poller, bool wants) {
    struct epoll_event event;
    if (poller->waits_for_out == wants) {
        return;
    }
    memset(&event, 0, sizeof event);
    event.events = EPOLLIN | (wants ? EPOLLOUT : 0u);
    event.data.u32 = P2POS_READY_IN;
    poller->waits_for_out = wants;
    epoll_ctl(poller->descriptor, EPOLL_CTL_MOD, poller->socket, &event);
}

void p2pos_poller_arm(struct p2pos_poller *poller, uint64_t at_ms) {
    struct itimerspec time;
    memset(&time, 0, sizeof time);
    if (poller->armed_ms == at_ms) {
        return;
    }
    poller->armed_ms = at_ms;
    time.it_value.tv_sec = (time_t)(at_ms / 1000);
    time.it_value.tv_nsec = (long)(at_ms % 1000) * 1000000;
    timerfd_settime(poller->timer, TFD_TIMER_ABSTIME, &time, NULL);
}

unsigned p2pos_poller_wait(struct p2pos_poller *poller, int timeout_ms) {
    struct epoll_event events[4];
    unsigned ready = 0;
    int count = epoll_wait(poller->descriptor, events, 4, timeout_ms);
    for (int i = 0; i < count; i++) {
        unsigned bit = events[i].data.u32;
        if (bit == P2POS_READY_IN) {
            ready |= (events[i].events & ~(uint32_t)EPOLLOUT) != 0 ? P2POS_READY_IN : 0u;
            ready |= (events[i].events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0 ? P2POS_READY_OUT : 0u;
        } else {
            ready |= bit;
        }
    }
    if ((ready & P2POS_READY_TIMER) != 0) {
        uint64_t ticks;
        ssize_t size = read(poller->timer, &ticks, sizeof ticks);
        poller->armed_ms = size > 0 ? 0 : poller->armed_ms;
    }
    return ready;
}

static void add(const struct p2pos_poller *poller, uint64_t count) {
    int error = errno;
    ssize_t size = write(poller->event, &count, sizeof count);
    (void)size; /* a counter that is full wakes as well */
    errno = error;
}

void p2pos_poller_wake(const struct p2pos_poller *poller) {
    add(poller, 1);
}

void p2pos_poller_interrupt(const struct p2pos_poller *poller) {
    add(poller, INTERRUPT_COUNT);
}

bool p2pos_poller_calm(const struct p2pos_poller *poller) {
    uint64_t count = 0;
    ssize_t size = read(poller->event, &count, sizeof count);
    return size == (ssize_t)sizeof count && count >= INTERRUPT_COUNT;
}
