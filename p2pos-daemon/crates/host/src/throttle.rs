//! How often the stream commands of one plugin may be started, as a pure machine: peers decide when, so without a bound a
//! peer could make us fork at will. Owns two bounds.
//!
//! - All starts: a bucket of [`BURST`] that fills by [`PER_SECOND`].
//! - Failures: a command that fails [`FREE_FAILURES`] times in a row is not started again for 1 s, doubling to 60 s. One
//!   good end clears the count.
//!
//! Whoever is turned away hears 306 NOT_READY and when to come again. Refuses to know: commands, peers, the clock.

use std::time::{Duration, Instant};

/// Starts that may come at once: what a busy minute of a few people needs. At half, a page of sixteen parts that is
/// fetched four times is slowed down.
const BURST: u32 = 64;
/// Starts a second in the long run. One start costs about 3 ms of a core (guard and program), so this is a seventh of one.
const PER_SECOND: u32 = 50;
/// Failures in a row that cost nothing: people mistype, networks break.
const FREE_FAILURES: u32 = 4;
/// The first pause after too many failures.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause: a command whose cause has gone is back within a minute.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The machine.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// Time at which the bucket would be full: each start moves it on by the time that one place takes to fill.
    full_at: Instant,
    failures: u32,
    not_before: Instant,
}

impl Throttle {
    pub(crate) fn new(now: Instant) -> Self {
        Self { full_at: now, failures: 0, not_before: now }
    }

    /// Asks for one start.
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub(crate) fn start(&mut self, now: Instant) -> Result<(), Duration> {
        if now < self.not_before {
            return Err(self.not_before - now);
        }
        let place = Duration::from_secs(1) / PER_SECOND;
        let full_at = self.full_at.max(now) + place;
        let ahead = full_at - now;
        if ahead > place * BURST {
            return Err(ahead - place * BURST);
        }
        self.full_at = full_at;
        Ok(())
    }

    /// A command has ended. Tells how long no other is started, if that is new.
    pub(crate) fn ended(&mut self, is_good: bool, now: Instant) -> Option<Duration> {
        if is_good {
            self.failures = 0;
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        let beyond = self.failures.checked_sub(FREE_FAILURES + 1)?;
        // Those that were started before the pause began fail into it; they do not make it longer.
        if now < self.not_before {
            self.failures -= 1;
            return None;
        }
        let pause = PAUSE_FIRST.saturating_mul(1 << beyond.min(6)).min(PAUSE_MAX);
        self.not_before = now + pause;
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_cannot_make_us_fork_at_will() {
        let begin = Instant::now();
        let mut throttle = Throttle::new(begin);
        let started = (0..1000).filter(|_| throttle.start(begin).is_ok()).count();
        assert_eq!(started, BURST as usize);
        let wait = throttle.start(begin).unwrap_err();
        assert_eq!(wait, Duration::from_millis(20), "when the next place is free");
        assert_eq!(throttle.start(begin + wait), Ok(()));
        let later = begin + Duration::from_secs(3600);
        let started = (0..1000).filter(|_| throttle.start(later).is_ok()).count();
        assert_eq!(started, BURST as usize, "an hour's rest saves up no more than the burst");
    }

    #[test]
    fn a_command_that_fails_again_and_again_is_started_less_and_less() {
        let mut now = Instant::now();
        let mut throttle = Throttle::new(now);
        for _ in 0..FREE_FAILURES {
            throttle.start(now).unwrap();
            assert_eq!(throttle.ended(false, now), None);
        }
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            throttle.start(now).unwrap();
            let pause = Duration::from_secs(seconds);
            assert_eq!(throttle.ended(false, now), Some(pause));
            assert_eq!(throttle.ended(false, now), None, "one that was still running");
            assert_eq!(throttle.start(now), Err(pause));
            now += pause;
        }
        throttle.start(now).unwrap();
        assert_eq!(throttle.ended(true, now), None);
        throttle.start(now).unwrap();
        assert_eq!(throttle.ended(false, now), None, "a good end clears the count");
        throttle.start(now).unwrap();
    }
}
