//! What goes in and out of the service: who asks, what is granted, why not, what others are told.
//!
//! Plain types; the floor above writes them on the wire with `peer-protocol` (`/p2pos/relay/1`).

use std::{net::SocketAddr, time::Duration};

use p2pos_identity::PeerId;

use crate::{
    Via,
    frame::Vni,
    mac::{FlowKey, Tag},
    stamp::CHALLENGE_BYTES,
};

/// Bytes of randomness that a flow takes.
pub const ENTROPY_BYTES: usize = 48;

/// Bytes of a lease's token.
pub const TOKEN_BYTES: usize = 16;

/// Fresh randomness from the operating system, for one call. Neither printed nor kept.
pub struct Entropy(pub [u8; ENTROPY_BYTES]);

/// Whoever asks over a connection to this relay.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    /// Proven by the connection's handshake.
    pub peer: PeerId,
    /// In this user's address book.
    pub is_contact: bool,
    /// The connection's remote address as QUIC validated it; the one of the TCP connection if that is how it came.
    pub address: SocketAddr,
    /// Where its frames are expected to come from: [`Via::Udp`] with the address above, or its TCP connection.
    pub via: Via,
    /// The connection to us itself runs over a relay.
    pub is_relayed: bool,
}

/// Whom an asker wants to reach.
#[derive(Clone, Copy)]
pub struct Call {
    /// Who is to be called.
    pub callee: PeerId,
    /// The token of the callee's lease.
    pub token: [u8; TOKEN_BYTES],
}

/// What a user may send through this relay. Told in every answer, so that nobody finds out by losing packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sustained, for each flow and direction.
    pub flow_bytes_per_s: u64,
    /// At once, after a rest.
    pub flow_burst_bytes: u64,
    /// Sustained, for all flows of the source.
    pub source_bytes_per_s: u64,
    /// What is left of today; `None` is without end.
    pub day_bytes_left: Option<u64>,
    /// Flows at the same time.
    pub flows_max: u16,
    /// Only signalling passes: the relay is full, or the share is used up.
    pub is_introduction_only: bool,
}

/// A lease: the right to be called through this relay.
#[derive(Clone, PartialEq, Eq)]
pub struct Lease {
    /// How long, from now.
    pub lasts: Duration,
    /// What callers must show, as the asker chose it; for those who may call.
    pub token: [u8; TOKEN_BYTES],
    /// What it allows.
    pub limits: Limits,
    /// The user's address as the relay sees it.
    pub seen: SocketAddr,
}

/// One side's half of a flow: everything that [`crate::FlowEnd::new`] wants.
#[derive(Debug, Clone)]
pub struct Flow {
    /// The side's own number of the flow.
    pub vni: Vni,
    /// Signs the side's frames.
    pub key: FlowKey,
    /// Marks the relay's frames.
    pub accept: Tag,
    /// What it may carry.
    pub limits: Limits,
}

/// Why a relay says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The owner does not relay for this peer.
    #[error("the relay does not serve this peer")]
    NotServed,
    /// The connection to the relay runs over a relay.
    #[error("a relay is not reached over another relay")]
    Relayed,
    /// The address is none that a relay sends to.
    #[error("the relay does not send to this address")]
    Address,
    /// No place is left.
    #[error("the relay is full, ask again in {} s", retry_after.as_secs())]
    Full {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The asker has as many flows as one source may.
    #[error("too many flows through this relay")]
    TooManyFlows,
    /// A stranger pays with work while the relay is more than half full: ask again with a stamp.
    #[error("the relay asks for a stamp of {bits} bits")]
    StampNeeded {
        /// What to hash.
        challenge: [u8; CHALLENGE_BYTES],
        /// How many leading zero bits.
        bits: u32,
    },
    /// Nobody of that name can be called here: no lease, the wrong token, or not connected. Not told apart, so that a
    /// relay does not tell strangers who is online.
    #[error("the peer cannot be called through this relay")]
    NoLease,
    /// The relay is going down.
    #[error("the relay is going down")]
    Draining,
    /// No such flow, or not this peer's.
    #[error("no such flow")]
    NoFlow,
}

/// Why a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowEnding {
    /// The other side hung up, or did not want it.
    HungUp,
    /// Nothing passed for too long.
    Idle,
    /// The relay went down.
    Drained,
    /// The same caller made a new flow to the same peer.
    Replaced,
    /// The owner no longer serves one of the two.
    NotServed,
}

/// What a connected user is told without having asked.
#[derive(Debug, Clone)]
pub enum Notice {
    /// Somebody who has your token calls: here is your half of the flow.
    Incoming {
        /// Who calls.
        from: PeerId,
        /// Your half.
        flow: Flow,
    },
    /// A flow of yours ended.
    Ended {
        /// Your number of it.
        vni: Vni,
        /// Why.
        why: FlowEnding,
    },
    /// Move your circuits and your lease elsewhere; this relay stops forwarding after the grace.
    Drain {
        /// How long it still forwards.
        grace: Duration,
    },
}

/// What the service wants done.
#[derive(Debug, Clone)]
pub enum ServiceEvent {
    /// Tell a user, if it is connected.
    Tell {
        /// Whom.
        peer: PeerId,
        /// What.
        notice: Notice,
    },
    /// Warn the owner: most of the month's bytes are used.
    MonthWarning {
        /// Forwarded this month.
        used: u64,
        /// The owner's limit.
        max: u64,
    },
    /// Tell the owner: nothing but signalling passes until the month is over.
    MonthUsedUp {
        /// The owner's limit.
        max: u64,
    },
    /// Every flow is gone after a drain: the process may end.
    Drained,
}

/// How much a packet matters, as the relay measures it: by what its source sent lately, not by what it claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Within the trickle that everybody has: handshakes, candidates, pings.
    Signalling,
    /// Within what a conversation needs.
    Interactive,
    /// All else.
    Bulk,
}

impl Class {
    /// How many classes there are.
    pub const COUNT: usize = 3;

    /// Returns 0 for what goes first.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Signalling => 0,
            Self::Interactive => 1,
            Self::Bulk => 2,
        }
    }

    /// How much of the relay's total burst this class may use, in percent: what it must leave is for the ones above.
    pub(crate) fn total_percent(self) -> u64 {
        match self {
            Self::Signalling => 100,
            Self::Interactive => 85,
            Self::Bulk => 60,
        }
    }
}

impl std::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entropy(..)")
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("callee", &self.callee).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Lease");
        shown.field("lasts", &self.lasts).field("limits", &self.limits).field("seen", &self.seen);
        shown.finish_non_exhaustive()
    }
}
