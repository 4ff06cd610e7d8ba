//! The user's side, part two: which relay carries the packets to each peer, and which one next.
//!
//! A circuit runs over a relay at which the *other* side has a lease, so the choice is among that side's places, best
//! first. When a relay dies or drains, the next place is asked at once and the old circuit kept until the new one
//! stands; an answer that does not come in a second counts as no. So a circuit is on its next relay within two seconds,
//! and QUIC sends again what was lost. A peer with `relay = never` gets no circuit, whoever asks for it.
//!
//! A pure machine. Refuses to know: what a flow's keys are, when a direct path makes the circuit superfluous
//! (`traversal`), who the peer is.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use p2pos_identity::PeerId;

/// How long a relay has to answer. With the second that finding a relay dead takes, a move is over in two.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// How long until a place that failed is asked again.
pub const PLACE_RETRY: Duration = Duration::from_secs(5);

/// Places of one peer: what its record and its signals may name.
pub const PLACES_MAX: usize = 3;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircuitEvent {
    /// Ask this relay for a flow to this peer; answer with `handle_opened` or `handle_failed`.
    Open {
        /// To whom.
        peer: PeerId,
        /// Through whom.
        relay: PeerId,
    },
    /// Hang up this flow: it has a successor, is not wanted, or not allowed.
    Close {
        /// To whom.
        peer: PeerId,
        /// Through whom.
        relay: PeerId,
    },
    /// No place is left to try now: the peer is reached directly or not at all.
    Stranded {
        /// Whom.
        peer: PeerId,
    },
}

/// Keeps circuits.
#[derive(Debug, Default)]
pub struct CircuitKeeper {
    circuits: BTreeMap<PeerId, Circuit>,
    never: BTreeSet<PeerId>,
    events: VecDeque<CircuitEvent>,
}

#[derive(Debug, Default)]
struct Circuit {
    places: Vec<Place>,
    is_wanted: bool,
    /// Which relay carries it now.
    current: Option<PeerId>,
    /// Which was asked, and until when it may answer.
    asked: Option<(PeerId, Instant)>,
    is_stranded: bool,
}

#[derive(Debug)]
struct Place {
    relay: PeerId,
    not_before: Option<Instant>,
}

impl CircuitKeeper {
    /// Starts without circuits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells whether a circuit with this peer is allowed: ask it before taking an incoming one.
    #[must_use]
    pub fn is_allowed(&self, peer: PeerId) -> bool {
        !self.never.contains(&peer)
    }

    /// Takes the user's word on a contact: `relay = never`, or no longer.
    pub fn handle_policy(&mut self, now: Instant, peer: PeerId, is_never: bool) {
        if is_never {
            self.never.insert(peer);
        } else {
            self.never.remove(&peer);
        }
        self.advance(now, peer);
    }

    /// Takes note of where a peer can be called, best first; replaces what was known. Cut to [`PLACES_MAX`].
    pub fn handle_places(&mut self, now: Instant, peer: PeerId, relays: &[PeerId]) {
        let circuit = self.circuits.entry(peer).or_default();
        let waits = |relay: &PeerId| {
            circuit.places.iter().find(|place| place.relay == *relay).and_then(|place| place.not_before)
        };
        let place = |relay: &PeerId| Place { relay: *relay, not_before: waits(relay) };
        circuit.places = relays.iter().take(PLACES_MAX).map(place).collect();
        circuit.is_stranded = false;
        self.advance(now, peer);
    }

    /// Takes note that a circuit to a peer is wanted, or no longer.
    pub fn handle_wanted(&mut self, now: Instant, peer: PeerId, is_wanted: bool) {
        let circuit = self.circuits.entry(peer).or_default();
        circuit.is_wanted = is_wanted;
        circuit.is_stranded = false;
        self.advance(now, peer);
    }

    /// Takes note of a flow. The one before it is closed now, and not sooner.
    pub fn handle_opened(&mut self, now: Instant, peer: PeerId, relay: PeerId) {
        let Some(circuit) = self.circuits.get_mut(&peer) else { return };
        if circuit.asked.is_none_or(|(asked, _)| asked != relay) {
            // It comes after we gave up on it.
            self.events.push_back(CircuitEvent::Close { peer, relay });
            return;
        }
        circuit.asked = None;
        if let Some(old) = circuit.current.replace(relay).filter(|old| *old != relay) {
            self.events.push_back(CircuitEvent::Close { peer, relay: old });
        }
        self.advance(now, peer);
    }

    /// Takes note that a relay refused a flow to a peer, or that the flow ended.
    pub fn handle_failed(&mut self, now: Instant, peer: PeerId, relay: PeerId) {
        let Some(circuit) = self.circuits.get_mut(&peer) else { return };
        circuit.fail(now, relay);
        self.advance(now, peer);
    }

    /// Takes note that a relay died: every circuit over it moves.
    pub fn handle_relay_lost(&mut self, now: Instant, relay: PeerId) {
        self.for_all_over(relay, |circuit| circuit.fail(now, relay));
        self.advance_all(now);
    }

    /// Takes note that a relay drains: every circuit over it moves, and is carried until it has.
    pub fn handle_relay_drains(&mut self, now: Instant, relay: PeerId) {
        self.for_all_over(relay, |circuit| circuit.avoid(now, relay));
        let peers: Vec<PeerId> = self.circuits.keys().copied().collect();
        for peer in peers {
            self.ask_next(now, peer, Some(relay));
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for circuit in self.circuits.values_mut() {
            if let Some((relay, _)) = circuit.asked.filter(|(_, until)| *until <= now) {
                circuit.fail(now, relay);
            }
            let is_ready = |place: &Place| place.not_before.is_some_and(|at| at <= now);
            if circuit.is_stranded && circuit.places.iter().any(is_ready) {
                circuit.is_stranded = false;
            }
        }
        self.advance_all(now);
    }

    /// Returns what to do next, until there is nothing. Drain it after each `handle_*`.
    pub fn poll_event(&mut self) -> Option<CircuitEvent> {
        self.events.pop_front()
    }

    /// Returns when to call [`CircuitKeeper::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = |circuit: &Circuit| {
            let retry = circuit.places.iter().filter_map(|place| place.not_before).min();
            let retry = retry.filter(|_| circuit.is_stranded && circuit.is_wanted);
            [circuit.asked.map(|(_, until)| until), retry].into_iter().flatten().min()
        };
        self.circuits.values().filter_map(due).min()
    }

    /// Returns which relay carries the packets to a peer.
    #[must_use]
    pub fn relay_of(&self, peer: PeerId) -> Option<PeerId> {
        self.circuits.get(&peer)?.current
    }

    fn for_all_over(&mut self, relay: PeerId, change: impl FnMut(&mut Circuit)) {
        let uses = |circuit: &&mut Circuit| circuit.uses(relay);
        self.circuits.values_mut().filter(uses).for_each(change);
    }

    fn advance_all(&mut self, now: Instant) {
        let peers: Vec<PeerId> = self.circuits.keys().copied().collect();
        for peer in peers {
            self.advance(now, peer);
        }
    }

    fn advance(&mut self, now: Instant, peer: PeerId) {
        let is_allowed = self.is_allowed(peer);
        let Some(circuit) = self.circuits.get_mut(&peer) else { return };
        if circuit.is_wanted && is_allowed {
            if circuit.current.is_none() {
                self.ask_next(now, peer, None);
            }
            return;
        }
        circuit.asked = None;
        if let Some(relay) = circuit.current.take() {
            self.events.push_back(CircuitEvent::Close { peer, relay });
        }
        if circuit.places.is_empty() {
            self.circuits.remove(&peer);
        }
    }

    /// Asks the best place that is not to be avoided, unless one is asked already.
    fn ask_next(&mut self, now: Instant, peer: PeerId, moving_from: Option<PeerId>) {
        let Some(circuit) = self.circuits.get_mut(&peer) else { return };
        let is_moving = moving_from.is_some() && circuit.current == moving_from;
        if circuit.asked.is_some() || (moving_from.is_some() && !is_moving) {
            return;
        }
        let is_ready = |place: &&Place| place.not_before.is_none_or(|at| at <= now);
        if let Some(relay) = circuit.places.iter().find(is_ready).map(|place| place.relay) {
            circuit.asked = Some((relay, now + CONNECT_DEADLINE));
            self.events.push_back(CircuitEvent::Open { peer, relay });
        } else if !circuit.is_stranded {
            circuit.is_stranded = true;
            self.events.push_back(CircuitEvent::Stranded { peer });
        }
    }
}

impl Circuit {
    fn uses(&self, relay: PeerId) -> bool {
        self.current == Some(relay) || self.asked.is_some_and(|(asked, _)| asked == relay)
    }

    fn avoid(&mut self, now: Instant, relay: PeerId) {
        if let Some(place) = self.places.iter_mut().find(|place| place.relay == relay) {
            place.not_before = Some(now + PLACE_RETRY);
        }
        self.asked = self.asked.filter(|(asked, _)| *asked != relay);
    }

    fn fail(&mut self, now: Instant, relay: PeerId) {
        self.avoid(now, relay);
        self.current = self.current.filter(|current| *current != relay);
    }
}
