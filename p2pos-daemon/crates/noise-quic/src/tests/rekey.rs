//! N3, N5, N6, N7: keys change hands without a gap, are worn out in time, and never serve two paths alike.

use std::{
    any::Any,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use noq_proto::{
    ConnectError, ConnectionError, ConnectionHandle, ConnectionId, Event, FourTuple, PathEvent, PathId,
    PathStatus, Side, TransportConfig, TransportError, TransportErrorCode,
    crypto::{ClientConfig, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session},
    transport_parameters::TransportParameters,
};

use super::{
    craft::{ana, bo, called, calling, take},
    world::{Fate, Node, World, address},
};
use crate::{
    Handshakes, QUIC_VERSION,
    handshake::Tuning,
    packet::{CONFIDENTIALITY_PACKETS_MAX, INTEGRITY_PACKETS_MAX, PacketLimits},
};

#[test]
fn data_flows_through_key_updates_forced_by_either_side_or_by_both_at_once() {
    let mut world = World::pair();
    let (initiator, responder) = world.connect();
    for round in 0..30 {
        if round % 3 != 1 {
            world.conn(0, initiator).quic.force_key_update();
        }
        if round % 3 != 0 {
            world.conn(1, responder).quic.force_key_update();
        }
        world.assert_talks(initiator, responder);
        // noq keeps the old keys for three probe timeouts, and allows no update before.
        world.run_for(Duration::from_millis(500));
    }
    assert!(world.conn(0, initiator).lost().is_none());
}

#[test]
fn packets_lost_doubled_and_late_around_a_key_update_break_nothing() {
    for phase in 0..7 {
        let mut world = World::pair();
        let (initiator, responder) = world.connect();
        world.run_for(Duration::from_secs(1));
        world.fate = Box::new(move |sent| match (sent.index + phase) % 7 {
            0 => Fate::Lose,
            1 => Fate::Twice,
            2 | 3 => Fate::Late(Duration::from_millis(35)),
            _ => Fate::Deliver,
        });
        for round in 0..12_u8 {
            world.say(0, initiator, &[round; 3_000]);
            world
                .conn(usize::from(round % 2), if round % 2 == 0 { initiator } else { responder })
                .quic
                .force_key_update();
            world.say(0, initiator, &[round; 3_000]);
            for _ in 0..2 {
                assert_eq!(world.hear(1, responder).as_deref(), Some(&[round; 3_000][..]));
            }
            world.run_for(Duration::from_millis(700));
        }
        assert!(world.conn(0, initiator).lost().is_none());
        assert!(world.conn(1, responder).lost().is_none());
    }
}

#[test]
fn an_update_changes_the_packet_keys_of_both_directions_and_the_peer_follows() {
    let (mut ours, mut theirs, first) = established();
    let mut sealed = vec![seal(&*first.packet.local)];
    for _ in 0..5 {
        let (next, peers_next) = (ours.next_1rtt_keys().unwrap(), theirs.next_1rtt_keys().unwrap());
        let packet = seal(&*next.local);
        assert!(!sealed.contains(&packet), "a key was used again");
        assert!(opens(&*peers_next.remote, &packet));
        assert!(opens(&*next.remote, &seal(&*peers_next.local)));
        assert!(
            sealed.iter().all(|old| !opens(&*peers_next.remote, old)),
            "an old packet opens with a new key"
        );
        sealed.push(packet);
    }
}

#[test]
fn the_limits_that_noq_is_told_are_those_of_the_rfc() {
    let (_ours, _theirs, keys) = established();
    for key in [&keys.packet.local, &keys.packet.remote] {
        assert_eq!(key.confidentiality_limit(), CONFIDENTIALITY_PACKETS_MAX);
        assert_eq!(key.integrity_limit(), INTEGRITY_PACKETS_MAX);
    }
    assert_eq!((CONFIDENTIALITY_PACKETS_MAX, INTEGRITY_PACKETS_MAX), (1 << 23, 1 << 36));
}

#[test]
fn a_key_that_is_worn_out_is_replaced_before_its_limit() {
    // noq updates 10,000 packets before the limit; so with this limit after 100 packets.
    let limits = PacketLimits { confidentiality_packets: 10_100, ..PacketLimits::default() };
    let tuning = Tuning { limits, ..Tuning::default() };
    let updates = Arc::new(AtomicUsize::new(0));
    let mut world = World::tuned_pair(tuning.clone(), tuning.clone());
    let crypto = Handshakes::tuned(&ana(), tuning).client(&bo().peer_id());
    let addr = world.nodes[1].addr;
    let initiator = world.dial_with(0, addr, Arc::new(Counted { crypto, updates: Arc::clone(&updates) }));
    assert!(world.run_until(|world| world.is_connected(0, initiator)));
    let responder = world.only_conn(1).unwrap();
    for _ in 0..40 {
        world.say(0, initiator, &[7; 60_000]);
        assert_eq!(world.hear(1, responder).map(|heard| heard.len()), Some(60_000));
        world.run_for(Duration::from_millis(200));
    }
    let sent = world.log.iter().filter(|sent| sent.from == world.nodes[0].addr).count();
    // One further key is always made in advance.
    let updates = updates.load(Ordering::Relaxed) - 1;
    assert!(sent > 1_000, "too little was sent to show anything: {sent}");
    assert!((10..=sent / 50).contains(&updates), "{updates} updates for {sent} packets");
}

#[test]
fn a_peer_that_forges_packets_without_end_loses_the_connection() {
    let limits = PacketLimits { integrity_packets: 50, ..PacketLimits::default() };
    let tuning = Tuning { limits, ..Tuning::default() };
    let mut world = World::tuned_pair(tuning.clone(), tuning);
    let (initiator, responder) = world.connect();
    world.assert_talks(initiator, responder);
    let real = world.log.iter().rfind(|sent| sent.from == world.nodes[0].addr).unwrap().clone();
    for forgeries in [50, 1] {
        assert!(world.conn(1, responder).lost().is_none());
        for _ in 0..forgeries {
            let mut forged = real.bytes.clone();
            *forged.last_mut().unwrap() ^= 1;
            world.inject(real.from, real.to, forged);
        }
        world.settle();
    }
    let Some(ConnectionError::TransportError(error)) = world.conn(1, responder).lost() else {
        panic!("the connection goes on");
    };
    assert_eq!(error.code, TransportErrorCode::AEAD_LIMIT_REACHED);
}

#[test]
fn two_paths_carry_the_same_packet_numbers_and_both_are_understood() {
    // The data moves from one path to the other and back, under the same keys, across key updates.
    let (mut world, initiator, responder, second) = two_paths();
    for (used, spared, host) in
        [(PathId::ZERO, second, FIRST_HOST), (second, PathId::ZERO, SECOND_HOST)].repeat(2)
    {
        for (node, handle) in [(0, initiator), (1, responder)] {
            let quic = &mut world.conn(node, handle).quic;
            quic.set_path_status(used, PathStatus::Available).unwrap();
            quic.set_path_status(spared, PathStatus::Backup).unwrap();
        }
        world.run_for(Duration::from_secs(1));
        world.conn(0, initiator).quic.force_key_update();
        let before = world.log.len();
        world.say(0, initiator, &[5; 20_000]);
        assert_eq!(world.hear(1, responder).map(|heard| heard.len()), Some(20_000));
        world.assert_talks(initiator, responder);
        let elsewhere = world.log[before..].iter().filter(|sent| sent.to != host() && sent.from != host());
        assert!(
            elsewhere.map(|sent| sent.bytes.len()).sum::<usize>() < 2_000,
            "the data took the other path"
        );
    }
}

const FIRST_HOST: fn() -> SocketAddr = || address(2, 4000);
const SECOND_HOST: fn() -> SocketAddr = || address(22, 4000);

/// A connection with a second path to the responder's second host.
fn two_paths() -> (World, ConnectionHandle, ConnectionHandle, PathId) {
    let mut transport = TransportConfig::default();
    transport.max_concurrent_multipath_paths(4);
    let mut world = World::new(vec![
        Node::new(1, Tuning::default(), transport.clone()),
        Node::new(2, Tuning::default(), transport),
    ]);
    world.nodes[1].aliases.push(SECOND_HOST());
    let (initiator, responder) = world.connect();
    world.run_for(Duration::from_secs(1));
    let now = world.now;
    let second = FourTuple::from_remote(SECOND_HOST());
    let path =
        world.conn(0, initiator).quic.open_path(second, PathStatus::Available, now).expect("multipath is on");
    assert_ne!(path, PathId::ZERO);
    world.run_for(Duration::from_secs(1));
    let is_open =
        |event: &Event| matches!(event, Event::Path(PathEvent::Established { id, .. }) if *id == path);
    assert!(world.conn(0, initiator).events.iter().any(is_open), "the second path did not open");
    (world, initiator, responder, path)
}

fn established() -> (Box<dyn Session>, Box<dyn Session>, Keys) {
    let (mut ours, mut theirs) = (calling(&bo().peer_id(), Tuning::default()), called(Tuning::default()));
    theirs.read_handshake(&take(&mut *ours)).unwrap();
    ours.read_handshake(&take(&mut *theirs)).unwrap();
    let (from_bo, _no_bytes) = (take(&mut *theirs), take(&mut *ours));
    ours.read_handshake(&from_bo).unwrap();
    let mut confirmation = Vec::new();
    let keys = ours.write_handshake(&mut confirmation).unwrap();
    theirs.read_handshake(&confirmation).unwrap();
    (ours, theirs, keys)
}

fn seal(key: &dyn PacketKey) -> Vec<u8> {
    let mut packet = b"header and payload                ".to_vec();
    key.encrypt(PathId::ZERO, 1, &mut packet, 6);
    packet
}

fn opens(key: &dyn PacketKey, packet: &[u8]) -> bool {
    key.decrypt(PathId::ZERO, 1, &packet[..6], &mut BytesMut::from(&packet[6..])).is_ok()
}

/// A configuration whose sessions count how often noq asks for new packet keys.
struct Counted {
    crypto: Arc<dyn ClientConfig>,
    updates: Arc<AtomicUsize>,
}

impl ClientConfig for Counted {
    fn start_session(
        &self,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let session = self.crypto.start_session(version, server_name, params)?;
        Ok(Box::new(CountedSession { session, updates: Arc::clone(&self.updates) }))
    }
}

struct CountedSession {
    session: Box<dyn Session>,
    updates: Arc<AtomicUsize>,
}

impl Session for CountedSession {
    fn initial_keys(&self, dst_cid: ConnectionId, side: Side) -> Keys {
        self.session.initial_keys(dst_cid, side)
    }
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.session.handshake_data()
    }
    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.session.peer_identity()
    }
    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.session.early_crypto()
    }
    fn early_data_accepted(&self) -> Option<bool> {
        self.session.early_data_accepted()
    }
    fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }
    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.session.read_handshake(buf)
    }
    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.session.transport_parameters()
    }
    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        self.session.write_handshake(buf)
    }
    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.updates.fetch_add(1, Ordering::Relaxed);
        self.session.next_1rtt_keys()
    }
    fn is_valid_retry(&self, orig_dst_cid: ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.session.is_valid_retry(orig_dst_cid, header, payload)
    }
    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.session.export_keying_material(output, label, context)
    }
}

#[test]
fn one_configuration_serves_many_dials_with_different_keys() {
    let crypto = Handshakes::new(&ana()).client(&bo().peer_id());
    let params = super::craft::plain_params();
    let first = |session: &mut dyn Session| take(session);
    let mut one = crypto.start_session(QUIC_VERSION, "", &params).unwrap();
    let mut other = crypto.start_session(QUIC_VERSION, "", &params).unwrap();
    assert_ne!(first(&mut *one)[..34], first(&mut *other)[..34], "an ephemeral key was used twice");
}
