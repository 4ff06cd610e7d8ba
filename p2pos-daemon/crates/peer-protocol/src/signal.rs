//! `/p2pos/signal/1`: what two daemons tell each other to find a direct path, over the connection that they have.
//!
//! The stream carries any number of messages both ways. The types hold nothing out of bounds: lists have caps, ranges
//! are not empty. That an address may be sent to, and that a number is sensible, is judged by who uses it: the sender is
//! authenticated and may still be hostile.
//!
//! Refuses to know: what follows from a message (`traversal`, whose structs these mirror), and streams.

use std::net::{IpAddr, SocketAddr};

use p2pos_identity::PeerId;

use crate::{
    Hidden, MessageError,
    pb::peer_v1 as pb,
    wire::{address, address_bytes, addresses, addresses_bytes, bad, capped, fixed, peer, peer_bytes, small},
};

/// The ProtocolName of the stream.
pub const SIGNAL_PROTOCOL: &str = "/p2pos/signal/1";

/// Candidates in a message, and addresses of a punch: each is one more address that a hostile list has us send to.
pub const CANDIDATES_MAX: usize = 32;

/// Relays that one peer can be called through. Two are enough to survive one; the third is there while they change.
pub const RELAYS_MAX: usize = 3;

/// Addresses of one relay: both families of two networks.
pub const RELAY_ADDRESSES_MAX: usize = 4;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignalMessage {
    /// Where the sender might be reached; replaces what was said before. At most [`CANDIDATES_MAX`].
    Candidates(Vec<SignalCandidate>),
    /// What the sender's NAT does.
    NatReport(NatReport),
    /// "My openers are on their way: send yours."
    Open {
        /// Counts up within one connection.
        round: u32,
        /// Where the sender probes from. At most [`CANDIDATES_MAX`].
        addresses: Vec<SocketAddr>,
    },
    /// "Mine are on their way too."
    OpenOk {
        /// The round that is answered.
        round: u32,
    },
    /// "My sockets are open towards you: guess their ports."
    GuessStart(GuessStart),
    /// "A guess arrived."
    GuessHit {
        /// The attempt that it ends.
        attempt: u32,
    },
    /// What the sender uses a path for.
    Status {
        /// QUIC's number of the path.
        path: u32,
        /// In use; else kept in reserve.
        available: bool,
    },
    /// Where the sender can be called through relays; replaces what was said before. At most [`RELAYS_MAX`].
    Relays(Vec<RelayPlace>),
    /// Something of a newer version: pass it over.
    Unknown,
}

/// How a candidate came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignalCandidateKind {
    /// An address of the sender's own interfaces.
    Host,
    /// A router maps it.
    Mapped,
    /// Others saw the sender come from it.
    Observed,
    /// A relay forwards it.
    Relayed,
    /// The sender's user typed it.
    Manual,
}

/// An address that might reach the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalCandidate {
    /// Where.
    pub address: SocketAddr,
    /// How it came to be known.
    pub kind: SignalCandidateKind,
}

/// How a NAT maps or filters (RFC 4787 s4.1, s5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NatBehaviour {
    /// The same for every destination.
    EndpointIndependent,
    /// By destination address.
    AddressDependent,
    /// By destination address and port.
    AddressAndPortDependent,
}

/// Ports from first to last, both included; never empty, never port 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ports {
    first: u16,
    last: u16,
}

/// What a NAT does, as its owner knows it. `None` is "unknown".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NatReport {
    /// How outside ports are shared among destinations.
    pub mapping: Option<NatBehaviour>,
    /// Whom an outside port lets in.
    pub filtering: Option<NatBehaviour>,
    /// The step between outside ports; 0 goes over the wire as unknown.
    pub delta: Option<i16>,
    /// The block that outside ports come from.
    pub range: Option<Ports>,
    /// Routers that translate, one behind the other.
    pub ttl_layers: Option<u8>,
    /// How long an unused mapping lives, in seconds; 0 goes over the wire as unknown.
    pub lifetime_s: Option<u16>,
    /// Whether hosts behind it reach each other by outside addresses.
    pub hairpin: Option<bool>,
    /// A port mapping was made and verified.
    pub mapped: bool,
    /// A packet from outside that comes first takes the outside port away.
    pub collides: Option<bool>,
    /// No UDP goes through.
    pub udp_blocked: bool,
}

/// How a NAT chooses outside ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortChoice {
    /// Not known.
    Unknown,
    /// So many ports after the last one; never 0.
    Steps(i16),
    /// Anywhere in a block.
    Block(Ports),
    /// Anywhere.
    Random,
}

/// The hard side's invitation to guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuessStart {
    /// Counts up within one connection.
    pub attempt: u32,
    /// In each guess and hit of this attempt.
    pub token: u64,
    /// The hard side's outside address.
    pub address: IpAddr,
    /// The outside port last seen; 0 is unknown.
    pub base_port: u16,
    /// How its NAT chooses ports.
    pub choice: PortChoice,
    /// How many sockets wait.
    pub sockets: u16,
}

/// A relay through which the sender can be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayPlace {
    /// The relay.
    pub relay: PeerId,
    /// Where the relay is. At most [`RELAY_ADDRESSES_MAX`].
    pub addresses: Vec<SocketAddr>,
    /// What the relay wants to see from callers.
    pub token: Hidden<16>,
}

impl Ports {
    /// Makes a range; `None` if it is empty or begins at port 0.
    #[must_use]
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first != 0 && first <= last).then_some(Self { first, last })
    }

    /// Returns the first port.
    #[must_use]
    pub fn first(self) -> u16 {
        self.first
    }

    /// Returns the last port.
    #[must_use]
    pub fn last(self) -> u16 {
        self.last
    }
}

impl TryFrom<pb::Signal> for SignalMessage {
    type Error = MessageError;

    fn try_from(signal: pb::Signal) -> Result<Self, MessageError> {
        use pb::signal::Body;
        let Some(body) = signal.body else { return Ok(Self::Unknown) };
        Ok(match body {
            Body::Candidates(body) => {
                let list = capped(body.list, "candidates", CANDIDATES_MAX)?;
                Self::Candidates(list.iter().map(candidate).collect::<Result<_, _>>()?)
            }
            Body::NatReport(report) => Self::NatReport(report.try_into()?),
            Body::Open(open) => {
                let addresses = addresses(open.addresses, "open.addresses", CANDIDATES_MAX)?;
                Self::Open { round: open.round, addresses }
            }
            Body::OpenOk(ok) => Self::OpenOk { round: ok.round },
            Body::GuessStart(start) => Self::GuessStart(start.try_into()?),
            Body::GuessHit(hit) => Self::GuessHit { attempt: hit.attempt },
            Body::Status(status) => Self::Status { path: status.path, available: status.available },
            Body::Relays(body) => {
                let list = capped(body.list, "relays", RELAYS_MAX)?;
                Self::Relays(list.into_iter().map(relay_place).collect::<Result<_, _>>()?)
            }
        })
    }
}

impl From<&SignalMessage> for pb::Signal {
    /// Lists that are too long are cut: the sender's own mistake, and no reason to say nothing.
    fn from(message: &SignalMessage) -> Self {
        use pb::signal::Body;
        let body = match message {
            SignalMessage::Candidates(list) => {
                let list = list.iter().take(CANDIDATES_MAX).map(pb_candidate).collect();
                Some(Body::Candidates(pb::Candidates { list }))
            }
            SignalMessage::NatReport(report) => Some(Body::NatReport(report.into())),
            SignalMessage::Open { round, addresses } => {
                let addresses = addresses_bytes(addresses, CANDIDATES_MAX);
                Some(Body::Open(pb::PunchOpen { round: *round, addresses }))
            }
            SignalMessage::OpenOk { round } => Some(Body::OpenOk(pb::PunchOpenOk { round: *round })),
            SignalMessage::GuessStart(start) => Some(Body::GuessStart(start.into())),
            SignalMessage::GuessHit { attempt } => Some(Body::GuessHit(pb::GuessHit { attempt: *attempt })),
            SignalMessage::Status { path, available } => {
                Some(Body::Status(pb::PathStatus { path: *path, available: *available }))
            }
            SignalMessage::Relays(list) => {
                let list = list.iter().take(RELAYS_MAX).map(pb_relay_place).collect();
                Some(Body::Relays(pb::RelayPlaces { list }))
            }
            SignalMessage::Unknown => None,
        };
        Self { body }
    }
}

fn candidate(candidate: &pb::Candidate) -> Result<SignalCandidate, MessageError> {
    let kind = match pb::CandidateKind::try_from(candidate.kind) {
        Ok(pb::CandidateKind::Mapped) => SignalCandidateKind::Mapped,
        Ok(pb::CandidateKind::Observed) => SignalCandidateKind::Observed,
        Ok(pb::CandidateKind::Relayed) => SignalCandidateKind::Relayed,
        Ok(pb::CandidateKind::Manual) => SignalCandidateKind::Manual,
        // A kind of a newer version is an address all the same.
        Ok(pb::CandidateKind::Unspecified | pb::CandidateKind::Host) | Err(_) => SignalCandidateKind::Host,
    };
    Ok(SignalCandidate { address: address(&candidate.address, "candidate.address")?, kind })
}

fn pb_candidate(candidate: &SignalCandidate) -> pb::Candidate {
    let kind = match candidate.kind {
        SignalCandidateKind::Host => pb::CandidateKind::Host,
        SignalCandidateKind::Mapped => pb::CandidateKind::Mapped,
        SignalCandidateKind::Observed => pb::CandidateKind::Observed,
        SignalCandidateKind::Relayed => pb::CandidateKind::Relayed,
        SignalCandidateKind::Manual => pb::CandidateKind::Manual,
    };
    pb::Candidate { address: address_bytes(candidate.address), kind: kind.into() }
}

fn relay_place(place: pb::RelayPlace) -> Result<RelayPlace, MessageError> {
    Ok(RelayPlace {
        relay: peer(&place.relay, "relays.relay")?,
        addresses: addresses(place.addresses, "relays.addresses", RELAY_ADDRESSES_MAX)?,
        token: Hidden(fixed(&place.token, "relays.token")?),
    })
}

fn pb_relay_place(place: &RelayPlace) -> pb::RelayPlace {
    pb::RelayPlace {
        relay: peer_bytes(place.relay),
        addresses: addresses_bytes(&place.addresses, RELAY_ADDRESSES_MAX),
        token: place.token.to_bytes(),
    }
}

impl TryFrom<pb::NatReport> for NatReport {
    type Error = MessageError;

    fn try_from(report: pb::NatReport) -> Result<Self, MessageError> {
        let layers = report.ttl_layers_plus_1.checked_sub(1);
        Ok(Self {
            mapping: behaviour(report.mapping),
            filtering: behaviour(report.filtering),
            delta: delta(report.delta)?,
            range: report.range.map(ports).transpose()?,
            ttl_layers: layers.map(u8::try_from).transpose().map_err(|_| bad("nat_report.ttl_layers"))?,
            lifetime_s: Some(small(report.lifetime_s, "nat_report.lifetime")?)
                .filter(|seconds| *seconds != 0),
            hairpin: tri(report.hairpin),
            mapped: report.mapped,
            collides: tri(report.collides),
            udp_blocked: report.udp_blocked,
        })
    }
}

impl From<&NatReport> for pb::NatReport {
    fn from(report: &NatReport) -> Self {
        Self {
            mapping: pb_behaviour(report.mapping).into(),
            filtering: pb_behaviour(report.filtering).into(),
            delta: report.delta.unwrap_or(0).into(),
            range: report.range.map(pb_ports),
            ttl_layers_plus_1: report.ttl_layers.map_or(0, |layers| u32::from(layers) + 1),
            lifetime_s: report.lifetime_s.unwrap_or(0).into(),
            hairpin: pb_tri(report.hairpin).into(),
            mapped: report.mapped,
            collides: pb_tri(report.collides).into(),
            udp_blocked: report.udp_blocked,
        }
    }
}

impl TryFrom<pb::GuessStart> for GuessStart {
    type Error = MessageError;

    fn try_from(start: pb::GuessStart) -> Result<Self, MessageError> {
        let at = address(&start.address, "guess_start.address")?;
        let range = start.range.map(ports).transpose()?;
        let choice = match (delta(start.delta)?, range, start.is_random) {
            (Some(step), _, _) => PortChoice::Steps(step),
            (None, Some(block), _) => PortChoice::Block(block),
            (None, None, true) => PortChoice::Random,
            (None, None, false) => PortChoice::Unknown,
        };
        Ok(Self {
            attempt: start.attempt,
            token: start.token,
            address: at.ip(),
            base_port: at.port(),
            choice,
            sockets: small(start.sockets, "guess_start.sockets")?,
        })
    }
}

impl From<&GuessStart> for pb::GuessStart {
    fn from(start: &GuessStart) -> Self {
        let (delta, range, is_random) = match start.choice {
            PortChoice::Unknown => (0, None, false),
            PortChoice::Steps(step) => (step.into(), None, false),
            PortChoice::Block(block) => (0, Some(pb_ports(block)), false),
            PortChoice::Random => (0, None, true),
        };
        Self {
            attempt: start.attempt,
            token: start.token,
            address: address_bytes(SocketAddr::new(start.address, start.base_port)),
            delta,
            range,
            is_random,
            sockets: start.sockets.into(),
        }
    }
}

/// A behaviour of a newer version is unknown to us.
fn behaviour(number: i32) -> Option<NatBehaviour> {
    match pb::NatBehaviour::try_from(number) {
        Ok(pb::NatBehaviour::EndpointIndependent) => Some(NatBehaviour::EndpointIndependent),
        Ok(pb::NatBehaviour::AddressDependent) => Some(NatBehaviour::AddressDependent),
        Ok(pb::NatBehaviour::AddressAndPortDependent) => Some(NatBehaviour::AddressAndPortDependent),
        Ok(pb::NatBehaviour::NatUnknown) | Err(_) => None,
    }
}

fn pb_behaviour(behaviour: Option<NatBehaviour>) -> pb::NatBehaviour {
    match behaviour {
        None => pb::NatBehaviour::NatUnknown,
        Some(NatBehaviour::EndpointIndependent) => pb::NatBehaviour::EndpointIndependent,
        Some(NatBehaviour::AddressDependent) => pb::NatBehaviour::AddressDependent,
        Some(NatBehaviour::AddressAndPortDependent) => pb::NatBehaviour::AddressAndPortDependent,
    }
}

fn tri(number: i32) -> Option<bool> {
    match pb::Tri::try_from(number) {
        Ok(pb::Tri::Yes) => Some(true),
        Ok(pb::Tri::No) => Some(false),
        Ok(pb::Tri::Unknown) | Err(_) => None,
    }
}

fn pb_tri(known: Option<bool>) -> pb::Tri {
    match known {
        None => pb::Tri::Unknown,
        Some(true) => pb::Tri::Yes,
        Some(false) => pb::Tri::No,
    }
}

fn delta(number: i32) -> Result<Option<i16>, MessageError> {
    let delta = i16::try_from(number).map_err(|_| bad("delta"))?;
    Ok(Some(delta).filter(|delta| *delta != 0))
}

fn ports(range: pb::PortRange) -> Result<Ports, MessageError> {
    let (first, last) = (small(range.first, "range.first")?, small(range.last, "range.last")?);
    Ports::new(first, last).ok_or_else(|| bad("range"))
}

fn pb_ports(ports: Ports) -> pb::PortRange {
    pb::PortRange { first: ports.first.into(), last: ports.last.into() }
}
