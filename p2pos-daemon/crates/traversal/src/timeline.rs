//! What was tried to reach a peer, when, and what came of it: what `p2pos explain` shows and error 302 carries.
//!
//! Plugins may see it, so it holds no address, only what kind of address it was. It is bounded: the beginning is kept,
//! where the connection was made, and the end; what is left out between is counted.
//!
//! Refuses to know: whom it is about.

use std::{
    collections::VecDeque,
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{Scope, choice::Tier, scope_of};

/// Entries kept. A first connection with a punch and a guess writes about fifteen.
pub const ENTRIES_MAX: usize = 64;
/// Of these, so many from the beginning.
pub const FIRST_ENTRIES: usize = 16;

/// What was tried, or happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Addresses of the peer were looked for.
    Lookup,
    /// The peer was dialled.
    Dial,
    /// A connection was there.
    Connect,
    /// The two NATs were compared.
    Compare,
    /// Both sides opened their NATs.
    Open,
    /// Both sides punched.
    Punch,
    /// Ports were guessed.
    Guess,
    /// A path became the one in use.
    Use,
    /// A path was silent.
    Silence,
    /// A path was closed.
    Close,
    /// The relay was called back.
    Relay,
    /// Our network changed.
    Network,
    /// The peer's addresses changed.
    Candidates,
    /// Nobody needed the connection, or somebody did again.
    Idle,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It began.
    Began,
    /// It worked.
    Worked,
    /// It did not.
    Failed,
    /// Not tried, because a rule or the user forbids it.
    Refused,
    /// It will be tried again after so long.
    Again(Duration),
}

/// What kind of way it was about; never the address itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// Within the machine or the network.
    Lan,
    /// IPv6.
    V6,
    /// IPv4.
    V4,
    /// IPv4, to a guessed port.
    Guessed,
    /// Over a relay.
    Relay,
    /// Over a relay by TCP.
    TcpRelay,
}

impl Way {
    /// Tells what kind of way leads to an address.
    #[must_use]
    pub fn to(addr: SocketAddr) -> Self {
        match (scope_of(addr.ip()), addr.ip().to_canonical().is_ipv6()) {
            (Scope::Loopback | Scope::Link | Scope::Lan, _) => Self::Lan,
            (Scope::Global, true) => Self::V6,
            (Scope::Global, false) => Self::V4,
        }
    }
}

impl From<Tier> for Way {
    fn from(tier: Tier) -> Self {
        match tier {
            Tier::Lan => Self::Lan,
            Tier::DirectV6 => Self::V6,
            Tier::DirectV4 => Self::V4,
            Tier::Guessed => Self::Guessed,
            Tier::Relay => Self::Relay,
            Tier::TcpRelay => Self::TcpRelay,
        }
    }
}

/// One line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Since the timeline began.
    pub after: Duration,
    /// What.
    pub step: Step,
    /// By which way, if that says anything.
    pub way: Option<Way>,
    /// With what result.
    pub outcome: Outcome,
}

/// What was tried to reach a peer.
#[derive(Debug, Clone)]
pub struct Timeline {
    began: Instant,
    first: Vec<Entry>,
    last: VecDeque<Entry>,
    left_out: u64,
}

impl Timeline {
    /// Begins now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { began: now, first: Vec::new(), last: VecDeque::new(), left_out: 0 }
    }

    /// Writes a line.
    pub fn record(&mut self, step: Step, way: Option<Way>, outcome: Outcome, now: Instant) {
        let entry = Entry { after: now.saturating_duration_since(self.began), step, way, outcome };
        if self.first.len() < FIRST_ENTRIES {
            self.first.push(entry);
            return;
        }
        if self.last.len() >= ENTRIES_MAX - FIRST_ENTRIES {
            self.last.pop_front();
            self.left_out += 1;
        }
        self.last.push_back(entry);
    }

    /// Returns the lines that are kept, in order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.first.iter().chain(&self.last)
    }

    /// Returns how many lines were left out, after the first [`FIRST_ENTRIES`].
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, entry) in self.entries().enumerate() {
            if index == FIRST_ENTRIES && self.left_out > 0 {
                writeln!(f, "       ...  {} lines left out", self.left_out)?;
            }
            writeln!(f, "{entry}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Lookup => "look up",
            Self::Dial => "dial",
            Self::Connect => "connect",
            Self::Compare => "compare NATs",
            Self::Open => "open NATs",
            Self::Punch => "punch",
            Self::Guess => "guess port",
            Self::Use => "use path",
            Self::Silence => "silent path",
            Self::Close => "close path",
            Self::Relay => "call relay",
            Self::Network => "network change",
            Self::Candidates => "new addresses",
            Self::Idle => "idle",
        })
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Lan => "LAN",
            Self::V6 => "IPv6",
            Self::V4 => "IPv4",
            Self::Guessed => "guessed port",
            Self::Relay => "relay",
            Self::TcpRelay => "TCP relay",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Began => f.pad("began"),
            Self::Worked => f.pad("worked"),
            Self::Failed => f.pad("failed"),
            Self::Refused => f.pad("not allowed"),
            Self::Again(after) => write!(f, "again in {} s", after.as_secs()),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = self.way.map(|way| way.to_string()).unwrap_or_default();
        write!(f, "{:>7} ms  {:<14}  {way:<12}  {}", self.after.as_millis(), self.step, self.outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::origin;

    #[test]
    fn the_beginning_and_the_end_are_kept_and_the_middle_is_counted() {
        let start = origin();
        let mut timeline = Timeline::new(start);
        for second in 0..100 {
            timeline.record(Step::Punch, Some(Way::V4), Outcome::Failed, start + Duration::from_secs(second));
        }
        let seconds: Vec<u64> = timeline.entries().map(|entry| entry.after.as_secs()).collect();
        assert_eq!(seconds.len(), ENTRIES_MAX);
        assert_eq!((seconds[15], seconds[16], seconds[63]), (15, 52, 99));
        assert_eq!(timeline.left_out(), 36);
        assert!(timeline.to_string().contains("36 lines left out"));
    }

    #[test]
    fn a_line_says_what_by_which_way_and_with_what_result_but_no_address() {
        let start = origin();
        let mut timeline = Timeline::new(start);
        let way = Way::to("45.1.2.3:4000".parse().unwrap());
        timeline.record(Step::Punch, Some(way), Outcome::Worked, start + Duration::from_millis(812));
        timeline.record(Step::Guess, None, Outcome::Again(Duration::from_secs(5)), start);
        assert_eq!(
            timeline.to_string(),
            "    812 ms  punch           IPv4          worked\n      0 ms  guess port                    again in 5 s\n"
        );
    }
}
