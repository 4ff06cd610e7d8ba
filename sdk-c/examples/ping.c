/* Measures round trips with datagrams. Without arguments it is the plugin that answers; with a PeerId it asks:
 *
 *     ping PEER [COUNT]
 *
 * What to learn here: a flow promises nothing. Each message carries a number, a lost one is counted and not waited for, and late ones are
 * told from lost ones by that number. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <p2pos/p2pos.h>

#define PROTOCOL "/ping-c/1"
#define EXIT_CONFIG 78
#define FLOWS_MAX 64
#define WAIT_MS 1000 /* an answer that takes longer counts as lost */

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1000 + (double)now.tv_nsec / 1e6;
}

/* Sends back whatever comes, on all flows. */
static int answer(p2pos_client *client) {
    char bytes[65536];
    p2pos_serve how = {P2POS_KIND_FLOW, 0, FLOWS_MAX};
    int code = p2pos_register(client, PROTOCOL, &how, P2POS_FOREVER);
    p2pos_ready(client);
    while (code == P2POS_OK) {
        p2pos_event event = p2pos_next_event(client);
        p2pos_flow flow = {event.stream.id};
        size_t got;
        switch (event.kind) {
        case P2POS_EVENT_OFFER:
            (void)p2pos_accept_flow(client, PROTOCOL, &flow, NULL, 0);
            break;
        case P2POS_EVENT_READABLE:
            if (p2pos_read_datagram(client, flow, bytes, sizeof bytes, &got, NULL, 0) == P2POS_OK) {
                (void)p2pos_send_datagram(client, flow, bytes, got);
            }
            break;
        case P2POS_EVENT_CLOSED:
            p2pos_release_flow(client, flow);
            break;
        case P2POS_EVENT_NONE:
            /* Nothing to do: wait for the shutdown, or whatever comes before it. */
            code = p2pos_wait_shutdown(client, NULL, 100);
            code = code == P2POS_OK ? P2POS_ERR_SHUTTING_DOWN : code == P2POS_ERR_NOT_YET ? P2POS_OK : code;
            break;
        case P2POS_EVENT_ENDED:
            code = event.code;
            break;
        default:
            break;
        }
    }
    return code;
}

/* Waits for the answer to message `number`; older ones that come late are passed over. */
static int await(p2pos_client *client, p2pos_flow flow, uint32_t number) {
    double until = now_ms() + WAIT_MS;
    int code = P2POS_OK;
    while (code == P2POS_OK) {
        uint32_t heard = 0;
        size_t got;
        double left = until - now_ms();
        code = p2pos_read_datagram(client, flow, &heard, sizeof heard, &got, NULL, left > 0 ? (int)left : 0);
        if (code == P2POS_OK && got == sizeof heard && heard == number) {
            return P2POS_OK;
        }
    }
    return code;
}

static int ask(p2pos_client *client, const char *peer, unsigned count) {
    p2pos_flow flow;
    p2pos_info info;
    unsigned lost = 0;
    double sum = 0;
    int code = p2pos_open_flow(client, peer, PROTOCOL, 0, &flow, &info, 20000);
    if (code != P2POS_OK) {
        return code;
    }
    for (uint32_t number = 1; number <= count; number++) {
        double start = now_ms();
        code = p2pos_send_datagram(client, flow, &number, sizeof number);
        if (code == P2POS_OK) {
            code = await(client, flow, number);
        }
        if (code == P2POS_ERR_NOT_YET) {
            lost++;
            code = P2POS_OK;
        } else if (code != P2POS_OK) {
            return code;
        } else {
            sum += now_ms() - start;
        }
    }
    printf("%u sent, %u lost, mean %.3f ms\n", count, lost, count > lost ? sum / (count - lost) : 0.0);
    p2pos_release_flow(client, flow);
    return P2POS_OK;
}

int main(int argc, char **argv) {
    p2pos_client *client;
    p2pos_problem problem;
    int code = p2pos_connect(NULL, &client, &problem);
    if (code != P2POS_OK) {
        fprintf(stderr, "error: %s\n  try: %s\n", problem.message, problem.hint);
        return code == P2POS_ERR_LAUNCH ? EXIT_CONFIG : 1;
    }
    code = argc < 2 ? answer(client) : ask(client, argv[1], argc < 3 ? 10 : (unsigned)strtoul(argv[2], NULL, 10));
    if (code != P2POS_OK && code != P2POS_ERR_SHUTTING_DOWN) {
        fprintf(stderr, "error: %s\n  try: %s\n", p2pos_last_problem(client)->message, p2pos_last_problem(client)->hint);
    }
    p2pos_close(client, 1000);
    return code == P2POS_OK || code == P2POS_ERR_SHUTTING_DOWN ? 0 : 1;
}
