//! N8, N10: Retry that cannot be forged, ports that change, and daemons that come back from a kill -9.

use std::time::Duration;

use noq_proto::{ConnectionError, ConnectionId, PathId};

use super::{
    craft::{Gibberish, bo, cids},
    world::{Conn, Fate, Greeting, Sent, World, address},
};
use crate::{QUIC_VERSION, initial::InitialSecret, packet::PacketLimits, retry::RetryKey};

#[test]
fn a_caller_who_proves_his_address_by_retry_connects() {
    let mut world = World::pair();
    world.nodes[1].greeting = Greeting::RetryFirst;
    let (initiator, responder) = world.connect();
    world.assert_talks(initiator, responder);
    assert_eq!(world.nodes[1].attempts, 2);
    assert_eq!(world.log.iter().filter(|sent| is_retry(sent)).count(), 1);
}

#[test]
fn a_retry_forged_by_someone_who_does_not_know_the_called_one_is_ignored() {
    let mut world = World::pair();
    let initiator = world.dial(0, 1);
    world.settle();
    let first = world.log[0].bytes.clone();
    let stranger = RetryKey::of(&InitialSecret::of_responder(&[3; 32], PacketLimits::default()));
    for forged in [retry(&first, &stranger, &[9; 8]), {
        let mut zero_tag = retry(&first, &stranger, &[9; 8]);
        let tag_at = zero_tag.len() - 16;
        zero_tag[tag_at..].fill(0);
        zero_tag
    }] {
        world.inject(world.nodes[1].addr, world.nodes[0].addr, forged);
    }
    assert!(world.run_until(|world| world.is_connected(0, initiator)));
    assert!(
        world.log.iter().filter(|sent| sent.from == world.nodes[0].addr).all(|sent| token_len(sent) == 0)
    );
}

#[test]
fn a_retry_forged_by_someone_who_knows_the_called_one_is_found_out() {
    // A contact of Bo's on the path can make a valid Retry. It only costs the dial: the ids are in the encrypted
    // parameters (RFC 9000 s7.3), where Bo does not confirm that he sent one.
    let mut world = World::pair();
    let initiator = world.dial(0, 1);
    world.settle();
    let first = world.log[0].bytes.clone();
    let contact =
        RetryKey::of(&InitialSecret::of_responder(&bo().peer_id().x25519_public(), PacketLimits::default()));
    world.inject(world.nodes[1].addr, world.nodes[0].addr, retry(&first, &contact, &[9; 8]));
    world.run_for(Duration::from_secs(40));
    assert!(!world.is_connected(0, initiator));
    assert!(matches!(world.conn(0, initiator).lost(), Some(ConnectionError::TransportError(_))));
    assert!(!world.nodes[1].conns.values().any(Conn::is_connected));
}

#[test]
fn a_second_retry_is_ignored() {
    let mut world = World::pair();
    world.nodes[1].greeting = Greeting::RetryFirst;
    // The Retry comes twice: the second time after the caller has obeyed the first.
    world.fate = Box::new(|sent| if is_retry(sent) { Fate::Twice } else { Fate::Deliver });
    let (initiator, responder) = world.connect();
    world.assert_talks(initiator, responder);
    let with_token = world.log.iter().filter(|sent| token_len(sent) > 0).count();
    assert!(with_token >= 1);
    assert_eq!(world.nodes[1].attempts, 2);
}

#[test]
fn a_retry_token_used_from_another_ip_gives_no_connection() {
    let mut world = World::pair();
    world.nodes[1].greeting = Greeting::RetryFirst;
    let _initiator = world.dial(0, 1);
    assert!(world.run_until(|world| world.log.iter().any(|sent| token_len(sent) > 0)));
    let with_token = world.log.iter().find(|sent| token_len(sent) > 0).unwrap().clone();
    // A second world, so that the token's own connection does not exist there; the same identity honours it.
    let mut elsewhere = World::pair();
    let (thief, called) = (address(9, 4000), elsewhere.nodes[1].addr);
    elsewhere.inject(thief, called, with_token.bytes.clone());
    elsewhere.run_for(Duration::from_secs(10));
    assert!(elsewhere.nodes[1].conns.is_empty());
    assert_eq!(elsewhere.nodes[1].attempts, 0);
    assert!(
        elsewhere.bytes_between(called, thief) < with_token.bytes.len(),
        "an answer larger than the question"
    );
    // From the right address it is honoured, even by a daemon that was restarted in between.
    elsewhere.inject(with_token.from, called, with_token.bytes);
    elsewhere.settle();
    assert_eq!(elsewhere.nodes[1].attempts, 1);
    assert_eq!(elsewhere.nodes[1].conns.len(), 1);
}

#[test]
fn a_connection_survives_the_callers_move_to_a_new_port_and_to_a_new_host() {
    let mut world = World::pair();
    let (initiator, responder) = world.connect();
    world.assert_talks(initiator, responder);
    for moved in [address(1, 4001), address(1, 4002), address(11, 4000)] {
        world.nodes[0].addr = moved;
        world.assert_talks(initiator, responder);
        world.run_for(Duration::from_secs(1));
        let path = world.conn(1, responder).quic.network_path(PathId::ZERO).unwrap();
        assert_eq!(path.remote(), moved);
    }
    assert_eq!(world.nodes[1].attempts, 1);
}

#[test]
fn a_peer_learns_of_a_kill_and_restart_and_is_back_within_three_seconds() {
    for killed in [1, 0] {
        let mut world = World::pair();
        let (initiator, responder) = world.connect();
        world.assert_talks(initiator, responder);
        world.run_for(Duration::from_secs(2));
        let (survivor, handle) = if killed == 1 { (0, initiator) } else { (1, responder) };
        world.nodes[killed].kill_and_restart();
        let start = world.now;

        world.say(survivor, handle, b"are you there?");
        assert!(
            world.run_until(|world| world.nodes[survivor].conns.values().any(|conn| conn.lost().is_some()))
        );
        assert!(matches!(world.conn(survivor, handle).lost(), Some(ConnectionError::Reset)));
        let again = world.dial(survivor, killed);
        assert!(world.run_until(|world| world.is_connected(survivor, again)));
        assert!(world.now - start < Duration::from_secs(3), "{:?}", world.now - start);
    }
}

#[test]
fn a_reset_that_the_peer_did_not_make_ends_nothing() {
    let mut random = Gibberish(0x5eed);
    let mut world = World::pair();
    let (initiator, responder) = world.connect();
    let (ours, theirs) = (world.nodes[0].addr, world.nodes[1].addr);
    let stranger = crate::reset_key(&super::craft::mallory());
    for _ in 0..1_000 {
        let len = 40 + random.below(60);
        let mut forged = random.bytes(len);
        forged[0] = forged[0] & 0x3f | 0x40;
        // A token as another identity would make it, for an id that was in use.
        let mut signature = vec![0; stranger.signature_len()];
        stranger.sign(&world.log[2].bytes[1..9], &mut signature);
        let token_at = len - 16;
        forged[token_at..].copy_from_slice(&signature[..16]);
        world.inject(theirs, ours, forged);
    }
    world.settle();
    assert!(world.conn(0, initiator).lost().is_none());
    world.assert_talks(initiator, responder);
}

#[test]
fn only_ids_of_our_own_making_are_answered_with_a_reset() {
    let mut world = World::pair();
    let (initiator, responder) = world.connect();
    world.assert_talks(initiator, responder);
    let real = world.log.iter().rfind(|sent| sent.from == world.nodes[0].addr).unwrap().clone();
    world.nodes[1].kill_and_restart();
    let before = world.log.len();
    for bit in 8..72 {
        let mut altered = real.bytes.clone();
        altered.resize(100, 0);
        altered[bit / 8] ^= 1 << (bit % 8);
        world.inject(address(9, 999), world.nodes[1].addr, altered);
    }
    world.settle();
    assert_eq!(world.log.len(), before, "an id that we did not make was answered");
    let mut whole = real.bytes;
    whole.resize(100, 0);
    world.inject(address(9, 999), world.nodes[1].addr, whole);
    world.settle();
    assert_eq!(world.log.len(), before + 1, "an id that we made was not answered");
}

fn is_retry(sent: &Sent) -> bool {
    sent.bytes[0] & 0xf0 == 0xf0
}

/// The length of the token in an Initial, if it is one; ours have less than 16 kB.
fn token_len(sent: &Sent) -> usize {
    if sent.bytes[0] & 0xf0 != 0xc0 {
        return 0;
    }
    let (dst, src) = cids(&sent.bytes);
    let at = 1 + 4 + 1 + dst.len() + 1 + src.len();
    match sent.bytes[at] >> 6 {
        0 => usize::from(sent.bytes[at]),
        _ => usize::from(sent.bytes[at] & 0x3f) << 8 | usize::from(sent.bytes[at + 1]),
    }
}

/// A Retry in answer to an Initial, tagged by whoever holds `key`.
fn retry(initial: &[u8], key: &RetryKey, new_id: &[u8]) -> Vec<u8> {
    let (original, caller) = cids(initial);
    let mut packet = vec![0xf0];
    packet.extend_from_slice(&QUIC_VERSION.to_be_bytes());
    for cid in [caller, new_id] {
        packet.push(u8::try_from(cid.len()).unwrap());
        packet.extend_from_slice(cid);
    }
    packet.extend_from_slice(&[7; 60]);
    let tag = key.tag(&ConnectionId::new(original), &[&packet]);
    packet.extend_from_slice(&tag);
    packet
}
