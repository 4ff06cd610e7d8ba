//! How long our NAT remembers a binding, and how seldom it may therefore be reminded.
//!
//! A binding without traffic is forgotten: after 30 s by some routers, after 5 minutes by others (RFC 4787 REQ-5 asks
//! for 2 minutes at least, and many do not care). Whoever does not know sends every 5 or 15 s for ever, which empties
//! batteries; whoever guesses too long is unreachable. So it is measured, once a day in each network, without risk to
//! living paths ([`CliffProbe`]):
//!
//! ```text
//!           warm: pings more than 2 s apart      silent                       ask: knock!
//! socket 0  .  .  .                              |---- 10 s ---|              arrives
//! socket 1  .  .  .                              |------- 20 s -------|       arrives
//!    ...                                                                      ...
//! socket 4  .  .  .                              |------------- 120 s ------------------|  nothing: it fell
//! ```
//!
//! Some NATs (Linux) remember a binding longer once both sides have talked for two seconds: hence the warming. Each
//! throw-away socket then keeps silent for one *cliff*, and another socket asks the helper, a peer that we are connected
//! to anyway, to knock. The knock that arrives proves that the binding lived so long. The longest cliff before the first
//! fall is the lifetime, and [`KeepAlive`] reminds the NAT after 0.8 of it: one path for the whole host when it is idle.
//!
//! What is measured may be wrong, so what happens counts more: a binding that was lost halves the interval, and a week
//! without loss gives back one cliff, up to what was measured.
//!
//! The helper ([`Knocker`]) answers only to tokens that were announced over the encrypted connection: a scanner gets no
//! answer, and nobody makes it send more than it receives.
//!
//! Refuses to know: sockets, who the helper is, which path is kept alive.

mod cliffs;
mod interval;
mod knocker;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use self::{
    cliffs::{CliffEvent, CliffProbe, Survived},
    interval::{KeepAlive, KeepAliveEvent},
    knocker::{Knocker, KnockerReply},
};

/// The silences that are tried. The first is for routers that are set shorter than any norm allows; beyond the last
/// nothing is gained, since once in four minutes costs nothing.
pub const CLIFFS: [Duration; 7] = [
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(120),
    Duration::from_secs(180),
    Duration::from_secs(300),
];

/// The interval while nothing is known. Half would be what others send for ever; 20 s would lose a binding at the
/// shortest timers of carriers.
pub const INTERVAL_UNKNOWN: Duration = Duration::from_secs(15);
/// The longest interval.
pub const INTERVAL_MAX: Duration = Duration::from_secs(240);
/// The shortest interval: below it something else is wrong.
pub const INTERVAL_MIN: Duration = Duration::from_secs(5);
/// The time after which the lifetime is measured again.
pub const MEASURE_AGAIN: Duration = Duration::from_secs(24 * 3_600);
/// The time after which a measurement that could not be made is tried again.
pub const MEASURE_RETRY: Duration = Duration::from_secs(600);
/// The time without loss that gives back one cliff.
pub const CALM: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Networks remembered, so that coming home does not mean measuring again.
pub const NETWORKS_MAX: usize = 32;
/// Bindings that a helper remembers for one peer: one measurement.
pub const BINDINGS_PER_PEER_MAX: u8 = 8;
/// Bindings that a helper remembers in all: 128 peers that measure at once. Beyond, they are not helped.
pub const BINDINGS_MAX: usize = 1_024;
