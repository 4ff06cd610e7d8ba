//! N14, N15, N16: what a caller says is worth nothing until it is proven, and who calls is for the called one only.

use std::time::Duration;

use noq_proto::{ConnectionId, PathId, Side};

use super::{
    craft::{
        ana, bo, cids, crypto_frame, initial_datagram, initial_keys, message_1_of_a_key_thief, plain_params,
    },
    world::{ONE_WAY, World, address},
};
use crate::header::packet_number_bytes;

#[test]
fn a_replayed_message_1_from_another_address_raises_no_event_and_names_no_peer() {
    // The first connection is over and forgotten when the recorded datagram comes again, from elsewhere.
    let mut world = World::pair();
    let (initiator, responder) = world.connect();
    let recorded = world.log[0].bytes.clone();
    world.close(0, initiator);
    world.run_for(Duration::from_secs(5));
    assert!(world.conn(1, responder).quic.is_drained());
    world.nodes[1].kill_and_restart();

    let (replayer, called) = (address(9, 999), world.nodes[1].addr);
    world.inject(replayer, called, recorded.clone());
    world.run_for(ONE_WAY);
    let half_open = world.only_conn(1).expect("noq holds the attempt");
    world.run_for(Duration::from_secs(25));
    assert!(world.conn(1, half_open).events.is_empty());
    assert_eq!(world.conn(1, half_open).peer(), None);
    assert!(world.bytes_between(called, replayer) <= 3 * recorded.len());
    world.run_for(Duration::from_secs(20));
    assert!(!world.conn(1, half_open).is_connected());
    assert!(world.conn(1, half_open).lost().is_some(), "the attempt is kept for ever");
    assert!(world.bytes_between(called, replayer) <= 3 * recorded.len());
}

#[test]
fn a_message_1_replayed_into_a_living_connection_changes_nothing() {
    let mut world = World::pair();
    let (initiator, responder) = world.connect();
    let recorded = world.log[0].bytes.clone();
    let (replayer, called) = (address(9, 999), world.nodes[1].addr);
    let path_before = world.conn(1, responder).quic.network_path(PathId::ZERO).unwrap();
    let events_before = world.conn(1, responder).events.len();
    for _ in 0..10 {
        world.inject(replayer, called, recorded.clone());
        world.run_for(Duration::from_millis(100));
    }
    assert_eq!(world.conn(1, responder).quic.network_path(PathId::ZERO).unwrap(), path_before);
    assert_eq!(world.conn(1, responder).events.len(), events_before);
    assert_eq!(world.only_conn(1), Some(responder));
    assert_eq!(world.bytes_between(called, replayer), 0);
    world.assert_talks(initiator, responder);
}

#[test]
fn a_thief_of_our_key_who_calls_in_a_friends_name_raises_no_event() {
    // IK's known weakness: with Bo's secret one can make a message 1 in Ana's name. It decrypts; Bo must not care.
    let mut params = Vec::new();
    let thief_params = plain_params();
    let (dst, src) = ([5; 8], [6; 8]);
    initial_source_cid(&mut params, &src);
    thief_params.write(&mut params);
    let forged = message_1_of_a_key_thief(&params);
    let datagram = initial_datagram(&bo().peer_id(), &dst, &src, &crypto_frame(&forged));

    let mut world = World::pair();
    let (thief, called) = (address(9, 999), world.nodes[1].addr);
    world.inject(thief, called, datagram.clone());
    world.run_for(ONE_WAY);
    let half_open = world.only_conn(1).expect("the forged message 1 decrypts");
    assert_eq!(world.nodes[1].failed_attempts, 0);
    assert!(world.bytes_between(called, thief) > 0, "and is answered, which the thief cannot read");
    world.run_for(Duration::from_secs(40));
    assert!(!world.conn(1, half_open).is_connected());
    assert_eq!(world.conn(1, half_open).peer(), None);
    assert!(world.bytes_between(called, thief) <= 3 * datagram.len());
}

#[test]
fn a_capture_shows_no_key_of_either_side() {
    let mut world = World::pair();
    let (initiator, responder) = world.connect();
    world.assert_talks(initiator, responder);
    let mut keys = Vec::new();
    for key in [ana(), bo()] {
        keys.push(*key.peer_id().as_bytes());
        keys.push(key.peer_id().x25519_public());
    }
    for sent in &world.log {
        for key in &keys {
            assert!(!contains(&sent.bytes, &key[..8]), "datagram {} shows a key", sent.index);
        }
    }
}

#[test]
fn even_an_observer_who_knows_the_called_one_does_not_learn_who_calls() {
    let mut world = World::pair();
    let _handles = world.connect();
    let inside = decrypted_initial(&world.log[0].bytes);
    assert!(contains(&inside, &plain_start_of_message_1()), "the Initial was not opened");
    for key in [*ana().peer_id().as_bytes(), ana().peer_id().x25519_public()] {
        assert!(!contains(&inside, &key[..8]));
    }
}

/// What an observer with Bo's PeerId sees inside of the first Initial.
fn decrypted_initial(datagram: &[u8]) -> Vec<u8> {
    let (dst, src) = cids(datagram);
    let keys = initial_keys(&bo().peer_id(), &ConnectionId::new(dst), Side::Server);
    let packet_number_at = 1 + 4 + 1 + dst.len() + 1 + src.len() + 1 + 2;
    let mut packet = bytes::BytesMut::from(datagram);
    keys.header.remote.decrypt(packet_number_at, &mut packet);
    let mut payload = packet.split_off(packet_number_at + packet_number_bytes(packet[0]));
    let number = packet[packet_number_at..].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    keys.packet.remote.decrypt(PathId::ZERO, number, &packet, &mut payload).unwrap();
    payload.to_vec()
}

/// A CRYPTO frame at offset 0 begins like this.
fn plain_start_of_message_1() -> [u8; 2] {
    [0x06, 0x00]
}

/// The one transport parameter that noq demands of a caller.
fn initial_source_cid(params: &mut Vec<u8>, cid: &[u8]) {
    params.extend_from_slice(&[0x0f, u8::try_from(cid.len()).unwrap()]);
    params.extend_from_slice(cid);
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}
