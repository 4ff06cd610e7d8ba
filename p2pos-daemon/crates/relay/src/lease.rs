//! The user's side, part one: two leases, kept for ever.
//!
//! Somebody behind a router that lets nobody in is reached through relays, so they must be there before they are
//! needed. The keeper takes the two nearest relays that answer, in different networks (an IPv4 /16, an IPv6 /32), so
//! that one provider's bad day takes one of them. It renews at half of the lease, and whatever fails is tried again,
//! later and later up to ten minutes, without end: reservations that were lost and never re-made are what users of
//! other systems report most (iroh #4476, go-libp2p #3290).
//!
//! What is published lags behind on purpose: a relay that is leaving stays published until its successor is, and one
//! that lost its connection is taken out after ten seconds, since callers would wait for nothing.
//!
//! A pure machine. Refuses to know: addresses beyond their network, how a request is written, circuits (`circuit`).

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use p2pos_identity::PeerId;
use sha2::{Digest as _, Sha256};

use crate::{Refusal, TOKEN_BYTES};

/// Leases that a user keeps. One more would be one more idle connection to keep alive; one fewer leaves nothing when a
/// relay goes down.
pub const LEASES: usize = 2;

/// Relays that are remembered to choose from.
pub const RELAYS_KNOWN_MAX: usize = 16;

/// How long a connection and a reservation may each take.
pub const STEP_DEADLINE: Duration = Duration::from_secs(5);

/// The first wait after a failure; doubled each time.
pub const RETRY_FIRST: Duration = Duration::from_secs(1);

/// The longest wait after failures.
pub const RETRY_MAX: Duration = Duration::from_secs(600);

/// How long a lease without a connection stays published.
pub const UNPUBLISH_AFTER: Duration = Duration::from_secs(10);

/// How long after a change of network the relays are asked whether they still hear us: the new address needs a moment.
pub const CHECK_AFTER: Duration = Duration::from_millis(100);

/// How long a relay has to answer such a question. With the wait before it, a dead relay is known in 1.1 s.
pub const CHECK_DEADLINE: Duration = Duration::from_secs(1);

/// Returns the token that a user with this secret shows to this relay, always the same: friends who hold it need not learn
/// another one after a restart. A relay cannot tell from it which token the user has elsewhere (RELAY.md section 5).
#[must_use]
pub fn token_for(secret: &[u8; 32], relay: &PeerId) -> [u8; TOKEN_BYTES] {
    let hash = Sha256::new()
        .chain_update(b"p2pos relay token 1")
        .chain_update(secret)
        .chain_update(relay.as_bytes())
        .finalize();
    *hash.first_chunk().expect("32 bytes begin with 16")
}

/// What the keeper wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseEvent {
    /// Connect to this relay, afresh; answer with `handle_connected` or `handle_lost`.
    Connect(PeerId),
    /// Ask this relay for a lease, or for more time; answer with `handle_leased` or `handle_refused`.
    Reserve(PeerId),
    /// Ask whether this relay hears us; answer with `handle_alive`.
    Check(PeerId),
    /// This relay is of no more use: close what there is to it.
    Release(PeerId),
    /// Publish exactly these relays. Replaces what was published before.
    Publish(Vec<PeerId>),
}

/// Keeps leases.
#[derive(Debug, Default)]
pub struct LeaseKeeper {
    relays: BTreeMap<PeerId, Known>,
    published: Vec<PeerId>,
    events: VecDeque<LeaseEvent>,
}

/// A relay as the user knows it.
#[derive(Debug)]
struct Known {
    network: Network,
    rtt: Option<Duration>,
    failures: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not used; not before this moment.
    Spare {
        not_before: Option<Instant>,
    },
    Connecting {
        until: Instant,
    },
    /// Asked; `lease` is what is still good meanwhile.
    Reserving {
        until: Instant,
        lease: Option<Term>,
    },
    Leased {
        lease: Term,
        check: Check,
    },
    /// The connection is gone, the lease may still be good.
    Broken {
        since: Instant,
        lease: Term,
        until: Instant,
    },
    /// It goes down; still good until then.
    Leaving {
        until: Instant,
    },
}

/// The times of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Term {
    renew_at: Instant,
    ends_at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    None,
    Due(Instant),
    Asked { until: Instant },
}

/// What fails together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    V4([u8; 2]),
    V6([u8; 4]),
}

impl LeaseKeeper {
    /// Starts without relays.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes note of a relay that may be used, or of its new address or round trip. Beyond [`RELAYS_KNOWN_MAX`], the
    /// farthest unused one is forgotten.
    pub fn handle_known(&mut self, now: Instant, relay: PeerId, address: IpAddr, rtt: Option<Duration>) {
        let network = Network::of(address);
        match self.relays.get_mut(&relay) {
            Some(known) => {
                known.network = network;
                known.rtt = rtt.or(known.rtt);
            }
            None => {
                let state = State::Spare { not_before: None };
                self.relays.insert(relay, Known { network, rtt, failures: 0, state });
                self.forget_beyond_limit();
            }
        }
        self.advance(now);
    }

    /// Takes note that the user no longer wants a relay.
    pub fn handle_forgotten(&mut self, now: Instant, relay: PeerId) {
        if self.relays.remove(&relay).is_some_and(|known| known.is_in_use()) {
            self.events.push_back(LeaseEvent::Release(relay));
        }
        self.advance(now);
    }

    /// Takes note of a connection to a relay, with its round trip.
    pub fn handle_connected(&mut self, now: Instant, relay: PeerId, rtt: Duration) {
        let is_full = self.in_use() >= LEASES;
        let Some(known) = self.relays.get_mut(&relay) else { return };
        known.rtt = Some(rtt);
        let lease = match known.state {
            State::Connecting { .. } => None,
            // Others took its place meanwhile; until they have their leases, it stays published.
            State::Broken { lease, .. } if is_full => {
                known.state = State::Leaving { until: lease.ends_at.min(now + STEP_DEADLINE) };
                return self.advance(now);
            }
            State::Broken { lease, .. } => Some(lease),
            State::Spare { .. } | State::Reserving { .. } | State::Leased { .. } | State::Leaving { .. } => {
                return;
            }
        };
        known.state = State::Reserving { until: now + STEP_DEADLINE, lease };
        self.events.push_back(LeaseEvent::Reserve(relay));
    }

    /// Takes note that a connection to a relay ended, or could not be made.
    pub fn handle_lost(&mut self, now: Instant, relay: PeerId) {
        let Some(known) = self.relays.get_mut(&relay) else { return };
        match known.state {
            State::Leased { lease, .. } | State::Reserving { lease: Some(lease), .. } => {
                known.state = State::Broken { since: now, lease, until: now + STEP_DEADLINE };
                self.events.push_back(LeaseEvent::Connect(relay));
            }
            State::Connecting { .. } | State::Reserving { lease: None, .. } => known.fail(now),
            // It failed at once; the lease is still good for a moment.
            State::Broken { since, lease, .. } => {
                known.state = State::Broken { since, lease, until: now + RETRY_FIRST };
            }
            State::Leaving { .. } => known.state = State::Spare { not_before: Some(now + RETRY_MAX) },
            State::Spare { .. } => {}
        }
        self.advance(now);
    }

    /// Takes note of a lease for so long.
    pub fn handle_leased(&mut self, now: Instant, relay: PeerId, lasts: Duration) {
        let Some(known) = self.relays.get_mut(&relay) else { return };
        if matches!(known.state, State::Reserving { .. } | State::Leased { .. }) {
            known.failures = 0;
            // Not below the deadline of a step: a relay that grants seconds would be asked without pause.
            let lasts = lasts.max(STEP_DEADLINE * 4);
            let lease = Term { renew_at: now + lasts / 2, ends_at: now + lasts };
            known.state = State::Leased { lease, check: Check::None };
        }
        self.advance(now);
    }

    /// Takes note of a refusal. What to do about a stamp is the caller's: it asks again and answers with
    /// `handle_leased`, within [`STEP_DEADLINE`] or after the next try.
    pub fn handle_refused(&mut self, now: Instant, relay: PeerId, refusal: &Refusal) {
        let Some(known) = self.relays.get_mut(&relay) else { return };
        if !matches!(known.state, State::Reserving { .. }) {
            return;
        }
        match refusal {
            Refusal::StampNeeded { .. } => return,
            Refusal::Full { retry_after } => {
                known.fail(now);
                known.not_before(now + *retry_after);
            }
            Refusal::NotServed | Refusal::Relayed | Refusal::Address | Refusal::Draining => {
                known.fail(now);
                known.not_before(now + RETRY_MAX);
            }
            Refusal::TooManyFlows | Refusal::NoLease | Refusal::NoFlow => known.fail(now),
        }
        self.events.push_back(LeaseEvent::Release(relay));
        self.advance(now);
    }

    /// Takes note that a relay goes down after `grace`. Its successor is sought at once.
    pub fn handle_drain(&mut self, now: Instant, relay: PeerId, grace: Duration) {
        let Some(known) = self.relays.get_mut(&relay) else { return };
        if known.is_in_use() {
            known.state = State::Leaving { until: now + grace };
        }
        self.advance(now);
    }

    /// Takes note that this machine's network changed: every relay is asked whether it hears us.
    pub fn handle_network_changed(&mut self, now: Instant) {
        for known in self.relays.values_mut() {
            known.failures = 0;
            match &mut known.state {
                State::Leased { check, .. } => *check = Check::Due(now + CHECK_AFTER),
                State::Spare { not_before } => *not_before = None,
                State::Connecting { .. }
                | State::Reserving { .. }
                | State::Broken { .. }
                | State::Leaving { .. } => {}
            }
        }
        self.advance(now);
    }

    /// Takes note that a relay answered a check.
    pub fn handle_alive(&mut self, relay: PeerId) {
        if let Some(Known { state: State::Leased { check, .. }, .. }) = self.relays.get_mut(&relay) {
            *check = Check::None;
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due: Vec<PeerId> = self.relays.keys().copied().collect();
        for relay in due {
            self.expire(now, relay);
        }
        self.advance(now);
    }

    /// Returns what to do next, until there is nothing. Drain it after each `handle_*`.
    pub fn poll_event(&mut self) -> Option<LeaseEvent> {
        self.events.pop_front()
    }

    /// Returns when to call [`LeaseKeeper::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let in_use = self.in_use();
        self.relays.values().filter_map(|known| known.due(in_use < LEASES)).min()
    }

    /// Returns the relays through which we can be called now, nearest first.
    #[must_use]
    pub fn published(&self) -> &[PeerId] {
        &self.published
    }

    fn expire(&mut self, now: Instant, relay: PeerId) {
        let is_outdone = self.is_outdone(now, relay);
        let Some(known) = self.relays.get_mut(&relay) else { return };
        match known.state {
            State::Leased { lease, .. } if now >= lease.renew_at && is_outdone => {
                known.state = State::Leaving { until: lease.ends_at };
            }
            State::Leased { lease, .. } if now >= lease.renew_at => {
                known.state = State::Reserving { until: now + STEP_DEADLINE, lease: Some(lease) };
                self.events.push_back(LeaseEvent::Reserve(relay));
            }
            State::Leased { lease, check: Check::Due(at) } if now >= at => {
                known.state = State::Leased { lease, check: Check::Asked { until: now + CHECK_DEADLINE } };
                self.events.push_back(LeaseEvent::Check(relay));
            }
            State::Leased { check: Check::Asked { until }, .. } if now >= until => {
                self.handle_lost(now, relay);
            }
            State::Reserving { until, .. } if now >= until => self.handle_lost(now, relay),
            State::Broken { since, lease, .. } if now >= (since + UNPUBLISH_AFTER).min(lease.ends_at) => {
                known.fail(now);
            }
            State::Broken { since, lease, until } if now >= until => {
                known.state = State::Broken { since, lease, until: now + STEP_DEADLINE };
                self.events.push_back(LeaseEvent::Connect(relay));
            }
            State::Connecting { until } if now >= until => {
                known.fail(now);
                self.events.push_back(LeaseEvent::Release(relay));
            }
            State::Leaving { until } if now >= until => {
                known.state = State::Spare { not_before: Some(now + RETRY_MAX) };
                self.events.push_back(LeaseEvent::Release(relay));
            }
            State::Spare { .. }
            | State::Connecting { .. }
            | State::Reserving { .. }
            | State::Leased { .. }
            | State::Broken { .. }
            | State::Leaving { .. } => {}
        }
    }

    /// Tells whether a relay less than half as far away could take this one's place.
    fn is_outdone(&self, now: Instant, relay: PeerId) -> bool {
        let others = || self.relays.iter().filter(|(other, _)| **other != relay).map(|(_, known)| known);
        let is_free = |network| !others().any(|known| known.holds_place() && known.network == network);
        let Some(rtt) = self.relays.get(&relay).and_then(|known| known.rtt) else { return false };
        others().any(|known| {
            let is_near = known.rtt.is_some_and(|nearer| nearer * 2 < rtt);
            is_near && known.failures == 0 && known.is_ready(now) && is_free(known.network)
        })
    }

    /// Fills free places with the nearest relays of other networks, then publishes what changed.
    fn advance(&mut self, now: Instant) {
        while self.in_use() < LEASES {
            let taken: Vec<Network> =
                self.relays.values().filter(|known| known.holds_place()).map(|known| known.network).collect();
            let next = self
                .relays
                .iter_mut()
                .filter(|(_, known)| known.is_ready(now) && !taken.contains(&known.network))
                .min_by_key(|(_, known)| (known.failures, known.rtt.unwrap_or(Duration::MAX)));
            let Some((relay, known)) = next else { break };
            known.state = State::Connecting { until: now + STEP_DEADLINE };
            self.events.push_back(LeaseEvent::Connect(*relay));
        }
        self.publish(now);
    }

    fn publish(&mut self, now: Instant) {
        let callable = |known: &Known| known.is_callable(now);
        let mut good: Vec<(&PeerId, &Known)> =
            self.relays.iter().filter(|(_, known)| callable(known)).collect();
        // Somebody who leaves is shown until enough others are there.
        let staying = good.iter().filter(|(_, known)| !known.is_leaving()).count();
        good.retain(|(_, known)| !known.is_leaving() || staying < LEASES);
        good.sort_by_key(|(_, known)| (known.is_leaving(), known.rtt.unwrap_or(Duration::MAX)));
        let good: Vec<PeerId> = good.into_iter().map(|(relay, _)| *relay).collect();
        if good != self.published {
            self.published.clone_from(&good);
            self.events.push_back(LeaseEvent::Publish(good));
        }
    }

    fn in_use(&self) -> usize {
        self.relays.values().filter(|known| known.holds_place()).count()
    }

    fn forget_beyond_limit(&mut self) {
        if self.relays.len() <= RELAYS_KNOWN_MAX {
            return;
        }
        let spare = self.relays.iter().filter(|(_, known)| !known.is_in_use());
        let farthest = spare.max_by_key(|(_, known)| (known.failures, known.rtt.unwrap_or(Duration::MAX)));
        if let Some(relay) = farthest.map(|(relay, _)| *relay) {
            self.relays.remove(&relay);
        }
    }
}

impl Known {
    fn fail(&mut self, now: Instant) {
        let wait = RETRY_FIRST.saturating_mul(1 << self.failures.min(10)).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Spare { not_before: Some(now + wait) };
    }

    fn not_before(&mut self, at: Instant) {
        if let State::Spare { not_before } = &mut self.state {
            *not_before = (*not_before).max(Some(at));
        }
    }

    fn is_ready(&self, now: Instant) -> bool {
        matches!(self.state, State::Spare { not_before } if not_before.is_none_or(|at| at <= now))
    }

    fn is_in_use(&self) -> bool {
        !matches!(self.state, State::Spare { .. })
    }

    fn is_leaving(&self) -> bool {
        matches!(self.state, State::Leaving { .. })
    }

    /// Tells whether it is one of the two: who leaves, or is not there, no longer is, so that another is sought at once.
    fn holds_place(&self) -> bool {
        match self.state {
            State::Connecting { .. } | State::Reserving { .. } | State::Leased { .. } => true,
            State::Spare { .. } | State::Broken { .. } | State::Leaving { .. } => false,
        }
    }

    fn is_callable(&self, now: Instant) -> bool {
        match self.state {
            State::Leased { .. } | State::Leaving { .. } | State::Reserving { lease: Some(_), .. } => true,
            State::Broken { since, .. } => now < since + UNPUBLISH_AFTER,
            State::Spare { .. } | State::Connecting { .. } | State::Reserving { lease: None, .. } => false,
        }
    }

    fn due(&self, is_place_free: bool) -> Option<Instant> {
        match self.state {
            State::Spare { not_before } => not_before.filter(|_| is_place_free),
            State::Connecting { until } | State::Reserving { until, .. } | State::Leaving { until } => {
                Some(until)
            }
            State::Broken { since, lease, until } => {
                Some(until.min(lease.ends_at).min(since + UNPUBLISH_AFTER))
            }
            State::Leased { lease, check } => Some(match check {
                Check::None => lease.renew_at,
                Check::Due(at) | Check::Asked { until: at } => at.min(lease.renew_at),
            }),
        }
    }
}

impl Network {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(ip) => {
                let [first, second, ..] = ip.octets();
                Self::V4([first, second])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.octets();
                Self::V6([a, b, c, d])
            }
        }
    }
}
