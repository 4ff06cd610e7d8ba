//! The paths of one connection: what there is, what it is worth, and opening, preferring and closing them.
//!
//! A connection may have eight paths at once. The side that dialled opens them; each side says for itself which paths its
//! data may take ([`PathStatus`]), so the dialled side mirrors what the dialler says ([`Paths::mirror`]). Which path is
//! better, and when one is dead, is decided above; here are the facts and the levers, in our own types. Follows
//! draft-ietf-quic-multipath and noq's variant of draft-seemann-quic-nat-traversal. Refuses to know: relays' leases, NATs.

mod events;

use std::{fmt, net::SocketAddr, time::Duration};

use noq::VarInt;
use noq_proto::{
    coding::{Decodable as _, Encodable as _},
    n0_nat_traversal::Error as TraversalError,
};
use tokio::time::{Instant, sleep};

use crate::{
    connection::Connection,
    mux::fake::FakeAddr,
    path::Way,
    socket::{is_sendable, real_address},
};

pub use events::{Abandoned, PathEvent, PathEvents};

/// Path ids looked at to list the paths, above the lowest open one. They count up and are never used twice; noq keeps at
/// most eight at once, and closed ones among them for three round trips.
const PATH_IDS_AHEAD: u32 = 64;

/// How often a path is looked at while an answer is awaited.
const PULSE_LOOK_EVERY: Duration = Duration::from_millis(5);

/// When a ping without an answer is repeated for the first time; then after twice as long each time.
const PING_AGAIN_FIRST: Duration = Duration::from_millis(100);

/// How long a new path waits for the ids that the peer has to send before it, and how often it looks. They come a round
/// trip after the handshake, and a round trip after a path was closed.
const IDS_AWAITED: Duration = Duration::from_secs(1);
const IDS_LOOK_EVERY: Duration = Duration::from_millis(5);

/// Names a path within its connection; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(noq::PathId);

impl PathId {
    /// The path on which the connection began.
    pub const FIRST: Self = Self(noq::PathId::ZERO);

    /// The path of this number, whether it exists or not.
    #[must_use]
    pub fn of(number: u32) -> Self {
        Self(number.into())
    }

    /// QUIC's number of the path, which is the same on both sides.
    ///
    /// # Panics
    /// Never: a path's number has 32 bits.
    #[must_use]
    pub fn number(self) -> u32 {
        // noq shows the number nowhere but on the wire.
        let mut bytes = Vec::with_capacity(8);
        self.0.encode(&mut bytes);
        let number = VarInt::decode(&mut bytes.as_slice()).expect("what was just encoded can be decoded");
        u32::try_from(number.into_inner()).expect("a path's number has 32 bits")
    }
}

impl fmt::Display for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether our data may take a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathStatus {
    /// Yes.
    Available,
    /// Only while no path is available.
    Backup,
}

impl PathStatus {
    fn from_noq(status: noq::PathStatus) -> Self {
        match status {
            noq::PathStatus::Available => Self::Available,
            noq::PathStatus::Backup => Self::Backup,
        }
    }

    fn to_noq(self) -> noq::PathStatus {
        match self {
            Self::Available => noq::PathStatus::Available,
            Self::Backup => noq::PathStatus::Backup,
        }
    }
}

/// A reading of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathState {
    /// Which.
    pub id: PathId,
    /// Where it leads.
    pub way: Way,
    /// What we let it carry; the peer decides for itself.
    pub status: PathStatus,
    /// The smoothed round trip. A guess of 100 ms until something was acknowledged.
    pub rtt: Duration,
    /// Bytes that may be in flight.
    pub congestion_window: u64,
    /// UDP datagrams sent on it.
    pub packets_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Bytes of the packets that the peer must answer: all but bare acknowledgements.
    pub bytes_to_answer: u64,
    /// UDP datagrams that came by it: grows whenever anything is heard.
    pub packets_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Packets that were declared lost.
    pub packets_lost: u64,
}

/// What shows that a path lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// An answer to something that we sent by it.
    Answer,
    /// That, or anything that came by it.
    Anything,
}

/// What came of asking a path whether it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulse {
    /// Something was heard on it, so long after the question.
    Alive(Duration),
    /// Nothing was.
    Silent,
    /// It is closed.
    Closed,
}

/// Why a path could not be opened, changed or closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It is closed, or never was.
    #[error("the path is closed")]
    Closed,
    /// Our misuse: only the side that dialled opens paths.
    #[error("the side that was dialled cannot open a path")]
    NotOurs,
    /// The last path cannot be closed; close the connection instead.
    #[error("the last path cannot be closed")]
    Last,
    /// As many paths are open as the two sides allow.
    #[error("no more paths can be opened now")]
    Limit,
    /// Nothing may be sent there.
    #[error("nothing may be sent to {0}")]
    Unsendable(SocketAddr),
    /// No answer came over it, or it was closed while it was being opened.
    #[error("no answer came over the new path")]
    NoAnswer,
    /// The peer does not speak multipath.
    #[error("the peer knows one path only")]
    Unsupported,
}

/// Why a candidate was not told to the peer, or no punching round was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CandidateError {
    /// Our misuse: a group, nobody, or one of our made-up addresses.
    #[error("{0} cannot be a candidate")]
    Unsendable(SocketAddr),
    /// The peer takes no more of them.
    #[error("the peer takes no more candidates")]
    Full,
    /// Our misuse: only the side that dialled begins a round.
    #[error("the side that was dialled cannot begin a round")]
    NotOurs,
    /// A round needs an address of ours, so that the peer can try it.
    #[error("there is no local candidate yet")]
    NoLocalCandidate,
    /// The peer does not speak it.
    #[error("the peer does not traverse NATs")]
    Unsupported,
    /// The connection is gone.
    #[error("the connection is closed")]
    Closed,
}

/// The paths of a connection. Holds the connection open, like [`Connection`] itself.
#[derive(Debug, Clone)]
pub struct Paths {
    connection: Connection,
}

impl Connection {
    /// The paths of this connection.
    #[must_use]
    pub fn paths(&self) -> Paths {
        Paths { connection: self.clone() }
    }
}

impl Paths {
    /// All paths that are open or being opened, oldest first. One that was closed stays in the list for three round trips,
    /// while packets of it may still arrive; [`PathEvent::Abandoned`] tells at once.
    #[must_use]
    pub fn list(&self) -> Vec<PathState> {
        let mut ids = 0..PATH_IDS_AHEAD;
        let mut states = Vec::new();
        while let Some(id) = ids.next() {
            if let Some(state) = self.get(PathId(id.into())) {
                states.push(state);
                ids.end = id + PATH_IDS_AHEAD;
            }
        }
        states
    }

    /// One path; `None` if it is closed.
    #[must_use]
    pub fn get(&self, id: PathId) -> Option<PathState> {
        let path = self.noq().path(id.0)?;
        let stats = path.stats();
        Some(PathState {
            id,
            way: self.connection.shared().way_of(path.remote_address().ok()?),
            status: PathStatus::from_noq(path.status().ok()?),
            rtt: stats.rtt,
            congestion_window: stats.cwnd,
            packets_sent: stats.udp_tx.datagrams,
            bytes_sent: stats.udp_tx.bytes,
            bytes_to_answer: stats.sent_bytes,
            packets_received: stats.udp_rx.datagrams,
            bytes_received: stats.udp_rx.bytes,
            packets_lost: stats.lost_packets,
        })
    }

    /// Listens to what happens to the paths from now on. The stream does not hold the connection open.
    #[must_use]
    pub fn events(&self) -> PathEvents {
        PathEvents::new(self.noq())
    }

    /// Opens a path to `remote`, a real or a made-up address, and waits until the peer has answered over it; if there is
    /// one already, says which. It begins with the status given. Right after the handshake, and when paths were just
    /// closed, it first waits up to a second for the peer to allow one more.
    ///
    /// Cancel-safe in that the path goes on being opened; [`PathEvent::Opened`] tells.
    ///
    /// # Errors
    /// [`PathError::NotOurs`] on the side that was dialled, [`PathError::Limit`] when no more fit,
    /// [`PathError::NoAnswer`] if the path was given up, which takes noq its path idle timeout: set a deadline.
    pub async fn open(&self, remote: SocketAddr, status: PathStatus) -> Result<PathId, PathError> {
        let is_real = FakeAddr::of(remote.ip()).is_none();
        if (is_real && !is_sendable(real_address(remote))) || !self.connection.shared().can_reach(remote) {
            return Err(PathError::Unsendable(remote));
        }
        let _dialling = is_real.then(|| self.connection.shared().dialling(remote));
        let started = Instant::now();
        loop {
            let opened = self.noq().open_path_ensure(remote, status.to_noq()).await;
            match opened.map_err(PathError::from) {
                Err(PathError::Limit) if started.elapsed() < IDS_AWAITED => sleep(IDS_LOOK_EVERY).await,
                other => return Ok(PathId(other?.id())),
            }
        }
    }

    /// Says whether our data may take the path, and tells the peer.
    ///
    /// # Errors
    /// [`PathError::Closed`], [`PathError::Unsupported`].
    pub fn set_status(&self, id: PathId, status: PathStatus) -> Result<(), PathError> {
        let path = self.noq().path(id.0).ok_or(PathError::Closed)?;
        match path.set_status(status.to_noq()) {
            Ok(_) => Ok(()),
            Err(noq::SetPathStatusError::ClosedPath) => Err(PathError::Closed),
            Err(noq::SetPathStatusError::MultipathNotNegotiated) => Err(PathError::Unsupported),
        }
    }

    /// Follows the peer's choice of paths: to be called with every event on the side that was dialled. On the other side,
    /// which makes the choice, it does nothing.
    pub fn mirror(&self, event: &PathEvent) {
        if let PathEvent::PeerStatus { id, status } = event
            && !self.connection.is_initiator()
            && let Err(error) = self.set_status(*id, *status)
        {
            tracing::debug!(%error, path = %id, "could not follow the peer's choice of paths");
        }
    }

    /// Closes a path. What was in flight on it is sent again over the others at once.
    ///
    /// # Errors
    /// [`PathError::Last`] for the last one, [`PathError::Closed`], [`PathError::Unsupported`].
    pub fn close(&self, id: PathId) -> Result<(), PathError> {
        let path = self.noq().path(id.0).ok_or(PathError::Closed)?;
        path.close().map_err(|error| match error {
            noq::ClosePathError::ClosedPath => PathError::Closed,
            noq::ClosePathError::LastOpenPath => PathError::Last,
            noq::ClosePathError::MultipathNotNegotiated => PathError::Unsupported,
        })
    }

    /// Makes the peer answer something over the path; [`PathState::packets_received`] then grows.
    ///
    /// # Errors
    /// [`PathError::Closed`].
    pub fn ping(&self, id: PathId) -> Result<(), PathError> {
        let path = self.noq().path(id.0).ok_or(PathError::Closed)?;
        path.ping().map_err(|_| PathError::Closed)
    }

    /// Asks a path whether it lives: pings, and again when nothing comes back, and waits until the path was heard of, `within` at
    /// the longest. Cancel-safe.
    ///
    /// The answer to a ping may come by another path, as acknowledgements go where the peer likes; what it always does is to measure
    /// the round trip of the path that was pinged, to the nanosecond. Until both sides use a path, its acknowledgements may even
    /// go where nothing passes any more: then anything that comes by the path itself is sign enough (`Sign::Anything`). On a
    /// path in use it is not: it may be from a peer that has moved, and hears nothing of us (`Sign::Answer`).
    pub async fn feel_pulse(&self, id: PathId, sign: Sign, within: Duration) -> Pulse {
        let asked = Instant::now();
        let Some(mut before) = self.get(id).filter(|_| self.ping(id).is_ok()) else { return Pulse::Closed };
        let mut ping_again = PING_AGAIN_FIRST;
        loop {
            sleep(PULSE_LOOK_EVERY.min(within)).await;
            match self.get(id) {
                None => return Pulse::Closed,
                // That was sent before the question.
                Some(now) if is_older(before.rtt, now.rtt, asked.elapsed()) => before.rtt = now.rtt,
                Some(now)
                    if now.rtt != before.rtt
                        || sign == Sign::Anything && now.packets_received > before.packets_received =>
                {
                    return Pulse::Alive(asked.elapsed());
                }
                Some(_) if asked.elapsed() >= within => return Pulse::Silent,
                Some(_) if asked.elapsed() >= ping_again => {
                    ping_again *= 2;
                    if self.ping(id).is_err() {
                        return Pulse::Closed;
                    }
                }
                Some(_) => {}
            }
        }
    }

    /// Keeps a path, and the NAT bindings on it, alive by a ping after so much silence; `None`, as at first: not. Pings of
    /// the connection as a whole go out besides.
    ///
    /// # Errors
    /// [`PathError::Closed`].
    pub fn keep_alive(&self, id: PathId, every: Option<Duration>) -> Result<(), PathError> {
        let path = self.noq().path(id.0).ok_or(PathError::Closed)?;
        path.set_keep_alive_interval(every).map(|_| ()).map_err(|_| PathError::Closed)
    }

    /// Sets after how much silence a path is given up; `None`: never.
    ///
    /// # Errors
    /// [`PathError::Closed`].
    pub fn give_up_after(&self, id: PathId, silence: Option<Duration>) -> Result<(), PathError> {
        let path = self.noq().path(id.0).ok_or(PathError::Closed)?;
        path.set_max_idle_timeout(silence).map(|_| ()).map_err(|_| PathError::Closed)
    }

    /// Tells the peer of an address that might reach us, for punching rounds.
    ///
    /// # Errors
    /// [`CandidateError`].
    pub fn add_local_candidate(&self, candidate: SocketAddr) -> Result<(), CandidateError> {
        let address = real_address(candidate);
        if FakeAddr::of(address.ip()).is_some() || !is_sendable(address) {
            return Err(CandidateError::Unsendable(candidate));
        }
        Ok(self.noq().add_nat_traversal_address(address)?)
    }

    /// Takes an address back; nothing happens if it was not told.
    ///
    /// # Errors
    /// [`CandidateError`].
    pub fn remove_local_candidate(&self, candidate: SocketAddr) -> Result<(), CandidateError> {
        Ok(self.noq().remove_nat_traversal_address(real_address(candidate))?)
    }

    /// The addresses that the peer told of, to which something may be sent. Only the side that dialled hears of them.
    ///
    /// # Errors
    /// [`CandidateError`].
    pub fn remote_candidates(&self) -> Result<Vec<SocketAddr>, CandidateError> {
        let candidates = self.noq().get_remote_nat_traversal_addresses()?.into_iter().map(real_address);
        Ok(candidates.filter(|addr| FakeAddr::of(addr.ip()).is_none() && is_sendable(*addr)).collect())
    }

    /// Begins a punching round: both sides send a few small packets to each other's candidates, and every answer becomes a
    /// path, at first as a backup ([`PathEvent::Opened`]). A new round ends the one before. Says which addresses are tried.
    ///
    /// # Errors
    /// [`CandidateError::NotOurs`] on the side that was dialled, [`CandidateError::NoLocalCandidate`] before any was added.
    pub fn punch_round(&self) -> Result<Vec<SocketAddr>, CandidateError> {
        let tried = self.noq().initiate_nat_traversal_round()?;
        Ok(tried.into_iter().map(real_address).collect())
    }

    /// Our address as the peer saw it last, on any path that is not a relay's. One peer's word: it may lie.
    #[must_use]
    pub fn observed_addr(&self) -> Option<SocketAddr> {
        let address = real_address(self.noq().observed_external_addr().get()?);
        FakeAddr::of(address.ip()).is_none().then_some(address)
    }

    fn noq(&self) -> &noq::Connection {
        self.connection.noq()
    }
}

/// Whether what changed the round trip was sent before so long. An eighth of each measurement goes into it (RFC 9002 s5.3).
fn is_older(before: Duration, now: Duration, age: Duration) -> bool {
    now > before && before + (now - before) * 8 > age + 2 * PULSE_LOOK_EVERY
}

impl From<noq::PathError> for PathError {
    fn from(error: noq::PathError) -> Self {
        match error {
            noq::PathError::MultipathNotNegotiated => Self::Unsupported,
            noq::PathError::ServerSideNotAllowed => Self::NotOurs,
            noq::PathError::MaxPathIdReached | noq::PathError::RemoteCidsExhausted => Self::Limit,
            noq::PathError::ValidationFailed => Self::NoAnswer,
            noq::PathError::InvalidRemoteAddress(address) => Self::Unsendable(address),
        }
    }
}

impl From<TraversalError> for CandidateError {
    fn from(error: TraversalError) -> Self {
        match error {
            TraversalError::TooManyAddresses => Self::Full,
            TraversalError::WrongConnectionSide => Self::NotOurs,
            TraversalError::ExtensionNotNegotiated => Self::Unsupported,
            TraversalError::NotEnoughAddresses => Self::NoLocalCandidate,
            TraversalError::Multipath(_) | TraversalError::Closed => Self::Closed,
        }
    }
}
