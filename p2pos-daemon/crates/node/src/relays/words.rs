//! The words of the relay's machine and the words of the wire, each in the other's.
//!
//! `relay` knows no codec and `peer-protocol` no machine; they are siblings, and this floor introduces them.

use std::{num::NonZeroU32, time::Duration};

use p2pos_peer_protocol::{Hidden, relay as wire};
use p2pos_relay::{Flow, FlowEnd, FlowEnding, FlowKey, Lease, Limits, Notice, Refusal, Stamp, Tag, Vni};

pub(super) fn lease_to_wire(lease: &Lease) -> wire::RelayLease {
    wire::RelayLease {
        lasts_s: u32::try_from(lease.lasts.as_secs()).unwrap_or(u32::MAX),
        limits: limits_to_wire(lease.limits),
        seen: lease.seen,
    }
}

pub(super) fn flow_to_wire(flow: &Flow) -> wire::RelayFlow {
    wire::RelayFlow {
        vni: number_of(flow.vni),
        key: Hidden(flow.key.to_bytes()),
        accept: Hidden(flow.accept.0),
        limits: limits_to_wire(flow.limits),
    }
}

/// Our end of a flow, as a relay told it.
pub(super) fn end_of(flow: &wire::RelayFlow) -> FlowEnd {
    FlowEnd::new(vni_of(flow.vni), FlowKey::new(flow.key.0), Tag(flow.accept.0))
}

pub(super) fn notice_to_wire(notice: &Notice) -> wire::RelayNotice {
    match notice {
        Notice::Incoming { from, flow } => {
            wire::RelayNotice::Incoming { from: *from, flow: flow_to_wire(flow) }
        }
        Notice::Ended { vni, why } => {
            wire::RelayNotice::Ended { vni: number_of(*vni), why: ending_to_wire(*why) }
        }
        Notice::Drain { grace } => wire::RelayNotice::Drain { grace_ms: millis(*grace) },
    }
}

pub(super) fn refusal_to_wire(refusal: Refusal) -> wire::RelayRefusal {
    match refusal {
        Refusal::NotServed => wire::RelayRefusal::NotServed,
        Refusal::Relayed => wire::RelayRefusal::OverARelay,
        Refusal::Address => wire::RelayRefusal::Address,
        Refusal::Full { retry_after } => wire::RelayRefusal::Full { retry_after_ms: millis(retry_after) },
        Refusal::TooManyFlows => wire::RelayRefusal::TooManyFlows,
        Refusal::StampNeeded { challenge, bits } => {
            wire::RelayRefusal::StampNeeded { challenge, bits: u8::try_from(bits).unwrap_or(u8::MAX) }
        }
        Refusal::NoLease => wire::RelayRefusal::NoLease,
        Refusal::Draining => wire::RelayRefusal::Draining,
        Refusal::NoFlow => wire::RelayRefusal::NoFlow,
        // Later versions of the machine may know more than this wire.
        _ => wire::RelayRefusal::Other,
    }
}

pub(super) fn refusal_from_wire(refusal: wire::RelayRefusal) -> Refusal {
    match refusal {
        // What a newer relay means we cannot know: it is left alone for as long as one that does not serve us.
        wire::RelayRefusal::NotServed | wire::RelayRefusal::Other => Refusal::NotServed,
        wire::RelayRefusal::OverARelay => Refusal::Relayed,
        wire::RelayRefusal::Address => Refusal::Address,
        wire::RelayRefusal::Full { retry_after_ms } => {
            Refusal::Full { retry_after: Duration::from_millis(retry_after_ms.into()) }
        }
        wire::RelayRefusal::TooManyFlows => Refusal::TooManyFlows,
        wire::RelayRefusal::StampNeeded { challenge, bits } => {
            Refusal::StampNeeded { challenge, bits: bits.into() }
        }
        wire::RelayRefusal::NoLease => Refusal::NoLease,
        wire::RelayRefusal::Draining => Refusal::Draining,
        wire::RelayRefusal::NoFlow => Refusal::NoFlow,
    }
}

pub(super) fn stamp_to_wire(stamp: Stamp) -> wire::RelayStamp {
    wire::RelayStamp { challenge: stamp.challenge, nonce: stamp.nonce }
}

pub(super) fn stamp_from_wire(stamp: wire::RelayStamp) -> Stamp {
    Stamp { challenge: stamp.challenge, nonce: stamp.nonce }
}

pub(super) fn vni_of(number: NonZeroU32) -> Vni {
    Vni::new(number.get()).expect("it is not 0")
}

fn number_of(vni: Vni) -> NonZeroU32 {
    NonZeroU32::new(vni.value()).expect("a flow's number is not 0")
}

fn limits_to_wire(limits: Limits) -> wire::RelayLimits {
    wire::RelayLimits {
        flow_bytes_per_s: limits.flow_bytes_per_s,
        flow_burst_bytes: limits.flow_burst_bytes,
        source_bytes_per_s: limits.source_bytes_per_s,
        day_bytes_left: limits.day_bytes_left,
        flows_max: limits.flows_max,
        is_introduction_only: limits.is_introduction_only,
    }
}

fn ending_to_wire(why: FlowEnding) -> wire::RelayEnding {
    match why {
        FlowEnding::HungUp => wire::RelayEnding::HungUp,
        FlowEnding::Idle => wire::RelayEnding::Idle,
        FlowEnding::Drained => wire::RelayEnding::Drained,
        FlowEnding::Replaced => wire::RelayEnding::Replaced,
        FlowEnding::NotServed => wire::RelayEnding::NotServed,
    }
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_survives_the_wire() {
        for refusal in [
            Refusal::NotServed,
            Refusal::Relayed,
            Refusal::Address,
            Refusal::Full { retry_after: Duration::from_secs(60) },
            Refusal::TooManyFlows,
            Refusal::StampNeeded { challenge: [7; 8], bits: 22 },
            Refusal::NoLease,
            Refusal::Draining,
            Refusal::NoFlow,
        ] {
            assert_eq!(refusal_from_wire(refusal_to_wire(refusal)), refusal);
        }
    }
}
