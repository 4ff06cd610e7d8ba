//! Dialling: the candidates race, the first that proves to be the wanted peer wins, the others are closed quietly.
//!
//! Who starts when is [`DialRace`]'s decision; this file makes the attempts. It keeps a timeline of what was tried, which
//! others may read while the race runs, because "unreachable" without reasons helps nobody (DESIGN s7). Only the right peer
//! can answer at all: the first packet is encrypted to its key.

use std::{
    future::poll_fn,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use p2pos_identity::PeerId;
use p2pos_noise_quic::peer_of;
use p2pos_peer_protocol::EndCode;
use p2pos_traversal::{Candidate, DialEvent, DialRace};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    connection::Connection,
    endpoint::Endpoint,
    error::Lost,
    mux::fake::FakeAddr,
    stream::quic_code,
    tuning::{HANDSHAKE_MAX, Reach},
};

/// What came of one candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// It still runs.
    Running,
    /// It became the connection.
    Connected,
    /// Nothing came back in time.
    NoAnswer,
    /// The peer, or its network stack, ended the handshake.
    Refused(String),
    /// This machine has no way to that address.
    Unroutable(String),
    /// Another candidate was faster, or needed its place.
    Abandoned,
}

/// One line of the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The candidate, or where the relay is. A person's address: shown on request, logged at debug.
    pub address: SocketAddr,
    /// The relay through which it went.
    pub relay: Option<PeerId>,
    /// Begin, counted from the begin of the timeline.
    pub started: Duration,
    /// How long it took until the outcome, or runs now.
    pub took: Duration,
    /// What came of it.
    pub outcome: AttemptOutcome,
}

/// What a dial has tried so far; clones share it.
#[derive(Debug, Clone)]
pub struct Timeline {
    attempts: Arc<Mutex<Vec<Line>>>,
    begun: Instant,
    relay: Option<PeerId>,
}

/// An attempt and the candidate that it is known by here, which may be a made-up address.
#[derive(Debug)]
struct Line {
    candidate: SocketAddr,
    attempt: Attempt,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { attempts: Arc::default(), begun: Instant::now(), relay: None }
    }
}

impl Timeline {
    /// The same timeline, for attempts through a relay.
    #[must_use]
    pub fn through(&self, relay: PeerId) -> Self {
        Self { relay: Some(relay), ..self.clone() }
    }

    /// Adds an attempt that ended before there was anything to dial.
    pub fn note(&self, address: SocketAddr, begun: Instant, outcome: AttemptOutcome) {
        let started = begun.saturating_duration_since(self.begun);
        let attempt = Attempt { address, relay: self.relay, started, took: begun.elapsed(), outcome };
        self.lock().push(Line { candidate: address, attempt });
    }

    /// What was tried until now, in the order of the starts.
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempt> {
        let now = self.begun.elapsed();
        let until_now = |line: &Line| {
            let mut attempt = line.attempt.clone();
            if attempt.outcome == AttemptOutcome::Running {
                attempt.took = now.saturating_sub(attempt.started);
            }
            attempt
        };
        self.lock().iter().map(until_now).collect()
    }

    /// Begins an attempt; `address` is where its packets really go.
    fn start(&self, candidate: SocketAddr, address: SocketAddr) {
        let (started, took, outcome) = (self.begun.elapsed(), Duration::ZERO, AttemptOutcome::Running);
        let attempt = Attempt { address, relay: self.relay, started, took, outcome };
        self.lock().push(Line { candidate, attempt });
    }

    fn end(&self, candidate: SocketAddr, outcome: AttemptOutcome) {
        let at = self.begun.elapsed();
        let mut lines = self.lock();
        let running = lines
            .iter_mut()
            .find(|line| line.candidate == candidate && line.attempt.outcome == AttemptOutcome::Running);
        if let Some(Line { attempt, .. }) = running {
            attempt.took = at.saturating_sub(attempt.started);
            attempt.outcome = outcome;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Line>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A dial that led nowhere.
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
}

impl Endpoint {
    /// Connects to `peer` at whichever of `candidates` answers first, and writes what it tries into `timeline`.
    ///
    /// Cancel-safe: dropping the call abandons all attempts.
    ///
    /// # Errors
    /// [`DialError`] if no candidate led to the peer.
    pub async fn dial(
        &self,
        peer: PeerId,
        candidates: &[Candidate],
        timeline: &Timeline,
    ) -> Result<Connection, DialError> {
        let dial = Dial {
            endpoint: self,
            peer,
            timeline,
            race: DialRace::new(candidates.iter().copied(), Instant::now().into_std()),
            running: Attempts::default(),
        };
        match dial.run().await {
            Some(connection) => Ok(Connection::new(connection, peer, true, self.shared().clone())),
            None => Err(DialError { attempts: timeline.attempts() }),
        }
    }
}

/// A race in progress.
struct Dial<'a> {
    endpoint: &'a Endpoint,
    peer: PeerId,
    timeline: &'a Timeline,
    race: DialRace,
    running: Attempts,
}

impl Dial<'_> {
    async fn run(mut self) -> Option<noq::Connection> {
        let mut winner = None;
        loop {
            while let Some(event) = self.race.poll_event(Instant::now().into_std()) {
                self.obey(event);
            }
            let Some(alarm) = self.race.poll_timeout() else { break };
            tokio::select! {
                (address, result) = self.running.next() => winner = self.tried(address, result).or(winner),
                () = sleep_until(alarm.into()) => {}
            }
        }
        winner
    }

    fn obey(&mut self, event: DialEvent) {
        match event {
            DialEvent::Start(Candidate { addr, kind: _ }) => {
                self.timeline.start(addr, self.endpoint.shared().way_of(addr).remote());
                self.running.start(addr, shake_hands(self.endpoint.clone(), self.peer, addr));
            }
            DialEvent::GiveUp(address) => {
                self.timeline.end(address, AttemptOutcome::Abandoned);
                self.running.give_up(address);
            }
        }
    }

    fn tried(&mut self, address: SocketAddr, result: Shaken) -> Option<noq::Connection> {
        let (outcome, connection) = match result {
            Ok(connection) => (AttemptOutcome::Connected, Some(connection)),
            Err(outcome) => (outcome, None),
        };
        tracing::debug!(peer = %self.peer.short(), %address, ?outcome, "tried a candidate");
        self.timeline.end(address, outcome);
        match &connection {
            Some(_) => self.race.handle_connected(address),
            None => self.race.handle_failed(address, Instant::now().into_std()),
        }
        connection
    }
}

/// What a handshake led to.
type Shaken = Result<noq::Connection, AttemptOutcome>;

/// A handshake that runs.
type Attempting = Pin<Box<dyn Future<Output = Shaken> + Send>>;

/// Handshakes that run, few enough to poll all of them each time. They live in the task that dials: a task for each would put
/// two more turns of the scheduler between the peer's answer and our first byte.
#[derive(Default)]
struct Attempts {
    running: Vec<(SocketAddr, Attempting)>,
}

impl Attempts {
    fn start(&mut self, address: SocketAddr, attempt: impl Future<Output = Shaken> + Send + 'static) {
        self.running.push((address, Box::pin(attempt)));
    }

    /// Waits for the next one that ends; for ever if none runs. Cancel-safe.
    async fn next(&mut self) -> (SocketAddr, Shaken) {
        poll_fn(|context| {
            for (index, (address, attempt)) in self.running.iter_mut().enumerate() {
                if let Poll::Ready(result) = attempt.as_mut().poll(context) {
                    let ended = (*address, result);
                    drop(self.running.swap_remove(index));
                    return Poll::Ready(ended);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Ends the attempts at one address. A connection that was ready in the same instant is closed as a duplicate.
    fn give_up(&mut self, address: SocketAddr) {
        for (_, mut attempt) in self.running.extract_if(.., |(addr, _)| *addr == address) {
            let mut nobody = Context::from_waker(Waker::noop());
            if let Poll::Ready(Ok(connection)) = attempt.as_mut().poll(&mut nobody) {
                connection.close(quic_code(EndCode::DUPLICATE), b"");
            }
        }
    }
}

async fn shake_hands(endpoint: Endpoint, peer: PeerId, address: SocketAddr) -> Shaken {
    let unroutable = |error: &dyn std::fmt::Display| AttemptOutcome::Unroutable(error.to_string());
    if !endpoint.shared().can_reach(address) {
        return Err(unroutable(&"this address family is not available"));
    }
    if FakeAddr::of(address.ip()).is_none() {
        check_route(address).map_err(|error| unroutable(&error))?;
    }
    let _dialling = endpoint.shared().dialling(address);
    let config = endpoint.configs().client(&peer, Reach::of(address.ip()));
    let connecting =
        endpoint.noq().connect_with(config, address, "p2pos").map_err(|error| unroutable(&error))?;
    let connection = match timeout(HANDSHAKE_MAX, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(noq::ConnectionError::TimedOut)) | Err(_) => return Err(AttemptOutcome::NoAnswer),
        Ok(Err(error)) => return Err(AttemptOutcome::Refused(Lost::from(error).to_string())),
    };
    let proven = connection.peer_identity().and_then(peer_of);
    if proven != Some(peer) {
        // Cannot be: the keys of the handshake are made of the peer's. It is asked once more, before anybody relies on it.
        tracing::error!("a dialled connection was established without its peer's proof; it is closed");
        return Err(AttemptOutcome::Refused("no proof of the peer".to_owned()));
    }
    Ok(connection)
}

/// Asks the kernel whether it has a route; connecting a UDP socket sends nothing.
fn check_route(address: SocketAddr) -> std::io::Result<()> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    std::net::UdpSocket::bind(any)?.connect(address)
}
