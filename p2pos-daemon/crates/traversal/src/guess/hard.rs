//! The hard side: opens sockets towards the easy side and answers the guess that arrives.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    guess::{ATTEMPT_DEADLINE, HITS, SOCKETS_MAX},
    probe::Probe,
    signal::{GuessStart, Signal},
};

/// Time between two sockets: 250 in a second leave a sixth of the host's probes to others.
const SPACING: Duration = Duration::from_millis(4);
/// Time between two hits: apart, so that one burst of loss does not take all three.
const HIT_SPACING: Duration = Duration::from_millis(20);
/// Slips that are covered when both sides predict: ports that others took between the last look and our sockets, both
/// sides together.
const SLIPS: u16 = 16;
/// How often each socket sends its guess when both sides predict: the peer's port may not be open at first.
const PREDICTED_ROUNDS: u16 = 4;
/// Time between these.
const PREDICTED_SPACING: Duration = Duration::from_millis(500);

/// Where the sockets aim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// All at the easy side's one address.
    At(SocketAddr),
    /// Each at the port that the other hard side's socket of the same number will be given: both NATs are sequential.
    Predicted {
        /// The other side's outside address.
        address: IpAddr,
        /// The outside port that it had last.
        base_port: u16,
        /// Its step.
        delta: i16,
        /// Whether we are the one who sends guesses and varies the aim. The other opens and waits.
        guesses: bool,
    },
}

/// What an attempt of the hard side begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HardSetup {
    /// Goes to the easy side when all sockets are open, so that no guess is spent on few; says how many they are.
    pub start: GuessStart,
    /// Where the sockets aim.
    pub aim: Aim,
    /// TTL of the packets that open ([`crate::opener::opener_ttl`]).
    pub ttl: u8,
}

/// What the caller shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HardEvent {
    /// Open a socket and send an [`Probe::Opener`] from it.
    Open {
        /// Its number, from 0 up.
        socket: u16,
        /// Where to.
        to: SocketAddr,
        /// Its TTL or hop limit.
        ttl: u8,
    },
    /// Send from a socket, with the usual TTL.
    Send {
        /// Its number.
        socket: u16,
        /// Where to.
        to: SocketAddr,
        /// What.
        probe: Probe,
    },
    /// Tell the peer.
    Signal(Signal),
    /// Close a socket.
    Close {
        /// Its number.
        socket: u16,
    },
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HardEnd {
    /// The peer is reached there, from this socket, which stays open.
    Hit {
        /// Its number.
        socket: u16,
        /// The peer.
        remote: SocketAddr,
    },
    /// No guess arrived.
    Silent,
    /// The caller had enough.
    Stopped,
}

/// The hard side of one attempt.
#[derive(Debug)]
pub struct HardSide {
    setup: HardSetup,
    sockets: u16,
    opened: u16,
    next_open: Instant,
    /// Guesses of our own, counted through all rounds; only where both sides predict.
    guesses_sent: u16,
    hits_due: VecDeque<Instant>,
    deadline: Instant,
    events: VecDeque<HardEvent>,
    end: Option<HardEnd>,
}

impl HardSide {
    /// Begins an attempt. The caller has asked its [`crate::guess::GuessLedger`].
    #[must_use]
    pub fn new(setup: HardSetup, now: Instant) -> Self {
        let sockets = setup.start.sockets.clamp(1, SOCKETS_MAX);
        Self {
            setup,
            sockets,
            opened: 0,
            next_open: now,
            guesses_sent: 0,
            hits_due: VecDeque::new(),
            deadline: now + ATTEMPT_DEADLINE,
            events: VecDeque::new(),
            end: None,
        }
    }

    /// Takes a guess that arrived at one of the sockets.
    pub fn handle_guess(&mut self, socket: u16, from: SocketAddr, token: u64, now: Instant) {
        if self.is_guesser() || !self.handle_met(socket, from, token) {
            return;
        }
        self.events.push_back(HardEvent::Signal(Signal::GuessHit { attempt: self.setup.start.attempt }));
        self.hits_due =
            (0..HITS).scan(now, |due, _| Some(std::mem::replace(due, *due + HIT_SPACING))).collect();
    }

    /// Takes a hit that arrived at one of the sockets, if it was us who guessed.
    pub fn handle_hit(&mut self, socket: u16, from: SocketAddr, token: u64) {
        if self.is_guesser() {
            self.handle_met(socket, from, token);
        }
    }

    /// Ends the attempt with a packet that can only come from the peer; `false` if it does not.
    fn handle_met(&mut self, socket: u16, from: SocketAddr, token: u64) -> bool {
        let is_ours = token == self.setup.start.token
            && socket < self.opened
            && from.ip().to_canonical() == self.peer_ip().to_canonical();
        if !is_ours || self.end.is_some() {
            return false;
        }
        self.end = Some(HardEnd::Hit { socket, remote: from });
        self.events.clear();
        let others = (0..self.opened).filter(|other| *other != socket);
        self.events.extend(others.map(|socket| HardEvent::Close { socket }));
        true
    }

    fn is_guesser(&self) -> bool {
        match self.setup.aim {
            Aim::At(_) | Aim::Predicted { guesses: false, .. } => false,
            Aim::Predicted { guesses: true, .. } => true,
        }
    }

    /// Ends the attempt: the path is there already, or the user left.
    pub fn stop(&mut self) {
        self.give_up(HardEnd::Stopped);
    }

    /// Returns the next thing to do at `now`, until there is none.
    pub fn poll_event(&mut self, now: Instant) -> Option<HardEvent> {
        if self.end.is_none() && now >= self.deadline {
            self.give_up(HardEnd::Silent);
        }
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if let Some(HardEnd::Hit { socket, remote }) = self.end {
            self.hits_due.pop_front_if(|due| now >= *due)?;
            let probe = Probe::Hit { token: self.setup.start.token };
            return Some(HardEvent::Send { socket, to: remote, probe });
        }
        if self.end.is_some() || now < self.next_open {
            return None;
        }
        if self.opened < self.sockets { Some(self.open_next(now)) } else { self.guess_next(now) }
    }

    /// Returns when `poll_event` is due; `None` when the attempt is over and all hits are sent.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.end {
            Some(_) => self.hits_due.front().copied(),
            None if self.opened < self.sockets || self.guesses_left() => {
                Some(self.next_open.min(self.deadline))
            }
            None => Some(self.deadline),
        }
    }

    /// Returns how the attempt ended, if it has.
    #[must_use]
    pub fn end(&self) -> Option<HardEnd> {
        self.end
    }

    fn open_next(&mut self, now: Instant) -> HardEvent {
        let socket = self.opened;
        self.opened += 1;
        self.next_open = now + SPACING;
        if self.opened == self.sockets && !self.is_guesser() {
            self.events.push_back(HardEvent::Signal(Signal::GuessStart(self.setup.start)));
        }
        HardEvent::Open { socket, to: self.target(socket), ttl: self.setup.ttl }
    }

    /// Both sides predict, and we guess: each socket sends at full TTL to where it aims, several times over.
    fn guess_next(&mut self, now: Instant) -> Option<HardEvent> {
        if !self.guesses_left() {
            return None;
        }
        let socket = self.guesses_sent % self.sockets;
        self.guesses_sent += 1;
        let is_last_of_round = self.guesses_sent.is_multiple_of(self.sockets);
        self.next_open = now + if is_last_of_round { PREDICTED_SPACING } else { SPACING };
        let probe = Probe::Guess { token: self.setup.start.token };
        Some(HardEvent::Send { socket, to: self.target(socket), probe })
    }

    fn guesses_left(&self) -> bool {
        match self.setup.aim {
            Aim::At(_) | Aim::Predicted { guesses: false, .. } => false,
            Aim::Predicted { guesses: true, .. } => self.guesses_sent < self.sockets * PREDICTED_ROUNDS,
        }
    }

    fn target(&self, socket: u16) -> SocketAddr {
        match self.setup.aim {
            Aim::At(easy) => easy,
            Aim::Predicted { address, base_port, delta, guesses } => {
                let slip = if guesses { socket % SLIPS } else { 0 };
                let steps = i32::from(socket) + 1 + i32::from(slip);
                let port = i32::from(base_port) + steps * i32::from(delta);
                // Beyond the last port nobody knows how the NAT goes on; the last one is as good as any.
                let port = u16::try_from(port.clamp(1, i32::from(u16::MAX))).unwrap_or(u16::MAX);
                SocketAddr::new(address, port)
            }
        }
    }

    fn peer_ip(&self) -> IpAddr {
        match self.setup.aim {
            Aim::At(easy) => easy.ip(),
            Aim::Predicted { address, .. } => address,
        }
    }

    fn give_up(&mut self, end: HardEnd) {
        if self.end.is_none() {
            self.end = Some(end);
            self.events.clear();
            self.events.extend((0..self.opened).map(|socket| HardEvent::Close { socket }));
        }
    }
}
