//! Getting through NATs: which address of a peer to try, when, and what to do when it cannot be reached. Pure machines.
//!
//! Start with [`plan`]: it ties the others together for one peer.
//!
//! | module | what it is |
//! |---|---|
//! | [`plan`] | one peer, from lookup to a direct path and back |
//! | [`predict`] | what two NATs allow each other: the matrix, and the one change that would help |
//! | [`timeline`] | what was tried, when, and what came of it |
//! | `nat` | the words for what a NAT does (RFC 4787) |
//! | [`verdict`] | what our own NAT does, from observers that may lie |
//! | [`signal`] | what two daemons tell each other |
//! | [`opener`] | both sides open their NAT before either knocks |
//! | [`guess`] | finding the port of a NAT that changes it |
//! | [`choice`] | which of a connection's paths carries the data |
//! | [`watchdog`] | whether a path is dead |
//! | [`keepalive`] | how long our NAT remembers, and how seldom it may be reminded |
//! | `candidate` | an address that might reach a peer, and the set that refuses those nobody should send to |
//! | `budget` | how many probes this host may send, to whom |
//! | `probe` | the bytes of the small packets that are not QUIC |
//! | `order` | who is tried first: near before far, IPv6 and IPv4 in turn |
//! | `dial` | [`DialRace`]: starts attempts one shortly after the other until one wins |
//! | `backoff` | [`Backoff`]: when to try again |
//!
//! Floor 1: no socket, task or randomness, and the clock is an argument. Machines speak the house language: `handle_*`
//! tells what happened, `poll_event` says what to do (drain it after every `handle_*`), `poll_timeout` when to ask
//! again. Refuses to know: who a peer is, where candidates come from, what a QUIC packet is.

mod backoff;
mod budget;
mod candidate;
pub mod choice;
mod dial;
pub mod guess;
pub mod keepalive;
mod nat;
pub mod opener;
mod order;
pub mod plan;
pub mod predict;
mod probe;
mod random;
pub mod signal;
#[cfg(test)]
mod testing;
pub mod timeline;
pub mod verdict;
pub mod watchdog;

pub use crate::{
    backoff::{Backoff, BackoffSettings, RECONNECT},
    budget::{
        Authenticated, CANDIDATE_WINDOW, PROBES_PER_CANDIDATE_MAX, PROBES_PER_SECOND_MAX, ProbeBudget,
        REMEMBERED_MAX,
    },
    candidate::{
        CANDIDATES_MAX, CANDIDATES_PER_ADDRESS_MAX, Candidate, CandidateKind, CandidateSet, LoopbackPolicy,
        Rejected, Scope, scope_of,
    },
    dial::{ATTEMPTS_AT_ONCE_MAX, DIAL_DEADLINE, DIAL_STAGGER, DialEvent, DialOutcome, DialRace, PATIENCE},
    nat::{Filtering, Mapping, NatClass, PortPattern, PortRange},
    order::{RELAYED_AT, in_dial_order},
    probe::{GUESS, KNOCK, OPENER, PROBE_LEN_MAX, Probe},
    random::Random,
};
