//! The race of connection attempts to one peer, in the manner of RFC 8305 ("happy eyeballs").
//!
//! Attempts start in the given order, one [`DIAL_STAGGER`] after the other: so close together that the slowest family
//! or a dead address costs nothing noticeable, and far enough apart that a peer on the same network answers before
//! packets go to all its other addresses. A failed attempt starts the next one at once. Never more than
//! [`ATTEMPTS_AT_ONCE_MAX`] run; when that many do and others wait, one that has been silent for [`PATIENCE`] makes
//! room. The first attempt that connects wins, and the caller ends all others. After [`DIAL_DEADLINE`] the race is over.
//!
//! The caller asks [`DialRace::poll_event`] until it says `None`, after every `handle_*` and at every `poll_timeout`.
//! Refuses to know: how an attempt is made, and what to do when none wins ([`crate::Backoff`] has an opinion).

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::Candidate;

/// Time between two starts. RFC 8305 s5 allows no less than 10 ms. A peer on the same network answers in 2 ms; with
/// half, a burst of Initials could fill the queue of a slow uplink; with double, eight dead addresses cost 160 ms.
pub const DIAL_STAGGER: Duration = Duration::from_millis(10);

/// Attempts that run at once. Each holds a connection state of some 50 KiB and repeats an Initial of 1,200 bytes.
pub const ATTEMPTS_AT_ONCE_MAX: usize = 8;

/// Silence after which an attempt makes room for a waiting one: two retransmissions of the Initial on a slow path.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Time for the whole race: longer than any path to a living peer needs, and short enough for a person to wait.
pub const DIAL_DEADLINE: Duration = Duration::from_secs(10);

/// What the caller shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialEvent {
    /// Start an attempt.
    Start(Candidate),
    /// End an attempt: another one won, another candidate waits, or the time is up.
    GiveUp(SocketAddr),
}

/// How the race stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialOutcome {
    /// Attempts run or wait.
    Racing,
    /// This one connected first.
    Won(SocketAddr),
    /// All failed, or there were none.
    AllFailed,
    /// [`DIAL_DEADLINE`] passed.
    TimedOut,
}

/// The race of connection attempts to one peer.
#[derive(Debug)]
pub struct DialRace {
    waiting: VecDeque<Candidate>,
    running: Vec<Attempt>,
    /// The earliest moment for the next start.
    next_start: Instant,
    deadline: Instant,
    end: Option<DialOutcome>,
}

#[derive(Debug)]
struct Attempt {
    addr: SocketAddr,
    started: Instant,
}

impl DialRace {
    /// Starts a race over candidates in the order in which they are to be tried; see [`crate::in_dial_order`].
    #[must_use]
    pub fn new(candidates: impl IntoIterator<Item = Candidate>, now: Instant) -> Self {
        let waiting = candidates.into_iter().collect();
        Self { waiting, running: Vec::new(), next_start: now, deadline: now + DIAL_DEADLINE, end: None }
    }

    /// Returns the next thing to do at `now`, until there is none.
    pub fn poll_event(&mut self, now: Instant) -> Option<DialEvent> {
        if self.end.is_none() && now >= self.deadline {
            self.end = Some(DialOutcome::TimedOut);
        }
        if self.end.is_some() {
            self.waiting.clear();
            return self.running.pop().map(|attempt| DialEvent::GiveUp(attempt.addr));
        }
        if self.waiting.is_empty() || now < self.next_start {
            return None;
        }
        if self.running.len() >= ATTEMPTS_AT_ONCE_MAX {
            let silent = self.running.iter().position(|attempt| now >= attempt.started + PATIENCE)?;
            return Some(DialEvent::GiveUp(self.running.remove(silent).addr));
        }
        let candidate = self.waiting.pop_front()?;
        self.running.push(Attempt { addr: candidate.addr, started: now });
        self.next_start = now + DIAL_STAGGER;
        Some(DialEvent::Start(candidate))
    }

    /// Returns when to ask again if nothing happens before; `None` once the race is over.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.end.is_some() || self.is_exhausted() {
            return None;
        }
        if self.waiting.is_empty() {
            return Some(self.deadline);
        }
        let mut due = self.next_start;
        if self.running.len() >= ATTEMPTS_AT_ONCE_MAX {
            let first_silent = self.running.iter().map(|attempt| attempt.started + PATIENCE).min();
            due = due.max(first_silent.unwrap_or(due));
        }
        Some(due.min(self.deadline))
    }

    /// Takes note that an attempt failed. The next one need not wait for the stagger.
    pub fn handle_failed(&mut self, addr: SocketAddr, now: Instant) {
        if let Some(index) = self.running.iter().position(|attempt| attempt.addr == addr) {
            self.running.remove(index);
            self.next_start = self.next_start.min(now);
        }
    }

    /// Takes note that an attempt connected: the race is over, and `poll_event` names the losers. A second winner is
    /// the caller's to close.
    pub fn handle_connected(&mut self, addr: SocketAddr) {
        if self.end.is_none() {
            self.end = Some(DialOutcome::Won(addr));
            self.running.retain(|attempt| attempt.addr != addr);
        }
    }

    /// Tells how the race stands.
    #[must_use]
    pub fn outcome(&self) -> DialOutcome {
        match self.end {
            Some(end) => end,
            None if self.is_exhausted() => DialOutcome::AllFailed,
            None => DialOutcome::Racing,
        }
    }

    fn is_exhausted(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{CANDIDATES_MAX, CandidateKind};

    #[test]
    fn attempts_start_one_stagger_after_the_other_in_the_given_order() {
        let mut now = origin();
        let start = now;
        let mut race = DialRace::new(candidates(3), now);
        let mut starts = Vec::new();
        while starts.len() < 3 {
            while let Some(DialEvent::Start(candidate)) = race.poll_event(now) {
                starts.push((candidate.addr.port(), now - start));
            }
            now = race.poll_timeout().unwrap();
        }
        assert_eq!(starts, [(1, Duration::ZERO), (2, DIAL_STAGGER), (3, 2 * DIAL_STAGGER)]);
        assert_eq!(race.poll_timeout(), Some(start + DIAL_DEADLINE));
    }

    #[test]
    fn a_near_peer_answers_before_its_other_addresses_are_bothered() {
        let now = origin();
        let mut race = DialRace::new(candidates(5), now);
        assert!(matches!(race.poll_event(now), Some(DialEvent::Start(_))));
        race.handle_connected(addr(1));
        assert_eq!(race.poll_event(now + DIAL_STAGGER), None);
        assert_eq!(race.outcome(), DialOutcome::Won(addr(1)));
        assert_eq!(race.poll_timeout(), None);
    }

    #[test]
    fn a_failed_attempt_starts_the_next_at_once() {
        let now = origin();
        let mut race = DialRace::new(candidates(2), now);
        race.poll_event(now);
        assert_eq!(race.poll_event(now), None);
        race.handle_failed(addr(1), now);
        assert!(
            matches!(race.poll_event(now), Some(DialEvent::Start(candidate)) if candidate.addr == addr(2))
        );
    }

    #[test]
    fn the_losers_are_given_up_when_one_wins() {
        let mut now = origin();
        let mut race = DialRace::new(candidates(3), now);
        for _ in 0..3 {
            race.poll_event(now);
            now += DIAL_STAGGER;
        }
        race.handle_connected(addr(2));
        let mut losers = vec![race.poll_event(now).unwrap(), race.poll_event(now).unwrap()];
        losers.sort_by_key(|event| format!("{event:?}"));
        assert_eq!(losers, [DialEvent::GiveUp(addr(1)), DialEvent::GiveUp(addr(3))]);
        assert_eq!(race.poll_event(now), None);
        race.handle_connected(addr(3));
        assert_eq!(race.outcome(), DialOutcome::Won(addr(2)), "a late winner changed the outcome");
    }

    #[test]
    fn silent_attempts_make_room_only_when_others_wait_and_patience_is_over() {
        let start = origin();
        let mut now = start;
        let mut race = DialRace::new(candidates(ATTEMPTS_AT_ONCE_MAX + 1), now);
        let mut given_up = Vec::new();
        while let Some(due) = race.poll_timeout().filter(|due| *due < start + DIAL_DEADLINE) {
            now = now.max(due);
            while let Some(event) = race.poll_event(now) {
                if let DialEvent::GiveUp(addr) = event {
                    given_up.push((addr, now - start));
                }
            }
        }
        assert_eq!(given_up, [(addr(1), PATIENCE)]);
    }

    #[test]
    fn a_peer_that_never_answers_ends_the_race_at_the_deadline() {
        let start = origin();
        let (outcome, ended, _) = run_to_the_end(DialRace::new(candidates(CANDIDATES_MAX), start), start);
        assert_eq!((outcome, ended - start), (DialOutcome::TimedOut, DIAL_DEADLINE));
    }

    #[test]
    fn no_candidates_are_a_race_that_is_over() {
        let mut race = DialRace::new([], origin());
        assert_eq!(race.poll_event(origin()), None);
        assert_eq!((race.outcome(), race.poll_timeout()), (DialOutcome::AllFailed, None));
    }

    #[test]
    fn all_attempts_failing_is_known_at_once() {
        let now = origin();
        let mut race = DialRace::new(candidates(4), now);
        for port in 1..=4 {
            assert!(matches!(race.poll_event(now), Some(DialEvent::Start(_))));
            race.handle_failed(addr(port), now);
        }
        assert_eq!(race.outcome(), DialOutcome::AllFailed);
    }

    proptest! {
        #[test]
        fn every_candidate_is_tried_once_and_never_too_many_run(count in 0..=CANDIDATES_MAX, fails: Vec<bool>) {
            let start = origin();
            let mut now = start;
            let mut race = DialRace::new(candidates(count), now);
            let (mut running, mut tried) = (Vec::new(), 0);
            let mut fails = fails.into_iter();
            while race.outcome() == DialOutcome::Racing {
                while let Some(event) = race.poll_event(now) {
                    match event {
                        DialEvent::Start(candidate) => { running.push(candidate.addr); tried += 1; }
                        DialEvent::GiveUp(addr) => running.retain(|other| *other != addr),
                    }
                    prop_assert!(running.len() <= ATTEMPTS_AT_ONCE_MAX);
                }
                if fails.next() == Some(true) && let Some(addr) = running.pop() {
                    race.handle_failed(addr, now);
                }
                if let Some(due) = race.poll_timeout() {
                    prop_assert!(due <= start + DIAL_DEADLINE);
                    now = now.max(due);
                }
            }
            while race.poll_event(now).is_some() {}
            prop_assert_eq!(tried, count, "{:?}", race.outcome());
        }
    }

    fn run_to_the_end(mut race: DialRace, start: Instant) -> (DialOutcome, Instant, usize) {
        let (mut now, mut starts) = (start, 0);
        loop {
            while let Some(event) = race.poll_event(now) {
                starts += usize::from(matches!(event, DialEvent::Start(_)));
            }
            match race.poll_timeout() {
                Some(due) => now = due,
                None => return (race.outcome(), now, starts),
            }
        }
    }

    fn candidates(count: usize) -> Vec<Candidate> {
        (1..).take(count).map(|port| Candidate { addr: addr(port), kind: CandidateKind::Host }).collect()
    }

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, 5], port))
    }

    #[expect(clippy::disallowed_methods, reason = "only where virtual time begins")]
    fn origin() -> Instant {
        Instant::now()
    }
}
