//! Three nodes of which one relays: calls through it, what a user may forbid, and what is counted.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use p2pos_discovery::{PeerAddress, RelayAt};
use p2pos_identity::PeerId;
use p2pos_node::{Admission, OpenError, PathKind, PeerStream, Policy};
use p2pos_relay::{RelayMode, RelaySettings, Tariff};

use support::{Daemon, daemon_with, peer_id, request, serve_echo, soon, until};

const CALLER: u8 = 1;
const CALLEE: u8 = 2;
const RELAY: u8 = 3;
const FULL_RELAY: u8 = 4;

/// Everybody is a contact; relays are allowed or not.
struct Friends {
    may_relay: AtomicBool,
}

impl Policy for Friends {
    fn admits(&self, _: &PeerId) -> Admission {
        Admission::Contact
    }

    fn may_relay(&self, _: &PeerId) -> bool {
        self.may_relay.load(Ordering::SeqCst)
    }
}

struct Trio {
    caller: Daemon,
    callee: Daemon,
    relay: Daemon,
    /// What caller and callee allow.
    policies: [Arc<Friends>; 2],
}

impl Trio {
    /// The callee can be called at the relay, and the caller knows no other way to it.
    async fn up() -> Self {
        Self::up_beside(&[]).await
    }

    /// The callee can be called at these relays too, and they come first.
    async fn up_beside(others: &[&Daemon]) -> Self {
        let policies = [(); 2].map(|()| Arc::new(Friends { may_relay: AtomicBool::new(true) }));
        let settings =
            RelaySettings { mode: RelayMode::Contacts, allows_loopback: true, ..RelaySettings::default() };
        let relay = daemon_with(RELAY, |config| {
            config.relay.settings = settings;
            config.policy = Arc::new(|_: &PeerId| Admission::Contact);
        });
        let idle = RelaySettings { mode: RelayMode::Off, ..settings };
        let callee = daemon_with(CALLEE, |config| {
            config.relay.settings = idle;
            let relays = others.iter().copied().chain([&relay]);
            let at = |relay: &Daemon| RelayAt { relay: relay.node.peer_id(), at: relay.address().into() };
            config.relay.uses = relays.map(at).collect();
            config.policy = policies[1].clone();
        });
        let caller = daemon_with(CALLER, |config| {
            config.relay.settings = idle;
            config.policy = policies[0].clone();
        });
        until(|| {
            callee.node.relays().leases.iter().filter(|lease| lease.shown.is_some()).count() > others.len()
        })
        .await;
        let mut places: Vec<_> = callee.node.relays().leases;
        places.sort_by_key(|lease| lease.relay == relay.node.peer_id());
        let addresses = places.iter().map(|lease| match lease.shown.as_ref().unwrap().parse().unwrap() {
            PeerAddress::Relay(address) => address,
            other => panic!("{other:?}"),
        });
        caller.resolver.set_relays(peer_id(CALLEE), addresses.collect()).unwrap();
        serve_echo(&callee);
        Self { caller, callee, relay, policies }
    }

    fn forbid(&self, who: usize) {
        self.policies[who].may_relay.store(false, Ordering::SeqCst);
    }

    async fn call(&self) -> Result<p2pos_node::Opened, OpenError> {
        soon(self.caller.node.open(request(peer_id(CALLEE)))).await
    }

    /// The same where nobody will answer: that takes as long as the caller waits.
    async fn call_in_vain(&self) -> OpenError {
        let request = request(peer_id(CALLEE)).timeout(Duration::from_secs(1));
        soon(self.caller.node.open(request)).await.unwrap_err()
    }

    fn path_to(&self, whom: u8) -> Option<(PathKind, Option<PeerId>)> {
        let peers = if whom == CALLEE { self.caller.node.peers() } else { self.callee.node.peers() };
        let peer = peers.into_iter().find(|peer| peer.peer == peer_id(whom))?;
        Some((peer.path?.kind, peer.relay))
    }
}

#[tokio::test]
async fn a_call_through_a_relay_carries_data_and_both_sides_name_the_relay() {
    let trio = Trio::up().await;
    let mut stream = trio.call().await.unwrap().channel.into_stream().unwrap();
    echoed(&mut stream, "through somebody else").await;
    let by_relay = Some((PathKind::Relayed, Some(peer_id(RELAY))));
    assert_eq!((trio.path_to(CALLEE), trio.path_to(CALLER)), (by_relay, by_relay));
    let served = trio.relay.node.relays();
    assert_eq!((served.serving.flows, served.serving.contact_leases), (1, 1));
    assert!(served.serving.month_bytes > 0 && served.day_bytes > 0, "{served:?}");
    assert_eq!(trio.callee.node.relays().leases[0].flows, 1);

    trio.relay.node.begin_relay_month();
    let after = trio.relay.node.relays().serving;
    assert!(after.month_bytes < served.serving.month_bytes, "{after:?}");
}

#[tokio::test]
async fn a_caller_who_forbids_relays_hears_303_and_the_relay_hears_nothing() {
    let trio = Trio::up().await;
    trio.forbid(0);
    let error = trio.call_in_vain().await;
    assert_eq!((error.code(), error.attempts().len()), (303, 0), "{error}");
    assert_eq!(trio.relay.node.relays().serving.flows, 0);
}

#[tokio::test]
async fn a_callee_who_forbids_relays_is_not_called_through_one() {
    let trio = Trio::up().await;
    trio.forbid(1);
    let error = trio.call_in_vain().await;
    assert_eq!(error.code(), 302, "whether the callee is there is not told: {error}");
    assert!(error.attempts().iter().all(|attempt| attempt.relay == Some(peer_id(RELAY))), "{error:?}");
    assert_eq!(trio.path_to(CALLER), None);
}

#[tokio::test]
async fn who_forbids_relays_meanwhile_leaves_the_path_that_stands() {
    for who in 0..2 {
        let trio = Trio::up().await;
        let mut stream = trio.call().await.unwrap().channel.into_stream().unwrap();
        echoed(&mut stream, "as long as it is allowed").await;
        trio.forbid(who);
        let (node, other) = [(&trio.caller.node, peer_id(CALLEE)), (&trio.callee.node, peer_id(CALLER))][who];
        soon(node.leave_relays(other)).await;
        soon(stream.recv.read_chunk()).await.unwrap_err();
        until(|| trio.path_to(CALLEE).is_none() && trio.path_to(CALLER).is_none()).await;
        trio.call_in_vain().await;
    }
}

#[tokio::test]
async fn a_stream_that_wants_no_relay_waits_for_another_path_and_gets_none_here() {
    let trio = Trio::up().await;
    let mut stream = trio.call().await.unwrap().channel.into_stream().unwrap();
    echoed(&mut stream, "any way will do").await;
    let picky = request(peer_id(CALLEE)).timeout(Duration::from_secs(1)).without_relay();
    let error = soon(trio.caller.node.open(picky)).await.unwrap_err();
    assert_eq!(error.code(), 303, "{error}");
    soon(trio.caller.node.lost_own_path(peer_id(CALLEE))).await;
    echoed(&mut stream, "and nobody else minds").await;
}

#[tokio::test]
async fn a_relay_that_ends_in_good_order_is_drained_at_once_where_nobody_is_carried() {
    let trio = Trio::up().await;
    let grace = Duration::from_secs(60);
    soon(trio.relay.node.drain_relay(grace)).await;
    assert!(trio.relay.node.relays().serving.is_draining);
}

/// Writes something, and reads it again.
/// It comes first, and so it would be used by who takes the first answer: then no data would pass.
#[tokio::test]
async fn a_relay_that_only_introduces_is_not_used_where_another_carries() {
    let settings =
        RelaySettings { mode: RelayMode::Contacts, allows_loopback: true, ..RelaySettings::default() };
    let none = |tariff| Tariff { flows_max: 0, ..tariff };
    let full = daemon_with(FULL_RELAY, |config| {
        // Nobody keeps leases at two relays of one network, and 127.0.0.0/16 has the other.
        config.ipv4 = Some(Ipv4Addr::new(127, 1, 0, 1));
        config.policy = Arc::new(|_: &PeerId| Admission::Contact);
        config.relay.settings = RelaySettings {
            contacts: none(settings.contacts),
            community: none(settings.community),
            ..settings
        };
    });
    let trio = Trio::up_beside(&[&full]).await;
    let mut stream = trio.call().await.unwrap().channel.into_stream().unwrap();
    echoed(&mut stream, "through the second").await;
    assert_eq!(trio.path_to(CALLEE), Some((PathKind::Relayed, Some(peer_id(RELAY)))));
    assert_eq!(full.node.relays().serving.introductions, 1, "it was asked first");
}

async fn echoed(stream: &mut PeerStream, text: &'static str) {
    stream.send.write(Bytes::from(text)).await.unwrap();
    let mut got = Vec::new();
    while got.len() < text.len() {
        got.extend_from_slice(&soon(stream.recv.read_chunk()).await.unwrap().unwrap());
    }
    assert_eq!(got, text.as_bytes());
}
