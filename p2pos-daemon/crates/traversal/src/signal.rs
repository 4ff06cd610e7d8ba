//! What two daemons tell each other to find a direct path, over the connection that they have (mostly a relayed one).
//!
//! Plain structs without a codec: `peer-protocol` writes them on the wire, the floor above translates. They come from
//! a peer that is authenticated and may still be hostile, so nothing here is believed further than it must be: every
//! list has a cap, addresses pass [`crate::CandidateSet::add_from_peer`] before anything is sent to them, and numbers
//! are clamped where they are used.
//!
//! Refuses to know: bytes, streams, who the peer is.

use std::net::{IpAddr, SocketAddr};

use crate::{
    candidate::{CANDIDATES_MAX, Candidate},
    nat::{Filtering, Mapping, PortPattern, PortRange},
};

/// Addresses in one [`Signal::Open`]: as many as candidates, since these are the candidates that will be probed.
pub const OPEN_ADDRESSES_MAX: usize = CANDIDATES_MAX;

/// Which end of the connection we are. It breaks every tie: one side decides, the other follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// We dialled: we open rounds and paths, and decide which path is used.
    Dialler,
    /// We accepted: we answer rounds, and mirror the other's choice.
    Accepter,
}

/// One message to the other daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// Where the sender might be reached. Replaces what was said before. At most [`CANDIDATES_MAX`].
    Candidates(Vec<Candidate>),
    /// What the sender's NAT does.
    NatReport(NatReport),
    /// "My openers are on their way: send yours." From the side that dialled, so that rounds never cross.
    Open {
        /// Counts up within one connection.
        round: u32,
        /// Where the sender will be probing from. At most [`OPEN_ADDRESSES_MAX`].
        addresses: Vec<SocketAddr>,
    },
    /// "Mine are on their way too: punch."
    OpenOk {
        /// The round that is answered.
        round: u32,
    },
    /// "My sockets are open towards you: guess their ports." From the hard side.
    GuessStart(GuessStart),
    /// "A guess arrived": the hard side tells it by the relay too, since its hits on the new path may be lost.
    GuessHit {
        /// The attempt that it ends.
        attempt: u32,
    },
    /// What the sender uses a path for, so that the other side does the same.
    Status {
        /// QUIC's number of the path, the same on both sides.
        path: u32,
        /// In use; else kept in reserve.
        available: bool,
    },
}

/// What a NAT does, as its owner knows it. `None` is "unknown", never "no".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NatReport {
    /// RFC 4787 s4.1.
    pub mapping: Option<Mapping>,
    /// RFC 4787 s5.
    pub filtering: Option<Filtering>,
    /// The step between outside ports, where there is one. 0 is read as unknown.
    pub delta: Option<i16>,
    /// The block that outside ports come from, where there is one.
    pub range: Option<PortRange>,
    /// Routers that translate, one behind the other.
    pub ttl_layers: Option<u8>,
    /// How long an unused mapping lives, in seconds.
    pub lifetime_s: Option<u16>,
    /// Whether two hosts behind it reach each other by their outside addresses (RFC 4787 s6).
    pub hairpin: Option<bool>,
    /// A port mapping was made and verified from outside.
    pub mapped: bool,
    /// A packet from outside that comes first takes the outside port away (see `opener`).
    pub collides: Option<bool>,
    /// No UDP goes through at all.
    pub udp_blocked: bool,
}

impl NatReport {
    /// Returns how outside ports are chosen, as far as the report says.
    #[must_use]
    pub fn pattern(&self) -> PortPattern {
        match (self.delta, self.range) {
            (Some(delta), _) if delta != 0 => PortPattern::Sequential { delta },
            (_, Some(range)) => PortPattern::Block(range),
            (_, None) if self.mapping.is_none() => PortPattern::Unknown,
            (_, None) => PortPattern::Random,
        }
    }
}

/// The hard side's invitation to guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuessStart {
    /// Counts up within one connection.
    pub attempt: u32,
    /// In each guess and hit of this attempt, so that a third party can fake neither.
    pub token: u64,
    /// The outside address of the hard side, as its observers see it.
    pub address: IpAddr,
    /// The outside port last seen before its sockets opened, for prediction. 0 is unknown.
    pub base_port: u16,
    /// How its NAT chooses ports.
    pub pattern: PortPattern,
    /// How many sockets wait.
    pub sockets: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_zero_is_no_step() {
        let report = NatReport {
            mapping: Some(Mapping::AddressAndPortDependent),
            delta: Some(0),
            range: PortRange::new(2048, 3071),
            ..NatReport::default()
        };
        assert_eq!(report.pattern(), PortPattern::Block(PortRange::new(2048, 3071).unwrap()));
        assert_eq!(NatReport { range: None, ..report }.pattern(), PortPattern::Random);
        assert_eq!(NatReport::default().pattern(), PortPattern::Unknown);
    }
}
