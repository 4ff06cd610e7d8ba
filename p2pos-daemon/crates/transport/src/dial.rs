//! Dialling: every candidate at once, the first that proves to be the wanted peer wins, the others are closed quietly.
//!
//! Keeps a timeline of what was tried, because "unreachable" without reasons helps nobody (DESIGN s7). Only the right peer
//! can answer at all: the first packet is encrypted to its key.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use p2pos_identity::PeerId;
use p2pos_noise_quic::peer_of;
use p2pos_peer_protocol::EndCode;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    connection::Connection,
    endpoint::Endpoint,
    error::Lost,
    stream::quic_code,
    tuning::{CANDIDATES_AT_ONCE, CANDIDATES_MAX, HANDSHAKE_MAX, Reach},
};

/// What came of one candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// It became the connection.
    Connected,
    /// Nothing came back in time.
    NoAnswer,
    /// The peer, or its network stack, ended the handshake.
    Refused(String),
    /// Somebody else answered.
    WrongIdentity,
    /// This machine has no way to that address.
    Unroutable(String),
    /// Another candidate was faster.
    Abandoned,
}

/// One line of the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The candidate. A person's address: shown on request, logged at debug.
    pub address: SocketAddr,
    /// Begin, counted from the begin of the dial.
    pub started: Duration,
    /// How long it took until the outcome.
    pub took: Duration,
    /// What came of it.
    pub outcome: AttemptOutcome,
}

/// A dial that succeeded.
#[derive(Debug)]
pub struct Dialed {
    /// The connection.
    pub connection: Connection,
    /// What was tried.
    pub attempts: Vec<Attempt>,
}

/// A dial that did not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("none of {} addresses led to the peer", .attempts.len())]
pub struct DialError {
    /// What was tried.
    pub attempts: Vec<Attempt>,
}

impl DialError {
    /// Whether this machine had no way to any of the addresses.
    #[must_use]
    pub fn is_local(&self) -> bool {
        !self.attempts.is_empty()
            && self.attempts.iter().all(|attempt| matches!(attempt.outcome, AttemptOutcome::Unroutable(_)))
    }

    /// Whether somebody else answered.
    #[must_use]
    pub fn is_wrong_identity(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.outcome == AttemptOutcome::WrongIdentity)
    }
}

type Try = (Attempt, Option<noq::Connection>);

impl Endpoint {
    /// Connects to `peer` at whichever of `candidates` answers first; they are tried in order, several at once.
    ///
    /// Cancel-safe: dropping the call abandons all attempts.
    ///
    /// # Errors
    /// [`DialError`] with the timeline if no candidate led to the peer.
    pub async fn dial(&self, peer: PeerId, candidates: &[SocketAddr]) -> Result<Dialed, DialError> {
        let started = Instant::now();
        let mut waiting: VecDeque<_> = distinct(candidates).into_iter().collect();
        let mut running = JoinSet::new();
        let mut begun = Vec::new();
        let mut attempts = Vec::new();
        loop {
            while running.len() < CANDIDATES_AT_ONCE {
                let Some(address) = waiting.pop_front() else { break };
                begun.push((address, started.elapsed()));
                running.spawn(try_one(self.clone(), peer, address, started));
            }
            let Some(done) = running.join_next().await else { return Err(DialError { attempts }) };
            let Ok((attempt, connection)) = done else { continue };
            let address = attempt.address;
            begun.retain(|(other, _)| *other != address);
            attempts.push(attempt);
            if let Some(connection) = connection {
                attempts.extend(begun.into_iter().map(|(address, at)| Attempt {
                    address,
                    started: at,
                    took: started.elapsed().saturating_sub(at),
                    outcome: AttemptOutcome::Abandoned,
                }));
                abandon(running).await;
                let connection = Connection::new(connection, peer, true, self.shared().clone());
                return Ok(Dialed { connection, attempts });
            }
        }
    }
}

/// Drops repeated candidates and those beyond the limit.
fn distinct(candidates: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut distinct = Vec::new();
    for candidate in candidates {
        let candidate = SocketAddr::new(candidate.ip().to_canonical(), candidate.port());
        if !distinct.contains(&candidate) && distinct.len() < CANDIDATES_MAX {
            distinct.push(candidate);
        }
    }
    distinct
}

/// Ends what is still running; a second connection that was ready in the same instant is closed as a duplicate.
async fn abandon(mut running: JoinSet<Try>) {
    running.abort_all();
    while let Some(done) = running.join_next().await {
        if let Ok((_, Some(connection))) = done {
            connection.close(quic_code(EndCode::DUPLICATE), b"");
        }
    }
}

/// Tries one candidate.
async fn try_one(endpoint: Endpoint, peer: PeerId, address: SocketAddr, dial_started: Instant) -> Try {
    let started = Instant::now();
    let (outcome, connection) = match shake_hands(&endpoint, peer, address).await {
        Ok(connection) => (AttemptOutcome::Connected, Some(connection)),
        Err(outcome) => (outcome, None),
    };
    tracing::debug!(peer = %peer.short(), %address, ?outcome, "tried a candidate");
    let attempt = Attempt { address, started: started - dial_started, took: started.elapsed(), outcome };
    (attempt, connection)
}

async fn shake_hands(
    endpoint: &Endpoint,
    peer: PeerId,
    address: SocketAddr,
) -> Result<noq::Connection, AttemptOutcome> {
    let unroutable = |error: &dyn std::fmt::Display| AttemptOutcome::Unroutable(error.to_string());
    if !endpoint.shared().can_reach(address) {
        return Err(unroutable(&"this address family is not available"));
    }
    check_route(address).map_err(|error| unroutable(&error))?;
    let config = endpoint.configs().client(&peer, Reach::of(address.ip()));
    let connecting =
        endpoint.noq().connect_with(config, address, "p2pos").map_err(|error| unroutable(&error))?;
    let connection = match timeout(HANDSHAKE_MAX, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(noq::ConnectionError::TimedOut)) | Err(_) => return Err(AttemptOutcome::NoAnswer),
        Ok(Err(error)) => return Err(AttemptOutcome::Refused(Lost::from(error).to_string())),
    };
    let proven = connection.peer_identity().and_then(peer_of);
    if proven == Some(peer) { Ok(connection) } else { Err(AttemptOutcome::WrongIdentity) }
}

/// Asks the kernel whether it has a route; connecting a UDP socket sends nothing.
fn check_route(address: SocketAddr) -> std::io::Result<()> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    std::net::UdpSocket::bind(any)?.connect(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_and_mapped_candidates_are_tried_once() {
        let candidates: Vec<SocketAddr> =
            ["192.0.2.1:1", "[::ffff:192.0.2.1]:1", "192.0.2.1:2"].map(|text| text.parse().unwrap()).into();
        assert_eq!(distinct(&candidates).len(), 2);
        let many: Vec<SocketAddr> = (1..100).map(|port| ([192, 0, 2, 1], port).into()).collect();
        assert_eq!(distinct(&many).len(), CANDIDATES_MAX);
    }
}
