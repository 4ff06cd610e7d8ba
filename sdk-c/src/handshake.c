/* The plugin's side of the handshake (SPEC.md section 2): says Hello, proves the secret if asked, and waits for Welcome.
 *
 * Pure: randomness and secrets come from the caller, so that the vectors can fix them. */
#include <stdio.h>
#include <string.h>

#include "session.h"
#include "sha256.h"

#define PROTOCOL_VERSION 1u
#define CREDIT_BYTES_DEFAULT (256u * 1024u)
/* What a Data frame has beside its payload, at most, in bytes. */
#define DATA_FRAME_BYTES_EXTRA 32u

void p2pos_proof(const uint8_t secret[32], const char *who, const uint8_t client_nonce[32], const uint8_t server_nonce[32],
                 uint8_t proof[32]) {
    struct p2pos_hmac hmac;
    p2pos_hmac_begin(&hmac, secret, P2POS_NONCE_BYTES);
    p2pos_hmac_add(&hmac, who, strlen(who));
    p2pos_hmac_add(&hmac, client_nonce, P2POS_NONCE_BYTES);
    p2pos_hmac_add(&hmac, server_nonce, P2POS_NONCE_BYTES);
    p2pos_hmac_end(&hmac, proof);
}

bool p2pos_session_hello(struct p2pos_session *session, const char *token, const uint8_t *secret, const uint8_t *nonce,
                         const char *program, uint32_t frame_bytes_max, uint32_t stream_window_bytes) {
    p2pos_pb_Hello hello;
    char sdk[128];
    memset(&hello, 0, sizeof hello);
    snprintf(sdk, sizeof sdk, "sdk-c %s%s%s", P2POS_VERSION_TEXT, program[0] == '\0' ? "" : ", ", program);
    hello.magic = p2pos_text("p2pOS");
    hello.min_version = hello.max_version = PROTOCOL_VERSION;
    hello.sdk = p2pos_text(sdk);
    if (secret == NULL) {
        hello.which_auth = p2pos_pb_Hello_launch_token_tag;
        hello.auth.launch_token = p2pos_text(token);
    } else {
        memcpy(session->secret, secret, P2POS_NONCE_BYTES);
        memcpy(session->client_nonce, nonce, P2POS_NONCE_BYTES);
        session->has_secret = true;
        hello.which_auth = p2pos_pb_Hello_client_nonce_tag;
        hello.auth.client_nonce.data = session->client_nonce;
        hello.auth.client_nonce.size = P2POS_NONCE_BYTES;
    }
    hello.frame_bytes_max = frame_bytes_max;
    hello.stream_window_bytes = stream_window_bytes;
    session->frame_in_max = frame_bytes_max != 0 ? frame_bytes_max : P2POS_FRAME_BYTES_MAX;
    session->window_in = stream_window_bytes != 0 ? stream_window_bytes : CREDIT_BYTES_DEFAULT;
    session->rid = 1;
    return p2pos_session_say(session, P2POS_BODY_HELLO, &hello, 1);
}

static void on_challenge(struct p2pos_session *session, const p2pos_pb_Challenge *challenge) {
    uint8_t server_proof[P2POS_SHA256_BYTES];
    uint8_t client_proof[P2POS_SHA256_BYTES];
    bool is_good = false;
    if (challenge->server_nonce.size == P2POS_NONCE_BYTES && challenge->server_proof.size == P2POS_SHA256_BYTES) {
        p2pos_proof(session->secret, "p2pOS daemon v1", session->client_nonce, challenge->server_nonce.data, server_proof);
        is_good = p2pos_is_equal(server_proof, challenge->server_proof.data, sizeof server_proof);
    }
    if (!is_good) {
        /* Whoever sits on this port does not know the secret: tell it nothing. */
        p2pos_session_fail(session, P2POS_ERR_AUTH, "the daemon did not prove that it knows the secret");
        return;
    }
    p2pos_proof(session->secret, "p2pOS plugin v1", session->client_nonce, challenge->server_nonce.data, client_proof);
    p2pos_wipe(session->secret, sizeof session->secret);
    p2pos_pb_AuthProof proof = {{client_proof, sizeof client_proof}};
    session->rid = 2;
    session->phase = P2POS_PHASE_CHALLENGED;
    p2pos_session_say(session, P2POS_BODY_AUTH_PROOF, &proof, session->rid);
}

static void keep_grant(void *context, const void *item) {
    static const uint8_t end = 0;
    struct p2pos_session *session = context;
    const struct p2pos_view *grant = item;
    if (!p2pos_buffer_put(session->allocator, &session->grants, grant->data, grant->size) ||
        !p2pos_buffer_put(session->allocator, &session->grants, &end, 1)) {
        p2pos_session_fail(session, P2POS_ERR_MEMORY, "no memory for the grants");
    }
}

static void collect_grants(void *context, struct p2pos_frame *frame) {
    struct p2pos_session *session = context;
    if (frame->body == P2POS_BODY_WELCOME) {
        p2pos_buffer_drop(&session->grants, p2pos_buffer_used(&session->grants));
        frame->message.welcome.grants.each = keep_grant;
        frame->message.welcome.grants.context = session;
    }
}

/* A limit of Welcome: its default if it is 0, and never more than what every frame can carry. */
static uint32_t limit(uint64_t told, uint32_t by_default, uint32_t most) {
    uint32_t value = (uint32_t)told == 0 ? by_default : (uint32_t)told;
    return value < most ? value : most;
}

static void on_welcome(struct p2pos_session *session, const p2pos_pb_Welcome *welcome) {
    const p2pos_pb_Limits *limits = &welcome->limits;
    if ((uint32_t)welcome->version != PROTOCOL_VERSION) {
        p2pos_session_fail(session, P2POS_ERR_VERSION, "the daemon chose version %u [S-HELLO-2]", (unsigned)welcome->version);
        return;
    }
    if (welcome->peer_id.size >= sizeof session->peer_id) {
        p2pos_session_fail(session, P2POS_ERR_PROTOCOL, "Welcome with a PeerId of %zu bytes", welcome->peer_id.size);
        return;
    }
    session->plugin_id = p2pos_copy_text(session->allocator, welcome->plugin_id.data, welcome->plugin_id.size);
    if (session->plugin_id == NULL) {
        p2pos_session_fail(session, P2POS_ERR_MEMORY, "no memory for Welcome");
        return;
    }
    p2pos_text_into(session->peer_id, sizeof session->peer_id, welcome->peer_id.data, welcome->peer_id.size);
    session->frame_out_max = limit(limits->frame_bytes_max, P2POS_FRAME_BYTES_MAX, P2POS_FRAME_BYTES_HARD_MAX);
    uint32_t smaller = session->frame_out_max < session->frame_in_max ? session->frame_out_max : session->frame_in_max;
    uint32_t payload_max = smaller > 2 * DATA_FRAME_BYTES_EXTRA ? smaller - DATA_FRAME_BYTES_EXTRA : DATA_FRAME_BYTES_EXTRA;
    session->data_max = limit(limits->data_bytes_max, 65536, payload_max);
    session->window_out = limit(limits->stream_window_bytes, CREDIT_BYTES_DEFAULT, P2POS_CREDIT_BYTES_MAX);
    session->streams_max = limit(limits->streams_max, 256, P2POS_ENTRIES_MAX);
    session->protocols_max = limit(limits->protocols_max, 64, 65536);
    session->log_line_max = limit(limits->log_line_bytes_max, 65536, payload_max);
    session->phase = P2POS_PHASE_OPEN;
}

static void on_refused(struct p2pos_session *session, const p2pos_pb_Refused *refused) {
    p2pos_problem problem;
    p2pos_problem_read(&problem, refused->code, refused->message, refused->hint, 0);
    p2pos_session_end(session, &problem);
}

void p2pos_session_greet(struct p2pos_session *session, const uint8_t *bytes, size_t size) {
    struct p2pos_frame frame;
    bool is_proven = !session->has_secret || session->phase == P2POS_PHASE_CHALLENGED;
    if (!p2pos_decode(bytes, size, &frame, collect_grants, session)) {
        p2pos_session_fail(session, P2POS_ERR_PROTOCOL, "a frame that is no message [S-MSG-4]");
    } else if (session->ended != 0 || frame.body == P2POS_BODY_NONE) {
        return;
    } else if (frame.body == P2POS_BODY_CHALLENGE && !is_proven) {
        on_challenge(session, &frame.message.challenge);
    } else if (frame.body == P2POS_BODY_WELCOME && is_proven) {
        on_welcome(session, &frame.message.welcome);
    } else if (frame.body == P2POS_BODY_REFUSED) {
        on_refused(session, &frame.message.refused);
    } else {
        p2pos_session_fail(session, P2POS_ERR_PROTOCOL, "%s came before Welcome [S-HELLO-1]", p2pos_body_name(frame.body));
    }
}
