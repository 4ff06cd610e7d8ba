//! A network as data: what a site is made of, before anything is built. Words are RFC 4787's.
//!
//! A [`Site`] is one user's way to the Internet: a host behind any number of routers, the carrier's first. [`Kind`] names the sites that the
//! matrix knows; every other site is written down by hand (three layers, odd lifetimes).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Error, bail};
use serde::{Serialize, Serializer};

use crate::wire::Link;

/// What a router does to addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translation {
    /// Nothing: the addresses behind it are public.
    None,
    /// One port for all destinations (EIM), kept as the host chose it.
    Independent(Filtering),
    /// Plain Linux masquerade: the host's port for every destination, unless somebody else's entry is in the way. Filters by connection.
    Home {
        /// What becomes of packets for the router itself that nobody asked for.
        input: Input,
    },
    /// Another port for each destination address (ADM).
    PerAddress,
    /// Another port for each destination address and port (APDM).
    PerDestination(Ports),
}

/// Which packets from outside reach a port that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtering {
    /// Everybody's (EIF).
    Independent,
    /// Those from addresses that the host has sent to (ADF).
    ByAddress,
    /// Those from addresses and ports that the host has sent to (APDF).
    ByAddressAndPort,
}

/// What a home router does with packets for itself that nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Drops them: they leave no trace.
    Dropped,
    /// Lets its kernel answer "port unreachable". The kernel books an entry for each, and when the host behind wants to send to the same
    /// place a moment later, the port is taken: it gets another. So the router becomes symmetric for whoever knocks before he is called.
    Answered,
}

/// How a symmetric NAT chooses ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// One after the other.
    Sequential,
    /// At random within a block of 1,024, as carriers give them to subscribers.
    Block,
    /// At random.
    Random,
}

/// What a router lets out at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// Everything.
    All,
    /// No UDP.
    NoUdp,
    /// TCP to port 443, and nothing else.
    Tcp443,
}

/// How long a UDP binding lives without traffic. Linux tells two states apart: RFC 4787 REQ-5 knows only the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// As long as the two sides have not talked for more than two seconds.
    pub fresh: Duration,
    /// Afterwards.
    pub stream: Duration,
}

/// What Linux takes if nobody says anything; most home routers are Linux.
pub const LINUX_LIFETIMES: Lifetimes =
    Lifetimes { fresh: Duration::from_secs(30), stream: Duration::from_secs(120) };

/// One router, with a side towards the Internet and a side towards the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Router {
    /// What it does to addresses.
    pub translation: Translation,
    /// What it lets out.
    pub outbound: Outbound,
    /// Whether hosts behind it reach each other by its public address (RFC 4787 REQ-9). For [`Translation::Independent`] only.
    pub has_hairpin: bool,
    /// How long bindings live.
    pub lifetimes: Lifetimes,
}

impl Router {
    /// One that translates so, lets everything out, has no hairpin and Linux's lifetimes.
    #[must_use]
    pub fn new(translation: Translation) -> Self {
        Self { translation, outbound: Outbound::All, has_hairpin: false, lifetimes: LINUX_LIFETIMES }
    }

    /// The same with other lifetimes.
    #[must_use]
    pub fn lifetimes(self, fresh: Duration, stream: Duration) -> Self {
        Self { lifetimes: Lifetimes { fresh, stream }, ..self }
    }

    /// Whether hosts behind it have private IPv4 addresses.
    #[must_use]
    pub fn translates(&self) -> bool {
        self.translation != Translation::None
    }
}

/// Which IP a site has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both. IPv6 is never translated; a router lets nobody in who was not called (RFC 6092).
    Dual,
}

impl Stack {
    /// Whether there is IPv4.
    #[must_use]
    pub fn has_v4(self) -> bool {
        self != Self::V6
    }

    /// Whether there is IPv6.
    #[must_use]
    pub fn has_v6(self) -> bool {
        self != Self::V4
    }
}

/// Which address a router has that stands behind another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inner {
    /// One of the range that is there for this (RFC 6598), in one network with the router before it.
    Shared,
    /// One that looks public, alone at the end of its line as with PPP: the router before it has an address of the shared range.
    LooksPublic,
}

/// One user's way to the Internet.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    /// Its name within the lab: short, letters and digits.
    pub name: String,
    /// Routers, that of the carrier first; without one the host is on the Internet itself.
    pub routers: Vec<Router>,
    /// Which IP it has.
    pub stack: Stack,
    /// How many hosts there are behind the last router.
    pub hosts: u8,
    /// How routers behind the first are numbered.
    pub inner: Inner,
    /// What its line to the Internet does to packets, to the site and from it. `None`: nothing, at memory's speed.
    pub line: Option<(Link, Link)>,
}

impl Site {
    /// A site with these routers, IPv4 and one host.
    #[must_use]
    pub fn new(name: impl Into<String>, routers: Vec<Router>) -> Self {
        Self { name: name.into(), routers, stack: Stack::V4, hosts: 1, inner: Inner::Shared, line: None }
    }

    /// The same on another stack.
    #[must_use]
    pub fn stack(self, stack: Stack) -> Self {
        Self { stack, ..self }
    }

    /// The same with several hosts.
    #[must_use]
    pub fn hosts(self, hosts: u8) -> Self {
        Self { hosts, ..self }
    }

    /// The same with its inner routers numbered so.
    #[must_use]
    pub fn inner(self, inner: Inner) -> Self {
        Self { inner, ..self }
    }

    /// The same at the end of a long wire: what happens to packets towards the site, and to those that it sends.
    #[must_use]
    pub fn line(self, down: Link, up: Link) -> Self {
        Self { line: Some((down, up)), ..self }
    }
}

/// The sites of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A host on the Internet, both IPs.
    Public,
    /// EIM, EIF.
    FullCone,
    /// EIM, ADF.
    AddressRestricted,
    /// EIM, APDF.
    PortRestricted,
    /// The same with hairpin.
    Hairpin,
    /// Linux masquerade, input dropped.
    Home,
    /// Linux masquerade, input answered: prone to collisions.
    HomeOpen,
    /// ADM, APDF.
    AddressDependent,
    /// APDM with ports one after the other.
    Sequential,
    /// APDM with ports from a block.
    PortBlock,
    /// APDM with random ports.
    Random,
    /// A home router behind a carrier's NAT that is APDM with random ports.
    CarrierOverHome,
    /// No NAT, and nobody gets in who was not called.
    Firewall,
    /// No UDP gets out.
    UdpBlocked,
    /// Only TCP to port 443 gets out.
    Tcp443Only,
    /// IPv6 alone, behind a firewall.
    Ipv6Only,
    /// A home router for IPv4, a firewall for IPv6.
    DualStack,
}

impl Kind {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 17] = [
        Self::Public,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Hairpin,
        Self::Home,
        Self::HomeOpen,
        Self::AddressDependent,
        Self::Sequential,
        Self::PortBlock,
        Self::Random,
        Self::CarrierOverHome,
        Self::Firewall,
        Self::UdpBlocked,
        Self::Tcp443Only,
        Self::Ipv6Only,
        Self::DualStack,
    ];

    /// Its name on the command line and in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::FullCone => "full-cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Hairpin => "hairpin",
            Self::Home => "home",
            Self::HomeOpen => "home-open",
            Self::AddressDependent => "address-dependent",
            Self::Sequential => "sequential",
            Self::PortBlock => "port-block",
            Self::Random => "random",
            Self::CarrierOverHome => "carrier-over-home",
            Self::Firewall => "firewall",
            Self::UdpBlocked => "udp-blocked",
            Self::Tcp443Only => "tcp443-only",
            Self::Ipv6Only => "ipv6-only",
            Self::DualStack => "dual-stack",
        }
    }

    /// The site, under that name.
    #[must_use]
    pub fn site(self, name: &str) -> Site {
        let one = |translation| Site::new(name, vec![Router::new(translation)]);
        match self {
            Self::Public => Site::new(name, Vec::new()).stack(Stack::Dual),
            Self::FullCone => one(Translation::Independent(Filtering::Independent)),
            Self::AddressRestricted => one(Translation::Independent(Filtering::ByAddress)),
            Self::PortRestricted => one(Translation::Independent(Filtering::ByAddressAndPort)),
            Self::Hairpin => {
                let translation = Translation::Independent(Filtering::ByAddressAndPort);
                Site::new(name, vec![Router { has_hairpin: true, ..Router::new(translation) }])
            }
            Self::Home => one(HOME),
            Self::HomeOpen => one(Translation::Home { input: Input::Answered }),
            Self::AddressDependent => one(Translation::PerAddress),
            Self::Sequential => one(Translation::PerDestination(Ports::Sequential)),
            Self::PortBlock => one(Translation::PerDestination(Ports::Block)),
            Self::Random => one(RANDOM),
            Self::CarrierOverHome => Site::new(name, vec![Router::new(RANDOM), Router::new(HOME)]),
            Self::Firewall => one(Translation::None),
            Self::UdpBlocked => {
                Site::new(name, vec![Router { outbound: Outbound::NoUdp, ..Router::new(HOME) }])
            }
            Self::Tcp443Only => {
                Site::new(name, vec![Router { outbound: Outbound::Tcp443, ..Router::new(HOME) }])
            }
            Self::Ipv6Only => one(Translation::None).stack(Stack::V6),
            Self::DualStack => one(HOME).stack(Stack::Dual),
        }
    }
}

/// The home router that most people have.
pub const HOME: Translation = Translation::Home { input: Input::Dropped };
/// The NAT that nobody can foresee.
pub const RANDOM: Translation = Translation::PerDestination(Ports::Random);

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        if let Some(kind) = Self::ALL.into_iter().find(|kind| kind.name() == name) {
            return Ok(kind);
        }
        let all: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
        bail!("there is no kind {name:?}; there are: {}", all.join(", "));
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_is_found_by_its_name_and_no_name_is_used_twice() {
        let names: BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse::<Kind>().unwrap(), kind);
        }
        assert!("hom".parse::<Kind>().unwrap_err().to_string().contains("home-open"));
    }
}
