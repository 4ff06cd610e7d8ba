//! What the owner sees: `p2pos relay status`.

use p2pos_identity::PeerId;

use super::{
    Service,
    account::Source,
    circuit::{Role, Seat},
};
use crate::{RelayMode, RelaySettings, frame::Vni};

/// Bytes and packets forwarded; bytes with the frames' heads, as they went over the owner's line, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
}

/// A relay at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayStatus {
    /// For whom.
    pub mode: RelayMode,
    /// Whom it gives how much, as its owner set it.
    pub settings: RelaySettings,
    /// Going down.
    pub is_draining: bool,
    /// Leases held by contacts.
    pub contact_leases: usize,
    /// Leases held by strangers.
    pub community_leases: usize,
    /// Flows, introductions among them.
    pub flows: u32,
    /// Flows that carry signalling only.
    pub introductions: u32,
    /// Since the start.
    pub forwarded: Traffic,
    /// Since the start, for each reason; words are at `Dropped::WORDS`.
    pub dropped: [u64; super::Dropped::COUNT],
    /// This month.
    pub month_bytes: u64,
    /// The owner's limit.
    pub month_bytes_max: Option<u64>,
}

/// What one user used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerUse {
    /// Who.
    pub peer: PeerId,
    /// Sent today.
    pub day_bytes: u64,
    /// Sent as long as the relay remembers this user.
    pub bytes: u64,
    /// Flows now.
    pub flows: u16,
    /// Can be called through this relay.
    pub has_lease: bool,
}

/// What one flow carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowUse {
    /// The caller and its number of the flow.
    pub caller: (PeerId, Vni),
    /// The callee and its number of the flow.
    pub callee: (PeerId, Vni),
    /// From caller to callee.
    pub forth: Traffic,
    /// From callee to caller.
    pub back: Traffic,
    /// Carries signalling only.
    pub is_introduction: bool,
}

impl Service {
    /// Sums up.
    #[must_use]
    pub fn status(&self) -> RelayStatus {
        let contact_leases = self.leases.values().filter(|held| held.asker.is_contact).count();
        RelayStatus {
            mode: self.settings.mode,
            settings: self.settings,
            is_draining: self.drained_at.is_some(),
            contact_leases,
            community_leases: self.leases.len() - contact_leases,
            flows: self.circuits.count(),
            introductions: self.introductions,
            forwarded: self.forwarded,
            dropped: self.dropped,
            month_bytes: self.month.used,
            month_bytes_max: self.month.max,
        }
    }

    /// Lists users by what they sent, most first. Costs one pass over at most 65,536 accounts.
    #[must_use]
    pub fn peers(&self, now: std::time::Instant) -> Vec<PeerUse> {
        let at = self.moment(self.nanos(now));
        let mut peers: Vec<PeerUse> = self
            .accounts
            .iter()
            .filter_map(|account| match account.source {
                Source::Prefix(_) => None,
                Source::Peer(peer) => Some(PeerUse {
                    peer,
                    day_bytes: account.day_bytes(at),
                    bytes: account.bytes,
                    flows: account.flows,
                    has_lease: account.leases > 0,
                }),
            })
            .collect();
        peers.sort_by_key(|used| (std::cmp::Reverse(used.bytes), used.peer));
        peers
    }

    /// Lists the flows.
    pub fn flows(&self) -> impl Iterator<Item = FlowUse> {
        self.circuits.iter().map(|(place, circuit)| {
            let number = |role| (circuit.side(role).peer, circuit.vni(Seat { place, role }));
            let sent = |role| {
                let side = circuit.side(role);
                Traffic { bytes: side.bytes, packets: side.packets }
            };
            FlowUse {
                caller: number(Role::Caller),
                callee: number(Role::Callee),
                forth: sent(Role::Caller),
                back: sent(Role::Callee),
                is_introduction: circuit.is_introduction,
            }
        })
    }
}
