//! What exists only while there is a connection: its paths with their watchdogs, the opener, and how far a round is.

use std::time::{Duration, Instant};

use crate::{
    choice::{PATHS_MAX, PathChoice, PathId, Tier},
    opener::Opener,
    signal::{GuessStart, Role},
    watchdog::{WatchEvent, Watchdog},
};

/// The round trip of a path that was not measured yet. Two patiences of it are 900 ms: a satellite's path is not called dead
/// before its first answer. Double would keep what was sent on a path that QUIC has just put in another's place, and that leads
/// nowhere, for two seconds.
const RTT_UNKNOWN: Duration = Duration::from_millis(150);
/// The same in round trips of the path in use, if that is less.
const RTT_UNKNOWN_FACTOR: u32 = 3;

/// The same for the path that carries the signals, RFC 9002 s6.2.2: waits for the peer's answers are made of it.
const SIGNALS_RTT_UNKNOWN: Duration = Duration::from_millis(333);

/// How far a round is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No round runs.
    Rest,
    /// Both sides open their NATs.
    Opening,
    /// QUIC punches.
    Punching { until: Instant, may_guess: bool },
    /// The caller finds our next outside port.
    Measuring { until: Instant, goal: Goal },
    /// A guess runs, or the peer's invitation is awaited.
    Guessing { until: Instant, is_running: bool },
}

/// What our next outside port is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// We are the hard side, the peer is easy.
    BeHard,
    /// Both go in steps; we invite.
    Invite,
    /// Both go in steps; the peer has invited, we open and wait.
    Await(GuessStart),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) role: Role,
    pub(super) choice: PathChoice,
    pub(super) opener: Opener,
    pub(super) phase: Phase,
    /// Guesses begun, for numbering them.
    pub(super) attempt: u32,
    /// The token of our own invitation to a peer that goes in steps too.
    pub(super) invited: Option<u64>,
    /// Rounds that the peer's word started, and since when they are counted.
    pub(super) peer_rounds: (u32, Instant),
    /// Round trip of the path in use, over which the signals go.
    pub(super) rtt: Duration,
    dogs: Vec<(PathId, Watchdog)>,
}

impl Link {
    pub(super) fn new(role: Role, path: PathId, tier: Tier, layers: Option<u8>, now: Instant) -> Self {
        let mut opener = Opener::new(role);
        opener.handle_layers(layers);
        Self {
            role,
            choice: PathChoice::new(role, path, tier, now),
            opener,
            phase: Phase::Rest,
            attempt: 0,
            invited: None,
            peer_rounds: (0, now),
            rtt: SIGNALS_RTT_UNKNOWN,
            dogs: vec![(path, Watchdog::new(RTT_UNKNOWN))],
        }
    }

    pub(super) fn handle_opened(&mut self, path: PathId, tier: Tier, now: Instant) {
        if self.dogs.len() < PATHS_MAX && self.dog(path).is_none() {
            let rtt = RTT_UNKNOWN.min(self.rtt.saturating_mul(RTT_UNKNOWN_FACTOR));
            self.dogs.push((path, Watchdog::new(rtt)));
            self.choice.handle_opened(path, tier);
            // It may be all that is left.
            self.choice.handle_timeout(now);
        }
    }

    /// Returns whether the path must be pinged again to be proven.
    pub(super) fn handle_answered(&mut self, path: PathId, rtt: Duration, now: Instant) -> bool {
        let Some(dog) = self.dog(path) else {
            return false;
        };
        dog.handle_rtt(rtt);
        dog.handle_heard(false, now);
        self.choice.handle_answered(path, rtt, now);
        self.take_rtt(path, rtt);
        !self.choice.is_proven(path)
    }

    pub(super) fn handle_sent(&mut self, path: PathId, now: Instant) {
        if let Some(dog) = self.dog(path) {
            dog.handle_sent(now);
        }
    }

    pub(super) fn handle_heard(&mut self, path: PathId, in_flight: bool, now: Instant) {
        if let Some(dog) = self.dog(path) {
            dog.handle_heard(in_flight, now);
        }
    }

    pub(super) fn handle_rtt(&mut self, path: PathId, rtt: Duration, now: Instant) {
        if let Some(dog) = self.dog(path) {
            dog.handle_rtt(rtt);
            self.choice.handle_rtt(path, rtt, now);
            self.take_rtt(path, rtt);
        }
    }

    fn take_rtt(&mut self, path: PathId, rtt: Duration) {
        if self.choice.chosen().is_some_and(|(chosen, _)| chosen == path) {
            self.rtt = rtt;
        }
    }

    /// Keeps a path that was called dead, if it is the only one; `false` if there are others.
    pub(super) fn keeps_last(&mut self, path: PathId, now: Instant) -> bool {
        let is_last = self.choice.count() <= 1;
        if is_last && let Some(dog) = self.dog(path) {
            dog.handle_kept(now);
        }
        is_last
    }

    /// The paths that are dead and were kept for want of another.
    pub(super) fn kept(&self) -> Vec<PathId> {
        self.dogs.iter().filter(|(_, dog)| dog.is_kept()).map(|(path, _)| *path).collect()
    }

    pub(super) fn handle_closed(&mut self, path: PathId, now: Instant) {
        self.dogs.retain(|(id, _)| *id != path);
        self.choice.handle_closed(path, now);
    }

    /// Direct paths are doubtful until they answer; a relay path has an address that does not move with us.
    pub(super) fn handle_network_change(&mut self, now: Instant) {
        self.opener.stop();
        let relays: Vec<PathId> = self.choice.relay_paths().collect();
        for path in self.path_ids().into_iter().filter(|path| !relays.contains(path)) {
            self.choice.handle_suspect(path, now);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.opener.handle_timeout(now);
        self.choice.handle_timeout(now);
        for (_, dog) in &mut self.dogs {
            dog.handle_timeout(now);
        }
    }

    pub(super) fn poll_watch(&mut self) -> Option<(PathId, WatchEvent)> {
        self.dogs.iter_mut().find_map(|(path, dog)| dog.poll_event().map(|event| (*path, event)))
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Rest | Phase::Opening => None,
            Phase::Punching { until, .. }
            | Phase::Measuring { until, .. }
            | Phase::Guessing { until, .. } => Some(until),
        };
        let dogs = self.dogs.iter().filter_map(|(_, dog)| dog.poll_timeout());
        dogs.chain(phase).chain(self.opener.poll_timeout()).chain(self.choice.poll_timeout()).min()
    }

    pub(super) fn path_ids(&self) -> Vec<PathId> {
        self.dogs.iter().map(|(path, _)| *path).collect()
    }

    pub(super) fn tier_in_use(&self) -> Option<Tier> {
        self.choice.chosen().map(|(_, tier)| tier)
    }

    pub(super) fn is_direct(&self) -> bool {
        self.tier_in_use().is_some_and(Tier::is_direct)
    }

    pub(super) fn is_suspect(&self) -> bool {
        let chosen = self.choice.chosen().map(|(path, _)| path);
        self.dogs.iter().any(|(path, dog)| Some(*path) == chosen && dog.is_suspect())
    }

    fn dog(&mut self, path: PathId) -> Option<&mut Watchdog> {
        self.dogs.iter_mut().find(|(id, _)| *id == path).map(|(_, dog)| dog)
    }
}
