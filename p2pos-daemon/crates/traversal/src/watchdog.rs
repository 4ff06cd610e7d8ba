//! Notices within a second that a path is dead.
//!
//! QUIC waits for its idle timeout, many seconds, with all data standing still. But whoever has sent something knows
//! when an answer is due: after one round trip, or a few if a packet was lost. So:
//!
//! 1. Something is in flight, and nothing was heard for [`patience`] = max(3 round trips, 200 ms): **suspect**. A ping
//!    goes out, and the relay path comes back, just in case.
//! 2. Nothing for the same time once more: **dead**. The path is closed, which sends its data again on the other.
//! 3. Anything heard in between: **alive**, and all is forgotten.
//!
//! Where nothing is in flight nothing is watched: an idle path may die quietly, the next word on it will show. And if we
//! ourselves were late (the laptop slept, the machine was busy) the fault is probably ours: the count starts anew.
//!
//! Refuses to know: packets, and what to do about it (`choice`, `plan`). One for each path.

use std::time::{Duration, Instant};

/// Shortest patience. QUIC sends what was in flight on a closed path again only when the peer has agreed and three of its probe
/// timeouts are over, some 300 ms on a path of 40 ms; so of the second that a cut may last, half is left for the two waits.
/// Half would call every hiccup of a radio network a death.
pub const PATIENCE_MIN: Duration = Duration::from_millis(200);
/// Longest patience: a satellite's round trip, three times.
pub const PATIENCE_MAX: Duration = Duration::from_secs(3);
/// Patience in round trips: one, one for a loss, one for a delayed acknowledgement.
const PATIENCE_RTTS: u32 = 3;
/// How late we may look before the fault is ours: more than a patience.
const LATE_MAX: Duration = Duration::from_millis(300);

/// What the watchdog has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchEvent {
    /// Nothing heard: ping the path, and call the relay back.
    Suspect,
    /// Nothing heard again: close the path.
    Dead,
    /// A suspected path was heard.
    Alive,
}

/// Watches one path.
#[derive(Debug)]
pub struct Watchdog {
    rtt: Duration,
    state: State,
    event: Option<WatchEvent>,
    /// It was called dead, and has not been heard since.
    is_kept: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is in flight.
    Quiet,
    /// Something is, with nothing heard since then.
    Waiting(Instant),
    /// Nothing came in time; the second wait began then.
    Suspect(Instant),
    Dead,
}

impl Watchdog {
    /// Starts with nothing in flight. `rtt`: the path's round trip, as far as it is known.
    #[must_use]
    pub fn new(rtt: Duration) -> Self {
        Self { rtt, state: State::Quiet, event: None, is_kept: false }
    }

    /// Takes note that something was sent on the path that must be answered: data, or a ping.
    pub fn handle_sent(&mut self, now: Instant) {
        if self.state == State::Quiet {
            self.state = State::Waiting(now);
        }
    }

    /// Takes note that something authentic came on the path. `in_flight`: whether more is still unanswered.
    pub fn handle_heard(&mut self, in_flight: bool, now: Instant) {
        match self.state {
            State::Dead => return,
            State::Suspect(_) => self.event = Some(WatchEvent::Alive),
            State::Quiet | State::Waiting(_) => {}
        }
        self.state = if in_flight { State::Waiting(now) } else { State::Quiet };
        self.is_kept = false;
    }

    /// Tells whether the path was called dead, was kept for want of another, and has not been heard since.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Takes the decision to keep a path that was called dead, because there is no other: the next word comes after
    /// [`PATIENCE_MAX`].
    pub fn handle_kept(&mut self, now: Instant) {
        if self.state == State::Dead {
            self.is_kept = true;
            self.state = State::Suspect(now + (PATIENCE_MAX - patience(self.rtt)));
        }
    }

    /// Takes the path's round trip.
    pub fn handle_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt;
    }

    /// Takes note that time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(due) = self.poll_timeout().filter(|due| now >= *due) else {
            return;
        };
        let is_our_fault = now.saturating_duration_since(due) > LATE_MAX;
        self.state = match self.state {
            State::Waiting(_) if is_our_fault => State::Waiting(now),
            State::Suspect(_) if is_our_fault => State::Suspect(now),
            State::Waiting(_) => {
                self.event = Some(WatchEvent::Suspect);
                State::Suspect(now)
            }
            State::Suspect(_) => {
                self.event = Some(WatchEvent::Dead);
                State::Dead
            }
            State::Quiet | State::Dead => self.state,
        };
    }

    /// Tells whether the path has been silent for too long.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        match self.state {
            State::Suspect(_) | State::Dead => true,
            State::Quiet | State::Waiting(_) => false,
        }
    }

    /// Returns what there is to say, until there is nothing.
    pub fn poll_event(&mut self) -> Option<WatchEvent> {
        self.event.take()
    }

    /// Returns when `handle_timeout` is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(since) | State::Suspect(since) => Some(since + patience(self.rtt)),
            State::Quiet | State::Dead => None,
        }
    }
}

/// Returns how long silence is normal on a path with such a round trip.
#[must_use]
pub fn patience(rtt: Duration) -> Duration {
    rtt.saturating_mul(PATIENCE_RTTS).clamp(PATIENCE_MIN, PATIENCE_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::origin;

    #[test]
    fn a_cut_path_is_suspect_after_200_ms_and_dead_after_400() {
        let start = origin();
        let mut dog = Watchdog::new(ms(20));
        dog.handle_sent(start);
        let mut said = Vec::new();
        while let Some(due) = dog.poll_timeout() {
            dog.handle_timeout(due);
            said.extend(dog.poll_event().map(|event| (event, due - start)));
        }
        assert_eq!(said, [(WatchEvent::Suspect, ms(200)), (WatchEvent::Dead, ms(400))]);
        dog.handle_heard(true, start + ms(700));
        assert_eq!((dog.poll_event(), dog.poll_timeout()), (None, None), "the dead stay dead");
    }

    #[test]
    fn a_path_that_is_kept_for_want_of_another_is_asked_after_every_three_seconds_and_can_come_back() {
        let start = origin();
        let mut dog = Watchdog::new(ms(20));
        dog.handle_sent(start);
        dog.handle_timeout(start + ms(200));
        dog.handle_timeout(start + ms(400));
        dog.poll_event();
        dog.handle_kept(start + ms(400));
        assert_eq!(dog.poll_timeout(), Some(start + ms(3_400)));
        dog.handle_timeout(start + ms(3_400));
        assert_eq!(dog.poll_event(), Some(WatchEvent::Dead));
        dog.handle_kept(start + ms(3_400));
        dog.handle_heard(false, start + ms(4_000));
        assert_eq!((dog.poll_event(), dog.is_suspect()), (Some(WatchEvent::Alive), false));
    }

    #[test]
    fn a_long_path_is_given_three_round_trips() {
        assert_eq!([ms(20), ms(250), Duration::MAX].map(patience), [ms(200), ms(750), ms(3_000)]);
    }

    #[test]
    fn an_idle_path_is_not_watched_however_long_it_is_silent() {
        let start = origin();
        let mut dog = Watchdog::new(ms(20));
        dog.handle_sent(start);
        dog.handle_heard(false, start + ms(20));
        dog.handle_timeout(start + Duration::from_secs(3_600));
        assert_eq!((dog.poll_event(), dog.poll_timeout()), (None, None));
    }

    #[test]
    fn more_data_does_not_postpone_the_suspicion() {
        let start = origin();
        let mut dog = Watchdog::new(ms(20));
        for step in 0..30 {
            dog.handle_sent(start + ms(10 * step));
        }
        assert_eq!(dog.poll_timeout(), Some(start + ms(200)));
    }

    #[test]
    fn a_suspected_path_that_is_heard_is_alive_again() {
        let start = origin();
        let mut dog = Watchdog::new(ms(20));
        dog.handle_sent(start);
        dog.handle_timeout(start + ms(200));
        assert_eq!(dog.poll_event(), Some(WatchEvent::Suspect));
        dog.handle_heard(true, start + ms(300));
        assert_eq!(dog.poll_event(), Some(WatchEvent::Alive));
        assert_eq!(dog.poll_timeout(), Some(start + ms(500)));
    }

    #[test]
    fn a_laptop_that_slept_does_not_call_its_paths_dead() {
        let start = origin();
        let mut dog = Watchdog::new(ms(20));
        dog.handle_sent(start);
        let morning = start + Duration::from_secs(8 * 3_600);
        dog.handle_timeout(morning);
        assert_eq!((dog.poll_event(), dog.poll_timeout()), (None, Some(morning + ms(200))));
        dog.handle_timeout(morning + ms(200));
        assert_eq!(dog.poll_event(), Some(WatchEvent::Suspect));
    }

    proptest! {
        #[test]
        fn a_path_that_answers_within_its_patience_is_never_suspected(
            rtt_ms in 1..2_000u64, answers in prop::collection::vec(1..100u64, 1..100),
        ) {
            let mut now = origin();
            let mut dog = Watchdog::new(ms(rtt_ms));
            let longest = u64::try_from(patience(ms(rtt_ms)).as_millis()).unwrap();
            for percent in answers {
                dog.handle_sent(now);
                now += ms(longest * percent / 100);
                dog.handle_timeout(now - ms(1));
                dog.handle_heard(percent % 2 == 0, now);
                prop_assert_eq!(dog.poll_event(), None);
            }
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }
}
