//! Tickets of detached streams: which fresh connection belongs to which stream. Owns their life: 16 random bytes, one
//! use, 10 s.
//!
//! Refuses to know: streams, frames. Takes the time as an argument.

use std::{collections::HashMap, time::Instant};

use bytes::BytesMut;
use p2pos_plugin_protocol::{limits::TICKET_TTL, message::Ticket};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::stream::RawIo;

/// Tickets that may wait at once, of all plugins: each is a stream that counts against its plugin's 256.
const TICKETS_MAX: usize = 4096;

/// A connection that showed a ticket: the stream itself from now on.
#[derive(Debug)]
pub(crate) struct AttachedSocket {
    pub(crate) io: RawIo,
    pub(crate) leftover: BytesMut,
}

#[derive(Debug)]
struct Waiting {
    until: Instant,
    give: oneshot::Sender<AttachedSocket>,
}

/// Tickets given out and not used yet.
#[derive(Debug)]
pub(crate) struct Tickets {
    /// By hash, so that the time of a lookup tells nothing about the tickets.
    waiting: HashMap<[u8; 32], Waiting>,
}

impl Tickets {
    pub(crate) fn new() -> Self {
        Self { waiting: HashMap::new() }
    }

    /// Expects a connection with this ticket. `None`: too many wait.
    pub(crate) fn expect(
        &mut self,
        ticket: &Ticket,
        now: Instant,
    ) -> Option<oneshot::Receiver<AttachedSocket>> {
        self.waiting.retain(|_, waiting| waiting.until > now && !waiting.give.is_closed());
        if self.waiting.len() >= TICKETS_MAX {
            return None;
        }
        let (give, given) = oneshot::channel();
        self.waiting.insert(digest(ticket), Waiting { until: now + TICKET_TTL, give });
        Some(given)
    }

    /// Uses a ticket up: where to send the connection.
    pub(crate) fn redeem(
        &mut self,
        ticket: &Ticket,
        now: Instant,
    ) -> Option<oneshot::Sender<AttachedSocket>> {
        let waiting = self.waiting.remove(&digest(ticket))?;
        (waiting.until > now && !waiting.give.is_closed()).then_some(waiting.give)
    }
}

fn digest(ticket: &Ticket) -> [u8; 32] {
    Sha256::digest(ticket.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_works_once_and_for_ten_seconds() {
        let now = Instant::now();
        let mut tickets = Tickets::new();
        let ticket = Ticket::from_random([1; 16]);
        let _given = tickets.expect(&ticket, now).unwrap();
        assert!(tickets.redeem(&Ticket::from_random([2; 16]), now).is_none());
        assert!(tickets.redeem(&ticket, now).is_some());
        assert!(tickets.redeem(&ticket, now).is_none(), "used");
        let _given = tickets.expect(&ticket, now).unwrap();
        assert!(tickets.redeem(&ticket, now + TICKET_TTL).is_none(), "too late");
        drop(tickets.expect(&ticket, now));
        assert!(tickets.redeem(&ticket, now).is_none(), "nobody waits any more");
    }
}
