//! Opens a ProtocolName at a PeerId, and accepts: the peers' side of the daemon.
//!
//! Owns: one task per peer that keeps one connection to it and decides when to dial, which of two connections stays and
//! when to hang up; the exchange of hello and answer on every stream; datagram flows; ping. Refuses to know: plugins, what
//! a protocol carries, contacts (a [`Policy`] says who may come in), addresses (they come from the resolver and are shown
//! only as part of an explanation). DESIGN s6 and s7.
//!
//! Files, outside in: `node` (the handle), `open` and `accept` (the two ways to a stream), `stream` and `flow` (what they
//! lead to), `ping`; `peer` (the task per peer: dialling, duplicates, hanging up); `registry` (which tasks exist), `lease`
//! (what keeps a connection in use), `relays` (forwarding for others, and being called through others), `keepalive` (what our NAT does, measured with peers' help), `limits` (every number).

mod accept;
mod config;
mod error;
mod flow;
mod heal;
mod hello;
mod keepalive;
mod lease;
mod limits;
mod node;
mod open;
mod peer;
mod ping;
mod reach;
mod registry;
mod relays;
mod stream;
mod tried;

pub use p2pos_peer_protocol::signal::RelayPlace;
pub use p2pos_peer_protocol::{EndCode, Kind, Refusal, RefusalCode};
pub use p2pos_transport::{
    Attempt, AttemptOutcome, BindError, Lost, PathInfo, PathKind, SendDatagramError, SendEnd, SocketCounters,
    Stopped, StreamEnd,
};

pub use crate::{
    accept::Incoming,
    config::{Admission, Config, Everyone, Policy, RelayConfig},
    error::OpenError,
    flow::{Flow, FlowEnd},
    node::{Event, NetworkChange, Node, PeerSnapshot},
    open::{Answer, Answered, Channel, OpenRequest, Opened, Opening},
    peer::PeerState,
    ping::Pings,
    reach::{Explanation, NetworkReport},
    relays::{OurLease, RelayReport},
    stream::{PeerStream, RecvHalf, SendHalf},
    tried::tried,
};
