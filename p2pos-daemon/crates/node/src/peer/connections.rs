//! The connections to one peer: which one is used, which is retired, which has been idle too long.
//!
//! Ordinarily there is one. Two exist after a simultaneous dial, after a race of candidates, and when the peer was restarted
//! and calls before we noticed. Both sides must choose the same without talking: **of connections made at about the same
//! time, the one dialled by the smaller PeerId stays (DESIGN s6); otherwise the newest stays**, because a peer that dials
//! while an old connection stands does not know the old one any more. The other one is retired: no new stream is opened on
//! it, those that run are left alone, incoming ones are still served, and it is closed when they have ended. The owner of
//! the smaller PeerId does the closing, not before the other side must have heard of both connections.
//!
//! Knows neither sockets nor tasks; time is tokio's, so that tests can bend it.

use std::sync::Arc;

use p2pos_identity::PeerId;
use p2pos_peer_protocol::EndCode;
use tokio::time::Instant;

use crate::{
    limits::{
        CONNECTIONS_PER_PEER_MAX, IDLE_CLOSE, RETIRE_GRACE, RETIRE_MAX, RETIRE_SECOND, SIMULTANEOUS_MAX,
    },
    peer::{Live, Welcome},
};

/// What the choice depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    /// When the handshake was done.
    pub(super) since: Instant,
    /// Whether the owner of the smaller PeerId dialled.
    pub(super) is_of_smaller: bool,
}

/// A connection that is held.
#[derive(Debug)]
struct Held {
    live: Arc<Live>,
    origin: Origin,
    retired_at: Option<Instant>,
    /// Kept for what it is: a stranger's place, given back when the connection is forgotten.
    _welcome: Welcome,
}

/// The connections to one peer.
#[derive(Debug)]
pub(super) struct Connections {
    held: Vec<Held>,
    we_are_smaller: bool,
}

/// Why a connection is to be closed now.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Closing {
    id: usize,
    code: EndCode,
}

impl Connections {
    pub(super) fn new(us: PeerId, peer: PeerId) -> Self {
        Self { held: Vec::new(), we_are_smaller: us < peer }
    }

    /// Takes a new connection; one too many is closed instead.
    pub(super) fn add(&mut self, live: Arc<Live>, welcome: Welcome) {
        self.forget_lost();
        if self.held.len() >= CONNECTIONS_PER_PEER_MAX {
            return live.connection.close(EndCode::DUPLICATE);
        }
        let is_of_smaller = live.connection.is_initiator() == self.we_are_smaller;
        let origin = Origin { since: live.connection.since(), is_of_smaller };
        for other in &self.held {
            // If the peer does not know it any more, a stateless reset tells us within a round trip.
            other.live.connection.nudge();
        }
        self.held.push(Held { live, origin, retired_at: None, _welcome: welcome });
        self.choose();
    }

    /// Forgets connections that have ended, and chooses anew.
    pub(super) fn forget_lost(&mut self) {
        self.held.retain(|held| held.live.connection.lost().is_none());
        self.choose();
    }

    /// The connection to open streams on.
    pub(super) fn chosen(&self) -> Option<&Arc<Live>> {
        self.held.iter().find(|held| held.retired_at.is_none()).map(|held| &held.live)
    }

    pub(super) fn count(&self) -> usize {
        self.held.len()
    }

    /// Closes what is due now: retired connections without streams, and a chosen one that has been idle for long.
    pub(super) fn close_due(&mut self, now: Instant) {
        let due: Vec<Closing> = self
            .held
            .iter()
            .filter(|held| self.due(held).is_some_and(|due| due <= now))
            .map(|held| {
                let code = if held.retired_at.is_some() { EndCode::DUPLICATE } else { EndCode::IDLE };
                Closing { id: held.live.connection.id(), code }
            })
            .collect();
        for Closing { id, code } in due {
            for held in self.held.iter().filter(|held| held.live.connection.id() == id) {
                tracing::debug!(peer = %held.live.connection.peer().short(), %code, "a connection is not needed any more");
                held.live.connection.close(code);
            }
        }
        self.forget_lost();
    }

    /// When the next connection is due to be closed, as things stand.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.held.iter().filter_map(|held| self.due(held)).min()
    }

    pub(super) fn close_all(&mut self, code: EndCode) {
        for held in self.held.drain(..) {
            held.live.connection.close(code);
        }
    }

    fn due(&self, held: &Held) -> Option<Instant> {
        let unused_since = held.live.leases.unused_since();
        match held.retired_at {
            None => unused_since.map(|since| since + IDLE_CLOSE),
            Some(retired) => Some(due_of_retired(retired, unused_since, self.we_are_smaller)),
        }
    }

    /// Retires all but the connection that stays; and revives one if the one that stayed is gone.
    fn choose(&mut self) {
        let origins: Vec<Origin> = self.held.iter().map(|held| held.origin).collect();
        let stays = the_one_that_stays(&origins);
        for (index, held) in self.held.iter_mut().enumerate() {
            held.retired_at =
                if Some(index) == stays { None } else { held.retired_at.or_else(|| Some(Instant::now())) };
        }
    }
}

/// When a retired connection is closed: once it is unused, but not too soon and not too late.
fn due_of_retired(retired: Instant, unused_since: Option<Instant>, we_close: bool) -> Instant {
    let patience = if we_close { RETIRE_GRACE } else { RETIRE_SECOND };
    match unused_since {
        Some(since) => since.max(retired) + patience,
        None => retired + RETIRE_MAX,
    }
}

/// The rule, given the connections in the order in which we learned of them.
fn the_one_that_stays(origins: &[Origin]) -> Option<usize> {
    let newest = origins.iter().map(|origin| origin.since).max()?;
    let is_simultaneous = |origin: &Origin| newest.duration_since(origin.since) <= SIMULTANEOUS_MAX;
    let candidates = || origins.iter().enumerate().filter(|(_, origin)| is_simultaneous(origin));
    // `max_by_key` takes the last of equals: the one learned of later.
    candidates()
        .filter(|(_, origin)| origin.is_of_smaller)
        .max_by_key(|(_, origin)| origin.since)
        .or_else(|| candidates().max_by_key(|(_, origin)| origin.since))
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn origin(start: Instant, at_ms: u64, is_of_smaller: bool) -> Origin {
        Origin { since: start + Duration::from_millis(at_ms), is_of_smaller }
    }

    #[tokio::test]
    async fn of_simultaneous_dials_the_smaller_peers_stays_whatever_the_order() {
        let start = Instant::now();
        let (smaller, greater) = (origin(start, 0, true), origin(start, 40, false));
        assert_eq!(the_one_that_stays(&[smaller, greater]), Some(0));
        assert_eq!(the_one_that_stays(&[greater, smaller]), Some(1));
        let later = origin(start, 5_000, true);
        assert_eq!(the_one_that_stays(&[greater, later]), Some(1));
    }

    #[tokio::test]
    async fn a_peer_that_dials_long_after_has_forgotten_the_old_connection() {
        let start = Instant::now();
        let old = origin(start, 0, true);
        let new = origin(start, 60_000, false);
        assert_eq!(the_one_that_stays(&[old, new]), Some(1));
    }

    #[tokio::test]
    async fn of_two_dials_by_the_same_side_the_newer_stays() {
        let start = Instant::now();
        assert_eq!(the_one_that_stays(&[origin(start, 0, false), origin(start, 9, false)]), Some(1));
        assert_eq!(the_one_that_stays(&[origin(start, 9, true), origin(start, 0, true)]), Some(0));
        assert_eq!(the_one_that_stays(&[]), None);
    }

    #[tokio::test]
    async fn a_retired_connection_ends_when_unused_but_not_before_the_peer_has_heard() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(due_of_retired(start, Some(start), true), start + RETIRE_GRACE);
        assert_eq!(due_of_retired(start, Some(start + second), true), start + second + RETIRE_GRACE);
        assert_eq!(due_of_retired(start, Some(start), false), start + RETIRE_SECOND);
        assert_eq!(due_of_retired(start, None, true), start + RETIRE_MAX);
    }
}
