//! When to try again after a failure: soon at first, then ever later, never in step with others.
//!
//! Each failure doubles the wait up to a maximum; a random part keeps a crowd that lost the same peer from returning
//! in one wave. Being connected does not reset the wait at once: a peer that accepts and falls over in a loop would
//! otherwise be hammered. Only a connection that stayed healthy for a while does. A changed network or a new address
//! is a new chance: [`Backoff::reset`].
//!
//! Refuses to know: what is tried, and randomness (the caller brings a number).

use std::time::{Duration, Instant};

/// Reconnection to a peer: at once after 1 s, then 2, 4, ... 60 s. Half the maximum would double the packets sent to
/// machines that are switched off for the night; double would let a returned friend wait two minutes.
pub const RECONNECT: BackoffSettings = BackoffSettings {
    first: Duration::from_secs(1),
    max: Duration::from_secs(60),
    healthy: Duration::from_secs(60),
};

/// The random part of a wait, in percent either way.
const JITTER_PERCENT: u32 = 20;

/// How a [`Backoff`] waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffSettings {
    /// The wait after the first failure.
    pub first: Duration,
    /// The longest wait, before the random part.
    pub max: Duration,
    /// How long a connection must last to make failures before it forgotten.
    pub healthy: Duration,
}

/// Says when to try again. Begins with "now".
#[derive(Debug)]
pub struct Backoff {
    settings: BackoffSettings,
    /// The wait that the next failure costs, before the random part.
    next_wait: Duration,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Try whenever there is a reason to.
    Ready,
    /// Not before this.
    Waiting {
        due: Instant,
    },
    Connected {
        since: Instant,
    },
}

impl Backoff {
    /// Starts without any failure.
    #[must_use]
    pub fn new(settings: BackoffSettings) -> Self {
        Self { settings, next_wait: settings.first, state: State::Ready }
    }

    /// Takes note of a failed try or a lost connection, and returns how long to wait. `random` is any evenly
    /// distributed number: 0 makes the wait shortest, `u32::MAX` longest.
    pub fn handle_failed(&mut self, now: Instant, random: u32) -> Duration {
        if let State::Connected { since } = self.state
            && now.saturating_duration_since(since) >= self.settings.healthy
        {
            self.next_wait = self.settings.first;
        }
        let wait = with_jitter(self.next_wait, random);
        self.next_wait = self.next_wait.saturating_mul(2).min(self.settings.max);
        self.state = State::Waiting { due: now + wait };
        wait
    }

    /// Takes note that a try succeeded.
    pub fn handle_connected(&mut self, now: Instant) {
        self.state = State::Connected { since: now };
    }

    /// Forgets all failures: the network or the peer's addresses changed.
    pub fn reset(&mut self) {
        self.next_wait = self.settings.first;
        if let State::Waiting { .. } = self.state {
            self.state = State::Ready;
        }
    }

    /// Tells whether a try may be made at `now`. Not while connected.
    #[must_use]
    pub fn may_try(&self, now: Instant) -> bool {
        match self.state {
            State::Ready => true,
            State::Waiting { due } => now >= due,
            State::Connected { .. } => false,
        }
    }

    /// Returns the end of the wait, if there is one.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { due } => Some(due),
            State::Ready | State::Connected { .. } => None,
        }
    }
}

fn with_jitter(wait: Duration, random: u32) -> Duration {
    let span = wait * 2 * JITTER_PERCENT / 100;
    let shortest = wait * (100 - JITTER_PERCENT) / 100;
    shortest + span.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The number with which the random part is nothing.
    const MIDDLE: u32 = u32::MAX / 2;

    #[test]
    fn waits_double_up_to_the_maximum() {
        let mut backoff = Backoff::new(RECONNECT);
        let waits: Vec<u64> = (0..9).map(|_| rounded_s(backoff.handle_failed(origin(), MIDDLE))).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn the_random_part_is_a_fifth_either_way() {
        let shortest = Backoff::new(RECONNECT).handle_failed(origin(), 0);
        let longest = Backoff::new(RECONNECT).handle_failed(origin(), u32::MAX);
        assert_eq!((shortest.as_millis(), longest.as_millis()), (800, 1200));
    }

    #[test]
    fn a_connection_that_fell_over_at_once_does_not_make_failures_forgotten() {
        let mut now = origin();
        let mut backoff = Backoff::new(RECONNECT);
        for _ in 0..4 {
            backoff.handle_failed(now, MIDDLE);
        }
        backoff.handle_connected(now);
        now += RECONNECT.healthy - Duration::from_millis(1);
        assert_eq!(rounded_s(backoff.handle_failed(now, MIDDLE)), 16);
    }

    #[test]
    fn a_minute_of_health_makes_failures_forgotten() {
        let mut now = origin();
        let mut backoff = Backoff::new(RECONNECT);
        for _ in 0..4 {
            backoff.handle_failed(now, MIDDLE);
        }
        backoff.handle_connected(now);
        assert!(!backoff.may_try(now));
        now += RECONNECT.healthy;
        assert_eq!(rounded_s(backoff.handle_failed(now, MIDDLE)), 1);
    }

    #[test]
    fn a_changed_network_is_a_new_chance_at_once() {
        let now = origin();
        let mut backoff = Backoff::new(RECONNECT);
        for _ in 0..6 {
            backoff.handle_failed(now, MIDDLE);
        }
        assert!(!backoff.may_try(now));
        backoff.reset();
        assert!(backoff.may_try(now));
        assert_eq!(backoff.poll_timeout(), None);
        assert_eq!(rounded_s(backoff.handle_failed(now, MIDDLE)), 1);
    }

    #[test]
    fn a_reset_does_not_disturb_a_connection() {
        let now = origin();
        let mut backoff = Backoff::new(RECONNECT);
        backoff.handle_connected(now);
        backoff.reset();
        assert!(!backoff.may_try(now));
    }

    #[test]
    fn trying_is_allowed_at_the_end_of_the_wait_and_not_before() {
        let now = origin();
        let mut backoff = Backoff::new(RECONNECT);
        assert!(backoff.may_try(now));
        let wait = backoff.handle_failed(now, 12345);
        let due = now + wait;
        assert_eq!(backoff.poll_timeout(), Some(due));
        assert!(!backoff.may_try(due - Duration::from_nanos(1)) && backoff.may_try(due));
    }

    proptest! {
        #[test]
        fn no_wait_is_ever_outside_its_bounds(randoms: Vec<u32>) {
            let mut backoff = Backoff::new(RECONNECT);
            for random in randoms {
                let wait = backoff.handle_failed(origin(), random);
                prop_assert!(wait >= RECONNECT.first * 8 / 10 && wait <= RECONNECT.max * 12 / 10);
            }
        }
    }

    fn rounded_s(wait: Duration) -> u64 {
        (wait + Duration::from_millis(500)).as_secs()
    }

    #[expect(clippy::disallowed_methods, reason = "only where virtual time begins")]
    fn origin() -> Instant {
        Instant::now()
    }
}
