//! The easy side: sends guesses from the QUIC socket until one is answered.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    guess::{ATTEMPT_DEADLINE, GUESSES_MAX, GUESSES_PER_SECOND_MAX, PortGuesses, SOCKETS_MAX},
    probe::Probe,
    random::Random,
    signal::GuessStart,
};

/// Time between two guesses.
const SPACING: Duration = Duration::from_millis(1_000 / GUESSES_PER_SECOND_MAX as u64);
/// Time for a hit to arrive, when the relay has told of it or all guesses are out.
const HIT_WAIT: Duration = Duration::from_secs(1);
/// The relay path's round trip may grow by this factor before we are the reason.
const STRAIN_RTT_FACTOR: u32 = 3;
/// Below this a grown round trip is nothing: a scheduler's hiccup in a fast network.
const STRAIN_RTT_MIN: Duration = Duration::from_millis(100);
/// Packets lost on the relay path during an attempt before we are the reason.
const STRAIN_LOST_MAX: u32 = 8;

/// A guess to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutgoingGuess {
    /// Where.
    pub to: SocketAddr,
    /// What.
    pub probe: Probe,
}

/// How the relay path fares during an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strain {
    /// Its round trip.
    pub rtt: Duration,
    /// Packets lost since the attempt began.
    pub lost: u32,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuessEnd {
    /// The peer is reached there, from our QUIC socket.
    Hit(SocketAddr),
    /// The peer says that a guess arrived, but its hits were lost. It may open the path from its side.
    HitLost,
    /// All guesses were for nothing.
    Spent,
    /// The network suffered.
    Strained,
}

/// The easy side of one attempt.
#[derive(Debug)]
pub struct EasySide {
    start: GuessStart,
    ports: PortGuesses,
    sent: u32,
    next: Instant,
    /// When waiting ends: for the whole attempt, or for a hit that must come now.
    deadline: Instant,
    is_told: bool,
    first_rtt: Option<Duration>,
    end: Option<GuessEnd>,
}

impl EasySide {
    /// Takes up an invitation. The caller has asked its [`crate::guess::GuessLedger`] and that the address is one that
    /// may be sent to ([`crate::CandidateSet::add_from_peer`]).
    #[must_use]
    pub fn new(mut start: GuessStart, random: Random, now: Instant) -> Self {
        start.sockets = start.sockets.clamp(1, SOCKETS_MAX);
        let ports = PortGuesses::new(&start, random);
        let deadline = now + ATTEMPT_DEADLINE;
        Self { start, ports, sent: 0, next: now, deadline, is_told: false, first_rtt: None, end: None }
    }

    /// Returns the next guess, if one is due at `now`.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<OutgoingGuess> {
        if self.end.is_some() || !self.is_sending() || now < self.next {
            return None;
        }
        let port = self.ports.next()?;
        self.sent += 1;
        // A late call makes up for nothing: the rate is a promise to routers.
        self.next = now + SPACING;
        if self.sent == GUESSES_MAX {
            self.deadline = self.deadline.min(now + HIT_WAIT);
        }
        let to = SocketAddr::new(self.start.address, port);
        Some(OutgoingGuess { to, probe: Probe::Guess { token: self.start.token } })
    }

    /// Takes a hit that arrived at the QUIC socket.
    pub fn handle_hit(&mut self, from: SocketAddr, token: u64) {
        let is_ours =
            token == self.start.token && from.ip().to_canonical() == self.start.address.to_canonical();
        if is_ours && self.end.is_none() {
            self.end = Some(GuessEnd::Hit(from));
        }
    }

    /// Takes the peer's word that a guess arrived: no more are sent.
    pub fn handle_told_hit(&mut self, attempt: u32, now: Instant) {
        if attempt == self.start.attempt && !self.is_told {
            self.is_told = true;
            self.deadline = self.deadline.min(now + HIT_WAIT);
        }
    }

    /// Takes how the relay path fares; the first call says what is normal.
    pub fn handle_strain(&mut self, strain: Strain) {
        let normal = *self.first_rtt.get_or_insert(strain.rtt);
        let is_slow = strain.rtt > (normal * STRAIN_RTT_FACTOR).max(STRAIN_RTT_MIN);
        if self.end.is_none() && (is_slow || strain.lost > STRAIN_LOST_MAX) {
            self.end = Some(GuessEnd::Strained);
        }
    }

    /// Takes note that time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.end.is_none() && now >= self.deadline {
            self.end = Some(if self.is_told { GuessEnd::HitLost } else { GuessEnd::Spent });
        }
    }

    /// Returns when `poll_transmit` or `handle_timeout` is due; `None` when the attempt is over.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.end {
            Some(_) => None,
            None if self.is_sending() => Some(self.next.min(self.deadline)),
            None => Some(self.deadline),
        }
    }

    /// Returns how the attempt ended, if it has.
    #[must_use]
    pub fn end(&self) -> Option<GuessEnd> {
        self.end
    }

    /// Returns how many guesses were sent.
    #[must_use]
    pub fn sent(&self) -> u32 {
        self.sent
    }

    fn is_sending(&self) -> bool {
        self.sent < GUESSES_MAX && !self.is_told
    }
}
