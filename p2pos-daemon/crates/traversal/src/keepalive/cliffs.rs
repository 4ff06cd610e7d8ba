//! One measurement: throw-away sockets, each silent for another while.

use std::time::{Duration, Instant};

use crate::keepalive::CLIFFS;

/// Pings that warm a binding, and the time between them: the first and the last are more than 2 s apart even if one of
/// three is lost.
const WARMING_PINGS: u8 = 3;
const WARMING_SPACING: Duration = Duration::from_millis(2_500);
/// What the first and last answer must be apart for Linux to remember a binding longer.
const WARM_AFTER: Duration = Duration::from_secs(2);
/// Time for an answer.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Times that the helper is asked for a knock.
const ASKS_MAX: u8 = 3;
/// The part of a cliff that is kept silent, in percent: a NAT whose timer is exactly one cliff passes it, and 0.8 of the
/// cliff is still well below what was proven.
const SILENT_PERCENT: u32 = 95;

/// What the caller shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CliffEvent {
    /// Send a [`crate::Probe::Ping`] to the helper from a throw-away socket of that number, made if it is not there.
    Ping {
        /// Its number, which is also its cliff's.
        socket: u8,
        /// The binding's token.
        token: u64,
    },
    /// Send a [`crate::Probe::Ask`] to the helper from the QUIC socket.
    Ask {
        /// The binding's token.
        token: u64,
    },
    /// Close a throw-away socket.
    Close {
        /// Its number.
        socket: u8,
    },
}

/// What a measurement found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survived {
    /// Bindings live so long at least.
    For(Duration),
    /// Not even the first cliff was survived.
    Nothing,
    /// The helper did not answer.
    Unknown,
}

/// One measurement. It takes as long as the first cliff that is not survived; at most five minutes.
#[derive(Debug)]
pub struct CliffProbe {
    first_token: u64,
    sockets: Vec<State>,
    /// The next socket to be closed, once all is known.
    closing: u8,
    result: Option<Survived>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Warming { sent: u8, next: Instant, first_answer: Option<Instant>, last_answer: Option<Instant> },
    Silent { until: Instant },
    Asking { sent: u8, next: Instant, is_answered: bool },
    Survived,
    Fell,
    Unknown,
}

impl CliffProbe {
    /// Starts. The helper was told of as many tokens as there are [`CLIFFS`], from `first_token` up, over the encrypted
    /// connection.
    #[must_use]
    pub fn new(first_token: u64, now: Instant) -> Self {
        let start = State::Warming { sent: 0, next: now, first_answer: None, last_answer: None };
        Self { first_token, sockets: vec![start; CLIFFS.len()], closing: 0, result: None }
    }

    /// Takes a [`crate::Probe::Pong`]: at a throw-away socket an answer to its ping, at the QUIC socket to our ask.
    pub fn handle_pong(&mut self, token: u64, now: Instant) {
        match self.state_of(token) {
            Some(State::Warming { first_answer, last_answer, .. }) => {
                first_answer.get_or_insert(now);
                *last_answer = Some(now);
            }
            Some(State::Asking { is_answered, .. }) => *is_answered = true,
            Some(State::Silent { .. } | State::Survived | State::Fell | State::Unknown) | None => {}
        }
    }

    /// Takes a [`crate::Probe::Knock`] at a throw-away socket: its binding lives.
    pub fn handle_knock(&mut self, token: u64) {
        if let Some(state @ State::Asking { .. }) = self.state_of(token) {
            *state = State::Survived;
        }
    }

    /// Returns the next thing to do at `now`, until there is none.
    pub fn poll_event(&mut self, now: Instant) -> Option<CliffEvent> {
        for socket in 0..self.sockets.len() {
            let token = self.first_token.wrapping_add(u64::try_from(socket).unwrap_or(0));
            let number = u8::try_from(socket).expect("there are seven cliffs");
            if self.result.is_none()
                && let Some(event) = self.step(socket, number, token, now)
            {
                return Some(event);
            }
        }
        self.conclude();
        let is_left = self.result.is_some() && usize::from(self.closing) < self.sockets.len();
        is_left.then(|| {
            self.closing += 1;
            CliffEvent::Close { socket: self.closing - 1 }
        })
    }

    /// Returns when `poll_event` is due; `None` when the measurement is over.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = |state: &State| match state {
            State::Warming { next, .. } | State::Asking { next, .. } => Some(*next),
            State::Silent { until } => Some(*until),
            State::Survived | State::Fell | State::Unknown => None,
        };
        if self.result.is_some() { None } else { self.sockets.iter().filter_map(due).min() }
    }

    /// Returns what was found, once it is.
    #[must_use]
    pub fn result(&self) -> Option<Survived> {
        self.result
    }

    fn step(&mut self, socket: usize, number: u8, token: u64, now: Instant) -> Option<CliffEvent> {
        let silence = CLIFFS[socket] * SILENT_PERCENT / 100;
        let state = &mut self.sockets[socket];
        match *state {
            State::Warming { sent, next, first_answer, last_answer } if now >= next => {
                if sent < WARMING_PINGS {
                    let wait = if sent + 1 < WARMING_PINGS { WARMING_SPACING } else { ANSWER_WAIT };
                    *state = State::Warming { sent: sent + 1, next: now + wait, first_answer, last_answer };
                    return Some(CliffEvent::Ping { socket: number, token });
                }
                *state = match (first_answer, last_answer) {
                    (Some(first), Some(last)) if last - first > WARM_AFTER => {
                        State::Silent { until: last + silence }
                    }
                    _ => State::Unknown,
                };
                None
            }
            State::Silent { until } if now >= until => {
                *state = State::Asking { sent: 1, next: now + ANSWER_WAIT, is_answered: false };
                Some(CliffEvent::Ask { token })
            }
            State::Asking { sent, next, is_answered } if now >= next => {
                if sent < ASKS_MAX {
                    *state = State::Asking { sent: sent + 1, next: now + ANSWER_WAIT, is_answered };
                    return Some(CliffEvent::Ask { token });
                }
                // A helper that is gone says nothing about our NAT.
                *state = if is_answered { State::Fell } else { State::Unknown };
                None
            }
            State::Warming { .. }
            | State::Silent { .. }
            | State::Asking { .. }
            | State::Survived
            | State::Fell
            | State::Unknown => None,
        }
    }

    /// All is known when every cliff before the first fall is.
    fn conclude(&mut self) {
        if self.result.is_some() {
            return;
        }
        let fall = self.sockets.iter().position(|state| *state == State::Fell);
        let before = &self.sockets[..fall.unwrap_or(self.sockets.len())];
        let is_open = |state: &State| match state {
            State::Warming { .. } | State::Silent { .. } | State::Asking { .. } => true,
            State::Survived | State::Fell | State::Unknown => false,
        };
        if before.iter().any(is_open) {
            return;
        }
        let longest = before.iter().rposition(|state| *state == State::Survived);
        self.result = Some(match (longest, fall) {
            (Some(index), _) => Survived::For(CLIFFS[index]),
            (None, Some(0)) => Survived::Nothing,
            (None, _) => Survived::Unknown,
        });
    }

    fn state_of(&mut self, token: u64) -> Option<&mut State> {
        let index = usize::try_from(token.wrapping_sub(self.first_token)).ok()?;
        self.sockets.get_mut(index)
    }
}
