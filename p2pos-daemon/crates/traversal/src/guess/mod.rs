//! Guessing a port: a direct path between a NAT that keeps its port and one that changes it for every peer.
//!
//! Say Ana sits behind a port-restricted home router and Bo behind a symmetric carrier. Ana cannot know from which port
//! Bo's packets will come, so her router drops them; Bo's NAT lets nobody in whom he did not send to. But nothing
//! forbids Bo to have many ports:
//!
//! 1. Bo, the **hard side** ([`HardSide`]), opens many sockets, each with one low-TTL packet to Ana's address: that
//!    many ports of his NAT now wait for exactly Ana.
//! 2. He invites Ana, the **easy side** ([`EasySide`]), who sends guesses from her QUIC socket to port after port of
//!    Bo's address: the predictable ones first, then the block, then anywhere, none twice.
//! 3. The guess that meets a waiting port gets through, because Bo sent to Ana; Bo's hit comes back, because Ana just
//!    sent there. Now both know the four numbers of a path, and QUIC opens it on the running connection.
//!
//! With `n` sockets among 64,512 ports, `k` guesses all fail with probability (1 - n/64512)^k. With 480 sockets half of
//! all attempts end within 93 guesses and 98 % within 575; with 64 it would be 43 %. More sockets fill Bo's router,
//! more guesses Ana's, and neither has to remember 600 connections. Where the port can be predicted, 64 are plenty
//! (decision 0015).
//!
//! Two sequential NATs can meet too ([`Aim::Predicted`]): socket by socket each aims at the port that the other will be
//! given. One waits; the other guesses, and varies its aim by 0 to 15 ports for what other connections take meanwhile,
//! so that for each such slip some four of 64 pairs fit. Two NATs of which one is random cannot: 170,000
//! guesses.
//!
//! This looks like a port scan to those between, and fills tables that are not ours. Hence the budget: guesses at most
//! [`GUESSES_PER_SECOND_MAX`] and [`GUESSES_MAX`], one attempt at a time in the whole host, two attempts and then an hour
//! of rest for each pair of networks ([`GuessLedger`]), and an end at once when the relay path shows strain.
//!
//! Refuses to know: sockets, QUIC paths, when to try (`plan`).

mod easy;
mod hard;
mod ledger;
mod ports;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use self::{
    easy::{EasySide, GuessEnd, OutgoingGuess, Strain},
    hard::{Aim, HardEnd, HardEvent, HardSetup, HardSide},
    ledger::{GuessLedger, NetworkPair, NotNow},
    ports::PortGuesses,
};
use crate::nat::PortPattern;

/// Guesses in a second: an old home router's CPU creates a session for each. Half would make the median attempt take
/// 3.5 s; double reaches what intrusion detection calls a scan.
pub const GUESSES_PER_SECOND_MAX: u32 = 100;
/// Guesses in one attempt: a seventh of the session table of a small router (4,096 entries). Half would let a seventh of all
/// attempts fail; double would help one in fifty.
pub const GUESSES_MAX: u32 = 575;
/// Sockets of the hard side where ports can be predicted, or come from a block.
pub const SOCKETS_START: u16 = 64;
/// Sockets of the hard side at most: with [`GUESSES_MAX`] 98 % of attempts hit. Half would need twice the guesses.
pub const SOCKETS_MAX: u16 = 480;
/// Ports tried by prediction before anything else.
pub const PREDICTED_MAX: u16 = 8;
/// How often a hit is sent: it is small, and all depends on it.
pub const HITS: usize = 3;
/// Time for a whole attempt on either side: all guesses, and a slow relay for the invitation.
pub const ATTEMPT_DEADLINE: Duration = Duration::from_secs(12);
/// Attempts for each pair of networks before [`REST`].
pub const ATTEMPTS_MAX: u32 = 2;
/// Rest for a pair of networks after that.
pub const REST: Duration = Duration::from_secs(3_600);

/// Returns how many sockets the hard side opens for a pattern.
#[must_use]
pub fn sockets_for(pattern: PortPattern) -> u16 {
    match pattern {
        PortPattern::Sequential { .. } | PortPattern::Block(_) => SOCKETS_START,
        PortPattern::Random | PortPattern::Unknown => SOCKETS_MAX,
    }
}
