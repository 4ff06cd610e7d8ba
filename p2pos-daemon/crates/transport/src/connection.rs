//! One QUIC connection with a proven peer.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use noq::{PathId, VarInt};
use p2pos_identity::PeerId;
use p2pos_peer_protocol::EndCode;
use tokio::time::Instant;

use crate::{
    error::{Lost, SendDatagramError},
    path::{PathInfo, Way},
    socket::Shared,
    stream::{RecvStream, SendStream, quic_code},
    tuning::Reach,
};

/// Paths looked at to find the one in use: noq counts them up from 0 and we allow few.
const PATH_IDS_LOOKED_AT: u32 = 8;

/// A handle to a connection; clones share it. It ends by [`Connection::close`], by the peer, or when the last handle and
/// stream of it are dropped.
#[derive(Debug, Clone)]
pub struct Connection {
    inner: noq::Connection,
    peer: PeerId,
    is_initiator: bool,
    since: Instant,
    /// Where the peer was when the handshake was done.
    first_remote: Option<SocketAddr>,
    /// Keeps the sockets' record of partners within reach.
    shared: Arc<Shared>,
}

/// How much a connection has carried, in UDP payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Datagrams received: it grows whenever anything at all is heard.
    pub packets_received: u64,
}

impl Connection {
    pub(crate) fn new(inner: noq::Connection, peer: PeerId, is_initiator: bool, shared: Arc<Shared>) -> Self {
        let mut connection =
            Self { inner, peer, is_initiator, since: Instant::now(), first_remote: None, shared };
        connection.first_remote = connection.path().map(|path| path.remote);
        connection.note_partner();
        connection
    }

    /// The peer, which has proven that it is this one.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Whether we dialled.
    #[must_use]
    pub fn is_initiator(&self) -> bool {
        self.is_initiator
    }

    /// When the handshake was done.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Tells connections apart, among those alive.
    #[must_use]
    pub fn id(&self) -> usize {
        self.inner.stable_id()
    }

    /// Opens a stream; waits while the peer's limit of streams is reached. The peer notices at the first byte.
    ///
    /// # Errors
    /// [`Lost`] if the connection is gone.
    pub async fn open(&self) -> Result<(SendStream, RecvStream), Lost> {
        let (send, recv) = self.inner.open_bi().await?;
        Ok((SendStream::new(send), RecvStream::new(recv)))
    }

    /// Waits for the next stream that the peer opens, or for the connection's end. Cancel-safe.
    ///
    /// # Errors
    /// [`Lost`] if the connection is gone.
    pub async fn accept_stream(&self) -> Result<(SendStream, RecvStream), Lost> {
        match self.inner.accept_bi().await {
            Ok((send, recv)) => Ok((SendStream::new(send), RecvStream::new(recv))),
            Err(error) => {
                self.note_partner();
                Err(error.into())
            }
        }
    }

    /// Sends a datagram, or queues it and drops the oldest one queued. Never waits.
    ///
    /// # Errors
    /// [`SendDatagramError::TooBig`] if one packet cannot hold it.
    pub fn send_datagram(&self, datagram: Bytes) -> Result<(), SendDatagramError> {
        let size = datagram.len();
        self.inner.send_datagram(datagram).map_err(|error| match error {
            noq::SendDatagramError::TooLarge => {
                SendDatagramError::TooBig { size, max: self.datagram_bytes_max() }
            }
            noq::SendDatagramError::ConnectionLost(error) => SendDatagramError::Ended(error.into()),
            noq::SendDatagramError::UnsupportedByPeer | noq::SendDatagramError::Disabled => {
                SendDatagramError::TooBig { size, max: 0 }
            }
        })
    }

    /// Largest datagram that fits one packet now, bytes; 0 if the peer takes none.
    #[must_use]
    pub fn datagram_bytes_max(&self) -> usize {
        self.inner.max_datagram_size().unwrap_or(0)
    }

    /// Waits for datagrams and fills `datagrams` with those that have arrived. Cancel-safe.
    ///
    /// # Errors
    /// [`Lost`] if the connection is gone.
    pub async fn read_datagrams(&self, datagrams: &mut [Bytes]) -> Result<usize, Lost> {
        Ok(self.inner.read_many_datagrams(datagrams).await?)
    }

    /// The path in use: the first that is available for data.
    #[must_use]
    pub fn path(&self) -> Option<PathInfo> {
        let (way, rtt) = self.in_use()?;
        Some(PathInfo::new(way, rtt))
    }

    /// Where the path in use leads.
    #[must_use]
    pub fn way(&self) -> Option<Way> {
        Some(self.in_use()?.0)
    }

    fn in_use(&self) -> Option<(Way, Duration)> {
        let mut open = (0..PATH_IDS_LOOKED_AT).filter_map(|id| self.inner.path(PathId::from(id)));
        let path =
            open.find(|path| path.status().is_ok_and(|status| status == noq::PathStatus::Available))?;
        Some((self.shared.way_of(path.remote_address().ok()?), path.stats().rtt))
    }

    /// Makes the peer answer something, which proves it alive or, after its restart, brings a stateless reset.
    pub fn nudge(&self) {
        if let Some(path) = self.inner.path(PathId::ZERO)
            && path.ping().is_err()
        {
            tracing::trace!("nudged a connection whose first path is closed");
        }
    }

    /// Lets the peer have far more unread data with us, as befits somebody known: every connection begins with a stranger's
    /// window.
    pub fn widen(&self) {
        if let Some(path) = self.path() {
            let window = Reach::of(path.remote.ip()).connection_window();
            self.inner.set_receive_window(VarInt::from_u32(window));
        }
    }

    /// How much it has carried.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let stats = self.inner.stats();
        Traffic {
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes,
            packets_received: stats.udp_rx.datagrams,
        }
    }

    /// Ends the connection at once, and tells the peer why. Unsent data is lost.
    pub fn close(&self, code: EndCode) {
        self.note_partner();
        self.inner.close(quic_code(code), b"");
    }

    /// How the connection ended, if it has.
    #[must_use]
    pub fn lost(&self) -> Option<Lost> {
        self.inner.close_reason().map(Lost::from)
    }

    /// Age of the connection.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    pub(crate) fn noq(&self) -> &noq::Connection {
        &self.inner
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The peer's address may get a stateless reset if it still speaks to this connection when we have forgotten it. Noted at
    /// the beginning and at the end: what lies between may be longer than an address is remembered.
    fn note_partner(&self) {
        if let Some(remote) = self.path().map(|path| path.remote).or(self.first_remote) {
            self.shared.note_partner(remote);
        }
    }
}
