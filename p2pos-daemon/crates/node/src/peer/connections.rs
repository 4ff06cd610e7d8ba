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

use std::{sync::Arc, time::Duration};

use p2pos_identity::PeerId;
use p2pos_peer_protocol::EndCode;
use tokio::time::Instant;

use crate::{
    limits::{
        CONNECTIONS_PER_PEER_MAX, DOUBT_FIRST_LOOK, DOUBT_MAX, DOUBT_MIN, DOUBT_ROUND_TRIPS, IDLE_CLOSE,
        RETIRE_GRACE, RETIRE_MAX, RETIRE_SECOND, SIMULTANEOUS_MAX,
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
    /// Whether it must still prove that it lives.
    pub(super) is_doubted: bool,
}

/// A connection that is held.
#[derive(Debug)]
struct Held {
    live: Arc<Live>,
    origin: Origin,
    retired_at: Option<Instant>,
    doubt: Option<Doubt>,
    /// Kept for what it is: a stranger's place, given back when the connection is forgotten.
    _welcome: Welcome,
}

/// A connection that was nudged because the peer made another one: a living peer answers within a round trip.
#[derive(Debug)]
struct Doubt {
    /// Datagrams received before.
    packets: u64,
    /// When to look whether more have come; each time twice as far away.
    look_at: Instant,
    pause: Duration,
    /// When it is dead.
    until: Instant,
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

    /// Takes a new connection. The others must prove that they live; of too many, the least of them is closed.
    pub(super) fn add(&mut self, live: Arc<Live>, welcome: Welcome) {
        self.forget_lost();
        let now = Instant::now();
        for other in &mut self.held {
            other.begin_to_doubt(now);
        }
        let origins: Vec<Origin> = self.held.iter().map(|held| held.origin).collect();
        if self.held.len() >= CONNECTIONS_PER_PEER_MAX
            && let Some(least) = the_least(&origins)
        {
            self.held.remove(least).live.connection.close(EndCode::DUPLICATE);
        }
        let is_of_smaller = live.connection.is_initiator() == self.we_are_smaller;
        let origin = Origin { since: live.connection.since(), is_of_smaller, is_doubted: false };
        self.held.push(Held { live, origin, retired_at: None, doubt: None, _welcome: welcome });
        self.choose();
    }

    /// Makes every connection say something: after a change of the network the peer learns our new address by it.
    pub(super) fn nudge_all(&self) {
        for held in &self.held {
            held.live.connection.nudge();
        }
    }

    /// Looks which doubted connections have been heard meanwhile, and closes those that had time enough and were not.
    pub(super) fn settle_doubts(&mut self, now: Instant) {
        for held in &mut self.held {
            held.settle_doubt(now);
        }
        self.forget_lost();
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
            .filter(|held| self.closing_due(held).is_some_and(|due| due <= now))
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
        let look_at = held.doubt.as_ref().map(|doubt| doubt.look_at);
        [self.closing_due(held), look_at].into_iter().flatten().min()
    }

    fn closing_due(&self, held: &Held) -> Option<Instant> {
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

impl Held {
    /// If the peer does not know it any more, a stateless reset tells us within a round trip, unless the peer speaks from
    /// another port now: then the silence tells.
    fn begin_to_doubt(&mut self, now: Instant) {
        self.live.connection.nudge();
        if self.doubt.is_none() {
            let rtt = self.live.connection.path().map_or(Duration::ZERO, |path| path.rtt);
            self.origin.is_doubted = true;
            self.doubt = Some(Doubt {
                packets: self.live.connection.traffic().packets_received,
                look_at: now + DOUBT_FIRST_LOOK,
                pause: DOUBT_FIRST_LOOK,
                until: now + (rtt * DOUBT_ROUND_TRIPS).clamp(DOUBT_MIN, DOUBT_MAX),
            });
        }
    }

    fn settle_doubt(&mut self, now: Instant) {
        let Some(doubt) = &mut self.doubt else { return };
        let connection = &self.live.connection;
        if connection.traffic().packets_received > doubt.packets {
            self.doubt = None;
            self.origin.is_doubted = false;
        } else if now >= doubt.until {
            tracing::debug!(peer = %connection.peer().short(), "the peer does not know an old connection any more");
            connection.close(EndCode::PATH_LOST);
        } else if now >= doubt.look_at {
            doubt.pause *= 2;
            doubt.look_at = (now + doubt.pause).min(doubt.until);
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

/// The connection that is missed least: one whose life is in doubt, and of those the oldest.
fn the_least(origins: &[Origin]) -> Option<usize> {
    let by_worth = |(_, origin): &(usize, &Origin)| (!origin.is_doubted, origin.since);
    origins.iter().enumerate().min_by_key(by_worth).map(|(index, _)| index)
}

/// The rule, given the connections in the order in which we learned of them. While one is in doubt, the others are taken: a
/// peer that was restarted within [`SIMULTANEOUS_MAX`] must not be spoken to on what its former life dialled.
fn the_one_that_stays(origins: &[Origin]) -> Option<usize> {
    let newest = origins.iter().map(|origin| origin.since).max()?;
    let are_all_doubted = origins.iter().all(|origin| origin.is_doubted);
    let is_simultaneous = |origin: &Origin| {
        newest.duration_since(origin.since) <= SIMULTANEOUS_MAX && (are_all_doubted || !origin.is_doubted)
    };
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
    use super::*;

    fn origin(start: Instant, at_ms: u64, is_of_smaller: bool) -> Origin {
        Origin { since: start + Duration::from_millis(at_ms), is_of_smaller, is_doubted: false }
    }

    fn doubted(origin: Origin) -> Origin {
        Origin { is_doubted: true, ..origin }
    }

    #[tokio::test]
    async fn a_connection_in_doubt_is_not_used_while_there_is_another() {
        let start = Instant::now();
        let (old, new) = (origin(start, 0, true), origin(start, 2_000, false));
        assert_eq!(the_one_that_stays(&[old, new]), Some(0), "a simultaneous dial");
        assert_eq!(the_one_that_stays(&[doubted(old), new]), Some(1), "perhaps the peer was restarted");
        assert_eq!(the_one_that_stays(&[doubted(old), doubted(new)]), Some(0));
        assert_eq!(the_one_that_stays(&[doubted(old)]), Some(0));
    }

    #[tokio::test]
    async fn of_too_many_connections_the_oldest_in_doubt_goes_and_never_the_newest() {
        let start = Instant::now();
        let [a, b, c, d] = [0, 10, 20, 30].map(|at_ms| origin(start, at_ms, false));
        assert_eq!(the_least(&[a, doubted(b), doubted(c), d]), Some(1));
        assert_eq!(the_least(&[b, a, c, d]), Some(1));
        assert_eq!(the_least(&[]), None);
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
