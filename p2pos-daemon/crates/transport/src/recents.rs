//! The remote addresses that were partners of a connection lately; only these may get a stateless reset.
//!
//! Bounded in number and age. Knows no socket; time is an argument.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    time::Instant,
};

use crate::tuning::{RECENT_REMOTE_AGE_MAX, RECENT_REMOTES_MAX};

/// Addresses with the time when each was last a partner.
#[derive(Debug, Default)]
pub(crate) struct Recents {
    seen: HashMap<SocketAddr, Instant>,
    /// Oldest first; holds an address once for every time it was noted, so it may be longer than `seen`.
    order: VecDeque<(SocketAddr, Instant)>,
}

impl Recents {
    /// Notes that `remote` is or was a partner now.
    pub(crate) fn note(&mut self, remote: SocketAddr, now: Instant) {
        self.seen.insert(remote, now);
        self.order.push_back((remote, now));
        self.forget_old(now);
        while self.order.len() > RECENT_REMOTES_MAX {
            self.forget_oldest();
        }
    }

    /// Whether `remote` was a partner lately.
    pub(crate) fn contains(&mut self, remote: SocketAddr, now: Instant) -> bool {
        self.forget_old(now);
        self.seen.contains_key(&remote)
    }

    fn forget_old(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(_, at)| now.duration_since(*at) > RECENT_REMOTE_AGE_MAX) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((remote, at)) = self.order.pop_front() else { return };
        if self.seen.get(&remote) == Some(&at) {
            self.seen.remove(&remote);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn a_partner_is_remembered_and_forgotten_with_age() {
        let start = Instant::now();
        let mut recents = Recents::default();
        recents.note(address(1), start);
        assert!(recents.contains(address(1), start));
        assert!(!recents.contains(address(2), start));
        recents.note(address(1), start + Duration::from_secs(300));
        assert!(recents.contains(address(1), start + RECENT_REMOTE_AGE_MAX + Duration::from_secs(1)));
        assert!(!recents.contains(address(1), start + RECENT_REMOTE_AGE_MAX + Duration::from_secs(301)));
    }

    #[test]
    fn the_oldest_makes_room_at_the_limit() {
        let now = Instant::now();
        let mut recents = Recents::default();
        for port in 0..=u16::try_from(RECENT_REMOTES_MAX).unwrap() {
            recents.note(address(port), now);
        }
        assert!(!recents.contains(address(0), now));
        assert!(recents.contains(address(1), now));
        assert!(recents.order.len() <= RECENT_REMOTES_MAX);
    }

    #[test]
    fn one_address_noted_for_ever_does_not_grow_the_memory() {
        let mut now = Instant::now();
        let mut recents = Recents::default();
        for _ in 0..RECENT_REMOTES_MAX * 3 {
            recents.note(address(1), now);
            now += Duration::from_millis(1);
        }
        assert!(recents.order.len() <= RECENT_REMOTES_MAX);
        assert!(recents.contains(address(1), now));
    }
}
