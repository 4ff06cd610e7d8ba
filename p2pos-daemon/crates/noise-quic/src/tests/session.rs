//! N17, N18, N20 and the order of the steps: what a session does with bytes, without packets around them.

use noq_proto::{TransportError, TransportErrorCode, crypto::Session};

use super::craft::{
    Gibberish, ana, bo, called, calling, framed, hello, mallory, message_1, message_1_of_low_order,
    message_2, message_2_of_low_order, plain_params, take,
};
use crate::{
    error::HandshakeFailure,
    handshake::{MESSAGE_BYTES_MAX, Tuning},
    suite::{self, Suite},
};

/// Encodings of X25519 points with which every agreed secret is zero (RFC 7748 s6.1, libsodium's list), and the same
/// with the top bit, which X25519 ignores.
const LOW_ORDER_X25519: [&str; 7] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

/// Ed25519 encodings that are no fit PeerId: small order, not canonical, not a point.
const BAD_PEER_IDS: [&str; 10] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0200000000000000000000000000000000000000000000000000000000000000",
];

#[test]
fn messages_that_arrive_byte_by_byte_are_understood() {
    let (mut ours, mut theirs) = sessions();
    let flight = take(&mut *ours);
    feed_bytes(&mut *theirs, &flight);
    let reply = take(&mut *theirs);
    let confirmation = take(&mut *theirs);
    feed_bytes(&mut *ours, &reply);
    assert!(take(&mut *ours).is_empty(), "keys come first, and no bytes with them");
    feed_bytes(&mut *ours, &confirmation);
    let confirmation = take(&mut *ours);
    assert!(!ours.is_handshaking() && theirs.is_handshaking());
    assert!(theirs.peer_identity().is_none(), "not proven yet");
    feed_bytes(&mut *theirs, &confirmation);
    assert!(!theirs.is_handshaking());
    assert!(theirs.peer_identity().is_some());
}

#[test]
fn a_point_that_is_no_fit_peer_id_cannot_be_claimed() {
    for text in BAD_PEER_IDS {
        let first = claim(&bytes_of_hex(text));
        assert_eq!(refusal(called(Tuning::default()), &first), HandshakeFailure::Identity, "{text}");
    }
    // An honest key plus a point of small order: agrees on the same secrets as the honest key.
    let honest =
        curve25519_dalek::edwards::CompressedEdwardsY(*ana().peer_id().as_bytes()).decompress().unwrap();
    for torsion in &curve25519_dalek::constants::EIGHT_TORSION[1..] {
        let first = claim(&(honest + torsion).compress().0);
        assert_eq!(refusal(called(Tuning::default()), &first), HandshakeFailure::Identity);
    }
}

#[test]
fn nobody_can_claim_a_peer_id_whose_secret_they_do_not_hold() {
    let payload = hello(ana().peer_id().as_bytes(), &[1, 2], &[]);
    let first = message_1(&mallory().x25519_secret(), &bo().peer_id(), &payload);
    assert_eq!(refusal(called(Tuning::default()), &first), HandshakeFailure::Identity);
}

#[test]
fn an_ephemeral_key_of_low_order_fails_the_handshake_in_both_roles() {
    for text in LOW_ORDER_X25519 {
        for top_bit in [0, 0x80] {
            let mut point = bytes_of_hex(text);
            point[31] |= top_bit;
            // Made consistently, so that everything but the zero agreement is right.
            let first = message_1_of_low_order(point);
            assert_eq!(refusal(called(Tuning::default()), &first), HandshakeFailure::Undecryptable, "{text}");

            let mut ours = calling(&bo().peer_id(), Tuning::default());
            let reply = message_2_of_low_order(&take(&mut *ours), point);
            assert_eq!(refusal(ours, &reply), HandshakeFailure::Undecryptable, "{text}");
        }
    }
}

#[test]
fn an_agreement_that_comes_out_zero_is_an_error_and_an_honest_one_is_not() {
    use snow::{params::DHChoice, resolvers::CryptoResolver};
    let resolver = crate::resolver::Resolver::new(crate::resolver::Entropy::System);
    let mut pair = resolver.resolve_dh(&DHChoice::Curve25519).unwrap();
    pair.set(&ana().x25519_secret()[..]);
    let mut shared = [0; 32];
    for text in LOW_ORDER_X25519 {
        assert!(pair.dh(&bytes_of_hex(text), &mut shared).is_err(), "{text}");
    }
    assert!(pair.dh(&bo().peer_id().x25519_public(), &mut shared).is_ok());
    assert_ne!(shared, [0; 32]);
}

#[test]
fn the_responder_cannot_choose_a_cipher_that_was_not_offered() {
    const PLAIN: &[Suite] = &[Suite::ChaCha20Poly1305];
    for choice in [0, 1, 3, 255] {
        let mut ours = calling(&bo().peer_id(), Tuning { suites: PLAIN, ..Tuning::default() });
        let first = take(&mut *ours);
        assert_eq!(refusal(ours, &message_2(&first, &[choice])), HandshakeFailure::Suite);
    }
}

#[test]
fn an_offer_without_a_common_cipher_or_with_too_many_is_refused() {
    let offer = |suites: &[u8]| {
        let payload = hello(ana().peer_id().as_bytes(), suites, &[]);
        refusal(called(Tuning::default()), &message_1(&ana().x25519_secret(), &bo().peer_id(), &payload))
    };
    assert_eq!(offer(&[]), HandshakeFailure::Suite);
    assert_eq!(offer(&[9, 10]), HandshakeFailure::Suite);
    assert_eq!(offer(&[2; 9]), HandshakeFailure::Payload);
}

#[test]
fn no_truncated_payload_gets_through_or_panics() {
    let mut whole = hello(ana().peer_id().as_bytes(), &[1, 2], &[]);
    plain_params().write(&mut whole);
    whole.extend_from_slice(&[0x01, 0x02, 0x67]); // max_idle_timeout, cut off
    for len in 0..=whole.len() {
        let first = message_1(&ana().x25519_secret(), &bo().peer_id(), &whole[..len]);
        let is_complete = len == 35 || len == 35 + params_len();
        assert_eq!(called(Tuning::default()).read_handshake(&first).is_ok(), is_complete, "{len}");
    }
    let mut ours = calling(&bo().peer_id(), Tuning::default());
    let first = take(&mut *ours);
    assert_eq!(refusal(ours, &message_2(&first, &[])), HandshakeFailure::Payload);
}

#[test]
fn any_flipped_bit_in_either_message_fails_the_handshake() {
    let mut ours = calling(&bo().peer_id(), Tuning::default());
    let first = take(&mut *ours);
    // Also the top bit of the ephemeral key, which X25519 ignores: Noise hashes it.
    for bit in 16..first.len() * 8 {
        let mut forged = first.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(refusal(called(Tuning::default()), &forged), HandshakeFailure::Undecryptable, "bit {bit}");
    }
    for bit in 16..200 * 8 {
        let mut ours = calling(&bo().peer_id(), Tuning::default());
        let mut reply = message_2(&take(&mut *ours), &[2; 150]);
        reply[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(refusal(ours, &reply), HandshakeFailure::Undecryptable, "bit {bit}");
    }
}

#[test]
fn a_length_that_no_message_has_is_refused_at_once() {
    for length in [MESSAGE_BYTES_MAX + 1, 0x4000, 0xffff] {
        let prefix = u16::try_from(length).unwrap().to_be_bytes();
        assert_eq!(refusal(called(Tuning::default()), &prefix), HandshakeFailure::Length);
    }
    assert_eq!(refusal(called(Tuning::default()), &[0; 2 + MESSAGE_BYTES_MAX + 1]), HandshakeFailure::Length);
    assert_eq!(refusal(called(Tuning::default()), &[0, 0]), HandshakeFailure::Undecryptable);
    assert!(called(Tuning::default()).read_handshake(&framed(&[0; MESSAGE_BYTES_MAX])[..1000]).is_ok());
}

#[test]
fn bytes_out_of_turn_fail_the_session_for_good() {
    // More than message 1.
    let mut first = take(&mut *calling(&bo().peer_id(), Tuning::default()));
    first.push(0);
    assert_eq!(refusal(called(Tuning::default()), &first), HandshakeFailure::OutOfTurn);

    // Before our own message was sent, and a second message before the first was answered.
    assert_eq!(refusal(calling(&bo().peer_id(), Tuning::default()), &[0]), HandshakeFailure::OutOfTurn);
    let (mut ours, mut theirs) = sessions();
    theirs.read_handshake(&take(&mut *ours)).unwrap();
    assert_eq!(failure(theirs.read_handshake(&[0]).unwrap_err()), HandshakeFailure::OutOfTurn);
    assert!(take(&mut *theirs).is_empty(), "a failed session says nothing more");
    assert!(theirs.is_handshaking());

    // After the handshake.
    let (mut ours, mut theirs) = established();
    for session in [&mut ours, &mut theirs] {
        assert_eq!(failure(session.read_handshake(&[0]).unwrap_err()), HandshakeFailure::OutOfTurn);
        assert!(session.peer_identity().is_none(), "a failed session vouches for nobody");
    }
}

#[test]
fn a_wrong_or_too_long_confirmation_is_refused_by_both_sides() {
    for spoil in [
        |confirmation: &mut Vec<u8>| confirmation[31] ^= 1,
        |confirmation: &mut Vec<u8>| confirmation[0] ^= 0x80,
        |confirmation: &mut Vec<u8>| confirmation.push(0),
    ] {
        let (mut ours, mut theirs) = sessions();
        theirs.read_handshake(&take(&mut *ours)).unwrap();
        ours.read_handshake(&take(&mut *theirs)).unwrap();
        let (mut from_bo, _no_bytes) = (take(&mut *theirs), take(&mut *ours));
        spoil(&mut from_bo);
        assert!(ours.read_handshake(&from_bo).is_err());
        assert!(ours.is_handshaking());
        // The initiator's own bytes back at it, as the responder's: the directions differ.
        assert!(theirs.read_handshake(&from_bo).is_err());
        assert!(theirs.peer_identity().is_none());
    }
}

#[test]
fn every_failure_looks_the_same_to_the_peer() {
    let mut first = take(&mut *calling(&bo().peer_id(), Tuning::default()));
    let claimed = claim(&[0; 32]);
    first[60] ^= 1;
    for bytes in [&first[..], &claimed, &[0xff, 0xff]] {
        let error = called(Tuning::default()).read_handshake(bytes).unwrap_err();
        assert_eq!(error.code, TransportErrorCode::crypto(40));
        assert_eq!(error.reason, "");
    }
}

#[test]
fn gibberish_never_panics_a_session_in_any_step() {
    let mut random = Gibberish(0xabcd);
    for round in 0..3_000 {
        let (mut ours, mut theirs) = sessions();
        let first = take(&mut *ours);
        if round % 3 == 1 {
            theirs.read_handshake(&first).unwrap();
            let _reply = take(&mut *theirs);
            let _confirmation = take(&mut *theirs);
        }
        let victim = if round % 3 == 2 { &mut ours } else { &mut theirs };
        for _ in 0..4 {
            let len = random.below(400);
            let mut bytes = random.bytes(len);
            if random.below(2) == 0 && len >= 2 {
                bytes[..2].copy_from_slice(&u16::try_from(len - 2).unwrap().to_be_bytes());
            }
            let _outcome = victim.read_handshake(&bytes).is_ok();
        }
        assert!(victim.peer_identity().is_none());
    }
}

#[test]
fn there_are_no_early_keys_and_no_handshake_data_on_either_side() {
    let (ours, theirs) = established();
    for session in [&ours, &theirs] {
        assert!(session.early_crypto().is_none());
        assert!(session.handshake_data().is_none());
        assert!(session.early_data_accepted() != Some(true));
    }
}

#[test]
fn keys_are_exported_only_once_the_peer_is_proven() {
    let (mut ours, mut theirs) = sessions();
    theirs.read_handshake(&take(&mut *ours)).unwrap();
    for session in [&ours, &theirs] {
        assert!(session.export_keying_material(&mut [0; 32], b"label", b"").is_err());
    }
    let (ours, theirs) = established();
    let (mut one, mut other) = ([0; 32], [0; 32]);
    ours.export_keying_material(&mut one, b"label", b"").unwrap();
    theirs.export_keying_material(&mut other, b"label", b"").unwrap();
    assert_eq!(one, other);
    assert!(ours.export_keying_material(&mut [0; 8_161], b"label", b"").is_err());
}

#[test]
fn this_machine_always_has_a_cipher_to_offer() {
    assert_eq!(suite::of_this_machine().last(), Some(&Suite::ChaCha20Poly1305));
}

fn sessions() -> (Box<dyn Session>, Box<dyn Session>) {
    (calling(&bo().peer_id(), Tuning::default()), called(Tuning::default()))
}

fn established() -> (Box<dyn Session>, Box<dyn Session>) {
    let (mut ours, mut theirs) = sessions();
    theirs.read_handshake(&take(&mut *ours)).unwrap();
    ours.read_handshake(&take(&mut *theirs)).unwrap();
    let (from_bo, _no_bytes) = (take(&mut *theirs), take(&mut *ours));
    ours.read_handshake(&from_bo).unwrap();
    theirs.read_handshake(&take(&mut *ours)).unwrap();
    (ours, theirs)
}

/// A message 1 of Ana's that claims to be somebody else's.
fn claim(peer_id: &[u8; 32]) -> Vec<u8> {
    message_1(&ana().x25519_secret(), &bo().peer_id(), &hello(peer_id, &[1, 2], &[]))
}

fn feed_bytes(session: &mut dyn Session, bytes: &[u8]) {
    for byte in bytes {
        assert!(!session.read_handshake(&[*byte]).unwrap());
    }
}

fn refusal(mut session: Box<dyn Session>, bytes: &[u8]) -> HandshakeFailure {
    failure(session.read_handshake(bytes).unwrap_err())
}

fn failure(error: TransportError) -> HandshakeFailure {
    *error.crypto.unwrap().downcast_ref().unwrap()
}

fn params_len() -> usize {
    let mut bytes = Vec::new();
    plain_params().write(&mut bytes);
    bytes.len()
}

fn bytes_of_hex(text: &str) -> [u8; 32] {
    std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
}
