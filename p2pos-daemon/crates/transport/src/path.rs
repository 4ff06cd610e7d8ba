//! What floor 3 may know about the way to a peer: its kind and its round trip. The address is for logs and `explain` only.

use std::{fmt, net::SocketAddr, time::Duration};

use crate::tuning::Reach;

/// What kind of way leads to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PathKind {
    /// Within this machine.
    Loopback,
    /// Within the local network.
    Lan,
    /// Across the Internet, without a relay.
    Direct,
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

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Loopback => "loopback",
            Self::Lan => "lan",
            Self::Direct => "direct",
        })
    }
}

/// The way to a peer at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathInfo {
    /// Its kind.
    pub kind: PathKind,
    /// The smoothed round trip.
    pub rtt: Duration,
    /// The peer's address: a person's address, so logged at debug only.
    pub remote: SocketAddr,
}

impl PathInfo {
    pub(crate) fn new(remote: SocketAddr, rtt: Duration) -> Self {
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        Self { kind: Reach::of(remote.ip()).into(), rtt, remote }
    }
}
