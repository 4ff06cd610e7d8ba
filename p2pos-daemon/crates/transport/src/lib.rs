//! The UDP sockets, the QUIC endpoint and its connections.
//!
//! Owns: sockets, noq's endpoint and every configuration of it, dialling candidates, accepting handshakes, and thin types
//! over connections and streams that speak in [`p2pos_identity::PeerId`]s and [`p2pos_peer_protocol::EndCode`]s. Refuses to
//! know: ProtocolNames, who is a contact, where addresses come from, when to reconnect. No noq type crosses its border, so
//! that floor 3 could live on another QUIC.
//!
//! Files, outside in: `endpoint` (bind, close), `dial` and `accept` (the two ways to a connection), `connection`, `stream`,
//! `path` and `paths` (the ways of one connection, and opening and closing them); below them `mux` (ways that are no plain
//! addresses, and the small packets beside QUIC), `forward` (what a relay sends on), `socket` (the abstract socket that noq sees), `classify` (whose packet is
//! it), `probing` (who may be sent to unheard), `recents` (who may get a stateless reset), `congestion` (how much may be in flight) and `tuning` (every number).

mod accept;
mod classify;
mod congestion;
mod connection;
mod dial;
mod doorkeeper;
mod endpoint;
mod error;
mod forward;
mod mux;
mod path;
mod paths;
mod probing;
mod recents;
mod socket;
mod stream;
mod tuning;

pub use crate::{
    classify::{Class, classify},
    connection::{Connection, Traffic},
    dial::{Attempt, AttemptOutcome, DialError, Timeline},
    endpoint::{Config, Endpoint},
    error::{BindError, Lost, SendDatagramError, StreamEnd},
    forward::Forwarder,
    mux::{
        fake::{FakeAddr, FakeKind},
        flow::{FlowTraffic, RelayFlow},
        probe::{PROBE_BYTES_MAX, Probe, ProbeError, ProbeKind, Probes},
        routes::RouteError,
        tcp::TcpRelay,
    },
    path::{PathInfo, PathKind, Way},
    paths::{
        Abandoned, CandidateError, PathError, PathEvent, PathEvents, PathId, PathState, PathStatus, Paths,
        Pulse, Sign,
    },
    socket::SocketCounters,
    stream::{RecvStream, SendEnd, SendStream, Stopped},
    tuning::Reach,
};
