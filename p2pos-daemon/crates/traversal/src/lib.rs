//! Which addresses of a peer to try, in which order and when. Pure machines; the room for punching and NAT verdicts.
//!
//! | module | what it is |
//! |---|---|
//! | `candidate` | an address that might reach a peer, and the set that refuses those nobody should send to |
//! | `order` | who is tried first: near before far, IPv6 and IPv4 in turn |
//! | `dial` | [`DialRace`]: starts attempts one shortly after the other until one wins |
//! | `backoff` | [`Backoff`]: when to try again |
//!
//! Punch and port-scan schedules, NAT verdicts, path choice and keepalive learning (DESIGN section 7) come as modules
//! beside these.
//!
//! Floor 1: no socket, task or randomness, and the clock is an argument. Machines speak the house language: `handle_*`
//! tells what happened, `poll_event` says what to do (drain it after every `handle_*`), `poll_timeout` when to ask
//! again. Refuses to know: who a peer is, where candidates come from, what a packet is.

mod backoff;
mod budget;
mod candidate;
pub mod choice;
mod dial;
pub mod guess;
mod nat;
pub mod opener;
mod order;
mod probe;
mod random;
pub mod signal;
#[cfg(test)]
mod testing;
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
    order::in_dial_order,
    probe::{GUESS, KNOCK, OPENER, PROBE_LEN_MAX, Probe},
    random::Random,
};
