//! The user's side in virtual time: leases that are kept, circuits that move.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use p2pos_identity::PeerId;
use p2pos_relay::{
    LEASE_TIME, Refusal, RelayMode,
    circuit::{CircuitEvent, CircuitKeeper, PLACE_RETRY},
    lease::{CHECK_AFTER, CHECK_DEADLINE, LeaseEvent, LeaseKeeper, RELAYS_KNOWN_MAX},
};

use support::{Relay, peer, settings};

const MS: Duration = Duration::from_millis(1);

/// A keeper and relays that answer at once, but for those that are down.
struct User {
    keeper: LeaseKeeper,
    now: Instant,
    down: Vec<PeerId>,
    rtts: BTreeMap<PeerId, Duration>,
    said: Vec<(Instant, LeaseEvent)>,
}

impl User {
    fn new(relays: &[(u32, &str, u64)]) -> Self {
        let now = Relay::new(settings(RelayMode::Off)).now;
        let mut user = Self {
            keeper: LeaseKeeper::new(),
            now,
            down: Vec::new(),
            rtts: BTreeMap::new(),
            said: Vec::new(),
        };
        for (number, address, rtt_ms) in relays {
            user.learn(*number, address, *rtt_ms);
        }
        user.answer();
        user
    }

    fn learn(&mut self, number: u32, address: &str, rtt_ms: u64) {
        let (address, rtt): (IpAddr, _) = (address.parse().unwrap(), Duration::from_millis(rtt_ms));
        self.rtts.insert(peer(number), rtt);
        self.keeper.handle_known(self.now, peer(number), address, Some(rtt));
    }

    /// Lets the relays answer until nothing more is asked.
    fn answer(&mut self) {
        while let Some(event) = self.keeper.poll_event() {
            self.said.push((self.now, event.clone()));
            match event {
                LeaseEvent::Connect(relay) if !self.down.contains(&relay) => {
                    self.keeper.handle_connected(self.now, relay, self.rtts[&relay]);
                }
                LeaseEvent::Reserve(relay) if !self.down.contains(&relay) => {
                    self.keeper.handle_leased(self.now, relay, LEASE_TIME);
                }
                LeaseEvent::Check(relay) if !self.down.contains(&relay) => self.keeper.handle_alive(relay),
                LeaseEvent::Connect(_)
                | LeaseEvent::Reserve(_)
                | LeaseEvent::Check(_)
                | LeaseEvent::Release(_)
                | LeaseEvent::Publish(_) => {}
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.keeper.poll_timeout().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            self.keeper.handle_timeout(self.now);
            self.answer();
        }
        self.now = end;
    }

    fn count(&self, wanted: &LeaseEvent) -> usize {
        self.said.iter().filter(|(_, event)| event == wanted).count()
    }
}

#[test]
fn the_two_nearest_relays_of_different_networks_are_used() {
    let user = User::new(&[(1, "8.8.1.1", 50), (2, "8.8.2.2", 60), (3, "9.9.9.9", 90)]);
    assert_eq!(user.keeper.published(), [peer(1), peer(3)]);
}

#[test]
fn one_network_gives_one_lease_rather_than_two_that_fail_together() {
    let user =
        User::new(&[(1, "8.8.1.1", 10), (2, "8.8.2.2", 20), (3, "2600:1::1", 30), (4, "2600:1:9::1", 5)]);
    assert_eq!(user.keeper.published().len(), 2);
    let user = User::new(&[(1, "8.8.1.1", 10), (2, "::ffff:8.8.2.2", 20)]);
    assert_eq!(user.keeper.published(), [peer(1)]);
}

#[test]
fn leases_are_renewed_at_half_for_days() {
    let mut user = User::new(&[(1, "8.8.1.1", 10)]);
    user.pass(Duration::from_secs(48 * 3600));
    assert_eq!(user.count(&LeaseEvent::Reserve(peer(1))), 1 + 96);
    assert_eq!(user.count(&LeaseEvent::Connect(peer(1))), 1);
    assert_eq!(user.keeper.published(), [peer(1)]);
}

#[test]
fn a_much_nearer_relay_takes_the_place_of_a_far_one_when_that_is_due_for_renewal() {
    let mut user = User::new(&[(1, "8.8.1.1", 100), (2, "9.9.1.1", 200)]);
    user.learn(3, "7.7.1.1", 99);
    user.pass(LEASE_TIME * 9 / 10);
    assert_eq!(user.keeper.published(), [peer(3), peer(1)]);
    let empty =
        user.said.iter().any(|(_, event)| matches!(event, LeaseEvent::Publish(relays) if relays.is_empty()));
    assert!(!empty, "the old one is published until the new one is");
    user.learn(4, "6.6.1.1", 60);
    user.pass(LEASE_TIME * 3);
    assert_eq!(user.keeper.published(), [peer(3), peer(1)], "a little nearer is not worth it");
}

#[test]
fn a_lost_reservation_is_made_again_whenever_the_relay_comes_back() {
    let mut user = User::new(&[(1, "8.8.1.1", 10)]);
    user.down.push(peer(1));
    user.keeper.handle_lost(user.now, peer(1));
    user.answer();
    user.pass(Duration::from_millis(9_999));
    assert_eq!(user.keeper.published(), [peer(1)], "it may come back");
    user.pass(MS);
    assert_eq!(user.keeper.published(), [], "callers would wait for nothing");
    user.pass(Duration::from_secs(15 * 3600));
    assert!(user.count(&LeaseEvent::Connect(peer(1))) > 80, "still trying");
    assert!(user.count(&LeaseEvent::Connect(peer(1))) < 200, "and not in a hurry");
    user.down.clear();
    user.pass(Duration::from_secs(606));
    assert_eq!(user.keeper.published(), [peer(1)]);
}

#[test]
fn a_connection_that_breaks_for_a_moment_is_not_unpublished() {
    let mut user = User::new(&[(1, "8.8.1.1", 10)]);
    user.keeper.handle_lost(user.now, peer(1));
    user.answer();
    assert_eq!(user.keeper.published(), [peer(1)]);
    assert_eq!(user.said.iter().filter(|(_, event)| matches!(event, LeaseEvent::Publish(_))).count(), 1);
}

#[test]
fn a_relay_that_cannot_be_connected_at_once_is_tried_again_before_it_is_unpublished() {
    let mut user = User::new(&[(1, "8.8.1.1", 10)]);
    user.down.push(peer(1));
    user.keeper.handle_lost(user.now, peer(1));
    user.answer();
    user.keeper.handle_lost(user.now, peer(1));
    user.down.clear();
    user.pass(Duration::from_secs(2));
    assert_eq!(user.count(&LeaseEvent::Reserve(peer(1))), 2);
    assert_eq!(user.said.iter().filter(|(_, event)| matches!(event, LeaseEvent::Publish(_))).count(), 1);
}

#[test]
fn a_network_change_finds_a_dead_relay_in_little_more_than_a_second_and_takes_another() {
    let mut user = User::new(&[(1, "8.8.1.1", 10), (2, "9.9.1.1", 20), (3, "7.7.1.1", 30)]);
    user.down.push(peer(1));
    user.keeper.handle_network_changed(user.now);
    user.pass(CHECK_AFTER + CHECK_DEADLINE - MS);
    assert_eq!(user.count(&LeaseEvent::Check(peer(1))), 1);
    assert_eq!(user.count(&LeaseEvent::Connect(peer(1))), 1);
    user.pass(MS);
    assert_eq!(user.count(&LeaseEvent::Connect(peer(1))), 2, "known dead, tried again");
    assert!(user.keeper.published().contains(&peer(3)), "and another one is there");
    user.pass(Duration::from_secs(10));
    assert_eq!(user.keeper.published(), [peer(2), peer(3)]);
}

#[test]
fn a_relay_that_comes_back_after_its_place_was_taken_is_let_go() {
    let mut user = User::new(&[(1, "8.8.1.1", 20), (2, "9.9.1.1", 21), (3, "7.7.1.1", 22)]);
    user.down.push(peer(1));
    user.keeper.handle_lost(user.now, peer(1));
    user.answer();
    user.down.clear();
    user.pass(LEASE_TIME * 2);
    assert_eq!(user.keeper.published(), [peer(2), peer(3)]);
    assert_eq!(user.count(&LeaseEvent::Release(peer(1))), 1);
}

#[test]
fn a_relay_that_drains_stays_published_until_its_successor_is() {
    let mut user = User::new(&[(1, "8.8.1.1", 10), (2, "9.9.1.1", 20), (3, "7.7.1.1", 30)]);
    user.down.push(peer(3));
    user.keeper.handle_drain(user.now, peer(1), Duration::from_secs(30));
    user.answer();
    assert!(user.keeper.published().contains(&peer(1)));
    user.down.clear();
    user.pass(Duration::from_secs(20));
    assert_eq!(user.keeper.published(), [peer(2), peer(3)]);
    user.pass(Duration::from_secs(20));
    assert_eq!(user.count(&LeaseEvent::Release(peer(1))), 1);
}

#[test]
fn a_full_relay_is_asked_when_it_said_and_one_that_does_not_serve_us_much_later() {
    let mut user = User::new(&[(1, "8.8.1.1", 10)]);
    user.down.push(peer(1));
    user.pass(LEASE_TIME / 2);
    let refused = Refusal::Full { retry_after: Duration::from_secs(60) };
    user.keeper.handle_refused(user.now, peer(1), &refused);
    user.answer();
    assert_eq!(user.keeper.poll_timeout(), Some(user.now + Duration::from_secs(60)));
    user.down.clear();
    user.pass(Duration::from_secs(60));
    assert_eq!(user.keeper.published(), [peer(1)]);
}

#[test]
fn a_relay_that_grants_an_instant_is_not_asked_without_pause() {
    let mut user = User::new(&[]);
    user.keeper.handle_known(user.now, peer(1), "8.8.1.1".parse().unwrap(), None);
    user.keeper.handle_connected(user.now, peer(1), MS);
    user.keeper.handle_leased(user.now, peer(1), Duration::ZERO);
    assert!(user.keeper.poll_timeout().unwrap() >= user.now + Duration::from_secs(10));
}

#[test]
fn no_more_relays_are_remembered_than_the_limit_and_those_in_use_are_kept() {
    let mut user = User::new(&[(1, "8.8.1.1", 500), (2, "9.9.1.1", 600)]);
    for number in 10..100 {
        user.keeper.handle_known(user.now, peer(number), "7.7.7.7".parse().unwrap(), Some(MS));
    }
    user.answer();
    assert_eq!(user.keeper.published(), [peer(1), peer(2)]);
    const { assert!(RELAYS_KNOWN_MAX < 90) }
}

#[test]
fn a_circuit_moves_to_the_next_relay_within_two_seconds_of_a_death() {
    let (mut keeper, now) = circuit_over(&[1, 2, 3]);
    keeper.handle_relay_lost(now, peer(1));
    assert_eq!(keeper.poll_event(), Some(open(2)));
    let due = keeper.poll_timeout().unwrap();
    assert_eq!(due, now + Duration::from_secs(1), "the second one is silent too");
    keeper.handle_timeout(due);
    assert_eq!(keeper.poll_event(), Some(open(3)));
    keeper.handle_opened(due + 50 * MS, peer(9), peer(3));
    assert_eq!(keeper.relay_of(peer(9)), Some(peer(3)));
    keeper.handle_opened(due + 60 * MS, peer(9), peer(2));
    assert_eq!(keeper.poll_event(), Some(close(2)), "an answer that comes too late is hung up");
}

#[test]
fn a_drain_moves_a_circuit_before_the_old_one_is_closed() {
    let (mut keeper, now) = circuit_over(&[1, 2]);
    keeper.handle_relay_drains(now, peer(1));
    assert_eq!(keeper.poll_event(), Some(open(2)));
    assert_eq!(keeper.poll_event(), None);
    assert_eq!(keeper.relay_of(peer(9)), Some(peer(1)), "it still carries");
    keeper.handle_opened(now, peer(9), peer(2));
    assert_eq!(keeper.poll_event(), Some(close(1)));
    assert_eq!(keeper.relay_of(peer(9)), Some(peer(2)));
}

#[test]
fn a_peer_without_another_place_is_stranded_once_and_tried_again() {
    let (mut keeper, now) = circuit_over(&[1]);
    keeper.handle_relay_lost(now, peer(1));
    assert_eq!(keeper.poll_event(), Some(CircuitEvent::Stranded { peer: peer(9) }));
    assert_eq!(keeper.poll_event(), None);
    assert_eq!(keeper.poll_timeout(), Some(now + PLACE_RETRY));
    keeper.handle_timeout(now + PLACE_RETRY);
    assert_eq!(keeper.poll_event(), Some(open(1)));
}

#[test]
fn a_contact_with_relay_never_gets_no_circuit_and_loses_the_one_it_has() {
    let (mut keeper, now) = circuit_over(&[1, 2]);
    keeper.handle_policy(now, peer(9), true);
    assert_eq!(keeper.poll_event(), Some(close(1)));
    assert!(!keeper.is_allowed(peer(9)));
    keeper.handle_wanted(now, peer(9), true);
    keeper.handle_places(now, peer(9), &[peer(1)]);
    assert_eq!(keeper.poll_event(), None);
    keeper.handle_policy(now, peer(9), false);
    assert_eq!(keeper.poll_event(), Some(open(1)));
}

#[test]
fn a_circuit_that_is_no_longer_wanted_is_closed_and_forgotten() {
    let (mut keeper, now) = circuit_over(&[1]);
    keeper.handle_wanted(now, peer(9), false);
    assert_eq!(keeper.poll_event(), Some(close(1)));
    assert_eq!(keeper.poll_timeout(), None);
    keeper.handle_relay_lost(now, peer(1));
    assert_eq!(keeper.poll_event(), None);
}

fn circuit_over(relays: &[u32]) -> (CircuitKeeper, Instant) {
    let now = Relay::new(settings(RelayMode::Off)).now;
    let mut keeper = CircuitKeeper::new();
    let relays: Vec<PeerId> = relays.iter().map(|number| peer(*number)).collect();
    keeper.handle_places(now, peer(9), &relays);
    keeper.handle_wanted(now, peer(9), true);
    assert_eq!(keeper.poll_event(), Some(open(1)));
    keeper.handle_opened(now, peer(9), peer(1));
    assert_eq!(keeper.poll_event(), None);
    (keeper, now)
}

fn open(relay: u32) -> CircuitEvent {
    CircuitEvent::Open { peer: peer(9), relay: peer(relay) }
}

fn close(relay: u32) -> CircuitEvent {
    CircuitEvent::Close { peer: peer(9), relay: peer(relay) }
}
