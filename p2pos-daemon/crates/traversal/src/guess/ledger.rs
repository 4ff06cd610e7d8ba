//! Whether this host may guess now: one attempt at a time, and rest after failures.

use std::{
    collections::VecDeque,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::guess::{ATTEMPT_DEADLINE, ATTEMPTS_MAX, REST};

/// Pairs of networks remembered. Beyond, nothing new is tried until the oldest has rested.
const PAIRS_MAX: usize = 256;

/// Two networks between which guessing is worth while or not, whoever is in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkPair {
    /// Names our network in any way that another network has not.
    pub ours: u64,
    /// The peer's outside address.
    pub theirs: IpAddr,
}

/// Why no attempt may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotNow {
    /// Another attempt runs in this host.
    Busy,
    /// This pair of networks rests after failures, for so long.
    Resting(Duration),
}

/// What the whole host has guessed lately. Both sides of an attempt keep one.
#[derive(Debug, Default)]
pub struct GuessLedger {
    running: Option<(NetworkPair, Instant)>,
    /// Failures, the oldest pair first.
    failures: VecDeque<Failures>,
}

#[derive(Debug)]
struct Failures {
    pair: NetworkPair,
    count: u32,
    last: Instant,
}

impl GuessLedger {
    /// Starts empty.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins an attempt. It counts as failed until [`GuessLedger::end`] says otherwise.
    ///
    /// # Errors
    /// [`NotNow`] says what stands in the way.
    pub fn begin(&mut self, pair: NetworkPair, now: Instant) -> Result<(), NotNow> {
        // An attempt whose end was never told ends with its deadline, or a lost peer would block all others.
        if self.running.is_some_and(|(_, since)| now < since + ATTEMPT_DEADLINE) {
            return Err(NotNow::Busy);
        }
        self.failures.retain(|old| now < old.last + REST);
        let is_full = self.failures.len() >= PAIRS_MAX;
        let oldest = self.failures.front().map_or(now, |old| old.last);
        match self.failures.iter_mut().find(|old| old.pair == pair) {
            Some(old) if old.count >= ATTEMPTS_MAX => {
                return Err(NotNow::Resting((old.last + REST).saturating_duration_since(now)));
            }
            Some(old) => (old.count, old.last) = (old.count + 1, now),
            None if is_full => {
                return Err(NotNow::Resting((oldest + REST).saturating_duration_since(now)));
            }
            None => self.failures.push_back(Failures { pair, count: 1, last: now }),
        }
        self.running = Some((pair, now));
        Ok(())
    }

    /// Ends the attempt that runs. A hit makes earlier failures of the pair forgotten.
    pub fn end(&mut self, is_hit: bool) {
        if let Some((pair, _)) = self.running.take()
            && is_hit
        {
            self.failures.retain(|old| old.pair != pair);
        }
    }

    /// Forgets all failures: our network changed.
    pub fn handle_network_change(&mut self) {
        self.failures.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::origin;

    #[test]
    fn a_second_attempt_waits_for_the_first() {
        let now = origin();
        let mut ledger = GuessLedger::new();
        assert_eq!(ledger.begin(pair(1), now), Ok(()));
        assert_eq!(ledger.begin(pair(2), now), Err(NotNow::Busy));
        ledger.end(false);
        assert_eq!(ledger.begin(pair(2), now), Ok(()));
        assert_eq!(ledger.begin(pair(3), now + ATTEMPT_DEADLINE), Ok(()), "the end was never told");
    }

    #[test]
    fn two_failures_give_the_pair_an_hour_of_rest_and_a_hit_none() {
        let now = origin();
        let mut ledger = GuessLedger::new();
        for _ in 0..ATTEMPTS_MAX {
            ledger.begin(pair(1), now).unwrap();
            ledger.end(false);
        }
        let later = now + REST / 4;
        assert_eq!(ledger.begin(pair(1), later), Err(NotNow::Resting(REST * 3 / 4)));
        for _ in 0..5 {
            ledger.begin(pair(2), now).unwrap();
            ledger.end(true);
        }
        assert_eq!(ledger.begin(pair(1), now + REST), Ok(()));
    }

    #[test]
    fn a_full_memory_is_a_rest_and_another_network_a_new_chance() {
        let now = origin();
        let mut ledger = GuessLedger::new();
        for ours in 0..u64::try_from(PAIRS_MAX).unwrap() {
            ledger.begin(pair(ours), now).unwrap();
            ledger.end(false);
        }
        assert_eq!(ledger.begin(pair(999), now), Err(NotNow::Resting(REST)));
        ledger.handle_network_change();
        assert_eq!(ledger.begin(pair(999), now), Ok(()));
    }

    fn pair(ours: u64) -> NetworkPair {
        NetworkPair { ours, theirs: [45, 9, 9, 9].into() }
    }
}
