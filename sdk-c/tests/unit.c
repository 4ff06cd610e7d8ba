/* The pure parts in virtual time: hashes, names, launch, buffers, streams, credit, events, limits. */
#include <stdlib.h>
#include <string.h>

#include "../src/launch.h"
#include "../src/names.h"
#include "../src/session.h"
#include "../src/sha256.h"
#include "check.h"

#define PEER "p2p1q6adfsqvzky9t042tlmfujeq88g8wzuhnm2nzxfd0qgdx3ac82ydqvcayly"

static const p2pos_allocator *heap = &p2pos_system_allocator;

static bool is_hex(const uint8_t *data, size_t size, const char *hex) {
    char text[3];
    for (size_t i = 0; i < size; i++) {
        snprintf(text, sizeof text, "%02x", data[i]);
        if (strncmp(text, hex + 2 * i, 2) != 0) {
            return false;
        }
    }
    return strlen(hex) == 2 * size;
}

/* FIPS 180-4 examples, and a message of a million bytes. */
static void sha256_has_the_known_answers(void) {
    static const struct {
        const char *text, *digest;
    } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    struct p2pos_sha256 hash;
    uint8_t digest[32];
    for (size_t i = 0; i < 3; i++) {
        p2pos_sha256_begin(&hash);
        for (size_t at = 0; at < strlen(cases[i].text); at++) {
            p2pos_sha256_add(&hash, cases[i].text + at, 1);
        }
        p2pos_sha256_end(&hash, digest);
        CHECK(is_hex(digest, 32, cases[i].digest));
    }
    p2pos_sha256_begin(&hash);
    for (int i = 0; i < 10000; i++) {
        char as[100];
        memset(as, 'a', sizeof as);
        p2pos_sha256_add(&hash, as, sizeof as);
    }
    p2pos_sha256_end(&hash, digest);
    CHECK(is_hex(digest, 32, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"));
}

/* RFC 4231, test cases 1, 2 and 6 (a key longer than a block). */
static void hmac_has_the_known_answers(void) {
    struct p2pos_hmac hmac;
    uint8_t digest[32];
    uint8_t key[131];
    memset(key, 0x0b, 20);
    p2pos_hmac_begin(&hmac, key, 20);
    p2pos_hmac_add(&hmac, "Hi There", 8);
    p2pos_hmac_end(&hmac, digest);
    CHECK(is_hex(digest, 32, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"));
    p2pos_hmac_begin(&hmac, "Jefe", 4);
    p2pos_hmac_add(&hmac, "what do ya want for nothing?", 28);
    p2pos_hmac_end(&hmac, digest);
    CHECK(is_hex(digest, 32, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"));
    memset(key, 0xaa, sizeof key);
    p2pos_hmac_begin(&hmac, key, sizeof key);
    p2pos_hmac_add(&hmac, "Test Using Larger Than Block-Size Key - Hash Key First", 54);
    p2pos_hmac_end(&hmac, digest);
    CHECK(is_hex(digest, 32, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"));
}

static bool is_name(const char *name) {
    return p2pos_is_protocol_name(name, strlen(name));
}

static void protocol_names_follow_their_rules(void) {
    char longest[130];
    memset(longest, 'a', sizeof longest);
    memcpy(longest, "/1/", 3);
    longest[128] = '\0';
    CHECK(is_name(longest));
    longest[128] = 'a';
    longest[129] = '\0';
    CHECK(!is_name(longest));
    CHECK(is_name("/chat/1") && is_name("/a/b/c") && is_name("/a.b_c-d/1"));
    CHECK(!is_name("") && !is_name("/") && !is_name("//") && !is_name("/chat") && !is_name("chat/1") && !is_name("/chat/"));
    CHECK(!is_name("//1") && !is_name("/Chat/1") && !is_name("/a b/1") && !is_name("/caf\xc3\xa9/1") && !is_name("/%20/1"));
    CHECK(!p2pos_is_protocol_name("/a\0/1", 5));
}

static void a_peer_id_with_a_typo_is_found(void) {
    char peer[64];
    char text[] = PEER;
    CHECK(p2pos_check_peer_id(text, peer) == NULL && strcmp(peer, PEER) == 0);
    for (size_t i = 5; i < 63; i++) {
        char was = text[i];
        text[i] = was == 'q' ? 'p' : 'q';
        CHECK(p2pos_check_peer_id(text, peer) != NULL);
        text[i] = was;
    }
    for (size_t i = 0; i < 63; i++) {
        text[i] = (char)(text[i] >= 'a' && text[i] <= 'z' ? text[i] - 32 : text[i]);
    }
    CHECK(p2pos_check_peer_id(text, peer) == NULL && strcmp(peer, PEER) == 0);
    text[20] = 'x';
    CHECK(p2pos_check_peer_id(text, peer) != NULL && p2pos_check_peer_id("", peer) != NULL);
}

static bool parses(const char *text) {
    struct p2pos_launch launch;
    memset(&launch, 0, sizeof launch);
    return p2pos_launch_parse(text, strlen(text), &launch);
}

static void an_endpoint_file_is_read_and_a_broken_one_is_not(void) {
#define SECRET "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    static const char good[] = "{\"version\": 1, \"endpoints\": [\"unix:/run/\\\"x\\\"\", \"tcp:127.0.0.1:4\"], \"more\": {\"a\": [1, {}]},\n"
                               " \"boot_id\": \"b\\\\\", \"secret\": \"" SECRET "\"}\n";
    struct p2pos_launch launch;
    memset(&launch, 0, sizeof launch);
    CHECK(p2pos_launch_parse(good, strlen(good), &launch));
    CHECK(strcmp(launch.endpoint, "unix:/run/\"x\"") == 0 && launch.secret[31] == 0x1f);
    for (size_t cut = 0; cut < strlen(good) - 2; cut++) {
        char *exact = malloc(cut + 1);
        memcpy(exact, good, cut);
        CHECK(!p2pos_launch_parse(exact, cut, &launch));
        free(exact);
    }
    CHECK(!parses("[]") && !parses("{}") && !parses("{\"endpoints\": [\"unix:/x\"], \"secret\": \"00\"}"));
    CHECK(!parses("{\"endpoints\": [], \"secret\": \"" SECRET "\"}") && !parses("{\"a\": [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]}"));
}

static void text_is_cut_between_characters(void) {
    char field[6];
    p2pos_text_into(field, sizeof field, "abcd\xc3\xa4", 6);
    CHECK(strcmp(field, "abcd") == 0);
    p2pos_text_into(field, sizeof field, "a\0b", 3);
    CHECK(strcmp(field, "a b") == 0);
    p2pos_text_into(field, sizeof field, NULL, 0);
    CHECK(field[0] == '\0');
}

static void a_buffer_keeps_its_order_and_gives_memory_back(void) {
    struct p2pos_buffer buffer;
    uint8_t next = 0;
    uint8_t wanted = 0;
    memset(&buffer, 0, sizeof buffer);
    for (int round = 0; round < 2000; round++) {
        for (int i = 0; i < round % 37; i++, next++) {
            CHECK(p2pos_buffer_put(heap, &buffer, &next, 1));
        }
        size_t drop = p2pos_buffer_used(&buffer) < 17 ? p2pos_buffer_used(&buffer) : 17;
        for (size_t i = 0; i < drop; i++, wanted++) {
            CHECK(buffer.data[buffer.start + i] == wanted);
        }
        p2pos_buffer_drop(&buffer, drop);
    }
    p2pos_buffer_drop(&buffer, p2pos_buffer_used(&buffer));
    p2pos_buffer_shrink(heap, &buffer, 100);
    CHECK(buffer.data == NULL && !p2pos_buffer_reserve(heap, &buffer, SIZE_MAX - 10));
}

/* --- streams --- */

static struct p2pos_session session;

static void begin(void) {
    p2pos_session_init(&session, heap);
    session.phase = P2POS_PHASE_OPEN;
    session.window_in = session.window_out = 1000;
    session.data_max = 400;
}

static void hear(enum p2pos_body body, const void *message, uint32_t rid) {
    struct p2pos_buffer frame;
    memset(&frame, 0, sizeof frame);
    CHECK(p2pos_encode(heap, &frame, body, message, rid));
    for (size_t at = 0; at < frame.end;) {
        size_t room;
        uint8_t *target = p2pos_session_room(&session, &room);
        size_t count = frame.end - at < room ? frame.end - at : room;
        memcpy(target, frame.data + at, count);
        p2pos_session_received(&session, count, 0);
        at += count;
    }
    p2pos_buffer_free(heap, &frame);
}

static void hear_data(uint32_t id, const char *text, bool fin) {
    p2pos_pb_Data data = {id, p2pos_text(text), fin};
    hear(P2POS_BODY_DATA, &data, 0);
}

/* The body of the next frame that the session says, NONE if it says nothing. */
static struct p2pos_frame said;
static enum p2pos_body next_said(void) {
    struct p2pos_buffer *out = &session.out;
    size_t length;
    bool is_whole;
    if (p2pos_buffer_used(out) == 0) {
        return P2POS_BODY_NONE;
    }
    CHECK(p2pos_measure(out->data + out->start, p2pos_buffer_used(out), 1 << 20, &length, &is_whole) == 0 && is_whole);
    CHECK(p2pos_decode(out->data + out->start + 4, length, &said, NULL, NULL));
    p2pos_buffer_drop(out, 4 + length);
    return said.body;
}

static struct p2pos_entry *offered(uint32_t id, uint64_t kind) {
    p2pos_pb_Incoming incoming;
    memset(&incoming, 0, sizeof incoming);
    incoming.stream = id;
    incoming.peer = p2pos_text(PEER);
    incoming.protocol = p2pos_text("/echo/1");
    incoming.kind = kind;
    hear(P2POS_BODY_INCOMING, &incoming, id);
    return p2pos_session_find(&session, id);
}

static struct p2pos_entry *accepted(uint32_t id, uint64_t kind) {
    struct p2pos_entry *entry = offered(id, kind);
    p2pos_session_accept(&session, entry);
    CHECK(next_said() == P2POS_BODY_ACCEPT);
    return entry;
}

static struct p2pos_entry *opening(uint64_t *rid) {
    struct p2pos_entry *entry;
    p2pos_pb_Open open;
    memset(&open, 0, sizeof open);
    open.peer = p2pos_text(PEER);
    CHECK(p2pos_session_open(&session, &open, P2POS_KIND_STREAM, &entry) == 0);
    CHECK(next_said() == P2POS_BODY_OPEN);
    *rid = said.rid;
    return entry;
}

static p2pos_event next_event(void) {
    return p2pos_session_next_event(&session);
}

static void credit_is_given_at_half_the_window_and_not_before(void) {
    char text[401];
    char got[1000];
    size_t count;
    memset(text, 'x', 400);
    text[400] = '\0';
    begin();
    struct p2pos_entry *entry = accepted(2, 1);
    hear_data(2, text, false);
    hear_data(2, text, false);
    CHECK(p2pos_entry_read(heap, entry, got, 499, &count) == 0 && count == 499);
    p2pos_session_after_read(&session, entry);
    CHECK(next_said() == P2POS_BODY_NONE);
    CHECK(p2pos_entry_read(heap, entry, got, 1, &count) == 0 && count == 1);
    p2pos_session_after_read(&session, entry);
    CHECK(next_said() == P2POS_BODY_WINDOW && said.message.window.bytes == 500);
    hear_data(2, text, false);
    CHECK(session.ended == 0 && p2pos_buffer_used(&entry->input) == 700 && entry->allowance == 300);
    hear_data(2, text, false);
    CHECK(next_said() == P2POS_BODY_RESET && said.message.reset.code == P2POS_ERR_FLOW_CONTROL && session.ended == 0);
    p2pos_session_free(&session);
}

static void data_over_its_limit_ends_the_session(void) {
    char text[402];
    memset(text, 'x', 401);
    text[401] = '\0';
    begin();
    (void)accepted(2, 1);
    hear_data(2, text, false);
    CHECK(session.ended == P2POS_ERR_FRAME_TOO_LARGE && next_said() == P2POS_BODY_ERROR);
    p2pos_session_free(&session);
}

static void what_came_before_a_reset_is_read_and_then_its_code(void) {
    char got[10];
    size_t count;
    begin();
    struct p2pos_entry *entry = accepted(2, 1);
    hear_data(2, "last", false);
    p2pos_pb_Reset reset = {2, 400, 7};
    hear(P2POS_BODY_RESET, &reset, 0);
    CHECK(p2pos_entry_read(heap, entry, got, 10, &count) == 0 && count == 4);
    CHECK(p2pos_entry_read(heap, entry, got, 10, &count) == P2POS_ERR_APP && entry->end.app_code == 7);
    p2pos_session_free(&session);
}

static void a_direct_reader_gets_the_bytes_and_the_buffer_the_rest(void) {
    uint8_t got[3];
    begin();
    struct p2pos_entry *entry = accepted(2, 1);
    session.direct.entry = entry;
    session.direct.bytes = got;
    session.direct.size = sizeof got;
    hear_data(2, "ab", false);
    hear_data(2, "cde", false);
    CHECK(session.direct.got == 3 && memcmp(got, "abc", 3) == 0 && p2pos_buffer_used(&entry->input) == 2);
    p2pos_session_free(&session);
}

static void credit_over_16_mib_is_a_reset(void) {
    begin();
    (void)accepted(2, 1);
    p2pos_pb_Window window = {2, P2POS_CREDIT_BYTES_MAX - 1000};
    hear(P2POS_BODY_WINDOW, &window, 0);
    CHECK(next_said() == P2POS_BODY_NONE);
    window.bytes = 1;
    hear(P2POS_BODY_WINDOW, &window, 0);
    CHECK(next_said() == P2POS_BODY_RESET && said.message.reset.code == P2POS_ERR_FLOW_CONTROL);
    p2pos_session_free(&session);
}

static void an_open_that_fails_tells_why_and_a_given_up_one_is_reset(void) {
    uint64_t rid;
    begin();
    struct p2pos_entry *entry = opening(&rid);
    struct p2pos_view lines[] = {p2pos_text("/chat/1"), p2pos_text("/echo/1")};
    p2pos_pb_Error error;
    memset(&error, 0, sizeof error);
    error.code = 304;
    error.message = p2pos_text("bo serves something else");
    error.details.items = lines;
    error.details.count = 2;
    error.details.item_size = sizeof lines[0];
    error.retry_after_ms = 5;
    hear(P2POS_BODY_ERROR, &error, (uint32_t)rid);
    CHECK(entry->is_closed && entry->end.code == 304 && entry->problem != NULL);
    CHECK(strcmp(entry->problem->message, "bo serves something else") == 0 && entry->problem->retry_after_ms == 5);
    CHECK(strcmp(entry->problem->details, "/chat/1\n/echo/1") == 0 && entry->problem->hint[0] != '\0');
    p2pos_session_release(&session, entry);
    CHECK(session.entries == 0 && session.live == 0);
    entry = opening(&rid);
    p2pos_session_release(&session, entry);
    CHECK(next_said() == P2POS_BODY_CANCEL && said.message.cancel.target == rid);
    p2pos_pb_Opened opened;
    memset(&opened, 0, sizeof opened);
    opened.stream = 3;
    hear(P2POS_BODY_OPENED, &opened, (uint32_t)rid);
    CHECK(next_said() == P2POS_BODY_RESET && session.entries == 1);
    p2pos_pb_StreamClosed closed = {3, 2, 400, 0, 0, 0};
    hear(P2POS_BODY_STREAM_CLOSED, &closed, 0);
    CHECK(session.entries == 0 && session.ended == 0);
    p2pos_session_free(&session);
}

static void a_released_stream_ends_well_and_is_forgotten(void) {
    begin();
    struct p2pos_entry *entry = accepted(2, 1);
    hear_data(2, "unread", false);
    p2pos_session_release(&session, entry);
    CHECK(next_said() == P2POS_BODY_DATA && said.message.data.fin);
    CHECK(next_said() == P2POS_BODY_STOP_SENDING && next_said() == P2POS_BODY_NONE);
    hear_data(2, "on its way", false);
    p2pos_pb_StreamClosed closed = {2, 1, 0, 0, 0, 0};
    hear(P2POS_BODY_STREAM_CLOSED, &closed, 0);
    hear_data(2, "late", false);
    CHECK(session.entries == 0 && session.ended == 0);
    while (next_event().kind != P2POS_EVENT_NONE) {
    }
    p2pos_session_free(&session);
}

static void an_offer_that_is_withdrawn_vanishes(void) {
    begin();
    (void)offered(2, 1);
    CHECK(session.first_offer != NULL && next_event().kind == P2POS_EVENT_OFFER);
    p2pos_pb_StreamClosed closed = {2, 3, 207, 0, 0, 0};
    hear(P2POS_BODY_STREAM_CLOSED, &closed, 0);
    CHECK(session.first_offer == NULL && session.entries == 0 && next_event().kind == P2POS_EVENT_NONE);
    p2pos_session_free(&session);
}

static void more_streams_than_can_be_remembered_are_rejected(void) {
    begin();
    for (uint32_t i = 1; i <= P2POS_ENTRIES_MAX; i++) {
        (void)offered(2 * i, 1);
    }
    CHECK(session.entries == P2POS_ENTRIES_MAX && next_said() == P2POS_BODY_NONE);
    (void)offered(2 * P2POS_ENTRIES_MAX + 2, 1);
    CHECK(next_said() == P2POS_BODY_REJECT && said.message.reject.code == P2POS_ERR_NOT_READY && session.ended == 0);
    p2pos_session_free(&session);
}

static void changes_beyond_the_limit_are_counted(void) {
    begin();
    p2pos_pb_Event event;
    memset(&event, 0, sizeof event);
    event.kind = 1;
    event.peer = p2pos_text(PEER);
    for (uint32_t i = 0; i < P2POS_CHANGES_MAX + 5; i++) {
        hear(P2POS_BODY_EVENT, &event, 0);
    }
    CHECK(session.changes == P2POS_CHANGES_MAX && session.changes_missed == 5);
    p2pos_session_free(&session);
}

static void the_oldest_datagrams_go_first(void) {
    char text[1000];
    begin();
    struct p2pos_entry *flow = accepted(2, 2);
    for (int i = 0; i < 1000; i++) {
        snprintf(text, sizeof text, "%0900d", i);
        p2pos_pb_Datagram datagram = {2, p2pos_text(text)};
        hear(P2POS_BODY_DATAGRAM, &datagram, 0);
    }
    CHECK(flow->packets_in.bytes <= P2POS_DATAGRAM_QUEUE_BYTES_MAX && flow->packets_dropped == 1000 - 271);
    struct p2pos_packet *first = p2pos_entry_unqueue(&flow->packets_in);
    CHECK(first != NULL && memcmp(first->bytes + 897, "729", 3) == 0);
    p2pos_free(heap, first);
    p2pos_session_free(&session);
}

static void empty_datagrams_cannot_pile_up(void) {
    begin();
    struct p2pos_entry *flow = accepted(2, 2);
    p2pos_pb_Datagram datagram = {2, {NULL, 0}};
    for (int i = 0; i < 10000; i++) {
        hear(P2POS_BODY_DATAGRAM, &datagram, 0);
    }
    CHECK(flow->packets_dropped == 10000 - P2POS_DATAGRAM_QUEUE_BYTES_MAX / P2POS_DATAGRAM_OVERHEAD_BYTES);
    p2pos_session_free(&session);
}

static void silence_is_asked_about_and_then_the_end(void) {
    begin();
    CHECK(p2pos_session_deadline(&session) == 15000);
    p2pos_session_tick(&session, 14999);
    CHECK(next_said() == P2POS_BODY_NONE);
    p2pos_session_tick(&session, 15000);
    CHECK(next_said() == P2POS_BODY_PING && p2pos_session_deadline(&session) == 30000);
    p2pos_session_tick(&session, 30000);
    CHECK(next_said() == P2POS_BODY_PING && p2pos_session_deadline(&session) == 45000);
    p2pos_session_tick(&session, 45000);
    CHECK(session.ended == P2POS_ERR_SHUTTING_DOWN);
    p2pos_session_free(&session);
}

static void a_daemon_that_asks_and_does_not_read_is_left(void) {
    begin();
    p2pos_pb_Ping ping = {UINT64_MAX};
    for (uint32_t i = 0; i < 200000 && session.ended == 0; i++) {
        hear(P2POS_BODY_PING, &ping, UINT32_MAX);
    }
    CHECK(session.ended == P2POS_ERR_SLOW_CONSUMER && p2pos_buffer_used(&session.out) < P2POS_CONTROL_BYTES_MAX + 100);
    p2pos_session_free(&session);
}

static void events_come_once_and_the_end_again_and_again(void) {
    begin();
    struct p2pos_entry *entry = accepted(2, 1);
    while (next_event().kind != P2POS_EVENT_NONE) {
    }
    hear_data(2, "a", false);
    hear_data(2, "b", true);
    p2pos_event event = next_event();
    CHECK(event.kind == P2POS_EVENT_READABLE && event.stream.id == entry->id && next_event().kind == P2POS_EVENT_NONE);
    p2pos_session_eof(&session);
    CHECK(next_event().kind == P2POS_EVENT_READABLE && next_event().kind == P2POS_EVENT_CLOSED);
    CHECK(next_event().kind == P2POS_EVENT_ENDED && next_event().code == P2POS_ERR_SHUTTING_DOWN);
    p2pos_session_free(&session);
}

static void every_code_has_a_name_and_an_unknown_one_its_hundred(void) {
    CHECK(strcmp(p2pos_error_name(304), "PROTOCOL_NOT_SUPPORTED") == 0 && strcmp(p2pos_error_name(999), "UNKNOWN_CODE") == 0);
    CHECK(strcmp(p2pos_error_text(399), "the peer could not be reached") == 0 && p2pos_error_hint(999)[0] == '\0');
}

int main(void) {
    RUN(sha256_has_the_known_answers);
    RUN(hmac_has_the_known_answers);
    RUN(protocol_names_follow_their_rules);
    RUN(a_peer_id_with_a_typo_is_found);
    RUN(an_endpoint_file_is_read_and_a_broken_one_is_not);
    RUN(text_is_cut_between_characters);
    RUN(a_buffer_keeps_its_order_and_gives_memory_back);
    RUN(credit_is_given_at_half_the_window_and_not_before);
    RUN(data_over_its_limit_ends_the_session);
    RUN(what_came_before_a_reset_is_read_and_then_its_code);
    RUN(a_direct_reader_gets_the_bytes_and_the_buffer_the_rest);
    RUN(credit_over_16_mib_is_a_reset);
    RUN(an_open_that_fails_tells_why_and_a_given_up_one_is_reset);
    RUN(a_released_stream_ends_well_and_is_forgotten);
    RUN(an_offer_that_is_withdrawn_vanishes);
    RUN(more_streams_than_can_be_remembered_are_rejected);
    RUN(changes_beyond_the_limit_are_counted);
    RUN(the_oldest_datagrams_go_first);
    RUN(empty_datagrams_cannot_pile_up);
    RUN(silence_is_asked_about_and_then_the_end);
    RUN(a_daemon_that_asks_and_does_not_read_is_left);
    RUN(events_come_once_and_the_end_again_and_again);
    RUN(every_code_has_a_name_and_an_unknown_one_its_hundred);
    return check_failures == 0 ? 0 : 1;
}
