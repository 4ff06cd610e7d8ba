//! The words of traversal and the words of the wire, each in the other's.
//!
//! `traversal` knows no codec and `peer-protocol` no NAT; they are siblings, and this floor introduces them.

use p2pos_peer_protocol::signal as wire;
use p2pos_traversal::{
    Candidate, CandidateKind, Filtering, Mapping, PortPattern, PortRange,
    signal::{GuessStart, NatReport, Signal},
};

/// A signal as it goes over the wire.
pub(super) fn to_wire(signal: &Signal) -> wire::SignalMessage {
    match signal {
        Signal::Candidates(list) => {
            wire::SignalMessage::Candidates(list.iter().map(candidate_to_wire).collect())
        }
        Signal::NatReport(report) => wire::SignalMessage::NatReport(report_to_wire(report)),
        Signal::Open { round, addresses } => {
            wire::SignalMessage::Open { round: *round, addresses: addresses.clone() }
        }
        Signal::OpenOk { round } => wire::SignalMessage::OpenOk { round: *round },
        Signal::GuessStart(start) => wire::SignalMessage::GuessStart(start_to_wire(start)),
        Signal::GuessHit { attempt } => wire::SignalMessage::GuessHit { attempt: *attempt },
        Signal::Status { path, available } => {
            wire::SignalMessage::Status { path: *path, available: *available }
        }
    }
}

/// What a message of the peer means to traversal; `None` for what is not about traversal, or of a newer version.
pub(super) fn from_wire(message: wire::SignalMessage) -> Option<Signal> {
    Some(match message {
        wire::SignalMessage::Candidates(list) => {
            Signal::Candidates(list.iter().map(candidate_from_wire).collect())
        }
        wire::SignalMessage::NatReport(report) => Signal::NatReport(report_from_wire(&report)),
        wire::SignalMessage::Open { round, addresses } => Signal::Open { round, addresses },
        wire::SignalMessage::OpenOk { round } => Signal::OpenOk { round },
        wire::SignalMessage::GuessStart(start) => Signal::GuessStart(start_from_wire(&start)),
        wire::SignalMessage::GuessHit { attempt } => Signal::GuessHit { attempt },
        wire::SignalMessage::Status { path, available } => Signal::Status { path, available },
        wire::SignalMessage::Relays(_) | wire::SignalMessage::Unknown => return None,
    })
}

fn candidate_to_wire(candidate: &Candidate) -> wire::SignalCandidate {
    let kind = match candidate.kind {
        CandidateKind::Manual => wire::SignalCandidateKind::Manual,
        CandidateKind::Host => wire::SignalCandidateKind::Host,
        CandidateKind::Mapped => wire::SignalCandidateKind::Mapped,
        CandidateKind::Observed => wire::SignalCandidateKind::Observed,
        CandidateKind::Relayed => wire::SignalCandidateKind::Relayed,
    };
    wire::SignalCandidate { address: candidate.addr, kind }
}

fn candidate_from_wire(candidate: &wire::SignalCandidate) -> Candidate {
    let kind = match candidate.kind {
        wire::SignalCandidateKind::Manual => CandidateKind::Manual,
        wire::SignalCandidateKind::Host => CandidateKind::Host,
        wire::SignalCandidateKind::Mapped => CandidateKind::Mapped,
        wire::SignalCandidateKind::Observed => CandidateKind::Observed,
        wire::SignalCandidateKind::Relayed => CandidateKind::Relayed,
    };
    Candidate { addr: candidate.address, kind }
}

fn report_to_wire(report: &NatReport) -> wire::NatReport {
    wire::NatReport {
        mapping: report.mapping.map(mapping_to_wire),
        filtering: report.filtering.map(filtering_to_wire),
        delta: report.delta,
        range: report.range.and_then(range_to_wire),
        ttl_layers: report.ttl_layers,
        lifetime_s: report.lifetime_s,
        hairpin: report.hairpin,
        mapped: report.mapped,
        collides: report.collides,
        udp_blocked: report.udp_blocked,
    }
}

fn report_from_wire(report: &wire::NatReport) -> NatReport {
    NatReport {
        mapping: report.mapping.map(mapping_from_wire),
        filtering: report.filtering.map(filtering_from_wire),
        delta: report.delta,
        range: report.range.and_then(range_from_wire),
        ttl_layers: report.ttl_layers,
        lifetime_s: report.lifetime_s,
        hairpin: report.hairpin,
        mapped: report.mapped,
        collides: report.collides,
        udp_blocked: report.udp_blocked,
    }
}

fn mapping_to_wire(mapping: Mapping) -> wire::NatBehaviour {
    match mapping {
        Mapping::EndpointIndependent => wire::NatBehaviour::EndpointIndependent,
        Mapping::AddressDependent => wire::NatBehaviour::AddressDependent,
        Mapping::AddressAndPortDependent => wire::NatBehaviour::AddressAndPortDependent,
    }
}

fn mapping_from_wire(mapping: wire::NatBehaviour) -> Mapping {
    match mapping {
        wire::NatBehaviour::EndpointIndependent => Mapping::EndpointIndependent,
        wire::NatBehaviour::AddressDependent => Mapping::AddressDependent,
        wire::NatBehaviour::AddressAndPortDependent => Mapping::AddressAndPortDependent,
    }
}

fn filtering_to_wire(filtering: Filtering) -> wire::NatBehaviour {
    match filtering {
        Filtering::EndpointIndependent => wire::NatBehaviour::EndpointIndependent,
        Filtering::AddressDependent => wire::NatBehaviour::AddressDependent,
        Filtering::AddressAndPortDependent => wire::NatBehaviour::AddressAndPortDependent,
    }
}

fn filtering_from_wire(filtering: wire::NatBehaviour) -> Filtering {
    match filtering {
        wire::NatBehaviour::EndpointIndependent => Filtering::EndpointIndependent,
        wire::NatBehaviour::AddressDependent => Filtering::AddressDependent,
        wire::NatBehaviour::AddressAndPortDependent => Filtering::AddressAndPortDependent,
    }
}

fn range_to_wire(range: PortRange) -> Option<wire::Ports> {
    wire::Ports::new(range.first(), range.last())
}

fn range_from_wire(range: wire::Ports) -> Option<PortRange> {
    PortRange::new(range.first(), range.last())
}

fn start_to_wire(start: &GuessStart) -> wire::GuessStart {
    let choice = match start.pattern {
        PortPattern::Unknown => wire::PortChoice::Unknown,
        PortPattern::Sequential { delta } => wire::PortChoice::Steps(delta),
        PortPattern::Block(range) => {
            range_to_wire(range).map_or(wire::PortChoice::Unknown, wire::PortChoice::Block)
        }
        PortPattern::Random => wire::PortChoice::Random,
    };
    wire::GuessStart {
        attempt: start.attempt,
        token: start.token,
        address: start.address,
        base_port: start.base_port,
        choice,
        sockets: start.sockets,
    }
}

fn start_from_wire(start: &wire::GuessStart) -> GuessStart {
    let pattern = match start.choice {
        wire::PortChoice::Unknown => PortPattern::Unknown,
        wire::PortChoice::Steps(delta) => PortPattern::Sequential { delta },
        wire::PortChoice::Block(range) => {
            range_from_wire(range).map_or(PortPattern::Unknown, PortPattern::Block)
        }
        wire::PortChoice::Random => PortPattern::Random,
    };
    GuessStart {
        attempt: start.attempt,
        token: start.token,
        address: start.address,
        base_port: start.base_port,
        pattern,
        sockets: start.sockets,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_survives_the_wire() {
        let report = NatReport {
            mapping: Some(Mapping::AddressAndPortDependent),
            filtering: Some(Filtering::AddressDependent),
            delta: Some(-3),
            range: PortRange::new(2_048, 3_071),
            ttl_layers: Some(2),
            lifetime_s: Some(30),
            hairpin: Some(false),
            mapped: true,
            collides: Some(true),
            udp_blocked: true,
        };
        let address = "45.0.0.7:4000".parse().expect("an address");
        let start = |pattern| {
            Signal::GuessStart(GuessStart {
                attempt: 1,
                token: 2,
                address: "45.0.0.7".parse().expect("an address"),
                base_port: 3,
                pattern,
                sockets: 4,
            })
        };
        let block = PortRange::new(1, 9).map(PortPattern::Block).expect("a range");
        let mut signals = vec![
            Signal::NatReport(report),
            Signal::Open { round: 7, addresses: vec![address] },
            Signal::OpenOk { round: 7 },
            Signal::GuessHit { attempt: 8 },
            Signal::Status { path: 9, available: true },
        ];
        signals.extend(
            [PortPattern::Unknown, PortPattern::Random, PortPattern::Sequential { delta: 2 }, block]
                .map(start),
        );
        for kind in [
            CandidateKind::Manual,
            CandidateKind::Host,
            CandidateKind::Mapped,
            CandidateKind::Observed,
            CandidateKind::Relayed,
        ] {
            signals.push(Signal::Candidates(vec![Candidate { addr: address, kind }]));
        }
        for signal in signals {
            assert_eq!(from_wire(to_wire(&signal)), Some(signal));
        }
    }
}
