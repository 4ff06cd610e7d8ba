//! How many probes this host may send, to whom: what keeps a hostile candidate list from turning us into a weapon.
//!
//! Three rules, in this order. Nothing goes to a peer's candidates before its Noise handshake is done; the caller shows
//! that with [`Authenticated`]. One address (IP and port) gets at most [`PROBES_PER_CANDIDATE_MAX`] in
//! [`CANDIDATE_WINDOW`]; guesses, which go to many ports of one address, have a budget of their own in `guess`. And all
//! probes of this host together run through one token bucket of [`PROBES_PER_SECOND_MAX`].
//!
//! What a victim gets of these at most: [`crate::CANDIDATES_PER_ADDRESS_MAX`] ports x 9 = 36 packets of one byte a minute
//! from one deceived daemon. QUIC's own challenges are not probes of ours and come on top; the sockets bound them, to 96 packets a minute
//! for all ports of a host together (`probing` in transport, whose test lets a peer name 32 ports of one victim). That makes 132; the lab
//! counts both where a victim is named at one address and port (`victim`): 32 packets in the first minute.
//!
//! Refuses to know: what the probes are for. One budget for the whole host; whoever sends probes owns it.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Probes of this host in a second, all peers together. Half would make a burst of punches with thirty contacts after
/// a network change take seconds; double fills the session table of a small router (4,096 entries) in seven seconds.
pub const PROBES_PER_SECOND_MAX: u32 = 300;

/// Probes to one address within [`CANDIDATE_WINDOW`]: openers of two rounds and their repetitions.
pub const PROBES_PER_CANDIDATE_MAX: u32 = 9;

/// Time after which an address may get probes again.
pub const CANDIDATE_WINDOW: Duration = Duration::from_secs(60);

/// Addresses remembered at once: more than can be filled at [`PROBES_PER_SECOND_MAX`] with full use of each in a window.
/// When they are full, nothing goes to new ones until the oldest window ends.
pub const REMEMBERED_MAX: usize = 4_096;

/// Shows that the peer whose candidates are probed has proven who it is.
#[derive(Debug, Clone, Copy)]
pub struct Authenticated(());

impl Authenticated {
    /// To be called where a Noise handshake was completed, and nowhere else.
    #[must_use]
    pub fn by_handshake() -> Self {
        Self(())
    }
}

/// The host's budget of probes.
#[derive(Debug)]
pub struct ProbeBudget {
    /// Oldest window first.
    windows: VecDeque<Window>,
    /// Tokens, in nanoseconds of filling time, so that nothing is lost by rounding.
    filled: Duration,
    filled_at: Instant,
}

#[derive(Debug)]
struct Window {
    addr: SocketAddr,
    sent: u32,
    since: Instant,
}

/// Time in which one token is filled.
const TOKEN: Duration = Duration::from_nanos(1_000_000_000 / PROBES_PER_SECOND_MAX as u64);

/// A full bucket: a tenth of a second, so that "at most 300 in a second" is overdrawn by a tenth at worst.
const BUCKET: Duration = Duration::from_millis(100);

impl ProbeBudget {
    /// Starts with a full bucket.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { windows: VecDeque::new(), filled: BUCKET, filled_at: now }
    }

    /// Takes one probe to a candidate of a peer that has proven itself; `false` means: do not send.
    pub fn take(&mut self, addr: SocketAddr, _proof: Authenticated, now: Instant) -> bool {
        self.forget_ended_windows(now);
        let known = self.windows.iter().position(|window| window.addr == addr);
        let is_allowed = match known {
            Some(index) => self.windows[index].sent < PROBES_PER_CANDIDATE_MAX,
            None => self.windows.len() < REMEMBERED_MAX,
        };
        if !is_allowed || !self.take_token(now) {
            return false;
        }
        match known {
            Some(index) => self.windows[index].sent += 1,
            None => self.windows.push_back(Window { addr, sent: 1, since: now }),
        }
        true
    }

    /// Takes one guess: it counts for the host only, because each goes to another port.
    pub fn take_guess(&mut self, now: Instant) -> bool {
        self.take_token(now)
    }

    fn take_token(&mut self, now: Instant) -> bool {
        self.filled = (self.filled + now.saturating_duration_since(self.filled_at)).min(BUCKET);
        self.filled_at = self.filled_at.max(now);
        match self.filled.checked_sub(TOKEN) {
            Some(rest) => {
                self.filled = rest;
                true
            }
            None => false,
        }
    }

    fn forget_ended_windows(&mut self, now: Instant) {
        let is_over = |window: &Window| now.saturating_duration_since(window.since) >= CANDIDATE_WINDOW;
        while self.windows.front().is_some_and(is_over) {
            self.windows.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::origin;

    #[test]
    fn a_victim_gets_nine_probes_a_minute_and_no_more() {
        let start = origin();
        let mut budget = ProbeBudget::new(start);
        let mut sent = 0;
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            sent += u32::from(budget.take(addr(1), Authenticated::by_handshake(), now));
        }
        assert_eq!(sent, PROBES_PER_CANDIDATE_MAX);
        assert!(budget.take(addr(1), Authenticated::by_handshake(), start + CANDIDATE_WINDOW));
    }

    #[test]
    fn addresses_beyond_the_memory_get_nothing_until_a_window_ends() {
        let start = origin();
        let mut budget = ProbeBudget::new(start);
        let mut now = start;
        for port in 0..u16::try_from(REMEMBERED_MAX).unwrap() {
            assert!(budget.take(addr(port), Authenticated::by_handshake(), now));
            now += TOKEN;
        }
        assert!(!budget.take(addr(60_000), Authenticated::by_handshake(), now));
        assert!(budget.take(addr(60_000), Authenticated::by_handshake(), start + CANDIDATE_WINDOW));
    }

    proptest! {
        #[test]
        fn no_second_ever_sees_more_than_the_rate_and_its_tenth(gaps in prop::collection::vec(0..20_000u64, 1..2_000)) {
            let mut now = origin();
            let mut budget = ProbeBudget::new(now);
            let mut sent: VecDeque<Instant> = VecDeque::new();
            for (port, gap) in (0..).zip(gaps) {
                now += Duration::from_micros(gap);
                if budget.take(addr(port), Authenticated::by_handshake(), now) {
                    sent.push_back(now);
                }
                sent.retain(|at| now - *at < Duration::from_secs(1));
                prop_assert!(sent.len() <= 331, "{} in one second", sent.len());
            }
        }
    }

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([45, 0, 0, 1], port))
    }
}
