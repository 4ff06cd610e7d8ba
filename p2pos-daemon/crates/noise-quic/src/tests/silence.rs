//! N1, N11: strangers get no byte, whatever they send.

use std::time::Duration;

use noq_proto::TransportConfig;

use super::{
    craft::{Gibberish, ana, bo, cids, crypto_frame, initial_datagram, mallory},
    world::{Fate, Greeting, Guard, Node, World, address},
};
use crate::{
    Handshakes, QUIC_VERSION,
    handshake::Tuning,
    probe::{DropReason, Verdict, judge},
};

#[test]
fn flipping_any_bit_of_the_version_leaves_the_caller_without_an_answer() {
    for bit in 0..32 {
        let mut world = World::pair();
        let (caller, called) = (world.nodes[0].addr, world.nodes[1].addr);
        world.fate = Box::new(move |sent| {
            let mut bytes = sent.bytes.clone();
            bytes[1 + bit / 8] ^= 1 << (bit % 8);
            Fate::Altered(bytes)
        });
        let _initiator = world.dial(0, 1);
        world.run_for(Duration::from_secs(10));
        assert_eq!(world.bytes_between(called, caller), 0);
        assert!(world.nodes[1].conns.is_empty());
    }
}

#[test]
fn a_dial_with_any_other_version_is_refused_before_a_packet_is_sent() {
    let params = super::craft::plain_params();
    let crypto = Handshakes::new(&ana()).client(&bo().peer_id());
    for version in [0, 1, 0x6b33_43cf, QUIC_VERSION ^ 1, QUIC_VERSION.swap_bytes()] {
        assert!(crypto.start_session(version, "", &params).is_err());
        let server = Handshakes::new(&bo()).server();
        assert!(server.initial_keys(version, noq_proto::ConnectionId::new(&[1; 8])).is_err());
    }
}

#[test]
fn a_forged_version_negotiation_does_not_end_a_dial() {
    let mut world = World::pair();
    let initiator = world.dial(0, 1);
    assert!(world.step());
    let (dst, src) = cids(&world.log[0].bytes);
    let mut forged = vec![0xc0, 0, 0, 0, 0];
    for cid in [src, dst] {
        forged.push(u8::try_from(cid.len()).unwrap());
        forged.extend_from_slice(cid);
    }
    forged.extend_from_slice(&1_u32.to_be_bytes());
    world.inject(world.nodes[1].addr, world.nodes[0].addr, forged);
    assert!(world.run_until(|world| world.is_connected(0, initiator)));
}

#[test]
fn who_dials_a_wrong_key_at_our_address_gets_no_byte_back() {
    for guard in [Guard::Open, Guard::Judge, Guard::Full] {
        let mut world = World::pair();
        world.nodes[1].guard = guard;
        let (caller, called) = (world.nodes[0].addr, world.nodes[1].addr);
        let _initiator = world.dial_as(0, &mallory().peer_id(), called);
        world.run_for(Duration::from_secs(40));
        assert!(world.bytes_between(caller, called) > 1_200, "the caller tried");
        assert_eq!(world.bytes_between(called, caller), 0);
    }
}

#[test]
fn while_the_daemon_defends_itself_with_retry_strangers_still_get_no_byte() {
    let mut world = World::pair();
    world.nodes[1].greeting = Greeting::RetryAlways;
    let (caller, called) = (world.nodes[0].addr, world.nodes[1].addr);
    let _initiator = world.dial_as(0, &mallory().peer_id(), called);
    world.run_for(Duration::from_secs(40));
    assert_eq!(world.nodes[1].attempts, 0, "a stranger took one of the places for pending attempts");
    assert_eq!(world.bytes_between(called, caller), 0);
}

#[test]
fn a_peer_id_and_its_negation_are_not_the_same_person_to_call() {
    // A and -A share an X25519 key. Whoever is told "-A" must not reach A and believe to speak with another.
    let mut negated = *bo().peer_id().as_bytes();
    negated[31] ^= 0x80;
    let negated = p2pos_identity::PeerId::from_bytes(negated).unwrap();
    assert_eq!(negated.x25519_public(), bo().peer_id().x25519_public());
    let mut world = World::pair();
    let addr = world.nodes[1].addr;
    let initiator = world.dial_as(0, &negated, addr);
    world.run_for(Duration::from_secs(40));
    assert!(!world.is_connected(0, initiator));
    assert_eq!(world.conn(0, initiator).peer(), None);
}

/// 10^5 datagrams of all kinds against a daemon that is talking with a friend meanwhile.
#[test]
fn a_hundred_thousand_probes_get_no_byte_and_the_friend_still_gets_through() {
    const PROBES: usize = 100_000;
    let mut random = Gibberish(0x1eaf);
    let seeds = stolen_glances();
    let mut world = World::new(vec![usual(1), usual(2)]);
    world.nodes[1].guard = Guard::Full;
    let (scanner, called) = (address(77, 7777), world.nodes[1].addr);
    for _ in 0..PROBES {
        world.inject(scanner, called, probe(&seeds, &mut random));
    }
    world.settle();
    assert_eq!(world.log.len(), 0, "answered: {:02x?}", world.log.first().map(|sent| &sent.bytes));
    assert_eq!(world.nodes[1].attempts, 0);
    let (initiator, responder) = world.connect();
    world.assert_talks(initiator, responder);
}

/// The same without the filter for Initials: the judge alone keeps noq silent, as long as attempts are accepted.
#[test]
fn behind_the_judge_alone_probes_get_no_byte_either() {
    let mut random = Gibberish(0xbead);
    let seeds = stolen_glances();
    let mut world = World::new(vec![usual(1), usual(2)]);
    world.nodes[1].guard = Guard::Judge;
    for _ in 0..20_000 {
        world.inject(address(77, 7777), world.nodes[1].addr, probe(&seeds, &mut random));
    }
    world.settle();
    assert_eq!(world.log.len(), 0, "answered: {:02x?}", world.log.first().map(|sent| &sent.bytes));
    assert!(world.nodes[1].conns.is_empty());
}

#[test]
fn every_datagram_of_an_honest_connection_passes_both_guards() {
    let mut world = World::pair();
    for node in &mut world.nodes {
        node.guard = Guard::Open;
    }
    world.nodes[1].greeting = Greeting::RetryFirst;
    let (initiator, responder) = world.connect();
    world.assert_talks(initiator, responder);
    let filters = [
        crate::probe::StrangerFilter::new(&world.nodes[0].key),
        crate::probe::StrangerFilter::new(&world.nodes[1].key),
    ];
    for sent in &world.log {
        let receiver = usize::from(sent.to == world.nodes[1].addr);
        assert_eq!(judge(&sent.bytes), Verdict::Quic);
        assert!(filters[receiver].admits(&sent.bytes), "datagram {} was taken for a stranger's", sent.index);
    }
}

#[test]
fn the_judge_names_why_it_drops() {
    let drop = Verdict::Drop;
    let long = |first: u8, version: u32, dst: usize, src: usize, tail: usize| {
        let mut bytes = vec![first];
        bytes.extend_from_slice(&version.to_be_bytes());
        for len in [dst, src] {
            bytes.push(u8::try_from(len).unwrap());
            bytes.resize(bytes.len() + len, 1);
        }
        bytes.resize(bytes.len() + tail, 2);
        judge(&bytes)
    };
    assert_eq!(judge(&[]), drop(DropReason::TooShort));
    for first in 0..0x40 {
        assert_eq!(judge(&[first; 1_200]), drop(DropReason::NotQuic));
        assert_eq!(judge(&[0x80 | first; 1_200]), drop(DropReason::NotQuic));
    }
    assert_eq!(judge(&[0x40; 20]), drop(DropReason::TooShort));
    assert_eq!(judge(&[0x40; 21]), Verdict::Quic);
    for version in [0, 1, 0x6b33_43cf, 0x0a1a_2a3a, QUIC_VERSION + 1] {
        assert_eq!(long(0xc0, version, 8, 8, 1_180), drop(DropReason::ForeignVersion));
    }
    for len in [0, 1, 7, 21, 255] {
        assert_eq!(long(0xc0, QUIC_VERSION, len, 8, 1_180), drop(DropReason::ConnectionIdLength));
        assert_eq!(long(0xe0, QUIC_VERSION, 8, len, 1_180), drop(DropReason::ConnectionIdLength));
    }
    assert_eq!(long(0xc0, QUIC_VERSION, 20, 8, 1_180), Verdict::Quic);
    assert_eq!(long(0xd0, QUIC_VERSION, 20, 8, 1_180), drop(DropReason::EarlyData));
    assert_eq!(long(0xe0, QUIC_VERSION, 8, 8, 20), drop(DropReason::TooShort));
    assert_eq!(long(0xe0, QUIC_VERSION, 8, 8, 21), Verdict::Quic);
    assert_eq!(long(0xf0, QUIC_VERSION, 8, 8, 1_477), Verdict::Quic);
    assert_eq!(long(0xf0, QUIC_VERSION, 8, 8, 1_478), drop(DropReason::OversizedRetry));
}

#[test]
fn no_truncation_and_no_gibberish_makes_the_guards_panic() {
    let filter = crate::probe::StrangerFilter::new(&bo());
    let good = initial_datagram(&bo().peer_id(), &[1; 20], &[2; 8], &crypto_frame(b"x"));
    assert!(filter.admits(&good));
    for len in 0..good.len() {
        assert!(
            !(judge(&good[..len]) == Verdict::Quic && filter.admits(&good[..len])),
            "{len} bytes were enough"
        );
    }
    let mut random = Gibberish(0xfeed);
    for _ in 0..20_000 {
        let len = random.below(64);
        let mut bytes = random.bytes(len);
        if let Some(start) = bytes.get_mut(..5) {
            start[0] |= 0xc0;
            start[1..].copy_from_slice(&QUIC_VERSION.to_be_bytes());
        }
        let _verdict = judge(&bytes);
        let is_initial = bytes.first().is_some_and(|first| first & 0xb0 == 0x80);
        assert!(!is_initial || !filter.admits(&bytes));
    }
}

fn usual(seed: u8) -> Node {
    Node::new(seed, Tuning::default(), TransportConfig::default())
}

/// Datagrams that a scanner can have: of a connection it watched (between others), and calls for a wrong PeerId.
fn stolen_glances() -> Vec<Vec<u8>> {
    let mut seen = World::new(vec![usual(3), usual(4)]);
    let (initiator, responder) = seen.connect();
    seen.assert_talks(initiator, responder);
    let mut seeds: Vec<_> = seen.log.iter().map(|sent| sent.bytes.clone()).collect();
    seeds.push(initial_datagram(&mallory().peer_id(), &[1; 20], &[2; 8], &crypto_frame(&[3; 300])));
    seeds.push(initial_datagram(&mallory().peer_id(), &[1; 8], &[], &crypto_frame(&[3; 300])));
    seeds
}

/// One datagram as it is, altered, cut, glued, or made up.
fn probe(seeds: &[Vec<u8>], random: &mut Gibberish) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    match random.below(8) {
        0 => {}
        1 => {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        2 => bytes.truncate(random.below(bytes.len())),
        3 => {
            // A foreign version, also in the greasing pattern, also Version Negotiation.
            let versions = [0, 1, 2, 0x6b33_43cf, 0x0a1a_2a3a, 0xff00_001d];
            bytes[0] |= 0xc0;
            bytes[1..5].copy_from_slice(&u32::to_be_bytes(versions[random.below(versions.len())]));
        }
        4 => {
            // A connection id of any length.
            bytes[0] |= 0xc0;
            bytes[1..5].copy_from_slice(&QUIC_VERSION.to_be_bytes());
            bytes[5] = random.next().to_le_bytes()[0];
        }
        5 => {
            // A short header with a guessed connection id.
            let len = 1 + random.below(1_400);
            bytes = random.bytes(len);
            bytes[0] = bytes[0] & 0x3f | 0x40;
        }
        6 => {
            // An Initial of our version, gibberish inside.
            let at = 30 + random.below(20);
            let noise = random.bytes(bytes.len().saturating_sub(at));
            bytes.truncate(at);
            bytes.extend_from_slice(&noise);
        }
        _ => {
            let len = random.below(1_500);
            bytes = random.bytes(len);
        }
    }
    bytes
}
