//! What floor 3 may know about the way to a peer: its kind and its round trip. The address is for logs and `explain` only.

use std::{fmt, net::SocketAddr, time::Duration};

use crate::{mux::fake::FakeAddr, tuning::Reach};

/// What kind of way leads to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PathKind {
    /// Within this machine.
    Loopback,
    /// Within the local network.
    Lan,
    /// Across the Internet, without a relay.
    Direct,
    /// Through a relay.
    Relayed,
    /// Through a relay that is reached over TCP.
    TcpRelayed,
}

impl From<Reach> for PathKind {
    fn from(reach: Reach) -> Self {
        match reach {
            Reach::Loopback => Self::Loopback,
            Reach::Lan => Self::Lan,
            Reach::Internet => Self::Direct,
        }
    }
}

impl PathKind {
    /// Whether somebody else carries the packets.
    #[must_use]
    pub fn is_relayed(self) -> bool {
        match self {
            Self::Relayed | Self::TcpRelayed => true,
            Self::Loopback | Self::Lan | Self::Direct => false,
        }
    }
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Loopback => "loopback",
            Self::Lan => "lan",
            Self::Direct => "direct",
            Self::Relayed => "relayed",
            Self::TcpRelayed => "relayed over tcp",
        })
    }
}

/// Where a path leads. Addresses of persons: logged at debug only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To this address, from our ordinary socket.
    Direct(SocketAddr),
    /// To this address, from a socket whose NAT binding was guessed.
    Guess {
        /// The name of the way.
        fake: FakeAddr,
        /// The peer's address.
        remote: SocketAddr,
    },
    /// Through a relay.
    Relay {
        /// The name of the way.
        fake: FakeAddr,
        /// The relay's address.
        relay: SocketAddr,
    },
    /// Through a relay, over TCP.
    TcpRelay {
        /// The name of the way.
        fake: FakeAddr,
        /// The relay's address.
        relay: SocketAddr,
    },
    /// A made-up address that stands for nothing any more.
    Gone(FakeAddr),
}

impl Way {
    /// What people are told.
    #[must_use]
    pub fn kind(self) -> PathKind {
        match self {
            Self::Direct(remote) | Self::Guess { remote, .. } => Reach::of(remote.ip()).into(),
            Self::TcpRelay { .. } => PathKind::TcpRelayed,
            Self::Relay { .. } | Self::Gone(_) => PathKind::Relayed,
        }
    }

    /// The address to which packets really go; of a way that is gone, its made-up one.
    #[must_use]
    pub fn remote(self) -> SocketAddr {
        match self {
            Self::Direct(remote) | Self::Guess { remote, .. } => remote,
            Self::Relay { relay, .. } | Self::TcpRelay { relay, .. } => relay,
            Self::Gone(fake) => fake.socket_addr(),
        }
    }
}

/// The way to a peer at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathInfo {
    /// Its kind.
    pub kind: PathKind,
    /// The smoothed round trip.
    pub rtt: Duration,
    /// The peer's address, or the relay's: a person's address, so logged at debug only.
    pub remote: SocketAddr,
}

impl PathInfo {
    pub(crate) fn new(way: Way, rtt: Duration) -> Self {
        Self { kind: way.kind(), rtt, remote: way.remote() }
    }
}
