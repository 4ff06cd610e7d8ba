//! What p2pOS promises for a pair of kinds, and which part of that is built.
//!
//! The promise itself is `p2pos_traversal`'s: the lab only says which class of NAT each kind is, and which IP two sites have in common.
//! A promise whose part is not built yet is reported as missing, and never as kept: [`BUILT`] is the one place to change when it is.

use std::fmt;

use p2pos_traversal::NatClass;
use p2pos_traversal::predict::{Expected, predict_classes};
use serde::Serialize;

use crate::topology::Kind;

/// A part of p2pOS that a promise rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Dialling an address that the user typed.
    KnownAddress,
    /// Two sides that open their NATs for each other.
    Punching,
    /// Packets that open the own NAT and die before they reach the other.
    Opener,
    /// Guessing the port of a NAT that changes it.
    Guessing,
    /// Somebody else who forwards.
    Relay,
    /// The same over TCP, where there is no UDP.
    TcpRelay,
    /// Noticing within a second that the way in use has died, and going on by another or the same anew.
    Failover,
    /// Noticing that the own addresses have changed, and going on with others.
    NetworkChange,
    /// A port of the router, asked for by UPnP, NAT-PMP or PCP.
    PortMapping,
    /// The same through two routers.
    Cascade,
}

/// The parts that the daemon has and uses.
pub const BUILT: &[Part] = &[
    Part::KnownAddress,
    Part::Punching,
    Part::Opener,
    Part::Guessing,
    Part::Relay,
    Part::TcpRelay,
    Part::Failover,
    Part::NetworkChange,
    Part::PortMapping,
    Part::Cascade,
];

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::KnownAddress => "known address",
            Self::Punching => "punching",
            Self::Opener => "opener",
            Self::Guessing => "guessing",
            Self::Relay => "relay",
            Self::TcpRelay => "relay over TCP",
            Self::Failover => "failover",
            Self::NetworkChange => "network change",
            Self::PortMapping => "port mapping",
            Self::Cascade => "cascade of gateways",
        })
    }
}

/// What we promise for a pair, whoever of them dials.
#[must_use]
pub fn expected(a: Kind, b: Kind) -> Expected {
    let (mut v4, mut v6) = (None, None);
    if let (Some(a), Some(b)) = (class_v4(a), class_v4(b)) {
        v4 = Some(predict_classes(a, b));
    }
    if let (Some(a), Some(b)) = (class_v6(a), class_v6(b)) {
        v6 = Some(predict_classes(a, b));
    }
    // The better of two ways; without one in common, the relay has both IPs.
    let has_udp = |kind| class_v4(kind).or_else(|| class_v6(kind)) != Some(NatClass::UdpBlocked);
    let relayed = if has_udp(a) && has_udp(b) { Expected::Relayed } else { Expected::TcpRelayed };
    [v4, v6].into_iter().flatten().min().unwrap_or(relayed)
}

/// The part without which the promise cannot be kept when `from` dials `to`.
#[must_use]
pub fn needs(from: Kind, to: Kind) -> Part {
    match expected(from, to) {
        Expected::Direct if matches!(to, Kind::Public | Kind::FullCone) => Part::KnownAddress,
        Expected::Direct => Part::Punching,
        Expected::DirectWithOpener => Part::Opener,
        Expected::DirectByGuess => Part::Guessing,
        Expected::Relayed => Part::Relay,
        Expected::TcpRelayed => Part::TcpRelay,
    }
}

/// The word for an expectation, as tables show it.
#[must_use]
pub fn word(expected: Expected) -> &'static str {
    match expected {
        Expected::Direct => "direct",
        Expected::DirectWithOpener => "direct-with-opener",
        Expected::DirectByGuess => "direct-by-guess",
        Expected::Relayed => "relayed",
        Expected::TcpRelayed => "tcp-relayed",
    }
}

/// Which class of NAT a kind is for IPv4, if it has any.
fn class_v4(kind: Kind) -> Option<NatClass> {
    Some(match kind {
        Kind::Public => NatClass::Public,
        Kind::FullCone => NatClass::FullCone,
        Kind::AddressRestricted => NatClass::AddressRestricted,
        Kind::PortRestricted | Kind::Hairpin | Kind::Home | Kind::Firewall | Kind::DualStack => {
            NatClass::PortRestricted
        }
        Kind::HomeOpen => NatClass::CollisionProne,
        Kind::Sequential => NatClass::Sequential,
        Kind::PortBlock => NatClass::Block,
        // A port that hangs on an address nobody has called yet cannot be foreseen either.
        Kind::AddressDependent | Kind::Random | Kind::CarrierOverHome => NatClass::Random,
        Kind::UdpBlocked | Kind::Tcp443Only => NatClass::UdpBlocked,
        Kind::Ipv6Only => return None,
    })
}

/// The same for IPv6: nobody translates it, but firewalls stand before it.
fn class_v6(kind: Kind) -> Option<NatClass> {
    match kind {
        Kind::Public => Some(NatClass::Public),
        Kind::Ipv6Only | Kind::DualStack => Some(NatClass::PortRestricted),
        Kind::FullCone
        | Kind::AddressRestricted
        | Kind::PortRestricted
        | Kind::Hairpin
        | Kind::Home
        | Kind::HomeOpen
        | Kind::AddressDependent
        | Kind::Sequential
        | Kind::PortBlock
        | Kind::Random
        | Kind::CarrierOverHome
        | Kind::Firewall
        | Kind::UdpBlocked
        | Kind::Tcp443Only => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_does_not_hang_on_who_dials() {
        for (a, b) in Kind::ALL.into_iter().flat_map(|a| Kind::ALL.map(|b| (a, b))) {
            assert_eq!(expected(a, b), expected(b, a), "{a} and {b}");
        }
    }

    #[test]
    fn the_corners_of_the_table_are_as_connectivity_promises_them() {
        use Expected::{Direct, DirectByGuess, DirectWithOpener, Relayed, TcpRelayed};
        for (a, b, promise) in [
            (Kind::Public, Kind::Random, Direct),
            (Kind::AddressRestricted, Kind::AddressDependent, Direct),
            (Kind::Home, Kind::Firewall, Direct),
            (Kind::Home, Kind::HomeOpen, DirectWithOpener),
            (Kind::Home, Kind::CarrierOverHome, DirectByGuess),
            (Kind::Sequential, Kind::Sequential, DirectByGuess),
            (Kind::Random, Kind::PortBlock, Relayed),
            (Kind::UdpBlocked, Kind::Public, TcpRelayed),
            (Kind::Tcp443Only, Kind::Ipv6Only, TcpRelayed),
            // No IP in common, but the relay has both.
            (Kind::Ipv6Only, Kind::FullCone, Relayed),
            (Kind::Ipv6Only, Kind::DualStack, Direct),
            (Kind::Ipv6Only, Kind::Public, Direct),
        ] {
            assert_eq!(expected(a, b), promise, "{a} and {b}");
        }
    }

    #[test]
    fn only_a_host_whose_address_is_open_to_all_needs_nothing_but_its_address() {
        assert_eq!(needs(Kind::Random, Kind::Public), Part::KnownAddress);
        assert_eq!(needs(Kind::Public, Kind::Random), Part::Punching);
        assert_eq!(needs(Kind::Home, Kind::FullCone), Part::KnownAddress);
        assert_eq!(needs(Kind::Ipv6Only, Kind::FullCone), Part::Relay);
    }
}
