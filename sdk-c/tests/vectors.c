/* The golden vectors of plugin-protocol/vectors, against codec, handshake and session machine. */
#include <stdlib.h>
#include <string.h>

#include "../src/session.h"
#include "../src/sha256.h"
#include "check.h"

struct frame_case {
    const char *id;
    const char *hex;
    const char *canonical; /* "": no known body */
};
struct given_frame {
    const char *given;
    int is_plugins;
    const char *hex;
};
struct malformed_case {
    const char *id, *judge, *layer, *phase, *given, *hex, *answer;
    int code;
    uint32_t rid, stream;
};
struct proof_case {
    const char *secret, *client_nonce, *server_nonce, *server_proof, *client_proof;
};
struct exchange_step {
    const char *exchange;
    int is_plugins;
    const char *hex;
};

#include "vectors.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define ITEMS_MAX 64

static uint8_t bytes[1 << 21];

static size_t unhex_into(const char *hex, uint8_t *target) {
    size_t size = strlen(hex) / 2;
    for (size_t i = 0; i < size; i++) {
        char pair[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        target[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    return size;
}

static size_t unhex(const char *hex) {
    return unhex_into(hex, bytes);
}

static bool is_hex(const uint8_t *data, size_t size, const char *hex) {
    static uint8_t wanted[1 << 21];
    return unhex_into(hex, wanted) == size && memcmp(data, wanted, size) == 0;
}

/* Room for the lists of a frame. */
static union {
    struct p2pos_view views[ITEMS_MAX];
    p2pos_pb_Protocol protocols[ITEMS_MAX];
    p2pos_pb_Contact contacts[ITEMS_MAX];
    uint64_t numbers[ITEMS_MAX];
} items[2];

static void give(struct p2pos_list *list, size_t which, size_t item_size) {
    list->items = &items[which];
    list->room = ITEMS_MAX;
    list->item_size = item_size;
}

static void prepare(void *context, struct p2pos_frame *frame) {
    (void)context;
    switch (frame->body) {
    case P2POS_BODY_OPEN:
        give(&frame->message.open.protocols, 0, sizeof(struct p2pos_view));
        break;
    case P2POS_BODY_ERROR:
        give(&frame->message.error.details, 0, sizeof(struct p2pos_view));
        break;
    case P2POS_BODY_HELLO:
        give(&frame->message.hello.features, 0, sizeof(struct p2pos_view));
        break;
    case P2POS_BODY_WELCOME:
        give(&frame->message.welcome.features, 0, sizeof(struct p2pos_view));
        give(&frame->message.welcome.grants, 1, sizeof(struct p2pos_view));
        break;
    case P2POS_BODY_REGISTER:
        give(&frame->message.registration.protocols, 0, sizeof(p2pos_pb_Protocol));
        break;
    case P2POS_BODY_UNREGISTER:
        give(&frame->message.unregister.names, 0, sizeof(struct p2pos_view));
        break;
    case P2POS_BODY_SUBSCRIBE:
        give(&frame->message.subscribe.kinds, 0, sizeof(uint64_t));
        break;
    case P2POS_BODY_CONTACTS:
        give(&frame->message.contacts.contacts, 0, sizeof(p2pos_pb_Contact));
        break;
    default:
        break;
    }
}

static void every_frame_is_read_and_written_again_to_the_byte(void) {
    for (size_t i = 0; i < COUNT(frame_cases); i++) {
        const struct frame_case *c = &frame_cases[i];
        struct p2pos_frame frame;
        struct p2pos_buffer out;
        size_t length;
        bool is_whole;
        size_t size = unhex(c->hex);
        int before = check_failures;
        memset(&out, 0, sizeof out);
        CHECK(p2pos_measure(bytes, size, P2POS_FRAME_BYTES_HARD_MAX, &length, &is_whole) == 0 && is_whole);
        CHECK(p2pos_decode(bytes + 4, length, &frame, prepare, NULL));
        if (c->canonical[0] == '\0') {
            CHECK(frame.body == P2POS_BODY_NONE);
        } else {
            if (frame.body == P2POS_BODY_DATA) {
                frame.message.data.stream = (uint32_t)frame.message.data.stream; /* whoever uses it cuts it */
            }
            CHECK(p2pos_encode(&p2pos_system_allocator, &out, frame.body, &frame.message, frame.rid));
            CHECK(is_hex(out.data, out.end, c->canonical));
        }
        p2pos_buffer_free(&p2pos_system_allocator, &out);
        if (check_failures != before) {
            fprintf(stderr, "  in %s\n", c->id);
        }
    }
}

static void every_cut_of_every_frame_is_refused_or_waits(void) {
    for (size_t i = 0; i < COUNT(frame_cases); i++) {
        struct p2pos_frame frame;
        struct p2pos_data_frame data;
        size_t length;
        bool is_whole;
        size_t size = unhex(frame_cases[i].hex);
        for (size_t cut = 0; cut < size && cut < 4096; cut++) {
            /* On the heap, exactly so large: the sanitizers see a byte too many. */
            uint8_t *exact = malloc(cut + 1);
            memcpy(exact, bytes, cut);
            CHECK(p2pos_measure(exact, cut, P2POS_FRAME_BYTES_HARD_MAX, &length, &is_whole) == 0 && !is_whole);
            if (cut > 4) {
                (void)p2pos_decode(exact + 4, cut - 4, &frame, prepare, NULL);
                (void)p2pos_decode_data(exact + 4, cut - 4, &data);
            }
            free(exact);
        }
    }
}

static void the_hand_made_way_for_data_agrees_with_nanopb(void) {
    for (size_t i = 0; i < COUNT(frame_cases); i++) {
        struct p2pos_frame frame;
        struct p2pos_data_frame data;
        size_t size = unhex(frame_cases[i].hex) - 4;
        if (p2pos_decode_data(bytes + 4, size, &data)) {
            CHECK(p2pos_decode(bytes + 4, size, &frame, NULL, NULL) && frame.body == P2POS_BODY_DATA && frame.rid == 0);
            CHECK((uint32_t)frame.message.data.stream == data.stream && frame.message.data.fin == data.fin);
            CHECK(frame.message.data.payload.size == data.payload.size);
            CHECK(data.payload.size == 0 || frame.message.data.payload.data == data.payload.data);
        }
        if (strncmp(frame_cases[i].id, "data-", 5) == 0 && strcmp(frame_cases[i].hex, frame_cases[i].canonical) == 0 &&
            p2pos_decode(bytes + 4, size, &frame, NULL, NULL) && (uint32_t)frame.message.data.stream != 0) {
            uint8_t head[P2POS_DATA_HEAD_BYTES_MAX];
            const p2pos_pb_Data *wanted = &frame.message.data;
            size_t head_size = p2pos_put_data_head(head, (uint32_t)wanted->stream, (uint32_t)wanted->payload.size, wanted->fin);
            CHECK(p2pos_decode_data(bytes + 4, size, &data));
            CHECK(memcmp(head, bytes, head_size) == 0);
            CHECK(head_size + wanted->payload.size + (wanted->fin ? 2 : 0) == size + 4);
            CHECK(!wanted->fin || memcmp(bytes + size + 2, p2pos_data_tail, 2) == 0);
        }
    }
}

static void malformed_bytes_are_refused_by_frame_and_message(void) {
    size_t seen = 0;
    for (size_t i = 0; i < COUNT(malformed_cases); i++) {
        const struct malformed_case *c = &malformed_cases[i];
        bool is_frame = strcmp(c->layer, "frame") == 0;
        bool is_message = strcmp(c->layer, "message") == 0 && c->code == P2POS_ERR_PROTOCOL;
        struct p2pos_frame frame;
        size_t size = unhex(c->hex);
        size_t at = 0;
        bool is_refused = false;
        if (!is_frame && !is_message) {
            continue;
        }
        seen++;
        while (!is_refused && at < size) {
            size_t length;
            bool is_whole;
            uint32_t most = strcmp(c->phase, "pre") == 0 ? 4096 : 65536;
            is_refused = p2pos_measure(bytes + at, size - at, most, &length, &is_whole) != 0;
            if (!is_refused && !is_whole) {
                break;
            }
            is_refused = is_refused || !p2pos_decode(bytes + at + 4, length, &frame, prepare, NULL);
            at += 4 + length;
        }
        CHECK(is_refused);
        if (!is_refused) {
            fprintf(stderr, "  in %s\n", c->id);
        }
    }
    CHECK(seen > 60);
}

/* --- sessions --- */

static void begin(struct p2pos_session *session) {
    p2pos_session_init(session, &p2pos_system_allocator);
    session->phase = P2POS_PHASE_OPEN;
    session->frame_in_max = session->frame_out_max = 65536;
    session->data_max = 16384;
    session->window_in = session->window_out = 1024;
    session->streams_max = 4;
}

static void feed(struct p2pos_session *session, const uint8_t *data, size_t size, size_t step) {
    for (size_t at = 0; at < size && session->ended == 0; at += step) {
        size_t room;
        size_t count = size - at < step ? size - at : step;
        uint8_t *target = p2pos_session_room(session, &room);
        CHECK(target != NULL && room >= count);
        memcpy(target, data + at, count);
        p2pos_session_received(session, count, 0);
    }
}

/* Lets the session say a frame by its own calls; it must come out to the byte. */
static void say(struct p2pos_session *session, const char *hex) {
    struct p2pos_frame frame;
    struct p2pos_entry *entry = NULL;
    size_t size = unhex(hex);
    CHECK(p2pos_decode(bytes + 4, size - 4, &frame, prepare, NULL));
    session->rid = frame.rid - 1;
    switch (frame.body) {
    case P2POS_BODY_OPEN: {
        uint32_t id = (uint32_t)frame.message.open.stream;
        enum p2pos_kind kind = frame.message.open.kind == p2pos_pb_Kind_DATAGRAM ? P2POS_KIND_FLOW : P2POS_KIND_STREAM;
        CHECK(p2pos_session_open(session, &frame.message.open, kind, &entry) == 0 && entry->id == id);
        p2pos_buffer_drop(&session->out, p2pos_buffer_used(&session->out)); /* kind and attachment are written out */
        return;
    }
    case P2POS_BODY_REGISTER:
        CHECK(p2pos_session_ask(session, P2POS_BODY_REGISTER, &frame.message) == 0);
        break;
    case P2POS_BODY_ACCEPT:
        p2pos_session_accept(session, p2pos_session_find(session, (uint32_t)frame.message.accept.stream));
        break;
    case P2POS_BODY_RESET:
        p2pos_session_reset(session, p2pos_session_find(session, (uint32_t)frame.message.reset.stream), P2POS_ERR_APP,
                            (uint32_t)frame.message.reset.app_code);
        break;
    case P2POS_BODY_READY:
        p2pos_session_say_ready(session);
        break;
    case P2POS_BODY_DATA:
        CHECK(p2pos_session_say(session, P2POS_BODY_DATA, &frame.message, 0));
        p2pos_session_find(session, (uint32_t)frame.message.data.stream)->fin_sent = frame.message.data.fin;
        break;
    default:
        CHECK(!"a frame that this test cannot say");
    }
    CHECK(is_hex(session->out.data + session->out.start, p2pos_buffer_used(&session->out), hex));
    p2pos_buffer_drop(&session->out, p2pos_buffer_used(&session->out));
}

static void judge(const struct malformed_case *c, size_t step) {
    struct p2pos_session session;
    struct p2pos_frame frame;
    int before = check_failures;
    begin(&session);
    for (size_t i = 0; i < COUNT(given_frames); i++) {
        if (strcmp(given_frames[i].given, c->given) != 0) {
            continue;
        }
        if (given_frames[i].is_plugins) {
            say(&session, given_frames[i].hex);
        } else {
            size_t size = unhex(given_frames[i].hex);
            feed(&session, bytes, size, size);
        }
    }
    CHECK(session.ended == 0 && p2pos_buffer_used(&session.out) == 0);
    static uint8_t data[65536];
    size_t size = unhex_into(c->hex, data);
    feed(&session, data, size, step);
    const uint8_t *out = session.out.data + session.out.start;
    size_t said = p2pos_buffer_used(&session.out);
    if (strcmp(c->answer, "none") == 0) {
        CHECK(session.ended == 0 && said == 0);
    } else {
        CHECK(said > 4 && p2pos_decode(out + 4, said - 4, &frame, NULL, NULL) && frame.body == P2POS_BODY_ERROR);
        CHECK(frame.rid == c->rid && frame.message.error.code == (uint64_t)c->code && frame.message.error.hint.size > 0);
        CHECK(session.ended == (strcmp(c->answer, "error") == 0 ? c->code : 0));
    }
    if (check_failures != before) {
        fprintf(stderr, "  in %s\n", c->id);
    }
    p2pos_session_free(&session);
}

static void a_daemon_that_breaks_a_rule_hears_which(void) {
    size_t seen = 0;
    for (size_t i = 0; i < COUNT(malformed_cases); i++) {
        if (strcmp(malformed_cases[i].judge, "plugin") == 0) {
            judge(&malformed_cases[i], 1);
            judge(&malformed_cases[i], SIZE_MAX);
            seen++;
        }
    }
    CHECK(seen > 25);
}

static void proofs_have_the_known_answers(void) {
    for (size_t i = 0; i < COUNT(proof_cases); i++) {
        const struct proof_case *c = &proof_cases[i];
        uint8_t secret[32], client[32], server[32], proof[32];
        unhex_into(c->secret, secret);
        unhex_into(c->client_nonce, client);
        unhex_into(c->server_nonce, server);
        p2pos_proof(secret, "p2pOS daemon v1", client, server, proof);
        CHECK(is_hex(proof, 32, c->server_proof));
        p2pos_proof(secret, "p2pOS plugin v1", client, server, proof);
        CHECK(is_hex(proof, 32, c->client_proof));
    }
}

/* A handshake as in the vectors; our Hello names another program, so only what follows is compared. */
static void greet(const char *exchange, bool is_wrong) {
    struct p2pos_session session;
    uint8_t secret[32];
    uint8_t nonce[32];
    bool has_said_hello = false;
    unhex_into(proof_cases[0].secret, secret);
    unhex_into(proof_cases[0].client_nonce, nonce);
    secret[0] ^= is_wrong;
    p2pos_session_init(&session, &p2pos_system_allocator);
    bool is_token = strcmp(exchange, "token") == 0;
    CHECK(p2pos_session_hello(&session, launch_token, is_token ? NULL : secret, nonce, "test", 0, 0));
    for (size_t i = 0; i < COUNT(exchange_steps); i++) {
        const struct exchange_step *step = &exchange_steps[i];
        if (strcmp(step->exchange, exchange) != 0 || session.ended != 0) {
            continue;
        }
        if (step->is_plugins) {
            CHECK(!has_said_hello || is_hex(session.out.data + session.out.start, p2pos_buffer_used(&session.out), step->hex));
            p2pos_buffer_drop(&session.out, p2pos_buffer_used(&session.out));
            has_said_hello = true;
        } else {
            size_t size = unhex(step->hex);
            feed(&session, bytes, size, 1);
        }
    }
    if (is_wrong) {
        CHECK(session.ended == P2POS_ERR_AUTH && p2pos_buffer_used(&session.out) == 0);
    } else {
        CHECK(session.phase == P2POS_PHASE_OPEN && session.ended == 0);
        CHECK(strcmp(session.plugin_id, "chat") == 0 && session.streams_max == 256);
        CHECK(strcmp((char *)session.grants.data, "net.open:/chat/1") == 0);
    }
    p2pos_session_free(&session);
}

static void a_handshake_goes_as_in_the_vectors(void) {
    greet("token", false);
    greet("hmac", false);
}

static void a_daemon_without_the_secret_learns_nothing(void) {
    greet("hmac", true);
}

int main(void) {
    RUN(every_frame_is_read_and_written_again_to_the_byte);
    RUN(every_cut_of_every_frame_is_refused_or_waits);
    RUN(the_hand_made_way_for_data_agrees_with_nanopb);
    RUN(malformed_bytes_are_refused_by_frame_and_message);
    RUN(a_daemon_that_breaks_a_rule_hears_which);
    RUN(proofs_have_the_known_answers);
    RUN(a_handshake_goes_as_in_the_vectors);
    RUN(a_daemon_without_the_secret_learns_nothing);
    return check_failures == 0 ? 0 : 1;
}
